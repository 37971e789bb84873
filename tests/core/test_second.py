"""The second stage: codes of the final encoder, a prior that learns them, folders of latents."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import vgx
from vgx import rng
from vgx.console import Console
from vgx.data.order import Shuffled
from vgx.data.split import held_out
from vgx.errors import DivergedError, Stopped
from vgx.runs import summed
from vgx.runs.checkpoint import tensors as read_tensors
from vgx.runs.trust import registry_of
from vgx.second import fitting, kept, running
from vgx.training.session import resume
from vgx_report import curves

RECIPE = {
    "extends": "vqvae",
    "name": "small",
    "image": {"size": 16, "classes": 2},
    "latent": [4, 4, 4],
    "dataset": {"type": "drawn-faces", "count": 96},
    "encoder": {
        "type": "vector-quantised",
        "codes": 16,
        "normalised": True,
        "inner": {"type": "residual", "widths": [8, 16]},
    },
    "decoder": {"type": "residual", "widths": [16, 8]},
    "prior": {"type": "transformer", "steps": 30, "batch": 16, "width": 16, "depth": 1},
    "sampler": "learned-prior",
    "train": {"steps": 6, "batch": 8, "ema": 0.5, "draw_every": 6, "precision": "fp32"},
    "eval": {"holdout": 0.2},
}
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a prior, and its images."""
    folder = tmp_path_factory.mktemp("second")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        patch.setattr(fitting, "SAVE_EVERY", 10)
        patch.setattr(fitting, "MEASURE_EVERY", 10)
        # The page of a run takes longer than many of these trainings.
        patch.setattr(vgx.Plugin, "call", lambda *_, **__: "")
        recipe = vgx.load_recipe({**RECIPE, "image": {"size": 16}})
        from vgx.training.session import run

        yield run(recipe, folder / "runs", "cpu", console=QUIET)


def copy_of(run, folder):
    shutil.copytree(run.path, folder / run.path.name)
    return vgx.Run(folder / run.path.name)


def tensors_of(run):
    data = (run.path / "prior" / "prior.safetensors").read_bytes()
    return read_tensors(data, run.path)


def images_of(recipe):
    from vgx.data.store import open_store

    return open_store(recipe.dataset.build(recipe.image), recipe.image)


