"""Figures for papers and notebooks, with matplotlib: a plugin like any other.

commands   the commands
"""

from __future__ import annotations

import click

import vgx


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the commands."""
    from vgx_figures.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)
