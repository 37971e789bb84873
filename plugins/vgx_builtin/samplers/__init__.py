"""The built-in samplers."""

from vgx_builtin.samplers.fitted import AggregateGaussian as AggregateGaussian
from vgx_builtin.samplers.fitted import GaussianMixture as GaussianMixture
from vgx_builtin.samplers.interpolate import Interpolate as Interpolate
from vgx_builtin.samplers.learned_prior import LearnedPrior as LearnedPrior
from vgx_builtin.samplers.posterior import PosteriorCodes as PosteriorCodes
from vgx_builtin.samplers.prior import Prior as Prior
from vgx_builtin.samplers.stored import Neighbours as Neighbours
from vgx_builtin.samplers.stored import Reconstruct as Reconstruct
from vgx_builtin.samplers.style_truncation import StyleTruncation as StyleTruncation
from vgx_builtin.samplers.traversal import Traversal as Traversal
from vgx_builtin.samplers.truncation import Truncation as Truncation
from vgx_builtin.samplers.vamp_prior import VampPriorSampler as VampPriorSampler
from vgx_builtin.samplers.weighted_mix import WeightedMix as WeightedMix
