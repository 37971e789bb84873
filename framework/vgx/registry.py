"""Registry: an old name of `vgx.parts.registry`, which goes with the next release.

Import from `vgx` instead: `from vgx import Registry`.
"""

from __future__ import annotations

import warnings
from typing import Any

from vgx.parts import registry

warnings.warn(
    "vgx.registry is vgx.parts.registry now; what authors of plugins need is in vgx itself",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    """Look a name up in its new place."""
    return getattr(registry, name)
