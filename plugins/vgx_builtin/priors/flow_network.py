"""Rectified flow, and its network over flat latents.

Letters: B images, n new latents, Z the latent shape, C channels, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

WAVES = 32  # frequencies of the time


class Flow(nn.Module):
    """A field of directions over normalised latents, and its solutions."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        field: nn.Module,
        shape: tuple[int, ...],
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> None:
        super().__init__()
        self.field, self.shape = field, shape
        places = [1] * (len(shape) - 1)
        self.register_buffer("mean", torch.tensor(mean).view(-1, *places))  # [C, 1, 1] or [C]
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, *places))

    def loss(self, codes: Tensor, labels: Tensor | None, generator: Generator) -> Tensor:
        """Return the mean squared error of the direction, for latents [B, *Z]."""
        latents = (codes - self.mean) / self.deviation
        noise = torch.empty_like(latents).normal_(generator=generator)
        t = latents.new_empty(len(latents)).uniform_(generator=generator)  # [B]
        share = t.view(-1, *[1] * len(self.shape))
        direction = self.field((1 - share) * noise + share * latents, t, labels)
        return F.mse_loss(direction, latents - noise)

    @torch.no_grad()
    def draw(
        self,
        n: int,
        labels: Tensor | None,
        generator: Generator,
        *,
        steps: int = 50,
        solver: str = "heun",
        temperature: float = 1.0,
    ) -> Tensor:
        """[n, *Z]  Follow the field from noise to latents, in equal steps of time."""
        x = torch.randn(n, *self.shape, generator=generator, device=generator.device)
        x = temperature * x.to(self.mean)
        labels = None if labels is None else labels.to(x.device)
        for number in range(steps):
            now, then = (x.new_full((n,), each / steps) for each in (number, number + 1))
            direction = self.field(x, now, labels)
            there = x + direction / steps
            if solver == "heun":
                there = x + (direction + self.field(there, then, labels)) / (2 * steps)
            x = there
        return self.mean + self.deviation * x


class Conditions(nn.Module):
    """The time and the label as features."""

    waves: Tensor

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        waves = torch.exp(torch.linspace(0, math.log(1000), WAVES))  # [WAVES]
        self.register_buffer("waves", waves, persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * WAVES, features), nn.SiLU())
        self.time.append(nn.Linear(features, features))
        self.label = nn.Embedding(classes, features) if classes else None

    def forward(self, t: Tensor, labels: Tensor | None) -> Tensor:
        """[B, F]  Of times [B] in [0, 1] and labels [B]."""
        angles = t[:, None] * self.waves
        features: Tensor = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        if self.label is not None and labels is not None:
            features = features + self.label(labels)
        return F.silu(features)


class FlatBlock(nn.Module):
    """A linear layer after a norm that conditions scale and shift, beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conditions = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.first, self.last = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """[B, F]  Of features [B, F] and conditions [B, F]."""
        scale, shift = self.conditions(conditions).chunk(2, 1)
        y: Tensor = self.last(F.silu(self.first(self.norm(x) * (1 + scale) + shift)))
        return x + y


class FlatField(nn.Module):
    """Directions at flat latents: a residual network of linear layers."""

    def __init__(self, channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.conditions, self.first = Conditions(classes, width), nn.Linear(channels, width)
        self.blocks = nn.ModuleList(FlatBlock(width) for _ in range(depth))
        self.last = nn.Linear(width, channels)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """[B, C]  At latents [B, C] and times [B]."""
        conditions, y = self.conditions(t, labels), self.first(x)
        for block in self.blocks:
            y = block(y, conditions)
        direction: Tensor = self.last(y)
        return direction
