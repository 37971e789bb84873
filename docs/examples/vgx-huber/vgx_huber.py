"""A Huber reconstruction loss for vgx."""

import torch.nn.functional as F
import vgx
from pydantic import PositiveFloat


class Huber(vgx.Loss, type="huber"):
    """Huber distance between image and reconstruction, mean over pixels (Huber 1964)."""

    delta: PositiveFloat = 1.0
    """Absolute error at which the loss becomes linear."""

    def generator(self, step: vgx.Step):
        return F.huber_loss(step.recon, step.real, delta=self.delta)


@vgx.hookimpl
def register_components(register):
    register(Huber)
