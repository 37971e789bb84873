"""Folders of codes: written in shards, verified when they are read, and never whole in memory.

A folder has `latents.json` and files `latents-00000.safetensors`, `latents-00001.safetensors`, ...
It may come from anybody: only these files are read, each of bounded size and with the sum that
`latents.json` has of it. Nothing in it is executed.

Letters: N images in all, n in a piece, C channels, Z the latent shape.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Required

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from pydantic import FailFast, Field, FiniteFloat, TypeAdapter
from torch import Tensor
from typing_extensions import TypedDict

from vgx.errors import StorageError
from vgx.files import new_folder, read_file, storage, user_path, write_file
from vgx.output import short, visible
from vgx.runs import checkpoint
from vgx.runs.exported import summed
from vgx.runs.reading import Class, Count, Summed, parsed

FORMAT = 1
ABOUT = "latents.json"
MAX_ABOUT = 2**24  # bytes of latents.json, which names up to 10,000 classes and all shards
SHARD = 2**26  # bytes of a shard, about
_NAME = re.compile(r"latents-\d{5,9}\.safetensors")
_KINDS = {
    "index": torch.int64, "latents": torch.float32, "deviations": torch.float32,
    "indices": torch.int32, "labels": torch.int64,
}  # fmt: skip
Codes = dict[str, Tensor]  # by the names above; each [n, ...]
Rows = int | slice | Sequence[int] | NDArray[Any] | Tensor
Side = Annotated[int, Field(gt=0, lt=10**7)]
Numbers = Annotated[list[FiniteFloat], FailFast()]


class Scale(TypedDict):
    """Mean, deviation and 1 / deviation of latents."""

    mean: FiniteFloat
    deviation: FiniteFloat
    scaling_factor: FiniteFloat


class Scales(TypedDict):
    """The same, by channel."""

    mean: Numbers
    deviation: Numbers
    scaling_factor: Numbers


class ModelOf(TypedDict):
    """The model that gave the codes."""

    name: str  # of the recipe
    step: Count
    sha256: str  # of its model.safetensors


class Shard(Summed):
    """A file of codes."""

    count: Annotated[int, Field(gt=0, lt=2**40)]  # images


class About(TypedDict, total=False):
    """What a folder of codes contains: `latents.json`."""

    format: Required[Count]
    vgx: str
    count: Required[Annotated[int, Field(gt=0, lt=2**63)]]
    shape: Required[Annotated[list[Side], Field(min_length=1, max_length=3)]]  # of latents: Z
    indices: Annotated[list[Side], Field(max_length=3)]  # their shape, if there are indices
    codes: Side  # values that an index can take, if there are indices
    deviations: bool  # whether the posteriors are Gaussians, so that there are deviations
    classes: Annotated[list[Class], FailFast()]  # of the labels 0, 1, ..., if there are labels
    channels: Required[Scales]
    all: Required[Scale]
    model: Required[ModelOf]
    data: dict[Literal["dataset", "content"], str]
    shards: Required[dict[str, Shard]]


_ABOUT = TypeAdapter(About)


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Latents:
    """Codes of N images on the disk: `latents[rows]` reads some of them.

    Each row has `index`, the number of its image in the data set; `latents`, the mean of its
    posterior; `deviations` for Gaussian posteriors; `indices` for an encoder with a codebook; and
    `labels` if the images have labels. `posterior(rows, generator)` draws posterior samples.
    """

    folder: Path
    about: About
    shards: tuple[Codes, ...] = field(repr=False)  # mapped into memory
    starts: tuple[int, ...] = field(repr=False)  # the first row of each shard
    numbers: NDArray[np.int64] = field(repr=False)  # [N]  of the rows

    def __len__(self) -> int:
        return self.about["count"]

    def __getitem__(self, rows: Rows) -> Codes:
        """Return the codes of some images by name, each [n, ...]; of one image without n.

        `rows` chooses as in an array: a number, numbers, a slice, or a mask [N] of bools. Raises
        `IndexError` for images that there are not, and for a mask of another length.
        """
        chosen = self.numbers[list(rows) if isinstance(rows, tuple) else rows]
        if not chosen.ndim:
            return {name: values[0] for name, values in self[[int(chosen)]].items()}
        wanted = torch.from_numpy(chosen.copy())  # [n]
        shard = torch.bucketize(wanted, torch.tensor(self.starts), right=True) - 1  # [n]
        gathered: Codes = {}
        for name, first in self.shards[0].items():
            values = first.new_empty(len(wanted), *first.shape[1:])  # [n, ...]
            for number in {*shard.tolist()}:
                here = shard == number
                values[here] = self.shards[number][name][wanted[here] - self.starts[number]]
            gathered[name] = values.long() if name == "indices" else values
        return gathered

    def posterior(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """[n, *Z]  One posterior sample of each image; the means where no deviations are known."""
        return posterior_sample(self[rows], generator)

    @property
    def mean(self) -> Tensor:
        """[C, ...]  The mean of posterior samples by channel, in the shape that Z broadcasts to."""
        return self._by_channel("mean")

    @property
    def deviation(self) -> Tensor:
        """[C, ...]  Their standard deviation by channel."""
        return self._by_channel("deviation")

    def _by_channel(self, name: Literal["mean", "deviation"]) -> Tensor:
        values = torch.tensor(self.about["channels"][name])  # [C]
        return values.view(-1, *[1] * (len(self.about["shape"]) - 1))


def posterior_sample(codes: Codes, generator: torch.Generator) -> Tensor:
    """[n, *Z]  Draw one posterior sample of each image."""
    mean = codes["latents"]
    if "deviations" not in codes:
        return mean
    noise = torch.randn(mean.shape, generator=generator, device=generator.device)
    return mean + codes["deviations"] * noise.to(mean)


def load_latents(folder: str | Path) -> Latents:
    """Open a folder that `vgx encode` wrote. Its sums are verified, and its shards are mapped.

    Raises `StorageError` for a folder in which anything is not as it was written.
    """
    folder = user_path(folder)
    with storage(folder / ABOUT):
        about = parsed(read_file(folder / ABOUT, MAX_ABOUT), folder / ABOUT, _ABOUT)
        _require_sound(about, folder / ABOUT)
    shards = tuple(_shard(folder / name, about, name) for name in sorted(about["shards"]))
    counts = [about["shards"][name]["count"] for name in sorted(about["shards"])]
    starts = tuple(sum(counts[:number]) for number in range(len(counts)))
    return Latents(folder, about, shards, starts, np.arange(about["count"]))


def _require_sound(about: About, file: Path) -> None:
    """Raise `StorageError` for a `latents.json` that contradicts itself or names other files."""
    if about["format"] > FORMAT:
        raise StorageError(f"{file}: written by a newer vgx; install that to read it")
    if odd := [name for name in about["shards"] if not _NAME.fullmatch(name)]:
        raise StorageError(f"{file}: names {short(visible(odd[0]))}, which is no file of latents")
    if sum(shard["count"] for shard in about["shards"].values()) != about["count"]:
        raise StorageError(f"{file}: its shards have not {about['count']:,} images")
    if ("indices" in about) != ("codes" in about):
        raise StorageError(f"{file}: has one of indices and codes, and not the other")
    lengths = {len(values) for values in about["channels"].values() if isinstance(values, list)}
    if lengths != {about["shape"][0]} or min(about["channels"]["deviation"]) < 0:
        raise StorageError(f"{file}: its channels are not those of its shape")


def _shard(file: Path, about: About, name: str) -> Codes:
    """Return the tensors of a shard, mapped into memory."""
    expected = about["shards"][name]
    with storage(file), checkpoint.as_summed(file, expected) as data:
        checkpoint.require_header(data.read(8), file)
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except Exception as error:  # a damaged file makes it raise many kinds of error
        raise StorageError(f"{file}: {type(error).__name__}: {error}") from error
    shapes = {key: (tuple(t.shape), t.dtype) for key, t in tensors.items()}
    n = expected["count"]
    wanted = {key: ((n, *shape), _KINDS[key]) for key, shape in _shapes(about).items()}
    if shapes != wanted:
        raise StorageError(f"{file}: its tensors are not those that {ABOUT} describes")
    for key, values in tensors.items():
        most = {"indices": about.get("codes", 0), "labels": len(about.get("classes", ()))}.get(key)
        if most is not None and not 0 <= int(values.min()) <= int(values.max()) < most:
            raise StorageError(f"{file}: {key} that are not in 0 to {most - 1}")
        if values.is_floating_point() and not all(p.isfinite().all() for p in values.split(4096)):
            raise StorageError(f"{file}: {key} that are not finite numbers")
    return tensors


def _shapes(about: About) -> dict[str, tuple[int, ...]]:
    """Return the shape of one image's values of each tensor."""
    latent = tuple(about["shape"])
    shapes: dict[str, tuple[int, ...]] = {"index": (), "latents": latent}
    if about.get("deviations"):
        shapes["deviations"] = latent
    if "indices" in about:
        shapes["indices"] = tuple(about["indices"])
    return shapes | ({"labels": ()} if about.get("classes") else {})


