"""How much memory something takes, whatever the process had before."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")


@contextmanager
def grows_by_less_than(size):
    """Hold that this process takes less than `size` more bytes in the block, at its peak too.

    The peak begins anew: that of the whole process may be of a test that came before.
    """
    Path("/proc/self/clear_refs").write_text("5")
    before = taken("VmRSS")
    yield
    assert taken("VmHWM") - before < size


def taken(name):
    """The bytes of memory that the process has (VmRSS), or has had at most (VmHWM)."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1])
