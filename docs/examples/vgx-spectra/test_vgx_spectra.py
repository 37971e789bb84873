import math
from dataclasses import replace

import pytest
import torch
import vgx
from vgx.testing import check_part, full_step
from vgx_spectra import FocalFrequency, Spectrum


@pytest.mark.parametrize("part", [FocalFrequency(), FocalFrequency(alpha=0), Spectrum(width=8)])
def test_each_part_keeps_the_contract_of_its_kind(part):
    check_part(part)
    check_part(part, image=vgx.ImageSpec(9, channels=1))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_spectrum_of_a_wave_has_two_equal_peaks(alpha):
    """So both weights are 1, and by Parseval's theorem the loss is the mean of (0.1 cos)^2."""
    wave = 0.1 * torch.cos(2 * math.pi * torch.arange(8) / 8).expand(2, 1, 8, 8)
    step = replace(full_step(), real=torch.full((2, 1, 8, 8), 0.5), recon=wave + 0.5)
    assert FocalFrequency(alpha=alpha).generator(step).item() == pytest.approx(0.005)


def test_smaller_peaks_have_smaller_weights():
    """Two peaks have height 4 and weight 1, the other two have height 2 and weight 1/2."""
    x = torch.arange(8) * 2 * math.pi / 8
    waves = (torch.cos(x) + torch.cos(2 * x) / 2).expand(1, 1, 8, 8)
    step = replace(full_step(), real=torch.zeros(1, 1, 8, 8), recon=waves)
    assert FocalFrequency().generator(step).item() == pytest.approx((2 * 16 + 2 * 4 / 2) / 64)


def test_the_profile_is_the_power_of_each_ring():
    """White noise has the same power in all rings; a constant image has power in ring 0 only."""
    noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network = Spectrum(width=8).build(vgx.ImageSpec(16, channels=1), vgx.LatentSpec((8,)))
    profile = network(noise).features[0]  # [64, 9]
    assert profile.shape == (64, 9)
    # If X is exponential with mean 1, the mean of log X is minus Euler's constant.
    assert profile[:, 2:8].mean().item() == pytest.approx(-0.5772, abs=0.05)
    constant = network(torch.full((1, 1, 16, 16), 0.5)).features[0][0]
    assert constant[0].item() == pytest.approx(math.log(64), abs=1e-4)
    assert constant[1:].max().item() == pytest.approx(math.log(1e-6), abs=0.1)
