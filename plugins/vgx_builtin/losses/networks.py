"""Losses that encode and decode more than the step has computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt

import vgx
from vgx_builtin.losses.latent import gaussian

if TYPE_CHECKING:
    from torch import Tensor


class LatentRegression(vgx.Loss, type="latent-regression"):
    """The encoder finds the draw from N(0, I) that an image was decoded of: InfoGAN's term.

    1/2 (mu(G(p)) - p)^2 of a latent of a draw p, the cross-entropy of a category; mean over the
    batch, and over categories and the other ones of the first `latents`. That is minus the
    log-likelihood of q(p | image), a Gaussian with deviation 1 and categories, but for a constant:
    a lower bound of the mutual information of these latents and the image (Chen et al. 2016,
    section 5). It trains decoder and encoder, which takes the place of the paper's network Q.
    """

    latents: PositiveInt | None = None
    """How many latents the encoder must find, the first ones; `null` is all. The others are noise,
    as in the paper."""
    categories: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Sizes of blocks of the first latents that are categories, as in the decoder `categorical`:
    the block's term is the cross-entropy, with the encoder's mean as logits."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> vgx.LossTerm:
        """Return the loss itself. Raises `RecipeError` for more latents than there are."""
        del image
        if self.latents is not None and self.latents > latent.size:
            text = f"the latent has {latent.size} numbers; write at most so many"
            raise vgx.RecipeError(f"loss {self.label}: latents: {self.latents}: {text}")
        least = sum(self.categories)
        if least and (len(latent.shape) > 1 or least > (self.latents or latent.size)):
            text = f"they need a flat latent of {least} numbers or more"
            raise vgx.RecipeError(f"loss {self.label}: categories: {text}, and as many latents")
        return self

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the encoder inverts the decoder."""
        import torch
        from torch.nn import functional as F

        images = step.prior if step.has("prior") else step.decode(step.prior_z)
        drawn = step.prior_z.flatten(1)[:, : self.latents]  # [B, latents]
        found = step.encode(images).mean.flatten(1)[:, : self.latents]  # [B, latents]
        sizes = [*self.categories, drawn.shape[1] - sum(self.categories)]
        *blocks, others = zip(
            *(torch.split(each, sizes, 1) for each in (drawn, found)), strict=True
        )
        terms = [F.cross_entropy(logits, block.argmax(1)) for block, logits in blocks]
        squares = (others[1] - others[0]).square().mean(0) / 2  # [latents that are no categories]
        return torch.cat([squares, *(term[None] for term in terms)]).mean()


class SoftIntroEncoder(vgx.Loss, type="soft-intro-encoder"):
    """The encoder's adversarial term of Soft-IntroVAE: a low bound on decoded images.

    1/4 sum over x of mean exp(-2 (rec |x - x'|^2 + kl KL(x)) / P), x in {G(p), reconstructions},
    with P pixel values, x' the reconstruction of x, and both sums over an image (Daniel and Tamar
    2021, with alpha 2, as in the authors' program). Use it with `reaches: [encoder]`, beside a
    reconstruction term, `kl` and `soft-intro-decoder`.

    Changed from the authors' program: encoder and decoder are updated at the same time, not one
    after the other.
    """

    rec: NonNegativeFloat = 1.0
    """Weight of the squared error: beta_rec in the authors' program."""
    kl: NonNegativeFloat = 256.0
    """Weight of the divergence: beta_neg in the authors' program, which has 256 for 32 pixels."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar in [0, 0.5]."""
        decoded = step.decode(step.prior_z).detach()  # [B, C, H, W]
        terms = []
        for stream, images in (("prior", decoded), ("recon", step.recon.detach())):
            posterior = step.encode(images)
            nats = divergence(self.type, posterior)  # [B]
            again = step.decode(posterior.sample(step.rng(f"soft-intro {stream}")))
            error = (again - images).square().flatten(1).sum(1)  # [B]
            bound = (self.rec * error + self.kl * nats) / images[0].numel()  # [B]
            terms.append((-2 * bound).exp().mean())
        return 0.25 * (terms[0] + terms[1])


class SoftIntroDecoder(vgx.Loss, type="soft-intro-decoder"):
    """The decoder's adversarial term of Soft-IntroVAE: decoded images that the encoder accepts.

    1/2 sum over x of mean KL(x) / P, x in {G(p), reconstructions}, with P pixel values and KL that
    of the encoder's posterior from N(0, I) (Daniel and Tamar 2021). Use it with `reaches:
    [decoder]`. The weight is the authors' beta_kl.

    Changed from the authors' program: without its term for reconstructions of decoded images, whose
    weight there is 1e-8.
    """

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar >= 0; 0 when the encoder gives N(0, I) for decoded images."""
        terms = [
            divergence(self.type, step.encode(images)).mean() / images[0].numel()
            for images in (step.decode(step.prior_z), step.recon)
        ]
        return 0.5 * (terms[0] + terms[1])


def divergence(name: str, posterior: vgx.Posterior) -> Tensor:
    """[B]  The KL of each image's posterior from N(0, I) in nats.

    Raises `RecipeError` when the posterior is not Gaussian.
    """
    return gaussian(name, posterior).kl().flatten(1).sum(1)
