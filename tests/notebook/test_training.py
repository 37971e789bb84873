"""Training from Python: recipes of any form, one's own loop, resuming, quiet."""

from __future__ import annotations

import ast
import inspect
import io
import json
import logging
import math
import shutil
import signal
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import vgx
from vgx.cli import run_program
from vgx.console import Console
from vgx.errors import Stopped
from vgx.notebook.training import _interrupted
from vgx.runs import checkpoint, directory
from vgx.training import session
from vgx.training.loop import Training
from vgx.training.signals import NUMBERS

FAST = {"dataset.count": 16, "train.draw_every": 100, "train.precision": "fp32"}


def weights(run):
    return checkpoint.load(run)[1].model


# --- recipes -----------------------------------------------------------------------------------


def test_a_recipe_is_named_read_written_down_or_made(tmp_path):
    named = vgx.load_recipe("tiny", {"train.steps": 3})
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiny\ntrain: {steps: 3}\n")
    assert vgx.load_recipe(file) == named
    assert vgx.load_recipe({"extends": "tiny", "train": {"steps": 3}}) == named
    assert vgx.load_recipe(json.loads(named.model_dump_json())) == named
    assert vgx.load_recipe(vgx.load_recipe("tiny"), ["train.steps=3"]) == named
    assert vgx.load_recipe("tiny").with_({"train.steps": 3}) == named


def test_errors_of_a_dictionary_name_the_field():
    with pytest.raises(vgx.RecipeError, match=r"train\.step: unknown field.*did you mean 'steps'"):
        vgx.load_recipe({"extends": "tiny", "train": {"step": 3}})
    with pytest.raises(vgx.RecipeError, match="there is no such file"):
        vgx.load_recipe({"extends": "nowhere.yaml"})
    with pytest.raises(vgx.RecipeError, match="no values of type object"):
        vgx.load_recipe({"extends": object()})
    with pytest.raises(vgx.RecipeError, match="the recipe: name: Field required"):
        vgx.load_recipe({})


class Watcher(vgx.Tracker, type="watcher"):
    """A tracker that no plugin has."""

    def build(self):
        return self


class Small(vgx.Loss, type="small"):
    """A loss that no plugin has."""

    def generator(self, step):
        return step.recon.square().mean()


def test_parts_are_given_as_objects():
    recipe = vgx.load_recipe("tiny")
    more = recipe.with_({"losses": [*recipe.losses, Small(weight=2.0)]})
    assert more.losses[-1] == Small(weight=2.0)
    assert more.losses[:-1] == recipe.losses
    again = more.with_({"train.steps": 3})  # which knows the class, too
    assert type(again.losses[-1]) is Small


@pytest.mark.parametrize("place", [torch.zeros(2, 3, 4, 4), 7, ["pictures"]])
def test_images_in_memory_are_no_place(place):
    with pytest.raises(vgx.RecipeError, match="write images to a folder, and name it"):
        vgx.load_recipe("tiny", data=place)


def test_a_place_is_a_path_too(tmp_path):
    with pytest.raises(vgx.DataError, match="no such folder or file"):
        vgx.load_recipe("tiny", data=tmp_path / "nowhere")


def test_a_part_in_a_part_is_made_before_it():
    """Names are looked up among plugins, and a part that is made in Python knows none."""
    style, inner = (vgx.discover().part("decoder", name) for name in ("labelled", "conv-transpose"))
    assert style(inner=inner()).inner == inner()
    for given in ("conv-transpose", {"type": "conv-transpose"}):
        with pytest.raises(ValueError, match=r"vgx\.discover\(\)\.part\('decoder', 'TYPE'\)"):
            style(inner=given)
    for given in ({}, 3):
        with pytest.raises(ValueError, match="an installed decoder"):
            style(inner=given)


def test_a_recipe_shows_itself():
    recipe = vgx.load_recipe("tiny")
    first, second = repr(recipe).split("\n")
    assert first == "Recipe tiny: 16 x 16 pixels, 20 steps of 8 images"
    assert second == (
        "encoder conv, decoder conv-transpose, discriminator patchgan; "
        "bce-adversarial + l1 + bce + kl; data drawn-faces"
    )
    assert str(recipe) == vgx.dump_recipe(recipe)
    evil = recipe.with_({"sampler": {"type": "reconstruct", "path": "<script>"}})
    page = evil._repr_html_()
    assert "path: &lt;script&gt;" in page
    assert "<script>" not in page


