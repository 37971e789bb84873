"""The program: commands, errors, exit codes.

A command imports what it needs when it is called, so that `vgx --help` stays quick. Commands of the
core need no plugin; help and other names load the plugins.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TextIO

import rich_click as click
from click.exceptions import Exit

from vgx import __version__
from vgx.cli import evaluate, inspect, runs, sample, train
from vgx.cli.options import common
from vgx.cli.plugin_commands import PluginCommands, plugin_commands
from vgx.errors import Notice, PluginError, StorageError, VgxError

MAX_LINES, MAX_LETTERS = 10, 2000  # of a message, and of each of its lines
# What the system refuses: a full or read-only disk, missing rights, a name that is too long.
REFUSALS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG,
    errno.ELOOP, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE,
}  # fmt: skip

COMMANDS = (
    *train.COMMANDS, *sample.COMMANDS, *evaluate.COMMANDS, *runs.COMMANDS, *inspect.COMMANDS,
)  # fmt: skip


class Program(click.RichGroup):
    """The commands of the core, and after them those of the plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which a user meets the commands."""
        return [*self.commands, *self.offered(ctx).names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; plugins are loaded only for a name that the core does not have.

        Raises `PluginError` for an unknown name when some plugin failed: the command may be its.
        """
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        offered = self.offered(ctx)
        command = offered.get(cmd_name)
        if command is None and (message := offered.missing(cmd_name)):
            raise PluginError(message)
        return command

    def offered(self, ctx: click.Context) -> PluginCommands:
        """Return the commands of the installed plugins; they are loaded once for a command line."""
        from vgx.parts.registry import discover

        if "vgx.commands" not in ctx.meta:
            ctx.meta["vgx.commands"] = plugin_commands(discover(), self.commands)
        commands: PluginCommands = ctx.meta["vgx.commands"]
        return commands


@click.group(
    cls=Program, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="vgx")
@common
def program() -> None:
    """The workbench for GANs, VAEs and their hybrids."""


def run_program(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; messages go to standard error."""
    try:
        with warnings.catch_warnings(), program.make_context("vgx", list(arguments)) as context:
            warnings.simplefilter("default", Notice)
            warnings.showwarning = _show_warning
            program.invoke(context)
    except Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        if words := re.search(r"unexpected extra arguments? \((\S+=.*)\)", error.message):
            print_error(f"A value is changed with: --set {words[1].replace(' ', ' --set ')}")
        return error.exit_code
    except VgxError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print_error(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("vgx: stopped", file=sys.stderr)
        return 130
    except (BrokenPipeError, SystemExit):  # the latter is what rich makes of the former
        # The reader of the output has closed it; the interpreter must not write to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - a bug keeps its traceback
        if isinstance(error, OSError) and error.errno in REFUSALS:
            print_error(f"{error.strerror}: {error.filename}")
            return StorageError.exit_code
        traceback.print_exc()
        print(
            "vgx: this is a bug in vgx or in a plugin; please report the lines above",
            file=sys.stderr,
        )
        return 1
    return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a notice as one line, and other warnings as Python does."""
    if issubclass(category, Notice):
        print(f"NOTICE: {message}", file=sys.stderr)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        print(text, end="", file=file or sys.stderr)


def print_error(message: str) -> None:
    """Print an error to standard error: a few lines, with nothing that a terminal obeys."""
    from vgx.recipe.yaml import visible

    lines = message.expandtabs(2).splitlines()
    if len(lines) > MAX_LINES:  # of a library; --debug shows it whole
        lines[MAX_LINES - 1 :] = [f"... and {len(lines) - MAX_LINES + 1} more lines"]
    cut = (line if len(line) <= MAX_LETTERS else f"{line[:MAX_LETTERS]}..." for line in lines)
    print("vgx:", "\n".join(map(visible, cut)), file=sys.stderr)
