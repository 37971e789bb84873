"""Samplers: where the latents come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from sklearn.mixture import GaussianMixture

import vgx
from vgx.errors import DataError, RecipeError

LATENT = vgx.LatentSpec((4,))


def draw(name, n, codes, seed=0, **settings):
    drawer = vgx.discover().part("sampler", name)(**settings).build(LATENT)
    return drawn(drawer, n, codes, seed)


def drawn(drawer, n, codes, seed=0):
    if isinstance(drawer, vgx.Fitted):
        drawer.fit(codes)
    return drawer.draw(n, codes, generator(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed))


CODES = torch.eye(4)


def test_a_mixture_has_positive_weights_that_sum_to_one():
    weights = draw("weighted-mix", 200, CODES)
    assert torch.allclose(weights.sum(1), torch.ones(200))
    assert (weights >= 0).all()
    # Uniform over all weights: each anchor's mean is 1/3, its variance 2/36 (Dirichlet(1, 1, 1)).
    used = weights[:, weights.sum(0) > 0]
    assert used.shape == (200, 3)
    assert used.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.06)
    assert used.var(0).mean().item() == pytest.approx(2 / 36, abs=0.015)


def test_shared_anchors_are_the_same_three_and_fresh_ones_are_not():
    codes = torch.eye(50)[:, :50]
    drawer = vgx.discover().part("sampler", "weighted-mix")
    for anchors, used in (("shared", 3), ("fresh", 50)):
        made = drawer(anchors=anchors).build(vgx.LatentSpec((50,)))
        z = made.draw(300, codes, torch.Generator().manual_seed(0))
        assert ((z > 0).sum(1) == 3).all()
        assert (z.sum(0) > 0).sum() == used


def test_concentration_moves_between_single_latents_and_their_average():
    near_one = draw("weighted-mix", 200, CODES, concentration=0.01).max(1).values
    average = draw("weighted-mix", 200, CODES, concentration=1000.0).max(1).values
    assert near_one.mean() > 0.95
    assert average.mean() < 0.37


def test_mixtures_are_nearer_to_the_mean_than_codes_unless_renormalised():
    """256 dimensions around 3: variance 1/2 by E sum w^2 = 2 / 4, and 1 with renormalise."""
    codes = normal(2000, 256) + 3
    drawer = vgx.discover().part("sampler", "weighted-mix")
    variances, shorter = {}, {}
    for renormalise in (False, True):
        made = drawer(anchors="fresh", renormalise=renormalise).build(vgx.LatentSpec((256,)))
        z = made.draw(400, codes, generator()) - 3
        variances[renormalise] = z.var().item()
        shortest = (codes - 3).norm(dim=1).min()
        shorter[renormalise] = (z.norm(dim=1) < shortest).float().mean().item()
    assert variances[False] == pytest.approx(0.5, abs=0.02)
    assert variances[True] == pytest.approx(1, abs=0.02)
    assert shorter[False] > 0.9
    assert shorter[True] < 0.01


def test_renormalise_by_hand():
    """Of unit vectors a mixture is its own weights; their mean is 1/4 in each dimension."""
    weights = draw("weighted-mix", 20, CODES)
    expected = 0.25 + (weights - 0.25) / weights.square().sum(1, keepdim=True).sqrt()
    assert torch.allclose(draw("weighted-mix", 20, CODES, renormalise=True), expected, atol=1e-6)


def test_too_few_latents_are_said():
    with pytest.raises(RecipeError, match="of: 5: the run has 4 latents"):
        draw("weighted-mix", 1, CODES, of=5)


def test_the_prior_is_the_standard_normal_and_does_not_look_at_the_codes():
    z = draw("prior", 5000, torch.empty(0, 4))
    assert z.shape == (5000, 4)
    assert z.mean().abs() < 0.03
    assert z.std().item() == pytest.approx(1, abs=0.03)


def test_posterior_draws_stored_latents():
    z = draw("posterior", 40, CODES)
    assert ((z == 1).sum(1) == 1).all()
    assert len(z.unique(dim=0)) == 4


# --- paths ---------------------------------------------------------------------------------------


def test_a_row_goes_from_one_code_to_another_in_equal_steps():
    z = draw("interpolate", 20, CODES, steps=5)
    for row in z.split(5):
        first, last = row[0], row[-1]
        assert first.tolist() in CODES.tolist()
        assert last.tolist() in CODES.tolist()
        assert not torch.equal(first, last)
        for place, middle in enumerate(row):
            assert torch.allclose(middle, first + (last - first) * place / 4)
    assert len({tuple(row[0].tolist()) for row in draw("interpolate", 200, CODES).split(10)}) == 4


def test_a_slerp_from_zero_or_to_the_opposite_is_what_is_said():
    times = torch.linspace(0, 1, 5)
    for start, end, expected in (
        (torch.zeros(4), torch.ones(4), (times * math.pi / 2).sin()),
        (-torch.ones(4), torch.ones(4), 2 * times - 1),
    ):
        z = draw("interpolate", 5, torch.stack([start, end]), mode="slerp", steps=5)
        z = z if z[0, 0] <= z[-1, 0] else z.flip(0)
        assert torch.allclose(z, expected[:, None] * torch.ones(4), atol=1e-6)


def test_a_slerp_of_unit_vectors_turns_evenly():
    turns = torch.tensor([0.3, 2.0])
    circle = torch.stack([turns.cos(), turns.sin(), torch.zeros(2), torch.zeros(2)], 1)
    z = draw("interpolate", 7, circle, mode="slerp", steps=7)
    start, end = (0.3, 2.0) if z[0, 0] > 0 else (2.0, 0.3)
    at = start + (end - start) * torch.arange(7) / 6
    assert torch.allclose(z[:, :2], torch.stack([at.cos(), at.sin()], 1), atol=1e-6)


def test_a_slerp_of_other_lengths_weighs_by_sines():
    codes = torch.tensor([[2.0, 0, 0, 0], [0, 3.0, 0, 0]])  # the angle is a right one
    middle = draw("interpolate", 3, codes, mode="slerp", steps=3)[1]
    assert middle.tolist() == pytest.approx([2 / math.sqrt(2), 3 / math.sqrt(2), 0, 0])


@pytest.mark.parametrize("other", [-2.0, 2.0])
def test_a_slerp_along_one_line_is_straight(other):
    codes = torch.tensor([[1.0, 0, 0, 0], [other, 0, 0, 0]])
    z = draw("interpolate", 5, codes, mode="slerp", steps=5)
    assert torch.allclose(z[:, 0].diff(), ((z[-1] - z[0]) / 4)[0])


def test_of_the_priors_draws_a_slerp_keeps_the_length_and_a_lerp_does_not():
    drawer = vgx.discover().part("sampler", "interpolate")
    middle = {}
    for mode in ("lerp", "slerp"):
        made = drawer(mode=mode, between="prior", steps=3).build(vgx.LatentSpec((256,)))
        z = drawn(made, 600, torch.empty(0, 256))
        assert z[::3].std().item() == pytest.approx(1, abs=0.01)
        assert z[2::3].std().item() == pytest.approx(1, abs=0.01)
        middle[mode] = z[1::3].std().item()
    assert middle["slerp"] == pytest.approx(1, abs=0.01)
    assert middle["lerp"] == pytest.approx(math.sqrt(0.5), abs=0.01)


def test_one_code_makes_no_pair():
    with pytest.raises(RecipeError, match=r"the run has 1 latents.*between=prior works"):
        draw("interpolate", 1, CODES[:1])


# Means 1, 2, 3, 4; standard deviations 0, 2, 1, 3.
VARIED = torch.tensor([[1.0, 0, 2, 7], [1, 4, 4, 1]])


def test_without_a_kl_a_traversal_moves_the_most_varied_dimension_first():
    z = draw("traversal", 15, VARIED, steps=3, span=2.0)
    means, deviations = torch.tensor([1.0, 2, 3, 4]), [0, 2, 1, 3]
    for row, dimension in enumerate([3, 1, 2, 0, 3]):
        for step, value in enumerate([-2.0, 0.0, 2.0]):
            expected = means.clone()
            expected[dimension] += value * deviations[dimension]
            assert torch.equal(z[3 * row + step], expected)


def test_with_a_kl_a_traversal_moves_the_dimension_that_holds_most_first():
    """A dimension that is the prior has variance 1 whether or not the decoder uses it."""
    part = vgx.discover().part("sampler", "traversal")
    kl = torch.tensor([0.2, 0.0, 3.5, 1.25])
    part_of_run = part(steps=2, span=1.5).for_kl(kl)
    z = part_of_run.build(LATENT).draw(8, VARIED, generator())
    moved = [(pair[0] != pair[1]).nonzero().flatten().tolist() for pair in z.split(2)]
    assert moved == [[2], [3], [], [1]]  # z0 never changes
    assert part_of_run.dimensions == (2, 3, 0, 1)
    assert part(dimensions=(1,)).for_kl(kl).dimensions == (1,)
    captions = part_of_run.captions(8, VARIED, kl)
    assert captions == [
        "z2, KL 3.5 nats, 1.5 to 4.5", "z3, KL 1.25 nats, -0.5 to 8.5", "z0, KL 0.2 nats, 1 to 1",
        "z1, KL 0 nats, -1 to 5",
    ]  # fmt: skip
    assert part(steps=2, span=1.5).captions(3, VARIED, None) == [
        "z3, -0.5 to 8.5", "z1, -1 to 5",
    ]  # fmt: skip


def test_a_traversal_takes_the_dimensions_and_the_base_that_it_is_told():
    z = draw("traversal", 6, VARIED, dimensions=(2, 0), base="code", steps=2)
    # z2 is 2 in the oldest latent, and 3 standard deviations of 1 away from it; z0 never changes.
    assert z.tolist() == [
        [1, 0, -1, 7], [1, 0, 5, 7], [1, 0, 2, 7], [1, 0, 2, 7], [1, 0, -1, 7], [1, 0, 5, 7],
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="dimensions: 4: a latent has the dimensions 0 to 3"):
        draw("traversal", 1, VARIED, dimensions=(0, 4))


# --- what is fitted ------------------------------------------------------------------------------


def lopsided(n):
    """[n, 4]  A quarter of the points around -20 in each dimension, the others around 20.

    The first two dimensions go together, the fourth has twice the standard deviation.
    """
    points = normal(n, 4)
    points[:, 1] = 0.9 * points[:, 0] + math.sqrt(1 - 0.81) * points[:, 1]
    points[:, 3] *= 2
    side = torch.where(torch.arange(n) % 4 == 0, -20.0, 20.0)
    return points + side[:, None]


@pytest.mark.parametrize(("covariance", "together"), [("full", 0.9), ("diag", 0.0)])
def test_a_mixture_is_drawn_as_it_was_fitted(covariance, together):
    codes = lopsided(2000)
    z = draw("gaussian-mixture", 4000, codes, components=2, covariance=covariance)
    left = z[:, 0] < 0
    assert left.double().mean().item() == pytest.approx(0.25, abs=0.03)
    for part, centre in ((z[left], -20.0), (z[~left], 20.0)):
        assert part.mean(0).tolist() == pytest.approx([centre] * 4, abs=0.2)
        assert part.std(0).tolist() == pytest.approx([1, 1, 1, 2], rel=0.12)
        assert part.T.corrcoef()[0, 1].item() == pytest.approx(together, abs=0.08)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_what_a_mixture_keeps_is_scikit_learns(covariance):
    codes = lopsided(300)
    part = vgx.discover().part("sampler", "gaussian-mixture")
    drawer = part(components=3, covariance=covariance, seed=5).build(LATENT)
    drawer.fit(codes)
    state = drawer.state_dict()
    theirs = GaussianMixture(3, covariance_type=covariance, random_state=5)
    theirs.fit(codes.double().numpy())
    spread = (
        state["factors"] @ state["factors"].mT if covariance == "full" else state["factors"] ** 2
    )
    assert np.allclose(state["weights"], theirs.weights_)
    assert np.allclose(state["means"], theirs.means_)
    assert np.allclose(spread, theirs.covariances_)


def test_a_fit_that_does_not_come_to_rest_is_no_warning():
    draw("gaussian-mixture", 2, torch.ones(12, 4))  # one point for ten components
    with pytest.raises(RecipeError, match="components: 13: the run has 12 latents"):
        draw("gaussian-mixture", 2, torch.ones(12, 4), components=13)


def test_the_aggregate_gaussian_has_the_mean_and_covariance_of_the_codes():
    codes = lopsided(50)
    drawer = vgx.discover().part("sampler", "aggregate-gaussian")().build(LATENT)
    drawer.fit(codes)
    state = drawer.state_dict()
    (factor,) = state["factors"]
    assert np.allclose(state["means"][0], codes.double().numpy().mean(0))
    assert np.allclose(factor @ factor.T, np.cov(codes.double().numpy(), rowvar=False))
    # In coordinates in which the codes have the covariance I, the draws have it too.
    white = torch.linalg.solve(factor, (drawn(drawer, 4000, codes) - state["means"][0]).T.double())
    assert torch.allclose(white.mean(1), torch.zeros(4).double(), atol=0.06)
    assert torch.allclose(white.cov(), torch.eye(4).double(), atol=0.08)


def test_fewer_codes_than_dimensions_are_not_left():
    codes = torch.tensor([[1.0, 2, 0, 0], [1, -2, 0, 3]])
    z = draw("aggregate-gaussian", 100, codes)
    t = (z[:, 1] - 0) / -2  # z = (1, 0, 0, 1.5) + t (0, -2, 0, 1.5)
    assert torch.allclose(z, torch.stack([t * 0 + 1, -2 * t, t * 0, 1.5 + 1.5 * t], 1), atol=1e-5)
    assert t.std().item() == pytest.approx(math.sqrt(2), rel=0.2)  # of -1 and 1, by n - 1
    with pytest.raises(RecipeError, match="the run has 1 latents"):
        draw("aggregate-gaussian", 1, codes[:1])


@pytest.mark.parametrize("name", ["gaussian-mixture", "aggregate-gaussian"])
def test_what_was_fitted_draws_the_same_when_it_is_taken_up_again(name):
    part = vgx.discover().part("sampler", name)()
    first, second = part.build(LATENT), part.build(LATENT)
    codes = normal(40, 4)
    z = drawn(first, 5, codes)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.draw(5, codes, generator()), z)


# --- the prior's middle --------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.2, 1.0, 3.0])
def test_truncation_is_the_truncated_normal(threshold):
    z = draw("truncation", 500, torch.empty(0, 4).double(), threshold=threshold)
    source = generator()
    even = torch.stack(
        [torch.rand(4, generator=source, dtype=torch.float64) for _ in range(500)]
    ).numpy()
    assert np.allclose(z, scipy.stats.truncnorm.ppf(even, -threshold, threshold), atol=1e-9)
    assert z.abs().max() <= threshold


def test_a_threshold_out_of_reach_leaves_the_prior():
    z = draw("truncation", 5000, torch.empty(0, 4), threshold=40.0)
    assert scipy.stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.01


def test_even_the_least_draw_is_finite(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.zeros(4, dtype=torch.float64))
    assert draw("truncation", 1, CODES, threshold=40.0).tolist() == [[-40.0] * 4]


# --- stored latents in their order ---------------------------------------------------------------


def test_neighbours_come_by_distance_after_the_code_itself():
    codes = torch.tensor([[0.0], [5], [1], [-2], [1]]) * torch.tensor([[3.0, 4, 0, 0]])

    def order(of):
        return (draw("neighbours", 6, codes, of=of)[:, 0] / 3).tolist()

    assert order(0) == [0, 1, 1, -2, 5, 0]
    assert order(3) == [-2, 0, 1, 1, 5, -2]
    assert order(-1) == [1, 1, 0, -2, 5, 1]
    for of in (5, -6):
        with pytest.raises(RecipeError, match=f"of: {of}: the run has 5 latents"):
            draw("neighbours", 1, codes, of=of)


def test_reconstruct_reads_a_folder_and_takes_its_codes_in_order(tmp_path):
    for name, colour in (("b.png", "blue"), ("a.png", "red")):
        Image.new("RGB", (5, 5), colour).save(tmp_path / name)
    part = vgx.discover().part("sampler", "reconstruct")(path=tmp_path)
    source = part.pictures(vgx.ImageSpec(size=8, classes=3))
    assert [image.getpixel((0, 0)) for image in source] == [(255, 0, 0), (0, 0, 255)]
    z = part.build(LATENT).draw(5, CODES[:2], generator())
    assert torch.equal(z, CODES[[0, 1, 0, 1, 0]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        vgx.discover().part("sampler", "reconstruct")(path=tmp_path / "empty").pictures(
            vgx.ImageSpec(size=8)
        )


# --- all of them ---------------------------------------------------------------------------------

DRAWING = [
    ("weighted-mix", {}),
    ("prior", {}),
    ("posterior", {}),
    ("truncation", {}),
    ("gaussian-mixture", {"components": 3}),
    ("aggregate-gaussian", {}),
    ("interpolate", {"steps": 3}),
    ("interpolate", {"steps": 3, "between": "prior", "mode": "slerp"}),
]
FIXED = [("traversal", {"steps": 3}), ("neighbours", {}), ("reconstruct", {"path": "pictures"})]


def made(name, settings, latent=LATENT):
    from vgx.parts.base import validate

    registry = vgx.discover()
    return validate(registry.part("sampler", name), settings, registry).build(latent)


@pytest.mark.bar("Q1")
@pytest.mark.parametrize(("name", "settings"), [*DRAWING, *FIXED])
def test_an_image_does_not_depend_on_how_many_there_are(name, settings):
    independent_of_their_number(name, settings)


@pytest.mark.bar("Q1", control="all images drawn from a generator at once")
def test_images_that_depend_on_their_number_would_be_seen(monkeypatch, record_property):
    """PyTorch draws fewer than 16 numbers at once in another way than more."""
    together = lambda _, n, codes, generator: torch.randn(n, 4, generator=generator)  # noqa: E731
    monkeypatch.setattr(type(made("prior", {})), "draw", together)
    with pytest.raises(AssertionError):
        independent_of_their_number("prior", {})
    few, many = (drawn(made("prior", {}), n, normal(30, 4)) for n in (3, 10))
    others = (few != many[:3]).any(1).sum().item()
    assert others
    record_property("seen", f"{others} of 3 are others when 10 are drawn")


def independent_of_their_number(name, settings):
    codes = normal(30, 4)
    many, few, fewer = (drawn(made(name, settings), n, codes) for n in (10, 4, 3))
    assert torch.equal(many[:4], few)
    assert torch.equal(many[:3], fewer)  # fewer than 16 numbers, which PyTorch draws otherwise
    other = drawn(made(name, settings), 10, codes, seed=1)
    assert torch.equal(many, other) == ((name, settings) in FIXED)


@pytest.mark.parametrize(("name", "settings"), [*DRAWING, *FIXED])
def test_spatial_latents_keep_their_shape_and_the_codes_their_kind(name, settings):
    for kind in (torch.float32, torch.float64):
        z = drawn(made(name, settings, vgx.LatentSpec((2, 3, 3))), 7, normal(30, 2, 3, 3).to(kind))
        assert (z.shape, z.dtype) == ((7, 2, 3, 3), kind)
        assert z.isfinite().all()


def test_every_sampler_in_the_box_is_among_them():
    # Those that need a model of their own: core/test_second.py, test_style.py, test_vamp_prior.py.
    others = {"learned-prior", "style-truncation", "vamp-prior"}
    here = {name for name, _ in [*DRAWING, *FIXED]} | others
    box = {p.type for plugin, p in vgx.discover().offers("sampler") if plugin.name == "builtin"}
    assert here == box
