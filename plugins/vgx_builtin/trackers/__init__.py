"""The built-in trackers."""

from vgx_builtin.trackers.mlflow import MlFlow as MlFlow
from vgx_builtin.trackers.table import Csv as Csv
from vgx_builtin.trackers.tensorboard import TensorBoard as TensorBoard
from vgx_builtin.trackers.wandb import Wandb as Wandb
