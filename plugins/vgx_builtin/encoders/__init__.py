"""The built-in encoders."""

from vgx_builtin.encoders.autoencoder_kl import AutoencoderKLEncoder as AutoencoderKLEncoder
from vgx_builtin.encoders.autoencoder_tiny import AutoencoderTinyEncoder as AutoencoderTinyEncoder
from vgx_builtin.encoders.binary_spherical import BinarySpherical as BinarySpherical
from vgx_builtin.encoders.conv import Conv as Conv
from vgx_builtin.encoders.deterministic import Deterministic as Deterministic
from vgx_builtin.encoders.finite_scalar import FiniteScalar as FiniteScalar
from vgx_builtin.encoders.labelled import LabelledEncoder as LabelledEncoder
from vgx_builtin.encoders.ladder import Ladder as Ladder
from vgx_builtin.encoders.noisy import Noisy as Noisy
from vgx_builtin.encoders.residual import ResidualEncoder as ResidualEncoder
from vgx_builtin.encoders.residual_quantised import ResidualQuantised as ResidualQuantised
from vgx_builtin.encoders.timm import Timm as Timm
from vgx_builtin.encoders.vector_quantised import VectorQuantised as VectorQuantised
