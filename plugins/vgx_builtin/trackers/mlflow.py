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

    A resume continues the same run in MLflow, whose id is kept in `trackers/mlflow`. When a step is
    repeated, MLflow keeps both its old and its new values.
    """

    needs: ClassVar[str | None] = "mlflow"

    uri: str | None = None
    """The server or the database, such as `sqlite:///mlflow.db`; null: MLFLOW_TRACKING_URI, or
    MLflow's default."""
    experiment: str = "vgx"
    """The experiment that the run belongs to; it is created when it is missing."""

    def build(self, run: Path) -> vgx.OpenTracker:
        """Start the run in MLflow, or continue it."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        file = run / "trackers" / "mlflow"
        if not file.exists():
            experiment = client.get_experiment_by_name(self.experiment)
            if experiment:
                experiment_id = experiment.experiment_id
            else:
                experiment_id = client.create_experiment(self.experiment)
            file.parent.mkdir(exist_ok=True)
            file.write_text(client.create_run(experiment_id, run_name=run.name).info.run_id)
        name = file.read_text()
        client.update_run(name, status="RUNNING")
        return _Run(client, name)


class _Run:
    def __init__(self, client: Any, name: str) -> None:
        self.client, self.name = client, name

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send the values of one step in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.name, metrics=metrics)

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Send a grid of images."""
        from torchvision.transforms.functional import to_pil_image

        self.client.log_image(self.name, to_pil_image(grid), f"{name}/{step:08}.png")

    def close(self) -> None:
        """Mark the run as ended."""
        self.client.set_terminated(self.name)