# --- writing -------------------------------------------------------------------------------------


def write_latents(folder: Path, pieces: Iterable[Codes], about: Mapping[str, Any]) -> None:
    """Write codes as a new folder; `about` is what `latents.json` has besides counts and scales.

    Raises `StorageError`; then nothing of it is left.
    """
    moments = _Moments()
    shards: dict[str, Shard] = {}
    with new_folder(folder) as place:
        for shard in _shards(moments.watching(pieces)):
            name = f"latents-{len(shards):05}.safetensors"
            data = checkpoint.tensor_bytes(shard)
            write_file(place / name, data)
            shards[name] = {**summed(data), "count": len(shard["index"])}
        written = {"format": FORMAT, **about, "count": moments.images, **moments.scales()}
        text = json.dumps({**written, "shards": shards}, indent=1, ensure_ascii=False)
        write_file(place / ABOUT, text)


def _shards(pieces: Iterable[Codes]) -> Iterator[Codes]:
    """Give pieces joined to shards of about `SHARD` bytes."""
    held: list[Codes] = []
    size = 0
    for piece in pieces:
        held.append({name: values.to("cpu", _KINDS[name]) for name, values in piece.items()})
        size += sum(values.nbytes for values in held[-1].values())
        if size >= SHARD:
            yield _joined(held)
            held, size = [], 0
    if held:
        yield _joined(held)


