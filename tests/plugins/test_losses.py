"""Losses: their values by hand and by another implementation, and the signs that papers give."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields

import pytest
import torch
from torch import distributions

import vgx
from vgx.errors import RecipeError
from vgx_builtin.posteriors import Point

REAL = torch.tensor([0.0, 1.0, 0.25, 0.5]).view(1, 1, 2, 2)
RECON = torch.tensor([0.5, 0.5, 0.75, 0.0]).view(1, 1, 2, 2)


def loss(name, **settings):
    return vgx.discover().part("loss", name)(**settings)


def step(**given):
    absent = {field.name: None for field in fields(vgx.Step) if field.default is MISSING}
    return vgx.Step(**{**absent, "number": 0, "progress": 0.0, "real": REAL, **given})


def scored(real, fake):
    return step(
        real_score=vgx.Score(torch.tensor(real).view(-1, 1)),
        fake_score=vgx.Score(torch.tensor(fake).view(-1, 1)),
    )


def test_l1_l2_and_bce_by_hand():
    logits = torch.logit(torch.tensor([0.5, 0.5, 0.75, 0.25])).view(1, 1, 2, 2)
    at = step(recon=RECON, recon_logits=logits)
    assert loss("l1").generator(at).item() == pytest.approx((0.5 + 0.5 + 0.5 + 0.5) / 4)
    assert loss("l2").generator(at).item() == pytest.approx(0.25)
    ln = math.log
    by_hand = (
        -ln(0.5) - ln(0.5) - (0.25 * ln(0.75) + 0.75 * ln(0.25)) - (0.5 * ln(0.25) + 0.5 * ln(0.75))
    ) / 4
    assert loss("bce").generator(at).item() == pytest.approx(by_hand)
    # From the logits it stays finite where probabilities would be 0 and 1.
    far = step(recon_logits=torch.full_like(REAL, 1000.0))
    assert loss("bce").generator(far).item() == pytest.approx(1000 * (1 - REAL.mean().item()))


def test_adversarial_bce_by_hand():
    at = scored([2.0, -1.0], [0.5, 0.0])
    sigmoid = torch.sigmoid(torch.tensor([2.0, -1.0, 0.5, 0.0])).tolist()
    ln = math.log
    generator = -(ln(sigmoid[2]) + ln(sigmoid[3])) / 2
    real = -(ln(sigmoid[0]) + ln(sigmoid[1])) / 2
    fake = -(ln(1 - sigmoid[2]) + ln(1 - sigmoid[3])) / 2
    assert loss("bce-adversarial").generator(at).item() == pytest.approx(generator)
    assert loss("bce-adversarial").discriminator(at).item() == pytest.approx(real + fake)
    undecided = scored([0.0], [0.0])
    assert loss("bce-adversarial").generator(undecided).item() == pytest.approx(ln(2))
    assert loss("bce-adversarial").discriminator(undecided).item() == pytest.approx(2 * ln(2))


def test_hinge_by_hand():
    at = scored([2.0, 0.5], [-3.0, 0.5])
    assert loss("hinge").generator(at).item() == pytest.approx((3.0 - 0.5) / 2)
    # What is beyond the margin counts nothing: the real 2 and the fake -3.
    assert loss("hinge").discriminator(at).item() == pytest.approx((0 + 0.5) / 2 + (0 + 1.5) / 2)


def test_charbonnier_by_hand():
    at = step(recon=RECON)
    near, far = math.sqrt(0.25 + 0.01), math.sqrt(0.25 + 1e-6)
    assert loss("charbonnier", eps=0.1).generator(at).item() == pytest.approx(near)
    assert loss("charbonnier").generator(at).item() == pytest.approx(far)
    # The least value is eps, and there its slope is 0, not undefined.
    same = REAL.clone().requires_grad_()
    least = loss("charbonnier").generator(step(recon=same))
    assert least.item() == pytest.approx(1e-3)
    assert torch.autograd.grad(least, same)[0].abs().max() == 0


def test_minimax_is_the_logarithm_of_the_generators_chance_to_be_caught():
    at = scored([2.0, -1.0], [0.5, 0.0])
    caught = [1 - torch.tensor(0.5).sigmoid().item(), 0.5]
    by_hand = (math.log(caught[0]) + math.log(caught[1])) / 2
    assert loss("minimax").generator(at).item() == pytest.approx(by_hand)
    both = [loss(name).discriminator(at).item() for name in ("minimax", "bce-adversarial")]
    assert both[0] == pytest.approx(both[1])


def test_minimax_saturates_and_the_other_does_not():
    """Goodfellow et al. 2014, section 3: why the generator maximises log D instead."""
    fake = torch.full((1, 1), -20.0, requires_grad=True)
    at = step(fake_score=vgx.Score(fake))
    slopes = {
        name: torch.autograd.grad(loss(name).generator(at), fake)[0].item()
        for name in ("minimax", "bce-adversarial")
    }
    assert -1e-8 < slopes["minimax"] < 0
    assert slopes["bce-adversarial"] == pytest.approx(-1.0)


def test_least_squares_by_hand():
    at = scored([2.0, 0.5], [-3.0, 0.5])
    assert loss("least-squares").generator(at).item() == pytest.approx((16 + 0.25) / 4)
    by_hand = (1 + 0.25) / 4 + (9 + 0.25) / 4
    assert loss("least-squares").discriminator(at).item() == pytest.approx(by_hand)
    perfect = scored([1.0, 1.0], [0.0, 0.0])
    assert loss("least-squares").discriminator(perfect).item() == 0


def test_wasserstein_by_hand():
    at = scored([2.0, 0.5], [-3.0, 0.5])
    assert loss("wasserstein").generator(at).item() == pytest.approx(1.25)
    assert loss("wasserstein").discriminator(at).item() == pytest.approx(-1.25 - 1.25)


def softplus(x):
    return math.log1p(math.exp(x))


def test_relativistic_pairs_by_hand():
    at = scored([2.0, -1.0], [0.5, 0.0])
    leads = [1.5, -1.0]
    generator = (softplus(leads[0]) + softplus(leads[1])) / 2
    discriminator = (softplus(-leads[0]) + softplus(-leads[1])) / 2
    assert loss("relativistic").generator(at).item() == pytest.approx(generator)
    assert loss("relativistic").discriminator(at).item() == pytest.approx(discriminator)


def test_relativistic_pairs_set_both_kinds_of_fakes_beside_the_same_images():
    """Reconstructions first, then decoded noise: 2B fakes beside B images."""
    at = scored([2.0, -1.0], [0.5, 0.0, -4.0, 3.0])
    leads = [1.5, -1.0, 6.0, -4.0]
    by_hand = sum(map(softplus, leads)) / 4
    assert loss("relativistic").generator(at).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("shape", [(4, 1), (4, 1, 2, 3)])
@pytest.mark.parametrize("times", [1, 2])
def test_relativistic_averages_are_cross_entropies(shape, times):
    """RaGAN as it stands in Jolicoeur-Martineau 2018, with logarithms of probabilities."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(shape, generator=generator, dtype=torch.float64)
    fake = torch.randn(shape[0] * times, *shape[1:], generator=generator, dtype=torch.float64)
    at = step(real_score=vgx.Score(real), fake_score=vgx.Score(fake))
    d_real, d_fake = torch.sigmoid(real - fake.mean()), torch.sigmoid(fake - real.mean())
    discriminator = -d_real.log().mean() - (1 - d_fake).log().mean()
    generator = -d_fake.log().mean() - (1 - d_real).log().mean()
    part = loss("relativistic", pairing="average")
    assert part.generator(at).item() == pytest.approx(generator.item())
    assert part.discriminator(at).item() == pytest.approx(discriminator.item())


