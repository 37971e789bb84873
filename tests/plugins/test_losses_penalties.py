"""Penalties: slopes by hand and of built-in networks, and what the averages remember."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from steps import batches

import vgx
from vgx import rng
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
WIDE = torch.float64


def loss(name, **settings):
    return vgx.discover().part("loss", name)(**settings)


def random_images(n, side=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, side, side, generator=generator, dtype=WIDE)


def step(real, discriminator, **given):
    """A step whose discriminator is `judge`; the fakes are those given."""
    absent = {field.name: None for field in fields(vgx.Step) if field.default is MISSING}
    fakes = [given[name] for name in ("recon", "prior") if name in given]
    if fakes and "fake_score" not in given:
        given["fake_score"] = discriminator(torch.cat(fakes))
    return vgx.Step(
        **{
            **absent,
            "number": 0,
            "progress": 0.0,
            "real": real,
            "discriminator": discriminator,
            **given,
        }
    )


def centred(images):
    """Pixels of [0, 1] as pixels of [-1, 1]: the unit of the papers, and of slopes."""
    return 2 * images - 1


def linear(weights):
    """D(v) = <w, v> of pixels v of [-1, 1]: its slope is w everywhere."""
    return lambda images: vgx.Score((centred(images) * weights).flatten(1).sum(1, keepdim=True))


def quadratic(a):
    """D(v) = a/2 |v|^2 of pixels v of [-1, 1]: its slope is a v."""
    return lambda images: vgx.Score(
        a / 2 * centred(images).square().flatten(1).sum(1, keepdim=True)
    )


WEIGHTS = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=WIDE)  # of length 5
LINEAR = {"r1": 12.5, "r2": 12.5, "gradient-penalty": 16.0, "dragan": 16.0}


@pytest.mark.parametrize(("name", "value"), LINEAR.items())
def test_a_linear_discriminator_has_its_weights_for_a_slope(name, value):
    at = step(random_images(3), linear(WEIGHTS), recon=random_images(3, seed=1))
    assert loss(name).discriminator(at).item() == pytest.approx(value)


@pytest.mark.parametrize(("name", "value"), LINEAR.items())
def test_the_slope_is_that_of_an_images_mean_logit(name, value):
    """A grid of 3x3 equal logits is no steeper than one."""

    def discriminator(images):
        logit = (centred(images) * WEIGHTS).sum((1, 2, 3))
        return vgx.Score(logit.view(-1, 1, 1, 1).expand(-1, 1, 3, 3))

    at = step(random_images(3), discriminator, recon=random_images(3, seed=1))
    assert loss(name).discriminator(at).item() == pytest.approx(value)


NETWORKS = [
    ("dcgan", {"norm": "none"}),
    ("patchgan", {"norm": "none"}),
    ("residual", {"spectral": False}),
]


@pytest.mark.parametrize(("network", "settings"), NETWORKS)
def test_slopes_of_a_built_in_network_are_those_of_the_papers(network, settings):
    """By pixels of [-1, 1], which its layers get: so gamma and lambda are the papers'."""
    torch.manual_seed(0)
    discriminator = (
        vgx.discover()
        .part("discriminator", network)(widths=(8, 16), **settings)
        .build(vgx.ImageSpec(16), vgx.LatentSpec((8,)))
        .double()
        .eval()
    )
    with torch.no_grad():
        for parameter in discriminator.parameters():  # else the slopes are near 0
            parameter.mul_(4)
    # Each image has one colour, so that DRAGAN's points are the images.
    real = random_images(1, side=1).expand(4, 3, 16, 16)
    v = centred(real).requires_grad_()
    x = v
    for stage in discriminator.stages:
        x = stage(x)
    logits = discriminator.head(x).flatten(1).mean(1)
    (slopes,) = torch.autograd.grad(logits.sum(), v)
    lengths = slopes.flatten(1).norm(dim=1)
    zero_centred, one_centred = 0.5 * lengths.square().mean(), (lengths - 1).square().mean()
    at = step(real, discriminator, recon=real)
    expected = {"r1": zero_centred, "r2": zero_centred}
    expected |= {"gradient-penalty": one_centred, "dragan": one_centred}
    for name, value in expected.items():
        ratio = loss(name).discriminator(at) / value
        assert ratio.item() == pytest.approx(1, rel=1e-6), name


@pytest.mark.parametrize(("name", "side"), [("r1", "real"), ("r2", "fake")])
def test_a_quadratic_discriminator_is_steep_far_from_grey(name, side):
    a = torch.tensor(3.0, dtype=WIDE, requires_grad=True)
    real, fake = random_images(4), random_images(4, seed=1)
    value = loss(name).discriminator(step(real, quadratic(a), recon=fake))
    v = centred({"real": real, "fake": fake}[side])
    squares = v.square().flatten(1).sum(1).mean()  # mean |v|^2
    assert value.item() == pytest.approx(0.5 * 9 * squares.item())
    # The penalty's own slope, a second derivative: d/da a^2/2 mean |v|^2.
    assert torch.autograd.grad(value, a)[0].item() == pytest.approx(3 * squares.item())


