"""Several workers on one machine: processes that share the cores and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vgx.errors import Interrupted

POLL = 0.5  # seconds
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def threads_each(workers: int) -> int:
    """Return how many threads each worker gets: its share of the cores, at least one.

    OMP_NUM_THREADS, where it is set, is the number of threads of all of them together.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    given = os.environ.get(THREADS[0], "")
    if given.isdecimal() and int(given):
        cores = min(cores, int(given))
    return max(cores // workers, 1)


def run_workers(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    logs: Sequence[Path],
    on_poll: Callable[[], None],
) -> tuple[list[int], int]:
    """Start a worker for each log, which gets its output, and wait until all have ended.

    Each is `vgx` with these arguments. A signal to this process goes to each of them, which then
    saves its run; a second Ctrl-C ends them at once. `on_poll` is called twice a second; an error
    of it ends the workers too. Returns their exit codes, negative for those that were killed, and
    the number of the signal, or 0.
    """
    share = str(threads_each(len(logs)))
    variables = {**os.environ, **environment, **dict.fromkeys(THREADS, share)}
    # -P: nothing is imported from the working directory.
    command = [sys.executable, "-P", "-m", "vgx", *arguments]
    workers: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)
        if number == signal.SIGINT and len(received) > 1:
            raise Interrupted  # `look` may wait for a server

    # A SIGHUP that is ignored, as after `nohup`, stays ignored.
    heard = NUMBERS[:-1] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else NUMBERS
    before = {number: signal.signal(number, forward) for number in heard}
    try:
        for log in logs:
            with log.open("ab") as output:
                # A group of its own: Ctrl-C at the terminal reaches it once, through this process.
                worker = subprocess.Popen(  # noqa: S603
                    command, stdin=subprocess.PIPE, stdout=output, stderr=output,
                    env=variables, process_group=0,
                )  # fmt: skip
            workers.append(worker)
            if received:  # it came before this one had begun
                worker.send_signal(received[0])
        while any(worker.poll() is None for worker in workers):
            time.sleep(POLL)
            on_poll()
    finally:
        for worker in workers:  # those that are left end by it, see `end_with_parent`
            worker.communicate()
        for number, handler in before.items():
            signal.signal(number, handler)
    return [worker.returncode for worker in workers], received[0] if received else 0


def end_with_parent() -> None:
    """Let this worker end as by SIGTERM, its run saved, when the process that started it is gone.

    Its standard input is a pipe that nobody writes to. However the other process ends, also when it
    is killed, the system closes the pipe.
    """

    def watch() -> None:
        os.read(0, 1)  # not by `sys.stdin`, whose lock would be held when this process ends
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
