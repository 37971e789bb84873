"""The built-in encoders."""

from vgx_builtin.encoders.autoencoder_kl import AutoencoderKLEncoder as AutoencoderKLEncoder
from vgx_builtin.encoders.autoencoder_tiny import AutoencoderTinyEncoder as AutoencoderTinyEncoder
from vgx_builtin.encoders.conv import Conv as Conv
from vgx_builtin.encoders.deterministic import Deterministic as Deterministic
from vgx_builtin.encoders.residual import ResidualEncoder as ResidualEncoder
from vgx_builtin.encoders.timm import Timm as Timm
from vgx_builtin.encoders.vector_quantised import VectorQuantised as VectorQuantised
