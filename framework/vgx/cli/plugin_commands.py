"""The commands that plugins add to the program."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import rich_click as click

from vgx.errors import PluginError

if TYPE_CHECKING:
    from vgx.parts.registry import Plugin


@dataclass(frozen=True)
class PluginCommands:
    """What plugins add to the program."""

    plugins: tuple[Plugin, ...]  # an error of `register_commands` is a failure of its plugin
    offers: tuple[tuple[Plugin, str, click.Command], ...]  # with names, in the plugins' order

    @property
    def names(self) -> list[str]:
        """Names of the commands, each once."""
        return list(dict.fromkeys(name for _, name, _ in self.offers))

    def of(self, plugin: Plugin) -> list[str]:
        """Return the names of a plugin's commands."""
        return [name for owner, name, _ in self.offers if owner is plugin]

    def get(self, name: str) -> click.Command | None:
        """Return a command, or None when no plugin offers it.

        For a name that several plugins offer, return a command that raises `PluginError`.
        """
        offers = [offer for offer in self.offers if offer[1] == name]
        if len(offers) > 1:
            return _ambiguous(name, [plugin for plugin, _, _ in offers])
        return offers[0][2] if offers else None

    def clashes(self) -> list[str]:
        """Return a message for each name that several plugins offer."""
        owners: dict[str, list[Plugin]] = {}
        for plugin, name, _ in self.offers:
            owners.setdefault(name, []).append(plugin)
        return [_clash(name, each) for name, each in owners.items() if len(each) > 1]

    def missing(self, name: str) -> str:
        """Return the message for a name that nobody offers when plugins failed, else ""."""
        failed = [
            f"plugin {plugin.title} failed: {plugin.failure}"
            for plugin in self.plugins
            if plugin.failure
        ]
        return "; ".join([f"no command '{name}'", *failed]) if failed else ""


def plugin_commands(loaded: Iterable[Plugin], core: Collection[str]) -> PluginCommands:
    """Ask each plugin for its commands; `core` are the names that no plugin may take."""
    plugins: list[Plugin] = []
    offers: list[tuple[Plugin, str, click.Command]] = []
    for each in loaded:
        # A group for each plugin: an error in one takes no command of another one away.
        group = click.RichGroup(name="vgx")
        # What a plugin prints must not mix with the output of a command.
        with contextlib.redirect_stdout(sys.stderr):
            plugin, failure = each, each.call("register_commands", cli=group)
        commands = {} if failure else group.commands
        taken = [name for name in commands if name in core]
        if taken:
            failure = f"vgx has commands of its own with the names {', '.join(taken)}"
        if failure:
            plugin = dataclasses.replace(each, failure=failure)
        plugins.append(plugin)
        offers += [(plugin, name, commands[name]) for name in commands if name not in taken]
    return PluginCommands(tuple(plugins), tuple(offers))


def _clash(name: str, plugins: list[Plugin]) -> str:
    owners = " and ".join(plugin.title for plugin in plugins)
    return f"more than one plugin offers the command '{name}': {owners}"


def _ambiguous(name: str, plugins: list[Plugin]) -> click.Command:
    """Return a command that takes any words and raises `PluginError`."""
    message = _clash(name, plugins)

    def refuse(words: tuple[str, ...]) -> NoReturn:
        del words
        raise PluginError(f"{message}; uninstall one of them")

    return click.RichCommand(
        name=name,
        callback=refuse,
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
        help=f"Not available: {message}.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
