"""Runs that called a distance in other features than Inception's `fid`: read under its true name.

Each test makes such a run of a present one: only the names in its files are other ones.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest

import vgx
from vgx.console import Console
from vgx.evaluation.tables import tables
from vgx.recipe.renamed import rename_evaluation, rename_recipe, renamed
from vgx.runs import reading, summary
from vgx.training import session

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
RANDOM = {"type": "random-conv", "seed": 0}
INCEPTION = {"type": "inception", "weights": None}
WATCHING = {
    "train.steps": 6, "train.save_every": 2, "train.keep": 2, "eval.every": 1, "eval.n": 16,
    "eval.metrics": ["frechet-distance", "kernel-distance"], "eval.best": "frechet-distance",
}  # fmt: skip


def old_names(file):
    text = file.read_text().replace("frechet-distance", "fid").replace("kernel-distance", "kid")
    file.write_text(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run as the first edition wrote it, and the steps of its best measurements today."""
    folder = tmp_path_factory.mktemp("old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        recipe = vgx.load_recipe(TINY, WATCHING)
        run = session.run(recipe, out=folder, console=Console(file=io.StringIO()))
    measured = {line["step"]: line["metrics"]["frechet-distance"] for line in run.read_log()}
    for name in ("recipe.yaml", "log.jsonl", "environment.json"):
        old_names(run.path / name)
    figure = {"mean": 12.3456, "spread": 1.0, "values": [12.0, 13.0], "better": "lower"}
    drawn = {"sampler": {"type": "prior"}, "pictures": 9, "real": 9, "split": "trained on"}
    evaluation = {
        "format": 2, "step": 6, "seeds": [0, 1], "data": {"content": "x"}, "notices": [],
        "metrics": [{"type": "fid", "features": RANDOM}, {"type": "psnr"}],
        "features": [{"part": RANDOM, "sha256": "1"}],
        "reconstruction": None, "latent": None,
        "generation": [{**drawn, "figures": {"fid": figure}}],
    }  # fmt: skip
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    return run.path, min(measured, key=lambda step: (measured[step], step)), min(measured.values())


@pytest.fixture
def old(made, tmp_path):
    """A copy of that run, the step of its best measurement and its value."""
    path, step, value = made
    return vgx.Run(shutil.copytree(path, tmp_path / path.name)), step, value


@pytest.mark.slow
def test_its_log_and_its_best_measurement_have_the_name_of_today(old, vgx_here):
    run, step, value = old
    assert '"fid"' in run.log_file.read_text()
    assert {*run.read_log()[0]["metrics"]} == {"frechet-distance", "kernel-distance"}
    assert summary.summarize(run).best == f"frechet-distance {value:.4g} at step {step}"
    assert vgx_here("sample", run.path, "--best", "-n", 4)[0] == 0
    with pytest.warns(vgx.Notice, match="write type: (frechet|kernel)-distance"):
        assert vgx.load(run, best=True).step == step


@pytest.mark.slow
def test_it_goes_on_and_keeps_its_best(old, vgx_here):
    """The values of both names are one row of measurements."""
    run, step, value = old
    code, _, err = vgx_here("run", "--resume", run.path, "--set", "train.steps=8")
    assert code == 0, err
    measured = {line["step"]: line["metrics"]["frechet-distance"] for line in run.read_log()}
    assert list(measured) == list(range(1, 9))
    assert measured[step] == value
    assert '"fid"' not in run.log_file.read_text()
    assert vgx.load(run, best=True).step == min(measured, key=lambda s: (measured[s], s))


@pytest.mark.slow
def test_its_evaluation_says_what_was_measured(old, tmp_path, vgx_here):
    run, _, _ = old
    name = "frechet-distance [random-conv] (less is better)"
    ((_, _, rows),) = tables(reading.evaluation(run.path))
    assert rows == [(name, "12.35 ± 1")]
    other = vgx.Run(shutil.copytree(run.path, tmp_path / "0002-other"))
    code, out, _ = vgx_here("compare", run.path, other.path)
    assert code == 0
    assert f"{name}  12.35 ± 1" in out
    assert re.search(r"\bfid\b", out) is None
    assert vgx_here("report", run.path)[0] == 0
    page = (run.path / "report.html").read_text()
    assert f"{name}" in page
    # Only the run's own recipe, which the page shows as it is, still has the old word.
    assert set(re.findall(r"(\w+: )?\bfid\b", page)) == {"best: ", "type: "}


def test_a_recipe_with_an_old_name_still_works_with_a_notice(tmp_path):
    shown = "{type: kid, features: {type: random-conv, seed: 3}, size: 7}"
    changes = [f"eval.metrics=[psnr, {shown}]", "eval.every=5", "eval.best=kid"]
    with pytest.warns(
        vgx.Notice, match="kid is in Inception's features alone; in others it is ker"
    ):
        recipe = vgx.load_recipe(TINY, changes)
    _, metric = recipe.eval.metrics
    assert (metric.type, metric.features.seed, metric.size) == ("kernel-distance", 3, 7)
    assert recipe.eval.best == "kernel-distance"
    (tmp_path / "again.yaml").write_text(vgx.dump_recipe(recipe))
    assert vgx.load_recipe(tmp_path / "again.yaml") == recipe


def test_a_notice_of_a_recipe_is_one_line_at_the_terminal(vgx_here):
    shown = "eval.metrics=[{type: fid, features: random-conv}]"
    code, _, err = vgx_here("check", TINY, "--set", shown)
    assert code == 0
    assert err == (
        "NOTICE: eval.metrics: fid is in Inception's features alone; in others it is "
        "frechet-distance now: write type: frechet-distance\n"
    )


@pytest.mark.parametrize("metric", ["fid", {"type": "fid"}, {"type": "fid", "features": INCEPTION}])
def test_the_name_stays_in_inceptions_features(metric):
    recipe = vgx.load_recipe(TINY, {"eval.metrics": [metric]})
    assert recipe.eval.metrics[0].type == "fid"
    assert recipe.eval.metrics[0].features.type == "inception"


@pytest.mark.parametrize(
    "metrics",
    [None, 3, [], ["fid"], [3], [{"type": 3}], [{"type": "fid"}], [{"type": "fid", "features": 3}],
     [{"type": "fid", "features": {}}], [{"type": "prdc", "features": RANDOM}],
     [{"type": "fid", "features": "inception"}]],
)  # fmt: skip
def test_anything_else_is_left_as_it_is(metrics):
    assert renamed(metrics) == {}
    for section in ({"metrics": metrics, "best": "fid"}, None, 3):
        assert rename_recipe({"eval": section}) == {"eval": section}
    assert rename_evaluation({"metrics": metrics}) == {"metrics": metrics}


def test_a_damaged_log_or_recipe_is_no_crash(tmp_path):
    run = vgx.Run(tmp_path)
    lines = [{"step": 1, "metrics": 3}, {"step": 2, "metrics": {"fid": 1.0}}, {"step": 3}]
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for recipe in (None, "", "{", "eval: 3", "eval: {metrics: {fid: 3}, best: [1]}"):
        if recipe is not None:
            run.recipe_file.write_text(recipe)
        with pytest.warns(vgx.Notice, match="line 1: metrics: "):
            assert run.read_log() == lines[1:]
    shown = {"metrics": [{"type": "fid", "features": RANDOM}], "best": ["fid"]}
    assert rename_recipe({"eval": shown})["eval"]["best"] == ["fid"]


def test_a_distribution_may_stand_before_the_type():
    assert renamed([{"type": "vgx:fid", "features": "vgx:random-conv"}]) == {
        "fid": "frechet-distance"
    }
