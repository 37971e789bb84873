"""The audit: published faults, rebuilt as plugins, are caught by name before the first step."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
from several import NAMES, narrow
from steps import forward

import vgx
from vgx.check import audit
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import PluginError, RecipeError
from vgx.parts.base import noting_reads
from vgx.recipe.lengths import with_length

RECIPES = Path(__file__).parents[2] / "recipes"

FAULTS = '''
import torch
import torch.nn.functional as F
import vgx
from torch import nn


class Undetached(vgx.Loss, type="undetached"):
    """Both players, but the fakes are judged anew and not detached for the discriminator."""

    def generator(self, step):
        return F.softplus(-step.fake_score.logits).mean()

    def discriminator(self, step):
        fake = step.discriminator(step.recon).logits
        return F.softplus(-step.real_score.logits).mean() + F.softplus(fake).mean()


class Perceptual(vgx.Loss, type="perceptual-no-grad"):
    """Features are compared under no_grad."""

    def generator(self, step):
        with torch.no_grad():
            return (F.avg_pool2d(step.recon, 2) - F.avg_pool2d(step.real, 2)).abs().mean()


class HalfGan(vgx.Loss, type="half-gan"):
    """The generator's half alone: nobody trains the discriminator."""

    def generator(self, step):
        return F.softplus(-step.fake_score.logits).mean()


class LogVariance(vgx.Loss, type="log-variance"):
    """A Gaussian likelihood with a learned log-variance that build does not return."""

    def build(self, image, latent):
        term = Likelihood()
        term.logvar = nn.Parameter(torch.zeros(()))
        return term


class Likelihood:
    def generator(self, step):
        squared = (step.recon - step.real).square().mean()
        return squared * (-self.logvar).exp() + self.logvar


class Held(vgx.Loss, type="held"):
    """The same, done right: a module."""

    def build(self, image, latent):
        return Module()


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.logvar = nn.Parameter(torch.zeros(()))

    def generator(self, step):
        squared = (step.recon - step.real).square().mean()
        return squared * (-self.logvar).exp() + self.logvar


class Ignored(vgx.Loss, type="ignored"):
    """Its field `margin` is accepted and never read."""

    margin: float = 0.0

    def generator(self, step):
        return (step.recon - step.real).abs().mean()


class Confused(vgx.Loss, type="confused"):
    """The generator's half reads nothing of the generator's."""

    def generator(self, step):
        return step.real_score.logits.mean()


class Backward(vgx.Loss, type="backward"):
    """Calls backward by itself."""

    def generator(self, step):
        value = (step.recon - step.real).abs().mean()
        value.backward(retain_graph=True)
        return value


class Probabilities(vgx.Discriminator, type="probabilities"):
    """Ends in a sigmoid."""

    ends: str = "sigmoid"

    def build(self, image, latent):
        return Judge(self.ends, image)


class Judge(nn.Module):
    def __init__(self, ends, image):
        super().__init__()
        self.layers = nn.Linear(image.pixel_values, 1)
        self.ends = None if ends == "none" else getattr(torch, ends)

    def forward(self, images):
        logits = self.layers(images.flatten(1))
        logits = logits if self.ends is None else self.ends(logits)
        return vgx.Score(logits.view(-1, 1, 1, 1))


class Spare(vgx.Decoder, type="spare"):
    """A decoder with a layer that is never used."""

    squash: bool = False

    def build(self, latent, image):
        return SpareNetwork(self.squash, latent, image)


class SpareNetwork(nn.Module):
    def __init__(self, squash, latent, image):
        super().__init__()
        self.used = nn.Linear(latent.shape[0], image.pixel_values)
        self.spare = nn.Linear(2, 2)
        self.shape, self.squash = (image.channels, image.size, image.size), squash

    def forward(self, z):
        logits = self.used(z).unflatten(1, self.shape)
        return torch.tanh(logits) if self.squash else logits


class Brighten(vgx.Augmentation, type="brighten"):
    """Leaves the range."""

    def build(self, image):
        return lambda images, generator: images + 0.5


class NotANumber(vgx.Encoder, type="not-a-number"):
    """Gives NaN."""

    def build(self, image, latent):
        return NanNetwork(image, latent)


class NanNetwork(nn.Module):
    def __init__(self, image, latent):
        super().__init__()
        self.layer = nn.Linear(image.pixel_values, latent.shape[0])

    def forward(self, images):
        mu = self.layer(images.flatten(1)) / 0
        return vgx.Gaussian(mu, mu)


class StandingBy(vgx.Dataset, type="standing-by"):
    """Has another data set that it may use or not."""

    of: vgx.Dataset
    used: bool
    unused: int = 0

    def build(self, image):
        other = self.of
        return other.build(image) if self.used else None