def test_the_gradient_penalty_of_a_quadratic_discriminator():
    a = torch.tensor(3.0, dtype=WIDE, requires_grad=True)
    real, fake = random_images(4), random_images(4, seed=1)
    value = loss("gradient-penalty").discriminator(step(real, quadratic(a), recon=fake))
    eps = torch.empty(4, 1, 1, 1, dtype=WIDE).uniform_(
        generator=rng.generator(0, "gradient-penalty")
    )
    lengths = centred(eps * real + (1 - eps) * fake).flatten(1).norm(dim=1)  # |v|
    assert value.item() == pytest.approx((3 * lengths - 1).square().mean().item())
    by_hand = (2 * (3 * lengths - 1) * lengths).mean()
    assert torch.autograd.grad(value, a)[0].item() == pytest.approx(by_hand.item())


def test_the_gradient_penalty_mixes_each_image_by_one_number():
    """From black to white: a slope of sqrt(2) |2 eps - 1|, whose factor is uniform in [0, 1]."""
    real = torch.ones(4096, 1, 1, 2, dtype=WIDE)
    at = step(real, quadratic(1.0), recon=torch.zeros_like(real))
    value = loss("gradient-penalty").discriminator(at).item()
    assert value == pytest.approx(2 / 3 - 2**0.5 + 1, abs=0.01)


def test_the_gradient_penalty_is_finite_where_nothing_slopes():
    flat = torch.zeros((), dtype=WIDE, requires_grad=True)
    at = step(random_images(3), linear(flat), recon=random_images(3, seed=1))
    value = loss("gradient-penalty").discriminator(at)
    assert value.item() == pytest.approx(1.0, abs=1e-5)
    assert torch.autograd.grad(value, flat)[0].isfinite()


def dragan_program(images, draws):
    """The authors' program (kodalinaveen3/DRAGAN) in numpy, for D(v) = |v|^2 / 16."""
    perturbed = images + 0.5 * images.std() * draws.random(images.shape)
    alpha = draws.random((len(images), 1))
    points = images + alpha * (perturbed - images)
    slopes = np.sqrt(np.sum((points / 8) ** 2, axis=1))
    return np.mean((slopes - 1) ** 2)


def test_dragan_is_the_authors_program():
    """White and black images of 64 pixels, with slopes near 1: other points, another value."""
    real = torch.tensor([0.0, 1.0], dtype=WIDE).repeat(4096).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    program = dragan_program(centred(real).flatten(1).numpy(), np.random.default_rng(0))
    value = loss("dragan").discriminator(step(real, quadratic(1 / 8))).item()
    assert program == pytest.approx(0.0211, abs=5e-4)
    assert value == pytest.approx(program, rel=0.04)


def test_dragan_draws_for_each_pixel_and_scales_the_noise_of_each_image():
    """Offsets are alpha u / 4: the shared alpha makes two pixels of an image correlate by 3/7."""
    real = torch.tensor([0.0, 1.0], dtype=WIDE).repeat(4096).view(-1, 1, 1, 2)
    seen = []

    def discriminator(images):
        seen.append(images.detach())
        return linear(1.0)(images)

    loss("dragan").discriminator(step(real, discriminator))
    drawn = (seen[0] - real).flatten(1)
    assert drawn.min() >= 0
    assert drawn.max() <= 0.25
    assert drawn.mean().item() == pytest.approx(1 / 16, abs=0.002)
    assert torch.corrcoef(drawn.T)[0, 1].item() == pytest.approx(3 / 7, abs=0.04)


def test_penalties_see_the_fakes_that_were_shown():
    """Reconstructions, decoded noise, or both; reconstructions may be there and not be shown."""
    real, recon, prior = random_images(3), random_images(3, seed=1), random_images(3, seed=2)
    discriminator = quadratic(1.0)
    halves = {
        name: centred(images).square().flatten(1).sum(1).mean().item() / 2
        for name, images in (("recon", recon), ("prior", prior))
    }
    both = step(real, discriminator, recon=recon, prior=prior, fakes=("recon", "prior"))
    mean = (halves["recon"] + halves["prior"]) / 2
    assert loss("r2").discriminator(both).item() == pytest.approx(mean)
    hidden = step(
        real,
        discriminator,
        recon=recon,
        prior=prior,
        fake_score=discriminator(prior),
        fakes=("prior",),
    )
    assert loss("r2").discriminator(hidden).item() == pytest.approx(halves["prior"])
    alone = step(real, discriminator, prior=prior, fakes=("prior",))
    assert loss("r2").discriminator(alone).item() == pytest.approx(halves["prior"])
    # Each fake is mixed with a real image: with itself it is no mixture.
    same = step(real, discriminator, recon=real, prior=real, fakes=("recon", "prior"))
    lengths = centred(real).flatten(1).norm(dim=1)
    value = loss("gradient-penalty").discriminator(same).item()
    assert value == pytest.approx((lengths - 1).square().mean().item())


