"""The maps in the picture of a replayed step."""

from __future__ import annotations

import torch

from vgx_runs.replay import _images


def test_a_map_may_have_more_values_than_a_quantile_takes():
    """The value that 99 of 100 do not exceed is white, and half of it is grey."""
    maps = torch.zeros(1, 1, 2**24 + 1)
    maps[..., : 2**20] = 4
    maps[..., -8:] = 2
    tensors = {"data": torch.zeros(1, 1, 1, 1), "map of real": maps}
    drawn = _images("map of real", tensors, [0])
    assert drawn[0, 0, 0, [0, 2**20, -1]].tolist() == [1, 0, 0.5]


def test_one_bright_pixel_does_not_make_the_others_black():
    maps = torch.arange(1.0, 202).view(1, 3, 67)
    maps[0, 2, 66] = 1e6
    tensors = {"data": torch.zeros(1, 1, 1, 1), "map of real": maps}
    drawn = _images("map of real", tensors, [0])
    assert torch.allclose(drawn.flatten(), (maps / 199).clamp(0, 1).flatten())
