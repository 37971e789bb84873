"""A loss that decodes: images of different latents differ."""

import torch
import vgx


class ModeSeeking(vgx.Loss, type="mode-seeking"):
    """The distance of two draws from N(0, I) over that of their images (Mao et al. 2019).

    The smaller it is, the more do the images of different latents differ.
    """

    def generator(self, step: vgx.Step):
        other = torch.empty_like(step.prior_z).normal_(generator=step.rng("mode-seeking"))
        images = (step.decode(step.prior_z) - step.decode(other)).abs().flatten(1).mean(1)  # [B]
        latents = (step.prior_z - other).abs().flatten(1).mean(1)  # [B]
        return (latents / (images + 1e-5)).mean()


@vgx.hookimpl
def register_components(register):
    register(ModeSeeking)
