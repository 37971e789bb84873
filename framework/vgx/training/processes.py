"""What several processes of one training agree on, before it and when it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from vgx.data.store import Store
from vgx.distributed.group import is_first
from vgx.distributed.processes import (
    from_first,
    largest,
    launch,
    restarts,
    tensors_from_first,
    wait_for_first,
)
from vgx.distributed.state import group
from vgx.errors import DataError, RecipeError
from vgx.recipe.load import dump_recipe
from vgx.recipe.model import Recipe
from vgx.runs import reading
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, numbered, runs_dir


def require_shareable(recipe: Recipe) -> None:
    """Raise `RecipeError` when the processes cannot compute the steps of a recipe together."""
    train, size = recipe.train, group().size
    if train.compile is True and size > 1:
        message = "compiled networks would not see the images and draws of the other processes"
        raise RecipeError(f"train.compile: {message}; leave it out, or train in one process")
    unit = size * train.accumulate
    if train.batch % unit:
        below = train.batch // unit * unit
        fitting = " or ".join(f"train.batch={n:,}" for n in (below, below + unit) if n)
        pieces = f" in {train.accumulate} pieces each (train.accumulate)" * (train.accumulate > 1)
        counts = [n for n in range(size, 0, -1) if train.batch % (n * train.accumulate) == 0]
        raise RecipeError(
            f"train.batch: {train.batch:,} images can't be shared by {size} processes{pieces}; try "
            f"{fitting}, or {counts[0]} process{'es' * (counts[0] > 1)}"
        )


def require_same_images(store: Store) -> None:
    """Raise `DataError` when another process has other images, as on a machine with old ones."""
    first = from_first(lambda: store.content)
    differing = largest([int(store.content != first)])[0]
    if differing:
        raise DataError(
            "the processes have different images: the data set of each machine must have the same "
            "files; this one "
            + ("differs from the first" if store.content != first else "is like the first")
        )


def where(device: torch.device) -> str:
    """Return on what a run is trained, for people."""
    kind, size = ("cuda" if device.type == "cuda" else str(device)), group().size
    return str(device) if size == 1 else f"{kind}, by {size} processes"


def launch_of(recipe: Recipe) -> str:
    """Return a name of a recipe's training in this launch, the same after a restart.

    A script may train several. An empty text without a launcher.
    """
    own = launch()
    return own and f"{own} {hashlib.sha256(dump_recipe(recipe).encode()).hexdigest()[:16]}"


def begun_before(own: str, out: str | Path | None) -> Run | None:
    """Return the run of a `launch_of` that began before a restart, if it got so far."""
    if not (restarts() and own):
        return None

    def newest() -> str | None:
        for _, path in reversed(numbered(runs_dir(out))):
            about = reading.unless_damaged(reading.environment, path)
            if about is not None and about.get("launch") == own:
                return str(path) if (path / "recipe.yaml").is_file() else None
        return None

    path = from_first(newest)
    if path is None:
        return None
    run = Run(Path(path))
    if is_first():
        run.unlock()  # the process that trained it may have been on another machine
    return run


@contextmanager
def held(run: Run) -> Iterator[None]:
    """Lock a run for the processes that train it: the first one does."""
    with run.held() if is_first() else nullcontext():
        wait_for_first()
        yield


def state_from_first(load: Callable[[], State]) -> State:
    """Return a state that the first process loads, in all processes."""
    state = load() if is_first() else State({}, {}, {}, {})
    return State(
        tensors_from_first(state.model),
        tensors_from_first(state.optimizer),
        tensors_from_first(state.latents),
        from_first(lambda: state.numbers),
    )
