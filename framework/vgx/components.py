"""Components: an old name of modules in `vgx.parts`, which the next release removes.

Import from `vgx` instead: `from vgx import Loss`.
"""

from __future__ import annotations

import warnings
from typing import Any

from vgx.parts import base, kinds, values

warnings.warn(
    "vgx.components is split into vgx.parts.kinds, .base and .values; import from vgx instead",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    """Look up a name in the modules that replace this one."""
    name = kinds.RENAMED.get(name, name)
    for module in (kinds, base, values):
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(f"module 'vgx.components' has no attribute {name!r}")
