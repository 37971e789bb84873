"""The hook that a plugin implements."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from vgx.parts.base import Component

PROJECT = "vgx"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_components(register: Callable[[type[Component]], None]) -> None:
    """Call `register` once for each part class of the plugin."""
