"""Weights & Biases."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class Wandb(vgx.Tracker, type="wandb"):
    """A run at Weights & Biases, or files for it: values and images over their step.

    Files lie in `trackers/wandb` of the run. A resume continues the same run.
    """

    needs: ClassVar[str | None] = "wandb"

    project: str = "vgx"
    """The project at Weights & Biases."""
    mode: Literal["offline", "online"] = "offline"
    """`offline`: files only, which `wandb sync` uploads; `online`: to the server, which needs a
    login."""

    def build(self, run: Path) -> vgx.OpenTracker:
        """Start the run at Weights & Biases, or continue it."""
        import wandb

        folder = run / "trackers" / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        name = folder / "id"
        if not name.exists():
            name.write_text(uuid.uuid4().hex[:8])
        settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
        tracked = wandb.init(
            project=self.project, name=run.name, id=name.read_text(), dir=str(folder),
            mode=self.mode, resume="allow", settings=settings,
        )  # fmt: skip
        # The steps of wandb cannot go back, as those of a training can.
        tracked.define_metric("*", step_metric="step")
        return _Run(tracked)


class _Run:
    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send the values of one step."""
        self.run.log({"step": step, **values})

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Send a grid of images."""
        import wandb
        from torchvision.transforms.functional import to_pil_image

        self.run.log({"step": step, name: wandb.Image(to_pil_image(grid))})

    def close(self) -> None:
        """Wait until everything is sent or written."""
        self.run.finish()
