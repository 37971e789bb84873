"""The network. Only `build` imports this module, so listing the parts does not load torch.

Letters: B images, C channels, H x W pixels, R rings of frequencies.
"""

import torch
import vgx
from torch import nn


class SpectrumNetwork(nn.Module):
    """Score the profile of an image's power spectrum."""

    def __init__(self, image: vgx.ImageSpec, width: int):
        super().__init__()
        side = min(image.height, image.width)
        down = torch.fft.fftfreq(image.height) * side  # [H]
        across = torch.fft.fftfreq(image.width) * side  # [W]
        radius = (down[:, None] ** 2 + across[None, :] ** 2).sqrt().round()  # [H, W]
        rings = side // 2 + 1
        # The frequencies in the corners are counted in the last ring.
        index = radius.long().clamp(max=rings - 1).flatten()  # [H*W]
        members = nn.functional.one_hot(index, rings)  # [H*W, R]
        self.register_buffer("mean", members / members.sum(0), persistent=False)
        self.hidden = nn.Linear(image.channels * rings, width)
        self.head = nn.Linear(width, 1)

    def forward(self, images):
        images = images.to(torch.promote_types(images.dtype, torch.float32))  # fft2 has no bfloat16
        spectrum = torch.fft.fft2(images, norm="ortho").flatten(2)  # [B, C, H*W]
        power = (spectrum.real**2 + spectrum.imag**2 + 1e-6).log()
        profile = (power @ self.mean).flatten(1)  # [B, C*R]
        hidden = self.hidden(profile).relu()  # [B, width]
        return vgx.Score(self.head(hidden), (profile, hidden))
