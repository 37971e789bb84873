"""Figures for papers and notebooks, with matplotlib: a plugin like any other.

groups     runs as lines of a figure: runs that differ in their seed alone are one
drawing    the style of all figures, and a figure with its files
kinds      the kinds of figures, by name
curves     what runs logged
bars       the metrics of `vgx eval`, and the gradients that the audit measured
trained    what the others need of a run: its networks, and images of its data
grids      samples, and reconstructions
latents    the KL of each dimension, and a map
commands   the command: figure
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import vgx

if TYPE_CHECKING:
    from vgx.runs.directory import Run
    from vgx_figures.drawing import Plot

    Named = Run | str | Path | int | None


def plot(
    runs: Named | list[Named] | tuple[Named, ...] = None,
    what: str = "curves",
    *,
    width: str | float = "170mm",
    labels: str | Sequence[str] = (),
    **options: Any,
) -> Plot:
    """Draw a figure of a run or of several; None is the newest run.

    A run is a path, a number or a name. Runs of one recipe that differ in their seed alone are one
    line, the mean of these runs, with a band. `what` is a kind of figure, and `options` are those
    of this kind: see docs/figures.md. `width` is a number of millimetres, or a text with a unit;
    `labels` name the lines. Raises `RecipeError`, and `StorageError` for what a run lacks.
    """
    from vgx.runs.directory import find
    from vgx_figures.drawing import styled, width_of
    from vgx_figures.groups import grouped
    from vgx_figures.kinds import kind_of

    several = list(runs) if isinstance(runs, list | tuple) else [runs]
    draw = kind_of(what, options)
    with styled():
        names = [labels] if isinstance(labels, str) else labels
        return draw(grouped([find(run) for run in several], names), width_of(width))


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the command `figure`."""
    from vgx_figures.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)
