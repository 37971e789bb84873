"""Samplers and metrics that are given the trained networks."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vgx
from vgx import rng
from vgx.check.examine import examine
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.evaluation.features import FeatureCache, RealImages
from vgx.evaluation.metrics import measure_reconstructions, measure_samples
from vgx.runs.directory import Run
from vgx.sampling import draw as sampling
from vgx.testing import check_part, small_model
from vgx.training import session as training

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"
CPU = torch.device("cpu")


class Bound(vgx.Sampler, type="bound"):
    """Fitted to nothing; it notes in which order it is called."""

    harm: bool = False
    """Change the model."""

    def build(self, latent):
        return Calls(self.harm)


class Calls:
    def __init__(self, harm):
        self.harm, self.calls = harm, []

    def use(self, model):
        self.calls.append("use")
        self.model = model

    def fit(self, codes):
        self.calls.append("fit")

    def state_dict(self):
        return {"mean": torch.zeros(1)}

    def load_state_dict(self, state):
        self.calls.append("load")

    def draw(self, n, codes, generator):
        self.calls.append("draw")
        if self.harm:
            with torch.no_grad():
                next(self.model.decoder.parameters()).add_(1)
        return torch.stack([torch.randn(codes.shape[1:], generator=generator) for _ in range(n)])


class Brightness(vgx.Metric, type="brightness"):
    """How many images the model decodes brighter than the images that are given."""

    pairs = True
    needs: bool = False
    """Refuse every model."""

    def build(self, image):
        return Seen(self.needs)


class Seen:
    def __init__(self, needs):
        self.needs, self.labels, self.count = needs, [], 0

    def use(self, model):
        if self.needs:
            raise vgx.RecipeError("metric brightness: needs another model")
        self.model = model

    def update(self, real, fake, labels):
        self.labels.append(labels)
        self.count += len(real)
        assert not self.model.decoder.training

    def compute(self):
        return {"brightness": float(self.count)}


class BetweenSets(vgx.Metric, type="between-sets"):
    """The same, of sets of images instead of pairs."""

    gives = ("brightness",)

    def build(self, image):
        return Seen(needs=False)


def real_images(labels=None):
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    return RealImages(images, np.arange(6), labels, "", "trained on", 6)


def test_a_sampler_has_the_model_before_it_is_fitted():
    model = small_model()
    model = replace(model, recipe=model.recipe.model_copy(update={"sampler": Bound()}))
    prepared = sampling.prepare(model)
    assert prepared.sampler.model is model
    assert prepared.sampler.calls == ["use", "fit"]


def test_a_sampler_has_the_model_before_it_loads_what_it_learned(tmp_path):
    run = Run(tmp_path)
    model = small_model()
    model = replace(model, recipe=model.recipe.model_copy(update={"sampler": Bound()}))
    assert sampling.prepare(model, run).sampler.calls == ["use", "fit"]
    assert sampling.prepare(model, run).sampler.calls == ["use", "load", "draw"]


LEARNS = """import torch, vgx


class Learns(vgx.Sampler, type="learns"):
    'Fitted to nothing.'

    def build(self, latent):
        return Learned()


class Learned:
    def fit(self, codes):
        self.value = torch.full((1,), {value})

    def state_dict(self):
        return {{"value": self.value}}

    def load_state_dict(self, state):
        self.value = state["value"]

    def draw(self, n, codes, generator):
        return self.value.expand(n, 8)


@vgx.hookimpl
def register_components(register):
    register(Learns)
"""


def test_a_sampler_learns_again_when_its_code_has_changed(tmp_path):
    run, file, model = Run(tmp_path), tmp_path / "learns.py", small_model()
    for value, files in ((1.0, 1), (2.0, 2), (1.0, 2)):
        file.write_text(LEARNS.format(value=value))
        part = vgx.discover([file]).part("sampler", "learns")()
        other = replace(model, recipe=model.recipe.model_copy(update={"sampler": part}))
        assert sampling.prepare(other, run).sampler.value.tolist() == [value]
        assert len(list((tmp_path / "samplers").glob("*"))) == files


@pytest.mark.parametrize("labels", [None, np.array([3, 1, 0, 2, 2, 1])])
def test_the_state_of_a_metric_has_the_model_and_the_labels(labels, monkeypatch):
    """Of pairs and of sets; the labels are those of the real images."""
    built = []
    for part in (Brightness, BetweenSets):
        monkeypatch.setattr(
            part, "build", lambda self, image: built.append(Seen(needs=False)) or built[-1]
        )
    model, real = small_model(), real_images(labels)
    assert measure_reconstructions(model, real, [Brightness()]) == {"brightness": 6.0}
    samples = iter(torch.rand(6, 3, 16, 16).split(4))
    cache = FeatureCache(model.recipe.image, CPU, on_disk=False)
    assert measure_samples(samples, real, [BetweenSets()], cache, model=model) == {
        "brightness": 6.0
    }
    for state in built:
        assert state.model is model
        if labels is None:
            assert set(state.labels) == {None}
        else:
            assert torch.cat(state.labels).tolist() == labels.tolist()


def examined(**parts):
    recipe = vgx.load_recipe(TINY, {"eval.every": 5, "eval.metrics": ["psnr"]})
    update = {"eval": recipe.eval.model_copy(update={"metrics": parts.pop("metrics", ())})}
    recipe = recipe.model_copy(update={**update, **parts})
    plugin = vgx.Plugin("here", "0", "here", (Bound, Brightness))
    registry = vgx.Registry((*vgx.discover().plugins, plugin))
    return examine(Engine(recipe, 20), registry, Batch(torch.rand(4, 3, 16, 16), None))


def test_a_metric_that_refuses_the_model_ends_the_check():
    examined(metrics=(Brightness(),))
    with pytest.raises(vgx.RecipeError, match="brightness: needs another model"):
        examined(metrics=(Brightness(needs=True),))


def test_a_sampler_that_changes_the_model_is_an_error():
    examined(sampler=Bound())
    with pytest.raises(vgx.PluginError, match="changes the model that it is given"):
        examined(sampler=Bound(harm=True))


def test_the_kit_gives_a_model():
    check_part(Brightness())
    check_part(Bound())
    with pytest.raises(AssertionError, match="changes the model that it is given"):
        check_part(Bound(harm=True))
    with pytest.raises(AssertionError, match="needs another model"):
        check_part(Brightness(needs=True))


@pytest.mark.slow
def test_a_trained_sampler_uses_the_networks_of_its_checkpoint():
    """The example of the tutorial: of two draws, the one that the encoder finds again."""
    file = ROOT / "docs" / "examples" / "settled.py"
    registry = vgx.discover([file])
    recipe = vgx.load_recipe(TINY, {"sampler": "settled", "train.steps": 4}, registry)
    quiet = Console(file=io.StringIO())
    run = training.run(recipe, plugins=[file], registry=registry, console=quiet)
    model = vgx.load(run)
    draws = rng.generator(7, "sampler")
    wanted = []
    for _ in range(5):
        pair = torch.randn(2, 8, generator=draws)
        images = torch.sigmoid(model.decoder(pair))
        errors = (model.encoder(images).mu - pair).square().sum(1).tolist()
        wanted.append(images[errors.index(min(errors))])
    images = vgx.sample(run, n=5, seed=7)
    torch.testing.assert_close(images, torch.stack(wanted), atol=1e-5, rtol=1e-5)
