"""Whole steps beside loops that are written out here: no code of vgx but the networks themselves.

Each loop has its own losses, penalties, `backward`, optimizer of PyTorch, clipping and averages. It
takes the networks' first weights and the random numbers, by their keys, from the engine.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from steps import batches
from torch import nn

import vgx
from vgx import rng
from vgx.engine.engine import Engine

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
WIDE = torch.float64
SGD = {"type": "sgd", "lr": 0.05}
SGDS = {"generator": SGD, "discriminator": SGD}


def random_images(number, n=8):
    chance = torch.Generator().manual_seed(number)
    return torch.rand(n, 3, 16, 16, generator=chance, dtype=WIDE)


def drawn(shape, stream, *address):
    """What the engine draws from N(0, I) at this place: (step, minibatch, piece)."""
    return torch.randn(shape, generator=rng.generator(0, stream, *address), dtype=WIDE)


def gaps(ours, theirs):
    """The largest difference of each tensor of two networks."""
    pairs = zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True)
    return {name: (a - b).abs().max().item() for (name, a), b in pairs}


# --- WGAN-GP -----------------------------------------------------------------------------------


class WganGp:
    """Algorithm 1 of Gulrajani et al. 2017 with SGD, clipped gradients and averaged weights."""

    def __init__(self, engine):
        self.decoder = copy.deepcopy(engine.networks["decoder"])
        self.critic = copy.deepcopy(engine.networks["discriminator"])
        self.average = None
        self.optimizers = {
            network: torch.optim.SGD(network.parameters(), lr=0.05)
            for network in (self.decoder, self.critic)
        }

    def update(self, network, loss):
        self.optimizers[network].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        self.optimizers[network].step()

    def critic_loss(self, real, fake, *address):
        """The critic on pixels of [-1, 1], as in the paper's program."""
        eps = torch.empty(len(real), 1, 1, 1, dtype=WIDE)
        eps.uniform_(generator=rng.generator(0, "loss gradient-penalty", *address))
        real_pixels, fake_pixels = 2 * real - 1, 2 * fake.detach() - 1
        mixed = (eps * real_pixels + (1 - eps) * fake_pixels).requires_grad_()
        scores = self.critic((mixed + 1) / 2).logits
        slopes = torch.autograd.grad(scores.sum(), mixed, create_graph=True)[0].flatten(1)
        penalty = ((slopes.norm(dim=1) - 1) ** 2).mean()
        scores = self.critic(fake.detach()).logits.mean() - self.critic(real).logits.mean()
        return scores + 10 * penalty

    def step(self, number, reals, order):
        last = len(reals) - 1
        for index, real in enumerate(reals):
            z = drawn((len(real), 8), "prior", number, index, 0)
            fake = torch.sigmoid(self.decoder(z))
            if order == "generator-first" and index == 0:
                self.update(self.decoder, -self.critic(fake).logits.mean())
            self.update(self.critic, self.critic_loss(real, fake, number, index, 0))
            if order == "discriminator-first" and index == last:
                fake = torch.sigmoid(self.decoder(z))
                self.update(self.decoder, -self.critic(fake).logits.mean())
        if self.average is None:
            self.average = copy.deepcopy(self.decoder)
            return
        decay = min(0.9, (1 + number) / (10 + number))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.decoder.parameters(), strict=True)
            for average, weight in pairs:
                average.copy_(decay * average + (1 - decay) * weight)


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
def test_whole_steps_of_wgan_gp_are_the_papers(order):
    changes = {
        "augment": [], "encoder": None, "sampler": "prior",
        "losses": ["wasserstein", "gradient-penalty"],
        "decoder": {"type": "dcgan", "widths": [8, 4]},
        "discriminator": {"type": "dcgan", "widths": [4, 8], "norm": "none"},
        "train.order": order, "train.discriminator_steps": 3, "train.clip": 0.5,
        "train.ema": 0.9, "train.ema_warmup": True, "train.optimizers": SGDS,
    }  # fmt: skip
    engine = Engine(vgx.load_recipe(TINY, changes), 3, dtype=WIDE)
    with torch.no_grad():  # first weights of N(0, 0.02) would leave everything near 0
        for name in ("decoder", "discriminator"):
            for parameter in engine.networks[name].parameters():
                parameter.mul_(5)
    loop = WganGp(engine)
    first = copy.deepcopy(loop.critic)
    for number in range(3):
        reals = [random_images(3 * number + index) for index in range(3)]
        engine.step(number, batches(*reals))
        loop.step(number, reals, order)
    assert max(gaps(loop.critic, first).values()) > 0.01  # it has learned
    assert max(gaps(engine.networks["discriminator"], loop.critic).values()) < 1e-12
    buffers = gaps(engine.networks["decoder"], loop.decoder)
    assert any("running_var" in name for name in buffers)
    assert max(buffers.values()) < 1e-12
    averaged = engine.network_for_sampling("decoder").parameters()
    for ours, theirs in zip(averaged, loop.average.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


# --- a VAE-GAN with everything at once -----------------------------------------------------------


def plain_step(engine, real, fakes, pieces, number):
    """One SGD step of a VAE-GAN; returns its networks.

    The adversarial term trains the decoder alone: it gets latents that are cut off. Both kinds of
    fakes are judged; the penalty counts 4 times, in every fourth step.
    """
    networks = {name: copy.deepcopy(network) for name, network in engine.networks.items()}
    encoder, decoder, critic = (networks[n] for n in ("encoder", "decoder", "discriminator"))
    bce = nn.functional.binary_cross_entropy_with_logits
    sums = {"generator": 0, "discriminator": 0}
    for piece, images in enumerate(real.chunk(pieces)):
        posterior = encoder(images)
        mu, logvar = posterior.mu, posterior.logvar
        z = mu + torch.exp(0.5 * logvar) * drawn(mu.shape, "posterior", number, 0, piece)
        noise = drawn(mu.shape, "prior", number, 0, piece)
        recon = torch.sigmoid(decoder(z))
        decoded = {
            "recon": torch.sigmoid(decoder(z.detach())), "prior": torch.sigmoid(decoder(noise))
        }  # fmt: skip
        fake = torch.cat([decoded[name] for name in fakes])
        judged = critic(fake).logits
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean() / images[0].numel()
        adversarial = 3 * bce(judged, torch.ones_like(judged))
        loss = adversarial + 10 * (recon - images).abs().mean() + kl
        sums["generator"] = sums["generator"] + loss / pieces
        yes, no = critic(images).logits, critic(fake.detach()).logits
        loss = bce(yes, torch.ones_like(yes)) + bce(no, torch.zeros_like(no))
        if number % 4 == 0:
            pixels = (2 * images - 1).requires_grad_()
            scores = critic((pixels + 1) / 2).logits.flatten(1).mean(1)
            (slopes,) = torch.autograd.grad(scores.sum(), pixels, create_graph=True)
            loss = loss + 4 * 2.0 * 0.5 * slopes.square().flatten(1).sum(1).mean()
        sums["discriminator"] = sums["discriminator"] + loss / pieces
    trained = {"generator": (encoder, decoder), "discriminator": (critic,)}
    gradients = {}
    for player, own in trained.items():
        parameters = [p for network in own for p in network.parameters()]
        grads = torch.autograd.grad(sums[player], parameters, retain_graph=True)
        gradients.update(zip(parameters, grads, strict=True))
    with torch.no_grad():
        for parameter, gradient in gradients.items():
            parameter.sub_(0.05 * gradient)
    return networks


@pytest.mark.parametrize("number", [4, 5])
@pytest.mark.parametrize("pieces", [1, 2, 4])
@pytest.mark.parametrize("fakes", [["recon"], ["prior"], ["recon", "prior"], ["prior", "recon"]])
def test_fakes_pieces_lazy_penalty_and_routing_together(fakes, pieces, number):
    losses = [
        {"type": "bce-adversarial", "weight": 3, "reaches": ["decoder"]},
        {"type": "l1", "weight": 10},
        "kl",
        {"type": "r1", "weight": 2, "every": 4},
    ]
    changes = {
        "augment": [], "losses": losses, "train.fakes": fakes, "train.accumulate": pieces,
        "train.optimizers": SGDS, "train.ema": None,
        "discriminator": {"type": "patchgan", "widths": [8, 16], "norm": "instance"},
    }  # fmt: skip
    engine = Engine(vgx.load_recipe(TINY, changes), 10, dtype=WIDE)
    real = random_images(0)
    first = copy.deepcopy(engine.networks)
    expected = plain_step(engine, real, fakes, pieces, number)
    engine.step(number, batches(real))
    for name, network in engine.networks.items():
        learned = gaps(network, first[name])
        for key, gap in gaps(network, expected[name]).items():
            if "running" not in key and "tracked" not in key:  # the loop decodes more often
                assert gap < 1e-12, (name, key)
        assert max(learned.values()) > 1e-4, name