@pytest.mark.slow
def test_codes_are_those_of_the_averaged_encoder_for_every_image_that_is_trained_on(made):
    recipe, model = vgx.Run(made.path).recipe, vgx.load(made.path)
    store = images_of(recipe)
    latents = vgx.load_latents(made.path / "prior" / "codes")
    rows = np.flatnonzero(~held_out(store.hashes, 0.2))
    assert 0 < len(rows) < 96
    codes = latents[:]
    assert codes["index"].tolist() == rows.tolist()
    images = torch.from_numpy(np.asarray(store.images[rows])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        posterior = model.encoder(images)
    assert torch.equal(codes["indices"], posterior.indices)
    assert torch.allclose(codes["latents"], posterior.mean, atol=1e-6)
    assert codes["indices"].dtype == torch.int64
    assert latents.about["model"]["sha256"] == model.sha256


@pytest.mark.slow
def test_the_loss_of_held_out_images_is_that_of_the_weights_that_draw(made):
    """Of indices it draws nothing, so it is the mean over all of them at once."""
    recipe, model = vgx.Run(made.path).recipe, vgx.load(made.path)
    store = images_of(recipe)
    rows = np.flatnonzero(held_out(store.hashes, 0.2))
    unseen = vgx.load_latents(made.path / "prior" / "held-out")[:]
    assert unseen["index"].tolist() == rows.tolist()
    images = torch.from_numpy(np.asarray(store.images[rows])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        indices = model.encoder(images).indices
        expected = model.prior.loss(indices, None, torch.Generator()).item()
    lines = vgx.Run(made.path / "prior").read_log()
    assert [line["step"] for line in lines if "metrics" in line] == [10, 20, 30]
    measured = [line["metrics"]["held_out"] for line in lines if "metrics" in line]
    assert measured[-1] == pytest.approx(expected, rel=1e-5)
    assert measured[0] != measured[1] != measured[2]
    page = curves.of_prior(lines)
    loss, shown = page["groups"][0]["lines"]
    assert (loss["name"], shown["name"]) == ("transformer", "held out")
    assert shown["values"] == pytest.approx(measured, rel=1e-3)
    assert page["axes"][shown["axes"]]["step"] == [10, 20, 30]


@pytest.mark.slow
def test_a_prior_that_was_stopped_goes_on_to_the_same_bits(made, tmp_path):
    """Stopped twice, between two checkpoints; nothing asks for the images again."""
    run = copy_of(made, tmp_path)
    recipe, registry = run.recipe, registry_of(run)
    (run.path / "prior" / "prior.safetensors").unlink()

    def stopping_at(step):
        def train(fitted, console, advance):
            def counted(more, values):
                advance(more, values)
                if fitted.done == step:  # when the step is done, and nothing of it was saved
                    fitted.stop = signal.SIGINT

            return original(fitted, console, counted)

        return train

    def unasked():
        raise AssertionError("the images are opened")

    original = fitting._train
    for step in (7, 23):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting, "_train", stopping_at(step))
            with pytest.raises(Stopped, match=f"stopped at step {step + 1} of 30 and saved"):
                fitting.fit(run, recipe, unasked, registry, torch.device("cpu"), QUIET)
        assert not fitting.finished(run, recipe)
        assert kept.read(run.path).about["steps"] == step + 1
    fitting.fit(run, recipe, unasked, registry, torch.device("cpu"), QUIET)
    assert fitting.finished(run, recipe)
    ours, theirs = tensors_of(run), tensors_of(made)
    assert ours.keys() == theirs.keys()
    different = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert different <= {"about"}  # it has the seconds
    ours, theirs = (vgx.Run(each.path / "prior").read_log() for each in (run, made))
    assert [line["step"] for line in ours] == [1, 10, 20, 30]
    for field in ("losses", "metrics"):
        assert [line.get(field) for line in ours] == [line.get(field) for line in theirs]


@pytest.mark.slow
def test_a_signal_before_the_first_step_of_the_prior_ends_the_training(made, tmp_path):
    """While images are encoded the handlers of the training are in force, and it is over."""
    run = copy_of(made, tmp_path)
    encode, codes = fitting.write_codes, run.path / "prior" / "codes"

    def interrupted(*given):
        signal.raise_signal(signal.SIGTERM)
        encode(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "write_codes", interrupted)
        with pytest.raises(Stopped, match="SIGTERM: the prior is stopped before its first step"):
            resume(run, run.recipe.with_({"train.steps": 8}), "cpu", QUIET)
    ended = json.loads((run.path / "ended.json").read_text())
    assert [ended[name] for name in ("how", "step", "of", "signal")] == ["stopped", 8, 8, 15]
    assert not codes.exists()
    resume(run, None, "cpu", QUIET)
    assert vgx.load_latents(codes).about["model"]["step"] == 8
    assert fitting.finished(run, run.recipe)


@pytest.mark.slow
def test_a_signal_when_all_is_encoded_ends_the_prior_after_a_step(made, tmp_path):
    run = copy_of(made, tmp_path)
    recipe, registry, device = run.recipe, registry_of(run), torch.device("cpu")
    (run.path / "prior" / "prior.safetensors").unlink()
    assert not fitting.finished(run, recipe)
    with pytest.raises(Stopped, match="SIGUSR1: the prior is stopped at step 1 of 30 and saved"):
        fitting.fit(run, recipe, lambda: None, registry, device, QUIET, lambda: signal.SIGUSR1)
    assert kept.read(run.path).about["steps"] == 1


@pytest.mark.slow
def test_more_steps_go_on_and_other_settings_begin_again(made, tmp_path):
    run = copy_of(made, tmp_path)
    longer = running.fit_run(run, ["prior.steps=40"], None, "cpu", QUIET)
    assert longer.prior.steps == 40
    assert vgx.Run(run.path).recipe.prior.steps == 40
    first = vgx.Run(run.path / "prior").read_log()
    assert [line["step"] for line in first] == [1, 10, 20, 30, 40]
    before = [line["losses"] for line in first]
    running.fit_run(run, ["prior.steps=20"], None, "cpu", QUIET)
    again = vgx.Run(run.path / "prior").read_log()
    assert [line["losses"] for line in again] == before[:3]
    assert fitting.finished(run, vgx.Run(run.path).recipe)
    running.fit_run(run, ["prior.width=8", "prior.heads=2", "prior.steps=5"], None, "cpu", QUIET)
    assert [line["step"] for line in vgx.Run(run.path / "prior").read_log()] == [1, 5]
    with pytest.raises(vgx.RecipeError, match=r"prior and sampler alone, not train\.steps"):
        running.fit_run(run, ["train.steps=9"], None, "cpu", QUIET)


@pytest.mark.slow
def test_its_samples_are_new_images_and_image_i_depends_on_i_alone(made):
    few, many = vgx.sample(made.path, n=3, seed=5), vgx.sample(made.path, n=70, seed=5)
    assert torch.equal(few, many[:3])
    assert not torch.equal(few, vgx.sample(made.path, n=3, seed=6))
    model = vgx.load(made.path)
    from vgx.sampling.draw import draw_latents, prepare

    z = draw_latents(prepare(model, made), 40, 0).z
    book = torch.nn.functional.normalize(model.encoder.codebook.weight, dim=1)
    nearest = torch.cdist(z.movedim(1, -1).reshape(-1, 4), book).amin(1)
    assert nearest.max() < 1e-3  # vectors of the codebook, each


@pytest.mark.slow
def test_a_damaged_prior_costs_the_prior_alone(made, tmp_path):
    run = copy_of(made, tmp_path)
    file = run.path / "prior" / "prior.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.warns(vgx.Notice, match="left out.*not as it was written; train it again: vgx fit"):
        assert vgx.load(run.path).prior is None
    with (
        pytest.warns(vgx.Notice),
        pytest.raises(vgx.RecipeError, match="no trained prior; train one: vgx fit"),
    ):
        vgx.sample(run.path, n=1)
    with pytest.warns(vgx.Notice):
        assert vgx.sample(run.path, "posterior", n=1).shape == (1, 3, 16, 16)
    running.fit_run(run, [], None, "cpu", QUIET)
    assert torch.equal(vgx.sample(run.path, n=2), vgx.sample(made.path, n=2))


def test_a_prior_of_a_false_size_is_refused_before_it_is_read(tmp_path, monkeypatch):
    file = tmp_path / "prior" / "prior.safetensors"
    file.parent.mkdir()
    file.write_bytes(summed.packed({"average.w": torch.zeros(3)}, "prior of vgx"))
    os.truncate(file, 2**28)
    monkeypatch.setattr(kept, "unpacked", lambda data, _: pytest.fail(f"{len(data)} bytes read"))
    with pytest.raises(vgx.StorageError, match="prior.safetensors: not as it was written"):
        kept.read(tmp_path)


@pytest.mark.slow
def test_a_prior_of_another_checkpoint_is_not_used(made, tmp_path):
    """Trained further, the run has another encoder: its codes are made anew."""
    run = copy_of(made, tmp_path)
    changed = run.recipe.with_({"train.steps": 8})
    before = vgx.load_latents(run.path / "prior" / "codes").about["model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit", lambda *_: None)
        resume(run, changed, "cpu", QUIET)
    with pytest.warns(vgx.Notice, match="trained on the codes of step 6, and this is another"):
        assert vgx.load(run.path).prior is None
    assert vgx.load(run.path, step=6).prior is not None
    resume(run, None, "cpu", QUIET)  # the second stage that is left
    after = vgx.load_latents(run.path / "prior" / "codes").about["model"]
    assert (before["step"], after["step"]) == (6, 8)
    assert vgx.load(run.path).prior is not None


@pytest.mark.slow
def test_the_prior_that_draws_has_the_averaged_weights(made, tmp_path, monkeypatch):
    run, expected, original = copy_of(made, tmp_path), {}, fitting._average

    def followed(fitted):
        decay = min(0.5, (1 + fitted.done) / (10 + fitted.done))
        for name, weight in fitted.network.named_parameters():
            before = expected.get(name, fitted.average.get_parameter(name))
            expected[name] = decay * before + (1 - decay) * weight.detach()
        original(fitted)

    monkeypatch.setattr(fitting, "_average", followed)
    running.fit_run(run, ["prior.ema=0.5"], None, "cpu", QUIET)
    weights = dict(vgx.load(run.path).prior.named_parameters())
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], atol=1e-6)


