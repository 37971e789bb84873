"""Decoders with a mapping network, and samplers that decode by themselves."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
import torch
from steps import forward
from torch import nn

import vgx
from vgx import rng
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.sampling import draw as sampling
from vgx.testing import check_part, small_model

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
WIDE = torch.float64


class TwoStage(vgx.Decoder, type="test-two-stage"):
    """A linear mapping, dropout in training, and a linear layer."""

    break_: str = ""
    """What is wrong."""

    def build(self, latent, image):
        return TwoStages(latent, image, self.break_)


class TwoStages(nn.Module):
    def __init__(self, latent, image, wrong):
        super().__init__()
        self.first, self.second = nn.Linear(latent.size, 5), nn.Linear(5, image.pixel_values)
        self.shape, self.wrong, self.dropout = image.shape, wrong, nn.Dropout(0.5)
        self.register_buffer("w_mean", torch.zeros(4 if wrong == "mean" else 5))

    def map(self, z, labels=None):
        w = self.first(z.flatten(1))
        return w[:1] if self.wrong == "map" else self.dropout(w)

    def decode_mapped(self, w):
        logits = self.second(w).view(-1, *self.shape)
        return logits[:, :1] if self.wrong == "shape" else logits

    def forward(self, z):
        logits = self.second(self.dropout(self.first(z.flatten(1)))).view(-1, *self.shape)
        return logits + 1 if self.wrong == "sum" else logits


class Spread(vgx.Loss, type="test-spread"):
    """The square of the images' slope by w."""

    def generator(self, step):
        w = step.map(step.prior_z)
        (slope,) = torch.autograd.grad(step.decode_mapped(w).sum(), w, create_graph=True)
        return slope.square().mean()

    def discriminator(self, step):
        w = step.map(step.prior_z)
        images = step.decode_mapped(w)
        assert not w.requires_grad
        assert not images.requires_grad
        return step.discriminator(images).logits.square().mean()


class Bright(vgx.Sampler, type="test-bright"):
    """Draws from N(0, I), and brightens what the model decodes."""

    by: float = 0.25
    """How much."""
    break_: str = ""
    """What is wrong."""

    @property
    def least_codes(self):
        return 0

    def build(self, latent):
        return Brightens(self.by, self.break_, latent)


class Brightens:
    def __init__(self, by, wrong, latent):
        self.by, self.wrong, self.latent = by, wrong, latent

    def use(self, model):
        self.model, self.labels = model, []

    def draw(self, n, codes, generator):
        rows = [torch.randn(self.latent.shape, generator=generator) for _ in range(n)]
        return torch.stack(rows).to(codes)

    def decode(self, z, labels):
        assert not torch.is_grad_enabled()
        self.labels.append(labels)
        images = self.model.decode(z, labels)
        if self.wrong == "shape":
            return images[:, :1]
        if self.wrong == "random":
            return images * torch.rand(())
        if self.wrong == "others":
            return images * (0.5 if len(z) == 5 else 1)
        return images + self.by if self.wrong == "range" else (images + self.by).clamp(max=1)


def recipe(**changes):
    return vgx.load_recipe(TINY, {"augment": [], "decoder": TwoStage(), **changes})


def images(n=8):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=WIDE)


def test_a_step_maps_and_decodes_what_was_mapped():
    engine = Engine(recipe(losses=["l1", "bce-adversarial"]), 1, dtype=WIDE)
    decoder, real = engine.networks["decoder"], images()
    one, same, later = (forward(engine, n, real, (n, 0, 0)) for n in (3, 3, 4))
    with rng.ambient(0, "anything"):
        before = torch.get_rng_state()
        w, second = one.map(one.z), one.map(one.z)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(w, same.map(one.z))  # the first call of that step
    assert not torch.equal(w, second)
    assert not torch.equal(w, later.map(one.z))
    assert torch.equal(one.decode_mapped(w), decoder.decode_mapped(w).sigmoid())
    decoder.eval()
    assert torch.allclose(one.decode_mapped(one.map(one.z)), one.decode(one.z), atol=1e-12)
    plain = Engine(vgx.load_recipe(TINY, {"augment": []}), 1, dtype=WIDE)
    step = forward(plain, 0, real)
    for name in ("map", "decode_mapped"):
        assert not step.has(name)
        with pytest.raises(vgx.AbsentError, match=f"step.{name} is absent: .* a mapping network"):
            getattr(step, name)


def test_the_audit_sees_what_a_slope_by_w_trains():
    engine = Engine(recipe(losses=[Spread(), "bce-adversarial", "l1"]), 10)
    found = examine(engine, vgx.discover(), Batch(images(4).float(), None))
    norms = {flow.label: flow.norms for flow in found.flows}
    assert norms["test-spread.generator"]["decoder"] > 0
    assert norms["test-spread.generator"]["encoder"] is None
    assert norms["test-spread.discriminator"]["decoder"] is None
    assert norms["test-spread.discriminator"]["discriminator"] > 0


