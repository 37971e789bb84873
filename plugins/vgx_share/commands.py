"""The commands of this plugin: export, import, push."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from vgx.cli.options import (
    PATH,
    common,
    data_option,
    find_trusted,
    plugin_option,
    runs_option,
    set_option,
    trust_option,
)


@click.command()
@click.argument("run")
@click.argument("folder", type=PATH)
@click.option("--codes", is_flag=True, help="Add the stored latents, derived from the images.")
@click.option("--discriminator", is_flag=True, help="Add the weights of the discriminator.")
@click.option("--explorer", is_flag=True, help="Add the page of vgx explore.")
@click.option("--license", metavar="ID", help="For the card, as the hub names it: mit, cc-by-4.0.")
@click.option("--base-model", metavar="NAME", help="For the card: the model that it began from.")
@click.option("--best", is_flag=True, help="The best checkpoint by the recipe's eval.best.")
@trust_option
@common
def export(
    run: str,
    folder: Path,
    codes: bool,
    discriminator: bool,
    explorer: bool,
    license: str | None,  # noqa: A002 - as the option is called
    base_model: str | None,
    best: bool,
    trust: bool,
) -> None:
    """Write the model of RUN into the new folder FOLDER, for other programs and people.

    It has the weights, the recipe, a card, drawn images, ONNX files and, for networks of the type
    autoencoder-kl, a folder for diffusers. No training image, and no path of this machine.
    """
    trained = find_trusted(run, trust=trust)
    from vgx.check.blame import blaming
    from vgx.console import Console
    from vgx.runs.trust import registry_of
    from vgx_share import exporting
    from vgx_share.card import CODES

    console = Console()
    with blaming(registry_of(trained)):
        wishes = exporting.Wishes(codes, discriminator, explorer, license, base_model)
        exporting.write_folder(trained, folder, wishes, best=best)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        console.print(f"{file.stat().st_size:>12,}  {file.relative_to(folder)}")
    if license is None:
        console.print("The card names no licence; to add one: --license ID")
    if codes:
        console.print(CODES.replace("`", ""))
    console.print(f"Exported {folder}; to publish it: vgx push {folder} OWNER/NAME")


@click.command("import")
@click.argument("folder")
@data_option
@set_option
@plugin_option
@runs_option
@common
def import_command(
    folder: str,
    data: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    out: Path | None,
) -> None:
    """Make a run of FOLDER: a folder of vgx export, or a VAE folder of diffusers.

    FOLDER may be the name of a model on the hub, OWNER/NAME. The run can be sampled, evaluated and
    started from (start.run); it cannot be resumed.
    """
    from vgx.console import Console
    from vgx_share import import_model

    run = import_model(folder, overrides, data, out, plugins)
    console = Console()
    console.print(f"Run {run.path}")
    console.print(f"Draw with it: vgx sample {run.short}")


@click.command()
@click.argument("folder", type=PATH)
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="A new model is for you alone.")
@common
def push(folder: Path, name: str, private: bool) -> None:
    """Upload FOLDER, which vgx export wrote, to the Hugging Face hub as OWNER/NAME.

    You must be logged in: hf auth login.
    """
    from vgx.console import Console
    from vgx_share.pushing import upload

    address = upload(folder, name, private=private)
    Console().print(f'Pushed to {address}; anybody who may read it: vgx.load("{name}")')


COMMANDS: tuple[click.Command, ...] = (export, import_command, push)
"""The commands. Each imports what it needs when it is called."""