class Slope(vgx.Prior, type="slope"):
    """Its loss is a line with the slopes 0.3 and 0.4, times `scale`, and it keeps its codes."""

    scale: float = 1.0
    """What the slopes are multiplied by."""

    def build(self, latent, codes):
        return Line(self.scale)


class Line(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale, self.weight, self.seen = scale, torch.nn.Parameter(torch.zeros(2)), []

    def loss(self, codes, generator):
        self.seen.append(codes)
        return self.scale * (self.weight * torch.tensor([0.3, 0.4])).sum() + 0 * codes.mean()

    def draw(self, n, generator):
        return torch.zeros(n, 2, 3, 3)


def stepped(latents, scale, numbers):
    """Do steps of these numbers, each from the first weights; return what they left."""
    part, left = Slope(scale=scale, lr=0.01, batch=50), []
    network, device = part.build(None, None), torch.device("cpu")
    for number in numbers:
        average, optimizer = copy.deepcopy(network), torch.optim.SGD([network.weight], lr=7.0)
        network.weight.data.zero_()
        state = fitting.Fitting(
            None, part, latents, None, network, average, optimizer, {}, 3, device, number
        )  # fmt: skip
        _, norm = fitting._step(state, Shuffled(np.arange(len(latents))))
        left.append((norm.item(), network.weight.detach().clone()))
    return left, network.seen


@pytest.mark.parametrize(("scale", "gradient"), [(1.0, [0.3, 0.4]), (10.0, [0.6, 0.8])])
def test_a_step_is_cut_at_one_and_its_rate_rises_in_a_hundred_steps(gaussian, scale, gradient):
    """Plain gradient descent, so the weights that were 0 are minus the rate times the gradient."""
    numbers = (0, 49, 98, 99, 100, 5000)
    left, _ = stepped(vgx.load_latents(gaussian[0]), scale, numbers)
    for (norm, weight), rate in zip(left, (1e-4, 5e-3, 9.9e-3, 0.01, 0.01, 0.01), strict=True):
        assert norm == pytest.approx(0.5 * scale)  # before it is cut
        assert weight.tolist() == pytest.approx([-rate * each for each in gradient], rel=1e-5)


def test_each_step_learns_from_other_posterior_samples(gaussian):
    latents = vgx.load_latents(gaussian[0])
    _, (first, again, other) = stepped(latents, 1.0, (0, 0, 1))
    assert torch.equal(first, again)
    order = Shuffled(np.arange(50))
    noise = []
    for step, codes in enumerate((first, other)):  # all 50 images in each
        rows = torch.from_numpy(order.rows(rng.key(3, "prior"), step, 0, 50))
        noise.append((codes - latents[rows]["latents"]) / latents[rows]["deviations"])
    for each in noise:  # of 900 values
        assert abs(each.mean().item()) < 0.15
        assert each.std().item() == pytest.approx(1, abs=0.1)
    assert abs((noise[0] * noise[1]).mean().item()) < 0.15


ENDED_BEFORE = "and 1 at step 200; to end there: vgx fit 7 --set prior.steps=200"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, ""),
        ({100: 1.2, 200: 1.0, 300: 1.01}, ", of held-out images 1.01"),
        ({90: 1.2, 200: 1.0, 300: 1.3}, f", of held-out images 1.3, {ENDED_BEFORE}"),
        ({100: -2.5, 200: -3.0}, ", of held-out images -3"),  # of a prior that has a density
        ({100: -2.5, 200: -3.0, 300: -2.99}, ", of held-out images -2.99"),
    ],
)
def test_the_end_says_when_held_out_images_were_predicted_better(values, text):
    lines = [{"step": step, "metrics": {"held_out": value}} for step, value in values.items()]
    ended = SimpleNamespace(run=SimpleNamespace(short="7"))
    assert fitting._unseen(ended, [{"step": 1}, *lines]) == text


