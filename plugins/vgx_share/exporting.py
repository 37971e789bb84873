"""`vgx export`: a trained model as a folder of files that any program can read.

The folder has the files that are listed in docs/share.md and no others. Nothing in it names a path
of this machine, its host or its user, and no file shows an image that the model was trained on.

Letters: n images, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

import vgx
from vgx import __version__
from vgx.engine.build import untrained
from vgx.files import new_folder, user_path, write_file
from vgx.images import as_pil, as_pixels, grid
from vgx.runs import exported, reading
from vgx.runs.checkpoint import tensor_bytes
from vgx.runs.directory import Run
from vgx.runs.trust import registry_of
from vgx.sampling.draw import class_names, decoded, draw_latents, prepare
from vgx.sampling.model import Model, load_model, located
from vgx.second import kept
from vgx_share import card, diffusers, onnx
from vgx_share.latents import far_from_stored

SAMPLES = 64  # images in samples.webp, in 8 rows
_GAUSSIAN = "from the Gaussian with the mean and the deviation of the stored latents, by channel"
NO_PATH = "left-out"  # in place of a path of this machine
# A name or an address of a data set of the hub, as `dataset.path` takes it.
_ON_HUB = re.compile(
    r"\w[\w.-]*/\w[\w.-]*|(hf:/|(https?:/+)?(www\.)?(huggingface|hf)\.co/).*", re.ASCII
)


@dataclass(frozen=True)
class Wishes:
    """What a user asks for beyond the usual files."""

    codes: bool = False
    discriminator: bool = False
    explorer: bool = False
    license: str | None = None
    base_model: str | None = None


def write_folder(
    run: Run | str | Path | int | None, folder: str | Path, wishes: Wishes, *, best: bool
) -> Path:
    """Write a run's model as a new folder, and return it. See `vgx_share.export`."""
    folder, source = user_path(folder), located(run)
    card.require_terms(wishes.license, wishes.base_model)
    with new_folder(folder) as place:
        _export(source, place, wishes, best=best)
    return folder


def _export(run: Run, place: Path, wishes: Wishes, *, best: bool) -> None:
    recipe = vgx.load_recipe(run.recipe_file, (), registry_of(run))
    model = load_model(run, recipe, "cpu", best=best)
    shared = without_paths(recipe, run)
    environment = reading.unless_damaged(reading.environment, run.path) or {}
    tensors = _tensors(model, discriminator=wishes.discriminator)
    statistics = latent_statistics(run, model)
    samples, drawn = _samples(model, statistics)
    written: dict[str, bytes] = {
        exported.RECIPE: vgx.dump_recipe(shared).encode(),
        exported.MODEL: tensor_bytes(tensors, {"format": "pt"}),
        "samples.webp": samples,
    }
    if wishes.codes:
        written[exported.CODES] = tensor_bytes(_latents(model))
    if model.prior is not None and (prior := kept.read(run.path)):
        sha256 = exported.summed(written[exported.MODEL])["sha256"]
        written[kept.FILE] = kept.packed(kept.of_model(prior, sha256))
    written |= diffusers.files(model, statistics)
    written |= _onnx_files(model)
    if wishes.explorer:
        written["explorer/index.html"] = _explorer(run, best=best)
    about: exported.About = {
        "format": exported.FORMAT,
        "vgx": __version__,
        "name": recipe.name,
        "step": model.step,
        "averaged": recipe.train.ema is not None,
        "networks": sorted({name.partition(".")[0] for name in tensors}),
        "images": {
            "channels": recipe.image.channels, "height": recipe.image.height,
            "width": recipe.image.width, "range": (0.0, 1.0),
        },
        "latents": {"shape": [*recipe.latent.shape], **statistics},
        "plugins": [
            {"name": each["name"], "version": each["version"]}
            for each in environment.get("plugins", [])
        ],
        "files": {},
    }  # fmt: skip
    if recipe.image.classes:
        counts = environment.get("data", environment).get("classes", [])
        about["classes"] = counts or [
            {"name": name, "count": 0} for name in class_names(run, recipe)
        ]
    written[exported.CARD] = card.text(run, shared, model, about, written, drawn, wishes).encode()
    about["files"] = {name: exported.summed(data) for name, data in sorted(written.items())}
    written[exported.ABOUT] = json.dumps(about, indent=1, ensure_ascii=False).encode()
    for name, data in written.items():
        write_file(place / name, data)


