"""vgx: train VAEs, GANs and VAE-GANs from typed recipes. Every part is a plugin.

These are the public names. Plugins need no others. `import vgx` is fast, because each name is
imported at its first use.
"""

from __future__ import annotations

import warnings
from importlib import import_module as _import
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgx.data.decode import convert_image as convert_image
    from vgx.distributed.rows import gather as gather
    from vgx.distributed.rows import mean_over_processes as mean_over_processes
    from vgx.distributed.rows import own_rows as own_rows
    from vgx.distributed.rows import replicated as replicated
    from vgx.errors import DataError as DataError
    from vgx.errors import Dropped as Dropped
    from vgx.errors import HubError as HubError
    from vgx.errors import Notice as Notice
    from vgx.errors import PluginError as PluginError
    from vgx.errors import RecipeError as RecipeError
    from vgx.errors import StorageError as StorageError
    from vgx.errors import VgxError as VgxError
    from vgx.files import cache_dir as cache_dir
    from vgx.files import open_regular as open_regular
    from vgx.notebook.checking import Checked as Checked
    from vgx.notebook.checking import check as check
    from vgx.notebook.evaluation import Evaluation as Evaluation
    from vgx.notebook.evaluation import evaluate as evaluate
    from vgx.notebook.given import peek as peek
    from vgx.notebook.images import Images as Images
    from vgx.notebook.listing import recipes as recipes
    from vgx.notebook.listing import runs as runs
    from vgx.notebook.run import Run as Run
    from vgx.notebook.training import fit as fit
    from vgx.notebook.training import resume as resume
    from vgx.notebook.training import run as run
    from vgx.notebook.training import train as train
    from vgx.parts.base import BrokenError as BrokenError
    from vgx.parts.base import Component as Component
    from vgx.parts.base import near as near
    from vgx.parts.hooks import hookimpl as hookimpl
    from vgx.parts.kinds import Augmentation as Augmentation
    from vgx.parts.kinds import Comparison as Comparison
    from vgx.parts.kinds import Counted as Counted
    from vgx.parts.kinds import Dataset as Dataset
    from vgx.parts.kinds import Decoder as Decoder
    from vgx.parts.kinds import Decodes as Decodes
    from vgx.parts.kinds import Discriminator as Discriminator
    from vgx.parts.kinds import Encoded as Encoded
    from vgx.parts.kinds import Encoder as Encoder
    from vgx.parts.kinds import Factored as Factored
    from vgx.parts.kinds import Features as Features
    from vgx.parts.kinds import Fitted as Fitted
    from vgx.parts.kinds import Grouped as Grouped
    from vgx.parts.kinds import Indexed as Indexed
    from vgx.parts.kinds import Labelled as Labelled
    from vgx.parts.kinds import LatentSampler as LatentSampler
    from vgx.parts.kinds import Loss as Loss
    from vgx.parts.kinds import LossTerm as LossTerm
    from vgx.parts.kinds import Mapped as Mapped
    from vgx.parts.kinds import Metric as Metric
    from vgx.parts.kinds import MetricState as MetricState
    from vgx.parts.kinds import Named as Named
    from vgx.parts.kinds import Observing as Observing
    from vgx.parts.kinds import OfClass as OfClass
    from vgx.parts.kinds import OpenTracker as OpenTracker
    from vgx.parts.kinds import PerImage as PerImage
    from vgx.parts.kinds import Prior as Prior
    from vgx.parts.kinds import Published as Published
    from vgx.parts.kinds import Quantising as Quantising
    from vgx.parts.kinds import Reporting as Reporting
    from vgx.parts.kinds import Sampler as Sampler
    from vgx.parts.kinds import Source as Source
    from vgx.parts.kinds import Timed as Timed
    from vgx.parts.kinds import Tracker as Tracker
    from vgx.parts.kinds import UsesModel as UsesModel
    from vgx.parts.registry import Plugin as Plugin
    from vgx.parts.registry import Registry as Registry
    from vgx.parts.registry import discover as discover
    from vgx.parts.values import Adaptive as Adaptive
    from vgx.parts.values import CodeSpec as CodeSpec
    from vgx.parts.values import ImageSpec as ImageSpec
    from vgx.parts.values import LatentSpec as LatentSpec
    from vgx.parts.values import Rate as Rate
    from vgx.parts.values import Schedule as Schedule
    from vgx.parts.values import Share as Share
    from vgx.parts.values import Weight as Weight
    from vgx.parts.values import at as at
    from vgx.recipe.load import dump_recipe as dump_recipe
    from vgx.recipe.load import load_recipe as load_recipe
    from vgx.recipe.model import Recipe as Recipe
    from vgx.runs.import_weights import import_weights as import_weights
    from vgx.runs.trust import trust_plugins as trust_plugins
    from vgx.sampling.draw import sample as sample
    from vgx.sampling.model import Model as Model
    from vgx.sampling.model import load as load
    from vgx.second.folder import load_latents as load_latents
    from vgx.step import AbsentError as AbsentError
    from vgx.step import Gaussian as Gaussian
    from vgx.step import KnowsKl as KnowsKl
    from vgx.step import Posterior as Posterior
    from vgx.step import Score as Score
    from vgx.step import Step as Step
    from vgx_explore import explore as explore
    from vgx_figures import plot as plot
    from vgx_report.comparison import compare as compare
    from vgx_report.explaining import explain as explain
    from vgx_share import export as export
    from vgx_share import import_model as import_model
    from vgx_share import push as push

