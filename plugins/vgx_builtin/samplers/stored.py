"""Given latents in a fixed order: those of a folder's images, or the neighbours of one latent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import vgx
from vgx_builtin.datasets.image_folder import ImageFolder

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Reconstruct(vgx.Sampler, type="reconstruct"):
    """Encode the images of a folder; decoded, they are its reconstructions.

    The latents are the posterior means, in the order of the files' names; when more are wanted,
    they repeat from the first. Files are read as `image-folder` reads them. Nothing is drawn: the
    seed changes nothing. Needs an encoder. A model that takes labels gets those of the folders in
    it with `label: folder`, else the class that `vgx sample --class` names.
    """

    path: Path
    """The folder; it is searched through all levels."""
    label: Literal["folder"] | None = None
    """The label of an image: `folder`, the folder that it lies in, which has the name of a class;
    `null`: no labels."""

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        del latent
        return _InOrder()

    def pictures(self, image: vgx.ImageSpec) -> vgx.Source | None:
        """Open the folder. Raises `DataError` when it has no images."""
        return ImageFolder(path=self.path, label=self.label).build(image)


class _InOrder:
    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  The codes [K, *Z] in their order, repeated."""
        import torch

        del generator
        return codes[torch.arange(n) % len(codes)]


class Neighbours(vgx.Sampler, type="neighbours"):
    """Show one of the run's stored latents, then those nearest to it, nearest first.

    The distance is Euclidean; when more are wanted than there are, they repeat from the first.
    Nothing is drawn: the seed changes nothing. When the decoder takes labels, all are latents of
    one label, which the seed chooses.
    """

    one_label = True
    of: int = 0
    """The index of the latent: 0 is the oldest that the run keeps (of the label, when the decoder
    takes labels), 1 the next; -1 is the newest."""

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        del latent
        return _Near(self)


class _Near:
    def __init__(self, part: Neighbours) -> None:
        self.part = part

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  Codes [K, *Z] by their distance from one of them."""
        import torch

        del generator
        of = self.part.of
        if not -len(codes) <= of < len(codes):
            raise vgx.RecipeError(f"sampler neighbours: of: {of}: the run has {len(codes)} latents")
        flat = codes.flatten(1).double()  # [K, D]
        distance = (flat - flat[of]).norm(dim=1)  # [K]
        order = distance.argsort(stable=True)
        return codes[order[torch.arange(n) % len(codes)]]
