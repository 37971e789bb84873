"""The commands. Each imports what it needs when it runs: `vgx --help` stays quick."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import rich_click as click
from click.exceptions import Exit

from vgx import __version__
from vgx.errors import StorageError, VgxError


class _Group(click.RichGroup):
    """Shows the commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


def _offline(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    """Set the hub's switch: it is read once, when its library is first imported."""
    del ctx, option
    if value:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    del option
    ctx.find_root().meta["debug"] = ctx.find_root().meta.get("debug", False) or value


def common(command: Any) -> Any:
    """Add the options that every command takes."""
    offline = click.option(
        "--offline", is_flag=True, is_eager=True, expose_value=False, callback=_offline,
        help="Never ask the hub; use what is cached.",
    )  # fmt: skip
    debug = click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_debug,
        help="Show the traceback of an error.",
    )  # fmt: skip
    return offline(debug(command))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vgx")
@common
def program() -> None:
    """The workbench for GANs, VAEs and their hybrids."""


def run_program(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; messages go to standard error."""
    from vgx.cli import cache, compare, evaluate, inspect, report, train

    groups = (train, evaluate, report, compare, inspect, cache)
    for command in (command for group in groups for command in group.COMMANDS):
        program.add_command(command)
    context = None
    debug = "--debug" in arguments
    try:
        with program.make_context("vgx", list(arguments)) as context:
            program.invoke(context)
    except Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except VgxError as error:
        if debug:
            traceback.print_exc()
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("vgx: stopped", file=sys.stderr)
        return 130
    except (BrokenPipeError, SystemExit):  # the latter is what rich makes of the former
        # Whoever was reading has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - a bug keeps its traceback
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            print(f"vgx: {error}", file=sys.stderr)  # wherever it was noticed
            return StorageError.exit_code
        traceback.print_exc()
        print(
            "vgx: this is a bug in vgx or in a plugin; please report the lines above",
            file=sys.stderr,
        )
        return 1
    return 0


def _say(message: str) -> None:
    from vgx.recipe.yaml import visible

    print("vgx:", "\n".join(map(visible, message.splitlines())), file=sys.stderr)
