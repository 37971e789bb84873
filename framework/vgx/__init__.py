"""vgx: the workbench for GANs, VAEs and their hybrids.

`import vgx` is light: each public name is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgx.components import Adaptive as Adaptive
    from vgx.components import Augmentation as Augmentation
    from vgx.components import Comparison as Comparison
    from vgx.components import Component as Component
    from vgx.components import Dataset as Dataset
    from vgx.components import Decoder as Decoder
    from vgx.components import Discriminator as Discriminator
    from vgx.components import Drawer as Drawer
    from vgx.components import Encoder as Encoder
    from vgx.components import Factored as Factored
    from vgx.components import Features as Features
    from vgx.components import Fitted as Fitted
    from vgx.components import Gauge as Gauge
    from vgx.components import ImageSpec as ImageSpec
    from vgx.components import Journal as Journal
    from vgx.components import Labelled as Labelled
    from vgx.components import LatentSpec as LatentSpec
    from vgx.components import Loss as Loss
    from vgx.components import LossTerm as LossTerm
    from vgx.components import Metric as Metric
    from vgx.components import Sampler as Sampler
    from vgx.components import Schedule as Schedule
    from vgx.components import Source as Source
    from vgx.components import Tracker as Tracker
    from vgx.errors import Dropped as Dropped
    from vgx.errors import Notice as Notice
    from vgx.errors import VgxError as VgxError
    from vgx.hooks import hookimpl as hookimpl
    from vgx.recipe import Recipe as Recipe
    from vgx.recipe import dump_recipe as dump_recipe
    from vgx.recipe import load_recipe as load_recipe
    from vgx.registry import Registry as Registry
    from vgx.registry import discover as discover
    from vgx.rundir import Run as Run
    from vgx.rundir import cache_dir as cache_dir
    from vgx.sampling import Model as Model
    from vgx.sampling import load as load
    from vgx.sampling import sample as sample
    from vgx.step import Gaussian as Gaussian
    from vgx.step import Posterior as Posterior
    from vgx.step import Score as Score
    from vgx.step import Step as Step
    from vgx.training import run as run

__version__ = "0.1.0.dev0"

_PUBLIC = {
    "vgx.components": (
        "Adaptive Augmentation Comparison Component Dataset Decoder Discriminator Drawer Encoder "
        "Factored Features Fitted Gauge ImageSpec Journal Labelled LatentSpec Loss LossTerm Metric "
        "Sampler Schedule Source Tracker"
    ),
    "vgx.errors": "Dropped Notice VgxError",
    "vgx.hooks": "hookimpl",
    "vgx.recipe": "Recipe dump_recipe load_recipe",
    "vgx.registry": "Registry discover",
    "vgx.rundir": "Run cache_dir",
    "vgx.sampling": "Model load sample",
    "vgx.step": "Gaussian Posterior Score Step",
    "vgx.training": "run",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    for module, names in _PUBLIC.items():
        if name in names.split():
            globals()[name] = value = getattr(importlib.import_module(module), name)
            return value
    raise AttributeError(f"module 'vgx' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, also those that were not asked for yet."""
    return [*globals(), *" ".join(_PUBLIC.values()).split()]
