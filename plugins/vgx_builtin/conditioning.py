"""Modules that give another part's network the label of each image.

Letters: B images, C channels, H x W pixels, Z the latent shape, F features, E numbers of a label, P
places, h x w the patch grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

import vgx


class ConditionalEncoder(nn.Module):
    """An encoder whose images are extended by a vector for the label at every place."""

    def __init__(self, inner: nn.Module, classes: int, embedding: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding)
        self.inner = inner

    def forward(self, images: Tensor, labels: Tensor) -> vgx.Posterior:
        """Images [B, C, H, W], labels [B] -> a posterior over [B, *Z]."""
        vectors = self.embedding(labels).to(images.dtype)  # [B, E]
        planes = vectors[:, :, None, None].expand(-1, -1, *images.shape[2:])  # [B, E, H, W]
        posterior: vgx.Posterior = self.inner(torch.cat([images, planes], 1))
        return posterior


class ConditionalDecoder(nn.Module):
    """A decoder whose latents are extended by a vector for the label."""

    def __init__(self, inner: nn.Module, classes: int, embedding: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding)
        self.inner = inner

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [B, *Z], labels [B] -> logits [B, C, H, W]."""
        logits: Tensor = self.inner(self._extended(z, labels))
        return logits

    def _extended(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [B, *Z], labels [B] -> latents with E more channels."""
        vectors = self.embedding(labels)  # [B, E]
        vectors = vectors.view(*vectors.shape, *[1] * (z.dim() - 2)).expand(-1, -1, *z.shape[2:])
        return torch.cat([z, vectors], 1)


class ConditionalMappedDecoder(ConditionalDecoder):
    """The same around a decoder with a mapping network: w has the label."""

    inner: Any  # vgx.Mapped

    @property
    def w_mean(self) -> Tensor:
        """The inner decoder's mean of w, over all labels."""
        mean: Tensor = self.inner.w_mean
        return mean

    def map(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [B, *Z], labels [B] -> w [B, *W]."""
        w: Tensor = self.inner.map(self._extended(z, labels))
        return w

    def decode_mapped(self, w: Tensor) -> Tensor:
        """W [B, *W] -> logits [B, C, H, W]."""
        logits: Tensor = self.inner.decode_mapped(w)
        return logits


class ProjectionDiscriminator(nn.Module):
    """A discriminator that compares its last features with a vector for the label."""

    def __init__(self, inner: nn.Module, classes: int, features: int, *, mean: bool) -> None:
        super().__init__()
        self.inner, self.mean = inner, mean
        self.embedding = nn.Embedding(classes, features)
        nn.init.xavier_uniform_(self.embedding.weight)
        if any(parametrize.is_parametrized(module) for module in inner.modules()):
            spectral_norm(self.embedding)  # else the bound that `spectral` keeps would be lost

    def forward(self, images: Tensor, labels: Tensor) -> vgx.Score:
        """Images [B, C, H, W] in [0, 1], labels [B] -> the inner score with other logits."""
        score = self.inner(images)
        last = score.features[-1].relu()  # [B, F, h, w] or [B, F]
        places = last.reshape(*last.shape[:2], -1)  # [B, F, P]
        pooled = places.mean(2) if self.mean else places.sum(2)  # [B, F]
        product = (self.embedding(labels) * pooled).sum(1)  # [B]
        product = product.view(-1, *[1] * (score.logits.dim() - 1))  # [B, 1] or [B, 1, 1, 1]
        return vgx.Score(score.logits + product, score.features)


def classes(part: str, image: vgx.ImageSpec) -> int:
    """Return the number of classes. Raises `RecipeError` when there are none."""
    if image.classes == 0:
        raise vgx.RecipeError(
            f"{part}: image.classes is 0, so there are no labels; "
            "set it to the number of classes in the data set, or use the inner part alone"
        )
    return image.classes
