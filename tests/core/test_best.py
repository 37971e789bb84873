"""The best measurement: found in a log, and kept while it is written."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import vgx
from vgx.console import Console
from vgx.runs.best import Measurement, best_of
from vgx.runs.directory import Run
from vgx.training import session

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def log(*values):
    """Lines of a log; None is a line without a measurement."""
    return [
        {"step": step, **({} if value is None else {"metrics": {"psnr": value}})}
        for step, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize(
    ("better", "values", "best"),
    [
        ("higher", (7.0, 9.0, 8.0), (9.0, 2)),
        ("lower", (7.0, 9.0, 8.0), (7.0, 1)),
        ("higher", (None, 9.0, 9.0), (9.0, 2)),  # the first of equal ones
        ("lower", (None, 3.0, 3.0), (3.0, 2)),
        ("lower", (None, None), None),
        ("higher", (), None),
        ("higher", (float("nan"), 2.0, 3.0), (3.0, 3)),
        ("lower", (float("nan"), 2.0, 3.0), (2.0, 2)),
        ("lower", (2.0, float("-inf")), (2.0, 1)),
        ("higher", (float("nan"),), None),
    ],
)
def test_the_best_is_the_first_of_the_best_values(better, values, best):
    assert best_of(log(*values), "psnr", better) == best
    assert best_of(log(*values), "fid", better) is None


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_log_that_grows_is_read_once(better):
    lines, best = log(3.0, None, 1.0, 4.0, 1.0, 4.0, 2.0), None
    for number, line in enumerate(lines, 1):
        best = best_of([line], "psnr", better, best)
        assert best == best_of(lines[:number], "psnr", better)
    assert isinstance(best, Measurement)


@pytest.mark.slow
def test_a_training_does_not_read_its_log_at_each_measurement(monkeypatch):
    """That would take a time that grows with the square of its length."""
    reads, read = [], Run.read_log

    def reading(run):
        reads.append(run)
        return read(run)

    monkeypatch.setattr(Run, "read_log", reading)
    counts = []
    for steps in (2, 8):
        recipe = vgx.load_recipe(
            TINY,
            {"train.steps": steps, "train.save_every": 1, "train.keep": 2, "eval.every": 1,
             "eval.n": 8, "eval.metrics": ["l1"], "eval.best": "l1"},
        )  # fmt: skip
        reads.clear()
        run = session.run(recipe, console=Console(file=io.StringIO()))
        counts.append(len(reads))
        best = best_of(read(run), "l1", "lower")
        kept = {int(path.name.removeprefix("step-")) for path in run.checkpoints.iterdir()}
        assert kept == {best.step, steps - 1, steps}
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_a_resumed_run_knows_what_was_best_before():
    settings = {
        "train.steps": 3, "train.save_every": 100, "train.keep": 2, "eval.every": 1, "eval.n": 8,
        "eval.metrics": ["l1"], "eval.best": "l1", "train.optimizers.generator.lr": 0.5,
        "train.ema": None,
    }  # fmt: skip
    console = Console(file=io.StringIO())
    run = session.run(vgx.load_recipe(TINY, settings), console=console)
    session.resume(run, vgx.load_recipe(TINY, {**settings, "train.steps": 6}), console=console)
    # Worked out from the whole log: saved are the ends, and each step that was the best so far.
    best, saved = None, []
    for line in run.read_log():
        best = best_of([line], "l1", "lower", best)
        saved += [line["step"]] if line["step"] in (best.step, 3, 6) else []
    kept = {int(path.name.removeprefix("step-")) for path in run.checkpoints.iterdir()}
    assert kept == {*saved[-2:], best.step}
