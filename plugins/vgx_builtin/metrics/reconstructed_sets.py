"""Reconstructions compared with their images as two sets of features."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator

import vgx
from vgx_builtin.features.inception import Inception
from vgx_builtin.metrics.inception import only_inception
from vgx_builtin.metrics.sets import Frechet


class ReconstructionFrechet(Frechet, type="reconstruction-frechet"):
    """Frechet distance of reconstructions and their images in the features of a network.

    As `frechet-distance`, of the images that are reconstructed instead of samples (Esser et al.
    2021, section 4). It is biased: fewer images give a larger distance, so compare only values of
    equally many images. In Inception's features it is the `rfid`.
    """

    pairs: ClassVar[bool] = True


class Rfid(Frechet, type="rfid"):
    """Frechet Inception Distance of reconstructions and their images (Heusel et al. 2017, eq. 6).

    Published values are of 50,000 images, those of ImageNet's validation set for instance (Esser et
    al. 2021). It is biased: fewer images give a larger distance, so compare only values of equally
    many images.
    """

    pairs: ClassVar[bool] = True
    on_request: ClassVar[bool] = True

    features: vgx.Features = Inception()
    """`inception`, with fetched weights or with a local file of them."""

    @field_validator("features")
    @classmethod
    def _only_inception(cls, features: vgx.Features) -> vgx.Features:
        return only_inception(features, "rfid", "reconstruction-frechet")
