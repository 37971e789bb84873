"""A decoder whose images show the label and the latent that they were decoded of."""

from __future__ import annotations

import torch
from torch import nn

import vgx


class Shows(nn.Module):
    """Red is the label, from 0 to 9; green the first number of the latent, from -45 to 45."""

    def forward(self, z, labels):
        red, green = labels / 10 + 0.05, z[:, 0] / 100 + 0.5
        colour = torch.stack([red, green, torch.full_like(green, 0.5)], 1).logit()
        return colour[:, :, None, None].expand(-1, -1, 16, 16)


class ShowsLabels(vgx.Decoder, type="shows-labels"):
    """Shows the label and the first number of the latent."""

    conditional = True

    def build(self, latent, image):
        return Shows()


def shown(images):
    """The labels and the first numbers of the latents that images show."""
    red, green = images[:, 0, 0, 0], images[:, 1, 0, 0]
    return ((red - 0.05) * 10).round().long(), (green - 0.5) * 100
