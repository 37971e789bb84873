"""The term of the loss `path-length`.

Letters: N latents, C channels, H x W pixels, Z the latent shape, W the shape of w, L layers, S
numbers of a style.
"""

from __future__ import annotations

import math

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
        generator = step.rng("path-length")
        n = max(len(step.prior_z) // self.shrink, 1)
        z = torch.empty_like(step.prior_z[:n]).normal_(generator=generator)  # [N, *Z]
        w = step.map(z) if step.labels is None else step.map(z, step.labels[:n])  # [N, *W]
        images = 2 * step.decode_mapped(w) - 1  # [N, C, H, W]
        lengths = path_lengths(images, w, torch.empty_like(images).normal_(generator=generator))
        mean = vgx.mean_over_processes(lengths.detach().mean())
        self.average.lerp_(mean, 1 - self.decay)
        value: Tensor = (lengths - self.average).square().mean()
        return value


def path_lengths(images: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """[N]  |J^T y| of images [N, C, H, W] that were made of w [N, *W], with y = noise / sqrt(H W).

    It is differentiable.
    """
    y = noise / math.sqrt(images.shape[2] * images.shape[3])
    (slopes,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)  # [N, *W]
    squares = slopes.square().sum(-1)  # [N] or [N, L]
    means = squares.flatten(1).mean(1) if squares.dim() > 1 else squares  # [N]
    return (means + 1e-12).sqrt()  # the small number keeps the root's derivative finite at 0
