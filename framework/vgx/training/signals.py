"""Signals that end a training after the current step."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator

from vgx.console import Console
from vgx.errors import Interrupted
from vgx.training.loop import Training


@contextlib.contextmanager
def signals(training: Training, console: Console) -> Iterator[None]:
    """Let a signal end the training after the current step; print that at once.

    The signals are SIGINT, SIGTERM, SIGHUP (its terminal was closed) and SIGUSR1, the warning of
    SLURM before a time limit (`--signal=USR1@90`). A second SIGINT ends the program at once. A
    SIGHUP that is ignored, as after `nohup`, stays ignored.
    """

    def note(number: int, _: object) -> None:
        # Schedulers repeat their SIGTERM; a second Ctrl-C means that the user does not wait.
        if training.stop and number == signal.SIGINT:
            raise Interrupted
        if not training.stop:
            messages.put(_acknowledged(training, number))
        training.stop = training.stop or number

    def print_messages() -> None:
        while text := messages.get():  # "" ends the thread
            console.print(text)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A handler may interrupt any line, also one that prints, so another thread prints for it.
    # This kind of queue may be used in a handler.
    messages = queue.SimpleQueue[str]()
    printer = threading.Thread(target=print_messages, daemon=True)
    printer.start()
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    old = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        messages.put("")
        printer.join(1)  # seconds: the reader of the output may be slow


def _acknowledged(training: Training, number: int) -> str:
    """Return what the first signal does, for people."""
    again = " again" if number == signal.SIGINT else ""
    if training.done == training.saved == training.engine.steps:
        what = f"the run is trained and saved already; Ctrl-C{again} ends the program at once"
    else:
        what = f"stopping after this step; Ctrl-C{again} ends the program at once, without saving"
    return f"{signal.Signals(number).name}: {what}"
