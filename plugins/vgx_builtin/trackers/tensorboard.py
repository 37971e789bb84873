"""TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import vgx

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

SECONDS = 10  # between two writes of events to the disk


class TensorBoard(vgx.Tracker, type="tensorboard"):
    """Event files in `trackers/tensorboard` of the run: `tensorboard --logdir runs` shows them all.

    Each value is a scalar, each grid an image. After a resume or a rollback TensorBoard drops the
    old values of repeated steps.
    """

    needs: ClassVar[str | None] = "tensorboard"

    def build(self, run: Path) -> vgx.OpenTracker:
        """Start a new file of events beside earlier ones."""
        import torch.utils.tensorboard  # noqa: F401 - a broken library fails before the first step

        return _Events(run / "trackers" / "tensorboard")


class _Events:
    def __init__(self, folder: Path) -> None:
        self.folder, self.last = folder, -1
        self.writer: SummaryWriter | None = None

    def log(self, step: int, values: dict[str, float]) -> None:
        """Write scalars."""
        writer = self._at(step)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Write a grid of images."""
        self._at(step).add_image(name, grid, step)

    def close(self) -> None:
        """Write all that is left, and close the file."""
        if self.writer is not None:
            self.writer.close()

    def _at(self, step: int) -> SummaryWriter:
        """Return the writer for a step; a step that is repeated starts a new file.

        TensorBoard drops the values that earlier files have of the first step of a file, and of
        later steps.
        """
        from torch.utils.tensorboard import SummaryWriter

        if self.writer is None or step < self.last:
            self.close()
            self._wait_for_new_second()
            self.writer = SummaryWriter(str(self.folder), purge_step=step, flush_secs=SECONDS)
        self.last = step
        return self.writer

    def _wait_for_new_second(self) -> None:
        """Wait until no file is of this second: TensorBoard reads them in the order of their names.

        After the second in a name comes a number that counts 9, 10, 11, and is sorted as a text.
        """
        while [*self.folder.glob(f"events.out.tfevents.{int(time.time())}.*")]:
            time.sleep(0.02)
