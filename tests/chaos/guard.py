"""Runs command lines of vgx under an audit hook that notes processes, sockets and code.

Reads one JSON list of command lines from standard input; writes one JSON line for each: its exit
code, its messages, what it did that reading does not need, its seconds on the processor, and the
bytes by which its memory grew at most. A command that takes or waits a minute ends the process.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import sys
import time
import warnings
from pathlib import Path

WATCHED = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
    "subprocess.Popen", "pty.spawn", "socket.connect", "socket.bind", "socket.sendto",
    "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "ctypes.dlopen",
    "pickle.find_class", "webbrowser.open", "code.__new__",
)  # fmt: skip


def memory(name):
    """The bytes of memory that the process has (VmRSS), or has had at most (VmHWM)."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", text)[1])


def main():
    """Warm up, set the hook, and run the commands."""
    import timm
    import torch
    import torchvision

    import vgx
    from vgx.cli import run_program
    from vgx.training import session

    del timm, torchvision, session
    torch.set_num_threads(1)
    vgx.discover()
    warnings.simplefilter("ignore")
    events, on = [], [False]

    def hook(event, arguments):
        details = str(arguments)[:80]
        # PyTorch looks for a graphics card, and Python for the name of the machine; libraries that
        # are installed bring libraries of their own. A training tells the C library to keep memory.
        known = any(text in details for text in ("libnvidia", "'libc.so.6'", "'uname'", sys.prefix))
        if on[0] and event in WATCHED and not known:
            events.append(f"{event} {details}")

    sys.addaudithook(hook)
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        events.clear()
        on[0] = True
        signal.alarm(60)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory begins anew
        before, start = memory("VmRSS"), time.process_time()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = run_program(json.loads(line))
            except BaseException as error:  # noqa: BLE001 - nothing may come this far
                code = f"{type(error).__name__}: {error}"
        seconds, grown = time.process_time() - start, memory("VmHWM") - before
        signal.alarm(0)
        on[0] = False
        answer = {"code": code, "err": err.getvalue(), "out": out.getvalue(), "events": events}
        answer |= {"seconds": seconds, "grown": grown}
        sys.__stdout__.write(json.dumps(answer) + "\n")
        sys.__stdout__.flush()


if __name__ == "__main__":
    main()
