"""Several processes on this machine for one command: `vgx run RECIPE --processes 4`.

They are started and watched by the launcher of PyTorch that is also behind torchrun.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from vgx.errors import LostError

LAUNCHER = "VGX_LAUNCHER"  # the process that started this one
PATIENCE = 3600  # seconds that processes may take to save after a signal
PR_SET_PDEATHSIG = 1  # of Linux


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `vgx ARGUMENTS` in so many processes; return their exit code.

    They share the cores, unless OMP_NUM_THREADS is set. Signals are passed on, and a second Ctrl-C
    ends all at once.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    def interrupt(*_: object) -> None:
        if os.environ.pop(LAUNCHER, None) is None:
            os._exit(130)  # the processes end with it
        raise SignalException("Ctrl-C", signal.SIGINT)

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // processes)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ[LAUNCHER] = str(os.getpid())
    passed_on = [signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # of nohup
        passed_on.append(signal.SIGHUP)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    logging.disable()  # of what the launcher does; the processes have messages of their own
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, max_restarts=0,
        run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        local_addr="localhost", logs_specs=DefaultLogsSpecs(os.devnull),
        signals_to_handle=",".join(each.name for each in passed_on), shutdown_timeout=PATIENCE,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "vgx", *arguments)
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        return _exit_code(error.failures, processes)
    return 0


def _cores() -> int:
    """Return how many cores this program may use."""
    here = getattr(os, "sched_getaffinity", None)
    return len(here(0)) if here else os.cpu_count() or 1


def _exit_code(failures: dict[int, Any], processes: int) -> int:
    """Return the exit code of processes that failed, or raise `LostError` for one that was killed.

    Those that the launcher ended because of others are left out.
    """
    codes = {rank: failure.exitcode for rank, failure in failures.items()}
    for rank, code in codes.items():
        if code < 0 and code != -signal.SIGTERM:
            name = signal.Signals(-code).name
            raise LostError(f"process {rank} of {processes} was ended by {name}")
    ended = 128 + signal.SIGTERM
    return next((code for code in codes.values() if code not in (ended, -signal.SIGTERM)), ended)


def end_with_launcher() -> None:
    """Let the system kill this process when `launch`, which started it, is gone."""
    if os.environ.get(LAUNCHER) == str(os.getppid()):
        with contextlib.suppress(AttributeError, OSError):  # another system than Linux
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def option_for(processes: int) -> str:
    """Return the option with which a command goes on as it was started; "" without `launch`."""
    return f" --processes {processes}" if LAUNCHER in os.environ else ""
