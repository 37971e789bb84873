"""The card of a model, README.md: what it is, how it is used, what was measured."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import vgx
from vgx.runs import exported, reading
from vgx.runs.directory import Run
from vgx.second.kept import FILE as PRIOR

if TYPE_CHECKING:
    from vgx.runs.exported import About
    from vgx.sampling.model import Model
    from vgx_share.exporting import Wishes

OTHERS = "of another data set"  # than the run's
NAME = "OWNER/NAME"  # which `vgx push` replaces by the name on the hub
_TERMS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_SHAPES, _NETWORK = r"[\dx, >-]{1,60}", r"[\w.@/+-]{1,60}( [\w.@/+-]{1,60})?"
_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_PATH = re.compile(r"[\w.-]/|/[\w.-]|[~\\]")  # a slash beside a name, or what paths begin with
CODES = (
    "`codes.safetensors` has the stored latents of the training, which are derived from the "
    "training images: decoded, they show reconstructions of these."
)


def require_terms(license: str | None, base_model: str | None) -> None:  # noqa: A002
    """Raise `RecipeError` for a licence or a base model that no card can name."""
    if license is not None and not _TERMS.fullmatch(license):
        message = "give an identifier of the hub: mit, cc-by-4.0, other"
        raise vgx.RecipeError(f"license: {license!r}: {message}")
    if base_model is not None and not _HUB.fullmatch(base_model):
        raise vgx.RecipeError(f"base model: {base_model!r}: give a name of the hub: owner/name")


def text(
    run: Run,
    recipe: vgx.Recipe,
    model: Model,
    about: About,
    files: Mapping[str, bytes],
    drawn: str,
    wishes: Wishes,
) -> str:
    """Return the card. `recipe` names no path; `files` are the others in the folder, by name.

    `drawn` says how the images of samples.webp were drawn.
    """
    from huggingface_hub import ModelCardData

    measured = _measured(run, model.step)
    data = ModelCardData(
        library_name="vgx",
        pipeline_tag=_task(recipe),
        license=wishes.license,
        base_model=wishes.base_model,
        datasets=_hub_datasets(recipe) or None,
        tags=["vgx", _kind(recipe), *(["diffusers"] if "vae/config.json" in files else [])],
        model_name=recipe.name,
        eval_results=list(_results(recipe, measured)) or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {recipe.name}",
        _what(run, recipe, model),
        f"![Drawn images](samples.webp)\n\nThese images are drawn {drawn}.",
        _use(recipe, about, files),
        _figures(measured),
        _audit(run, recipe),
        _latents(about),
        CODES if exported.CODES in files else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _kind(recipe: vgx.Recipe) -> str:
    if recipe.encoder is None:
        return "gan" if recipe.judges else "decoder"
    return "vae-gan" if recipe.judges else "vae"


def _task(recipe: vgx.Recipe) -> str:
    """Return what the hub calls the task: spatial latents are there to encode and decode images."""
    spatial = recipe.encoder is not None and len(recipe.latent.shape) > 1
    return "image-to-image" if spatial else "unconditional-image-generation"


def _hub_datasets(recipe: vgx.Recipe) -> list[str]:
    path = getattr(recipe.dataset, "path", None)
    known = isinstance(path, str) and _HUB.fullmatch(path) and recipe.dataset.asks()
    return [str(path)] if known else []


def _what(run: Run, recipe: vgx.Recipe, model: Model) -> str:
    environment = reading.unless_damaged(reading.environment, run.path) or {}
    kept = environment.get("data", {}).get("kept")
    data = (_hub_datasets(recipe) or [recipe.dataset.type])[0]
    images = f"{kept:,} images of `{data}`" if kept else f"images of `{data}`"
    latent = " x ".join(map(str, recipe.latent.shape))
    size = f"{recipe.image.height} x {recipe.image.width} pixels"
    how = f"a latent of {latent} numbers and images of {size}"
    averaged = ", averaged weights" if recipe.train.ema is not None else ""
    kind = _kind(recipe).upper().replace("DECODER", "decoder")
    return (
        f"A {kind} with {how}, trained with vgx on {images}: {model.step:,} steps of "
        f"{recipe.train.batch} images{averaged}. `recipe.yaml` has every setting."
    )


def _use(recipe: vgx.Recipe, about: About, files: Mapping[str, bytes]) -> str:
    draws, how = _drawing(recipe, about, files)
    lines = [
        "## Use", "```python", "import torch", "import vgx", "",
        f'model = vgx.load("{NAME}")',
        *(["labels = torch.zeros(16, dtype=torch.long)  # class 0"] if recipe.takes_labels else []),
        *draws,
        *_again(recipe),
        "```", "", how,
    ]  # fmt: skip
    if needed := [plugin for plugin in about["plugins"] if plugin["name"] != "builtin"]:
        named = ", ".join(f"{plugin['name']} {plugin['version']}" for plugin in needed)
        lines += ["", f"It needs plugins that are not in this folder: {named}."]
    if "decoder.onnx" in files:
        inputs = "`latents` and `labels`" if recipe.decoder.conditional else "`latents`"
        labels = " and their `labels`" if recipe.encoder and recipe.encoder.conditional else ""
        lines += [
            "", "Without PyTorch, by onnxruntime: `decoder.onnx` takes "
            f"{inputs} and ends in images in [0, 1]"
            + (f"; `encoder.onnx` gives latents of images in [0, 1]{labels}."
               if recipe.encoder else "."),
        ]  # fmt: skip
    if "vae/config.json" in files:
        kind = json.loads(files["vae/config.json"])["_class_name"]
        # AutoencoderTiny has no distribution of latents.
        latents = "latent_dist.mode()" if kind == "AutoencoderKL" else "latents"
        lines += [
            "", "With diffusers, whose images are in [-1, 1]:", "```python",
            f"from diffusers import {kind}", "",
            f'vae = {kind}.from_pretrained("{NAME}", subfolder="vae")',
            f"latents = vae.encode(images * 2 - 1).{latents}",
            "images = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)", "```",
        ]  # fmt: skip
    return "\n".join(lines)


def _labels(part: vgx.Encoder | vgx.Decoder) -> str:
    """Return the further argument of a network that takes labels."""
    return ", labels" if part.conditional else ""


def _again(recipe: vgx.Recipe) -> list[str]:
    """Return the lines of code that encode images and decode their latents."""
    if recipe.encoder is None:
        return []
    return [
        f"latents = model.encode(images{_labels(recipe.encoder)})",
        f"again = model.decode(latents{_labels(recipe.decoder)})",
    ]


def _drawing(recipe: vgx.Recipe, about: About, files: Container[str]) -> tuple[list[str], str]:
    """Return the lines of code that give images, and a sentence that says how these are drawn."""
    part, shape = recipe.sampler, ", ".join(map(str, recipe.latent.shape))
    get, own = "  # [16, C, H, W] in [0, 1]", _labels(recipe.decoder)
    if not (needed := _lacking(part, files)):
        how = f"The images are drawn by the recipe's sampler `{part.type}`."
        label = ", label=0" if own else ""
        return [f'images = vgx.sample("{NAME}", n=16{label}){get}'], how
    if _task(recipe) == "image-to-image":
        size = f"{recipe.image.channels}, {recipe.image.height}, {recipe.image.width}"
        text = "The model encodes and decodes images; nothing in this folder draws new ones."
        return [f"images = torch.rand(16, {size})  # yours, in [0, 1]"], text
    noise = f"noise = torch.randn(16, {shape})"
    if not {"mean", "scaling_factor"} & {*about["latents"]}:
        return [noise, f"images = model.decode(noise{own}){get}"], "Latents are drawn from N(0, I)."
    lines = [noise, "latents = model.latent_mean + model.latent_std * noise"]
    text = (
        f"The recipe's sampler `{part.type}` needs {needed}. So latents are drawn from the "
        "Gaussian with the mean and the deviation of the stored latents of the training, by "
        "channel, which `vgx.json` has. The decoder may know nothing of N(0, I)."
    )
    return [*lines, f"images = model.decode(latents{own}){get}"], text


def _lacking(part: vgx.Sampler, files: Container[str]) -> str:
    """Return what a sampler needs that is not in the folder; "" when it draws."""
    if part.needs_prior and PRIOR not in files:
        return "a trained prior, which is not in this folder"
    if part.own_images or (part.least_codes and exported.CODES not in files):
        return "latents that are not in this folder"
    return ""


# --- what was measured ---------------------------------------------------------------------------


def _measured(run: Run, step: int) -> reading.Evaluation:
    """Return the evaluation of this step; an empty one if there is none."""
    measured = reading.unless_damaged(reading.evaluation, run.path)
    return measured if measured and measured.get("step") == step else {}


def _parts(measured: reading.Evaluation) -> Iterator[tuple[str, str, reading.Part]]:
    """Give what was measured: a name, the protocol, the figures."""
    seeds = len(measured.get("seeds", []))
    if part := measured.get("reconstruction"):
        yield "reconstruction", f"{part.get('pictures', 0):,} images", part
    for part in measured.get("generation", []):
        sampler = _word(part.get("sampler", {}).get("type"))
        protocol = f"{part.get('pictures', 0):,} drawn against {part.get('real', 0):,} real images"
        yield f"generation, {sampler}", f"{protocol}, mean of {seeds} seeds", part
    if part := measured.get("latent"):
        yield "latents", f"{part.get('pictures', 0):,} images", part


def _word(value: Any, pattern: str = r"[\w.@/+-]{1,60}") -> str:
    """Return a name out of a file, as long as it is one."""
    return value if isinstance(value, str) and re.fullmatch(pattern, value) else "?"


def _rows(measured: reading.Evaluation) -> Iterator[tuple[str, str, str, str, str, float]]:
    """Give what, protocol, split, metric, features and value of each figure."""
    for what, protocol, part in _parts(measured):
        split = part["split"] if part.get("split") in ("held out", "trained on") else OTHERS
        for metric, figure in part["figures"].items():
            features = _word(figure.get("features") or "-")
            if math.isfinite(figure["mean"]):
                yield what, protocol, split, _word(metric), features, figure["mean"]


def _results(recipe: vgx.Recipe, measured: reading.Evaluation) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    data = (_hub_datasets(recipe) or [recipe.dataset.type])[0]
    # The hub would take figures on other images for those on the run's own.
    own = (row for row in _rows(measured) if row[2] != OTHERS)
    for what, protocol, split, metric, features, value in own:
        of = "" if features == "-" else f" [{features}]"
        yield EvalResult(
            task_type=_task(recipe),
            dataset_type=data,
            dataset_name=data,
            metric_type=metric,
            metric_name=f"{metric}{of}, {what}, {split}, {protocol}",
            metric_value=round(value, 6),
        )


def _figures(measured: reading.Evaluation) -> str:
    rows = [
        f"| {what} | {metric} | {features} | {value:.4g} | {split}: {protocol} |"
        for what, protocol, split, metric, features, value in _rows(measured)
    ]
    head = "## Figures\n\n| of | metric | features | value | protocol |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) if rows else ""


def _audit(run: Run, recipe: vgx.Recipe) -> str:
    """Return losses and networks, and what was known before the first step."""
    losses = ", ".join(f"`{loss.label}`" for loss in recipe.losses)
    lines = ["## Training", "", f"Losses: {losses}.", ""]
    audit = reading.unless_damaged(reading.audit, run.path) or {}
    # A note of a part may name its file of weights.
    notes = [note for note in audit.get("notes", []) if not _PATH.search(note)]
    lines += [f"- {' '.join(note.split())}" for note in notes[:20]]
    if rows := audit.get("rows", []):
        lines += ["", "| network | part | from -> to | parameters |", "|---|---|---|---|"]
        lines += [
            f"| {_word(row['network'], _NETWORK)} | {_word(row['part'])} "
            f"| {_word(row['shapes'], _SHAPES)} | {row['parameters']:,} |"
            for row in rows[:10]
        ]
    return "\n".join(lines)


def _latents(about: About) -> str:
    known = about["latents"]
    if "scaling_factor" not in known:
        return ""
    text = f"Scaling factor {known['scaling_factor']:.6g}: latents times it have variance 1."
    if shift := known.get("shift_factor"):
        text += f" Shift factor {shift:.6g}: it is taken from them before."
    means, stds = known.get("mean", []), known.get("std", [])
    if means and stds:
        text += f"\nBy channel: mean {_numbers(means)}; deviation {_numbers(stds)}."
    return f"## Latents\n\n{text}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:16]) + (", ..." if values[16:] else "")
