"""Trackers while a run trains: told what the log is told, and no harm to it whatever they do."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch

import vgx
from vgx.console import Console
from vgx.errors import DivergedError, RecipeError
from vgx.parts.registry import Plugin
from vgx.training import session
from vgx.training.trackers import Trackers, open_trackers

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
STEPS = {"train.steps": 6, "train.log_every": 2, "train.draw_every": 4, "train.save_every": 3}


class Witness(vgx.Tracker, type="witness"):
    """Writes down what it is told, and fails where it is asked to."""

    fails: str = ""
    """The method that raises."""

    def build(self, run):
        if self.fails == "build":
            raise ConnectionError("no server\nand more lines")
        return Told(self.fails, run / "trackers" / "witness")


class Told:
    def __init__(self, fails, path):
        path.parent.mkdir(exist_ok=True)
        self.fails, self.path = fails, path

    def _say(self, method, *what):
        with self.path.open("a") as file:
            file.write(json.dumps([method, *what]) + "\n")
        if method == self.fails:
            raise OSError(28, "No space left on device")

    def log(self, step, values):
        torch.manual_seed(step)  # randomness of others moves no training
        self._say("log", step, dict(values))
        values.clear()

    def images(self, step, name, grid):
        self._say("images", step, name, list(grid.shape))
        grid.zero_()

    def close(self):
        self._say("close")


FOUND = vgx.discover().plugins
# With hooks, as `discover` makes it: what no later command can find is refused.
WITNESS = Plugin("test", "1", "test", (Witness,), hook=FOUND[0].hook)
REGISTRY = vgx.Registry((*FOUND, WITNESS))


def trained(folder, trackers=(), changes=None):
    """Train the tiny recipe: the run, what it said."""
    said = io.StringIO()
    settings = {**STEPS, "trackers": list(trackers), **(changes or {})}
    recipe = vgx.load_recipe(TINY, settings, REGISTRY)
    console = Console(file=said, width=1000)
    return session.run(recipe, folder / "runs", registry=REGISTRY, console=console), said.getvalue()


def told(run):
    text = (run.path / "trackers" / "witness").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("plain")
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        return trained(folder)[0]


def weights(run):
    (newest,) = sorted(run.checkpoints.glob("step-00000006"))
    return {file.name: file.read_bytes() for file in newest.glob("*.safetensors")}


def test_it_is_told_what_the_log_is_told(tmp_path, plain):
    run, _ = trained(tmp_path, ["witness"])
    groups = ("losses", "rates", "grad_norm", "accuracy")
    logged = [
        {f"{g}/{n}": v for g in groups for n, v in line[g].items()}
        | {"images_per_second": line["images_per_second"]}
        for line in run.read_log()
    ]
    steps = [line["step"] for line in run.read_log()]
    assert steps == [1, 2, 4, 6]
    assert [what for what in told(run) if what[0] == "log"] == [
        ["log", step, values] for step, values in zip(steps, logged, strict=True)
    ]
    assert "losses/l1" in logged[0]
    assert "rates/generator" in logged[0]
    drawn = [what[1:3] for what in told(run) if what[0] == "images"]
    assert drawn == [[s, n] for s in (1, 2, 4, 5, 6) for n in ("samples", "prior", "recon")]
    # 64 pictures of 16 pixels, 2 between them; 2 rows of 8 and their reconstructions.
    shapes = [what[3] for what in told(run) if what[0] == "images"][:3:2]
    assert shapes == [[3, 8 * 18 + 2, 8 * 18 + 2], [3, 4 * 18 + 2, 8 * 18 + 2]]
    assert told(run)[-1] == ["close"]
    assert weights(run) == weights(plain)
    assert (run.samples / "step-00000006.png").read_bytes() == (
        plain.samples / "step-00000006.png"
    ).read_bytes()


def test_where_it_sends_is_said_before_it_is_opened(tmp_path, monkeypatch, plain):
    """A stranger's recipe may name any server."""
    said, mlflow = io.StringIO(), vgx.discover().part("tracker", "mlflow")
    heard = []
    monkeypatch.setattr(mlflow, "needs", None)
    monkeypatch.setattr(mlflow, "build", lambda *_: heard.append(said.getvalue()))
    run = vgx.Run(Path(shutil.copytree(plain.path, tmp_path / "0001-tiny")))
    trackers = [{"type": "mlflow", "uri": "http://192.0.2.1"}]
    recipe = vgx.load_recipe(run.recipe_file, {"trackers": trackers, "train.steps": 7})
    session.resume(run, recipe, console=Console(file=said, width=1000))
    assert "Opening the tracker mlflow uri=http://192.0.2.1\n" in heard[0]


