"""The hierarchical VAE with two levels, and an encoder that is called with the decoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import distributions as dist

import vgx
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.parts.base import validate
from vgx.runs import checkpoint
from vgx.sampling.model import current_model
from vgx.testing import check_part
from vgx_builtin.ladder import LadderPosterior, bounded, relative
from vgx_share.onnx import write_encoder

ROOT = Path(__file__).parents[2]
REGISTRY = vgx.discover()
WIDE = torch.float64
IMAGE, LATENT = vgx.ImageSpec(16), vgx.LatentSpec((6 + 2 * 4 * 4,))
SMALL = {"encoder": [8, 8, 16], "decoder": [16, 8, 8]}
TINY = {
    "latent": 38, "discriminator": None, "augment": [], "sampler": "prior",
    **{f"{kind}": {"type": "ladder", "widths": widths, "top": 6} for kind, widths in SMALL.items()},
    "losses": [
        "bce",
        {"type": "kl", "name": "kl-top", "latents": [0, 6]},
        {"type": "kl", "name": "kl-lower", "latents": [6, 38], "free_bits": 0.01},
    ],
    "train.steps": 6, "train.save_every": 3, "train.keep": 3,
}  # fmt: skip


def part(kind, name="ladder", **fields):
    return validate(REGISTRY.part(kind, name), fields, REGISTRY)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


@pytest.fixture
def pair():
    """Networks in float64 whose every weight is random: none starts at 0."""
    parts = [part(kind, widths=SMALL[kind], top=6) for kind in SMALL]
    encoder = parts[0].build(IMAGE, LATENT).to(WIDE)
    decoder = parts[1].build(LATENT, IMAGE).to(WIDE)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [*encoder.parameters(), *decoder.parameters()]:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=WIDE))
    return encoder.eval(), decoder.eval()


# --- the arithmetic ------------------------------------------------------------------------------


def test_the_lower_posterior_is_the_product_of_two_gaussians():
    """On a fine grid of z1: q ~ N(z1; mu, s^2) N(z1; mu_p, s_p^2), normalised by a sum."""
    own, prior = vgx.Gaussian(*normal(2, 1, 3, 1, 1)), vgx.Gaussian(*normal(2, 1, 3, 1, 1, seed=1))
    found = relative(own, prior)  # over e1 = (z1 - mu_p) / s_p
    grid = torch.linspace(-12, 12, 200_001, dtype=WIDE)
    for place in range(3):
        each = [(g.mu[0, place], (g.logvar[0, place] / 2).exp()) for g in (own, prior)]
        density = sum(dist.Normal(mu.squeeze(), s.squeeze()).log_prob(grid) for mu, s in each)
        weights = density.softmax(0)
        mean = (weights * grid).sum()
        variance = (weights * (grid - mean) ** 2).sum()
        mu_p, s_p = (each.squeeze() for each in each[1])
        assert found.mu[0, place].item() == pytest.approx(((mean - mu_p) / s_p).item(), abs=1e-8)
        deviation = (found.logvar[0, place] / 2).exp().item()
        assert deviation == pytest.approx((variance.sqrt() / s_p).item(), rel=1e-8)


def test_the_divergence_is_that_of_the_levels_as_pytorch_computes_it(pair):
    """KL(q(z2|x) || N(0, I)) and KL(q(z1|x,z2) || p(z1|z2)) in the usual coordinates."""
    encoder, decoder = pair
    images = normal(3, 3, 16, 16).sigmoid()
    posterior = encoder(images, decoder)
    z = posterior.sample(torch.Generator().manual_seed(5))
    nats = posterior.kl()
    assert nats.shape == z.shape == posterior.mean.shape == (3, 38)

    features = encoder.begin(images)
    mu, logvar = encoder.above(encoder.end(features)).chunk(2, 1)
    upper = dist.kl_divergence(dist.Normal(mu, (logvar / 2).exp()), dist.Normal(0.0, 1.0))
    torch.testing.assert_close(nats[:, :6], upper)

    def gaussian(parameters):
        mu, logvar = parameters.chunk(2, 1)
        return mu, (5 * (logvar / 5).tanh()).exp()  # the variance

    mu_q, var_q = gaussian(encoder.below(features))
    mu_p, var_p = gaussian(decoder.prior(decoder.begin(z[:, :6])))
    variance = 1 / (1 / var_q + 1 / var_p)
    merged = dist.Normal((mu_q / var_q + mu_p / var_p) * variance, variance.sqrt())
    prior = dist.Normal(mu_p, var_p.sqrt())
    lower = dist.kl_divergence(merged, prior)  # [B, 2, 4, 4]
    torch.testing.assert_close(nats[:, 6:], lower.flatten(1))
    assert lower.min() > 1e-3
    assert upper.min() > 0

    # And the decoder makes the image of z1 = mu_p + s_p e1.
    z1 = mu_p + var_p.sqrt() * z[:, 6:].view(3, 2, 4, 4)
    joined = torch.cat([decoder.begin(z[:, :6]), z1], 1)
    torch.testing.assert_close(decoder(z), decoder.end(decoder.join(joined)))


def test_samples_have_the_moments_of_each_level(pair):
    """The upper level is drawn anew in each sample, and the lower one given it."""
    encoder, decoder = pair
    posterior = encoder(normal(1, 3, 16, 16).sigmoid().repeat(4000, 1, 1, 1), decoder)
    z = posterior.sample(torch.Generator().manual_seed(0))
    top = posterior.top
    deviation = (top.logvar[0] / 2).exp()
    torch.testing.assert_close(z[:, :6].mean(0), top.mu[0], atol=0.06, rtol=0)
    torch.testing.assert_close(z[:, :6].std(0), deviation, atol=0.05, rtol=0.05)
    below = posterior.lower(z[:, :6])
    noise = (z[:, 6:] - below.mu) / (below.logvar / 2).exp()  # of the lower level, given the upper
    assert noise.mean(0).abs().max() < 0.08
    assert (noise.std(0) - 1).abs().max() < 0.06
    assert below.mu.std(0).max() > 0.01  # it depends on the upper level
    with torch.no_grad():
        torch.testing.assert_close(posterior.mean[:, 6:], posterior.lower(top.mu).mu)
    kl = posterior.kl()
    _ = posterior.mean  # which is no sample
    assert torch.equal(kl, posterior.kl())


def test_a_new_prior_is_n_0_i_and_variances_are_bounded():
    decoder = part("decoder", widths=SMALL["decoder"], top=6).build(LATENT, IMAGE)
    _, prior = decoder.descend(normal(2, 6).float())
    assert not prior.mu.any()
    assert not prior.logvar.any()
    assert bounded(torch.tensor([-1e9, 0.0, 1e9])).tolist() == [-5, 0, 5]


# --- what cannot be, said in words ---------------------------------------------------------------


def test_what_does_not_fit_is_an_error_that_says_what_does(pair):
    encoder, _ = pair
    built = part("encoder", widths=[8, 8, 16], top=6)
    with pytest.raises(RecipeError, match=r"a multiple of 4x4 .* try latent=38 or latent=54"):
        built.build(IMAGE, vgx.LatentSpec((40,)))
    with pytest.raises(RecipeError, match="latent=22 or latent=38"):
        built.build(IMAGE, vgx.LatentSpec((5,)))
    with pytest.raises(RecipeError, match="lower: 4: there are only 3 widths"):
        part("decoder", widths=[8, 8, 8], lower=4).build(LATENT, IMAGE)
    for other in (part("decoder", widths=[16, 8, 8], top=22), part("decoder", "residual")):
        network = other.build(LATENT, IMAGE).to(WIDE)
        with pytest.raises(RecipeError, match="its decoder must be `ladder` with the same `top`"):
            encoder(normal(1, 3, 16, 16).sigmoid(), network)
    for name in ("deterministic", "noisy"):
        around = part("encoder", name, inner={"type": "ladder", "widths": [8, 8, 16], "top": 6})
        with pytest.raises(RecipeError, match="inner: 'ladder' uses the decoder"):
            around.build(IMAGE, LATENT)
    with pytest.raises(AssertionError, match=r"check_part\(part, decoder="):
        check_part(built, image=IMAGE, latent=LATENT)
    with pytest.raises(RecipeError, match="loss kl: latents: \\[30, 39\\]"):
        part("loss", "kl", latents=[30, 39]).build(IMAGE, LATENT)


# --- a training ----------------------------------------------------------------------------------


def test_the_encoder_gets_the_decoder_that_belongs_to_it():
    """Beside the trained encoder the trained decoder, beside the averaged one the averaged one."""
    recipe = vgx.load_recipe(ROOT / "recipes" / "tiny.yaml", {**TINY, "train.ema": 0.5})
    engine, given = Engine(recipe, 2), []
    averaged = engine.ema.module
    for name, encoder in (("trained", engine.networks["encoder"]), ("averaged", averaged.encoder)):
        hook = lambda _, inputs, name=name: given.append((name, inputs[-1]))  # noqa: E731
        encoder.register_forward_pre_hook(hook)
    batch = vgx.data.batches.Batch(torch.rand(4, 3, 16, 16), None)
    engine.step(0, [batch])
    assert given == [("trained", engine.networks["decoder"])]
    step = engine.forward(batch, 0, engine.streams())
    assert step.encode(batch.images).mean.shape == (4, 38)
    del given[:]
    current_model(engine, 1).posterior(batch.images)
    assert given == [("averaged", averaged.decoder)]
    saved = engine.state({}).model
    assert (
        len(saved)
        == 2 * len([*engine.networks["encoder"].state_dict()])
        + 2 * len([*engine.networks["decoder"].state_dict()])
        + 1
    )  # and the count of the average
    nats = engine.latents.kl
    posterior = step.posterior
    assert isinstance(posterior, LadderPosterior)
    assert nats.shape == (38,)


@pytest.mark.slow
def test_a_run_resumes_to_the_bit_and_everything_reads_its_latents(tmp_path):
    recipe = vgx.load_recipe(ROOT / "recipes" / "tiny.yaml", TINY)
    run = vgx.run(recipe, out=tmp_path, device="cpu", quiet=True)
    assert {"kl-top", "kl-lower"} <= run.read_log()[-1]["losses"].keys()
    first, last = sorted((run.path / "checkpoints").iterdir())
    sums = checkpoint.sums(last)
    shutil.rmtree(last)  # as if it had been killed after the first checkpoint
    vgx.resume(run, device="cpu", quiet=True)
    assert first.is_dir()
    assert checkpoint.sums(last)["model.safetensors"] == sums["model.safetensors"]
    assert checkpoint.sums(last)["latents.safetensors"] == sums["latents.safetensors"]

    model = vgx.load(run, "cpu", ("encoder",))  # the decoder comes along
    assert model.encode(torch.rand(3, 3, 16, 16)).shape == (3, 38)
    assert model.kl.shape == (38,)
    assert vgx.sample(run, "traversal", n=20, device="cpu").shape == (20, 3, 16, 16)
    write_encoder(vgx.load(run, "cpu"), tmp_path / "encoder.onnx")  # with the decoder inside
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    images = torch.rand(3, 3, 16, 16)
    (latents,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(latents), model.encode(images), atol=1e-4, rtol=0)
    vgx.evaluate(run, "psnr", n=16, device="cpu", quiet=True)
    latents = json.loads((run.path / "evaluation.json").read_text())["latent"]
    nats = latents["kl_by_dimension"]
    assert len(nats) == 38
    assert latents["figures"]["kl"]["mean"] == pytest.approx(sum(nats))
    assert {"active_units", "mmd", "marginal_kl"} <= latents["figures"].keys()