__version__ = "0.1.0.dev0"

# The same names once more: the imports above are for type checkers and editors.
_PUBLIC = {
    "vgx.data.decode": "convert_image",
    "vgx.distributed.rows": "gather mean_over_processes own_rows replicated",
    "vgx.errors": "DataError Dropped HubError Notice PluginError RecipeError StorageError VgxError",
    "vgx.files": "cache_dir open_regular",
    "vgx.notebook.checking": "Checked check",
    "vgx.notebook.given": "peek",
    "vgx.notebook.images": "Images",
    "vgx.notebook.evaluation": "Evaluation evaluate",
    "vgx.notebook.listing": "recipes runs",
    "vgx.notebook.run": "Run",
    "vgx.notebook.training": "fit resume run train",
    "vgx.parts.base": "BrokenError Component near",
    "vgx.parts.hooks": "hookimpl",
    "vgx.parts.kinds": (
        "Augmentation Comparison Counted Dataset Decoder Decodes Discriminator Encoded Encoder "
        "Factored Features Fitted Grouped Indexed Labelled LatentSampler Loss LossTerm Mapped "
        "Metric MetricState Named Observing OfClass OpenTracker PerImage Prior Published "
        "Quantising Reporting Sampler Source Timed Tracker UsesModel"
    ),
    "vgx.parts.registry": "Plugin Registry discover",
    "vgx.parts.values": "Adaptive CodeSpec ImageSpec LatentSpec Rate Schedule Share Weight at",
    "vgx.recipe.load": "dump_recipe load_recipe",
    "vgx.recipe.model": "Recipe",
    "vgx.sampling.draw": "sample",
    "vgx.sampling.model": "Model load",
    "vgx.second.folder": "load_latents",
    "vgx.step": "AbsentError Gaussian KnowsKl Posterior Score Step",
    "vgx.runs.import_weights": "import_weights",
    "vgx.runs.trust": "trust_plugins",
    "vgx_explore": "explore",
    "vgx_figures": "plot",
    "vgx_report.comparison": "compare",
    "vgx_report.explaining": "explain",
    "vgx_share": "export import_model push",
}
__all__ = tuple(name for names in _PUBLIC.values() for name in names.split())


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    for module, names in _PUBLIC.items():
        if name in names.split():
            globals()[name] = value = getattr(_import(module), name)
            return value
    from vgx.parts import kinds

    if new := kinds.RENAMED.get(name):
        warnings.warn(f"vgx.{name} is vgx.{new} now", DeprecationWarning, stacklevel=2)
        return getattr(kinds, new)
    raise AttributeError(f"module 'vgx' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, including those that are not imported yet."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


class _Called(ModuleType):
    """A package that is a function too: `vgx.runs()` lists the runs, `vgx.check(recipe)` checks."""

    # What notebooks and editors show of it is that of the function.
    __doc__ = property(lambda self: self._function.__doc__)
    __signature__ = property(lambda self: _import("inspect").signature(self._function))

    @property
    def _function(self) -> Any:
        return getattr(_import(_CALLED[self.__name__]), self.__name__[4:])

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        return self._function(*arguments, **named)


_CALLED = {"vgx.check": "vgx.notebook.checking", "vgx.runs": "vgx.notebook.listing"}
for _name in _CALLED:  # their `__init__` have only docstrings, so this imports nothing else
    _import(_name).__class__ = _Called
