"""What people do with runs: fork, replay, remove, note. A plugin like any other.

commands   the commands: fork, replay, note, rm
replay     a step that was computed once more, as a folder
remove     removing runs: only what is a run
"""

from __future__ import annotations

import click

import vgx


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the commands."""
    from vgx_runs.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)
