"""Monitors: faults of a training that raise no error are reported, with what may help.

They look when the loop logs or draws, and change nothing. Letters: N images, C channels, H x W
pixels, Z the latent shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vgx.data.batches import as_images
from vgx.data.store import Store
from vgx.engine.build import evaluating, sigmoid
from vgx.engine.engine import Engine
from vgx.evaluation.latents import ACTIVE, active_dimensions
from vgx.sampling.model import labels_in_turn
from vgx.training.progress import fixed_latents

IMAGES = 64  # that are compared at once
# Steps that a fault must last: many trainings that went well showed one for a while, above all in
# the beginning. The benchmarks' DCGAN was below WINS for 50 steps; an R3GAN that failed, for 310.
PATIENCE = 200
WINS = 0.05  # discriminator's term: about 1 where it cannot tell, 0 where it always can
# Norm of a gradient: Adam's epsilon is as large, so weights hardly change below it.
DEAD = 1e-8
LOUD = 1e4  # logits; a sigmoid of them is 0 or 1 in float32 from about 90 on
# Distance between decoded latents over that between real images. Trainings that went well were
# above 0.1 after 200 steps; an R3GAN that failed was at 0.005 after 500.
ALIKE = 0.05
FEW = 0.02  # share of active latents; a beta-VAE that went well kept 19 of 32


@dataclass
class Monitor:
    """Faults seen so far in this process: each is reported once, and again if it comes back."""

    engine: Engine
    store: Store
    since: dict[str, int] = field(default_factory=dict)  # the step at which a fault was first seen
    reported: set[str] = field(default_factory=set)

    def losses(self, step: int, losses: dict[str, float]) -> list[str]:
        """Check the terms and gradients of the last step; return new warnings."""
        faults: dict[str, str] = {f"wins {loss}": text for loss, text in winning(losses)}
        for network, norm in gradient_norms(self.engine).items():
            player = "discriminator" if network == "discriminator" else "generator"
            text = (
                f"the {network} learns nothing: its gradient has been below {DEAD:g} for "
                f"{PATIENCE} steps ({norm:.2g} now); look at the weights of the losses that "
                f"reach it, or start anew with a lower train.optimizers.{player}.lr"
            )
            faults[f"dead {network}"] = text if norm < DEAD else ""
        return self._new(step, faults)

    @torch.no_grad()
    def images(self, step: int) -> list[str]:
        """Check decoded latents and real images; return new warnings."""
        engine, faults = self.engine, dict[str, str]()
        rows = np.linspace(0, len(self.store.images) - 1, IMAGES).astype(int)
        real = as_images(self.store.images[rows], engine.device)  # [N, C, H, W]
        labels = self.store.labels
        own = None if labels is None else torch.from_numpy(labels[rows]).to(engine.device)
        z = fixed_latents(engine, IMAGES).to(engine.dtype)  # [N, *Z]
        in_turn = labels_in_turn(IMAGES, engine.recipe, engine.device)
        with evaluating(engine.networks.values()):
            fake = sigmoid(engine.forward.decode(z, in_turn))  # [N, C, H, W]
            faults["alike"] = alike(real, fake)
            if "encoder" in engine.networks:
                mean = engine.networks["encoder"](real.to(engine.dtype)).mean  # [N, *Z]
                faults["posterior"] = inactive(mean)
            if "discriminator" in engine.networks:
                both = None if own is None else torch.cat([own, in_turn])
                streams = engine.streams()
                score = engine.forward.score(torch.cat([real.to(fake), fake]), both, streams)
                faults["logits"] = loud(score.logits)
        return self._new(step, faults)

    def _new(self, step: int, faults: dict[str, str]) -> list[str]:
        """Return the texts of faults that lasted and are not reported yet; "" is no fault."""
        texts = []
        for name, text in faults.items():
            if not text:
                self.since.pop(name, None)
                self.reported.discard(name)
                continue
            lasted = step - self.since.setdefault(name, step)
            if name not in self.reported and (lasted >= PATIENCE or name == "logits"):
                self.reported.add(name)
                texts.append(text)
        return texts


def gradient_norms(engine: Engine) -> dict[str, float]:
    """Return the norm of the last gradient of each network that had one."""
    norms: dict[str, list[Tensor]] = {}
    for player, values in engine.guard.norms.items():
        for name, norm in zip(engine.players[player].trained, values, strict=True):
            if norm is not None:
                norms.setdefault(name.partition(".")[0], []).append(norm)
    return {network: torch.stack(inside).norm().item() for network, inside in norms.items()}


def winning(losses: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Give each loss that has terms for both players, and its fault or an empty string."""
    for name, value in losses.items():
        loss, _, player = name.rpartition(".")
        if player == "discriminator" and (other := losses.get(f"{loss}.generator")) is not None:
            text = (
                f"the discriminator wins: its term of {loss} has been below {WINS:g} for "
                f"{PATIENCE} steps ({value:.2g} now, the generator's {other:.2g}), so it teaches "
                "little; lower train.optimizers.discriminator.lr, set diff_augment, or add a "
                "gradient penalty to the losses"
            )
            yield loss, text if 0 <= value < WINS else ""


def alike(real: Tensor, fake: Tensor) -> str:
    """Compare the mean distance between decoded latents with that between real images."""
    expected, distance = (
        torch.pdist(images.flatten(1).float()).mean().item() for images in (real, fake)
    )
    if distance >= ALIKE * expected:
        return ""
    return (
        f"mode collapse: decoded latents differ {distance / expected:.1%} as much from each other "
        f"as real images do, and less than {ALIKE:.0%} for {PATIENCE} steps; in a GAN a lower "
        "train.optimizers.discriminator.lr or diff_augment may help, with an encoder a lower "
        "weight of the loss that keeps the posterior near the prior"
    )


def inactive(mean: Tensor) -> str:
    """Count the latents whose posterior mean differs between images."""
    active = int(active_dimensions(mean.flatten(1).float()).sum())
    latents = mean[0].numel()
    if active > FEW * latents:
        return ""
    return (
        f"posterior collapse: {active} of {latents} latents are active (the variance of their mean "
        f"over images is above {ACTIVE:g}), and so few for {PATIENCE} steps; lower the weight of "
        "the loss that keeps the posterior near the prior, or let it rise: "
        "weight: {from: 0, to: 1, steps: 5000}"
    )


def loud(logits: Tensor) -> str:
    """Check the largest logit."""
    largest = logits.abs().max().item()
    if largest <= LOUD:
        return ""
    return (
        f"the discriminator's logits reach {largest:.2g}, where tens would do; lower "
        "train.optimizers.discriminator.lr, set train.clip, or add a gradient penalty to the losses"
    )
