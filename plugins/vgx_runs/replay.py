"""A step of a run that was computed once more, as a folder: a grid, numbers, tensors.

Letters: B images of the minibatch, N of them that are shown, C channels, H x W pixels.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from vgx.files import write_file
from vgx.images import opaque, save_grid
from vgx.training.replay import Replay

SHOWN = 8  # images in the grid
SIDE = 96  # pixels; smaller images are enlarged by a whole number
TITLES = {
    "data": "data",
    "real": "augmented",
    "recon": "reconstruction",
    "prior": "N(0, I)",
    "map of real": "D on real",
    "map of recon": "D on reconstruction",
    "map of prior": "D on N(0, I)",
}
BRIGHT = 0.99  # quantile of a map that is white, so that one pixel does not make the others black


def tensors_of(replay: Replay) -> dict[str, Tensor]:
    """Return all that was kept of the minibatch, by name: of all its images."""
    return {name: torch.cat(pieces) for name, pieces in replay.tensors.items()}


def write(replay: Replay, folder: Path) -> None:
    """Write `images.png`, `replay.json` and `tensors.safetensors`. Raises `StorageError`."""
    tensors = tensors_of(replay)
    chosen = shown(tensors)
    names = [name for name in TITLES if name in tensors]  # and the maps of several discriminators
    names += [name for name in tensors if name.startswith("map of ") and name not in TITLES]
    rows = {TITLES.get(name, name): _images(name, tensors, chosen) for name in names}
    # An image that was not augmented is the same twice.
    if torch.equal(tensors["data"], tensors["real"]):
        del rows["augmented"]
    numbers = as_numbers(replay, tensors, chosen)
    write_file(folder / "replay.json", json.dumps(numbers, indent=1) + "\n")
    data = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_file(folder / "tensors.safetensors", safetensors.torch.save(data))
    grid = torch.cat([*rows.values()])
    times = max(SIDE // max(grid.shape[2:]), 1)
    grid = grid.repeat_interleave(times, 2).repeat_interleave(times, 3)
    save_grid(grid, folder / "images.png", len(chosen), tuple(rows))


def shown(tensors: dict[str, Tensor]) -> list[int]:
    """Return the places in the minibatch that the grid shows: the worst reconstructions first."""
    errors = errors_of(tensors)
    if errors is None:
        return [*range(min(SHOWN, len(tensors["data"])))]
    return [int(place) for place in errors.argsort(descending=True)[:SHOWN]]


def errors_of(tensors: dict[str, Tensor]) -> Tensor | None:
    """[B]  The mean absolute error of each reconstruction; None without an encoder."""
    if "recon" not in tensors:
        return None
    return (tensors["recon"] - tensors["real"]).abs().flatten(1).mean(1)


def _images(name: str, tensors: dict[str, Tensor], chosen: list[int]) -> Tensor:
    """[N, C, H, W]  A row of the grid: images, or maps as images from black to white."""
    found = tensors[name][chosen]
    if not name.startswith("map of "):
        return opaque(found)
    values = found.flatten()
    rank = 1 + round(BRIGHT * (len(values) - 1))  # `quantile` refuses more than 2**24 values
    brightest = values.kthvalue(rank).values.clamp(min=1e-12)
    maps = (found / brightest).clamp(0, 1).unsqueeze(1)  # [N, 1, H, W]
    return maps.expand(-1, opaque(tensors["data"][:1]).shape[1], -1, -1)


def as_numbers(replay: Replay, tensors: dict[str, Tensor], chosen: list[int]) -> dict[str, Any]:
    """Return the numbers of a step as plain data, for `replay.json`."""
    errors = errors_of(tensors)
    logits = {name: tensor for name, tensor in tensors.items() if name.startswith("logit of ")}
    terms = [
        {
            "term": record.label,
            "player": record.player,
            "value": finite(record.value),
            "logged": (replay.logged or {}).get(record.label),
            "weight": finite(record.weight),
            "gradient_norms": {n: finite(v) for n, v in record.norms(replay.networks).items()},
        }
        for record in replay.terms.values()
    ]
    images = [
        {
            "place": place,
            **({"label": int(tensors["labels"][place])} if "labels" in tensors else {}),
            **({} if errors is None else {"reconstruction_error": finite(errors[place].item())}),
            **{name: finite(tensor[place].item()) for name, tensor in logits.items()},
        }
        for place in range(len(tensors["data"]))
    ]
    return {
        "step": replay.step,
        "from_step": replay.start,
        "equals_log": None if replay.logged is None else not replay.differs,
        "differs": replay.differs,
        "terms": terms,
        "rows": replay.rows,
        "shown": chosen,
        "images": images,
    }


def finite(value: float | None) -> float | str | None:
    """Return a number as JSON knows it; one that is not finite as a text."""
    return value if value is None or math.isfinite(value) else str(value)
