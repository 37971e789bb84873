"""Sweeps and ablations: many runs of one recipe, with Optuna as their queue and memory.

commands   the commands: sweep, ablate
space      what is varied: `--over`, lists and ranges, the points of a grid
plan       the plan of a study, as its storage has it
storage    the storage of a study: SQLite or PostgreSQL, trials that wait and are taken
work       a worker: trial after trial
training   one run of a trial: trained, resumed, or found
workers    several workers on one machine
results    rows of points, importance of fields, the best recipe
ablation   what is left out, and paired differences
sweep_page the page of a study
"""

from __future__ import annotations

import click

import vgx


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the commands."""
    from vgx_sweep.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)
