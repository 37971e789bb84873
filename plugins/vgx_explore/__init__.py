"""A page in which people play with a trained model: a plugin like any other.

engine      onnxruntime-web, fetched once
latents     what the page mixes, and the directions of its sliders
precision   ONNX files with smaller parameters
run_page    one HTML file with all of it; its markup, style and scripts are in `page/`
commands    the command `explore`
"""

from __future__ import annotations

from pathlib import Path

import click

import vgx


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `explore`."""
    from vgx_explore.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)


def explore(
    run: vgx.Run | str | Path | int | None = None,
    out: str | Path | None = None,
    *,
    stored: bool = False,
    engine: str | Path | None = None,
    best: bool = False,
) -> Path:
    """Make the page to play with a run (the newest by default), as `vgx explore`; return its file.

    `out` is by default `explore.html` in the run. With `stored` the page has latents of training
    images, which are derived from these images. `engine` is a file with onnxruntime-web, for a
    machine without a network. With `best` the page is of the best checkpoint by `eval.best`.
    """
    from vgx.files import user_path
    from vgx.runs.directory import find
    from vgx_explore.run_page import write_page

    file = None if out is None else user_path(out)
    archive = None if engine is None else user_path(engine)
    return write_page(find(run), file, stored=stored, archive=archive, best=best)[0]
