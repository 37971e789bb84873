"""Trials that are ended early: which ones, at which step, and that their runs can go on."""

from __future__ import annotations

import contextlib
import math
import re
import zlib
from pathlib import Path

import pytest

import vgx
from vgx.runs import reading
from vgx.runs.directory import Run, every
from vgx_sweep import storage as storing
from vgx_sweep.results import line, rows_of
from vgx_sweep.running import planned
from vgx_sweep.training import Trained
from vgx_sweep.work import work

pytest.importorskip("optuna")
REGISTRY = vgx.discover()
EVERY, STEPS = 3, 27  # rungs after 3, 9 and 27 steps, which is the end
MEASURED = {"train.steps": STEPS, "eval.metrics": ["psnr"], "eval.every": EVERY}
TINY = vgx.load_recipe("tiny", MEASURED, REGISTRY)

# The figure of each trial, the same at every measurement, and the step at which it is pruned. By
# hand: of n figures of a rung the best n // 3 go on, and of fewer than three the best one.
PLANTED = [
    (5.0, None),  # alone
    (1.0, 3),  # 5 is better
    (7.0, None),  # the best of 3, and of 2 after 9 steps
    (3.0, 3),
    (8.0, None),
    (7.5, 9),  # second of 6 after 3 steps, where 2 go on; second of 4 after 9, where 1 goes on
    (9.0, None),
    (2.0, 3),
    (7.25, 3),  # fourth of 9, where 3 go on
]


def swept(name, figures, prune, better="higher", seeds=1):
    """Do all trials with planted figures: their rows in the order of the trials, and the lines."""
    by = {"higher": "psnr", "lower": "l1"}[better]
    over = ["losses.1.weight=" + ",".join(map(str, figures))]
    plan = planned(TINY, REGISTRY, over, None, seeds, by, None, prune)
    lines = []

    def train(recipe, report):
        figure = recipe.losses[1].weight
        for step in (3, 6, 9, 18, 27):  # between two rungs nothing is decided
            if report(step, figure) and step < STEPS:
                return Trained(Run(Path("0001-tiny")), None)
        return Trained(Run(Path("0001-tiny")), figure)

    with contextlib.closing(storing.create(name, plan, None)) as study:
        work(study, plan.base(REGISTRY), REGISTRY, train, lines.append)
        rows = sorted(rows_of(study), key=lambda row: row.trial)
    assert lines == [line(plan, row) for row in rows]
    return rows, lines


def ends(rows):
    """The step at which each trial was pruned; None for one that is complete."""
    assert {row.state for row in rows} <= {"complete", "pruned"}
    return [row.newest[0] if row.state == "pruned" else None for row in rows]


@pytest.fixture(autouse=True)
def _sweeps(tmp_path, monkeypatch):
    monkeypatch.setenv("VGX_SWEEPS", str(tmp_path / "sweeps"))


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_halving_lets_the_best_third_go_on(better):
    sign = 1 if better == "higher" else -1
    figures = [figure if sign > 0 else 10 - figure for figure, _ in PLANTED]
    rows, lines = swept("halving", figures, "halving", better)
    assert ends(rows) == [step for _, step in PLANTED]
    assert [row.mean for row in rows if row.state == "complete"] == [
        figure for figure, (_, step) in zip(figures, PLANTED, strict=True) if step is None
    ]
    if sign > 0:
        assert rows[5].text == "7.5 at step 9"
        assert lines[5].endswith("losses.1.weight=7.5: pruned, psnr 7.5 at step 9")