FAULTS = [
    (TwoStage, "mean", r"its w_mean is \(4,\), which does not extend to w, \(\d, 5\)"),
    (TwoStage, "map", r"what its map gives: shape \(1, 5\), not \(\d, 5\)"),
    (TwoStage, "shape", r"what its decode_mapped gives: shape \(\d, 1, 16, 16\)"),
    (TwoStage, "sum", r"decode_mapped\(map\(z\)\) is not what the module gives"),
    (Bright, "shape", r"what its decode gives: shape \(5, 1, 16, 16\)"),
    (Bright, "range", r"what its decode gives: images leave \[0, 1\]"),
]


@pytest.mark.parametrize(("part", "wrong", "message"), FAULTS)
def test_a_broken_contract_is_told_by_the_kit_and_by_the_check(part, wrong, message):
    with pytest.raises(AssertionError, match=message):
        check_part(part(break_=wrong))
    changed = {part.kind: part(break_=wrong)}
    plugin = vgx.Plugin("here", "0", "here", (TwoStage, Bright))
    registry = vgx.Registry((*vgx.discover().plugins, plugin))
    engine = Engine(recipe(**{"losses": ["l1", "kl"], "discriminator": None, **changed}), 10)
    with pytest.raises(vgx.PluginError, match=message):
        examine(engine, registry, Batch(images(4).float(), None))


def test_the_kit_checks_that_a_sampler_decodes_each_latent_by_itself():
    check_part(TwoStage())
    check_part(Bright())
    with pytest.raises(AssertionError, match="decodes the same latents in another way"):
        check_part(Bright(break_="random"))
    with pytest.raises(AssertionError, match="an image that it decodes depends on the other"):
        check_part(Bright(break_="others"))


def test_a_sampler_decodes_in_place_of_the_model_and_gets_labels_where_there_are_any():
    model = small_model()
    plain = model.recipe.model_copy(update={"sampler": Bright()})
    model = dataclasses.replace(model, recipe=plain)
    prepared = sampling.prepare(model)
    z = sampling.draw_latents(prepared, 5, 0).z
    drawn = torch.cat(list(sampling.draw(model, prepared, 5, 0)))
    torch.testing.assert_close(drawn, (model.decode(z) + 0.25).clamp(max=1))
    assert prepared.sampler.labels == [None]


class OfLabels(vgx.Decoder, type="test-of-labels"):
    """A linear layer, and the label as brightness."""

    conditional = True

    def build(self, latent, image):
        return LabelAsBrightness(latent, image)


class LabelAsBrightness(nn.Module):
    def __init__(self, latent, image):
        super().__init__()
        self.layer, self.shape = nn.Linear(latent.size, image.pixel_values), image.shape

    def forward(self, z, labels):
        return self.layer(z.flatten(1)).view(-1, *self.shape) + labels[:, None, None, None]


class Fits(vgx.Sampler, type="test-bright-fitted"):
    """Draws from N(0, I), and learns how much it brightens. It decodes only with labels."""

    def build(self, latent):
        return Fitting(0.25, "", latent)


class Fitting(Brightens):
    def fit(self, codes):
        self.learned = codes.var().clamp(max=self.by)

    def state_dict(self):
        return {"learned": self.learned}

    def load_state_dict(self, state):
        self.learned = state["learned"]

    def decode(self, z, labels):
        assert labels.device == z.device
        return (self.model.decode(z, labels) + self.learned).clamp(max=1)


def model_with_labels():
    image, latent = vgx.ImageSpec(16, classes=3), vgx.LatentSpec((8,))
    model = small_model(image, latent)
    changed = model.recipe.model_copy(update={"decoder": OfLabels()})
    return dataclasses.replace(model, recipe=changed, decoder=OfLabels().build(latent, image))


def test_the_kit_decodes_with_the_labels_of_a_model_and_with_what_was_fitted():
    model = model_with_labels()
    check_part(Fits(), image=model.recipe.image, latent=model.recipe.latent, model=model)


def test_a_sampler_decodes_on_the_device_of_the_model():
    """Latents and labels are drawn on the CPU."""
    model, given = model_with_labels(), []
    model = dataclasses.replace(model, codes=model.codes.to("meta"))
    sampler = Bright().build(model.recipe.latent)
    sampler.decode = lambda z, labels: given.extend([z, labels]) or z
    sampling.decode(model, sampler, torch.zeros(2, 8), torch.arange(2))
    assert [each.device.type for each in given] == ["meta", "meta"]


def test_a_module_is_mapped_by_methods_of_its_class():
    """From Python 3.12 on, comparing with a protocol does not see what `__getattr__` finds.

    The buffers of a module are found by that, so the protocol must not name any.
    """
    members = {name for name in vars(vgx.Mapped) if not name.startswith("_")}
    assert members == {"map", "decode_mapped"}
    module = TwoStages(vgx.LatentSpec((3,)), vgx.ImageSpec(8), "")
    assert all(inspect.getattr_static(module, name) for name in members)
