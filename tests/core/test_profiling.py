"""A profiled run is the run that it would be otherwise, and says where its time went."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import vgx
from vgx.cli import run_program
from vgx.console import Console
from vgx.training import session
from vgx.training.profiler import phases

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def trained(folder, steps, *, profile):
    said = io.StringIO()
    recipe = vgx.load_recipe(TINY, {"train.steps": steps})
    console = Console(file=said, width=200)
    return session.run(recipe, folder, "cpu", console=console, profile=profile), said.getvalue()


def tensors(run):
    return {
        path.relative_to(run.checkpoints): path.read_bytes()
        for path in run.checkpoints.rglob("*.safetensors")
    }


@pytest.mark.slow
def test_a_profiled_run_is_the_same_to_the_bit(tmp_path):
    plain, _ = trained(tmp_path / "plain", 9, profile=False)
    run, said = trained(tmp_path / "profiled", 9, profile=True)
    assert tensors(run) == tensors(plain) != {}
    assert not (plain.path / "profile.json").exists()
    named = {event.get("name") for event in json.loads((run.path / "profile.json").read_text())
             ["traceEvents"]}  # fmt: skip
    lines = said[said.index("phase ") :].splitlines()
    told = [re.split(r"\s{2,}", line) for line in lines]
    asked = {"data", "augmentation", "encode", "decode", "score real", "score fake", "losses",
             "gradients generator", "gradients discriminator", "finite check", "optimizers",
             "averaging"}  # fmt: skip
    assert {f"vgx: {phase}" for phase in asked} <= named
    split = next(index for index, row in enumerate(told) if row[0] == "operation")
    shares = {row[0]: float(row[2].rstrip(" %")) for row in told[1:split]}
    assert asked | {"other"} <= set(shares)
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    assert all(share >= 0 for share in shares.values())
    operations = told[split + 1 : split + 11]
    assert all(row[0].startswith("aten::") or row[0][0].isalpha() for row in operations)
    figures = [float(row[2]) for row in operations]
    assert figures == sorted(figures, reverse=True)
    assert lines[split + 11].startswith("Profile of 5 steps: ")


@pytest.mark.slow
def test_a_training_that_ends_first_says_so(tmp_path):
    run, said = trained(tmp_path, 2, profile=True)
    assert "NOTICE: nothing to profile: a profile begins after 3 steps" in said
    assert not (run.path / "profile.json").exists()


def test_a_phase_inside_another_counts_once():
    step = SimpleNamespace(name="ProfilerStep#3", cpu_time_total=10_000.0, cpu_parent=None)
    losses = SimpleNamespace(name="vgx: losses", cpu_time_total=6_000.0, cpu_parent=step)
    operation = SimpleNamespace(name="aten::mul", cpu_time_total=5_000.0, cpu_parent=losses)
    penalty = SimpleNamespace(
        name="vgx: score penalty", cpu_time_total=4_500.0, cpu_parent=operation
    )
    assert phases([step, losses, operation, penalty]) == (
        1,
        [
            ("score penalty", "4.50", "45.0 %"),
            ("other", "4.00", "40.0 %"),
            ("losses", "1.50", "15.0 %"),
        ],
    )


def test_a_resumed_run_is_not_profiled(capfd):
    assert run_program(["run", "--resume", "1", "--profile"]) == 2
    assert "A profile is made of a new run" in capfd.readouterr().err
