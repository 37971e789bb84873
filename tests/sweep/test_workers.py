"""The process that starts workers: whatever ends it, they do not go on without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vgx.errors import Interrupted
from vgx_sweep.workers import run_workers, threads_each

# In place of `vgx`: it lasts as long as its standard input, as a worker does.
STUB = f"""#!{sys.executable}
import sys
print("begun", flush=True)
try:
    sys.stdin.read()
    print("ended")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """The output of two workers that are no `vgx`."""
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    return [tmp_path / "1.txt", tmp_path / "2.txt"]


def begun(logs):
    return all(log.is_file() and "begun" in log.read_text() for log in logs)


def test_an_error_of_the_process_that_looks_ends_its_workers(logs):
    def look():
        if begun(logs):
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        run_workers([], {}, logs, look)
    assert [log.read_text() for log in logs] == ["begun\nended\n"] * 2


def test_a_worker_whose_starter_is_gone_ends_as_by_sigterm():
    """Of a study with real trainings in tests/sweep/test_sweep.py, in the thorough tier."""
    program = "import time\nfrom vgx_sweep.workers import end_with_parent\nend_with_parent()\n"
    program += "print('begun', flush=True)\ntime.sleep(60)\n"
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout.readline() == "begun\n"
    assert worker.poll() is None
    worker.communicate(timeout=30)  # which closes the pipe, as the end of this process would
    assert worker.returncode == -signal.SIGTERM


def test_a_second_ctrl_c_does_not_wait_for_a_look_that_waits_for_a_server(logs):
    def interrupt():
        while not begun(logs):
            time.sleep(0.05)
        for _ in range(2):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    person = threading.Thread(target=interrupt)
    person.start()
    start = time.monotonic()
    with pytest.raises(Interrupted):
        run_workers([], {}, logs, lambda: time.sleep(100))
    person.join()
    assert time.monotonic() - start < 60
    assert [log.read_text() for log in logs] == ["begun\ninterrupted\n"] * 2
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("given", "expected"), [("", 3), ("4", 2), ("1", 1)])
def test_the_cores_are_shared_also_where_no_process_can_be_bound_to_some(
    monkeypatch, given, expected
):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads_each(2) == expected
