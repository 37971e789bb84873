"""Short ways on paths between latents, and how much images change on them.

Letters: N pairs, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

import vgx

CUT = 0.01  # share of the distances that is left out at either end
CHUNK = 64  # pairs that are decoded at once


class Paths:
    """The distances of images at two near places of each path."""

    def __init__(
        self,
        network: nn.Module,
        between: str,
        eps: float,
        most: int,
        distance: Callable[[nn.Module, Tensor, Tensor], Tensor],
    ) -> None:
        self.network, self.between, self.eps, self.most = network, between, eps, most
        self.distance = distance
        self.pairs, self.labels = 0, list[Tensor]()

    def use(self, model: vgx.Model) -> None:
        """Take the model. Raises `RecipeError` for one without latents or w that it needs."""
        if self.between == "codes" and len(model.codes) < 2:
            text = "the model has no stored latents; write between: prior"
            raise vgx.RecipeError(f"metric path-length: between: codes: {text}")
        if self.between == "mapped":
            if not isinstance(model.decoder, vgx.Mapped):
                text = f"the decoder {model.recipe.decoder.type} has no mapping network"
                raise vgx.RecipeError(f"metric path-length: {text}; write between: prior")
            self.mapped: vgx.Mapped = model.decoder
        self.model = model

    def update(self, real: Tensor, fake: Tensor, labels: Tensor | None = None) -> None:
        """Count generated images [B, C, H, W], and keep the labels [B] of real ones."""
        del real
        self.pairs = min(self.pairs + len(fake), self.most)
        if labels is not None:
            self.labels.append(labels.cpu())

    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        """Draw the paths, the same ones each time, and return the mean distance."""
        generator = torch.Generator().manual_seed(0)
        ends = [self._ends(generator) for _ in range(self.pairs)]
        found = []
        for start in range(0, self.pairs, CHUNK):
            a, b = (torch.stack(side) for side in zip(*ends[start : start + CHUNK], strict=True))
            t = torch.rand(len(a), generator=generator, dtype=torch.float64)  # [N]
            labels = self._labels(start, len(a))
            images = [self._images(a, b, place, labels) for place in (t, t + self.eps)]
            self.network.to(images[0].device)
            found.append(self.distance(self.network, images[0], images[1]).cpu())
        distances = torch.cat(found).sort().values / self.eps**2  # [N]
        cut = int(len(distances) * CUT)
        return {"path-length": distances[cut : len(distances) - cut].mean().item()}

    def _ends(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """[*Z], [*Z]  The ends of a path."""
        codes = self.model.codes
        if self.between != "codes":
            shape = (2, *codes.shape[1:])
            a, b = torch.randn(shape, generator=generator, dtype=torch.float64)
            return a, b
        first = int(torch.randint(len(codes), (), generator=generator))
        further = int(torch.randint(1, len(codes), (), generator=generator))
        return codes[first].cpu().double(), codes[(first + further) % len(codes)].cpu().double()

    def _labels(self, start: int, count: int) -> Tensor | None:
        """[N]  Labels in the shares of the real images, the same for both places of a path."""
        if not self.labels:
            return None
        known = torch.cat(self.labels)
        return known[(start + torch.arange(count)) % len(known)]

    def _images(self, a: Tensor, b: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """[N, C, H, W]  The images at places t [N] of paths between a and b [N, *Z]."""
        if self.between != "mapped":
            return self.model.decode(self._at(a, b, t).float(), labels)
        device = self.model.codes.device
        own: tuple[Tensor, ...] = ()
        if self.model.recipe.decoder.conditional:
            if labels is None:  # images of another data set: all classes in turn, as in `decode`
                labels = torch.arange(len(a)) % self.model.recipe.image.classes
            own = (labels.to(device),)
        near, far = (self.mapped.map(side.float().to(device), *own) for side in (a, b))  # [N, *W]
        w = _lerp(near.double(), far.double(), t.to(device)).float()
        return self.mapped.decode_mapped(w).sigmoid()

    def _at(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """[N, *Z]  Latents at places t [N] of paths: a slerp of draws, a lerp of stored latents."""
        if self.between == "codes":
            return _lerp(a, b, t)
        t = t.view(-1, *[1] * (a.dim() - 1))
        lengths = [side.flatten(1).norm(dim=1).view_as(t) for side in (a, b)]  # [N, 1, ..] each
        a, b = a / lengths[0], b / lengths[1]
        cosine = (a * b).flatten(1).sum(1).clamp(-1, 1)  # [N]
        angle = cosine.acos().clamp(1e-6, math.pi - 1e-6).view_as(t)
        along: Tensor = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
        length: Tensor = (1 - t) * lengths[0] + t * lengths[1]
        return along * length


def _lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return a + t.view(-1, *[1] * (a.dim() - 1)) * (b - a)
