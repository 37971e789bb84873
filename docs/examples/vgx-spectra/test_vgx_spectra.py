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
def test_a_single_wave_is_two_peaks(alpha):
    """Both are as high, so their weights are 1; by Parseval the mean is that of (0.1 cos)^2."""
    wave = 0.1 * torch.cos(2 * math.pi * torch.arange(8) / 8).expand(2, 1, 8, 8)
    step = replace(full_step(), real=torch.full((2, 1, 8, 8), 0.5), recon=wave + 0.5)
    assert FocalFrequency(alpha=alpha).generator(step).item() == pytest.approx(0.005)


def test_smaller_peaks_count_less():
    """Two peaks of height 4 with weight 1, two of height 2 with weight 1/2."""
    x = torch.arange(8) * 2 * math.pi / 8
    waves = (torch.cos(x) + torch.cos(2 * x) / 2).expand(1, 1, 8, 8)
    step = replace(full_step(), real=torch.zeros(1, 1, 8, 8), recon=waves)
    assert FocalFrequency().generator(step).item() == pytest.approx((2 * 16 + 2 * 4 / 2) / 64)


def test_the_profile_is_the_power_of_each_ring():
    """White noise has the same power in all rings; a flat image has all of it in ring 0."""
    noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network = Spectrum(width=8).build(vgx.ImageSpec(16, channels=1))
    profile = network(noise).features[0]  # [64, 9]
    assert profile.shape == (64, 9)
    # The mean logarithm of an exponential variable of mean 1 is minus Euler's constant.
    assert profile[:, 2:8].mean().item() == pytest.approx(-0.5772, abs=0.05)
    flat = network(torch.full((1, 1, 16, 16), 0.5)).features[0][0]
    assert flat[0].item() == pytest.approx(math.log(64), abs=1e-4)
    assert flat[1:].max().item() == pytest.approx(math.log(1e-6), abs=0.1)
