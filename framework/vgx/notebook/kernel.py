"""The notebook that this program runs in, if it does."""

from __future__ import annotations

import sys
from typing import Any


def _shell() -> Any:
    """Return the IPython that runs in the kernel of a notebook, or None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def in_notebook() -> bool:
    """Return whether this program runs in the kernel of a notebook."""
    return _shell() is not None


def cell() -> int | None:
    """Return the number of the cell that is executed now; None outside of a notebook."""
    shell = _shell()
    return None if shell is None else int(shell.execution_count)