@pytest.mark.slow
def test_a_prior_of_other_settings_is_not_used(made, tmp_path):
    run = copy_of(made, tmp_path)
    run.recipe_file.write_text(vgx.dump_recipe(run.recipe.with_({"prior.lr": 0.5})))
    with pytest.warns(vgx.Notice, match="trained with other settings than the recipe has"):
        assert vgx.load(run.path).prior is None


@pytest.mark.slow
def test_a_prior_that_diverges_is_not_saved(made, tmp_path, monkeypatch):
    run = copy_of(made, tmp_path)
    file = run.path / "prior" / "prior.safetensors"
    before = file.read_bytes()
    whole = fitting._loss

    def without_loss(*given):
        return whole(*given) * torch.nan

    def without_gradient(training, network, *_):
        """The root of 0 is finite, and its slope is not."""
        return sum((weight * 0).sum() for weight in network.parameters()).sqrt()

    for broken, name in ((without_loss, "loss"), (without_gradient, "gradient")):
        monkeypatch.setattr(fitting, "_loss", broken)
        with pytest.raises(DivergedError, match=f"prior: step 31: the {name} is not finite"):
            running.fit_run(run, ["prior.steps=31"], None, "cpu", QUIET)
        assert file.read_bytes() == before
    # Fitted as it was advised, the run is done.
    ended = json.loads((run.path / "ended.json").read_text())
    (run.path / "ended.json").write_text(json.dumps({**ended, "how": "diverged", "message": "x"}))
    monkeypatch.setattr(fitting, "_loss", whole)
    running.fit_run(run, ["prior.steps=31"], None, "cpu", QUIET)
    again = json.loads((run.path / "ended.json").read_text())
    assert (again["how"], again["message"]) == ("done", "")


