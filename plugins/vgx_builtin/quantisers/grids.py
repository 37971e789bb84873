"""Codebooks whose vectors are fixed: points of a grid, and corners of a cube on the sphere.

Letters: B images, Z the latent shape, F its channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgx_builtin.posteriors import Quantised

MARGIN = 1e-3  # by which a bounded channel stays below the outermost levels: the authors' epsilon


class Grid(nn.Module):
    """Finite scalar quantisation: each channel is rounded to one of its levels."""

    levels: Tensor
    widths: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.codes = math.prod(levels)
        basis = [math.prod(levels[:channel]) for channel in range(len(levels))]
        widths = [level // 2 for level in levels]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)  # [F]
        self.register_buffer("widths", torch.tensor(widths).float(), persistent=False)  # [F]
        self.register_buffer("basis", torch.tensor(basis), persistent=False)  # [F]

    def forward(self, means: Tensor) -> Quantised:
        """Means [B, *Z] -> each channel bounded, and its nearest level in [-1, 1]."""
        levels = _as_channels(self.levels, means)  # [F, 1, 1] or [F]
        half = (levels - 1).to(means) * ((1 - MARGIN) / 2)
        offset = (levels % 2 == 0) * 0.5  # an even number of levels lies about -1/2
        bounded = (means + (offset / half).tan()).tanh() * half - offset  # [B, *Z]
        widths = _as_channels(self.widths, means)  # [F, 1, 1] or [F]
        digits = (bounded.detach().round() + widths).long()  # [B, *Z]  from 0 to levels - 1
        indices = (digits * _as_channels(self.basis, means)).sum(1)  # [B, *places]
        return Quantised(bounded / widths, self.vectors(indices), indices, "grid")

    def vectors(self, indices: Tensor) -> Tensor:
        """[n, *Z]  The points with these indices [n, *places]."""
        digits = indices[..., None] // self.basis % self.levels  # [n, *places, F]
        return ((digits - self.widths) / self.widths).movedim(-1, 1)


class Corners(nn.Module):
    """Binary spherical quantisation: the corner of a cube in the unit sphere that is nearest."""

    basis: Tensor
    length: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.codes = 2**channels
        basis = 2 ** torch.arange(channels)  # [F]
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("length", torch.ones(()), persistent=False)  # of each corner

    def forward(self, means: Tensor) -> Quantised:
        """Means [B, *Z] -> directions, and the corners nearest to them."""
        directions = F.normalize(means, dim=1)  # [B, *Z]
        bits = directions > 0  # [B, *Z]
        indices = (bits * _as_channels(self.basis, means)).sum(1)  # [B, *places]
        return Quantised(directions, self._corners(bits), indices, "corners")

    def vectors(self, indices: Tensor) -> Tensor:
        """[n, *Z]  The corners with these indices [n, *places]."""
        bits = indices[..., None] // self.basis % 2 > 0  # [n, *places, F]
        return self._corners(bits.movedim(-1, 1))

    def _corners(self, bits: Tensor) -> Tensor:
        signs = bits.to(self.length.dtype) * 2 - 1
        return signs * self.length / math.sqrt(len(self.basis))


def _as_channels(values: Tensor, means: Tensor) -> Tensor:
    """Return one value for each channel [F] so that it broadcasts over means [B, *Z]."""
    return values.view(-1, *[1] * (means.dim() - 2))
