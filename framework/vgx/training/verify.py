"""Whether a run repeats: its last steps once more, compared with what they were."""

from __future__ import annotations

import io
from pathlib import Path

from torch import Tensor

from vgx.console import Console
from vgx.errors import StorageError, noticing
from vgx.recipe.load import load_recipe
from vgx.runs import checkpoint
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run, find
from vgx.sampling import model as sampling
from vgx.training import session as training


def verify(
    run: Run | str | Path | int | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> tuple[int, int]:
    """Do the steps between a run's two newest checkpoints again; return the first and the last.

    Writes nothing. Raises `StorageError` when there are not two checkpoints, or that names the
    first step and loss, or else the first tensor, that came out otherwise.
    """
    console = console or Console()
    found = find(run)
    recipe = load_recipe(found.recipe_file, (), sampling.registry_of(found))
    with found.held():
        notices: list[str] = []
        with noticing(notices):
            _, wanted = checkpoint.load(found)
            _, state = checkpoint.load(found, before=wanted.numbers["step"])
        for notice in notices:
            console.warn(notice)
        # What building a run has to say was said when it was made.
        quiet = Console(file=io.StringIO())
        repeated = training.opened(found, recipe, state, device, quiet)
        logged = {line["step"]: line.get("losses", {}) for line in found.read_log()}
        first, last = repeated.done + 1, wanted.numbers["step"]
        with console.progress("Repeating", last - first + 1) as advance:
            while repeated.done < last:
                values = repeated.step()
                _compare(found, repeated.done, values, logged.get(repeated.done, {}))
                advance(1, "")
    _same(found, repeated.engine.state({}), wanted)
    console.print(f"Run {found.path}: steps {first:,} to {last:,} repeat bit for bit")
    return first, last


def _compare(run: Run, step: int, values: dict[str, Tensor], logged: dict[str, float]) -> None:
    for name, before in logged.items():
        now = values[name].item() if name in values else None
        if now != before:
            raise _otherwise(run, f"step {step:,}: {name} was {before!r} and is {now!r} now")


def _same(run: Run, state: State, wanted: State) -> None:
    for part in ("model", "optimizer", "latents"):
        ours, theirs = getattr(state, part), getattr(wanted, part)
        for name in sorted(ours | theirs):
            # By their bytes, as they are saved: layouts in memory and devices make no difference.
            one, two = ({"": group[name]} if name in group else {} for group in (ours, theirs))
            if checkpoint.tensor_bytes(one) != checkpoint.tensor_bytes(two):
                step = wanted.numbers["step"]
                raise _otherwise(run, f"{name} is not what the checkpoint of step {step:,} holds")


def _otherwise(run: Run, what: str) -> StorageError:
    why = "another machine, device, version or number of threads may do that"
    return StorageError(f"{run.path}: does not repeat: {what}; {why}")