@pytest.mark.slow
def test_an_exported_model_has_its_prior_and_so_has_its_import(made, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vgx_share.exporting._onnx_files", lambda _: {})  # these take long
        folder = vgx.export(made.path, tmp_path / "model")
    expected = vgx.sample(made.path, n=4, seed=1)
    assert torch.equal(vgx.sample(folder, n=4, seed=1), expected)
    again = vgx.import_model(folder, out=tmp_path / "runs")
    assert torch.equal(vgx.sample(again.path, n=4, seed=1), expected)
    names = {path.name for path in folder.iterdir()}
    assert "prior.safetensors" in names
    assert not any("latents" in name or "codes" in name for name in names)

    # Which images it was trained on is not exported, so a prior learns any.
    pictures, out = tmp_path / "pictures", io.StringIO()
    pictures.mkdir()
    for number in range(12):
        Image.new("RGB", (16, 16), (20 * number, 20, 90)).save(pictures / f"{number:02}.png")
    few = ["prior.steps=2", "prior.batch=4"]
    with pytest.raises(vgx.RecipeError, match="make a run of it first: vgx import"):
        running.fit_run(vgx.runs.directory.Run(folder), few, str(pictures), "cpu", QUIET)
    console = Console(file=out, width=1000)
    running.fit_run(again, few, str(pictures), "cpu", console)
    said = f"{again.path}: imported; its prior learns images of image-folder path={pictures}"
    assert f"NOTICE: {said}\n" in out.getvalue()
    codes = vgx.load_latents(again.path / "prior" / "codes")
    assert codes.about["data"]["dataset"] == f"image-folder path={pictures}"
    held = vgx.load_latents(again.path / "prior" / "held-out")
    assert sorted([*codes[:]["index"].tolist(), *held[:]["index"].tolist()]) == [*range(12)]
    assert kept.read(again.path).about["steps"] == 2
    # Of other images it is refused: the codes that it learns are there.
    others = shutil.copytree(pictures, tmp_path / "others")
    text = r"learns images of image-folder .*pictures; to train one on .*others, remove .*prior"
    with pytest.raises(vgx.RecipeError, match=text):
        running.fit_run(again, ["prior.steps=4"], str(others), "cpu", QUIET)
    running.fit_run(again, ["prior.steps=4"], str(pictures), "cpu", QUIET)
    assert kept.read(again.path).about["steps"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": None}, "learned-prior draws with a prior: give one"),
        ({"encoder": None, "losses": ["hinge"], "sampler": "prior"}, "there is no encoder"),
    ],
)
def test_a_recipe_whose_prior_cannot_be_is_refused(changes, message):
    with pytest.raises(vgx.RecipeError, match=message):
        vgx.load_recipe({**RECIPE, **changes})


