"""The page: one HTML file with the networks of a run and the engine that runs them.

Letters: N images, Z the latent shape.
"""

from __future__ import annotations

import base64
import gzip
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vgx
from vgx.data.decode import colour
from vgx.files import require_ending, write_file
from vgx.runs.directory import Run
from vgx.sampling.draw import class_names
from vgx_explore import engine, precision
from vgx_explore.latents import (
    SHOWN,
    SPAN,
    Direction,
    Faces,
    class_directions,
    draw_faces,
    stored_faces,
    strongest_directions,
)
from vgx_report.html import PAGE, filled
from vgx_share.onnx import missing_libraries, write_decoder, write_encoder

CHANNELS = (1, 3, 4)  # of images that a browser shows
CLOSE = 0.5 / 255  # what smaller files may differ on what is tried, so that others stay in 1/255
TRIED = 32  # latents and images on which the networks are compared with PyTorch


@dataclass(frozen=True, eq=False)
class Network:
    """A network of the page: an ONNX file, and how it is stored."""

    data: bytes
    kind: str  # one of `precision.KINDS`
    difference: float  # of its images to PyTorch's, the largest of all values that were tried


def write_page(
    run: Run,
    out: Path | None = None,
    *,
    stored: bool = False,
    archive: Path | None = None,
    best: bool = False,
) -> tuple[Path, list[str]]:
    """Write the page of a run; return its file, and what is in it as lines of text.

    `out` is by default `explore.html` in the run. With `stored` the corners are latents of training
    images; with `best` the model is that of the best checkpoint. `archive` is a file with the
    engine, for a machine without a network. Raises `RecipeError` for a run whose images a browser
    cannot show, `HubError` without an engine, `StorageError` for files that cannot be read or
    written.
    """
    if out is not None:
        require_ending(out, "a page", PAGE)
    path = out or run.place("explore.html")
    if missing := missing_libraries():
        raise vgx.RecipeError(f"the page needs {', '.join(missing)}: pip install 'vgx[onnx]'")
    runtime = engine.load(archive)
    model, faces = draw_faces(run, best=best)
    recipe = model.recipe
    if recipe.image.channels not in CHANNELS:
        text = f"the images have {recipe.image.channels} channels; a page shows 1, 3 or 4"
        raise vgx.RecipeError(f"{run.path}: {text}")
    names = class_names(run, recipe)
    directions = [*class_directions(model, names), *strongest_directions(model, faces)]
    shown = stored_faces(model, faces) if stored else faces
    shown = replace(shown, z=shown.z[:SHOWN])
    decoder, encoder = networks(run, model, faces, directions)
    facts = _facts(model, shown, decoder, encoder)
    data = {
        "name": run.path.resolve().name,
        "step": model.step,
        "image": _image(recipe.image),
        "latent": list(recipe.latent.shape),
        "faces": len(shown.z),
        "renormalise": shown.renormalise,
        "directions": [{"left": each.left, "right": each.right} for each in directions],
        "span": SPAN,
        "classes": list(names) if recipe.takes_labels else [],
        "encoder": encoder is not None,
        "facts": facts,
    }
    rows = [shown.z, faces.z.mean(0)[None], *(each.change[None] for each in directions)]
    packed = {
        "script": runtime.script,
        "wasm": runtime.wasm,
        "decoder": decoder.data,
        "encoder": encoder.data if encoder else b"",
        "latents": torch.cat(rows).float().contiguous().numpy().astype("<f4").tobytes(),
    }
    text = page(data, packed)
    write_file(path, text)
    return path, [*facts, f"Size: {len(text.encode()) / 1e6:.1f} MB."]


def networks(
    run: Run, model: vgx.Model, faces: Faces, directions: Sequence[Direction]
) -> tuple[Network, Network | None]:
    """Return the decoder and the encoder, if there is one, each as small as it can be.

    The smallest kind is taken whose images differ from PyTorch's by less than `CLOSE`: those of new
    latents and of latents at the ends of sliders, and the reconstructions of new images.
    """
    ends = [faces.z[:1] + sign * SPAN * each.change for each in directions for sign in (-1, 1)]
    z = torch.cat([faces.z[:TRIED], *ends]).float()  # [N, *Z]
    labels = _labels(model, len(z))  # [N]
    decoder = _decoder(model, z, labels)
    if model.recipe.encoder is None:
        return decoder, None
    whole = vgx.load(run, "cpu", ("encoder", "decoder"), step=model.step)
    images = whole.decode(z[:TRIED], labels[:TRIED])  # [N, C, H, W]
    return decoder, _encoder(whole, decoder, images, labels[:TRIED])