def test_metrics_are_told_when_there_are_some(tmp_path):
    changes = {"eval.every": 4, "eval.n": 8, "eval.metrics": ["psnr"]}
    run, _ = trained(tmp_path, ["witness"], changes)
    told_of = {what[1]: what[2] for what in told(run) if what[0] == "log"}
    measured = {
        line["step"]: line["metrics"]["psnr"] for line in run.read_log() if "metrics" in line
    }
    assert {
        step: v["metrics/psnr"] for step, v in told_of.items() if "metrics/psnr" in v
    } == measured
    assert list(measured) == [4, 6]


@pytest.mark.parametrize("method", ["build", "log", "images", "close"])
def test_one_that_fails_is_set_aside_with_one_warning(method, tmp_path, plain):
    run, said = trained(tmp_path, [{"type": "witness", "fails": method}, "csv"])
    assert said.count("tracker witness is set aside: ") == 1
    expected = "ConnectionError: no server (at " if method == "build" else "No space"
    assert expected in said
    assert "and more lines" not in said
    if method != "build":
        assert [what[0] for what in told(run)].count(method) == 1
    assert weights(run) == weights(plain)
    # The other one goes on, and the page of the run tells of the warning.
    rows = (run.path / "trackers" / "values.csv").read_text().splitlines()
    assert rows[-1].startswith("6,")
    if method in ("build", "log"):
        assert any(
            "witness" in text for line in run.read_log() for text in line.get("warnings", [])
        )


def test_it_is_closed_when_the_training_diverges(tmp_path):
    with pytest.raises(DivergedError):
        trained(tmp_path, ["witness"], {"train.optimizers.generator.lr": 1e30})
    (run,) = (vgx.Run(path) for path in (tmp_path / "runs").iterdir())
    assert told(run)[-1] == ["close"]


def test_a_missing_library_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(Witness, "needs", "no_such_library")
    with pytest.raises(RecipeError, match="witness needs no_such_library.*pip install"):
        trained(tmp_path, ["witness"])
    assert not (tmp_path / "runs").exists()
    recipe = vgx.load_recipe(TINY, {"trackers": ["witness"]}, REGISTRY)
    with pytest.raises(RecipeError, match="no_such_library"):
        session.check(recipe, REGISTRY, "cpu", Console(file=io.StringIO()))


def test_no_type_is_named_twice():
    with pytest.raises(RecipeError, match="trackers: 'csv' occurs twice"):
        vgx.load_recipe(TINY, {"trackers": ["csv", "csv"]})


@pytest.mark.slow
def test_a_resumed_run_may_have_other_trackers(tmp_path, plain):
    run, _ = trained(tmp_path, ["csv"], {"train.steps": 3})
    longer = {**STEPS, "trackers": ["csv", "tensorboard"]}
    pytest.importorskip("tensorboard")
    session.resume(run, vgx.load_recipe(TINY, longer), console=Console(file=io.StringIO()))
    assert weights(run) == weights(plain)
    assert list((run.path / "trackers" / "tensorboard").iterdir())
    rows = (run.path / "trackers" / "values.csv").read_text().splitlines()
    # Step 3 was logged as the last one; the run that goes on logs at 4 and 6.
    assert [row.partition(",")[0] for row in rows] == ["step", "1", "2", "3", "4", "6"]


def test_nothing_is_open_without_trackers():
    trackers = open_trackers((), Path(), print)
    trackers.log({"step": 1})
    trackers.close()
    assert trackers.active == {}


def test_one_trackers_hands_are_off_what_others_get(tmp_path):
    class Keeper:
        def images(self, step, name, grid):
            self.seen = grid.sum().item()
            grid.zero_()

    keepers = {"a": Keeper(), "b": Keeper()}
    grid = torch.ones(3, 2, 2)
    Trackers(keepers, print).images(1, "samples", grid)
    assert [keeper.seen for keeper in keepers.values()] == [12, 12]
    assert grid.sum() == 12
