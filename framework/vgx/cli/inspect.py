"""Commands around recipes, parts and plugins: check, plugins, parts, schema and the writers."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from vgx.cli.options import PATH, common, data_option, device_option, plugin_option, set_option

if TYPE_CHECKING:
    from vgx.errors import RecipeError
    from vgx.parts.base import Component


@click.command()
@click.argument("recipe", type=PATH)
@data_option
@set_option
@plugin_option
@device_option
@common
def check(
    recipe: Path,
    data: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    device: str | None,
) -> None:
    """Find out everything about RECIPE that can be known before the first step.

    RECIPE is a file, or the name of a recipe that comes with vgx: vgx check quickstart
    """
    from vgx.parts.registry import discover
    from vgx.recipe.load import load_recipe

    registry = discover(plugins)
    loaded = load_recipe(recipe, overrides, registry, data)
    from vgx.console import Console
    from vgx.training import session

    console = Console()
    _, findings = session.check(loaded, registry, device, console)
    findings.show(console)
    console.print(f"{recipe}: ready to run")


@click.command(name="recipes")
@click.argument("name", required=False)
@common
def list_recipes(name: str | None) -> None:
    """List the recipes that come with vgx, or print the one called NAME.

    A copy to change: vgx recipes quickstart > mine.yaml
    """
    from vgx.console import Console
    from vgx.recipe import library

    if name is not None:
        click.echo(library.read(name), nl=False)
        return
    rows = [(name, library.about(file)) for name, file in library.recipes().items()]
    console = Console()
    console.table(("recipe", "what it is"), rows)
    console.print("Train one with: vgx run NAME    copy one with: vgx recipes NAME > mine.yaml")


@click.command(name="plugins")
@plugin_option
@click.pass_context
@common
def list_plugins(context: click.Context, plugins: tuple[Path, ...]) -> None:
    """List plugins: parts, commands and hooks of each, and which failed and why."""
    from pydantic_core import PydanticCustomError

    from vgx.cli.plugin_commands import plugin_commands
    from vgx.console import Console
    from vgx.parts.kinds import KINDS
    from vgx.parts.registry import discover

    console, registry = Console(), discover(plugins)
    program = context.find_root().command
    core = program.commands if isinstance(program, click.Group) else ()
    offered = plugin_commands(registry.plugins, core)
    for plugin in offered.plugins:
        # One that was loaded may still have lost its commands.
        failed = "failed to load" if plugin.hook is None else "failed"
        failure = f"  {failed}: {plugin.failure}" if plugin.failure else ""
        console.print(f"{plugin.name}  ({plugin.distribution} {plugin.version}){failure}")
        by_kind: dict[str, list[str]] = {}
        for part in plugin.parts:
            by_kind.setdefault(part.kind, []).append(part.type)
        lists = {**by_kind, "commands": offered.of(plugin), "hooks": plugin.hooks}
        for title, names in lists.items():
            if names:
                console.print(f"  {title}: {', '.join(names)}")
    for kind in KINDS:
        for name in sorted({part.type for _, part in registry.offers(kind.kind)}):
            try:
                registry.part(kind.kind, name)
            except PydanticCustomError as clash:
                console.print(clash.message())
    for message in offered.clashes():
        console.print(message)


@click.command()
@click.argument("which", metavar="[KIND[/TYPE]]", required=False, default="")
@plugin_option
@common
def parts(which: str, plugins: tuple[Path, ...]) -> None:
    """List the parts, or show one part's fields, defaults and documentation."""
    from vgx.console import Console
    from vgx.parts.kinds import KINDS
    from vgx.parts.registry import discover
    from vgx.recipe.schema import fields

    console, registry = Console(), discover(plugins)
    kinds = [kind.kind for kind in KINDS]
    wanted, _, name = which.partition("/")
    if wanted:
        _kind(wanted)
    if not name:
        rows = [
            (kind, part.type, plugin.distribution, _first_sentence(part))
            for kind in kinds
            if wanted in ("", kind)
            for plugin, part in registry.offers(kind)
        ]
        console.table(("kind", "type", "from", "what it is"), rows)
        return
    matches = [(plugin, part) for plugin, part in registry.offers(wanted) if part.type == name]
    if not matches:
        raise _unknown(wanted, name, [part.type for _, part in registry.offers(wanted)])
    for plugin, part in matches:
        console.print(f"{part.kind} {part.type}  (from {plugin.distribution} {plugin.version})\n")
        console.print(inspect.cleandoc(part.__doc__ or "") + "\n")
        console.table(("field", "type", "default", "meaning"), fields(part))


def _first_sentence(part: type[Component]) -> str:
    text = " ".join(inspect.cleandoc(part.__doc__ or "").split())
    return re.split(r"\.\s+(?=[A-Z])", text)[0].rstrip(".") + "."


@click.command()
@plugin_option
@common
def schema(plugins: tuple[Path, ...]) -> None:
    """Print the JSON Schema of a recipe with every installed part, for editors."""
    from vgx.parts.registry import discover
    from vgx.recipe.schema import recipe_schema

    click.echo(json.dumps(recipe_schema(discover(plugins)), indent=1))


@click.command(name="new-plugin")
@click.argument("name")
@click.option(
    "--kind", default="loss", show_default=True,
    help="dataset, augmentation, encoder, decoder, discriminator, loss, prior, sampler, features, "
    "metric, tracker.",
)  # fmt: skip
@common
def new_plugin(name: str, kind: str) -> None:
    """Write a new plugin: a folder NAME with a small part that works, its test, its packaging."""
    from vgx.console import Console
    from vgx.parts.registry import discover
    from vgx.parts.scaffold import make_plugin

    files = make_plugin(name, _kind(kind), Path(), discover())
    console = Console()
    for file in files:
        console.print(str(file))
    console.print(f"Next: cd {name} && pip install -e '.[test]' && pytest")


@click.command(name="import-weights")
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@click.option("--key", metavar="KEY", help="Where the tensors are in FILE: generator, g_ema.")
@common
def import_weights(file: Path, out: Path, key: str | None) -> None:
    """Convert the weights in FILE.pt to OUT.safetensors; no code in the file is executed."""
    from vgx.console import Console
    from vgx.runs import import_weights as importing

    tensors = importing.import_weights(file, out, key)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    Console().print(f"{out}: {len(tensors):,} tensors, {numbers:,} numbers")


def _kind(name: str) -> str:
    """Return the name of a kind. Raises `RecipeError`, which lists the kinds, for another name."""
    from vgx.parts.kinds import KINDS

    kinds = [kind.kind for kind in KINDS]
    if name not in kinds:
        raise _unknown("kind", name, kinds)
    return name


def _unknown(what: str, name: str, names: list[str]) -> RecipeError:
    """Return the error for a name that is not one of `names`."""
    from vgx.errors import RecipeError
    from vgx.parts.base import near

    hint = near(name, names)
    suffix = f"; did you mean '{hint}'?" if hint else ""
    return RecipeError(f"no {what} '{name}'; there are: {', '.join(names) or 'none'}{suffix}")


COMMANDS = (check, list_recipes, list_plugins, parts, schema, new_plugin, import_weights)
