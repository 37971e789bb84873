"""The same recipe again: the same bits, whatever is logged, drawn and saved on the way."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
from forkserver import NO_PAGE

OFTEN = ("log_every", "draw_every", "save_every")
# The negative control: every draw comes from the one generator that everybody shares.
# Only from the first step on: the audit would refuse it.
SHARED = """
import torch
from vgx import rng
from vgx.training import environment
room = environment.room
def shared(*given):
    rng.generator = lambda *_, device="cpu": torch.default_generator
    return room(*given)
environment.room = shared
"""


def ends(forkserver, folder, tiny, end_of, often, hook=""):
    """What the runs come to, each in a process of its own with one thread."""
    for number, every in enumerate(often):
        sets = [f"train.{name}={value}" for name, value in zip(OFTEN, every, strict=True)]
        words = [word for text in sets for word in ("--set", text)]
        out = ("--out", folder / str(number))
        forkserver.run(folder, "run", tiny, *words, *out, hook=hook, pages=False)
        (run,) = (folder / str(number)).iterdir()
        yield end_of(run)


@pytest.mark.bar("R8")
@pytest.mark.parametrize("n", [3, pytest.param(10, marks=pytest.mark.chaos)])
def test_a_run_repeats_whatever_is_done_on_the_way(
    forkserver, tmp_path, tiny, end_of, record_property, n
):
    generator = random.Random(n)
    often = [[generator.randint(1, 25) for _ in OFTEN] for _ in range(n)]
    assert len({tuple(every) for every in often}) == n
    newest, sums, logs = zip(*ends(forkserver, tmp_path, tiny, end_of, often), strict=True)
    assert set(newest) == {"step-00000020"}
    assert len(sums[0]) == 3
    assert all(other == sums[0] for other in sums)
    first = {line["step"]: line["losses"] for line in logs[0]}
    for log in logs:  # what two of them logged is the same
        assert all(line["losses"] == first.get(line["step"], line["losses"]) for line in log)
    record_property("cases", n)


PROGRAM = (
    f"{NO_PAGE}import sys\nfrom vgx.cli import run_program\nsys.exit(run_program(sys.argv[1:]))"
)


@pytest.mark.bar("R8")
def test_a_run_repeats_where_sets_have_another_order(tmp_path, tiny, end_of):
    """In Pythons of their own, each with other hashes of text; forks of one process share them."""
    sets = ("train.steps=20", "train.clip=0.1", "train.draw_every=100", "train.save_every=20")
    words = [word for text in sets for word in ("--set", text)]
    ends = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "run", str(tiny), *words, "--out", str(folder)],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=True,
        )
        ends.append(end_of(*folder.iterdir()))
    assert ends[0][0] == "step-00000020"
    assert ends[0] == ends[1]


@pytest.mark.chaos
@pytest.mark.bar("R8", control="random numbers from one shared generator")
def test_a_shared_generator_would_be_seen(forkserver, tmp_path, tiny, end_of, record_property):
    often = [(5, 20, 20), (5, 3, 20), (5, 7, 20)]
    sums = [found for _, found, _ in ends(forkserver, tmp_path, tiny, end_of, often, SHARED)]
    models = {found["model.safetensors"] for found in sums}
    assert len(models) > 1
    record_property("seen", f"{len(models)} different results of 3")
