"""vgx: the workbench for GANs, VAEs and their hybrids.

`import vgx` is light: each public name is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgx.errors import Dropped as Dropped
    from vgx.errors import Notice as Notice
    from vgx.errors import VgxError as VgxError
    from vgx.files import cache_dir as cache_dir
    from vgx.parts.hooks import hookimpl as hookimpl
    from vgx.parts.kinds import Adaptive as Adaptive
    from vgx.parts.kinds import Augmentation as Augmentation
    from vgx.parts.kinds import Comparison as Comparison
    from vgx.parts.kinds import Component as Component
    from vgx.parts.kinds import Dataset as Dataset
    from vgx.parts.kinds import Decoder as Decoder
    from vgx.parts.kinds import Discriminator as Discriminator
    from vgx.parts.kinds import Drawer as Drawer
    from vgx.parts.kinds import Encoder as Encoder
    from vgx.parts.kinds import Factored as Factored
    from vgx.parts.kinds import Features as Features
    from vgx.parts.kinds import Fitted as Fitted
    from vgx.parts.kinds import Gauge as Gauge
    from vgx.parts.kinds import ImageSpec as ImageSpec
    from vgx.parts.kinds import Journal as Journal
    from vgx.parts.kinds import Labelled as Labelled
    from vgx.parts.kinds import LatentSpec as LatentSpec
    from vgx.parts.kinds import Loss as Loss
    from vgx.parts.kinds import LossTerm as LossTerm
    from vgx.parts.kinds import Metric as Metric
    from vgx.parts.kinds import Sampler as Sampler
    from vgx.parts.kinds import Schedule as Schedule
    from vgx.parts.kinds import Source as Source
    from vgx.parts.kinds import Tracker as Tracker
    from vgx.parts.registry import Plugin as Plugin
    from vgx.parts.registry import Registry as Registry
    from vgx.parts.registry import discover as discover
    from vgx.recipe.model import Recipe as Recipe
    from vgx.recipe.model import dump_recipe as dump_recipe
    from vgx.recipe.model import load_recipe as load_recipe
    from vgx.runs.directory import Run as Run
    from vgx.sampling.draw import sample as sample
    from vgx.sampling.model import Model as Model
    from vgx.sampling.model import load as load
    from vgx.step import AbsentError as AbsentError
    from vgx.step import Gaussian as Gaussian
    from vgx.step import Posterior as Posterior
    from vgx.step import Score as Score
    from vgx.step import Step as Step
    from vgx.training.session import run as run

__version__ = "0.1.0.dev0"

_PUBLIC = {
    "vgx.parts.kinds": (
        "Adaptive Augmentation Comparison Component Dataset Decoder Discriminator Drawer Encoder "
        "Factored Features Fitted Gauge ImageSpec Journal Labelled LatentSpec Loss LossTerm Metric "
        "Sampler Schedule Source Tracker"
    ),
    "vgx.errors": "Dropped Notice VgxError",
    "vgx.parts.hooks": "hookimpl",
    "vgx.recipe.model": "Recipe dump_recipe load_recipe",
    "vgx.parts.registry": "Plugin Registry discover",
    "vgx.files": "cache_dir",
    "vgx.runs.directory": "Run",
    "vgx.sampling.draw": "sample",
    "vgx.sampling.model": "Model load",
    "vgx.step": "AbsentError Gaussian Posterior Score Step",
    "vgx.training.session": "run",
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
