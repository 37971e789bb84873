"""`vgx import`: a run out of an exported folder, or out of an autoencoder of diffusers."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vgx
from vgx import __version__
from vgx.engine.build import build_network, untrained
from vgx.files import user_path, write_file
from vgx.runs import checkpoint, exported, hub
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, create
from vgx.runs.trust import remember
from vgx.second import kept
from vgx_share import diffusers

# What a recipe needs beyond the networks. It says how the run could be trained on.
_TRAINING: dict[str, Any] = {
    "dataset": {"type": "drawn-faces"},
    "losses": ["l1", {"type": "kl", "weight": 1e-6}],
    "sampler": "prior",
    "train": {"steps": 1000, "batch": 8, "precision": "fp32", "compile": False},
}


def make_run(
    folder: str | Path,
    overrides: Sequence[str],
    data: str | None,
    out: str | Path | None,
    plugins: Sequence[str | Path],
) -> Run:
    """Make a run of a folder, or of a model of the hub. See `vgx_share.import_model`."""
    if hub.is_name(str(folder)):
        folder = hub.model_folder(str(folder))
    folder = user_path(folder)
    registry = vgx.discover(plugins)
    if exported.is_exported(folder):
        state = exported.load(folder)
        recipe = vgx.load_recipe(folder / exported.RECIPE, overrides, registry, data)
    else:
        recipe, state = _from_diffusers(folder, overrides, data, registry)
    _require_fit(recipe, state, folder)
    run = create(recipe.name, out)
    for file in registry.files:
        write_file(run.place("plugins", file.path.name), file.data)
    remember(registry.files)
    write_file(run.place("recipe.yaml"), vgx.dump_recipe(recipe))
    environment = {
        "vgx": __version__,
        "plugins": [
            {"name": plugin.name, "distribution": plugin.distribution, "version": plugin.version}
            for plugin in registry.plugins
            if plugin.parts
        ],
        "grids": recipe.sampler.type,
        "notices": [f"imported from {folder.resolve().name}"],
    }
    write_file(run.place("environment.json"), json.dumps(environment, indent=1))
    saved = checkpoint.save(run, state, 1)
    if exported.is_exported(folder) and (prior := kept.read(folder)):
        own = kept.of_model(prior, checkpoint.sums(saved)["model.safetensors"]["sha256"])
        write_file(run.place(kept.FOLDER, kept.FILE), kept.packed(own))
    step = state.numbers["step"]
    ended = {"how": "done", "step": step, "of": step, "message": "imported"}
    write_file(run.place("ended.json"), json.dumps(ended, indent=1))
    return run


def _from_diffusers(
    folder: Path, overrides: Sequence[str], data: str | None, registry: vgx.Registry
) -> tuple[vgx.Recipe, State]:
    """Return a recipe and a state out of a folder of diffusers, or of its folder `vae`."""
    import torch

    found = next((each for each in (folder, folder / "vae") if diffusers.is_vae(each)), None)
    if found is None:
        needs = f"vgx.json (vgx export), or {diffusers.CONFIG} and {diffusers.WEIGHTS} (diffusers)"
        raise vgx.StorageError(f"{folder}: no model: it has neither {needs}")
    fields, model, known = diffusers.read(found)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:64] or "vae"
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "recipe.yaml"
        # JSON is YAML.
        file.write_text(json.dumps({"name": name, **fields, **_TRAINING}), encoding="utf-8")
        recipe = vgx.load_recipe(file, overrides, registry, data)
    sides = [recipe.image.height, recipe.image.width]
    count = len(fields["encoder"]["widths"])
    latent = diffusers.latent_of(sides, fields["latent"][0], count)
    recipe = recipe.model_copy(update={"latent": vgx.LatentSpec(tuple(latent))})
    latents = {"codes": torch.zeros(0, *latent)}  # [0, *Z]
    return recipe, State(model, {}, latents, {"step": 0, "imported": True, "latents": known})


def _require_fit(recipe: vgx.Recipe, state: State, folder: Path) -> None:
    """Raise `StorageError` unless the weights are those of the recipe's networks."""
    for name in recipe.networks:
        weights = checkpoint.under(state.model, name)
        if name in recipe.judges and not weights:
            continue
        network = build_network(untrained(recipe), name)
        assert network is not None  # the recipe has this network
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise vgx.StorageError(f"{folder}: does not fit the {name}: {error}") from error
