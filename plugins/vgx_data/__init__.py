"""Commands around data sets: a plugin like any other.

look       images of a data set as the networks get them: `vgx look`
pack       any data set as shards of parquet, which can be streamed: `vgx pack`
commands   the commands
"""

from __future__ import annotations

import click

import vgx


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the commands."""
    from vgx_data.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)
