"""Parts around other parts: codebooks, labels, scales; values by hand."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import ClassVar

import pytest
import torch
from torch import nn

import vgx
from vgx.errors import RecipeError
from vgx_builtin.wrapping import WithCategories

IMAGE = vgx.ImageSpec(size=8, classes=3)
FLAT, SPATIAL = vgx.LatentSpec((2,)), vgx.LatentSpec((2, 4, 4))


class Means(vgx.Encoder, type="means"):
    """The image's channel means as mu, all or at each place; logvar has weights of its own."""

    def build(self, image, latent):
        return Network(latent)

    def note(self, image):
        return f"{image.size} pixels"


class Network(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.latent = latent
        self.norm = nn.BatchNorm2d(2)
        self.logvar = nn.Parameter(torch.zeros(latent.shape))

    def forward(self, images):
        mu = self.norm(images[:, :2])
        mu = mu.mean((2, 3)) if len(self.latent.shape) == 1 else nn.functional.avg_pool2d(mu, 2)
        return vgx.Gaussian(mu, self.logvar.expand_as(mu))


class Echo(vgx.Decoder, type="echo"):
    """Gives the latents back; knows the shape it was made for."""

    def build(self, latent, image):
        network = nn.Identity()
        network.shape = latent.shape
        return network


class MeanDiscriminator(vgx.Discriminator, type="mean"):
    """One logit, or one a place: factor times the mean of the channels; features the image."""

    grid: bool = False
    features: bool = True
    outside: str = "yes"

    def build(self, image, latent):
        return Judge(self.grid, self.features, image)

    def note(self, image):
        return f"{image.size} pixels, outside: {self.outside}"

    def untrained(self):
        return self.model_copy(update={"outside": "no"})


class Judge(nn.Module):
    def __init__(self, grid, features, image):
        super().__init__()
        self.grid, self.features, self.size = grid, features, image.size
        self.factor = nn.Parameter(torch.rand(()))

    def forward(self, images):
        logits = self.factor * images.mean(1, keepdim=True)
        logits = logits if self.grid else logits.mean((2, 3))
        return vgx.Score(logits, (images * 2, images) if self.features else ())


def part(kind, name, **settings):
    return vgx.discover().part(kind, name)(**settings)


def random_images(n=2, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(n))


def generator():
    return torch.Generator().manual_seed(0)


# --- categories --------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [(), (2, 2)])
def test_the_first_latents_become_categories_with_the_gradient_of_a_softmax(places):
    network = WithCategories(nn.Identity(), (3, 2))
    z = torch.randn(4, 7, *places, generator=generator(), requires_grad=True)
    given = network(z)
    assert torch.equal(given[:, 5:], z[:, 5:])
    for block in (slice(0, 3), slice(3, 5)):
        assert given[:, block].sum(1).flatten().tolist() == [1.0] * given[:, 0].numel()
        assert torch.equal(given[:, block].argmax(1), z[:, block].argmax(1))
        values = torch.randn(given[:, block].shape, generator=generator())
        (slope,) = torch.autograd.grad((given[:, block] * values).sum(), z, retain_graph=True)
        p = z[:, block].softmax(1)  # dp_i / dz_j = p_i (1[i = j] - p_j)
        expected = p * (values - (p * values).sum(1, keepdim=True))
        assert torch.allclose(slope[:, block], expected, atol=1e-6)


def test_each_category_is_as_probable():
    z = torch.randn(30_000, 5, generator=generator())
    shares = WithCategories(nn.Identity(), (5,))(z).mean(0)
    assert torch.allclose(shares, torch.full((5,), 0.2), atol=0.01)


def test_categories_that_cannot_be_are_refused():
    with pytest.raises(RecipeError, match="they need 10 channels, and the latent has 2"):
        part("decoder", "categorical", inner=Weighty()).build(FLAT, IMAGE)
    style = part("decoder", "style", widths=(8, 8))
    with pytest.raises(RecipeError, match="inner: 'style' has a mapping network"):
        part("decoder", "categorical", sizes=(2,), inner=style).build(vgx.LatentSpec((4,)), IMAGE)


# --- encoders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [FLAT, SPATIAL], ids=["flat", "spatial"])
def test_a_deterministic_posterior_is_its_mean(latent):
    encoder = part("encoder", "deterministic", inner=Means()).build(IMAGE, latent)
    drawn_from = generator()
    posterior = encoder(random_images())
    assert torch.equal(posterior.sample(drawn_from), posterior.mean)
    assert torch.equal(drawn_from.get_state(), generator().get_state())
    assert torch.equal(posterior.mean, encoder.inner(random_images()).mu)


@pytest.mark.parametrize("point", [False, True])
def test_a_noisy_posterior_is_the_inner_one_but_for_its_samples(point):
    """The variance of a sample is the inner one's and 0.09 more; the mean has no noise."""
    inner = part("encoder", "deterministic", inner=Means()) if point else Means()
    encoder = part("encoder", "noisy", inner=inner, sigma=0.3).build(IMAGE, FLAT)
    images = random_images()
    posterior, plain = encoder(images), encoder.inner(images)
    assert torch.equal(posterior.mean, plain.mean)
    if not point:
        assert isinstance(posterior, vgx.Gaussian)
        assert torch.equal(posterior.logvar, plain.logvar)
    draws = generator()
    samples = torch.stack([posterior.sample(draws) for _ in range(4000)])
    expected = 0.09 if point else 0.09 + plain.logvar.exp()
    assert torch.allclose(
        samples.var(0), torch.as_tensor(expected).expand(len(images), 2), rtol=0.1
    )
    assert torch.allclose(samples.mean(0), plain.mean, atol=0.1)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_wrapped_encoder_is_built_where_gradients_are_off(off):
    """As in a notebook that only draws; what is frozen is the same."""
    wrapped = part("encoder", "deterministic", inner=Means())
    expected = [each.requires_grad for each in wrapped.build(IMAGE, FLAT).parameters()]
    with off():
        made = wrapped.build(IMAGE, FLAT)
    assert [each.requires_grad for each in made.parameters()] == expected
    assert len({*expected}) == 2


def test_noise_is_outside_of_what_takes_the_mean():
    inner = part("encoder", "noisy", inner=Means())
    with pytest.raises(RecipeError, match="deterministic: inner: 'noisy' changes samples"):
        part("encoder", "deterministic", inner=inner).build(IMAGE, FLAT)


def test_noise_is_for_posteriors_that_are_not_quantised():
    inner = part("encoder", "vector-quantised", inner=Means(), codes=4)
    encoder = part("encoder", "noisy", inner=inner).build(IMAGE, FLAT)
    with pytest.raises(RecipeError, match="inner gives a Quantised"):
        encoder(random_images())


WRAPPED = [("deterministic", {}), ("vector-quantised", {"codes": 4})]


@pytest.mark.parametrize(("name", "settings"), WRAPPED)
@pytest.mark.parametrize("inner", ["conv", "residual"])
def test_what_the_mean_does_not_depend_on_is_frozen(name, settings, inner):
    image, latent = vgx.ImageSpec(size=16), vgx.LatentSpec((4,))
    own = part("encoder", inner, widths=(4, 6))
    encoder = part("encoder", name, inner=own, **settings).build(image, latent)
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert frozen == {"inner.logvar.weight", "inner.logvar.bias"}


def test_finding_that_out_changes_nothing():
    """No statistics, no draws, no mode, no gradients: the network is as its part builds it."""
    torch.manual_seed(0)
    plain = Means().build(IMAGE, FLAT)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    inner = part("encoder", "deterministic", inner=Means()).build(IMAGE, FLAT).inner
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, inner.state_dict()[name]), name
    assert all(module.training for module in inner.modules())
    assert all(p.grad is None for p in inner.parameters())


