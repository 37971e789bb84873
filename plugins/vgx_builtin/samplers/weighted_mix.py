"""Mixtures of stored latents of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class WeightedMix(vgx.Sampler, type="weighted-mix"):
    """Average a few latents of the last epoch with random weights that sum to 1.

    z = sum_k w_k code_k with w ~ Dirichlet(concentration, ..., concentration). The mixtures stay
    where the decoder was trained, which draws from N(0, I) need not. When the decoder takes labels,
    a mixture is of latents of one label.
    """

    of: PositiveInt = 3
    """Number of latents in a mixture."""
    concentration: PositiveFloat = 1.0
    """The concentration of the weights: 1 is uniform over all weights that sum to 1, less is nearer
    to single latents, more is nearer to their plain average."""
    anchors: Literal["shared", "fresh"] = "shared"
    """`shared`: all images mix the same latents; `fresh`: each image draws its own."""

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
        for _ in range(n):
            fresh = self.part.anchors == "fresh"
            anchors = numpy_generator.choice(len(codes), of, replace=False) if fresh else shared
            weights = numpy_generator.dirichlet(np.full(of, self.part.concentration))  # [of]
            mixed = torch.from_numpy(weights).to(codes)
            rows.append(torch.tensordot(mixed, codes[torch.from_numpy(anchors)], 1))  # [*Z]
        return torch.stack(rows)
