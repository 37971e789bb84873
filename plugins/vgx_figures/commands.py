"""The commands of this plugin."""

from __future__ import annotations

import click

COMMANDS: tuple[click.Command, ...] = ()
