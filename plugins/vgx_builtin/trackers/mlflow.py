"""MLflow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class MlFlow(vgx.Tracker, type="mlflow"):
    """A run in MLflow: values as metrics, grids as artifacts `samples/00000500.png`.

    A resume goes on with the same run there, whose id is kept in `trackers/mlflow`. MLflow keeps
    the values of a step that comes again beside those of before.
    """

    needs: ClassVar[str | None] = "mlflow"

    uri: str | None = None
    """The server or the database, such as `sqlite:///mlflow.db`; null: what MLFLOW_TRACKING_URI
    says, else MLflow's own default."""
    experiment: str = "vgx"
    """The experiment that the run belongs to; it is made when there is none."""

    def build(self, run: Path) -> vgx.Journal:
        """Begin the run there, or go on with it."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        file = run / "trackers" / "mlflow"
        if not file.exists():
            found = client.get_experiment_by_name(self.experiment)
            where = found.experiment_id if found else client.create_experiment(self.experiment)
            file.parent.mkdir(exist_ok=True)
            file.write_text(client.create_run(where, run_name=run.name).info.run_id)
        name = file.read_text()
        client.update_run(name, status="RUNNING")
        return _Run(client, name)


class _Run:
    def __init__(self, client: Any, name: str) -> None:
        self.client, self.name = client, name

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send the values of one step in one message."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.name, metrics=metrics)

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Send a picture."""
        from torchvision.transforms.functional import to_pil_image

        self.client.log_image(self.name, to_pil_image(grid), f"{name}/{step:08}.png")

    def close(self) -> None:
        """Say that it ended."""
        self.client.set_terminated(self.name)
