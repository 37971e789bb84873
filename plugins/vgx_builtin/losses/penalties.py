"""Penalties that keep a discriminator smooth; each has a term for the discriminator only.

The slope of an image is the gradient of its mean logit: the mean over the patches that the
discriminator scores, so that the penalty does not depend on their number. It is the gradient by
pixels of [-1, 1], as in the papers, so that their weights have the same effect here. For a
discriminator of latents or of pairs it is the gradient by the latents, or by both. Letters: B
images, C channels, H x W pixels, Z the latent shape, P = all numbers that the discriminator judges
of an image, F fakes for each image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class GradientPenalty(vgx.Loss, type="gradient-penalty"):
    """Slopes of length 1 between real images and fakes: WGAN-GP (Gulrajani et al. 2017, eq. 3).

    mean (|grad D(x)| - 1)^2 at x = eps * real + (1 - eps) * fake, eps ~ U(0, 1) for each image.
    """

    weight: vgx.Weight = 10.0
    """Lambda in the paper, which has 10; a number, a schedule or adaptive."""

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when every slope has length 1."""
        import torch

        pairs = [
            (torch.cat([real] * (len(fake) // len(real))), fake.detach())  # [F*B, ...] each
            for real, fake in zip(step.judged_real, step.judged_fake, strict=True)
        ]
        first = pairs[0][0]
        eps = first.new_empty(len(first)).uniform_(generator=step.rng("gradient-penalty"))
        mixed = []
        for real, fake in pairs:
            share = eps.view(-1, *[1] * (real.dim() - 1))  # [F*B, 1, ...]
            mixed.append(share * real + (1 - share) * fake)
        return _distance_from_1(step, mixed)


class R1(vgx.Loss, type="r1"):
    """Flat slopes at real images: 1/2 mean |grad D(real)|^2 (Mescheder et al. 2018, eq. 9).

    The square is summed over pixel values.
    """

    weight: vgx.Weight = 10.0
    """Gamma in the paper, which has 10; a number, a schedule or adaptive."""

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the discriminator is flat there."""
        return 0.5 * _slopes(step, step.judged_real).square().sum(1).mean()


class R2(vgx.Loss, type="r2"):
    """Flat slopes at fakes: 1/2 mean |grad D(fake)|^2 (Mescheder et al. 2018, eq. 10).

    The square is summed over pixel values. Beside `r1` and `relativistic` it makes R3GAN's loss
    (Huang et al. 2024).
    """

    weight: vgx.Weight = 10.0
    """Gamma in the paper, which has 10; a number, a schedule or adaptive."""

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the discriminator is flat there."""
        return 0.5 * _slopes(step, step.judged_fake).square().sum(1).mean()


class Dragan(vgx.Loss, type="dragan"):
    """Slopes of length 1 around real images: DRAGAN (Kodali et al. 2017).

    mean (|grad D(x)| - 1)^2 at x = real + alpha * 0.5 * s * u, with s the standard deviation of all
    pixel values of the batch, u ~ U(0, 1) for each pixel value and alpha ~ U(0, 1) for each image;
    of latents likewise.
    These are the points of the authors' program; its pixels (of MNIST) are in [0, 1].
    """

    across_batch: ClassVar[bool] = True

    weight: vgx.Weight = 10.0
    """Lambda in the paper, which has 10; a number, a schedule or adaptive."""

    def discriminator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when every slope has length 1."""
        judged = [real.detach() for real in step.judged_real]
        generator = step.rng("dragan")
        noises = [real.new_empty(real.shape).uniform_(generator=generator) for real in judged]
        alpha = judged[0].new_empty(len(judged[0])).uniform_(generator=generator)  # [B]
        moved = []
        for real, noise in zip(judged, noises, strict=True):
            share = alpha.view(-1, *[1] * (real.dim() - 1))  # [B, 1, ...]
            moved.append(real + share * 0.5 * real.std(correction=0) * noise)
        return _distance_from_1(step, moved)


class LeCam(vgx.Loss, type="lecam"):
    """Keep logits near the average of the other kind, for few images (Tseng et al. 2021).

    mean (D(real) - a_fake)^2 + mean (D(fake) - a_real)^2, where a_real and a_fake follow the mean
    logits by an exponential moving average that begins as a plain one. They are saved with the run.
    This is the paper's formula; the authors' programs have relu(D(real) - a_fake)^2 and
    relu(a_real - D(fake))^2.
    """

    weight: vgx.Weight = 0.3
    """Lambda in the paper, which has 0.3 with BigGAN; a number, a schedule or adaptive."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """The decay of the moving averages in each step."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Make a module that holds the averages and has the discriminator's term."""
        del image, latent
        from vgx_builtin.losses.modules import LeCamTerm

        return LeCamTerm(self.decay)


def _slopes(step: vgx.Step, judged: Sequence[Tensor]) -> Tensor:
    """[B, P]  The gradient of each mean logit by what is judged, images as pixels of [-1, 1].

    It is differentiable.
    """
    import torch

    inputs = [each.detach().requires_grad_() for each in judged]
    logits = step.discriminator(*inputs).logits  # [B, 1, h, w] or [B, 1]
    slopes = torch.autograd.grad(logits.flatten(1).mean(1).sum(), inputs, create_graph=True)
    flat = [slope.flatten(1) for slope in slopes]
    if step.judges != "latents":
        flat[0] = flat[0] / 2  # images are in [0, 1]: d/d(2x - 1) is half of d/dx
    return torch.cat(flat, 1) if len(flat) > 1 else flat[0]


def _distance_from_1(step: vgx.Step, judged: Sequence[Tensor]) -> Tensor:
    """Return mean (|slope| - 1)^2; the small number keeps the root's derivative finite at 0."""
    lengths = (_slopes(step, judged).square().sum(1) + 1e-12).sqrt()  # [B]
    return ((lengths - 1) ** 2).mean()
