"""Measures of reconstructions and of generated images."""

from vgx_builtin.metrics.perceptual import Perceptual as Perceptual
from vgx_builtin.metrics.pixels import Difference as Difference
from vgx_builtin.metrics.pixels import MsSsim as MsSsim
from vgx_builtin.metrics.pixels import Psnr as Psnr
from vgx_builtin.metrics.pixels import Ssim as Ssim
from vgx_builtin.metrics.sets import Fid as Fid
from vgx_builtin.metrics.sets import Kid as Kid
from vgx_builtin.metrics.sets import Prdc as Prdc
