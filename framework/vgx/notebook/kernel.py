"""The notebook that this program runs in, if it does."""

from __future__ import annotations

import sys
from typing import Any, Self


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


class ShownOnce:
    """A value that shows itself, unless the cell that is executed now shows it already."""

    _shown_in: int | None = None  # the cell that shows it already

    def shown(self) -> Self:
        """Note that the cell that is executed now shows the value already; return the value."""
        object.__setattr__(self, "_shown_in", cell())  # such values are frozen
        return self

    def _ipython_display_(self) -> None:
        require_new(self._shown_in)


def require_new(shown_in: int | None) -> None:
    """Raise `NotImplementedError`, so that IPython shows a value, if this cell did not show it."""
    if shown_in is None or shown_in != cell():
        raise NotImplementedError
