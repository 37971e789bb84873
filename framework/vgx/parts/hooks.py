"""The hooks: functions that a plugin implements, marked with `vgx.hookimpl`.

A plugin implements one of them or more. Each is called by itself for each plugin, and an error in
one plugin stops neither the program nor another plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

from vgx.parts.base import Component

if TYPE_CHECKING:
    import click

PROJECT = "vgx"
HOOKS = ("register_components", "register_commands", "run_ended", "run_evaluated")
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_components(register: Callable[[type[Component]], None]) -> None:
    """Call `register` once with each part class that the plugin offers."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands to the program, with `@cli.command()` or `cli.add_command`."""


@hookspec
def run_ended(run: Any) -> None:
    """Do something with a run, a `vgx.Run`, whose training has ended, whatever ended it.

    `ended.json` is written by then, and says how it ended. An error becomes a warning: the run's
    own end and the exit code stay as they are.
    """


@hookspec
def run_evaluated(run: Any) -> None:
    """Do something with a run, a `vgx.Run`, whose `evaluation.json` was written anew.

    An error becomes a warning.
    """
