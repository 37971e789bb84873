"""Monitors: what goes wrong in a training without an error, told with what may help.

They look when the loop logs or draws, and change nothing. Letters: N pictures, C channels, H x W
pixels, Z the latent shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vgx import rng
from vgx.data.batches import as_images
from vgx.data.store import Store
from vgx.engine.build import sigmoid
from vgx.engine.engine import Engine
from vgx.evaluation.latents import ACTIVE, active_dimensions
from vgx.sampling.model import in_turn

LOOKED = 64  # pictures in one look
# Steps that a fault must last: for a while many a training that went well showed one, above all
# while it began. The benchmarks' DCGAN was below WINS for 50 steps; an R3GAN that failed, for 310.
PATIENCE = 200
WINS = 0.05  # of the discriminator's half: about 1 where it knows nothing, 0 where it knows all
# Of a gradient's norm: Adam adds as much to what it divides by, so below it weights hardly move.
DEAD = 1e-8
LOUD = 1e4  # logits; a sigmoid of them is 0 or 1 in float32 from about 90 on
# Of what decoded latents differ by, to what real pictures do. Trainings that went well were above a
# tenth of it after 200 steps; an R3GAN that failed was at 0.005 after 500.
ALIKE = 0.05
FEW = 0.02  # share of active latents; a beta-VAE that went well kept 19 of 32


@dataclass
class Watch:
    """What was seen so far in this process: each fault is told once, and again if it comes back."""

    engine: Engine
    store: Store
    since: dict[str, int] = field(default_factory=dict)  # the step at which a fault was first seen
    told: set[str] = field(default_factory=set)

    def numbers(self, step: int, losses: dict[str, float]) -> list[str]:
        """Look at the terms and gradients of the step before; return what is to be told."""
        seen: dict[str, str] = {f"wins {loss}": text for loss, text in _wins(losses)}
        for network, norm in gradient_norms(self.engine).items():
            player = "discriminator" if network == "discriminator" else "generator"
            text = (
                f"the {network} learns nothing: its gradient has been below {DEAD:g} for "
                f"{PATIENCE} steps ({norm:.2g} now); look at the weights of the losses that "
                f"reach it, or start anew with a lower train.optimizers.{player}.lr"
            )
            seen[f"dead {network}"] = text if norm < DEAD else ""
        return self._news(step, seen)

    @torch.no_grad()
    def pictures(self, step: int) -> list[str]:
        """Look at fixed latents and real pictures; return what is to be told."""
        engine, seen = self.engine, dict[str, str]()
        rows = np.linspace(0, len(self.store.images) - 1, LOOKED).astype(int)
        real = as_images(self.store.images[rows], engine.device)  # [N, C, H, W]
        labels = self.store.labels
        own = None if labels is None else torch.from_numpy(labels[rows]).to(engine.device)
        chance = rng.generator(engine.recipe.train.seed, "fixed latents")
        z = torch.randn(LOOKED, *engine.recipe.latent.shape, generator=chance)  # [N, *Z]
        turn = in_turn(LOOKED, engine.recipe, engine.device)
        with _evaluating(engine):
            fake = sigmoid(engine.decode(z.to(engine.device, engine.dtype), turn))  # [N, C, H, W]
            seen["alike"] = _alike(real, fake)
            if "encoder" in engine.networks:
                mean = engine.networks["encoder"](real.to(engine.dtype)).mean  # [N, *Z]
                seen["posterior"] = _inactive(mean)
            if "discriminator" in engine.networks:
                told = None if own is None else torch.cat([own, turn])
                score = engine.judge(torch.cat([real.to(fake), fake]), told)
                seen["logits"] = _loud(score.logits)
        return self._news(step, seen)

    def _news(self, step: int, seen: dict[str, str]) -> list[str]:
        """Return the texts of faults that have lasted and were not told; no text: no fault."""
        news = []
        for name, text in seen.items():
            if not text:
                self.since.pop(name, None)
                self.told.discard(name)
                continue
            lasted = step - self.since.setdefault(name, step)
            if name not in self.told and (lasted >= PATIENCE or name == "logits"):
                self.told.add(name)
                news.append(text)
        return news


def gradient_norms(engine: Engine) -> dict[str, float]:
    """Return the norm of the last gradient of each network that had one."""
    norms: dict[str, list[Tensor]] = {}
    for player, given in engine.guard.norms.items():
        for (name, _), norm in zip(engine.trained(player), given, strict=True):
            if norm is not None:
                norms.setdefault(name.partition(".")[0], []).append(norm)
    return {network: torch.stack(inside).norm().item() for network, inside in norms.items()}


@contextmanager
def _evaluating(engine: Engine) -> Iterator[None]:
    """Have no network change or draw anything in the block."""
    for network in engine.networks.values():
        network.eval()
    try:
        yield
    finally:
        for network in engine.networks.values():
            network.train()


def _wins(losses: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Give each loss that has halves for both players, and what is wrong with it."""
    for name, value in losses.items():
        loss, _, half = name.rpartition(".")
        if half == "discriminator" and (other := losses.get(f"{loss}.generator")) is not None:
            text = (
                f"the discriminator wins: its half of {loss} has been below {WINS:g} for "
                f"{PATIENCE} steps ({value:.2g} now, the generator's {other:.2g}), so it teaches "
                "little; lower train.optimizers.discriminator.lr, set diff_augment, or add a "
                "gradient penalty to the losses"
            )
            yield loss, text if 0 <= value < WINS else ""


def _alike(real: Tensor, fake: Tensor) -> str:
    """Compare the mean distance of decoded latents from each other with that of real pictures."""
    wanted, found = (
        torch.pdist(images.flatten(1).float()).mean().item() for images in (real, fake)
    )
    if found >= ALIKE * wanted:
        return ""
    return (
        f"mode collapse: decoded latents differ {found / wanted:.1%} as much from each other as "
        f"real pictures do, and less than {ALIKE:.0%} for {PATIENCE} steps; in a GAN a lower "
        "train.optimizers.discriminator.lr or diff_augment may help, with an encoder a lower "
        "weight of the loss that keeps the posterior near the prior"
    )


def _inactive(mean: Tensor) -> str:
    """Count the latents whose posterior mean tells pictures from each other."""
    active = int(active_dimensions(mean.flatten(1).float()).sum())
    latents = mean[0].numel()
    if active > FEW * latents:
        return ""
    return (
        f"posterior collapse: {active} of {latents} latents are active (the variance of their mean "
        f"over pictures is above {ACTIVE:g}), and so few for {PATIENCE} steps; lower the weight of "
        "the loss that keeps the posterior near the prior, or let it rise: "
        "weight: {from: 0, to: 1, steps: 5000}"
    )


def _loud(logits: Tensor) -> str:
    largest = logits.abs().max().item()
    if largest <= LOUD:
        return ""
    return (
        f"the discriminator's logits reach {largest:.2g}, where tens would do; lower "
        "train.optimizers.discriminator.lr, set train.clip, or add a gradient penalty to the losses"
    )
