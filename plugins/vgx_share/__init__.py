"""Models that leave their run: export, import and push. A plugin like any other.

exporting   `vgx export`: the files of a folder that any program can read
card        the card of a model
onnx        encoder and decoder as ONNX files
diffusers   the folder of an autoencoder of diffusers, written and read
importing   `vgx import`: a run out of a folder
pushing     `vgx push`: a folder onto the hub
commands    the commands
"""

from __future__ import annotations

import click

import vgx


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the commands."""
    from vgx_share.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)
