"""The first look: what is known before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vgx
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import PluginError, RecipeError

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
ODD = '''
import torch, vgx


class Wide(vgx.Decoder, type="wide"):
    """A decoder whose pictures are too wide."""

    def build(self, latent, image):
        wide = torch.nn.Unflatten(1, (3, 16, 17))
        return torch.nn.Sequential(torch.nn.Linear(8, 3 * 16 * 17), wide)


class Vector(vgx.Loss, type="vector"):
    """A loss that forgets its mean."""

    def generator(self, step):
        return (step.recon - step.real).flatten(1).mean(1)


class Bare(vgx.Discriminator, type="bare"):
    """A discriminator that gives a bare tensor."""

    def build(self, image, latent):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 1))


class Failing(vgx.Loss, type="failing"):
    """A loss with a bug."""

    def generator(self, step):
        return step.recon.no_such_method()


class Swallow(torch.nn.Module):
    """Gives what `answer` says for a batch of so many, and has one weight to train."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return self.answer(len(images))


class Blind(vgx.Encoder, type="blind"):
    """An encoder that gives what is no posterior."""

    gives: str

    def build(self, image, latent):
        size = latent.shape[0]
        return Swallow({
            "tensor": lambda n: torch.zeros(n, size),
            "nothing": lambda n: None,
            "narrow": lambda n: vgx.Gaussian(torch.zeros(n, 3), torch.zeros(n, 3)),
        }[self.gives])


class Mute(vgx.Decoder, type="mute"):
    """A decoder that gives a tuple."""

    def build(self, latent, image):
        return Swallow(lambda n: (torch.zeros(n, 3, 16, 16),))


class Flat(vgx.Discriminator, type="flat"):
    """A discriminator with logits of a shape to choose."""

    shape: tuple[int, ...]

    def build(self, image, latent):
        return Swallow(lambda n: vgx.Score(torch.zeros(n, *self.shape)))


class Empty(vgx.Discriminator, type="empty"):
    """A discriminator with nothing to learn."""

    def build(self, image, latent):
        return torch.nn.Identity()


class Crop(vgx.Augmentation, type="crop"):
    """An augmentation that gives back something else."""

    gives: str

    def build(self, image):
        def endless(x, chance):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        gives = {"less": lambda x, chance: x[..., 1:], "nothing": lambda x, chance: None}
        gives["endless"] = endless
        return gives[self.gives]


class Reach(vgx.Loss, type="reach"):
    """A loss of the discriminator that asks for whatever the recipe says."""

    wants: str
    value: float = 0.0

    def discriminator(self, step):
        wanted = getattr(step, self.wants)
        images = wanted if isinstance(wanted, torch.Tensor) else wanted.logits
        return images.mean() * 0 + float(self.value)


class Count(vgx.Loss, type="count"):
    """A loss that is no tensor."""

    def generator(self, step):
        return 1.0


class Infinite(vgx.Loss, type="infinite"):
    """A loss that is no number from the start."""

    def generator(self, step):
        return step.z.mean() / 0 * 0


class Careful(vgx.Loss, type="careful"):
    """A loss that looks whether there is something before it asks."""

    def generator(self, step):
        return step.posterior.mean.mean() if step.has("posterior") else step.z.mean()


@vgx.hookimpl
def register_components(register):
    for part in (Blind, Mute, Flat, Empty, Crop, Reach, Count, Infinite, Careful):
        register(part)
    for part in (Wide, Vector, Bare, Failing):
        register(part)
