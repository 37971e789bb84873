"""Latents that turn and shrink with their images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Equivariance(vgx.Loss, type="equivariance"):
    """Decode changed latents to the image that is changed alike: EQ-VAE (Kouzelis et al. 2025).

    The loss is mean |decode(t(z)) - t(real)|, over batch, channels and pixels, where t makes
    latents and images smaller, by a factor from U(smallest, 1), and then turns them by a random
    multiple of 90 degrees: one t for a minibatch. In the paper this term takes the place of the
    reconstruction's in a share of the steps, with all of its parts; here it is an absolute error
    beside the other terms in each step.

    Latents must be spatial, and for factors below 1 the decoder must take latents of other sizes:
    one of convolutions, such as `residual`. What is not square is turned by 180 degrees alone. A
    decoder with BatchNorm also counts the smaller images in its statistics; take `norm: group`.
    """

    smallest: Annotated[float, Field(gt=0, le=1)] = 0.25
    """The smallest factor; 1: images are turned only."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar in [0, 1]."""
        from torch.nn import functional as F

        z, real = step.z, step.real
        if z.dim() != 4:
            message = "it needs spatial latents, as latent: [4, 8, 8]"
            raise vgx.RecipeError(f"equivariance: {message}; here they are {[*z.shape[1:]]}")
        height, width, turns = self._draw(step.rng(self.type), z, real)
        sides = [side * a // b for side, a, b in zip(
            real.shape[2:], (height, width), z.shape[2:], strict=True
        )]  # fmt: skip
        changed, target = resized(z, height, width), resized(real, *sides)
        changed, target = (images.rot90(turns, (2, 3)) for images in (changed, target))
        try:
            decoded = step.decode(changed)
        except RuntimeError as error:
            if "memory" in str(error):  # it ran out, which the engine has its own message for
                raise
            raise vgx.RecipeError(self._other_sizes(changed)) from error
        if decoded.shape != target.shape:
            raise vgx.RecipeError(self._other_sizes(changed))
        return F.l1_loss(decoded, target)

    def _draw(self, generator: Generator, z: Tensor, real: Tensor) -> tuple[int, int, int]:
        """Draw the height and width of the smaller latents, and the number of quarter turns."""
        import torch

        # On the CPU, with the same key: the host needs the sizes, and must not wait for a GPU.
        own = torch.Generator().manual_seed(generator.initial_seed())
        with vgx.replicated():  # for all images
            drawn = torch.empty(2, dtype=real.dtype, device="cpu").uniform_(generator=own).tolist()
        factor = self.smallest + (1 - self.smallest) * drawn[0]
        height, width = (max(round(factor * side), 1) for side in z.shape[2:])
        square = real.shape[2] == real.shape[3] and z.shape[2] == z.shape[3]
        return height, width, int(4 * drawn[1]) if square else 2 * int(2 * drawn[1])

    def _other_sizes(self, z: Tensor) -> str:
        """Return the message for a decoder that takes latents of one size."""
        sides = " x ".join(map(str, z.shape[2:]))
        instead = "use one of convolutions, such as residual, or smallest: 1.0"
        return f"equivariance: the decoder makes no images of latents of {sides} places; {instead}"


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """[B, C, h, w]  Resize images [B, C, H, W] linearly, each new place a mean over its own area.

    As products with two matrices, whose gradients are the same on every run of a GPU.
    """
    import torch
    from torch.nn import functional as F

    matrices = []
    for before, after in zip(images.shape[2:], (height, width), strict=True):
        identity = images.new_ones(before, dtype=torch.float32).diag()[None, None]  # [1, 1, H, H]
        size = (after, before)
        matrix = F.interpolate(identity, size, mode="bilinear", antialias=True)[0, 0]  # [h, H]
        matrices.append(matrix.type_as(images))
    return matrices[0] @ images @ matrices[1].mT
