"""vgx: the workbench for GANs, VAEs and their hybrids.

`import vgx` is light: torch is first imported by what trains or samples.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgx.components import (
        Augmentation,
        Component,
        Dataset,
        Decoder,
        Discriminator,
        Drawer,
        Encoder,
        Gauge,
        ImageSpec,
        Journal,
        LatentSpec,
        Loss,
        LossTerm,
        Metric,
        Sampler,
        Schedule,
        Source,
        Tracker,
    )
    from vgx.errors import Dropped, Notice, VgxError
    from vgx.hooks import hookimpl
    from vgx.recipe import Recipe, dump_recipe, load_recipe
    from vgx.registry import Registry, discover
    from vgx.rundir import Run, cache_dir
    from vgx.sampling import Model, load, sample
    from vgx.step import Gaussian, Posterior, Score, Step
    from vgx.training import run

__version__ = "0.1.0.dev0"

# Where each public name lives; it is imported when it is first asked for.
_LATER = {
    "Augmentation": "vgx.components",
    "Component": "vgx.components",
    "Dataset": "vgx.components",
    "Decoder": "vgx.components",
    "Discriminator": "vgx.components",
    "Drawer": "vgx.components",
    "Encoder": "vgx.components",
    "Gauge": "vgx.components",
    "ImageSpec": "vgx.components",
    "Journal": "vgx.components",
    "LatentSpec": "vgx.components",
    "Loss": "vgx.components",
    "LossTerm": "vgx.components",
    "Metric": "vgx.components",
    "Sampler": "vgx.components",
    "Schedule": "vgx.components",
    "Source": "vgx.components",
    "Tracker": "vgx.components",
    "Dropped": "vgx.errors",
    "Notice": "vgx.errors",
    "VgxError": "vgx.errors",
    "hookimpl": "vgx.hooks",
    "Gaussian": "vgx.step",
    "Posterior": "vgx.step",
    "Score": "vgx.step",
    "Step": "vgx.step",
    "Recipe": "vgx.recipe",
    "dump_recipe": "vgx.recipe",
    "load_recipe": "vgx.recipe",
    "Registry": "vgx.registry",
    "discover": "vgx.registry",
    "Run": "vgx.rundir",
    "cache_dir": "vgx.rundir",
    "Model": "vgx.sampling",
    "load": "vgx.sampling",
    "sample": "vgx.sampling",
    "run": "vgx.training",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'vgx' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


__all__ = [
    "Augmentation",
    "Component",
    "Dataset",
    "Decoder",
    "Discriminator",
    "Drawer",
    "Dropped",
    "Encoder",
    "Gauge",
    "Gaussian",
    "ImageSpec",
    "Journal",
    "LatentSpec",
    "Loss",
    "LossTerm",
    "Metric",
    "Model",
    "Notice",
    "Posterior",
    "Recipe",
    "Registry",
    "Run",
    "Sampler",
    "Schedule",
    "Score",
    "Source",
    "Step",
    "Tracker",
    "VgxError",
    "__version__",
    "cache_dir",
    "discover",
    "dump_recipe",
    "hookimpl",
    "load",
    "load_recipe",
    "run",
    "sample",
]
