"""Networks whose features metrics compare."""

from vgx_builtin.features.inception import Inception as Inception
from vgx_builtin.features.random_conv import RandomConv as RandomConv
from vgx_builtin.features.timm import Timm as Timm