def quantiser(latent, book):
    settings = {"inner": Means(), "codes": len(book)}
    encoder = part("encoder", "vector-quantised", **settings).build(IMAGE, latent).eval()
    assert encoder.codebook.weight.shape == (len(book), 2)
    with torch.no_grad():
        encoder.codebook.weight.copy_(torch.tensor(book))
    return encoder


def test_a_codebook_by_hand():
    """Two images of plain colour, three codes: (0.9, 0.1) is nearest (1, 0)."""
    encoder = quantiser(FLAT, [[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    images = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.5]]).view(2, 3, 1, 1).expand(2, 3, 8, 8)
    posterior = encoder(images)
    assert torch.allclose(posterior.encoded, torch.tensor([[0.9, 0.1], [0.2, 0.3]]), atol=1e-4)
    assert posterior.indices.tolist() == [1, 0]
    assert posterior.codes.tolist() == posterior.mean.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert torch.allclose(posterior.sample(generator()), posterior.codes)


def test_each_place_has_the_nearest_code():
    torch.manual_seed(1)
    book = torch.rand(40, 2)
    posterior = quantiser(SPATIAL, book.tolist())(random_images(3))
    assert posterior.indices.shape == (3, 4, 4)
    assert posterior.codes.shape == posterior.encoded.shape == (3, 2, 4, 4)
    for b in range(3):
        for y in range(4):
            for x in range(4):
                vector = posterior.encoded[b, :, y, x].double()
                nearest = int((book.double() - vector).square().sum(1).argmin())
                assert posterior.indices[b, y, x] == nearest
                assert torch.equal(posterior.codes[b, :, y, x], book[nearest])
    assert len(posterior.indices.unique()) > 10


