"""Registry: an old name of `vgx.parts.registry`, which the next release removes.

Import from `vgx` instead: `from vgx import Registry`.
"""

from __future__ import annotations

import warnings
from typing import Any

from vgx.parts import registry

warnings.warn(
    "vgx.registry is vgx.parts.registry now; import from vgx instead",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    """Look up a name in the module that replaces this one."""
    return getattr(registry, name)