'''


@pytest.fixture
def examined(tmp_path):
    (tmp_path / "odd.py").write_text(ODD)
    registry = vgx.discover([tmp_path / "odd.py"])

    def call(*overrides):
        recipe = vgx.load_recipe(TINY, overrides, registry)
        engine = Engine(recipe, 4)
        real = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        return examine(engine, registry, Batch(real)), engine

    return call


def test_the_table_has_shapes_and_counts(examined):
    findings, engine = examined()
    rows = {row.network: row for row in findings.rows}
    assert rows["encoder"].shapes == "3x16x16 -> 8"
    assert rows["decoder"].shapes == "8 -> 3x16x16"
    for name, row in rows.items():
        assert row.parameters == sum(p.numel() for p in engine.networks[name].parameters())
    assert set(findings.losses) == {
        "bce-adversarial.generator", "bce-adversarial.discriminator", "l1", "bce", "kl",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["discriminator=null"],
            "bce-adversarial asks for step.fake_score: the recipe needs a dis",
        ),
        (["encoder=null"], "l1 asks for step.recon: the recipe needs an encoder"),
        (["encoder=null", "losses=[bce-adversarial, kl]"], "losses.1: kl asks for step.posterior"),
        (
            ["encoder=null", "losses=[bce]"],
            "bce asks for step.recon_logits: the recipe needs an enc",
        ),
        (
            ["losses=[{type: reach, wants: prior}]"],
            "losses.0: reach asks for step.prior: the recipe needs 'prior' in train.fakes",
        ),
        (
            ["discriminator=null", "losses=[l1, {type: reach, name: mine, wants: real_score}]"],
            "losses.1: mine asks for step.real_score: the recipe needs a discriminator",
        ),
    ],
)
def test_a_loss_that_asks_for_what_is_absent_is_named(examined, overrides, said):
    with pytest.raises(RecipeError) as caught:
        examined(*overrides)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("decoder=wide", "decoder 'wide'.*logits.*17"),
        ("losses=[vector]", "loss 'vector'.*of shape .*, not a scalar"),
        ("discriminator=bare", "discriminator 'bare'.*not a vgx.Score"),
        ("losses=[failing]", "loss 'failing'.*no_such_method"),
        ("losses=[count]", "loss 'count'.*its generator's term is a float, not a scalar"),
        ("losses=[infinite]", "loss 'infinite'.*is not finite"),
        ("losses=[{type: reach, wants: real, value: 1e300}]", "'reach'.*discriminator's term"),
        ("losses=[{type: reach, wants: nothing}]", "loss 'reach'.*no attribute 'nothing'"),
        (
            "encoder={type: blind, gives: tensor}",
            r"encoder 'blind'.*gives a Tensor; return vgx.Gaussian\(mu, logvar\)",
        ),
        ("encoder={type: blind, gives: nothing}", "encoder 'blind'.*it gives a NoneType; return"),
        ("encoder={type: blind, gives: narrow}", r"encoder 'blind'.*\(4, 3\), not \(4, 8\)"),
        ("decoder=mute", "decoder 'mute'.*the logits: a tuple, not a tensor"),
        ("augment=[{type: crop, gives: less}]", r"augmentation 'crop'.*15\), not \(4, 3, 16, 16\)"),
        ("augment=[{type: crop, gives: nothing}]", "augmentation 'crop'.*a NoneType, not a tensor"),
        ("discriminator={type: flat, shape: []}", r"discriminator 'flat'.*logits are \(4,\)"),
        ("discriminator={type: flat, shape: [2]}", r"discriminator 'flat'.*logits are \(4, 2\)"),
        (
            "discriminator={type: flat, shape: [1, 3]}",
            r"'flat'.*\(4, 1, 3\), not \[B, 1\] or \[B, 1, h, w\]",
        ),
    ],
)
def test_a_part_that_breaks_its_contract_is_named_with_its_plugin(examined, override, said):
    with pytest.raises(PluginError, match=said) as caught:
        examined(override)
    assert "odd.py" in str(caught.value)


def test_no_memory_is_no_fault_of_the_part(examined):
    said = "augmentation 'crop': not enough memory for the first batch; lower train.batch"
    with pytest.raises(RecipeError, match=said):
        examined("augment=[{type: crop, gives: endless}]")


def test_looking_changes_nothing():
    recipe = vgx.load_recipe(TINY)
    engine = Engine(recipe, 4)
    before = {
        name: {key: tensor.clone() for key, tensor in network.state_dict().items()}
        for name, network in engine.networks.items()
    }
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    examine(engine, vgx.discover(), Batch(torch.rand(4, 3, 16, 16, generator=torch.Generator())))
    assert torch.equal(torch.rand(3), expected)
    for name, network in engine.networks.items():
        assert network.training
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name][key]), f"{name}.{key}"
    assert engine.latents.written == 0


def test_a_player_without_weights_is_named(examined):
    with pytest.raises(RecipeError, match="the discriminator has no weights to train"):
        examined("discriminator=empty")


def test_a_loss_may_look_before_it_asks(examined):
    for overrides in ([], ["encoder=null"]):
        findings, _ = examined("losses=[careful]", "train.fakes=[prior]", "allow=['*']", *overrides)
        assert set(findings.losses) == {"careful"}


def test_single_scores_have_no_grid(examined):
    findings, _ = examined("discriminator={type: flat, shape: [1]}", "allow=['*']")
    assert not [note for note in findings.notes if "grid" in note]
    findings, _ = examined("discriminator={type: flat, shape: [1, 2, 5]}", "allow=['*']")
    assert "The discriminator scores a grid of 2x5 patches." in findings.notes


def test_the_losses_are_unweighted(examined):
    light, _ = examined("losses=[{type: l1, weight: 1}]", "allow=['*']")
    heavy, _ = examined("losses=[{type: l1, weight: 100, start: 50}]", "allow=['*']")
    assert light.losses == heavy.losses
    assert 0 < light.losses["l1"] < 1


MIXTURE = {"sampler": {"type": "gaussian-mixture", "components": 20}}
EARLY = {"eval.every": 2, "eval.n": 8, "eval.metrics": ["kernel-distance"]}


def test_a_fork_has_latents_at_its_first_evaluation():
    """Minibatches have 8 images, so a new run has 16 latents after two steps."""
    engine, batch = Engine(vgx.load_recipe(TINY, MIXTURE | EARLY), 20), torch.rand(4, 3, 16, 16)
    with pytest.raises(RecipeError, match="16 latents .*when 16 latents are stored; a larger"):
        examine(engine, vgx.discover(), Batch(batch, None))
    engine.latents.written = 24  # as in a fork of a run of three steps
    examine(engine, vgx.discover(), Batch(batch, None))


def test_a_mixture_of_more_than_a_check_fits_at_first_is_not_refused(monkeypatch):
    monkeypatch.setattr("vgx.check.networks.FITTED", 10)
    batch = Batch(torch.rand(4, 3, 16, 16), None)
    examine(Engine(vgx.load_recipe(TINY, MIXTURE), 20), vgx.discover(), batch)


def test_looking_writes_no_file(examined, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    examined()
    assert sorted(tmp_path.rglob("*")) == before