def test_gradients_go_straight_through_the_codes():
    encoder = quantiser(SPATIAL, torch.rand(5, 2, generator=generator()).tolist())
    posterior = encoder(random_images())
    z = posterior.sample(generator())
    slope = torch.randn(z.shape, generator=generator())
    into, book = torch.autograd.grad(
        (z * slope).sum(), [posterior.encoded, encoder.codebook.weight], allow_unused=True
    )
    assert torch.equal(into, slope)  # as if nothing had been quantised
    assert book is None
    # The codes' own gradient goes to the rows that were chosen, and nowhere else.
    into, book = torch.autograd.grad(
        (posterior.codes * slope).sum(),
        [posterior.encoded, encoder.codebook.weight],
        allow_unused=True,
    )
    assert into is None
    expected = torch.zeros(5, 2)
    expected.index_add_(0, posterior.indices.flatten(), slope.movedim(1, 3).reshape(-1, 2))
    assert torch.allclose(book, expected, atol=1e-5)


def test_with_normalised_vectors_the_direction_alone_decides():
    """(0.9, 0.1) is nearer to (0.5, 0.5) than to (9, 0), but points where (9, 0) does."""
    settings = {"inner": Means(), "codes": 2, "normalised": True}
    encoder = part("encoder", "vector-quantised", **settings).build(IMAGE, FLAT).eval()
    with torch.no_grad():
        encoder.codebook.weight.copy_(torch.tensor([[0.5, 0.5], [9.0, 0.0]]))
    images = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.5]]).view(2, 3, 1, 1).expand(2, 3, 8, 8)
    posterior = encoder(images)
    assert posterior.indices.tolist() == [1, 0]
    half = 0.5**0.5
    assert torch.allclose(posterior.codes, torch.tensor([[1.0, 0.0], [half, half]]))
    assert torch.allclose(posterior.encoded.norm(dim=1), torch.ones(2))
    assert torch.allclose(posterior.encoded[0] * 0.82**0.5, torch.tensor([0.9, 0.1]), atol=1e-4)
    posterior.codes.sum().backward()
    assert encoder.codebook.weight.grad.abs().sum() > 0


