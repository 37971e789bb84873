"""Losses on the latents of a batch taken together.

Letters: B images, Z the latents of an image, flattened.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class Mmd(vgx.Loss, type="mmd"):
    """Maximum mean discrepancy of a batch's latents from N(0, I): InfoVAE, and WAE-MMD.

    mean_{i != j} k(z_i, z_j) + mean_{i != j} k(p_i, p_j) - 2 mean_{i, j} k(z_i, p_j), with as many
    draws p from the prior as there are latents: the unbiased estimate (Tolstikhin et al. 2018,
    algorithm 2; Zhao et al. 2017), which may be below 0. Only the latents of all images together
    are matched to the prior, not each posterior as in `kl`. It needs two images in a minibatch, and
    works better with many.
    """

    across_batch: ClassVar[bool] = True

    kernel: Literal["imq", "rbf"] = "imq"
    """With C twice the number of latents, the mean squared distance of two draws from the prior.
    `imq`: C / (C + |x - y|^2); `rbf`: exp(-|x - y|^2 / C)."""

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign; 0 is expected when the latents are the prior's."""
        step.posterior  # noqa: B018 - raises for a GAN, whose latents are the prior's
        z = step.z.flatten(1)  # [B, Z]
        if len(z) < 2:
            raise vgx.RecipeError("mmd needs a minibatch of at least two images")
        prior = z.new_empty(z.shape).normal_(generator=step.rng("mmd"))  # [B, Z]
        within = self._similarity(z, z).sum() + self._similarity(prior, prior).sum()
        # The distance of a latent from itself is 0, where both kernels are 1.
        apart = (within - 2 * len(z)) / (len(z) * (len(z) - 1))
        return apart - 2 * self._similarity(z, prior).mean()

    def _similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """[B, B]  The kernel of every pair of rows of two [B, Z]."""
        squares = (a[:, None] - b[None]).square().sum(2)  # [B, B]
        scale = 2 * a.shape[1]
        return scale / (scale + squares) if self.kernel == "imq" else (-squares / scale).exp()


class TotalCorrelation(vgx.Loss, type="total-correlation"):
    """How far the latents are from independent: KL(q(z) || prod_j q(z_j)), beta-TCVAE's term.

    mean_i [log sum_k w_ik q(z_i | x_k) - sum_j log sum_k w_ik q(z_ij | x_k)] in nats, with q(z)
    estimated by the minibatch that z was drawn with (Chen et al. 2018). `weighted` has w = 1/B; the
    paper's weights are 1 / (N * B), with N images in the data set: (Z - 1) log N more, which
    changes no gradient. `stratified` (appendix C.2) has an estimate of q(z) without bias: with M =
    B - 1, w_ii = 1/N, one other weight of each image is (N - M) / (N * M), the rest are 1/M. In the
    authors' program the weight 1/N stands in the first column; here it stands where the formula
    has it. Beside a `kl` of weight 1, a weight of beta - 1 makes beta-TCVAE's loss.
    """

    across_batch: ClassVar[bool] = True

    unit: Literal["pixel", "sample"] = "pixel"
    """`pixel`: nats for each pixel value; `sample`: nats for each image; as in `kl`."""
    estimator: Literal["weighted", "stratified"] = "weighted"
    """How q(z) is estimated: minibatch-weighted or minibatch stratified sampling."""
    images: Annotated[int, Field(ge=2)] | None = None
    """N, the number of images that are trained on; `stratified` needs it."""

    @model_validator(mode="after")
    def _knows_the_images(self) -> Self:
        if (self.estimator == "stratified") != (self.images is not None):
            message = "stratified needs 'images', the number of images that are trained on"
            raise PydanticCustomError("images", message + "; weighted takes none")
        return self

    def generator(self, step: vgx.Step) -> Tensor:
        """Return a scalar of any sign, near 0 when the latents are independent."""
        from vgx_builtin.losses.latent import gaussian

        posterior = gaussian(self.type, step.posterior)
        mu, logvar = posterior.mu.flatten(1), posterior.logvar.flatten(1)  # [B, Z]
        squares = (step.z.flatten(1)[:, None] - mu[None]) ** 2  # [B, B, Z]
        densities = -0.5 * (math.log(2 * math.pi) + logvar + squares * (-logvar).exp())
        if self.images is None:
            together = densities.sum(2).logsumexp(1) - math.log(len(mu))  # [B]
            alone = (densities.logsumexp(1) - math.log(len(mu))).sum(1)  # [B]
        else:
            weights = stratified_weights(mu, self.images).log().type_as(mu)  # [B, B]
            together = (densities.sum(2) + weights).logsumexp(1)
            alone = (densities + weights[:, :, None]).logsumexp(1).sum(1)
        return (together - alone).mean() / (step.real[0].numel() if self.unit == "pixel" else 1)


def stratified_weights(mu: Tensor, images: int) -> Tensor:
    """[B, B]  The weight of each image k of mu [B, ...] in the estimate of q(z_i); sums are 1.

    Raises `RecipeError` for a minibatch of one image, or of more images than there are.
    """
    import torch

    batch = len(mu)
    if not 2 <= batch <= images:
        raise vgx.RecipeError(
            f"total-correlation: stratified needs a minibatch of 2 to {images} images ('images'), "
            f"and this one has {batch}"
        )
    others = batch - 1  # M
    same = mu.new_ones(batch, dtype=torch.float64).diag()  # [B, B]
    following = same.roll(1, 1)  # for each image the next one
    own, next_one = 1 / images, (images - others) / (images * others)
    return own * same + next_one * following + (1 - same - following) / others
