"""Components: an old name of `vgx.parts.kinds`, which goes with the next release.

Import from `vgx` instead: `from vgx import Loss`.
"""

from __future__ import annotations

import warnings
from typing import Any

from vgx.parts import kinds

warnings.warn(
    "vgx.components is vgx.parts.kinds now; what authors of plugins need is in vgx itself",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    """Look a name up in its new place."""
    return getattr(kinds, name)