def test_a_codebook_starts_small():
    encoder = part("encoder", "vector-quantised", inner=Means(), codes=64).build(IMAGE, FLAT)
    weight = encoder.codebook.weight
    assert weight.abs().max() <= 1 / 64
    assert weight.abs().max() > 0.9 / 64


def test_nearest_is_found_in_full_precision_under_autocast():
    """Codes one thousandth apart: bfloat16 has three digits and could not tell them."""
    book = [[0.5 + i / 1000, 0.5] for i in range(40)]
    encoder = quantiser(SPATIAL, book)
    images = torch.full((2, 3, 8, 8), 0.5)
    images[:, 0] = 0.5123
    with torch.autocast("cpu", torch.bfloat16):
        posterior = encoder(images)
    assert posterior.encoded.dtype == posterior.codes.dtype == torch.float32
    assert set(posterior.indices.unique().tolist()) == {12}


# --- labels ------------------------------------------------------------------------------------


def test_a_label_is_appended_to_the_latent():
    decoder = part("decoder", "labelled", inner=Echo(), embedding=5).build(FLAT, IMAGE)
    assert decoder.inner.shape == (7,)
    z, labels = torch.randn(4, 2), torch.tensor([2, 0, 1, 2])
    given = decoder(z, labels)
    assert torch.equal(given[:, :2], z)
    assert torch.equal(given[:, 2:], decoder.embedding.weight[labels])


def test_a_label_is_appended_at_every_place():
    decoder = part("decoder", "labelled", inner=Echo(), embedding=3).build(SPATIAL, IMAGE)
    assert decoder.inner.shape == (5, 4, 4)
    z, labels = torch.randn(2, 2, 4, 4), torch.tensor([2, 0])
    given = decoder(z, labels)
    assert torch.equal(given[:, :2], z)
    for y in range(4):
        for x in range(4):
            assert torch.equal(given[:, 2:, y, x], decoder.embedding.weight[labels])


@pytest.mark.parametrize("spectral", [False, True])
def test_projection_around_residual_is_the_authors_discriminator(spectral):
    """pfnet-research/sngan_projection: h = sum relu(block), l(h) + <w_y / sigma, h>."""
    torch.manual_seed(0)
    inner = part("discriminator", "residual", widths=(8, 16), spectral=spectral)
    discriminator = (
        part("discriminator", "projection", inner=inner).build(IMAGE, vgx.LatentSpec((8,))).double()
    )
    images, labels = random_images(4).double(), torch.tensor([1, 1, 0, 2])
    if spectral:
        for _ in range(300):  # one power iteration each
            with torch.no_grad():
                discriminator(images, labels)
        weights = discriminator.embedding.parametrizations.weight.original
        weights = weights / torch.linalg.svdvals(weights)[0]
    else:
        weights = discriminator.embedding.weight
    discriminator.eval()
    block = discriminator.inner(images).features[-1]
    assert (block < 0).any()  # so that the ReLU matters
    h = block.clamp(min=0).sum((2, 3))
    *_, linear = discriminator.inner.head
    expected = h @ linear.weight.T + linear.bias + (weights[labels] * h).sum(1, keepdim=True)
    assert torch.allclose(discriminator(images, labels).logits, expected, rtol=1e-6)


@pytest.mark.parametrize("pool", ["auto", "sum", "mean"])
@pytest.mark.parametrize("grid", [False, True])
def test_projection_adds_an_inner_product_to_each_logit(grid, pool):
    """Of the sum over places for single logits, and of the mean for patches."""
    built = part("discriminator", "projection", inner=MeanDiscriminator(grid=grid), pool=pool)
    discriminator = built.build(IMAGE, vgx.LatentSpec((8,)))
    # Labels, and channels of the last feature map.
    assert discriminator.embedding.weight.shape == (3, 3)
    images, labels = random_images(4) - 0.5, torch.tensor([1, 1, 0, 2])
    score, plain = discriminator(images, labels), discriminator.inner(images)
    assert score.logits.shape == plain.logits.shape
    mean = pool == "mean" or (pool == "auto" and grid)
    for b, label in enumerate(labels):
        pooled = images[b].clamp(min=0).sum((1, 2)) / (64 if mean else 1)
        product = discriminator.embedding.weight[label] @ pooled
        assert torch.allclose(score.logits[b], plain.logits[b] + product, atol=1e-5)
    assert all(map(torch.equal, score.features, plain.features))


