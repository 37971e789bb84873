"""Everything in the box, registered exactly as a stranger's plugin is."""

from __future__ import annotations

from collections.abc import Callable

import vgx
from vgx_builtin.augmentations.color_jitter import ColorJitter
from vgx_builtin.augmentations.horizontal_flip import HorizontalFlip
from vgx_builtin.augmentations.occlusion import Cutout, Translation
from vgx_builtin.augmentations.rotation import Rotation
from vgx_builtin.datasets.drawn_faces import DrawnFaces
from vgx_builtin.datasets.huggingface import HuggingFace
from vgx_builtin.datasets.image_folder import ImageFolder
from vgx_builtin.decoders.conv_transpose import ConvTranspose
from vgx_builtin.decoders.dcgan import DcganDecoder
from vgx_builtin.decoders.labelled import LabelledDecoder
from vgx_builtin.decoders.residual import ResidualDecoder
from vgx_builtin.discriminators.dcgan import DcganDiscriminator
from vgx_builtin.discriminators.multi_scale import MultiScale
from vgx_builtin.discriminators.patchgan import PatchGan
from vgx_builtin.discriminators.projection import Projection
from vgx_builtin.discriminators.residual import ResidualDiscriminator
from vgx_builtin.discriminators.timm_patchgan import TimmPatchGan
from vgx_builtin.encoders.conv import Conv
from vgx_builtin.encoders.deterministic import Deterministic
from vgx_builtin.encoders.residual import ResidualEncoder
from vgx_builtin.encoders.timm import Timm
from vgx_builtin.encoders.vector_quantised import VectorQuantised
from vgx_builtin.features.inception import Inception
from vgx_builtin.features.random_conv import RandomConv
from vgx_builtin.features.timm import Timm as TimmFeatures
from vgx_builtin.losses.adversarial import (
    BceAdversarial,
    Hinge,
    LeastSquares,
    Minimax,
    Relativistic,
    Wasserstein,
)
from vgx_builtin.losses.divergence import Mmd, TotalCorrelation, Vq
from vgx_builtin.losses.latent import Kl
from vgx_builtin.losses.penalties import R1, R2, Dragan, GradientPenalty, LeCam
from vgx_builtin.losses.perceptual import FeatureMatching, Perceptual
from vgx_builtin.losses.reconstruction import L1, L2, Bce, Charbonnier
from vgx_builtin.losses.similarity import MsSsim, Ssim
from vgx_builtin.metrics.perceptual import Perceptual as PerceptualMetric
from vgx_builtin.metrics.pixels import Difference, Psnr
from vgx_builtin.metrics.pixels import MsSsim as MsSsimMetric
from vgx_builtin.metrics.pixels import Ssim as SsimMetric
from vgx_builtin.metrics.sets import Fid, Kid, Prdc
from vgx_builtin.samplers.fitted import AggregateGaussian, GaussianMixture
from vgx_builtin.samplers.interpolate import Interpolate
from vgx_builtin.samplers.posterior import PosteriorCodes
from vgx_builtin.samplers.prior import Prior
from vgx_builtin.samplers.stored import Neighbours, Reconstruct
from vgx_builtin.samplers.traversal import Traversal
from vgx_builtin.samplers.truncation import Truncation
from vgx_builtin.samplers.weighted_mix import WeightedMix
from vgx_builtin.trackers.mlflow import MlFlow
from vgx_builtin.trackers.table import Csv
from vgx_builtin.trackers.tensorboard import TensorBoard
from vgx_builtin.trackers.wandb import Wandb

PARTS: tuple[type[vgx.Component], ...] = (
    DrawnFaces,
    HuggingFace,
    ImageFolder,
    ColorJitter,
    Cutout,
    HorizontalFlip,
    Rotation,
    Translation,
    Conv,
    Deterministic,
    ResidualEncoder,
    Timm,
    VectorQuantised,
    ConvTranspose,
    DcganDecoder,
    LabelledDecoder,
    ResidualDecoder,
    DcganDiscriminator,
    MultiScale,
    PatchGan,
    Projection,
    ResidualDiscriminator,
    TimmPatchGan,
    Bce,
    BceAdversarial,
    Charbonnier,
    Dragan,
    FeatureMatching,
    GradientPenalty,
    Hinge,
    Kl,
    L1,
    L2,
    LeCam,
    LeastSquares,
    Minimax,
    Mmd,
    MsSsim,
    Perceptual,
    R1,
    R2,
    Relativistic,
    Ssim,
    TotalCorrelation,
    Vq,
    Wasserstein,
    AggregateGaussian,
    GaussianMixture,
    Interpolate,
    Neighbours,
    PosteriorCodes,
    Prior,
    Reconstruct,
    Traversal,
    Truncation,
    WeightedMix,
    Inception,
    RandomConv,
    TimmFeatures,
    Difference,
    Fid,
    Kid,
    MsSsimMetric,
    PerceptualMetric,
    Prdc,
    Psnr,
    SsimMetric,
    Csv,
    MlFlow,
    TensorBoard,
    Wandb,
)


@vgx.hookimpl
def register_components(register: Callable[[type[vgx.Component]], None]) -> None:
    """Offer the built-in parts."""
    for part in PARTS:
        register(part)
