"""What images of a minibatch have to do with each other: BatchNorm, pieces, labels, last layers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import vgx
from vgx.check import examine as examining
from vgx.check.examine import examine
from vgx.check.networks import mixes_images
from vgx.data.batches import Batch
from vgx.distributed.state import sharing_now
from vgx.engine.engine import Engine
from vgx.engine.losses import last_layer_of
from vgx.errors import RecipeError
from vgx.parts.contract import images_of, reduction
from vgx.testing import full_step
from vgx.testing.processes import in_processes

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
PLUGIN = '''
import torch
import vgx
from torch import nn


class Backwards(nn.Module):
    """Registers its last layer first, as many published generators do."""

    def __init__(self, latent, image):
        super().__init__()
        self.to_rgb = nn.Linear(6, image.pixel_values)
        self.first = nn.Linear(latent.shape[0], 6)
        self.norm = nn.LayerNorm(6)
        self.shift = nn.Parameter(torch.zeros(image.pixel_values))
        self.shape = (image.channels, image.size, image.size)

    def forward(self, z):
        return (self.to_rgb(self.norm(self.first(z)).relu()) + self.shift).unflatten(1, self.shape)


class Registered(vgx.Decoder, type="backwards"):
    """A decoder whose last layer is registered first."""

    def build(self, latent, image):
        return Backwards(latent, image)


class Flat(nn.Module):
    """One layer, without BatchNorm."""

    def __init__(self, image, latent):
        super().__init__()
        self.layer = nn.Linear(image.pixel_values, 2 * latent.shape[0])

    def forward(self, images):
        return vgx.Gaussian(*self.layer(images.flatten(1)).chunk(2, 1))


class Single(vgx.Encoder, type="single"):
    """An encoder of one layer, without BatchNorm."""

    def build(self, image, latent):
        return Flat(image, latent)


class Apart(vgx.Loss, type="apart"):
    """The variance over the images of a batch."""

    def generator(self, step):
        return step.recon.mean((1, 2, 3)).var(correction=0)


class Drawing(vgx.Loss, type="drawing"):
    """It looks across the images and draws, so it has to say so."""

    across_batch = True

    def generator(self, step):
        draws = torch.rand(len(step.real), generator=step.rng("drawing"))
        return (step.recon.mean((1, 2, 3)) * draws).mean().square()


class ByLabel(vgx.Loss, type="by-label"):
    """A loss that reads the labels."""

    def generator(self, step):
        return ((step.recon - step.real).abs().mean((1, 2, 3)) * (1 + step.labels)).mean()


@vgx.hookimpl
def register_components(register):
    for part in (Registered, Single, Apart, Drawing, ByLabel):
        register(part)
'''


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    return vgx.discover([tmp_path / "mine.py"])


@pytest.fixture
def notes(registry):
    """The notes of a recipe on four images, as the check has them."""

    def call(*overrides, labels=None):
        recipe = vgx.load_recipe(TINY, overrides, registry)
        size = recipe.image.size
        real = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
        return examine(Engine(recipe, 20, 64), registry, Batch(real, labels)).notes

    return call


# --- how a term combines images ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (lambda x: x.mean(), "mean"),
        (lambda x: x.mean() * 0, "mean"),
        (lambda x: -x.square().mean(), "mean"),
        (lambda x: x.sum(), "sum"),
        (lambda x: x.square().sum() / 10, "sum"),
        (lambda x: x.var(), "other"),
        (lambda x: x.mean().square(), "other"),
        (lambda x: x.norm(), "other"),
        (lambda x: x[x > 3].sum() / (x > 3).sum().clamp(min=1), "other"),  # none in the first half
    ],
)
def test_a_value_is_known_as_a_mean_a_sum_or_neither(term, expected):
    images = torch.tensor([1.0, -2.0, 4.0, 7.0])
    one, two = images.split(2)
    assert reduction(term(images).item(), (term(one).item(), term(two).item())) == expected


def test_the_images_of_both_kinds_of_fakes_are_taken_together():
    step = full_step()
    part = images_of(step, slice(2, 4))
    assert torch.equal(part.real, step.real[2:4])
    assert torch.equal(part.posterior.mu, step.posterior.mu[2:4])
    fakes = step.fake_score.logits  # 8 scores of reconstructions, then 8 of draws
    assert torch.equal(part.fake_score.logits, fakes[[2, 3, 10, 11]])
    assert torch.equal(part.fake, step.fake[[2, 3, 10, 11]])


# --- pieces of a minibatch -----------------------------------------------------------------------


ACROSS = "these look across the 2 images of a piece where they would look across 8: "
PIECES = ["train.batch=8", "train.accumulate=4"]
PLAIN = ["discriminator=null", "encoder=single", "decoder=backwards"]


@pytest.mark.parametrize(
    ("losses", "names"),
    [
        ("[l1, kl, apart]", ["apart"]),
        ("[l1, kl, total-correlation]", ["total-correlation"]),
        ("[l1, kl, mmd]", ["mmd"]),  # it draws, and says so itself
        ("[l1, kl, drawing]", ["drawing"]),
        ("[l1, {type: kl, free_bits: 0.05}]", ["kl"]),
        ("[l1, kl, {type: bce, weight: {against: [l1]}}]", ["bce"]),
        ("[l1, kl, bce, charbonnier]", []),
    ],
)
def test_with_pieces_it_is_told_what_looks_across_images(notes, losses, names):
    told = [note for note in notes(*PLAIN, *PIECES, f"losses={losses}") if "accumulate" in note]
    assert [note.partition(ACROSS)[2].rstrip(".") for note in told] == [", ".join(names)] * bool(
        names
    )
    assert not [note for note in notes(*PLAIN, f"losses={losses}") if "accumulate" in note]


def test_draws_of_diff_augment_are_not_taken_for_a_look_across_images(notes):
    flipped = ["diff_augment=[horizontal-flip]", "losses=[l1, kl, wasserstein, r1]", *PIECES]
    (told,) = [note for note in notes(*flipped, "discriminator.norm=none") if "accumulate" in note]
    assert told.endswith(ACROSS + "encoder, decoder.")


def test_with_pieces_networks_with_batchnorm_are_told_too(notes):
    (told,) = [note for note in notes(*PIECES) if "accumulate" in note]
    assert told.endswith(ACROSS + "encoder, decoder, discriminator.")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["discriminator=null", "losses=[l1, mmd]", "train.batch=8", "train.accumulate=8"],
            (
                "train.accumulate: a piece of 1 image is too small for the loss 'mmd', which works "
                "with more: mmd needs a minibatch of at least two images; write train.accumulate=4"
            ),
        ),
        (
            ["encoder.widths=[4, 4, 4, 4]", "train.batch=6", "train.accumulate=6"],
            (
                "train.accumulate: a piece of 1 image is too small for the encoder 'conv', which "
                "works with more: Expected more than 1 value per channel when training, got input "
                "size torch.Size([1, 4, 1, 1]); write train.accumulate=3"
            ),
        ),
        (
            ["encoder.widths=[4, 4, 4, 4]", "train.batch=1"],
            (
                "train.batch: a minibatch of 1 image is too small for the encoder 'conv', which "
                "works with more: Expected more than 1 value per channel when training, got input "
                "size torch.Size([1, 4, 1, 1]); write a larger train.batch"
            ),
        ),
    ],
)
def test_a_piece_that_is_too_small_is_refused_before_the_first_step(notes, overrides, said):
    with pytest.raises(RecipeError) as refused:
        notes(*overrides)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("overrides", "images"),
    [
        (["train.batch=16"], 8),
        (["train.batch=24", "train.accumulate=4"], 3),
        (["train.batch=8"], 4),  # as all checks have, but not as a share
    ],
)
def test_of_two_processes_each_tries_its_share_of_a_piece(notes, monkeypatch, overrides, images):
    tried = []

    def values(engine, batch):
        tried.append((len(batch), sharing_now().images))
        return []

    monkeypatch.setattr(examining, "values_of_terms", values)
    in_processes(2, lambda: notes(*PLAIN, "losses=[l1, kl]", *overrides))
    assert tried == [(images, images)] * 2


def test_one_image_in_each_of_two_processes_is_enough_for_batchnorm_over_both(notes):
    plain = ["encoder.widths=[4, 4, 4, 4]", "discriminator=null", "losses=[l1, kl]"]
    in_processes(2, lambda: notes(*plain, "train.batch=2"))
    with pytest.raises(RecipeError) as refused:
        in_processes(2, lambda: notes(*plain, "train.batch=2", "train.batch_norm=local"))
    assert str(refused.value) == (
        "train.batch: a minibatch of 1 image in each process is too small for the encoder 'conv', "
        "which works with more: Expected more than 1 value per channel when training, got input "
        "size torch.Size([1, 4, 1, 1]); write a larger train.batch"
    )


def test_a_minibatch_of_one_image_is_fine_where_the_networks_allow_it(notes):
    assert notes("train.batch=1", *PLAIN, "losses=[l1, kl]")


# --- gradient penalties --------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["gradient-penalty", "r1", "r2", "dragan"])
@pytest.mark.parametrize(("norm", "told"), [("batch", 1), ("instance", 0), ("none", 0)])
def test_a_penalty_on_batchnorm_is_told(notes, penalty, norm, told):
    said = notes(f"discriminator.norm={norm}", f"losses=[wasserstein, {penalty}, l1, kl]")
    found = [note for note in said if "the score of an image depends on the others" in note]
    assert len(found) == told
    assert all(note.startswith(f"{penalty}: ") for note in found)


def test_without_penalty_batchnorm_is_nobodys_business(notes):
    assert not [note for note in notes() if "BatchNorm" in note]


@pytest.mark.parametrize(
    ("layer", "mixes"),
    [
        (nn.BatchNorm2d(3), True),
        (nn.GroupNorm(1, 3), False),
        (nn.InstanceNorm2d(3), False),
        (nn.Identity(), False),
    ],
)
def test_networks_that_mix_images_are_known_by_their_gradient(layer, mixes):
    class Judge(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(layer, nn.Flatten(), nn.Linear(768, 1))

        def forward(self, images):
            return vgx.Score(self.layers(images))

    engine = Engine(vgx.load_recipe(TINY), 20, 64)
    engine.networks["discriminator"] = Judge()
    batch = Batch(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert mixes_images(engine, "discriminator", batch) is mixes


# --- labels, frozen networks ---------------------------------------------------------------------


LABELLED = ["image.classes=3", "dataset={type: drawn-faces, label: hair_style}"]
INNER = "decoder={type: labelled, inner: {type: conv-transpose, widths: [8]}}"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [([], 1), (["losses.1=by-label"], 0), ([INNER], 0)],
    ids=["nothing", "a loss", "a network"],
)
def test_labels_that_nothing_reads_are_told(notes, overrides, told):
    said = notes(*LABELLED, *overrides, labels=torch.tensor([0, 1, 2, 0]))
    assert sum("no network and no loss reads them" in note for note in said) == told


@pytest.mark.parametrize(("freeze", "told"), [(5, 1), (2, 0)])
def test_a_network_of_which_only_the_head_is_trained_is_told(notes, freeze, told):
    backbone = f"discriminator={{type: timm-patchgan, backbone: test_resnet, freeze: {freeze}}}"
    said = [note for note in notes("image.size=32", backbone) if "are frozen" in note]
    assert len(said) == told
    assert all(note.startswith("The discriminator trains only ") for note in said)


# --- the last layer of a decoder -----------------------------------------------------------------


def test_the_last_layer_is_the_one_that_is_used_last(registry):
    recipe = vgx.load_recipe(TINY, ["decoder=backwards"], registry)
    engine = Engine(recipe, 20, 64)
    before = torch.get_rng_state()
    assert engine.last_layer() is engine.networks["decoder"].to_rgb.weight
    assert engine.networks["decoder"].training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.spectral_norm, lambda layer: layer])
def test_a_normalised_layer_is_a_layer_too(wrap):
    last = wrap(nn.Conv2d(4, 3, 3))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), last, nn.Tanh())
    found = last_layer_of(network(torch.rand(2, 3, 8, 8)))
    assert found is next(p for p in last.parameters() if p.dim() > 1)


def test_a_frozen_layer_is_no_last_layer():
    first, last = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    assert last_layer_of(nn.Sequential(first, last)(torch.rand(1, 2))) is first.weight


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (
            "[l1, kl, {type: hinge, weight: {against: [kl]}}]",
            (
                "losses.2: hinge: weight: against [kl]: kl has no gradient in the decoder's last "
                "layer, where gradients are compared; name a reconstruction term"
            ),
        ),
        (
            "[l1, {type: kl, start: 10, weight: {against: [l1], after: 15}}, hinge]",
            (
                "losses.1: kl: weight: against [l1]: kl has no gradient in the decoder's last "
                "layer, where gradients are compared; give it a number as its weight"
            ),
        ),
        (
            "[l1, kl, hinge, {type: r1, weight: {against: [hinge]}}]",
            (
                "losses.3: r1: weight: against [hinge]: r1 has no gradient in the decoder's last "
                "layer, where gradients are compared; give it a number as its weight"
            ),
        ),
    ],
)
def test_an_adaptive_weight_that_cannot_be_computed_is_refused_by_the_check(notes, losses, said):
    with pytest.raises(RecipeError) as refused:
        notes(f"losses={losses}")
    assert str(refused.value) == said


def test_while_only_terms_without_a_gradient_there_count_the_weight_is_its_factor(registry):
    """Against `kl`, which starts at once, and `l1`, which starts later: step 0 must not fail."""
    losses = (
        "losses=[{type: l1, start: 1}, kl, {type: bce, weight: {against: [l1, kl], factor: 0.5}}]"
    )
    given = vgx.load_recipe(TINY, [losses, "discriminator=null", "augment=[]"], registry)
    plain = losses.replace("{against: [l1, kl], factor: 0.5}", "0.5")
    plain = vgx.load_recipe(TINY, [plain, "discriminator=null", "augment=[]"], registry)
    engines = [Engine(recipe, 20, 64) for recipe in (given, plain)]
    batch = Batch(torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    for engine in engines:
        engine.step(0, [batch])
    states = [engine.networks["decoder"].state_dict() for engine in engines]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_compiling_averages_and_pieces_leave_the_last_layer(registry, monkeypatch):
    # All of PyTorch's compiler but the part that writes C++, which takes long.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    changes = ["losses=[l1, kl, {type: bce, weight: {against: [l1]}}]", "augment=[]"]
    recipe = vgx.load_recipe(TINY, [*changes, *PLAIN, "train.accumulate=2"], registry)
    plain, compiled = Engine(recipe, 20, 64), Engine(recipe, 20, 64)
    compiled.configure(recipe.train.model_copy(update={"compile": True, "precision": "fp32"}))
    batch = Batch(torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    for engine in (plain, compiled):
        engine.step(0, [batch])
        assert engine.last_layer() is engine.networks["decoder"].to_rgb.weight
    states = [engine.networks["decoder"].state_dict() for engine in (plain, compiled)]
    assert all(torch.allclose(states[0][k], states[1][k], atol=1e-5) for k in states[0])