@pytest.mark.parametrize(
    ("kind", "name", "inner"),
    [("decoder", "labelled", Echo), ("discriminator", "projection", MeanDiscriminator)],
)
def test_labels_are_needed(kind, name, inner):
    bare = vgx.ImageSpec(size=8)
    given = (FLAT, bare) if kind == "decoder" else (bare, FLAT)
    with pytest.raises(RecipeError, match=rf"{name}: image\.classes is 0, .* use the inner part"):
        part(kind, name, inner=inner()).build(*given)


def test_a_part_that_takes_labels_stands_outside():
    within = part("discriminator", "projection", inner=MeanDiscriminator())
    for name in ("projection", "multi-scale"):
        with pytest.raises(RecipeError, match=f"{name}: inner: 'projection' takes labels"):
            part("discriminator", name, inner=within).build(IMAGE, vgx.LatentSpec((8,)))
    within = part("decoder", "labelled", inner=Echo())
    with pytest.raises(RecipeError, match="labelled: inner: 'labelled' takes labels"):
        part("decoder", "labelled", inner=within).build(FLAT, IMAGE)
    within = part("encoder", "labelled", inner=Means())
    for name in ("labelled", "deterministic", "noisy", "vector-quantised"):
        with pytest.raises(RecipeError, match=f"{name}: inner: 'labelled' takes labels"):
            part("encoder", name, inner=within).build(IMAGE, FLAT)


def test_projection_wants_features():
    discriminator = part("discriminator", "projection", inner=MeanDiscriminator(features=False))
    with pytest.raises(RecipeError, match="'mean' gives no features"):
        discriminator.build(IMAGE, vgx.LatentSpec((8,)))


# --- scales ------------------------------------------------------------------------------------


