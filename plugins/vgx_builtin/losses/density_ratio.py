"""The total correlation of the latents, estimated by a critic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import nn


class DensityRatioTc(vgx.Loss, type="density-ratio-tc"):
    """How far the latents are from independent, by a critic's density ratio: FactorVAE's term.

    Generator: mean C(z), where C is the critic's logit: an estimate of KL(q(z) || prod_j q(z_j)) in
    nats (Kim and Mnih 2018, eq. 3). Discriminator: 1/2 [mean softplus(-C(z)) + mean softplus(
    C(permuted z))]. In permuted z each latent is permuted over the minibatch by a permutation of
    its own (algorithm 1).

    Changed from the paper: z and permuted z are those of one minibatch, where the paper permutes a
    second one; the critic has one logit, not two. Beside a `kl` of weight 1 in the same unit, the
    weight is the paper's gamma. The discriminator's optimizer trains the critic.
    """

    critic: ClassVar[bool] = True
    across_batch: ClassVar[bool] = True

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1000,) * 6
    """Units of each hidden layer of the critic; the paper has six of 1000."""
    unit: Literal["pixel", "sample"] = "pixel"
    """`pixel`: nats for each pixel value; `sample`: nats for each image; as in `kl`."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Make a module with the critic and both terms."""
        from vgx_builtin.critics import DensityRatioTerm, LatentDiscriminator

        critic: nn.Module = LatentDiscriminator(latent.size, self.widths)
        return DensityRatioTerm(critic, 1 / image.pixel_values if self.unit == "pixel" else 1.0)
