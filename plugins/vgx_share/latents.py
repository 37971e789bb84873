"""Which drawn latents may be shown: a decoded stored latent is a training image's reconstruction.

Letters: n drawn latents, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 0.05  # of the usual distance between two stored latents


def far_from_stored(drawn: Tensor, codes: Tensor) -> Tensor:
    """[n]  Whether drawn latents [n, *Z] are none of the stored ones [K, *Z], nor almost so."""
    if not len(codes):
        return torch.ones(len(drawn), dtype=torch.bool)
    flat = codes.flatten(1).float()
    usual = (flat - flat.roll(1, 0)).norm(dim=1).median()  # between two stored ones
    exact = "donot_use_mm_for_euclid_dist"
    nearest = torch.cdist(drawn.flatten(1).float(), flat, compute_mode=exact).amin(1)  # [n]
    return nearest.gt(NEAR * usual)
