"""A run that is being trained, and what whoever trains it gets of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.profiler import profile, record_function

from vgx.data.batches import Batch, Batches
from vgx.data.store import Store
from vgx.distributed.processes import largest
from vgx.distributed.state import group
from vgx.engine.averages import STATISTICS_IMAGES
from vgx.engine.engine import Engine
from vgx.errors import DataError, HubError
from vgx.notebook import run as people
from vgx.recipe.model import Recipe
from vgx.runs.best import Measured, measured_until
from vgx.runs.checkpoint import State
from vgx.runs.directory import Run
from vgx.runs.reading import Line
from vgx.training.monitors import Monitor
from vgx.training.trackers import Trackers


class EndedElsewhere(Exception):  # noqa: N818 - no error
    """One of several processes ends the training before the next step."""


@dataclass
class Training:
    """One run that is being trained."""

    recipe: Recipe
    run: Run
    engine: Engine
    batches: Batches
    store: Store
    notices: list[str]
    done: int = 0  # steps
    terms: dict[str, Tensor] = field(default_factory=dict)  # of the last step, unweighted, by name
    # The last gradients' norms and discriminators' accuracies, as a checkpoint has them.
    seen: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0  # spent in training, over all resumes
    since: tuple[int, float] = (0, 0.0)  # images and seconds at the last line of the log
    saved: int = -1  # the step of the newest checkpoint
    stop: int = 0  # the number of the signal that ends the training, or 0
    left: bool = False  # the loop around this one was left, so the training ends
    agreed: bool = False  # all processes know that it ends
    warnings: list[str] = field(default_factory=list)  # not yet in the log
    metrics: dict[str, float] = field(default_factory=dict)  # not yet in the log
    measured: dict[str, Measured] = field(default_factory=dict)  # so far, by metric
    logged: Line | None = None  # after the last step
    grids: dict[str, Tensor] = field(default_factory=dict)  # [C, H, W]  drawn after the last step
    trackers: Trackers = field(default_factory=Trackers)  # that are open
    profiler: profile | None = None  # its `step` is called after every step
    refreshed: tuple[int, int] | None = None  # steps and rollbacks at the last `refresh_average`
    monitor: Monitor = field(init=False)

    def __post_init__(self) -> None:
        """Begin to watch."""
        self.monitor = Monitor(self.engine, self.store)

    @property
    def losses(self) -> dict[str, float]:
        """The terms as numbers. On a GPU this waits for the device."""
        return {name: term.item() for name, term in self.terms.items()}

    @property
    def ending(self) -> bool:
        """Whether it ends after the current step, because of a signal or of its caller.

        Of several processes all must know it.
        """
        return self.agreed if group().size > 1 else self.stop > 0 or self.left

    @property
    def finished(self) -> bool:
        """Whether it is trained to the end and saved."""
        return self.done == self.saved and (self.done == self.engine.steps or self.exhausted != "")

    @property
    def best_step(self) -> int | None:
        """The step of the best measurement so far, if the recipe has eval.best."""
        measured = self.measured.get(self.recipe.eval.best or "")
        return None if measured is None else measured.best.step

    @property
    def exhausted(self) -> str:
        """Why the training ends early: `eval.best` has not become better; "" if it goes on."""
        settings, best = self.recipe.eval, self.best_step
        if settings.patience is None or settings.every is None or best is None:
            return ""
        if self.done // settings.every - best // settings.every < settings.patience:
            return ""
        return f"{settings.best} has not become better since step {best:,} (eval.patience)"

    @property
    def images(self) -> int:
        """The number of images that the run has been trained on, counted each time."""
        return self.done * self.recipe.images_per_step

    @property
    def epoch(self) -> float:
        """The number of epochs that are done."""
        return self.done * self.recipe.batches_per_step / self.batches.per_epoch

    @property
    def numbers(self) -> range:
        """The numbers of the next step's minibatches."""
        first = self.done * self.recipe.batches_per_step
        return range(first, first + self.recipe.batches_per_step)

    def restore(self, state: State) -> None:
        """Continue from the state of a checkpoint. Raises `StorageError` when it does not fit."""
        self.engine.restore(state)
        self.monitor.restore(state.numbers.get("monitor", {}))
        self.warnings = [*state.numbers.get("warnings", ())]
        self.done = state.numbers["step"]
        terms = state.numbers.get("terms", {})  # earlier versions saved none
        dtype, device = self.engine.dtype, self.engine.device
        self.terms = {
            name: torch.tensor(value, dtype=dtype, device=device) for name, value in terms.items()
        }
        self.seen = state.numbers.get("seen", {})  # earlier versions saved none
        self.engine.forward.logits, self.engine.guard.norms = {}, {}
        better = self.recipe.eval.better if self.recipe.eval.every else {}
        self.measured = measured_until(self.run, state.numbers, better)
        self.since = self.images, self.seconds

    def set_rollbacks(self, rollbacks: int) -> None:
        """Use the random numbers and learning rates of a training after so many rollbacks."""
        self.engine.rollbacks = rollbacks
        self.batches = self.batches.reseeded(self.engine.seed)

    def step(self) -> dict[str, Tensor]:
        """Do the next step; return the loss terms.

        A term that counts every few steps has its last value in the steps between. Raises
        `DivergedError`, `DataError` or `HubError` for images that cannot be read, and
        `EndedElsewhere`.
        """
        batches: list[Batch] = []
        missing: DataError | HubError | None = None
        with record_function("vgx: data"):
            pieces = self.recipe.train.accumulate
            try:
                batches = [self.batches.shared(number, pieces) for number in self.numbers]
            except (DataError, HubError) as error:
                missing = error
        self._agree(missing)
        if self.agreed:
            raise EndedElsewhere
        self.terms = self.with_paused(self.engine.step(self.done, batches))
        self.done += 1
        if self.profiler is not None:
            self.profiler.step()
        return self.terms

    def with_paused(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the next step's terms with the last values of those that pause in it."""
        terms = [term for player in self.engine.players.values() for term in player.terms]
        kept = {term.label for term in terms if term.pauses(self.done)} | new.keys()
        return {name: value for name, value in self.terms.items() if name in kept} | new

    def _agree(self, missing: DataError | HubError | None) -> None:
        """Tell the other processes what this one knows: that it ends, or misses its images.

        Raises the error in all of them.
        """
        if group().size > 1:
            with record_function("vgx: waiting for other processes"):
                known = (self.stop, int(self.left), int(missing is not None))
                self.stop, left, elsewhere = largest(known)
            self.left = bool(left)
            self.agreed = self.stop > 0 or self.left
            if elsewhere and missing is None:
                missing = DataError("another process cannot read its images; it says which")
        if missing is not None:
            raise missing

    def refresh_average(self) -> None:
        """Make the averaged networks ready to be used or saved after the last step."""
        now = (self.done, self.engine.rollbacks)
        if self.refreshed == now:
            return
        self.refreshed = now
        count = min(math.ceil(STATISTICS_IMAGES / self.recipe.train.batch), self.batches.per_epoch)
        first = self.numbers.start
        batches = (self.batches.shared(number, 1) for number in range(first, first + count))
        with record_function("vgx: averaging"):
            self.engine.refresh_average(self.done, batches)

    @property
    def when(self) -> str:
        """The run and its current step, for an error message."""
        return f"{self.run.path}: step {self.done + 1}"


@dataclass(frozen=True, eq=False)
class TrainedStep:
    """One step of a training, just after it was done."""

    run: people.Run
    number: int  # steps that are done
    of: int  # steps of the whole training
    terms: dict[str, Tensor]  # as those of the log: unweighted, by name, on the device
    line: Line | None  # what was logged after it, if that was due
    grids: dict[str, Tensor]  # [C, H, W]  drawn after it, by name, if that was due

    @property
    def losses(self) -> dict[str, float]:
        """The terms as numbers. On a GPU this waits for the device."""
        return {name: term.item() for name, term in self.terms.items()}

    def __repr__(self) -> str:
        losses = ", ".join(f"{name} {value:.3g}" for name, value in self.losses.items())
        return f"Step {self.number:,} of {self.of:,} of run {self.run.path.name}\n{losses}"
