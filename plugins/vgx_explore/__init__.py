"""A page in which people play with a trained model: a plugin like any other.

commands   the commands
"""

from __future__ import annotations

import click

import vgx


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the commands."""
    from vgx_explore.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)