@pytest.mark.parametrize("name", ["r2", "gradient-penalty"])
def test_a_penalty_on_fakes_does_not_lead_to_the_generator(name):
    recon, a = random_images(3, seed=1).requires_grad_(), torch.ones((), requires_grad=True)
    value = loss(name).discriminator(step(random_images(3), quadratic(a), recon=recon))
    toward, own = torch.autograd.grad(value, [recon, a], allow_unused=True)
    assert toward is None
    assert own is not None


# --- lecam -------------------------------------------------------------------------------------


def scored(real, fake):
    scores = [vgx.Score(torch.tensor(values).view(-1, 1)) for values in (real, fake)]
    return step(random_images(len(real)), None, real_score=scores[0], fake_score=scores[1])


def test_lecam_by_hand():
    term = loss("lecam", decay=0.5).build(vgx.ImageSpec(16), vgx.LatentSpec((8,)))
    # Means 3 and 0: ((2 - 0)^2 + (4 - 0)^2) / 2 + ((1 - 3)^2 + (-1 - 3)^2) / 2
    first = scored([2.0, 4.0], [1.0, -1.0])
    assert term.discriminator(first).item() == pytest.approx(10 + 10)
    # The plain mean of two batches: 4 and 1; 25 - 10 + 1 and so on.
    second = scored([5.0], [2.0])
    assert term.discriminator(second).item() == pytest.approx((5 - 1) ** 2 + (2 - 4) ** 2)
    # From the third on a half stays each time: 4/2 + 0/2 and 1/2 + 7/2.
    third = scored([0.0], [7.0])
    assert term.discriminator(third).item() == pytest.approx((0 - 4) ** 2 + (7 - 2) ** 2)
    assert term.means.tolist() == pytest.approx([2.0, 4.0])


def test_lecams_graph_outlives_its_next_update():
    term = loss("lecam").build(vgx.ImageSpec(16), vgx.LatentSpec((8,)))
    real, fake = (torch.randn(3, 1, generator=rng.generator(0, n)) for n in ("a", "b"))
    real.requires_grad_()
    at = step(random_images(3), None, real_score=vgx.Score(real), fake_score=vgx.Score(fake))
    value = term.discriminator(at)
    term.discriminator(at)
    by_hand = 2 * (real - fake.mean()) / 3
    assert torch.allclose(torch.autograd.grad(value, real)[0], by_hand)


def test_lecams_averages_are_saved_with_the_run_and_left_alone_by_a_check():
    losses = ["hinge", "l1", {"type": "lecam", "weight": 0.1}]
    recipe = vgx.load_recipe(TINY, {"losses": losses})
    engine = Engine(recipe, steps=4)
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    engine.step(0, batches(real))
    kept = engine.networks["loss lecam"].means.clone()
    assert (kept != 0).all()
    assert examine(engine, vgx.discover(), Batch(real)).losses["lecam"] > 0
    assert torch.equal(engine.networks["loss lecam"].means, kept)
    again = Engine(recipe, steps=4)
    again.restore(engine.state({}))
    values = [e.step(1, batches(real))["lecam"].item() for e in (engine, again)]
    assert values[0] == values[1]
    assert torch.equal(*(e.networks["loss lecam"].means for e in (engine, again)))
    assert not torch.equal(again.networks["loss lecam"].means, kept)


# --- in a run ----------------------------------------------------------------------------------

PENALTIES = ["dragan", "gradient-penalty", "lecam", "r1", "r2"]


@pytest.mark.parametrize("fakes", [["recon"], ["prior"], ["recon", "prior"]])
def test_the_audit_finds_nothing_wrong_with_penalties(fakes):
    """They reach the discriminator, and lead to nobody else."""
    losses = ["relativistic", "l1", *PENALTIES]
    recipe = vgx.load_recipe(TINY, {"losses": losses, "train.fakes": fakes})
    engine = Engine(recipe, steps=2)
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flows = {flow.label: flow.norms for flow in examine(engine, vgx.discover(), Batch(real)).flows}
    for name in PENALTIES:
        assert flows[name]["discriminator"] > 0
        assert flows[name]["decoder"] is None
    values = engine.step(0, batches(real))
    assert all(values[name].isfinite() for name in PENALTIES)


def test_penalties_have_the_weights_of_their_papers():
    weights = {name: loss(name).weight for name in PENALTIES}
    assert weights == {
        "dragan": 10.0,
        "gradient-penalty": 10.0,
        "lecam": 0.3,
        "r1": 10.0,
        "r2": 10.0,
    }
