"""Mixtures of stored latents of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class WeightedMix(vgx.Sampler, type="weighted-mix"):
    """Average a few latents of the last epoch with random weights that sum to 1.

    z = sum_k w_k code_k with w ~ Dirichlet(concentration, ..., concentration). Mixtures lie between
    stored latents. In many dimensions they are nearer to the mean of the stored latents than almost
    all of these: for independent latents their variance is sum_k w_k^2 times as large, on average
    1/2 for three latents and concentration 1. See `renormalise`. When the decoder takes labels, a
    mixture is of latents of one label.
    """

    of: PositiveInt = 3
    """Number of latents in a mixture."""
    concentration: PositiveFloat = 1.0
    """The concentration of the weights: 1 is uniform over all weights that sum to 1, less is nearer
    to single latents, more is nearer to their plain average."""
    anchors: Literal["shared", "fresh"] = "shared"
    """`shared`: all images mix the same latents; `fresh`: each image draws its own."""
    renormalise: bool = False
    """Divide the distance from m, the mean of the stored latents, by sqrt(sum_k w_k^2): mixtures of
    independent latents then have the variance of the stored latents."""

    @property
    def least_codes(self) -> int:
        """As many as it mixes."""
        return self.of

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        del latent
        return _Mix(self)


class _Mix:
    def __init__(self, part: WeightedMix) -> None:
        self.part = part

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  Mixtures of codes [K, *Z]; no row depends on `n`."""
        import numpy as np
        import torch

        of = self.part.of
        if len(codes) < of:
            raise vgx.RecipeError(
                f"sampler weighted-mix: of: {of}: the run has {len(codes)} latents"
            )
        # numpy's Dirichlet distribution needs a generator of numpy.
        numpy_generator = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        shared = numpy_generator.choice(len(codes), of, replace=False)  # [of]
        rows = []
        mean = codes.mean(0)  # [*Z]
        for _ in range(n):
            fresh = self.part.anchors == "fresh"
            anchors = numpy_generator.choice(len(codes), of, replace=False) if fresh else shared
            drawn = numpy_generator.dirichlet(np.full(of, self.part.concentration))
            weights = torch.from_numpy(drawn).to(codes)  # [of]
            mixed = torch.tensordot(weights, codes[torch.from_numpy(anchors)], 1)  # [*Z]
            if self.part.renormalise:
                mixed = mean + (mixed - mean) / weights.norm()
            rows.append(mixed)
        return torch.stack(rows)
