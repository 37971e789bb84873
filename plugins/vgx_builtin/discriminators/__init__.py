"""The built-in discriminators."""

from vgx_builtin.discriminators.biggan import BigGanDiscriminator as BigGanDiscriminator
from vgx_builtin.discriminators.dcgan import DcganDiscriminator as DcganDiscriminator
from vgx_builtin.discriminators.latent_mlp import LatentMlp as LatentMlp
from vgx_builtin.discriminators.multi_scale import MultiScale as MultiScale
from vgx_builtin.discriminators.pair_conv import PairConv as PairConv
from vgx_builtin.discriminators.patchgan import PatchGan as PatchGan
from vgx_builtin.discriminators.projected import Projected as Projected
from vgx_builtin.discriminators.projected_vit import ProjectedVit as ProjectedVit
from vgx_builtin.discriminators.projection import Projection as Projection
from vgx_builtin.discriminators.residual import ResidualDiscriminator as ResidualDiscriminator
from vgx_builtin.discriminators.style import StyleDiscriminator as StyleDiscriminator
from vgx_builtin.discriminators.timm_patchgan import TimmPatchGan as TimmPatchGan
from vgx_builtin.discriminators.unet import Unet as Unet