ADVERSARIAL = [
    ("bce-adversarial", {}),
    ("hinge", {}),
    ("least-squares", {}),
    ("minimax", {}),
    ("relativistic", {}),
    ("relativistic", {"pairing": "average"}),
    ("wasserstein", {}),
]


@pytest.mark.parametrize(("name", "settings"), ADVERSARIAL)
def test_the_players_pull_in_opposite_directions(name, settings):
    real = torch.full((2, 1), 0.5, requires_grad=True)
    fake = torch.full((2, 1), 0.5, requires_grad=True)
    at = step(real_score=vgx.Score(real), fake_score=vgx.Score(fake))
    (pull,) = torch.autograd.grad(loss(name, **settings).generator(at), [fake])
    assert (pull < 0).all()  # the generator's loss falls when fakes look more real
    up, down = torch.autograd.grad(loss(name, **settings).discriminator(at), [real, fake])
    assert (up < 0).all()  # the discriminator's falls when real looks real
    assert (down > 0).all()  # and when fakes look fake


@pytest.mark.parametrize("unit", ["pixel", "sample"])
def test_kl_is_the_divergence_from_the_standard_normal(unit):
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    real = torch.rand(5, 3, 4, 4)
    posterior = distributions.Normal(mu, (logvar / 2).exp())
    each = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0)).sum(1)
    value = loss("kl", unit=unit).generator(step(real=real, posterior=vgx.Gaussian(mu, logvar)))
    assert value.item() == pytest.approx(each.mean().item() / (48 if unit == "pixel" else 1))


def test_kl_by_hand_is_half_a_squared_mean():
    posterior = vgx.Gaussian(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2))
    value = loss("kl", unit="sample").generator(step(posterior=posterior))
    assert value.item() == pytest.approx(2.0)


HALF = vgx.Gaussian(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2))  # 1 and 0 nats