def _labels(model: vgx.Model, n: int) -> Tensor:
    """[n]  Each label in turn."""
    return torch.arange(n) % max(model.recipe.image.classes, 1)


def _decoder(model: vgx.Model, z: Tensor, labels: Tensor) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "decoder.onnx")
        write_decoder(model, file, z)
        data = file.read_bytes()
    wanted = model.decode(z, labels)  # [N, C, H, W]
    return _smallest(data, lambda small: _decoded(model, small, z, labels), wanted)


def _decoded(model: vgx.Model, data: bytes, z: Tensor, labels: Tensor) -> Tensor:
    """[N, C, H, W]  The images that a decoder in ONNX makes of latents [N, *Z]."""
    inputs = {"latents": z.numpy()}
    if model.recipe.decoder.conditional:
        inputs["labels"] = labels.numpy()
    return torch.from_numpy(precision.run(precision.opened(data), inputs))


def _encoder(model: vgx.Model, decoder: Network, images: Tensor, labels: Tensor) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "encoder.onnx")
        write_encoder(model, file, images)
        data = file.read_bytes()

    def reconstructed(small: bytes) -> Tensor:
        inputs = {"images": images.numpy()}
        if model.recipe.encoder and model.recipe.encoder.conditional:
            inputs["labels"] = labels.numpy()
        z = precision.run(precision.opened(small), inputs)
        return _decoded(model, decoder.data, torch.from_numpy(z), labels)

    return _smallest(data, reconstructed, model.decode(model.encode(images, labels), labels))


def _smallest(data: bytes, images: Callable[[bytes], Tensor], wanted: Tensor) -> Network:
    """Return a network as the smallest kind whose images differ less than `CLOSE` from `wanted`."""
    for kind in precision.KINDS:
        small = precision.shrunk(data, kind)
        difference = float((images(small) - wanted).abs().max())
        if difference < CLOSE:
            break
    return Network(small, kind, difference)  # at last float32, whatever it differs


def _image(spec: vgx.ImageSpec) -> dict[str, Any]:
    """Return what the page needs to know to make an image of the recipe of a photo."""
    return {
        "channels": spec.channels, "height": spec.height, "width": spec.width, "fit": spec.fit,
        "background": list(colour(spec.background)),
    }  # fmt: skip


def _facts(model: vgx.Model, shown: Faces, decoder: Network, encoder: Network | None) -> list[str]:
    """Return what is in the page, as sentences."""
    compared = "from PyTorch's by at most {0.difference:.5f} of 1 (1/255 is 0.00392)"
    stored = "parameters stored as {0.kind}"
    facts = [
        f"Step {model.step:,}.",
        f"Latents of the corners: {shown.origin}.",
        f"Decoder: {stored}; its images differ {compared}.".format(decoder),
    ]
    if encoder is not None:
        facts.append(f"Encoder: {stored}; reconstructions differ {compared}.".format(encoder))
    return facts


def page(data: Mapping[str, Any], packed: Mapping[str, bytes]) -> str:
    """Return the page that shows `data`, with the files in `packed` inside.

    The files are embedded as base64. The page's own policy lets its script run, and loads nothing.
    """
    folder = files("vgx_explore").joinpath("page")
    text, style, code, worker = (
        folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("explore.html", "explore.css", "explore.js", "worker.js")
    )
    packed = {**packed, "worker": worker.encode()}
    scripts = "\n".join(
        f'<script type="application/octet-stream" id="{name}">{_base64(content)}</script>'
        for name, content in packed.items()
    )
    title, version = f"{data['name']} - vgx explore", f"onnxruntime-web {engine.RELEASE.version}"
    return filled(text, data, title=title, style=style, code=code, packed=scripts, engine=version)


def _base64(content: bytes) -> str:
    """Return a file as text that HTML takes as it is: compressed, in base64."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