def _joined(pieces: list[Codes]) -> Codes:
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


class _Moments:
    """Mean and variance of posterior samples by channel, summed in float64."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.images, self.values = 0, 0  # values of one channel
        self.sum: Tensor | float = 0.0  # [C]
        self.squares: Tensor | float = 0.0  # [C]  of the means, and the variances of the posteriors

    def watching(self, pieces: Iterable[Codes]) -> Iterator[Codes]:
        """Give the pieces on, and add them up."""
        for piece in pieces:
            mean = piece["latents"].double().movedim(1, 0).flatten(1)  # [C, n * places]
            self.images += len(piece["index"])
            self.values += mean.shape[1]
            self.sum = self.sum + mean.sum(1).cpu()
            self.squares = self.squares + mean.square().sum(1).cpu()
            if "deviations" in piece:
                deviation = piece["deviations"].double().movedim(1, 0).flatten(1)
                self.squares = self.squares + deviation.square().sum(1).cpu()
            yield piece

    def scales(self) -> dict[str, Any]:
        """Return `channels` and `all` of `latents.json`."""
        if not self.values:
            raise StorageError("no image was encoded, so there is nothing to write")
        mean = torch.as_tensor(self.sum) / self.values  # [C]
        square = torch.as_tensor(self.squares) / self.values  # [C]
        deviation = (square - mean.square()).clamp(min=0).sqrt()  # [C]
        whole = math.sqrt(max(square.mean().item() - mean.mean().item() ** 2, 0))
        factor = [_inverse(value) for value in deviation.tolist()]
        by_channel = {"mean": mean.tolist(), "deviation": deviation.tolist()}
        of_all = {"mean": mean.mean().item(), "deviation": whole, "scaling_factor": _inverse(whole)}
        return {"channels": {**by_channel, "scaling_factor": factor}, "all": of_all}


def _inverse(deviation: float) -> float:
    return 1 / deviation if deviation > 0 else 1.0
