"""Encoders whose latents are vectors of a codebook: indices, and what each quantiser computes."""

from __future__ import annotations

import math
import warnings
from dataclasses import MISSING, fields
from typing import ClassVar

import numpy as np
import pytest
import torch
import vector_quantize_pytorch as library
from torch import nn

import vgx
from vgx import rng
from vgx.errors import RecipeError
from vgx.testing import check_part
from vgx_builtin.quantisers.codebooks import MovingCodebook, drawn

IMAGE = vgx.ImageSpec(size=8)


class Means(vgx.Encoder, type="means"):
    """The mean of each channel of 2x2 pixels, or of all pixels for a flat latent."""

    def build(self, image, latent):
        return MeansNet(latent.shape)


class MeansNet(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.flat = len(shape) == 1
        self.layer = nn.Conv2d(3, shape[0], 1, bias=False)

    def forward(self, images):
        means = nn.functional.avg_pool2d(10 * self.layer(images - 0.5), 8 if self.flat else 2)
        means = means.flatten(1) if self.flat else means
        return vgx.Gaussian(means, torch.zeros_like(means))


def part(name, **settings):
    return vgx.discover().part("encoder", name)(inner=Means(), **settings)


def random_images(n=3, seed=0):
    """Each has a colour, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(n, 3, 1, 1, generator=generator)
    return (colours + torch.rand(n, 3, 8, 8, generator=generator)) / 2


QUANTISERS = {
    "vq": ("vector-quantised", {"codes": 6}),
    "normalised": ("vector-quantised", {"codes": 6, "normalised": True}),
    "moving": ("vector-quantised", {"codes": 6, "decay": 0.9}),
    "moving, normalised": ("vector-quantised", {"codes": 6, "decay": 0.9, "normalised": True}),
    "residual": ("residual-quantised", {"codes": 3, "levels": 2}),
    "grid": ("finite-scalar", {"levels": (4, 3, 2, 5)}),
    "corners": ("binary-spherical", {}),
}


@pytest.mark.parametrize("latent", [(4,), (4, 4, 4)], ids=["flat", "spatial"])
@pytest.mark.parametrize("name", QUANTISERS)
def test_indices_give_the_latents_again(name, latent):
    kind, settings = QUANTISERS[name]
    encoder = part(kind, **settings).build(IMAGE, vgx.LatentSpec(latent))
    encoder(random_images(20, 1))  # so that moving averages begin
    encoder.eval()
    assert isinstance(encoder, vgx.Quantising)
    posterior = encoder(random_images(40))
    assert isinstance(posterior, vgx.Indexed)
    assert posterior.indices.shape[: len(latent)] == (40, *latent[1:])
    assert posterior.indices.dtype == torch.int64
    assert torch.equal(encoder.from_indices(posterior.indices), posterior.mean)
    assert len(posterior.mean.movedim(1, -1).reshape(-1, 4).unique(dim=0)) > 1


# --- fixed codebooks ---------------------------------------------------------------------------


def means_of(encoder, means):
    """The posterior of these means [B, *Z], whatever the images."""
    return encoder.codebook(means)


def random_means(*shape, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def authors_fsq(z, levels):
    """The listing of Mentzer et al. 2023, appendix A.1, in numpy: z [N, F]."""
    levels = np.array(levels)
    half = (levels - 1) * (1 - 1e-3) / 2
    offset = np.where(levels % 2 == 1, 0.0, 0.5)
    bounded = np.tanh(z + np.tan(offset / half)) * half - offset
    quantised = np.round(bounded) / (levels // 2)
    basis = np.concatenate(([1], np.cumprod(levels[:-1])))
    indices = ((quantised * (levels // 2) + levels // 2) * basis).sum(1)
    return quantised, np.round(indices).astype(int), bounded / (levels // 2)


def test_finite_scalars_are_those_of_the_authors_listing():
    levels = (8, 5, 4, 3, 2)
    encoder = part("finite-scalar", levels=levels).build(IMAGE, vgx.LatentSpec((5, 4, 4))).double()
    means = random_means(20, 5, 4, 4)
    posterior = means_of(encoder, means)
    rows = means.movedim(1, -1).reshape(-1, 5).numpy()
    quantised, indices, bounded = authors_fsq(rows, levels)
    assert encoder.codes == 8 * 5 * 4 * 3 * 2
    assert len(set(indices)) > 150
    assert (posterior.indices.flatten().numpy() == indices).all()
    for ours, theirs in ((posterior.codes, quantised), (posterior.encoded, bounded)):
        rows = ours.movedim(1, -1).reshape(-1, 5).numpy()
        assert np.abs(rows - theirs).max() < 1e-12
    every = encoder.from_indices(torch.arange(encoder.codes))  # [960, 5]
    assert [len(column.unique()) for column in every.T] == [*levels]
    assert len(every.unique(dim=0)) == 960


def test_the_gradient_goes_straight_through_the_rounding():
    """One channel of 5 levels: z = round(1.998 tanh(e)) / 2, and dz/de = 0.999 (1 - tanh(e)^2)."""
    encoder = part("finite-scalar", levels=(5,)).build(IMAGE, vgx.LatentSpec((1,))).double()
    means = torch.tensor([[0.3], [-1.0]], dtype=torch.float64, requires_grad=True)
    z = means_of(encoder, means).sample(None)
    assert z.flatten().tolist() == pytest.approx([0.5, -1.0])
    assert means_of(encoder, means).indices.tolist() == [3, 0]
    (slope,) = torch.autograd.grad(z.sum(), [means])
    expected = [0.999 * (1 - math.tanh(e) ** 2) for e in (0.3, -1.0)]
    assert slope.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_binary_spherical_latents_by_hand():
    """(3, -4) has the direction (0.6, -0.8) and the corner (1, -1) / sqrt 2."""
    encoder = part("binary-spherical").build(IMAGE, vgx.LatentSpec((2,))).double()
    means = torch.tensor([[3.0, -4.0], [-1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    posterior = means_of(encoder, means)
    half = 0.5**0.5
    assert posterior.encoded[0].tolist() == pytest.approx([0.6, -0.8])
    assert posterior.codes.flatten().tolist() == pytest.approx([half, -half, -half, half])
    assert posterior.indices.tolist() == [1, 2]
    # The derivative of e / |e|, (I - u u^T) / |e|, at (3, -4), times (1, 0).
    (slope,) = torch.autograd.grad(posterior.sample(None)[0, 0], [means])
    assert slope[0].tolist() == pytest.approx([(1 - 0.36) / 5, 0.48 / 5])


def test_bit_entropy_is_that_of_all_codes():
    """The soft code of each direction, over all 16 corners: softmax(sharpness u . c)."""
    encoder = part("binary-spherical").build(IMAGE, vgx.LatentSpec((4,))).double()
    means = random_means(6, 4).requires_grad_()
    posterior = means_of(encoder, means)
    corners = encoder.from_indices(torch.arange(16)).numpy()
    affinity = np.exp(3.0 * posterior.encoded.detach().numpy() @ corners.T)
    soft = affinity / affinity.sum(1, keepdims=True)  # [6, 16]
    of_each = -(soft * np.log(soft)).sum(1).mean()
    # Of all, with independent bits: the mean probability of each bit.
    bits = soft @ (corners > 0)  # [6, 4]
    p = bits.mean(0)
    of_all = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    term = vgx.discover().part("loss", "bit-entropy")(sharpness=3.0, diversity=0.7)
    value = term.generator(step_of(posterior))
    assert value.item() == pytest.approx(of_each - 0.7 * of_all, rel=1e-12)
    sharp = vgx.discover().part("loss", "bit-entropy")(sharpness=1e4)
    slope = torch.autograd.grad(sharp.generator(step_of(means_of(encoder, means))), [means])
    assert slope[0].isfinite().all()


def step_of(posterior):
    absent = {field.name: None for field in fields(vgx.Step) if field.default is MISSING}
    given = {"number": 0, "progress": 0.0, "real": torch.zeros(1, 3, 8, 8)}
    return vgx.Step(**{**absent, **given, "posterior": posterior})


def test_a_latent_that_does_not_fit_is_named():
    wrong = r"levels for 3 channels, and the latent has 4; try latent=\[3,4,4\]"
    with pytest.raises(RecipeError, match=wrong):
        part("finite-scalar", levels=(5, 5, 5)).build(IMAGE, vgx.LatentSpec((4, 4, 4)))
    with pytest.raises(RecipeError, match="at most 62 bits; the latent has 63 channels"):
        part("binary-spherical").build(IMAGE, vgx.LatentSpec((63,)))
    most = part("finite-scalar", levels=(4,) * 31).build(IMAGE, vgx.LatentSpec((31,)))
    assert most.codes == 2**62
    with pytest.raises(RecipeError, match="at most 62 bits, and these need 64"):
        part("finite-scalar", levels=(4,) * 32).build(IMAGE, vgx.LatentSpec((32,)))
    labelled = vgx.discover().part("encoder", "labelled")(inner=Means())
    quantiser = vgx.discover().part("encoder", "vector-quantised")(inner=labelled)
    with pytest.raises(RecipeError, match="vector-quantised: inner: 'labelled' takes labels"):
        quantiser.build(vgx.ImageSpec(8, classes=3), vgx.LatentSpec((4,)))


# --- codebooks that move -----------------------------------------------------------------------


def moving(codes=2, channels=2, *, decay=0.75, restart=0.0, began=True, **more):
    """A codebook whose averages began with one mean each: (0, 0), (4, 0), (8, 0), ..."""
    book = MovingCodebook(codes, channels, decay, restart, **more).double()
    if began:
        book.weight.zero_()
        book.weight[:, 0] = 4 * torch.arange(codes)
        book.sums.copy_(book.weight)
        book.sizes.fill_(1)
        book.started.fill_(1)
    return book


def test_two_steps_of_the_moving_averages_by_hand():
    """N and m of van den Oord et al. 2017, appendix A.1, with a decay of 3/4."""
    book = moving(codes=3)
    means = torch.tensor([[1.0, 1.0], [1.0, 3.0], [5.0, 0.0]], dtype=torch.float64)
    posterior = book(means)
    # The vectors before the step: (0, 0), (0, 0) and (4, 0).
    assert posterior.indices.tolist() == [0, 0, 1]
    assert posterior.codes.tolist() == [[0, 0], [0, 0], [4, 0]]
    assert book.sizes.tolist() == [0.75 + 0.5, 0.75 + 0.25, 0.75]
    # (0.5, 1) / 1.25; (3 + 1.25, 0) / 1; nothing came to the third: 6 / 0.75.
    assert book.weight.flatten().tolist() == pytest.approx([0.4, 0.8, 4.25, 0.0, 8.0, 0.0])
    means = torch.tensor([[0.4, 0.8], [7.0, 2.0]], dtype=torch.float64)
    assert book(means).codes.tolist() == [pytest.approx([0.4, 0.8]), [8.0, 0.0]]
    # 0.75 * 1.25 + 0.25, and (0.75 * 0.5 + 0.1, 0.75 * 1 + 0.2) over it.
    assert book.sizes.tolist() == [1.1875, 0.75, 0.5625 + 0.25]
    third = [(0.75 * 6 + 1.75) / 0.8125, 0.5 / 0.8125]
    expected = [0.475 / 1.1875, 0.95 / 1.1875, 4.25, 0.0, *third]
    assert book.weight.flatten().tolist() == pytest.approx(expected)


def test_vectors_of_length_one_are_averages_of_directions():
    book = moving(normalised=True)
    with torch.no_grad():
        book.weight.copy_(torch.eye(2))
        book.sums.copy_(torch.eye(2))
    posterior = book(torch.tensor([[30.0, 40.0], [2.0, 0.0]], dtype=torch.float64))
    assert posterior.indices.tolist() == [1, 0]
    assert posterior.codes.tolist() == [[0, 1], [1, 0]]
    # (0.75 * (0, 1) + 0.25 * (0.6, 0.8)), scaled to length 1.
    moved = np.array([0.15, 0.95]) / np.hypot(0.15, 0.95)
    assert book.vectors(torch.tensor(1)[None])[0].tolist() == pytest.approx(moved.tolist())


def test_nothing_moves_in_evaluation_nor_in_a_pass_without_gradients():
    means = random_means(20, 2)
    for began in (True, False):
        book = moving(began=began)
        before = {name: buffer.clone() for name, buffer in book.named_buffers()}
        book.eval()(means)
        with torch.no_grad():
            book.train()(means)
        assert all(torch.equal(before[name], buffer) for name, buffer in book.named_buffers())
        book.train()(means)
        assert not torch.equal(before["sizes"], book.sizes)


def test_the_start_is_k_means_of_the_first_minibatch():
    """From the same means as centres, scikit-learn comes to the same clusters."""
    from sklearn.cluster import KMeans

    means = random_means(300, 3)
    with rng.ambient(3, "step", 0):
        centres = drawn(means, 8)
    assert len(centres.unique(dim=0)) == 8
    theirs = KMeans(8, init=centres.numpy(), n_init=1, max_iter=10, tol=0, algorithm="lloyd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(means.numpy())
    books = {}
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        book = moving(8, 3, decay=0.9999999999, began=False)
        with rng.ambient(seed, "step", 0):
            book(means)
        books[name] = book
    assert torch.equal(books["one"].weight, books["again"].weight)
    assert not torch.equal(books["one"].weight, books["other"].weight)
    # With this decay the step itself moves nothing. Of the tenth round scikit-learn has no means.
    assert np.abs(books["one"].weight.numpy() - theirs.cluster_centers_).max() < 1e-6
    assert books["one"].sizes.sum().item() == pytest.approx(300)


def test_dead_vectors_restart_on_means_of_the_minibatch():
    means = random_means(40, 2)  # near (0, 0): nothing comes to (40, 0) and (80, 0)
    seen = {}
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        book = moving(21, decay=0.5, restart=0.4)
        with rng.ambient(seed, "step", 0):
            book(means)
        seen[name] = book.weight
        gone = book.sizes <= 0.4 * 40 / 21 + 1e-12
        assert 2 <= gone.sum() < 21
        # Every restarted vector is one of the means, with the size below which it would restart.
        distances = torch.cdist(book.weight[gone], means).min(1).values
        assert distances.max() < 1e-12
        assert torch.allclose(book.sums[gone], book.weight[gone] * 0.4 * 40 / 21)
    assert torch.equal(seen["one"], seen["again"])
    assert not torch.equal(seen["one"], seen["other"])
    never = moving(21, decay=0.5)
    for _ in range(20):
        never(means)
    assert never.weight[-1].tolist() == [80.0, 0.0]
    assert never.weight.isfinite().all()


def test_averages_are_exact_under_autocast():
    means = random_means(200, 2).float()
    wide, half = moving(5).float(), moving(5).float()
    wide(means)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = half(means)
    assert posterior.codes.dtype == posterior.encoded.dtype == torch.float32
    for name, buffer in wide.named_buffers():
        assert torch.equal(buffer, dict(half.named_buffers())[name]), name


# --- several levels ----------------------------------------------------------------------------


def residual(levels=3, codes=4):
    """Codebooks of different sizes, that do not move: a posterior is compared with a plain loop."""
    settings = {"levels": levels, "codes": codes, "decay": 0.9, "restart": 0.0}
    encoder = part("residual-quantised", **settings).build(IMAGE, vgx.LatentSpec((2, 4, 4)))
    encoder = encoder.double()
    for level, book in enumerate(encoder.codebook.levels):
        book.weight.copy_(random_means(codes, 2, seed=level, scale=2.0 / 3**level))
    return encoder.eval()


def test_each_level_quantises_what_those_before_leave():
    encoder, means = residual(), random_means(5, 2, 4, 4)
    posterior = means_of(encoder, means)
    assert posterior.indices.shape == (5, 4, 4, 3)
    assert posterior.sums.shape == (3, 5, 2, 4, 4)
    books = [book.weight.numpy() for book in encoder.codebook.levels]
    for b, y, x in np.ndindex(5, 4, 4):
        left = means[b, :, y, x].numpy().copy()
        for level, book in enumerate(books):
            k = ((book - left) ** 2).sum(1).argmin()
            left -= book[k]
            assert posterior.indices[b, y, x, level] == k
            partial = means[b, :, y, x].numpy() - left
            assert np.abs(posterior.sums[level, b, :, y, x].numpy() - partial).max() < 1e-12
        assert np.abs(posterior.codes[b, :, y, x].numpy() - partial).max() < 1e-12


def test_vq_of_levels_and_of_averages_is_the_commitment_alone():
    encoder, means = residual(), random_means(5, 2, 4, 4).requires_grad_()
    posterior = means_of(encoder, means)
    vq = vgx.discover().part("loss", "vq")(commitment=0.5)
    value = vq.generator(step_of(posterior))
    by_hand = sum(((means - total) ** 2).mean() for total in posterior.sums)
    assert value.item() == pytest.approx(0.5 * by_hand.item(), rel=1e-12)
    one = moving()(means.flatten(1)[:, :2])
    value = vq.generator(step_of(one))
    assert value.item() == pytest.approx(0.5 * ((one.encoded - one.codes) ** 2).mean().item())
    grid = part("finite-scalar", levels=(5, 5)).build(IMAGE, vgx.LatentSpec((2, 4, 4))).double()
    with pytest.raises(RecipeError, match="gives a posterior whose codebook is grid"):
        vq.generator(step_of(means_of(grid, means)))


def test_levels_get_nearer_to_the_means():
    torch.manual_seed(0)
    settings = {"levels": 3, "codes": 8}
    encoder = part("residual-quantised", **settings).build(IMAGE, vgx.LatentSpec((4, 4, 4)))
    posterior = encoder(random_images(30))
    errors = (posterior.sums - posterior.encoded).square().flatten(1).mean(1)
    assert (errors[1:] < 0.6 * errors[:-1]).all()


# --- another implementation --------------------------------------------------------------------


@pytest.mark.parametrize("normalised", [False, True])
def test_averages_are_those_of_vector_quantize_pytorch(normalised):
    ours = moving(6, 3, decay=0.8, normalised=normalised).float()
    theirs = library.VectorQuantize(
        dim=3, codebook_size=6, decay=0.8, eps=0.0, threshold_ema_dead_code=0,
        use_cosine_sim=normalised, rotation_trick=False,
    )  # fmt: skip
    book = theirs._codebook
    start = random_means(6, 3).float()
    start = nn.functional.normalize(start, dim=1) if normalised else start
    for buffer, value in (
        (ours.weight, start), (ours.sums, start), (book.embed, start[None]),
        (book.embed_avg, start[None]),
    ):  # fmt: skip
        buffer.copy_(value)
    for number in range(3):
        means = random_means(100, 3, seed=number).float()
        posterior = ours(means)
        vectors, indices, _ = theirs(means[None])
        assert posterior.indices.tolist() == indices[0].tolist()
        assert torch.allclose(posterior.codes, vectors[0], atol=1e-6)
    known = ours.vectors(torch.arange(6))
    assert torch.allclose(known, book.embed[0], atol=1e-6)
    assert torch.allclose(ours.sizes, book.cluster_size[0], atol=1e-5)


def test_levels_are_those_of_vector_quantize_pytorch():
    encoder = residual(levels=3, codes=4).float()
    theirs = library.ResidualVQ(dim=2, num_quantizers=3, codebook_size=4).eval()
    for book, level in zip(encoder.codebook.levels, theirs.layers, strict=True):
        level._codebook.embed.copy_(book.weight[None])
    means = random_means(50, 2).float()
    posterior = means_of(encoder, means)
    vectors, indices, _ = theirs(means[None])
    assert posterior.indices.tolist() == indices[0].tolist()
    assert torch.allclose(posterior.codes, vectors[0], atol=1e-6)


def test_corners_are_those_of_vector_quantize_pytorch():
    encoder = part("binary-spherical").build(IMAGE, vgx.LatentSpec((5,)))
    theirs = library.LFQ(dim=5, codebook_size=32, spherical=True, codebook_scale=1.0).eval()
    means = random_means(50, 5).float()
    posterior = means_of(encoder, means)
    vectors, indices, _ = theirs(means[None])
    assert torch.allclose(posterior.codes, vectors[0], atol=1e-6)
    # Their first channel is the highest bit.
    backwards = [int(f"{index:05b}"[::-1], 2) for index in indices[0].tolist()]
    assert posterior.indices.tolist() == backwards


def test_why_the_library_is_not_the_quantiser():
    """As docs/design.md says: what moves in it in passes where nothing may, and its precision."""

    def changed(book, means):
        before = {name: t.clone() for name, t in book.state_dict().items()}
        book(means)
        return {
            name.rpartition(".")[2]
            for name, t in book.state_dict().items()
            if not torch.equal(t, before[name])
        }

    make = library.VectorQuantize
    with torch.no_grad():
        started = changed(
            make(dim=2, codebook_size=4, kmeans_init=True).eval(), torch.rand(1, 9, 2)
        )
        moved = changed(make(dim=2, codebook_size=4).train(), torch.rand(1, 9, 2))
    assert started == {"initted", "cluster_size", "embed", "embed_avg"}
    assert moved == {"cluster_size", "embed", "embed_avg"}
    book = make(dim=2, codebook_size=1, threshold_ema_dead_code=0).double().train()
    sums, means = book._codebook.embed_avg[0, 0].clone(), random_means(1, 9, 2)
    book(means)
    error = (book._codebook.embed_avg[0, 0] - 0.8 * sums - 0.2 * means[0].sum(0)).abs().max()
    assert error > 1e-9  # float32; ours is exact, as by hand above


# --- the contract ------------------------------------------------------------------------------


class Broken(vgx.Encoder, type="broken"):
    """Round the mean of an image to one of two codes, wrongly."""

    wrong: ClassVar[str] = ""

    def build(self, image, latent):
        return BrokenNet(latent.shape[0], self.wrong)


class BrokenNet(nn.Module):
    codes = 2

    def __init__(self, size, wrong):
        super().__init__()
        self.layer, self.size, self.wrong = nn.Linear(3, size), size, wrong

    def forward(self, images):
        value = self.layer(images.mean((2, 3)))
        indices = (value[:, 0] > value[:, 0].mean() if self.wrong == "" else value[:, 0] > 0).long()
        codes = self.from_indices(indices) + (self.wrong == "vectors")
        indices = {"far": indices + 1, "shape": indices[:1], "floats": indices.float()}.get(
            self.wrong, indices
        )
        return Rounded(value + (codes - value).detach(), None if self.wrong == "none" else indices)

    def from_indices(self, indices):
        return indices[:, None].expand(-1, self.size).float()


class Rounded:
    def __init__(self, mean, indices):
        self.mean, self.indices = mean, indices

    def sample(self, generator):
        return self.mean


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("none", "no integers `indices`"),
        ("floats", "no integers `indices`"),
        ("shape", r"indices are \(1,\), not \(\d+,\) or that with the levels"),
        ("far", "indices leave 0 to 1"),
        ("vectors", "is not the posterior's mean"),
    ],
)
def test_the_kit_compares_indices_with_latents(monkeypatch, wrong, message):
    monkeypatch.setattr(Broken, "wrong", wrong)
    monkeypatch.setattr(BrokenNet, "codes", 2)
    with pytest.raises(AssertionError, match=message):
        check_part(Broken())
