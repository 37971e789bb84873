"""The term of the loss `path-length`.

Letters: B images of a minibatch, N latents, C channels, H x W pixels, Z the latent shape, W the
shape of w, L layers, S numbers of a style.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

import vgx


class PathLengthTerm(nn.Module):
    """The term, with its moving average."""

    average: Tensor

    def __init__(self, shrink: int, decay: float) -> None:
        super().__init__()
        self.shrink, self.decay = shrink, decay
        self.register_buffer("average", torch.zeros(()))

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when all lengths are the average."""
        generator, like = step.rng("path-length"), step.prior_z
        labels = None if step.labels is None else self._first(vgx.gather(step.labels))
        where: AbstractContextManager[None] = nullcontext()
        if len(like) % self.shrink:  # several processes cannot share so few: each computes all
            like, where = vgx.gather(like), vgx.replicated()
        with where:
            z = torch.empty_like(self._first(like)).normal_(generator=generator)  # [N, *Z]
            w = step.map(z) if labels is None else step.map(z, vgx.own_rows(labels))  # [N, *W]
            images = 2 * step.decode_mapped(w) - 1  # [N, C, H, W]
            noise = torch.empty_like(images).normal_(generator=generator)
            lengths = path_lengths(images, w, noise)
            self.average.lerp_(vgx.mean_over_processes(lengths.detach().mean()), 1 - self.decay)
        value: Tensor = (lengths - self.average).square().mean()
        return value

    def _first(self, rows: Tensor) -> Tensor:
        """[N, ...]  Return as many of the first rows [B, ...] as are computed."""
        return rows[: max(len(rows) // self.shrink, 1)]


def path_lengths(images: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """[N]  |J^T y| of images [N, C, H, W] that were made of w [N, *W], with y = noise / sqrt(H W).

    It is differentiable.
    """
    y = noise / math.sqrt(images.shape[2] * images.shape[3])
    (slopes,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)  # [N, *W]
    squares = slopes.square().sum(-1)  # [N] or [N, L]
    means = squares.flatten(1).mean(1) if squares.dim() > 1 else squares  # [N]
    return (means + 1e-12).sqrt()  # the small number keeps the root's derivative finite at 0