@vgx.hookimpl
def register_components(register):
    for part in (
        StandingBy,
        Undetached, Perceptual, HalfGan, LogVariance, Held, Ignored, Confused, Backward,
        Probabilities, Spare, Brighten, NotANumber,
    ):
        register(part)
'''


@pytest.fixture
def examined(tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    registry = vgx.discover([tmp_path / "faults.py"])

    def call(*overrides, recipe="tiny"):
        loaded = vgx.load_recipe(RECIPES / f"{recipe}.yaml", overrides, registry)
        with noting_reads() as reads:
            steps = loaded.train.steps or 20
            engine = Engine(with_length(loaded, steps), steps)
            size = loaded.image.size
            real = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
            loaded.dataset.build(loaded.image)
            labels = torch.arange(4) % loaded.image.classes if loaded.image.classes else None
            return examine(engine, registry, Batch(real, labels), reads)

    return call


PUBLISHED = [
    # A discriminator's loss that leaks into the decoder, because the fakes are not detached.
    (
        "losses=[undetached, l1, kl]",
        "leak:undetached.discriminator",
        r"leads to step.recon and so into the generator: write step.recon.detach()",
    ),
    # A perceptual term computed under no_grad.
    (
        "losses=[bce-adversarial, l1, kl, perceptual-no-grad]",
        "dead:perceptual-no-grad",
        "the generator learns nothing from it: it was computed under no_grad",
    ),
    # A discriminator whose optimizer never steps.
    ("losses=[half-gan, l1, kl]", "unstepped:discriminator", "its optimizer never steps"),
    # A learnable log-variance that no optimizer holds.
    (
        "losses=[bce-adversarial, l1, kl, log-variance]",
        "unstepped:log-variance",
        "it learns a tensor of shape () that no optimizer holds",
    ),
    # A value in the configuration that is accepted and ignored.
    (
        "losses=[bce-adversarial, {type: ignored, margin: 0.5}, kl]",
        "unread:losses.1.margin",
        "nothing read it, so 0.5 changes nothing",
    ),
]


@pytest.mark.parametrize(("override", "name", "said"), PUBLISHED, ids=lambda v: v.split(":")[0])
def test_a_published_fault_is_caught_by_name(examined, override, name, said):
    with pytest.raises(RecipeError) as caught:
        examined(override)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"audit: {name}: ")
    assert said in str(caught.value)
    assert str(caught.value).endswith(f'If that is meant: allow: ["{name}"]')


@pytest.mark.parametrize(("override", "name", "said"), PUBLISHED, ids=lambda v: v.split(":")[0])
def test_each_can_be_allowed_by_name_and_is_told_all_the_same(examined, override, name, said):
    notes = examined(override, f"allow=['{name}']").notes
    assert any(
        note.startswith(f"Allowed by the recipe: {name}: ") and said in note for note in notes
    )
    with pytest.raises(RecipeError, match=name.replace(".", r"\.")):
        examined(override, "allow=['dead:something-else']")


OTHERS = [
    ("losses=[bce-adversarial, confused, l1, kl]", "dead:confused", "reaches only the discrim"),
    ("train={steps: 9, ema: null, ema_warmup: true}", "unread:train.ema_warmup", "set train.ema"),
    ("decoder=spare", "unreached:decoder.spare.weight", "no loss term trains it"),
    ("decoder={type: spare, squash: true}", "squashed:decoder", "it ends in a tanh, but should"),
    ("discriminator=probabilities", "squashed:discriminator", "it ends in a sigmoid, but should"),
    (
        "losses=[{type: bce-adversarial, reaches: [decoder]}, {type: l1, reaches: [decoder]}]",
        "unreached:encoder",
        "no loss term trains it",
    ),
    (
        "train.optimizers.discriminator.lr={from: 0, to: 0, steps: 5}",
        "unstepped:discriminator",
        "its learning rate is 0 from beginning to end",
    ),
]


@pytest.mark.parametrize(("override", "name", "said"), OTHERS, ids=lambda v: v.split(":")[0])
def test_other_faults_are_caught_by_name(examined, override, name, said):
    with pytest.raises(RecipeError) as caught:
        examined(override)
    assert f"audit: {name}: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("start: 20", "l1 never counts: it starts at step 20 of 20."),
        ("weight: 0", "l1 never counts: its weight is 0."),
        ("weight: {from: 0, to: 1, steps: 5, after: 30}", "l1 never counts: it starts at step 31"),
        ("start: 19", None),
        ("weight: {from: 0, to: 1, steps: 5, after: 10}", None),
    ],
)
def test_a_term_that_counts_in_no_step_is_told_and_no_fault(examined, fields, said):
    """Who tries a long recipe for a few steps is not to be stopped."""
    notes = examined(f"losses.1={{type: l1, {fields}}}").notes
    told = [note for note in notes if "never counts" in note]
    assert len(told) == (said is not None)
    assert all(note.startswith(said) for note in told)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("losses=[bce-adversarial, backward, kl]", "called backward()"),
        ("augment=[brighten]", "'brighten'.*images leave \\[0, 1\\]: they go from 0.5"),
        ("encoder=not-a-number", "'not-a-number'.*not all finite numbers"),
    ],
)
def test_what_breaks_a_contract_names_the_part(examined, override, said):
    with pytest.raises(PluginError, match=said):
        examined(override)


def test_weights_of_a_loss_that_is_a_module_are_held_and_reached(examined):
    flows = {
        flow.label: flow.norms
        for flow in examined(
            "losses=[bce-adversarial, held]", "allow=['unreached:encoder.logvar*']"
        ).flows
    }
    assert flows["held"]["loss held"] > 0
    assert flows["bce-adversarial.generator"]["loss held"] is None


def test_a_part_that_stands_by_unused_is_no_fault(examined):
    faces = "{type: standing-by, of: {type: drawn-faces, count: 9}, used: %s, unused: 5}"
    with pytest.raises(RecipeError, match=r"audit: unread:dataset\.unused: "):
        examined(f"dataset={faces % 'false'}")
    faces = faces.replace(", unused: 5", "")
    assert examined(f"dataset={faces % 'false'}").notes
    # What stands in makes the other's fields nobody's business.
    assert examined(f"dataset={(faces % 'true')[:-1]}, unused: 5}}").notes


def test_a_discriminator_of_logits_is_not_taken_for_one_of_probabilities(examined):
    examined("discriminator={type: probabilities, ends: none}")


def test_a_pattern_allows_many(examined):
    notes = examined("decoder=spare", "allow=['unreached:decoder.*']").notes
    assert sum("unreached:decoder.spare" in note for note in notes) == 2


def test_networks_that_squash_are_found_in_the_step_itself():
    """Not in another forward pass, on images that are augmented once more."""
    engine = Engine(vgx.load_recipe(RECIPES / "tiny.yaml"), 20)
    step = forward(engine, 0, torch.rand(4, 3, 16, 16))
    with mock.patch.object(engine, "forward", None):
        _, findings = audit.measure(engine, [], step, step)
    assert findings  # such as that no loss trains anything
    assert not [each for each in findings if each.name.startswith("squashed")]


def test_the_norms_are_those_of_plain_backward_passes(examined, tmp_path):
    """Of the anime recipe's terms: each alone, by `backward`, network by network."""
    flows = {flow.label: flow.norms for flow in examined().flows}
    recipe = vgx.load_recipe(RECIPES / "tiny.yaml")
    engine = Engine(recipe, 20)
    real = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert set(flows) == {
        "bce-adversarial.generator", "bce-adversarial.discriminator", "l1", "bce", "kl",
    }  # fmt: skip
    for term in [*engine.players["generator"].terms, *engine.players["discriminator"].terms]:
        player = "discriminator" if term.label.endswith("discriminator") else "generator"
        step = forward(engine, 0, real)
        getattr(term.module, player)(step).backward()
        for name, network in engine.networks.items():
            found = [p.grad for p in network.parameters() if p.grad is not None]
            mine = (name == "discriminator") == (player == "discriminator")
            if mine and found:
                norm = torch.stack([g.norm() for g in found]).norm().item()
                assert flows[term.label][name] == pytest.approx(norm, rel=1e-3)
            else:
                assert flows[term.label][name] is None
            network.zero_grad()


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_passes(examined, name):
    """With networks an eighth as wide, which read the same and are read by the same."""
    assert examined(*narrow(name), "dataset={type: drawn-faces, count: 8}", recipe=name).flows


@pytest.mark.chaos
@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_passes_as_it_is_written(examined, path):
    sizes = {"discriminator.backbone": "test_resnet"} if "anime" in path.stem else {}
    overrides = [f"{key}={value}" for key, value in sizes.items()]
    if path.stem == "anime_vaegan_finetune":
        overrides += ["discriminator.pretrained=false"]
    if path.stem == "finetune_autoencoder":  # its weights are on the hub, and they are large
        overrides += ["start=null", "image.size=32", "latent=[4,4,4]"]
        overrides += ["encoder.widths=[8,8,16,16]", "decoder.widths=[16,16,8,8]"]
        overrides += ["encoder.groups=4", "decoder.groups=4"]
    overrides += ["dataset={type: drawn-faces, count: 8}"]
    assert examined(*overrides, recipe=path.stem).flows
