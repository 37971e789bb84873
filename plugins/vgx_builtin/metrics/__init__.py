"""Measures of reconstructions and of generated images."""

from vgx_builtin.metrics.detail import Detail as Detail
from vgx_builtin.metrics.inception import Fid as Fid
from vgx_builtin.metrics.inception import Kid as Kid
from vgx_builtin.metrics.inception_score import InceptionScore as InceptionScore
from vgx_builtin.metrics.likelihood import BitsPerDim as BitsPerDim
from vgx_builtin.metrics.lpips import LpipsMetric as LpipsMetric
from vgx_builtin.metrics.memorisation import Memorisation as Memorisation
from vgx_builtin.metrics.path_length import PathLength as PathLength
from vgx_builtin.metrics.perceptual import Perceptual as Perceptual
from vgx_builtin.metrics.pixels import Difference as Difference
from vgx_builtin.metrics.pixels import MsSsim as MsSsim
from vgx_builtin.metrics.pixels import Psnr as Psnr
from vgx_builtin.metrics.pixels import Ssim as Ssim
from vgx_builtin.metrics.prdc import Prdc as Prdc
from vgx_builtin.metrics.reconstructed_sets import ReconstructionFrechet as ReconstructionFrechet
from vgx_builtin.metrics.reconstructed_sets import Rfid as Rfid
from vgx_builtin.metrics.sets import FrechetDistance as FrechetDistance
from vgx_builtin.metrics.sets import KernelDistance as KernelDistance
