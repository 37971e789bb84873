"""Warnings about a training that fails without an error, with what may help.

The loop calls the monitor when it logs or draws; nothing of the training changes.

Letters: N images, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgx.data.batches import as_images
from vgx.data.store import Store
from vgx.distributed.group import averaged
from vgx.engine.build import evaluating, sigmoid
from vgx.engine.engine import Engine
from vgx.engine.losses import owner_of, player_of
from vgx.evaluation.latents import ACTIVE, active_dimensions, by_level, codebook_metrics
from vgx.parts.kinds import Quantising, Reporting
from vgx.sampling.model import labels_in_turn
from vgx.training.progress import fixed_latents

IMAGES = 64  # that are compared
# Steps that a fault must last: many good trainings showed one for a while, mostly at the beginning.
# The DCGAN of the benchmarks was below WINS for 50 steps; an R3GAN that failed, for 310.
PATIENCE = 200
WINS = 0.05  # discriminator's term: about 1 when it cannot separate the images, 0 when it can
# Norm of a gradient. Adam's epsilon is as large, so below it weights hardly change.
DEAD = 1e-8
LARGE = 1e4  # logits; the sigmoid of 90 is 1 in float32 already
# Distance between decoded latents over that between real images. Good trainings were above 0.1
# after 200 steps; an R3GAN that failed was at 0.005 after 500.
ALIKE = 0.05
FEW = 0.02  # share of active latents; a good beta-VAE kept 19 of 32
FEW_CODES = 0.2  # share of the codes that could occur


@dataclass
class Monitor:
    """Reports each fault once when it has lasted, and again when it comes back."""

    engine: Engine
    store: Store
    since: dict[str, int] = field(default_factory=dict)  # the step at which a fault began
    reported: set[str] = field(default_factory=set)

    def losses(self, step: int, losses: dict[str, float]) -> list[str]:
        """Check the terms and gradients of the last step; return new warnings."""
        faults: dict[str, str] = {f"wins {loss}": text for loss, text in discriminator_wins(losses)}
        for network, norm in gradient_norms(self.engine).items():
            player = player_of(network)
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
        rows = self.store.spread(np.arange(len(self.store.images)), IMAGES)
        rows = rows[np.linspace(0, len(rows) - 1, IMAGES).astype(int)]  # some twice, if too few
        real = as_images(self.store.images[rows], engine.device)  # [N, C, H, W]
        labels = self.store.labels
        own = None if labels is None else torch.from_numpy(labels[rows]).to(engine.device)
        z = fixed_latents(engine, IMAGES).to(engine.dtype)  # [N, *Z]
        in_turn = labels_in_turn(IMAGES, engine.recipe, engine.device)
        with evaluating(engine.networks.values()):
            fake = sigmoid(engine.forward.decode(z, in_turn))  # [N, C, H, W]
            faults["alike"] = mode_collapse(real, fake)
            if "encoder" in engine.networks:
                encoder = engine.networks["encoder"]
                posterior: Any = engine.forward.encode(real.to(engine.dtype), own, compiled=False)
                if isinstance(encoder, Quantising):
                    indices = by_level(posterior.indices, posterior.mean.dim())
                    faults["codebook"] = codebook_collapse(indices, encoder.codes)
                else:
                    faults["posterior"] = posterior_collapse(posterior.mean)
            both = None if own is None else torch.cat([own, in_turn])
            for name, part in engine.recipe.judges.items():
                if part.judges == "images":
                    images = torch.cat([real.to(fake), fake])  # [2*N, C, H, W]
                    streams = engine.streams()
                    score = engine.forward.score(images, network=name, labels=both, streams=streams)
                    logits = score.logits
                elif name in engine.forward.logits:
                    logits = torch.cat(engine.forward.logits[name])
                else:
                    continue
                faults[f"logits of the {name}"] = large_logits(logits, name)
        return self._new(step, faults)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds, so that a resumed run warns at the same steps."""
        return {"since": self.since, "reported": sorted(self.reported)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint holds; those of earlier versions hold nothing."""
        self.since = dict(state.get("since", {}))
        self.reported = set(state.get("reported", ()))

    def _new(self, step: int, faults: dict[str, str]) -> list[str]:
        """Return the texts of faults that lasted and are not reported yet; "" means no fault."""
        texts = []
        for name, text in faults.items():
            if not text:
                self.since.pop(name, None)
                self.reported.discard(name)
                continue
            lasted = step - self.since.setdefault(name, step)
            if name not in self.reported and (lasted >= PATIENCE or name.startswith("logits")):
                self.reported.add(name)
                texts.append(text)
        return texts


def gradient_norms(engine: Engine) -> dict[str, float]:
    """Return the norm of the last gradient of each network that had one."""
    norms: dict[str, list[Tensor]] = {}
    for named in engine.guard.norms.values():
        for name, norm in named.items():
            norms.setdefault(owner_of(name), []).append(norm)
    return {network: torch.stack(inside).norm().item() for network, inside in norms.items()}


def accuracy(engine: Engine) -> dict[str, float]:
    """Return the shares of real and of fake logits of the last pass that are on the right side.

    Logits above 0 say real, those below say fake. Without a discriminator there are none. Of one
    that judges images they are called "real" and "fake", of one that judges latents "real latents"
    and "fake latents"; of several each name has that of the discriminator before it.
    """
    shares: dict[str, Tensor] = {}
    for network, (real, fake) in engine.forward.logits.items():
        judges = engine.recipe.judges[network].judges
        name, what = network.partition(" ")[2], "" if judges == "images" else judges
        for kind, right in (("real", real > 0), ("fake", fake < 0)):
            shares[f"{name} {kind} {what}".strip()] = right.float().mean()
    return {name: share.item() for name, share in averaged(shares).items()}


def codebook_use(engine: Engine) -> dict[str, float]:
    """Return how much of the codebook the last minibatch used, if there is a codebook.

    With `train.accumulate` the last piece of the minibatch counts.
    """
    encoder, indices = engine.networks.get("encoder"), engine.latents.indices
    if indices is None or not isinstance(encoder, Quantising):
        return {}
    return codebook_metrics(by_level(indices, 1 + len(engine.recipe.latent.shape)), encoder.codes)


def figures(engine: Engine) -> dict[str, float]:
    """Return the figures that networks, losses and augmentations have of themselves.

    The names are those of the part, of the module inside of it if it is one, and of the figure:
    "ada.p". Where two parts have the same name, their whole names are used: "augment 0 ada.p".
    """
    built = engine.networks | engine.forward.saved_augmentations
    short = Counter(name.rpartition(" ")[2] for name in built)
    found: dict[str, float] = {}
    for whole, network in built.items():
        name = whole.rpartition(" ")[2]
        owner = name if short[name] == 1 else whole
        for inside, module in network.named_modules():
            if isinstance(module, Reporting):
                for figure, value in module.figures().items():
                    found[".".join(filter(None, (owner, inside, figure)))] = float(value)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def discriminator_wins(losses: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Give each loss that has terms for both players, and its warning or an empty text."""
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


def mode_collapse(real: Tensor, fake: Tensor) -> str:
    """Return a warning when fake images are too similar to each other; else an empty text.

    Their mean distance is compared with that of real images.
    """
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


def posterior_collapse(mean: Tensor) -> str:
    """Return a warning when too few posterior means differ between images; else an empty text."""
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


def codebook_collapse(indices: Tensor, codes: int) -> str:
    """Return a warning when indices [N, levels] use too few of the codes; else an empty text."""
    places = len(indices)
    used = codebook_metrics(indices, codes)["codebook_usage"] * codes
    if used > FEW_CODES * min(codes, places):
        return ""
    return (
        f"codebook collapse: {used:.3g} of {codes:,} codes are used by {places:,} places of real "
        f"images, and so few for {PATIENCE} steps; in vector-quantised set decay=0.99, which "
        "restarts codes, or normalised=true, or use the encoder finite-scalar, or fewer codes"
    )


def large_logits(logits: Tensor, network: str = "discriminator") -> str:
    """Return a warning when the largest logit of a network is too large; else an empty text."""
    largest = logits.abs().max().item()
    if largest <= LARGE:
        return ""
    return (
        f"the {network}'s logits reach {largest:.2g}, where tens would do; lower "
        "train.optimizers.discriminator.lr, set train.clip, or add a gradient penalty to the losses"
    )