def test_a_prior_of_indices_needs_a_codebook_and_that_is_said_before_the_first_step(tmp_path):
    recipe = {
        **RECIPE,
        "image": {"size": 16},
        "encoder": {"type": "residual", "widths": [8, 16]},
        "losses": ["l2", "kl"],
    }
    from vgx.training.session import run

    with pytest.raises(vgx.RecipeError, match="prior transformer: it learns indices"):
        run(vgx.load_recipe(recipe), tmp_path, "cpu", console=QUIET)
    assert not [*tmp_path.glob("0*")]


@pytest.mark.slow
def test_a_run_keeps_its_recipe_when_its_codes_fit_no_such_prior(tmp_path, monkeypatch):
    from vgx.training.session import run

    monkeypatch.setattr(vgx.Plugin, "call", lambda *_, **__: "")
    changes = {
        "image": {"size": 16},
        "encoder": {"type": "residual", "widths": [8, 16]},
        "losses": ["l2", "kl"],
        "prior": None,
        "sampler": "prior",
    }
    made = run(vgx.load_recipe({**RECIPE, **changes}), tmp_path, "cpu", console=QUIET)
    before = made.recipe_file.read_text()
    with pytest.raises(vgx.RecipeError, match="prior transformer: it learns indices"):
        running.fit_run(made, ["prior=transformer"], None, "cpu", QUIET)
    assert made.recipe_file.read_text() == before