def test_the_public_names_are_all_that_is_listed():
    """They are those that a type checker knows."""
    tree = ast.parse(Path(vgx.__file__).read_text())
    (known,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(known.test) == "TYPE_CHECKING"
    names = [alias.asname for line in known.body for alias in line.names]
    listed = [name for name in dir(vgx) if not name.startswith("__")]
    assert sorted(listed) == sorted(names)
    assert all(hasattr(vgx, name) for name in names)
    space: dict[str, object] = {}
    exec("from vgx import *", space)
    assert sorted(names) == sorted({*space} - {"__builtins__"})


def test_a_package_that_is_called_shows_what_is_called():
    from vgx.notebook import checking, listing

    for package, function in ((vgx.check, checking.check), (vgx.runs, listing.runs)):
        assert inspect.signature(package) == inspect.signature(function)
        assert inspect.getdoc(package) == inspect.getdoc(function)


# --- training ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training of four steps, with its steps."""
    folder = tmp_path_factory.mktemp("whole")
    return [*vgx.train("tiny", FAST | {"train.steps": 4}, out=folder, quiet=True)]


@pytest.mark.slow
def test_each_step_is_given_as_it_is_logged(whole):
    run = whole[-1].run
    assert [step.number for step in whole] == [1, 2, 3, 4]
    assert {step.of for step in whole} == {4}
    lines = run.read_log()
    assert [step.line for step in whole] == lines
    assert [step.losses for step in whole] == [line["losses"] for line in lines]
    assert [sorted(step.grids) for step in whole] == [
        ["prior", "recon", "samples"], ["prior", "recon", "samples"], [],
        ["prior", "recon", "samples"],
    ]  # fmt: skip
    assert repr(whole[0]).startswith("Step 1 of 4 of run 0001-tiny\nbce-adversarial.generator 0.6")
    assert type(run) is vgx.Run
    assert run.state == "done"


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
def test_a_loop_that_is_left_and_resumed_ends_as_one_that_was_not(whole, tmp_path):
    """The weights are equal to the bit; the run says that it was stopped."""
    for step in vgx.train("tiny", FAST | {"train.steps": 4}, out=tmp_path, quiet=True):
        if step.number == 2:
            break
    run = step.run
    assert (run.state, run.step) == ("stopped", 2)
    ended = json.loads((run.path / "ended.json").read_text())
    assert ended["signal"] is None
    assert "the loop was left: stopped at step 2 and saved" in ended["message"]
    assert vgx.resume(run, quiet=True) == run
    assert run.state == "done"
    expected, got = weights(whole[-1].run), weights(run)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
def test_a_loop_that_an_error_leaves_takes_no_signal(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    steps = vgx.train("tiny", FAST | {"train.steps": 4}, out=tmp_path, quiet=True)
    next(steps)
    with pytest.raises(KeyboardInterrupt):  # Python's own, in the body
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    run = next(steps).run  # the generator that is still referenced goes on
    assert signal.getsignal(signal.SIGINT) is before
    steps.close()
    assert signal.getsignal(signal.SIGINT) is before
    assert (run.state, run.step) == ("stopped", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
def test_two_loops_at_once_leave_the_handlers_as_they_were(tmp_path):
    before = [signal.getsignal(number) for number in NUMBERS]
    given = FAST | {"train.steps": 2}
    loops = [vgx.train("tiny", given, out=tmp_path / name, quiet=True) for name in "ab"]
    for a, b in zip(*loops, strict=False):
        assert a.number == b.number
        assert [signal.getsignal(number) for number in NUMBERS] == before
    del loops, a, b
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
def test_a_signal_in_a_step_of_a_loop_saves_it(tmp_path, monkeypatch):
    step = Training.step

    def signalled(training):
        signal.raise_signal(signal.SIGTERM)
        return step(training)

    steps = vgx.train("tiny", FAST | {"train.steps": 4}, out=tmp_path, quiet=True)
    next(steps)
    monkeypatch.setattr(Training, "step", signalled)
    assert next(steps).number == 2
    with pytest.raises(Stopped, match="SIGTERM: stopped at step 2 and saved"):
        next(steps)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
def test_a_loop_that_is_left_at_its_last_step_is_done(tmp_path):
    for step in vgx.train("tiny", FAST | {"train.steps": 2}, out=tmp_path, quiet=True):
        if step.number == step.of:
            break
    assert (step.run.state, step.run.step) == ("done", 2)
    assert json.loads((step.run.path / "ended.json").read_text())["how"] == "done"


@pytest.mark.parametrize(("name", "written"), [("0007-a", "7"), ("it's a b", None)])
def test_what_is_said_after_an_interrupt_is_python(tmp_path, monkeypatch, name, written):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("")
    said = _interrupted(KeyboardInterrupt(), vgx.Run(folder)).rpartition("vgx.resume(")[2]
    assert ast.literal_eval(said.removesuffix(")")) == ((written and int(written)) or str(folder))


@pytest.mark.slow
def test_a_run_that_is_done_is_trained_longer(whole, tmp_path, capfd):
    run = vgx.run("tiny", FAST | {"train.steps": 2}, out=tmp_path, quiet=True)
    assert vgx.resume(run, quiet=True) == run
    assert run.step == 2
    with pytest.raises(vgx.RecipeError, match="was made by another recipe"):
        vgx.resume(run, {"train.batch": 4}, quiet=True)
    longer = vgx.resume(run, {"train.log_every": 2}, steps=4, quiet=True)
    assert (longer.state, longer.step) == ("done", 4)
    assert longer.recipe.train.log_every == 2
    assert all(torch.equal(a, weights(run)[n]) for n, a in weights(whole[-1].run).items())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_recipe_is_checked_as_by_the_command(capfd):
    checked = vgx.check("tiny", FAST | {"train.steps": 3}, device="cpu", quiet=True)
    assert checked.recipe.train.steps == 3
    title, about = repr(checked).splitlines()
    assert title == "Check of tiny: ready to run"
    assert about.startswith("13,012 parameters are trained, 2 notes")
    assert capfd.readouterr() == ("", "")
    words = ["check", "tiny", "--device", "cpu", *(f"--set={k}={v}" for k, v in FAST.items())]
    assert run_program(words) == 0
    printed = capfd.readouterr().out.splitlines()
    assert [line for line in str(checked).splitlines() if line not in printed] == []
    with pytest.raises(vgx.RecipeError, match="did you mean 'steps'"):
        vgx.check("tiny", {"train.step": 3})
    recipe = vgx.load_recipe("tiny", FAST)
    with pytest.raises(vgx.PluginError, match=r"losses\.4: Small.* in no plugin file"):
        vgx.check(recipe.with_({"losses": [*recipe.losses, Small()]}), quiet=True)


@pytest.mark.slow
def test_an_experiment_is_explained_as_by_the_command(small_run, tmp_path, capfd):
    explained = vgx.explain(small_run)
    capfd.readouterr()
    words = ["explain", str(small_run.path), "--svg", str(tmp_path / "command.svg")]
    assert run_program(words) == 0
    printed = capfd.readouterr().out.splitlines()
    assert str(explained).splitlines() == printed[:-1]
    file = explained.save(tmp_path / "python.svg")
    assert file.read_bytes() == (tmp_path / "command.svg").read_bytes()
    assert repr(explained).splitlines()[0] == "Explanation of tiny: print() shows all"
    of_recipe = vgx.explain("tiny", FAST, device="cpu", quiet=True)
    assert [term.label for term in of_recipe.explanation.terms][2:] == ["l1", "bce", "kl"]
    with pytest.raises(vgx.RecipeError, match="a run cannot be changed"):
        vgx.explain(small_run, {"train.steps": 3})


def test_the_recipes_are_listed_by_name():
    recipes = vgx.recipes()
    names = {path.stem for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml")}
    assert {*recipes} == names
    assert recipes["dcgan"] == "DCGAN (Radford et al. 2016)."
    assert "dcgan                  DCGAN (Radford et al. 2016)." in repr(recipes).splitlines()


@pytest.mark.slow
def test_what_is_not_shown_is_logged(tmp_path, capfd, caplog, install):
    """Lines, notices, and what a plugin prints, for programs that use vgx as a library."""
    text = """
        import sys, vgx

        @vgx.hookimpl
        def run_ended(run):
            print("a plugin's line")
            sys.stderr.write("one\\rtwo")
    """
    install("vgx-loud", textwrap.dedent(text))
    with caplog.at_level(logging.INFO, "vgx"):
        vgx.run(
            "tiny", FAST | {"train.steps": 1, "image.range": [0, 300]}, out=tmp_path, quiet=True
        )
    assert capfd.readouterr() == ("", "")
    messages = [record.getMessage() for record in caplog.records]
    assert "Auditing the losses" in messages
    assert "a plugin's line" in messages
    assert "two" in messages
    assert not [text for text in messages if "one" in text.split("\r")]
    assert {record.name for record in caplog.records} == {"vgx"}


@pytest.mark.slow
def test_without_quiet_it_prints_and_the_log_is_silent(tmp_path, capfd):
    """Python prints warnings of a logger that nobody reads; these are printed once."""
    run = vgx.run("tiny", FAST | {"train.steps": 1}, out=tmp_path)
    out, err = capfd.readouterr()
    assert f"Run {run.path} on" in out
    assert err == ""


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
def test_a_schedule_without_steps_lasts_as_long_as_the_training(tmp_path):
    """A cosine from 3e-4 to 0; the number of steps is written once."""
    cosine = {"train.optimizers.generator.lr": {"from": 3e-4, "to": 0, "shape": "cosine"}}
    late = {"losses.1.weight": {"from": 1, "to": 3, "after": 2}}
    recipe = vgx.load_recipe("tiny", FAST | cosine | late | {"train.log_every": 1})
    run = vgx.run(recipe, {"train.steps": 4}, out=tmp_path, quiet=True)
    wanted = [3e-4 * (1 + math.cos(math.pi * done / 4)) / 2 for done in range(4)]
    assert [line["rates"]["generator"] for line in run.read_log()] == pytest.approx(wanted)
    assert run.recipe.train.optimizers.generator.lr.steps == 4
    weight = run.recipe.losses[1].weight
    assert [weight.at(done) for done in range(5)] == [1, 1, 1, 2, 3]

    # The same recipe changes nothing in a run that goes on, and neither does a longer training.
    longer = recipe.with_({"train.steps": 6})
    session.resume(run.path, longer, console=Console(io.StringIO()))
    assert run.recipe.train.optimizers.generator.lr.steps == 4
    assert [line["rates"]["generator"] for line in run.read_log()[4:]] == [0.0, 0.0]

    epochs = {"train.epochs": 2, "train.steps": None, "eval.holdout": 0.4}
    short = vgx.run(recipe, epochs, out=tmp_path, quiet=True)  # fewer images than there are
    steps = short.step
    assert 0 < steps < 4
    assert short.recipe.train.optimizers.generator.lr.steps == steps
    with pytest.raises(
        vgx.RecipeError, match="write a schedule: .from: 3e-4, to: 0, shape: cosine"
    ):
        vgx.load_recipe("tiny", ["train.optimizers.generator.lr=cosine"])
    with pytest.raises(vgx.RecipeError, match="has values in a training alone"):
        recipe.losses[1].weight.at(3)


@pytest.mark.slow
def test_a_training_ends_when_its_best_becomes_no_better(tmp_path, monkeypatch, capfd):
    """Evaluations after steps 2, 4, 6, ...; step 4 is the best for two of them."""
    values = {2: 10.0, 4: 12.0, 6: 11.0, 8: 12.0, 10: 13.0, 12: 9.0}
    scripted = lambda engine, store, step, cache: {"psnr": values[step]}  # noqa: E731
    monkeypatch.setattr("vgx.training.loop.measure_training", scripted)
    early = {"eval.metrics": ["psnr"], "eval.every": 2, "eval.best": "psnr", "eval.patience": 2}
    run = vgx.run("tiny", FAST | early | {"train.steps": 12}, out=tmp_path, quiet=True)
    assert (run.state, run.step) == ("done", 8)
    assert run.model("cpu", best=True).step == 4
    why = "psnr has not become better since step 4 (eval.patience)"
    assert json.loads((run.path / "ended.json").read_text())["message"] == why
    assert "It ended early at step 8 of 12" in (run.path / "report.html").read_text()
    assert vgx.resume(run).step == 8
    printed = capfd.readouterr().out
    assert f"is done at step 8; {why}. To go on: vgx run --resume" in printed
    assert "--set eval.patience=null" in printed
    assert vgx.resume(run, {"eval.patience": 3}, quiet=True).step == 12
    with pytest.raises(vgx.RecipeError, match="patience: nothing says what is better; give best"):
        vgx.load_recipe("tiny", {"eval.patience": 2})


LOUD = """
import sys, vgx

KEPT = []

class Loud(vgx.Loss, type="loud"):
    '''The brightness of the reconstructions.'''

    power: int = 1
    '''The exponent.'''

    def generator(self, step):
        KEPT.append(sys.stderr)
        return step.recon.mean() ** self.power

@vgx.hookimpl
def register_components(register):
    register(Loud)

@vgx.hookimpl
def run_ended(run):
    print("late", file=KEPT[0])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("no_pages")
def test_the_recipe_of_a_run_with_a_plugin_file_is_varied(tmp_path, capfd):
    """Nobody names the file again: the run has it. A part of it keeps the stream of a step."""
    (tmp_path / "loud.py").write_text(LOUD)
    own = vgx.load_recipe("tiny", FAST | {"train.steps": 1}).model_dump(mode="json")
    own["losses"].append({"type": "loud"})
    first = vgx.run(own, plugins=[tmp_path / "loud.py"], out=tmp_path / "1", quiet=True)
    (tmp_path / "loud.py").unlink()
    assert first.state == "done"
    assert capfd.readouterr() == ("", "")

    again = (vgx.load_recipe(first), vgx.load_recipe(first.model("cpu")))
    assert [*map(str, again)] == [str(first.recipe)] * 2
    assert vgx.load_recipe(first, {"train.steps": 3}).train.steps == 3
    varied = first.recipe.with_({"losses.4.power": 2, "image.size": 8})
    assert len(vgx.peek(varied, 2)) == 2
    second = vgx.run(varied, out=tmp_path / "2", quiet=True)
    assert (second.state, second.recipe.losses[4].power) == ("done", 2)
    (file,) = second.plugin_files
    assert file.data.decode() == LOUD
    # Copies of one file are one plugin; another file with its name is none.
    losses = [*second.recipe.losses, first.recipe.losses[4].model_copy(update={"name": "again"})]
    assert len(second.recipe.with_({"losses": losses}).losses) == 6
    (second.path / "plugins" / "loud.py").write_text(LOUD + "# another one")
    vgx.trust_plugins(second)
    with pytest.raises(vgx.PluginError, match=r"there is already one called loud\.py"):
        first.recipe.with_({"losses": [*first.recipe.losses, second.recipe.losses[4]]})
    with pytest.raises(vgx.RecipeError, match="int: give a name, a path, a dictionary, a Recipe"):
        vgx.load_recipe(7)


def test_the_folder_in_the_second_place_still_works(monkeypatch):
    given = []
    monkeypatch.setattr("vgx.notebook.training._steps", lambda *a, **k: given.append((a, k)))
    monkeypatch.setattr("vgx.training.session.finished", lambda steps: steps)
    with pytest.deprecated_call(match="out=FOLDER"):
        vgx.run("tiny", "my-runs")
    ((arguments, named),) = given
    assert (arguments, named["out"]) == (("tiny", ()), "my-runs")


# --- evaluating, comparing, listing ------------------------------------------------------------


@pytest.mark.slow
def test_an_evaluation_is_what_its_file_says(whole):
    run = whole[-1].run
    evaluation = vgx.evaluate(run, "psnr", n=8, seeds=1, quiet=True)
    written = json.loads((run.path / "evaluation.json").read_text())
    assert evaluation.results["reconstruction"] == written["reconstruction"]
    assert evaluation["psnr"] == written["reconstruction"]["figures"]["psnr"]["mean"]
    assert evaluation.figures["kl"] == written["latent"]["figures"]["kl"]["mean"]
    first, second = repr(evaluation).split("\n")
    assert first == "Evaluation of run 0001-tiny, step 4; one seed"
    assert f"psnr {evaluation['psnr']:.4g}" in second
    page = evaluation._repr_html_()
    assert "psnr (more is better)" in page
    assert "NOTICE: nothing was held out" in page
    assert "reconstruction: 8 images" in str(evaluation)
    evaluation.results["notices"].append("<script>")
    assert "<script>" not in evaluation._repr_html_()
    with pytest.raises(vgx.RecipeError, match="psn"):
        vgx.evaluate(run, ["psn"], quiet=True)
    for few in ({"n": 1}, {"seeds": 0}):
        with pytest.raises(vgx.RecipeError, match="give at least 2 images and 1 seed"):
            vgx.evaluate(run, "psnr", quiet=True, **few)


class Grey(vgx.Sampler, type="grey"):
    """Draws one latent, all zeros."""

    def build(self, latent):
        return self

    def draw(self, n, codes, generator):
        return codes.new_zeros(n, *codes.shape[1:])


@pytest.mark.slow
def test_a_sampler_is_given_as_an_object(whole):
    run = whole[-1].run
    model = run.model("cpu")
    wanted = torch.sigmoid(model.decoder(torch.zeros(3, *model.recipe.latent.shape)))
    torch.testing.assert_close(run.sample(3, Grey(), device="cpu").tensor, wanted)
    torch.testing.assert_close(vgx.sample(run, Grey(), 3, device="cpu"), wanted)
    for one in (Grey(), "prior"):
        measured = vgx.evaluate(run, "frechet-distance", samplers=one, n=8, seeds=1, quiet=True)
        assert len(measured.results["generation"]) == 1
        part = measured.results["generation"][0]["sampler"]
        assert part["type"] == (one if isinstance(one, str) else "grey")


class Learned:
    """Draws the mean of the latents, times a number that its cell says."""

    times = 1

    def fit(self, codes):
        self.mean = codes.mean(0) * self.times

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]

    def draw(self, n, codes, generator):
        return self.mean.expand(n, *codes.shape[1:])


class Learns(vgx.Sampler, type="learns"):
    """A sampler that is fitted."""

    def build(self, latent):
        return Learned()


@pytest.mark.slow
def test_what_a_sampler_of_a_notebook_learned_is_not_kept(whole, monkeypatch):
    """Nothing says whether its code is still the same."""
    run = whole[-1].run
    model, codes = run.model("cpu"), run.model("cpu").codes
    monkeypatch.delattr(sys.modules[__name__], "__file__")
    for times in (1, 3):
        monkeypatch.setattr(Learned, "times", times)
        wanted = torch.sigmoid(model.decoder(codes.mean(0)[None] * times))
        torch.testing.assert_close(vgx.sample(run, Learns(), 1, device="cpu"), wanted)
    assert not [*run.fits.glob("learns-*")]


@pytest.mark.slow
def test_a_part_that_the_run_cannot_keep_is_refused_and_the_run_stays(whole, tmp_path):
    """A later command would find no such class, and so it could not open the run."""
    run = vgx.Run(shutil.copytree(whole[-1].run.path, tmp_path / "0001-tiny"))
    text = run.recipe_file.read_text()
    for changed in (
        lambda: vgx.resume(run, {"trackers": [Watcher()]}, steps=6, quiet=True),
        lambda: vgx.fit(run, {"sampler": Grey(), "prior": "rectified-flow"}, quiet=True),
    ):
        with pytest.raises(vgx.PluginError, match="so nothing could open this run again"):
            changed()
        assert run.recipe_file.read_text() == text


@pytest.mark.slow
def test_runs_are_compared(whole, tmp_path):
    run = whole[-1].run
    other = vgx.run(
        "tiny", FAST | {"train.steps": 4, "losses.1.weight": 7.0}, out=tmp_path, quiet=True
    )
    compared = vgx.compare(run, other)
    assert compared.differences == {"losses.l1.weight": ("100.0", "7.0")}
    assert repr(compared).split("\n") == [
        "Comparison of 0001-tiny, 0001-tiny",
        "their recipes differ in: losses.l1.weight",
    ]
    assert "<td" in compared._repr_html_()
    assert "losses.l1.weight  100.0      7.0" in str(compared)
    assert compared.save(tmp_path / "page.html").read_text().startswith("<!doctype html>")
    with pytest.raises(vgx.RecipeError, match="two runs or more"):
        vgx.compare(run, run.path)


@pytest.mark.slow
def test_runs_are_listed(whole):
    folder = whole[-1].run.path.parent
    listed = vgx.runs(folder)
    assert [run.path.name for run in listed] == ["0001-tiny"]
    assert listed[0] == whole[-1].run
    assert repr(listed).splitlines()[0] == f"1 run in {folder}"
    assert "done   4 of 4" in repr(listed)
    assert listed.frame()["step"].tolist() == [4]
    (folder / "<b>x").mkdir()
    (folder / "<b>x" / "recipe.yaml").write_text("no: recipe")
    page = vgx.runs(folder)._repr_html_()
    assert "&lt;b&gt;x" in page
    assert "<b>x" not in page
    assert vgx.runs.directory is directory  # it is a package as well