def test_free_bits_are_for_each_latents_mean_over_the_batch():
    for bits, value in ((0.0, 1.0), (0.25, 1.25), (1.5, 3.0)):
        part = loss("kl", unit="sample", free_bits=bits)
        assert part.generator(step(posterior=HALF)).item() == pytest.approx(value)
    in_pixels = loss("kl", free_bits=0.25).generator(step(posterior=HALF))
    assert in_pixels.item() == pytest.approx(1.25 / 4)


def test_a_latent_within_its_free_bits_is_not_pulled():
    mu = torch.tensor([[2.0, 0.2], [0.0, 0.2]], requires_grad=True)
    at = step(posterior=vgx.Gaussian(mu, torch.zeros(2, 2)))
    (pull,) = torch.autograd.grad(loss("kl", unit="sample", free_bits=0.5).generator(at), mu)
    assert pull.tolist() == [[1.0, 0.0], [0.0, 0.0]]  # mu / B


def test_capacity_is_what_the_divergence_is_drawn_to():
    for capacity, value in ((3.0, 2.0), (0.25, 0.75)):
        part = loss("kl", unit="sample", capacity=capacity)
        assert part.generator(step(posterior=HALF)).item() == pytest.approx(value)
    in_pixels = loss("kl", capacity=3.0).generator(step(posterior=HALF))
    assert in_pixels.item() == pytest.approx(2.0 / 4)


def test_capacity_may_grow():
    grow = vgx.Schedule.model_validate({"from": 0.0, "to": 10.0, "steps": 10})
    part = loss("kl", unit="sample", capacity=grow)
    values = [part.generator(step(posterior=HALF, number=n)).item() for n in (0, 5, 20)]
    assert values == pytest.approx([1.0, 4.0, 9.0])


@pytest.mark.parametrize("name", ["kl", "total-correlation"])
def test_a_posterior_that_is_no_gaussian_is_told(name):
    expected = f"{name} needs a Gaussian posterior; the encoder gives a Point"
    with pytest.raises(RecipeError, match=expected):
        loss(name).generator(step(posterior=Point(torch.zeros(2, 2)), z=torch.zeros(2, 2)))


@pytest.mark.parametrize(
    ("kl", "others", "beta"),
    [
        # The recipe of the anime VAE-GAN: 1 / (100 + 1); an adversarial term is none of pixels.
        (
            {},
            [("l1", {"weight": 100.0}), ("bce", {}), ("bce-adversarial", {})],
            "is 0.0099: weight 1 beside 100 l1 and 1 bce, summed over the 27,648 pixel values ",
        ),
        ({"weight": 4.0}, [("bce", {})], "is 4: weight 4 beside 1 bce, "),
        ({"weight": 2.0, "unit": "sample"}, [("l2", {})], "is 5.53e+04: weight 2 beside 1 l2, "),
        (
            {"weight": vgx.Schedule(**{"from": 0.0, "to": 3.0, "steps": 9})},
            [("charbonnier", {"weight": 2.0})],
            "is 1.5: weight 0 to 3 beside 2 charbonnier, ",
        ),
        (
            {"weight": vgx.Adaptive(against=("l1",))},
            [("l1", {})],
            "has no fixed value: weight adaptive beside 1 l1, ",
        ),
        (
            {"start": 2000},
            [("l1", {}), ("ssim", {}), ("bce", {"start": 500})],
            "is 0.5: weight 1 from step 2,000 beside 1 l1 and 1 bce from step 500, ",
        ),
        ({}, [("l1", {"weight": 0.0})], "has no fixed value: weight 1 beside 0 l1, "),
    ],
)
def test_kl_says_its_effective_beta_beside_the_reconstruction_terms(kl, others, beta):
    part = loss("kl", **kl)
    losses = [part, *(loss(name, **fields) for name, fields in others)]
    note = part.note_beside(losses, vgx.ImageSpec(size=96))
    assert note.startswith(f"The KL's effective beta {beta}")


def test_kl_says_nothing_without_reconstruction_terms_by_pixel():
    losses = [loss("kl"), loss("ssim"), loss("perceptual")]
    assert losses[0].note_beside(losses, vgx.ImageSpec(size=96)) == ""


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("linear", {0: 1.0, 25: 1.5, 50: 2.0, 100: 3.0, 500: 3.0}),
        # 1 + 2 * (1 - cos(pi / 4)) / 2 at a quarter of the way
        ("cosine", {0: 1.0, 25: 2 - math.sqrt(0.5), 50: 2.0, 100: 3.0, 500: 3.0}),
        ("cyclical", {0: 1.0, 25: 2.0, 50: 3.0, 99: 3.0, 100: 1.0, 125: 2.0}),
    ],
)
def test_a_schedule_goes_from_one_value_to_the_other(shape, values):
    schedule = vgx.Schedule.model_validate({"from": 1.0, "to": 3.0, "steps": 100, "shape": shape})
    for number, value in values.items():
        assert schedule.at(number) == pytest.approx(value)
