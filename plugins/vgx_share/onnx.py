"""Encoder and decoder as ONNX files, which run without PyTorch.

The files contain float32 networks and nothing about the machine that wrote them. Each is compared
with PyTorch before it is written.

Letters: N images, C channels, H x W pixels, Z the latent shape.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import vgx
from vgx.files import write_file

BATCHES = (1, 7)  # with which each file is compared with PyTorch
CLOSE = 1e-5  # largest difference, for values in [-1, 1]; relative to the largest beyond
MAX_BYTES = 2**31 - 2**20  # what fits in one ONNX file
_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")


class _Decoder(nn.Module):
    """A decoder that ends in the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, C, H, W]  Images in [0, 1] of latents [N, *Z] and, if it takes them, labels [N]."""
        logits: Tensor = self.network(latents, *([] if labels is None else [labels]))
        return logits.sigmoid()


class _Encoder(nn.Module):
    """An encoder that gives the mean of the posterior; with the decoder, if it uses that."""

    def __init__(self, network: nn.Module, decoder: nn.Module | None) -> None:
        super().__init__()
        self.network, self.decoder = network, decoder

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, *Z]  The posterior means of images [N, C, H, W] in [0, 1] with labels [N]."""
        further = [each for each in (labels, self.decoder) if each is not None]
        mean: Tensor = self.network(images, *further).mean
        return mean


def missing_libraries() -> list[str]:
    """Return the libraries of the extra `onnx` that are not installed."""
    return [name for name in _LIBRARIES if find_spec(name) is None]


def write_decoder(model: vgx.Model, path: Path, latents: Tensor | None = None) -> None:
    """Write a model's decoder: `latents` [N, *Z] -> `images` [N, C, H, W] in [0, 1], in float32.

    A decoder that takes labels has a second input, `labels` [N] of int64. N is any number. Where
    the latents are spatial and the network allows it, so are their sides. `latents` are those that
    the file is compared with PyTorch on; by default the model's stored ones, or draws of N(0, I).
    Raises `PluginError` when the network cannot be written, or when the file gives other images.
    """
    part, spec = model.recipe.decoder, model.recipe.latent
    if latents is None:
        latents = model.codes if len(model.codes) else _normal(max(BATCHES), *spec.shape)
    inputs = {"latents": latents}
    if part.conditional:
        inputs["labels"] = torch.arange(max(BATCHES)) % model.recipe.image.classes  # [7]
    _write(f"decoder {part.type}", _Decoder(model.decoder), inputs, "images", path)


def write_encoder(model: vgx.Model, path: Path, images: Tensor | None = None) -> None:
    """Write a model's encoder: `images` [N, C, H, W] in [0, 1] -> `latents` [N, *Z], in float32.

    `latents` are the posterior means. An encoder that takes labels has a second input, `labels` [N]
    of int64. N is any number; the sides of the images are too where the latents are spatial and the
    network allows it. `images` are those that the file is compared with PyTorch on; by default
    random ones. Raises `RecipeError` for a model without an encoder, and `PluginError` as
    `write_decoder` does.
    """
    part, spec = model.recipe.encoder, model.recipe.image
    if part is None or model.encoder is None:
        raise vgx.RecipeError(f"{model.recipe.name} has no encoder")
    if images is None:
        images = _normal(max(BATCHES), *spec.shape).sigmoid()
    inputs = {"images": images}
    if part.conditional:
        inputs["labels"] = torch.arange(len(images)) % spec.classes  # [N]
    spatial = len(model.recipe.latent.shape) > 1
    name = f"encoder {part.type}"
    network = _Encoder(model.encoder, model.decoder if part.uses_decoder else None)
    _write(name, network, inputs, "latents", path, spatial=spatial)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _write(
    name: str,
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output: str,
    path: Path,
    *,
    spatial: bool = True,
) -> None:
    """Write a network that is compared with PyTorch; `name` is its kind and type, for messages."""
    if missing := missing_libraries():
        libraries = ", ".join(missing)
        raise vgx.RecipeError(f"ONNX files need {libraries}: pip install 'vgx[onnx]'")
    module = copy.deepcopy(module).to("cpu", torch.float32)
    module.to(memory_format=torch.contiguous_format).eval().requires_grad_(requires_grad=False)
    plain = {key: _seven(value) for key, value in inputs.items()}
    size = sum(each.numel() for each in (*module.parameters(), *module.buffers())) * 4
    if size > MAX_BYTES:
        raise vgx.PluginError(f"{name}: {size:,} bytes; one ONNX file has at most {MAX_BYTES:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about versions and opsets
            data = _exported(module, plain, output, spatial=spatial)
            differs = _difference(module, data, plain)
    # The network is a plugin's, and the exporter raises errors of many kinds.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise vgx.PluginError(f"{name}: can't be written as ONNX: {lines[0]}") from error
    if not differs <= CLOSE:
        text = f"onnxruntime's {output} differ from PyTorch's by {differs:.1e}, over {CLOSE:.0e}"
        raise vgx.PluginError(f"{name}: can't be written as ONNX: {text}")
    write_file(path, data)


def _seven(values: Tensor) -> Tensor:
    """[7, ...]  The first values, repeated where there are fewer; floats as float32, on the CPU."""
    chosen = values.detach()[torch.arange(max(BATCHES)) % len(values)].cpu().contiguous()
    return chosen.float() if chosen.is_floating_point() else chosen


def _exported(
    module: nn.Module, inputs: Mapping[str, Tensor], output: str, *, spatial: bool
) -> bytes:
    """Return a module as an ONNX file with a free number of images, and free sides if possible."""
    from torch.export import Dim

    free = tuple(
        {0: Dim.DYNAMIC, **({2: Dim.AUTO, 3: Dim.AUTO} if spatial and value.dim() == 4 else {})}
        for value in inputs.values()
    )
    program = torch.onnx.export(
        module,
        tuple(value[:2] for value in inputs.values()),
        dynamo=True,
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=free,
        verbose=False,
    )
    assert program is not None  # with dynamo=True
    model = program.model_proto
    for message in _messages(model):
        # The exporter notes the source lines of each node, with the paths of this machine.
        for field in ("metadata_props", "doc_string"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    del model.graph.value_info[:]
    _name_sides(model.graph)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _messages(message: Any) -> Iterator[Any]:
    """Give a protobuf message and all messages inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def _name_sides(graph: Any) -> None:
    """Call the free sides of the inputs batch, height and width, and those of outputs by these."""
    names: dict[str, str] = {}
    for value in graph.input:
        for side, name in zip(
            value.type.tensor_type.shape.dim, ("batch", "", "height", "width"), strict=False
        ):
            if side.dim_param:
                side.dim_param = names.setdefault(side.dim_param, name)
    for value in graph.output:
        for side in value.type.tensor_type.shape.dim:
            for symbol, name in names.items():
                side.dim_param = side.dim_param.replace(symbol, name)


def _difference(module: nn.Module, data: bytes, inputs: Mapping[str, Tensor]) -> float:
    """Return the largest difference between onnxruntime and PyTorch; values over 1 relatively."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for n in BATCHES:
        some = {name: value[:n] for name, value in inputs.items()}
        with torch.no_grad():
            wanted = module(*some.values()).numpy()
        (given,) = session.run(None, {name: value.numpy() for name, value in some.items()})
        difference = np.abs(given - wanted) / max(1.0, float(np.abs(wanted).max()))
        worst = max(worst, float(difference.max()) if given.shape == wanted.shape else np.inf)
        if not np.isfinite(difference).all():
            return float("nan")
    return worst