def halved(images):
    rows = images[..., ::2, :] + images[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def test_scales_have_the_same_share_of_the_mean():
    settings = {"inner": MeanDiscriminator(grid=True), "scales": 2}
    discriminator = part("discriminator", "multi-scale", **settings).build(
        IMAGE, vgx.LatentSpec((8,))
    )
    one, two = discriminator.networks
    assert (one.size, two.size) == (8, 4)
    assert not torch.equal(one.factor, two.factor)
    images = random_images()
    # Light and dark halves, so that a wrong share would be another mean.
    images[..., 4:] = 0
    score = discriminator(images)
    fine, coarse = one(images), two(halved(images))
    assert score.logits.shape == (2, 1, 64 + 64, 1)
    assert torch.equal(score.logits[:, :, :64], fine.logits.view(2, 1, 64, 1))
    repeated = coarse.logits.view(2, 1, 16, 1).repeat_interleave(4, 2)
    assert torch.allclose(score.logits[:, :, 64:], repeated)
    for function in (torch.nn.functional.softplus, torch.relu, torch.square):
        both = (function(fine.logits).mean() + function(coarse.logits).mean()) / 2
        assert torch.allclose(function(score.logits).mean(), both)
    assert [tuple(f.shape) for f in score.features] == [(2, 3, 8, 8)] * 2 + [(2, 3, 4, 4)] * 2
    assert torch.allclose(score.features[3], halved(images))


@pytest.mark.parametrize(("size", "scales", "sides"), [(96, 2, [10, 4]), (128, 3, [14, 6, 2])])
def test_any_loss_is_the_mean_over_scales_of_the_default_patchgan(size, scales, sides):
    """No side divides another: hinge, bce and slopes of the column are the scales' means."""
    torch.manual_seed(0)
    inner = part("discriminator", "patchgan", norm="none", widths=(4, 8, 16, 32))
    built = part("discriminator", "multi-scale", inner=inner, scales=scales)
    discriminator = built.build(vgx.ImageSpec(size=size), vgx.LatentSpec((8,))).double()
    with torch.no_grad():
        for parameter in discriminator.parameters():  # logits on both sides of the hinge
            parameter.mul_(9)
    images = random_images(3, size).double().requires_grad_()
    pyramid = [images]
    for _ in range(scales - 1):
        pyramid.append(halved(pyramid[-1]))
    grids = [one(x).logits for one, x in zip(discriminator.networks, pyramid, strict=True)]
    assert [grid.shape[2] for grid in grids] == sides
    column = discriminator(images).logits
    for function in (lambda x: (1 - x).relu(), lambda x: nn.functional.softplus(-x)):
        by_hand = torch.stack([function(grid).mean() for grid in grids]).mean()
        assert torch.allclose(function(column).mean(), by_hand, rtol=1e-12, atol=0)
    means = torch.stack([grid.flatten(1).mean(1) for grid in grids]).mean(0)  # of each image
    slopes = torch.autograd.grad(means.sum(), images)[0].flatten(1) / 2  # by pixels of [-1, 1]
    absent = {f.name: None for f in fields(vgx.Step) if f.default is MISSING}
    given = {"number": 0, "progress": 0.0, "real": images.detach(), "discriminator": discriminator}
    penalty = part("loss", "r1").discriminator(vgx.Step(**{**absent, **given}))
    assert penalty.item() == pytest.approx(0.5 * slopes.square().sum(1).mean().item())


def test_scales_have_equal_shares_where_their_multiple_is_too_large(monkeypatch):
    monkeypatch.setattr("vgx_builtin.wrapping.MOST_PLACES", 60)
    inner = part("discriminator", "patchgan", norm="none", widths=(2, 2, 2, 2))
    built = part("discriminator", "multi-scale", inner=inner)
    discriminator = built.build(
        vgx.ImageSpec(size=64), vgx.LatentSpec((8,))
    )  # 6x6 and 2x2: at most 60 places each
    images = random_images(1, 64)
    grids = [discriminator.networks[0](images), discriminator.networks[1](halved(images))]
    column = discriminator(images).logits.flatten()
    discriminator_of_96 = built.build(
        vgx.ImageSpec(size=96), vgx.LatentSpec((8,))
    )  # 10x10 and 4x4, not 400 each
    assert len(column) == 2 * 36
    assert torch.allclose(column[36:].mean(), grids[1].logits.mean())
    column = discriminator_of_96(random_images(1, 96)).logits.flatten()
    assert len(column) == 2 * 100
    _, repeats = column[100:].unique_consecutive(return_counts=True)
    assert sorted(set(repeats.tolist())) == [6, 7]


def test_repeated_logits_are_summed_in_full_precision():
    """2x2 patches are repeated 441 times: bfloat16 stops counting at 256."""
    torch.manual_seed(0)
    inner = part("discriminator", "patchgan", norm="none", widths=(2, 2, 2, 2))
    built = part("discriminator", "multi-scale", inner=inner, scales=3)
    discriminator = built.build(vgx.ImageSpec(size=128), vgx.LatentSpec((8,)))
    bias = discriminator.networks[2].head.bias
    with torch.autocast("cpu", torch.bfloat16):
        logits = discriminator(random_images(1, 128)).logits
    (slope,) = torch.autograd.grad(logits.mean(), bias)
    assert slope.item() == pytest.approx(1 / 3, rel=0.02)


def test_scales_of_single_logits_stand_below_each_other():
    discriminator = part("discriminator", "multi-scale", inner=MeanDiscriminator(), scales=2).build(
        IMAGE, FLAT
    )
    score = discriminator(random_images())
    assert score.logits.shape == (2, 1, 2, 1)
    assert torch.equal(
        score.logits[:, 0, 0, 0], discriminator.networks[0](random_images()).logits[:, 0]
    )


def test_a_label_can_be_told_to_all_scales():
    scales = part("discriminator", "multi-scale", inner=MeanDiscriminator(grid=True))
    discriminator = part("discriminator", "projection", inner=scales).build(
        IMAGE, vgx.LatentSpec((8,))
    )
    assert discriminator(random_images(), torch.tensor([0, 2])).logits.shape == (2, 1, 128, 1)


def test_the_scale_that_does_not_fit_is_named():
    with pytest.raises(RecipeError, match="scales: 3: they leave less than 4 of 8 .* at most 2"):
        part("discriminator", "multi-scale", inner=MeanDiscriminator(), scales=3).build(
            IMAGE, vgx.LatentSpec((8,))
        )
    inner = part("discriminator", "patchgan", widths=(4, 4, 4))
    with pytest.raises(RecipeError, match="scale 2 of 2: discriminator patchgan: 8 pixels leave"):
        part("discriminator", "multi-scale", inner=inner).build(
            vgx.ImageSpec(size=16), vgx.LatentSpec((8,))
        )


# --- what is passed on -------------------------------------------------------------------------


class Weighty(vgx.Decoder, type="weighty"):
    """A decoder with outside weights."""

    conditional: ClassVar[bool] = False
    pretrained: bool = True

    def build(self, latent, image):
        raise NotImplementedError

    def note(self, image):
        return f"{image.size} pixels"

    def untrained(self):
        return self.model_copy(update={"pretrained": False})


INSIDE = {
    "encoder": lambda: part("encoder", "timm", backbone="test_resnet", pretrained=True),
    "decoder": Weighty,
    "discriminator": lambda: part(
        "discriminator", "timm-patchgan", backbone="test_resnet", pretrained=True
    ),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("encoder", "deterministic"),
        ("encoder", "noisy"),
        ("encoder", "vector-quantised"),
        ("decoder", "labelled"),
        ("discriminator", "projection"),
        ("discriminator", "multi-scale"),
    ],
)
def test_outside_weights_are_left_out_inside_too(kind, name):
    outer = part(kind, name, inner=INSIDE[kind]())
    assert outer.inner.pretrained
    bare = outer.untrained()
    assert type(bare) is type(outer)
    assert not bare.inner.pretrained
    assert outer.inner.pretrained


