"""Weights to start from: of a run, a folder of vgx or diffusers, the hub, or a file.

All are safetensors. No part is built and no program is executed to read them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

from torch import Tensor

from vgx.errors import HubError, RecipeError, StorageError
from vgx.files import storage, user_path
from vgx.output import short, visible
from vgx.recipe.model import NetworkName, Start
from vgx.runs import checkpoint, diffusers, exported, hub
from vgx.runs.directory import find

AVERAGE = "average.module."  # before the names of averaged weights
MOST = 20_000  # tensors of a file
LONGEST, DOTS = 500, 50  # characters and dots in the name of a tensor
NETWORKS = get_args(NetworkName)


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by network, and where they come from."""

    name: str  # of the run, the folder or the file
    step: int  # of the checkpoint; 0 where that is not known
    sha256: str  # of the file with the tensors
    networks: dict[str, dict[str, Tensor]]  # by the names that they have in the network
    averaged: bool  # whether some of them are averaged ones
    config: dict[str, Any] | None = None  # of a folder of diffusers: which networks they are of
    scale: exported.Scale | None = None  # of the latents, where it is known

    def lineage(self) -> dict[str, Any]:
        """Return what `environment.json` holds under `parent`."""
        return {
            "run": self.name, "step": self.step, "sha256": self.sha256,
            "networks": [*self.networks], "how": "start",
            **({"latents": self.scale} if self.scale else {}),
        }  # fmt: skip

    def __str__(self) -> str:
        step = f", step {self.step:,}" if self.step else ""
        return f"{self.name}{step}{', averaged weights' if self.averaged else ''}"


def read_weights(start: Start, present: list[str], out: str | Path | None = None) -> Weights:
    """Return the weights that `start` of a recipe names, of those networks that it asks for.

    `present` are the networks of the recipe; `out` is the folder of runs. Raises `StorageError` for
    files that are not there, are damaged or are no safetensors, `HubError` for a model of the hub
    that cannot be fetched, and `RecipeError` when the files hold none of the networks.
    """
    try:
        found = _found(start, out)
    except (StorageError, HubError) as error:
        raise type(error)(f"start.run: {error}") from error
    if len(found.tensors) > MOST:
        count = f"{len(found.tensors):,} tensors; at most {MOST:,} are read"
        raise StorageError(f"start.run: {found.name}: {count}")
    for name in found.tensors:  # each part of a name is looked at, and all before it
        if len(name) > LONGEST or name.count(".") > DOTS:
            most = f"at most {LONGEST} characters and {DOTS} dots are read"
            shown = short(visible(name[:LONGEST]))
            raise StorageError(f"start.run: {found.name}: the tensor name {shown}: {most}")
    named: list[str] = []
    for each in start.networks or ():  # "discriminator" is each of several, too
        named += [name for name in present if name.partition(" ")[0] == each] or [each]
    networks = {name: _of(name, found.tensors, start) for name in named or present}
    kept = {name: own for name, own in networks.items() if own}
    if not kept or (start.networks and len(kept) < len(networks)):
        lost = next(name for name in networks if name not in kept)
        there = [name for name in NETWORKS if checkpoint.under(found.tensors, name)]
        raise RecipeError(
            f"start.networks: {found.name} has no weights of the {lost}; "
            + (f"it has: {', '.join(there)}" if there else _nameless(found.tensors, lost))
        )
    averaged = start.averaged and any(AVERAGE in key for key in found.tensors)
    return Weights(found.name, found.step, found.sha256, kept, averaged, *found[4:])


def _of(network: str, tensors: dict[str, Tensor], start: Start) -> dict[str, Tensor]:
    """Return the tensors of a network: averaged ones, if they are asked for and there are any."""
    if start.networks == (network,) and not _named(tensors):
        return tensors  # a file of one network need not name it
    averaged = checkpoint.under(tensors, f"{AVERAGE}{network}") if start.averaged else {}
    return averaged or checkpoint.under(tensors, network)


def _named(tensors: Iterable[str]) -> bool:
    return any(key.startswith(tuple(f"{name}." for name in NETWORKS)) for key in tensors)


def _nameless(tensors: Iterable[str], network: str) -> str:
    names = ", ".join(short(visible(name)) for name in islice(tensors, 3)) or "nothing"
    return f"it has {names}; if these are of one network: start.networks: [{network}]"


# --- where they are -------------------------------------------------------------------------------


class _Found(NamedTuple):
    """All tensors of a file, and where it comes from."""

    name: str
    step: int
    sha256: str
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None
    scale: exported.Scale | None = None


def _found(start: Start, out: str | Path | None) -> _Found:
    """Return the tensors of what `start.run` names."""
    place = user_path(str(start.run))
    if place.suffix == ".safetensors" or place.is_file():
        return _file(place, place.name)
    name = place.resolve().name
    if hub.is_name(start.run):
        place, name = hub.model_folder(str(start.run)), str(start.run)
    if exported.is_exported(place):
        return _exported(place, name)
    if folder := diffusers.folder_of(place):
        found = diffusers.read(folder)
        return _Found(name, 0, found.sha256, found.tensors, found.config, found.scale)
    run = find(start.run, out)
    _, state = checkpoint.load(run)
    return _Found(run.path.resolve().name, state.numbers["step"], state.sha256, state.model)


def _exported(folder: Path, name: str) -> _Found:
    """Return the tensors of an exported folder, whose files have the sums in its `vgx.json`."""
    own = exported.load(folder)
    return _Found(name, own.numbers["step"], own.sha256, own.model, None, own.numbers["latents"])


def _file(file: Path, name: str) -> _Found:
    """Return the tensors of a file, which is not too large."""
    if file.suffix != ".safetensors":
        new = file.with_suffix(".safetensors").name
        message = f"{file}: only .safetensors files are read, never pickles"
        raise StorageError(f"{message}; to convert it: vgx import-weights {file} {new}")
    with storage(file):
        content = checkpoint.whole(file)
    return _Found(name, 0, hashlib.sha256(content).hexdigest(), checkpoint.tensors(content, file))
