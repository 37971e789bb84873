"""Commands that only look: check, plugins, parts, schema."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import rich_click as click

from vgx.cli import common
from vgx.cli.running import device_option, plugin_option, recipe_argument, set_option


@click.command()
@recipe_argument
@set_option
@plugin_option
@device_option
@common
def check(
    recipe: Path, overrides: tuple[str, ...], plugins: tuple[Path, ...], device: str | None
) -> None:
    """Find out everything about RECIPE that can be known before the first step."""
    from vgx.recipe import load_recipe
    from vgx.registry import discover

    registry = discover(plugins)
    loaded = load_recipe(recipe, overrides, registry)
    from vgx.training import examine
    from vgx.voice import Voice

    voice = Voice()
    examine(loaded, registry, device, voice)
    voice.say(f"{recipe}: ready to run")


@click.command(name="plugins")
@plugin_option
@common
def list_plugins(plugins: tuple[Path, ...]) -> None:
    """List plugins: whose they are, what they offer, and what failed to load and why."""
    from vgx.registry import discover
    from vgx.voice import Voice

    voice = Voice()
    for plugin in discover(plugins).plugins:
        voice.say(f"{plugin.name}  ({plugin.distribution} {plugin.version})")
        if plugin.failure:
            voice.say(f"  failed to load: {plugin.failure}")
        by_kind: dict[str, list[str]] = {}
        for part in plugin.parts:
            by_kind.setdefault(part.kind, []).append(part.type)
        for kind, types in by_kind.items():
            voice.say(f"  {kind}: {', '.join(types)}")


@click.command()
@click.argument("which", metavar="[KIND[/TYPE]]", required=False, default="")
@plugin_option
@common
def parts(which: str, plugins: tuple[Path, ...]) -> None:
    """List the parts, or show one part's fields, defaults and documentation."""
    from vgx.components import KINDS, near
    from vgx.errors import RecipeError
    from vgx.registry import discover
    from vgx.schema import fields
    from vgx.voice import Voice

    voice, registry = Voice(), discover(plugins)
    kinds = [kind.kind for kind in KINDS]
    wanted, _, name = which.partition("/")
    if wanted and wanted not in kinds:
        hint = near(wanted, kinds)
        suffix = f"; did you mean '{hint}'?" if hint else ""
        raise RecipeError(f"no kind '{wanted}'; there are: {', '.join(kinds)}{suffix}")
    if not name:
        rows = [
            (kind, part.type, plugin.distribution, _first_sentence(part))
            for kind in kinds
            if wanted in ("", kind)
            for plugin, part in registry.offers(kind)
        ]
        voice.table(("kind", "type", "from", "what it is"), rows)
        return
    found = [(plugin, part) for plugin, part in registry.offers(wanted) if part.type == name]
    if not found:
        names = [part.type for _, part in registry.offers(wanted)]
        hint = near(name, names)
        suffix = f"; did you mean '{hint}'?" if hint else ""
        raise RecipeError(f"no {wanted} '{name}'; there are: {', '.join(names) or 'none'}{suffix}")
    for plugin, part in found:
        voice.say(f"{part.kind} {part.type}  (from {plugin.distribution} {plugin.version})\n")
        voice.say(inspect.cleandoc(part.__doc__ or "") + "\n")
        voice.table(("field", "type", "default", "meaning"), fields(part))


def _first_sentence(part: Any) -> str:
    text = " ".join(inspect.cleandoc(part.__doc__ or "").split())
    return re.split(r"\.\s+(?=[A-Z])", text)[0].rstrip(".") + "."


@click.command()
@plugin_option
@common
def schema(plugins: tuple[Path, ...]) -> None:
    """Print the JSON Schema of a recipe with every installed part, for editors."""
    from vgx.registry import discover
    from vgx.schema import recipe_schema

    click.echo(json.dumps(recipe_schema(discover(plugins)), indent=1))


COMMANDS = (check, list_plugins, parts, schema)
