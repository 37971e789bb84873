"""The built-in priors."""

from vgx_builtin.priors.rectified_flow import RectifiedFlow as RectifiedFlow
from vgx_builtin.priors.transformer import Transformer as Transformer
