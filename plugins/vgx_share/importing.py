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
from vgx.runs import diffusers as read_diffusers
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
    data: str | Path | None,
    out: str | Path | None,
    plugins: str | Path | Sequence[str | Path],
) -> Run:
    """Make a run of a folder, or of a model of the hub. See `vgx_share.import_model`."""
    on_hub, folder = str(folder), user_path(folder)
    name = folder.resolve().name
    if hub.is_name(on_hub):
        name, folder = on_hub.partition("@")[0].rpartition("/")[2], hub.model_folder(on_hub)
    registry = vgx.discover(plugins)
    prior = None
    if exported.is_exported(folder):
        state, prior = exported.load(folder), kept.read(folder)
        recipe = vgx.load_recipe(folder / exported.RECIPE, overrides, registry, data)
    else:
        recipe, state = _from_diffusers(folder, name, overrides, data, registry)
    _require_fit(recipe, state, folder)
    classes = exported.about(folder).get("classes", []) if exported.is_exported(folder) else []
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
        "notices": [f"imported from {name}"],
        "classes": classes,
    }
    write_file(run.place("environment.json"), json.dumps(environment, indent=1, ensure_ascii=False))
    saved = checkpoint.save(run, state, 1)
    if prior is not None:
        own = kept.of_model(prior, checkpoint.sums(saved)["model.safetensors"]["sha256"])
        write_file(run.place(kept.FOLDER, kept.FILE), kept.packed(own))
    step = state.numbers["step"]
    ended = {"how": "done", "step": step, "of": step, "message": "imported"}
    write_file(run.place("ended.json"), json.dumps(ended, indent=1, ensure_ascii=False))
    return run


def _from_diffusers(
    folder: Path, name: str, overrides: Sequence[str], data: str | Path | None,
    registry: vgx.Registry,
) -> tuple[vgx.Recipe, State]:  # fmt: skip
    """Return a recipe and a state out of a folder of diffusers, or of its folder `vae`."""
    import torch

    place = read_diffusers.folder_of(folder)
    if place is None:
        needs = f"vgx.json (vgx export), or {read_diffusers.CONFIG} and {read_diffusers.WEIGHTS}"
        raise vgx.StorageError(f"{folder}: no model: it has neither {needs} (diffusers)")
    found = read_diffusers.read(place)
    fields = diffusers.fields(found, registry)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64] or "vae"
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "recipe.yaml"
        # JSON is YAML.
        file.write_text(json.dumps({"name": name, **fields, **_TRAINING}), encoding="utf-8")
        recipe = vgx.load_recipe(file, overrides, registry, data)
    recipe = diffusers.with_latent(recipe)
    latents = {"codes": torch.zeros(0, *recipe.latent.shape)}  # [0, *Z]
    numbers = {"step": 0, "imported": True, "latents": found.scale}
    return recipe, State(found.tensors, {}, latents, numbers)


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
