"""What a run is made with: versions, plugins, device, images; and room on the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from vgx.check.examine import Findings
from vgx.data.classes import KEPT
from vgx.data.split import held_out
from vgx.data.store import Store
from vgx.data.stream import StreamedImages
from vgx.distributed.state import group
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.files import working_folder, write_file
from vgx.parts.registry import Registry
from vgx.recipe.model import Recipe
from vgx.runs.directory import Run
from vgx.runs.weights import Weights


def one_process(command: str) -> None:
    """Raise `RecipeError` when a launcher started several processes for a command of one."""
    size = os.environ.get("WORLD_SIZE", "").strip()
    if size.isdecimal() and int(size) > 1:
        raise RecipeError(
            f"WORLD_SIZE is {size}: {command} works in one process, so these {size} would each do "
            "the same; start it without torchrun or another launcher, with --device cuda:1 for "
            "another GPU than the first"
        )


def write(run: Run, registry: Registry, about: dict[str, Any], findings: Findings) -> None:
    """Write what a run begins with, beside its recipe: plugin files, `about`, and the audit."""
    for file in registry.files:
        write_file(run.place("plugins", file.path.name), file.data)
    for name, content in (("environment", about), ("audit", dataclasses.asdict(findings))):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_file(run.place(f"{name}.json"), f"{text}\n")


def describe(
    recipe: Recipe,
    registry: Registry,
    device: torch.device,
    store: Store,
    notices: list[str],
    folder: Path | None,
    weights: Weights | None = None,
) -> dict[str, Any]:
    """Return what a run was made with, for `environment.json`."""
    counted = store.classes(recipe.image)[:KEPT]
    classes = [{"name": name, "count": count} for name, count in counted]
    return {
        **machine(registry, device),
        "git": _git_commit(folder),
        "folder": working_folder(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data": {
            "dataset": recipe.dataset.type,
            "fingerprint": store.fingerprint,
            "content": store.content,
            "revision": store.revision,
            "streamed": isinstance(store.images, StreamedImages),
            "kept": len(store.images),
            "held_out": int(held_out(store.hashes, recipe.eval.holdout).sum()),
            "dropped": store.dropped,
            "left_out": store.left_out,
            "bad": {"count": store.bad, "named": list(store.named)},
            "kind": store.kind,
            "look": dataclasses.asdict(store.look),
            **({"classes": classes} if classes else {}),
        },
        "better": recipe.eval.better,  # higher or lower, for readers without the plugins
        # What step-*.png show; without it, latents from N(0, I), as while there is no prior.
        "grids": "prior" if recipe.sampler.needs_prior else recipe.sampler.type,
        "notices": notices,
        **({"parent": weights.lineage()} if weights else {}),
    }


def machine(registry: Registry, device: torch.device) -> dict[str, Any]:
    """Return what the last bits of a run depend on besides its recipe and its images."""
    packages = ("torch", "torchvision", "timm", "datasets", "numpy", "pillow", "pydantic")
    return {
        "vgx": importlib.metadata.version("vgx"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "plugins": [
            {
                "name": p.name,
                "distribution": p.distribution,
                "version": p.version,
                "failure": p.failure,
            }
            for p in registry.plugins
            if p.parts or p.failure  # others change no number of a run
        ],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "processes": group().size,
    }


def changes(run: Run, now: dict[str, Any]) -> list[str]:
    """Return a notice when a run continues with other versions or on another device."""
    old, new = (
        {"processes": 1}
        | {
            key: env[key]
            for key in ("vgx", "python", "device", "threads", "processes")
            if key in env
        }
        | env.get("packages", {})
        | {f"plugin {p['name']}": p["version"] for p in env.get("plugins", [])}
        for env in (run.environment(), now)
    )
    changed = [
        f"{key} {old.get(key) or 'none'} -> {new.get(key) or 'none'}"
        for key in old | new
        if old.get(key) != new.get(key)
    ]
    if not changed:
        return []
    what = ", ".join(changed)
    return [f"the run began with another environment, so its last bits may differ now: {what}"]


def _git_commit(folder: Path | None) -> str | None:
    command = ("git", "-C", str(folder or Path()), "rev-parse", "HEAD")
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)  # noqa: S603
        return done.stdout.strip() or None
    return None


def room(run: Run, engine: Engine) -> list[str]:
    """Return a notice when the disk has no room for three checkpoints, as many as saving takes.

    For an optimizer, two numbers are counted for each parameter, as Adam has.
    """
    trained = [parameter for player in engine.players.values() for parameter in player.parameters]
    networks = [*engine.networks.values(), *([engine.ema] if engine.ema else [])]
    tensors = [tensor for network in networks for tensor in network.state_dict().values()]
    size = sum(tensor.nbytes for tensor in [*tensors, *trained, *trained, engine.latents.ring])
    free = shutil.disk_usage(run.path).free
    if free >= 3 * size:
        return []
    needed = f"three of its checkpoints are about {3 * size / 2**20:,.0f} MiB"
    return [f"{run.path}: {needed}, and the disk has {free / 2**20:,.0f} MiB"]