@pytest.mark.slow
def test_a_prior_draws_each_class_by_itself(tmp_path, monkeypatch):
    """Red images are of one class and blue ones of the other; the networks take no labels."""
    from vgx.training.session import run

    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vgx.Plugin, "call", lambda *_, **__: "")
    shades = np.linspace(120, 250, 12).astype(int).tolist()
    for name, colour in (("red", lambda n: (n, 20, 20)), ("blue", lambda n: (20, 20, n))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number, shade in enumerate(shades):
            file = tmp_path / "images" / name / f"{number}.png"
            Image.new("RGB", (16, 16), colour(shade)).save(file)
    changes = {
        "image": {"size": 16, "classes": 2},
        "dataset": {"type": "image-folder", "path": str(tmp_path / "images"), "label": "folder"},
        "augment": [],
        "prior": {**RECIPE["prior"], "steps": 250, "lr": 0.01, "ema": 0.9},
        "train": {**RECIPE["train"], "steps": 60},
        "eval": {},
    }
    made = run(vgx.load_recipe({**RECIPE, **changes}), tmp_path, "cpu", console=QUIET)
    codes = vgx.load_latents(made.path / "prior" / "codes")
    assert codes[:]["labels"].tolist() == [0] * 12 + [1] * 12
    assert [each["name"] for each in codes.about["classes"]] == ["blue", "red"]
    assert not (made.path / "prior" / "held-out").exists()  # no image was held out
    red, blue = (vgx.sample(made.path, n=12, label=name).mean((2, 3)) for name in ("red", "blue"))
    assert (red[:, 0] > red[:, 2] + 0.2).float().mean() > 0.8  # [12, C]
    assert (blue[:, 2] > blue[:, 0] + 0.2).float().mean() > 0.8
    both = vgx.sample(made.path, n=40).mean((2, 3))
    assert 8 < int((both[:, 0] > both[:, 2]).sum()) < 32


# --- folders of latents --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory):
    """Latents of a Gaussian encoder: pieces that are known, written in several shards."""
    from vgx.second import folder as folders

    place = tmp_path_factory.mktemp("latents") / "out"
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(50, 2, 3, 3, generator=generator) * torch.tensor([[[1.0]], [[3.0]]])
    deviations = torch.rand(50, 2, 3, 3, generator=generator)
    labels = torch.arange(50) % 3
    pieces = [
        {
            "index": torch.arange(50)[at : at + 7] * 2,
            "latents": mean[at : at + 7],
            "deviations": deviations[at : at + 7],
            "labels": labels[at : at + 7],
        }
        for at in range(0, 50, 7)
    ]
    about = {
        "shape": [2, 3, 3],
        "deviations": True,
        "classes": [{"name": name, "count": 1} for name in "abc"],
        "model": {"name": "x", "step": 3, "sha256": "0" * 64},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "SHARD", 3000)
        folders.write_latents(place, iter(pieces), about)
    return place, mean, deviations


def test_a_folder_of_latents_is_read_as_it_was_written(gaussian):
    place, mean, deviations = gaussian
    assert len([*place.glob("*.safetensors")]) > 2
    latents = vgx.load_latents(place)
    assert len(latents) == 50
    rows = torch.tensor([49, 0, 17, 17, 8])
    codes = latents[rows]
    assert torch.equal(codes["latents"], mean[rows])
    assert torch.equal(codes["deviations"], deviations[rows])
    assert codes["index"].tolist() == [98, 0, 34, 34, 16]
    assert codes["labels"].tolist() == [1, 0, 2, 2, 2]
    assert torch.equal(latents[-1]["latents"], mean[49])
    for pair in ([-1, np.int64(3)], (-1, 3)):
        assert latents[pair]["index"].tolist() == [98, 6]
    assert latents[np.int64(-1)]["index"] == 98
    assert latents[slice(None, None, -20)]["index"].tolist() == [98, 58, 18]
    twos = latents[:]["labels"] == 2
    assert latents[twos]["index"].tolist() == latents[twos.numpy()]["index"].tolist()
    assert latents[twos]["index"].tolist() == [2 * row for row in range(50) if row % 3 == 2]
    for wrong in (50, [50], -51, [0.5], [True, False]):
        with pytest.raises(IndexError):
            latents[wrong]
    numbers = latents.about["channels"]
    flat = mean.double().movedim(1, 0).flatten(1).numpy()
    variance = flat.var(1) + deviations.double().square().movedim(1, 0).flatten(1).mean(1).numpy()
    assert np.allclose(numbers["mean"], flat.mean(1))
    assert np.allclose(numbers["deviation"], np.sqrt(variance))
    assert np.allclose(numbers["scaling_factor"], 1 / np.sqrt(variance))
    whole = np.sqrt((variance + flat.mean(1) ** 2).mean() - flat.mean() ** 2)
    assert latents.about["all"]["scaling_factor"] == pytest.approx(1 / whole)
    sample = latents.posterior(slice(0, 50), torch.Generator().manual_seed(1))
    error = (sample - mean) / deviations
    assert error.std() == pytest.approx(1, abs=0.06)
    assert latents.mean.shape == latents.deviation.shape == (2, 1, 1)


def test_a_folder_of_latents_of_a_stranger_is_refused(gaussian, tmp_path):
    """Each change is noticed; only files of the folder itself are ever opened."""
    place, mean, _ = gaussian
    secret = tmp_path / "latents-00009.safetensors"
    first = place / "latents-00000.safetensors"
    shutil.copy(first, secret)

    def about(change):
        def changed(folder):
            data = json.loads((folder / "latents.json").read_text())
            change(data)
            (folder / "latents.json").write_text(json.dumps(data))

        return changed

    def shard(data, **changes):
        data["shards"]["latents-00000.safetensors"].update(changes)

    def resummed(tensors):
        def changed(folder):
            from vgx.runs.checkpoint import tensor_bytes
            from vgx.runs.exported import summed

            file = folder / "latents-00000.safetensors"
            new = tensor_bytes(tensors(read_tensors(file.read_bytes(), file)))
            file.write_bytes(new)
            about(lambda data: shard(data, **summed(new)))(folder)

        return changed

    def flipped(folder):
        file = folder / "latents-00001.safetensors"
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)

    def piped(folder):
        import os

        (folder / "latents-00000.safetensors").unlink()
        os.mkfifo(folder / "latents-00000.safetensors")

    cases = {
        "SHA-256": flipped,
        "not a regular file": piped,
        "no file of latents": about(
            lambda d: d["shards"].update({f"../{secret.name}": d["shards"].pop(first.name)})
        ),
        "its shards have not": about(lambda d: shard(d, count=9)),
        "bytes, not": about(lambda d: shard(d, bytes=10**15)),
        "newer vgx": about(lambda d: d.update(format=99)),
        "its channels": about(lambda d: d["channels"]["mean"].append(0.0)),
        "not those that latents.json describes": about(lambda d: d.update(shape=[2, 3, 4])),
        "Input should be": about(lambda d: d.update(shape=[10**9, 3, 3])),
        "not in 0 to 2": resummed(lambda t: {**t, "labels": t["labels"] + 7}),
        "not finite": resummed(lambda t: {**t, "latents": t["latents"] / 0}),
        "JSON": lambda folder: (folder / "latents.json").write_text("{" * 10**6),
        "missing|No such file": lambda folder: (folder / "latents.json").unlink(),
    }
    for message, change in cases.items():
        folder = tmp_path / "stranger"
        shutil.copytree(place, folder)
        change(folder)
        with pytest.raises(vgx.StorageError, match=message):
            vgx.load_latents(folder)
        shutil.rmtree(folder)
    assert len(mean)


@pytest.mark.slow
def test_latents_are_written_to_a_new_folder_alone(made, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(vgx.StorageError, match="not an empty folder"):
        running.encode(made, "nowhere", tmp_path / "out", "cpu", QUIET, best=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert replace(made).path == made.path


def test_a_setting_that_the_prior_does_not_know_is_refused_before_the_first_step(tmp_path):
    from vgx.training.session import run

    sampler = {"type": "learned-prior", "solver": "euler"}
    recipe = {**RECIPE, "image": {"size": 16}, "sampler": sampler}
    message = "sampler learned-prior: solver: the prior transformer has no such setting"
    with pytest.raises(vgx.RecipeError, match=message):
        run(vgx.load_recipe(recipe), tmp_path, "cpu", console=QUIET)
    assert not [*tmp_path.glob("0*")]
