"""Models that leave their run: export, import and push. A plugin like any other.

exporting   `vgx export`: the files of a folder that any program can read
card        the card of a model
latents     which drawn latents may be shown
onnx        encoder and decoder as ONNX files
diffusers   the folder of an autoencoder of diffusers, written and read
importing   `vgx import`: a run out of a folder
pushing     `vgx push`: a folder onto the hub
commands    the commands
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

import vgx
from vgx.runs.directory import Run


@vgx.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the commands."""
    from vgx_share.commands import COMMANDS

    for command in COMMANDS:
        cli.add_command(command)


def export(
    run: Run | str | Path | int | None,
    folder: str | Path,
    *,
    codes: bool = False,
    discriminator: bool = False,
    explorer: bool = False,
    license: str | None = None,  # noqa: A002 - as the card calls it
    base_model: str | None = None,
    best: bool = False,
) -> Path:
    """Write a run's model as a new folder, as `vgx export` does, and return it.

    `run` is a path, a number or a name; None is the newest run. The folder has the weights, the
    recipe, a card, drawn images, ONNX files if the extra `onnx` is installed, and a folder `vae`
    for diffusers if the networks are of the type `autoencoder-kl`. `codes` adds the stored latents,
    which are derived from the training images, `discriminator` its weights, and `explorer` the page
    of `vgx explore`. `license` and `base_model` go to the card. With `best` it is the best
    checkpoint. Raises `StorageError` for a folder that is there and not empty.
    """
    from vgx_share import exporting

    wishes = exporting.Wishes(codes, discriminator, explorer, license, base_model)
    return exporting.write_folder(run, folder, wishes, best=best)


def push(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload a folder that `vgx export` wrote to the model `owner/name`, and return its address.

    The model is made if it is not there, with `private` for you alone. Files of an earlier push
    that the folder does not have are removed there. Raises `StorageError` for a folder that is not
    as it was exported, and `HubError` when the hub refuses.
    """
    from vgx_share import pushing

    return pushing.upload(folder, name, private=private)


def import_model(
    folder: str | Path,
    overrides: Sequence[str] = (),
    data: str | Path | None = None,
    out: str | Path | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
) -> vgx.Run:
    """Make a run of an exported folder, of a model of the hub, or of a VAE folder of diffusers.

    The run has one checkpoint, without the state of an optimizer: it can be sampled, evaluated and
    started from, and not resumed. `overrides` change its recipe, ["image.size=64"]; the latents of
    an autoencoder of diffusers follow the size. `data` are images to evaluate it with, and `out` is
    the folder of runs. Raises `StorageError` for a folder that is no model, and for weights that do
    not fit the recipe.
    """
    from vgx_share import importing

    return vgx.Run(importing.make_run(folder, overrides, data, out, plugins))
