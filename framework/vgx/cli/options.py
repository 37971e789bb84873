"""Options that several commands share; commands of plugins may use them too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from vgx.files import user_path

C = TypeVar("C", bound=Callable[..., Any])


class UserPath(click.Path):
    """A path; a shell leaves the `~` of `--out=~/x` as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path with the home directory in place of `~`."""
        del param, ctx
        return user_path(value)


PATH = UserPath()


def _offline(context: click.Context, option: click.Parameter, value: bool) -> None:
    """Set the switch of the hub's library, which reads it once, when it is imported."""
    del context, option
    if value:
        os.environ["HF_HUB_OFFLINE"] = "1"


def common(command: C) -> C:
    """Add the options that every command takes."""
    offline = click.option(
        "--offline", is_flag=True, is_eager=True, expose_value=False, callback=_offline,
        help="Never ask the hub; use what is cached.",
    )  # fmt: skip
    # `run_program` looks for it among the words of the command line.
    debug = click.option(
        "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
    )
    return offline(debug(command))


set_option = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True,
    help="Change a value: train.batch=32, losses.1.weight=10.",
)  # fmt: skip
data_option = click.option(
    "--data", metavar="PLACE",
    help="Your own images instead of the recipe's: a folder, a parquet file, or owner/name.",
)  # fmt: skip
plugin_option = click.option(
    "--plugin", "plugins", metavar="FILE", multiple=True, type=PATH,
    help="A Python file with parts of your own.",
)  # fmt: skip
runs_option = click.option("--out", metavar="DIR", type=PATH, help="Folder of runs.")
device_option = click.option(
    "--device", metavar="D", help="cpu, cuda, cuda:1, mps; by default cuda if there is one."
)
