"""Options that several commands share; commands of plugins may use them too."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from vgx.files import user_path

if TYPE_CHECKING:
    from vgx.runs.directory import Run

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
trust_option = click.option(
    "--trust-plugins", "trust", is_flag=True,
    help="Execute the run's own plugin files, whoever wrote them.",
)  # fmt: skip
step_option = click.option(
    "--step", metavar="STEP", type=click.IntRange(0, 10**12),
    help="With the checkpoint of this step; by default the newest.",
)  # fmt: skip
processes_option = click.option(
    "--processes", metavar="N", type=click.IntRange(1, 1024),
    help="Share the training among N processes on this machine, one for each GPU.",
)  # fmt: skip
device_option = click.option(
    "--device", metavar="D", help="cpu, cuda, cuda:1, mps; by default cuda if there is one."
)


def in_processes(count: int | None) -> None:
    """Run this command line in several processes instead, and leave with their exit code.

    Without `--processes`, and with one process, nothing happens. Raises `RecipeError` when a
    launcher has started several already.
    """
    if count is None or count == 1:
        return
    from vgx.distributed.launcher import launch
    from vgx.errors import RecipeError

    if (size := os.environ.get("WORLD_SIZE", "1").strip()) not in ("", "1"):
        raise RecipeError(f"WORLD_SIZE is {size}: a launcher started them; leave out --processes")
    context = click.get_current_context()
    assert context is not None  # a command is running
    words: list[str] = context.find_root().obj
    place = next(i for i, word in enumerate(words) if word.partition("=")[0] == "--processes")
    taken = 1 if "=" in words[place] else 2
    context.exit(launch(words[:place] + words[place + taken :], count))


def find_trusted(name: str | None, out: Path | None = None, *, trust: bool) -> Run:
    """Find a run whose plugin files the command will execute: `trust` is --trust-plugins.

    At a terminal the user is asked about files that are not trusted yet; a yes is noted. Else they
    are a `PluginError`.
    """
    from vgx.parts.registry import discover
    from vgx.runs import trust as trusting
    from vgx.runs.directory import find

    run = find(name, out)
    files = run.plugin_files
    if unknown := trusting.untrusted(files):
        if trust:
            discover(unknown)
        elif at_a_terminal() and _confirmed(run, [file.line for file in unknown]):
            discover(unknown)
            trusting.remember(unknown)
    trusting.require(run, files)
    return run


def at_a_terminal() -> bool:
    """Return whether a user can be asked: standard input and standard error are a terminal."""
    streams = (sys.stdin, sys.stderr)
    return all(stream and not stream.closed and stream.isatty() for stream in streams)


def _confirmed(run: Run, lines: list[str]) -> bool:
    """Ask whether plugin files may be executed."""
    listed = "\n  ".join(lines)
    question = (
        f"This run has plugin files, which are programs, and you have not trusted these yet:\n\n"
        f"  {listed}\n\nThey can do whatever you can do. Read them first, in:\n"
        f"{str(run.path / 'plugins')!r}\nExecute them, now and in later commands?"
    )
    return click.confirm(question, err=True)
