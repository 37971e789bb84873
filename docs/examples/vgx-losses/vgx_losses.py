"""A command for vgx that prints the last losses of a run."""

from pathlib import Path

import click
import vgx


@vgx.hookimpl
def register_commands(cli):
    @cli.command()
    @click.argument("folder", type=click.Path(path_type=Path))
    def losses(folder):
        """Print the last losses of the run in FOLDER."""
        for line in vgx.Run(folder).read_log()[-1:]:
            for name, loss in line["losses"].items():
                click.echo(f"{name} {loss:.4g}")
