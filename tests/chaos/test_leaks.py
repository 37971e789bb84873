"""A long run is as large at its end as at its beginning."""

from __future__ import annotations

import json
from statistics import median

import pytest

# Notes memory (in KiB), open files and threads every hundred steps.
NOTING = """
import gc, json, os
from pathlib import Path
from vgx.training.loop import Training
does, noted = Training.step, []
LEAK = {leak}
held = []
def stepping(self):
    values = does(self)
    if LEAK:
        held.append(bytearray(20_000))
    if self.done % 100 == 0:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        memory, threads = (
            int(status.partition(name + ":")[2].split()[0]) for name in ("VmRSS", "Threads")
        )
        noted.append((memory, len(os.listdir("/proc/self/fd")), threads))
        Path("noted.json").write_text(json.dumps(noted))
    return values
Training.step = stepping
"""


def noted(forkserver, folder, tiny, *, leak):
    length = {"steps": 2000, "save_every": 200, "draw_every": 250, "log_every": 5, "keep": 3}
    sets = [word for key, value in length.items() for word in ("--set", f"train.{key}={value}")]
    forkserver.run(folder, "run", tiny, *sets, hook=NOTING.replace("{leak}", str(leak)))
    return json.loads((folder / "noted.json").read_text())


def slope(memory):
    """KiB a thousand steps, from the median of the first third to that of the last.

    A pool that an allocator fills once is no leak, whenever it does so.
    """
    third = len(memory) // 3
    steps = 100 * (len(memory) - third)
    return (median(memory[-third:]) - median(memory[:third])) * 1000 / steps


@pytest.mark.bar("M1")
@pytest.mark.chaos
def test_memory_files_and_threads_stay_as_they_are(forkserver, tmp_path, tiny):
    values = noted(forkserver, tmp_path, tiny, leak=False)
    warm = values[2:]  # allocators fill their pools in the first steps
    memory, files, threads = zip(*warm, strict=True)
    assert slope(memory) <= 1024
    assert len(set(files)) == 1
    assert len(set(threads)) == 1
    (run,) = (tmp_path / "runs").iterdir()
    assert len(list((run / "checkpoints").iterdir())) == 3


@pytest.mark.bar("M1", control="twenty kilobytes a step kept")
@pytest.mark.chaos
def test_a_leak_would_be_seen(forkserver, tmp_path, tiny, record_property):
    """The negative control: twenty kilobytes a step."""
    values = noted(forkserver, tmp_path, tiny, leak=True)
    memory, _, _ = zip(*values[2:], strict=True)
    assert slope(memory) > 1024
    record_property("seen", f"{slope(memory) / 1024:.0f} MiB more in 1,000 steps")
