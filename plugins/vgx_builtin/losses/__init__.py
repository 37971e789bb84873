"""Losses: functions of what the step computed."""

from vgx_builtin.losses.adversarial import BceAdversarial as BceAdversarial
from vgx_builtin.losses.adversarial import Hinge as Hinge
from vgx_builtin.losses.adversarial import LeastSquares as LeastSquares
from vgx_builtin.losses.adversarial import Minimax as Minimax
from vgx_builtin.losses.adversarial import Relativistic as Relativistic
from vgx_builtin.losses.adversarial import Wasserstein as Wasserstein
from vgx_builtin.losses.codebooks import BitEntropy as BitEntropy
from vgx_builtin.losses.codebooks import Vq as Vq
from vgx_builtin.losses.divergence import Mmd as Mmd
from vgx_builtin.losses.divergence import TotalCorrelation as TotalCorrelation
from vgx_builtin.losses.latent import Kl as Kl
from vgx_builtin.losses.penalties import R1 as R1
from vgx_builtin.losses.penalties import R2 as R2
from vgx_builtin.losses.penalties import Dragan as Dragan
from vgx_builtin.losses.penalties import GradientPenalty as GradientPenalty
from vgx_builtin.losses.penalties import LeCam as LeCam
from vgx_builtin.losses.perceptual import FeatureMatching as FeatureMatching
from vgx_builtin.losses.perceptual import Perceptual as Perceptual
from vgx_builtin.losses.reconstruction import L1 as L1
from vgx_builtin.losses.reconstruction import L2 as L2
from vgx_builtin.losses.reconstruction import Bce as Bce
from vgx_builtin.losses.reconstruction import Charbonnier as Charbonnier
from vgx_builtin.losses.similarity import MsSsim as MsSsim
from vgx_builtin.losses.similarity import Ssim as Ssim
