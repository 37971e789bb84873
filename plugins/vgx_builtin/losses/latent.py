"""Losses on the latents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

import vgx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Kl(vgx.Loss, type="kl"):
    """Kullback-Leibler divergence of the posterior from N(0, I).

    Of a Gaussian -1/2 sum(1 + logvar - mu^2 - exp(logvar)), summed over the latents, mean over the
    batch (Kingma and Welling 2014, appendix B); of another posterior what its `kl` gives. In unit
    `pixel` it is divided by the number of pixel values: the right scale beside reconstruction terms
    that are means over pixels.

    With `free_bits` it is sum_j max(free_bits, KL_j), where KL_j is latent j's share, mean over the
    batch (Kingma et al. 2016). With `capacity` C it is |KL - C| (Burgess et al. 2018, eq. 8).
    """

    unit: Literal["pixel", "sample"] = "pixel"
    """`pixel`: nats for each pixel value; `sample`: nats for each image."""
    free_bits: NonNegativeFloat = 0.0
    """Nats for each image that each latent may carry without cost, whatever the unit."""
    capacity: vgx.Rate | None = None
    """The divergence to keep to, in nats for each image whatever the unit: a number, or a schedule
    `{from: 0, to: 25, steps: 100000}`. `null` is 0."""
    latents: Annotated[tuple[NonNegativeInt, ...], Field(min_length=2, max_length=2)] | None = None
    """The latents that count, in the flattened latent: `[0, 32]` are the first 32. `null` is all.
    So the levels of a hierarchy have terms of their own."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> vgx.LossTerm:
        """Return the loss itself. Raises `RecipeError` for latents that are not there."""
        del image
        first, end = self.latents or (0, latent.size)
        if not first < end <= latent.size:
            message = (
                f"the latent has {latent.size} numbers; write [first, end], end at most so many"
            )
            raise vgx.RecipeError(f"loss {self.label}: latents: [{first}, {end}]: {message}")
        return self

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the posterior is the prior, without `capacity`."""
        posterior = step.posterior
        if isinstance(posterior, vgx.KnowsKl) and not isinstance(posterior, vgx.Gaussian):
            nats = posterior.kl().flatten(1)  # [B, Z]
        else:
            posterior = gaussian(self.type, posterior)
            mu, logvar = posterior.mu, posterior.logvar  # [B, *Z]
            nats = -0.5 * (1 + logvar - mu**2 - logvar.exp()).flatten(1)  # [B, Z]
        nats = nats.mean(0)  # [Z]
        if self.free_bits or self.capacity is not None:  # which are of the whole minibatch
            nats = vgx.mean_over_processes(nats)
        if self.latents is not None:
            nats = nats[slice(*self.latents)]
        if self.free_bits:
            nats = nats.clamp(min=self.free_bits)
        value: Tensor = nats.sum()
        if self.capacity is not None:
            value = (value - vgx.at(self.capacity, step.number)).abs()
        return value / (step.real[0].numel() if self.unit == "pixel" else 1)

    def note_beside(self, losses: Sequence[vgx.Loss], image: vgx.ImageSpec) -> str:
        """Return the effective beta: the weight of the KL over those of the reconstruction terms.

        Schedules count with the value that they lead to, terms that start later in full, and those
        that stop not at all.
        """
        terms = [loss for loss in losses if loss.pixelwise]
        if not terms:
            return ""
        listed = " and ".join(f"{_weight(loss)} {loss.label}{_since(loss)}" for loss in terms)
        label = "KL" if self.label == self.type else f"KL {self.label}"
        summed = f"summed over the {image.pixel_values:,} pixel values"
        own_weight = f"weight {_weight(self)}{_since(self)}"
        beside = f"{own_weight} beside {listed}, {summed} (beta-VAE, Higgins et al. 2017)"
        weights = [_number(loss.weight) for loss in terms if loss.stop is None]
        own = _number(self.weight) if self.stop is None else None
        total = sum(w for w in weights if w is not None)
        if own is None or None in weights or not total:
            return f"The {label}'s effective beta has no fixed value: {beside}."
        factor = 1 if self.unit == "pixel" else image.pixel_values
        return f"The {label}'s effective beta is {own * factor / total:.3g}: {beside}."


def _number(weight: vgx.Weight) -> float | None:
    if isinstance(weight, vgx.Adaptive | vgx.Share):
        return None
    return weight.to if isinstance(weight, vgx.Schedule) else weight


def _weight(loss: vgx.Loss) -> str:
    if isinstance(loss.weight, vgx.Schedule):
        return f"{loss.weight.start:g} to {loss.weight.to:g}"
    if isinstance(loss.weight, vgx.Share):
        return f"a share of {loss.weight.share:g} of"
    return "adaptive" if isinstance(loss.weight, vgx.Adaptive) else f"{loss.weight:g}"


def _since(loss: vgx.Loss) -> str:
    since = f" from step {loss.start:,}" if loss.start else ""
    return since + (f" until step {loss.stop:,}" if loss.stop else "")


def gaussian(name: str, posterior: vgx.Posterior) -> vgx.Gaussian:
    """Return the posterior. Raises `RecipeError` when it is not Gaussian."""
    if not isinstance(posterior, vgx.Gaussian):
        given = type(posterior).__name__
        raise vgx.RecipeError(f"{name} needs a Gaussian posterior; the encoder gives a {given}")
    return posterior


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """[...]  The log density of latents [..., *Z] in Gaussians [B, *Z], summed over Z."""
    terms = math.log(2 * math.pi) + logvar + (z - mu).square() * (-logvar).exp()
    return -0.5 * terms.flatten(1 - mu.dim()).sum(-1)
