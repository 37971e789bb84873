"""The built-in decoders."""

from vgx_builtin.decoders.autoencoder_kl import AutoencoderKLDecoder as AutoencoderKLDecoder
from vgx_builtin.decoders.autoencoder_tiny import AutoencoderTinyDecoder as AutoencoderTinyDecoder
from vgx_builtin.decoders.biggan import BigGanDecoder as BigGanDecoder
from vgx_builtin.decoders.categorical import CategoricalDecoder as CategoricalDecoder
from vgx_builtin.decoders.conv_transpose import ConvTranspose as ConvTranspose
from vgx_builtin.decoders.dcgan import DcganDecoder as DcganDecoder
from vgx_builtin.decoders.labelled import LabelledDecoder as LabelledDecoder
from vgx_builtin.decoders.ladder import LadderDecoder as LadderDecoder
from vgx_builtin.decoders.residual import ResidualDecoder as ResidualDecoder
from vgx_builtin.decoders.style import StyleDecoder as StyleDecoder
