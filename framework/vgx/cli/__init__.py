"""The program: commands, errors, exit codes.

A command imports what it needs when it is called, so that `vgx --help` stays quick. Commands of the
core need no plugin; help and other names load the plugins without their parts.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import rich_click as click
from click.exceptions import Exit, NoArgsIsHelpError

from vgx import __version__
from vgx.cli import evaluate, inspect, runs, sample, second, train
from vgx.cli.options import common
from vgx.cli.plugin_commands import PluginCommands, plugin_commands
from vgx.errors import LostError, Notice, PluginError, StorageError, VgxError
from vgx.files import HELPS, refusal
from vgx.output import cut, lost, short, visible_lines

READER_LEFT = (errno.EPIPE, errno.EIO)  # the latter is a terminal that was closed
TRAINING = ("run", "resume", "fit")  # commands

COMMANDS = (
    *train.COMMANDS, *second.COMMANDS, *sample.COMMANDS, *evaluate.COMMANDS, *runs.COMMANDS,
    *inspect.COMMANDS,
)  # fmt: skip
# Those that the processes of a launcher do together, or that only read.
SHARED = {each.name for each in COMMANDS} - {"fit", "encode", "import-weights", "new-plugin"}


class Program(click.RichGroup):
    """The commands of the core, and after them those of the plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which a user meets the commands."""
        return [*self.commands, *self.offered(ctx).names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; plugins are loaded only for a name that the core does not have.

        Raises `PluginError` for an unknown name when some plugin failed: the command may be its;
        and `UsageError` for one that is near to the name of a command.
        """
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        from vgx.parts.base import near

        offered = self.offered(ctx)
        command = offered.get(cmd_name)
        if command is None and (message := offered.missing(cmd_name)):
            raise PluginError(message)
        if command is None and (close := near(cmd_name, self.list_commands(ctx))):
            raise click.UsageError(f"no command '{cmd_name}'; did you mean '{close}'?", ctx)
        return command

    def offered(self, ctx: click.Context) -> PluginCommands:
        """Return the commands of the installed plugins; they are loaded once for a command line."""
        from vgx.parts.registry import installed

        if "vgx.commands" not in ctx.meta:
            ctx.meta["vgx.commands"] = plugin_commands(installed(with_parts=False), self.commands)
        commands: PluginCommands = ctx.meta["vgx.commands"]
        return commands


@click.group(
    cls=Program, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="vgx")
@common
@click.pass_context
def program(context: click.Context) -> None:
    """The workbench for GANs, VAEs and their hybrids."""
    command = context.invoked_subcommand
    if command not in SHARED and os.environ.get("WORLD_SIZE", "1") != "1":
        from vgx.training import environment

        environment.one_process(f"vgx {command}")


def run_program(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; messages go to standard error."""
    code, command = 0, ""
    try:
        with warnings.catch_warnings(), _context(arguments) as context:
            warnings.simplefilter("default", Notice)
            warnings.showwarning = _show_warning
            try:
                program.invoke(context)
            finally:
                command = context.invoked_subcommand or ""
    except Exit as done:
        code = done.exit_code
    except SystemExit:  # of a plugin's command, with a code of its own
        raise
    except BaseException as error:  # noqa: BLE001 - each is shown
        code = _show_error(error, arguments)
    # A training has its lines in its run as well, so losing them here is no failure of it.
    failed = lost(sys.stdout)
    if code == 0 and failed and failed.errno not in READER_LEFT and command not in TRAINING:
        print_error(f"standard output: {failed.strerror}")
        code = StorageError.exit_code
    return code


def _context(arguments: Sequence[str]) -> click.Context:
    """Return the context of a command line, which keeps its words."""
    return program.make_context("vgx", list(arguments), obj=list(arguments))


def _show_error(error: BaseException, arguments: Sequence[str]) -> int:
    """Show how a command failed, and return the exit code. Of several processes one shows it."""
    if isinstance(error, NoArgsIsHelpError):  # `vgx` alone
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    message, code = _described(error, arguments)
    if "WORLD_SIZE" in os.environ:
        from vgx.distributed.processes import message_of_failure

        message = message_of_failure(message, code, lost=isinstance(error, LostError))
    if message:
        print_error(message)
    return code


def _described(error: BaseException, arguments: Sequence[str]) -> tuple[str, int]:
    """Return the message and the exit code of an error. The traceback of a bug is printed."""
    if isinstance(error, click.ClickException):
        message = error.format_message()
        if words := re.search(r"unexpected extra arguments? \((\S+=.*)\)", message):
            message += f"\nA value is changed with: --set {words[1].replace(' ', ' --set ')}"
        elif isinstance(error, click.UsageError) and error.ctx:
            message += f"\nTry: {error.ctx.command_path} --help"
        return message, error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "stopped", 130
    if isinstance(error, VgxError):
        if "--debug" in arguments:
            _print_traceback(error)
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, *HELPS):
        where = Path(error.filename if isinstance(error.filename, str) else "the disk")
        return f"{short(str(where))}: {refusal(error, where.parent)}", StorageError.exit_code
    _print_traceback(error)  # a bug keeps it
    return "this is a bug in vgx or in a plugin; please report the lines above", 1


def _print_traceback(error: BaseException) -> None:
    print(visible_lines("".join(traceback.format_exception(error)).rstrip()), file=sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a notice as it is, and other warnings as Python does."""
    if issubclass(category, Notice):
        text = f"NOTICE: {message}"
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line).rstrip("\n")
    print(visible_lines(text), file=file or sys.stderr)


def print_error(message: str) -> None:
    """Print an error to standard error: a few lines; --debug shows a traceback too."""
    print("vgx:", "\n".join(cut(message)), file=sys.stderr)
