"""Everything in the box, registered exactly as a stranger's plugin is."""

from __future__ import annotations

from collections.abc import Callable

import vgx
from vgx_builtin.augmentations.horizontal_flip import HorizontalFlip
from vgx_builtin.augmentations.rotation import Rotation
from vgx_builtin.datasets.drawn_faces import DrawnFaces
from vgx_builtin.datasets.huggingface import HuggingFace
from vgx_builtin.datasets.image_folder import ImageFolder
from vgx_builtin.decoders.conv_transpose import ConvTranspose
from vgx_builtin.discriminators.patchgan import PatchGan
from vgx_builtin.discriminators.timm_patchgan import TimmPatchGan
from vgx_builtin.encoders.conv import Conv
from vgx_builtin.encoders.timm import Timm
from vgx_builtin.losses.adversarial import BceAdversarial, Hinge
from vgx_builtin.losses.latent import Kl
from vgx_builtin.losses.reconstruction import L1, L2, Bce
from vgx_builtin.samplers.posterior import PosteriorCodes
from vgx_builtin.samplers.prior import Prior
from vgx_builtin.samplers.weighted_mix import WeightedMix

PARTS: tuple[type[vgx.Component], ...] = (
    DrawnFaces,
    HuggingFace,
    ImageFolder,
    HorizontalFlip,
    Rotation,
    Conv,
    Timm,
    ConvTranspose,
    PatchGan,
    TimmPatchGan,
    Bce,
    BceAdversarial,
    Hinge,
    Kl,
    L1,
    L2,
    PosteriorCodes,
    Prior,
    WeightedMix,
)


@vgx.hookimpl
def register_components(register: Callable[[type[vgx.Component]], None]) -> None:
    """Offer the built-in parts."""
    for part in PARTS:
        register(part)
