"""Signals that end a training after the current step."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Generator, Iterator
from typing import Any, Protocol, TypeVar

from vgx.console import Console
from vgx.distributed.state import group
from vgx.errors import Interrupted
from vgx.training.state import TrainedStep

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
T = TypeVar("T")


class Stoppable(Protocol):
    """A training that a signal ends after its current step."""

    stop: int  # the number of the signal, or 0

    @property
    def finished(self) -> bool:
        """Whether it is trained to the end and saved."""
        ...


@contextlib.contextmanager
def signals(training: Stoppable, console: Console) -> Iterator[None]:
    """Let a signal end the training after the current step; print that at once.

    The signals are SIGINT, SIGTERM, SIGHUP (its terminal was closed) and SIGUSR1, the warning of
    SLURM before a time limit (`--signal=USR1@90`). A second SIGINT ends the program at once. A
    SIGHUP that is ignored, as after `nohup`, stays ignored.
    """

    def note(number: int, _: object) -> None:
        # Schedulers repeat their SIGTERM; a second Ctrl-C means that the user does not wait. A
        # launcher repeats that of the terminal to each of its processes.
        if training.stop and number == signal.SIGINT and group().size == 1:
            raise Interrupted
        if not training.stop:
            messages.put(_acknowledged(training, number))
        training.stop = training.stop or number

    def print_messages() -> None:
        while text := messages.get():  # "" ends the thread
            console.print(text)

    if not _may_set_handlers():
        yield
        return
    # A handler may interrupt any line, also one that prints, so another thread prints for it.
    # This kind of queue may be used in a handler.
    messages = queue.SimpleQueue[str]()
    printer = threading.Thread(target=print_messages, daemon=True)
    printer.start()
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    numbers = [number for number in NUMBERS if not (ignored and number == signal.SIGHUP)]
    try:
        with _in_force(dict.fromkeys(numbers, note)):
            yield
    finally:
        messages.put("")
        printer.join(1)  # seconds: the reader of the output may be slow


def only_in_steps(steps: Generator[TrainedStep, None, T]) -> Generator[TrainedStep, None, T]:
    """Give each step of a training, whose handlers of signals are in force only while it computes.

    The code of whoever takes the steps is interrupted as any other, and a generator that is kept
    and never goes on takes no signal of the program.
    """
    handlers: dict[int, Any] = {}  # of the training, while the caller's are in force
    try:
        while True:
            with _in_force(handlers):
                try:
                    step = next(steps)
                except StopIteration as end:
                    result: T = end.value
                    return result
            yield step
    finally:
        with _in_force(handlers):
            steps.close()


@contextlib.contextmanager
def _in_force(handlers: dict[int, Any]) -> Iterator[None]:
    """Set handlers for the block, and note in the dictionary those that it leaves."""
    if not _may_set_handlers():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in NUMBERS}
    _set(handlers)
    try:
        yield
    finally:
        if _may_set_handlers():  # a generator may go on in another thread
            handlers.update({number: signal.getsignal(number) for number in NUMBERS})
            _set(before)


def _set(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None: it was set by a library in C
            signal.signal(number, handler)


def _may_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()


def _acknowledged(training: Stoppable, number: int) -> str:
    """Return what the first signal does, for people."""
    again = " again" if number == signal.SIGINT else ""
    if training.finished:
        what = f"what is trained is saved already; Ctrl-C{again} ends the program at once"
    else:
        what = f"stopping after this step; Ctrl-C{again} ends the program at once, without saving"
    return f"{signal.Signals(number).name}: {what}"