def hyperband(name, figures):
    """The same by another program: the step at which each trial is pruned, or None.

    With R / r = 9 there are three brackets (Li et al. 2018, algorithm 1). For s = 2, 1, 0 the first
    rung is after r 3^(2 - s) steps, and the bracket has ceil(3 * 3^s / (s + 1)) of 17 trials: 9, 5
    and 3. Optuna draws the bracket of a trial by the CRC-32 of its study and its number.
    """
    rungs, found = {}, []
    for number, figure in enumerate(figures):
        drawn = zlib.crc32(f"{name}_{number}".encode()) % 17
        bracket = 0 if drawn < 9 else 1 if drawn < 14 else 2
        step = EVERY * 3**bracket
        while step < STEPS:
            before = rungs.setdefault((bracket, step), [])
            before.append(figure)
            kept = sorted(before, reverse=True)[: max(len(before) // 3, 1)]
            if figure < min(kept):
                break
            step *= 3
        found.append(step if step < STEPS else None)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hyperband", "another"])
def test_hyperband_compares_within_its_brackets(name):
    figures = [round(5 + 4 * math.sin(7 * number), 3) for number in range(16)]
    expected = hyperband(name, figures)
    assert {3, 9, None} == {*expected}  # the brackets differ
    rows, _ = swept(name, figures, "hyperband")
    assert ends(rows) == expected


def test_only_the_first_seed_is_compared():
    """So a trial is compared with its like, and one that is complete has all of its seeds."""
    rows, _ = swept("seeds", [5.0, 1.0, 7.0], "halving", seeds=2)
    assert [row.state for row in rows] == ["complete", "pruned", "complete"]
    assert [[*row.figures] for row in rows] == [["0", "1"], [], ["0", "1"]]


def weights(run):
    """The bytes of the tensors of the newest checkpoint."""
    newest = max((run / "checkpoints").glob("step-*"))
    return newest.name, {file.name: file.read_bytes() for file in newest.glob("*.safetensors")}


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
@pytest.mark.parametrize("prune", ["halving", pytest.param("hyperband", marks=pytest.mark.chaos)])
def test_a_pruned_run_goes_on_to_where_it_would_have_come(prune, tmp_path, monkeypatch, capfd):
    """Real trainings of which the rate decides. Their ends are those of runs that nobody ended."""
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    short = ["train.steps=9", "eval.metrics=[psnr]", "eval.every=1", "losses=[l1]"]
    short += ["discriminator=null", "train.ema=null", "train.draw_every=100", "augment=[]"]
    settings = [word for text in short for word in ("--set", text)]
    rates = ["1e-2", "1e-3", "1e-5", "1e-7"]
    rate = "train.optimizers.generator.lr"

    def call(*arguments):
        code = run_program([*arguments])
        out, err = capfd.readouterr()
        assert code == 0, err
        return out

    # Of this study hyperband puts the trials 0 and 3 into the bracket whose first rung is after one
    # step, and 1 and 2 into that whose first rung is after three.
    name, expected = "study-4", {"halving": [None, 1, 1, 1], "hyperband": [None, None, 3, 1]}[prune]
    out = call("sweep", "tiny", *settings, "--over", f"{rate}={','.join(rates)}", "--by", "psnr",
               "--prune", prune, "--name", name)  # fmt: skip
    psnr = {run.path.name: reading.measured(run.path, "psnr") for run in every()}
    states = {}
    for number, run in enumerate(f"000{n}-tiny" for n in range(1, 5)):
        (told,) = [text for text in out.splitlines() if text.startswith(f"{number} ")]
        _, states[run], _, figure, shown = re.split(r"\s{2,}", told)
        assert shown == run
        last = psnr[run][-1]
        value = f"{last['metrics']['psnr']:.4g}"
        pruned = expected[number] is not None
        assert states[run] == ("pruned" if pruned else "complete")
        assert figure == (f"{value} at step {expected[number]}" if pruned else value)
        assert last["step"] == (expected[number] or 9)
    ended_early = [run for run, state in states.items() if state == "pruned"]
    assert len(ended_early) >= 2
    for run, rate_of in zip(states, rates, strict=True):
        if run in ended_early:
            assert reading.ended(tmp_path / "runs" / run)["how"] == "stopped"
            call("resume", run)
            whole = call("run", "tiny", *settings, "--set", f"{rate}={rate_of}")
            twin = Path(re.search(r"^Run (\S+) on", whole, re.MULTILINE)[1])
            assert weights(tmp_path / "runs" / run) == weights(twin)
    # A study that asks for these runs takes them as they are now: complete, and not trained again.
    before = {run.path.name for run in every()}
    out = call("sweep", "tiny", *settings, "--over", f"{rate}={','.join(rates)}", "--by", "psnr",
               "--name", "later")  # fmt: skip
    assert out.count("complete") == 4
    assert {run.path.name for run in every()} == before