def _tensors(model: Model, *, discriminator: bool) -> dict[str, Tensor]:
    """Return the weights by the names that they have in a run."""
    judges = model.recipe.judges
    if discriminator and not judges:
        raise vgx.RecipeError(f"{model.recipe.name} has no discriminator")
    networks = {
        name: network
        for name, network in model.by_name.items()
        if discriminator or name not in judges
    }
    if model.recipe.sampler.needs_losses:
        networks |= {f"loss {label}": module for label, module in model.losses.items()}
    return {
        f"{name}.{key}": tensor
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


def _latents(model: Model) -> dict[str, Tensor]:
    """Return the stored latents, as a checkpoint has them."""
    known = {"codes": model.codes, "labels": model.labels, "kl": model.kl}
    return {name: tensor for name, tensor in known.items() if tensor is not None}


def latent_statistics(run: Run, model: Model) -> exported.Scale:
    """Return mean and deviation of the stored latents by channel, and the scaling factor.

    The scaling factor is 1 over the deviation of all latents (Rombach et al. 2022, section D.1). An
    empty dict for a model without stored latents, unless it came with them. An encoder that was
    frozen keeps the scale of the model that it is from.
    """
    environment = reading.unless_damaged(reading.environment, run.path) or {}
    parent = environment.get("parent", {})
    kept = exported.scale_of(parent.get("latents", {}))
    if kept and "encoder" in model.recipe.train.freeze and "encoder" in parent.get("networks", ()):
        return kept
    if len(model.codes) < 2:
        return model.known
    channels = model.codes.double().movedim(1, 0).flatten(1)  # [C, K * places]
    std = channels.std(1, correction=0)
    whole = float((channels - channels.mean()).square().mean().sqrt())
    return {
        "mean": channels.mean(1).tolist(),
        "std": std.tolist(),
        "scaling_factor": 1 / whole if whole > 0 else 1.0,
    }


def without_paths(recipe: vgx.Recipe, run: Run) -> vgx.Recipe:
    """Return a recipe that names no path of this machine, no tracker and no outside weights."""
    environment = reading.unless_damaged(reading.environment, run.path) or {}
    folder = Path(environment.get("folder") or ".")
    data = environment.get("data", {})
    # A stream of the hub has a commit; of stored images nothing says where they came from.
    local = data.get("streamed") and data.get("revision") == ""

    def cleaned(value: Any, field: str) -> Any:
        if isinstance(value, BaseModel):
            fields = {name: cleaned(getattr(value, name), name) for name in _fields(value)}
            return value.model_copy(update=fields)
        if isinstance(value, tuple | list):
            return type(value)(cleaned(each, field) for each in value)
        if isinstance(value, dict):
            return {key: cleaned(each, field) for key, each in value.items()}
        if isinstance(value, Path):
            return Path(NO_PATH)
        if isinstance(value, str) and (
            (local and field == "path") or _is_path(value, field, folder)
        ):
            return NO_PATH
        return value

    # Trackers would send the next training to somebody's server.
    cleaned_recipe: vgx.Recipe = cleaned(untrained(recipe).model_copy(update={"trackers": ()}), "")
    return cleaned_recipe


def _fields(part: BaseModel) -> list[str]:
    return [*type(part).model_fields]


def _is_path(text: str, field: str, folder: Path) -> bool:
    """Return whether the value of a field is a path, or was one where the run was started."""
    if field == "file" or re.match(r"[/~\\]|\.{1,2}/|[A-Za-z]:[/\\]|file:", text):
        return True
    if "/" in text and field == "path" and not _ON_HUB.fullmatch(text):
        return True
    if "/" not in text and field != "path":  # a word, as a folder may be called
        return False
    with suppress(OSError, ValueError):  # no name that a file can have
        return Path(text).exists() or (folder / text).exists()
    return False


def _samples(model: Model, statistics: exported.Scale) -> tuple[bytes, str]:
    """Return drawn images as a file, and how they were drawn.

    They are drawn by the recipe's sampler, unless it shows training images: one that decodes stored
    latents as they are, or images of its own, shows reconstructions. Then latents are drawn from a
    Gaussian, with the mean and the deviation of the stored latents.
    """
    recipe, codes, drawn, sampler = model.recipe, model.codes, None, None
    part = recipe.sampler
    how = f"by the recipe's sampler `{part.type}`"
    if not part.own_images and len(codes) >= part.least_codes:
        with suppress(vgx.RecipeError):  # it cannot draw from these latents
            prepared = prepare(model)
            latents = draw_latents(prepared, 2 * SAMPLES, 0)
            far = far_from_stored(latents.z, codes).nonzero()[:SAMPLES, 0]
            labels = None if latents.labels is None else latents.labels[far]
            drawn, sampler = (latents.z[far], labels), prepared.sampler
    if drawn is None or len(drawn[0]) < SAMPLES:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(SAMPLES, *recipe.latent.shape, generator=generator)  # [n, *Z]
        drawn, sampler = (model.latent_mean + model.latent_std * noise, None), None
        how = _GAUSSIAN if statistics else "from N(0, I)"
    images = torch.cat([*decoded(model, *drawn, sampler)])  # [n, C, H, W]
    file = io.BytesIO()
    as_pil(as_pixels(grid(images, 8)[None])[0]).save(file, "WEBP", lossless=True)
    return file.getvalue(), how


def _onnx_files(model: Model) -> dict[str, bytes]:
    """Return the ONNX files; none, with a notice, where they cannot be written."""
    if missing := onnx.missing_libraries():
        text = f"no ONNX files: {', '.join(missing)} missing; pip install 'vgx[onnx]'"
        warnings.warn(text, vgx.Notice, stacklevel=2)
        return {}
    files: dict[str, bytes] = {}
    for name, part, write in (
        ("encoder.onnx", model.recipe.encoder, onnx.write_encoder),
        ("decoder.onnx", model.recipe.decoder, onnx.write_decoder),
    ):
        if part is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            try:
                write(model, path)
            except vgx.PluginError as error:
                warnings.warn(f"{name} is left out: {error}", vgx.Notice, stacklevel=2)
                continue
            files[name] = path.read_bytes()
    return files


def _explorer(run: Run, *, best: bool) -> bytes:
    """Return the page of `vgx explore`, of the checkpoint that is exported."""
    from vgx_explore import explore

    with tempfile.TemporaryDirectory() as folder:
        return explore(run.path, Path(folder) / "index.html", best=best).read_bytes()