class Several(vgx.Decoder, type="several"):
    """Decoders in a list and in a mapping, as an ensemble has them."""

    listed: tuple[vgx.Decoder, ...] | list[vgx.Decoder]
    named: dict[str, vgx.Decoder]

    def build(self, latent, image):
        raise NotImplementedError


def test_parts_in_lists_and_mappings_are_inside_too():
    outer = Several(listed=(Weighty(), Weighty(pretrained=False)), named={"a": Weighty()})
    bare = outer.untrained()
    assert [each.pretrained for each in (*bare.listed, bare.named["a"])] == [False] * 3
    assert [each.pretrained for each in (*outer.listed, outer.named["a"])] == [True, False, True]
    assert bare.untrained() is bare
    assert outer.note(IMAGE) == "8 pixels 8 pixels 8 pixels"
    assert not Several(listed=[Weighty()], named={}).untrained().listed[0].pretrained


@pytest.mark.parametrize(
    ("kind", "name", "inner", "expected"),
    [
        ("encoder", "deterministic", Means, "8 pixels"),
        ("encoder", "noisy", Means, "8 pixels"),
        ("encoder", "vector-quantised", Means, "8 pixels"),
        ("decoder", "labelled", Weighty, "8 pixels"),
        ("discriminator", "projection", MeanDiscriminator, "8 pixels, outside: yes"),
        ("discriminator", "multi-scale", MeanDiscriminator, "8 pixels, outside: yes"),
    ],
)
def test_the_inner_parts_note_is_shown(kind, name, inner, expected):
    assert part(kind, name, inner=inner()).note(IMAGE) == expected
