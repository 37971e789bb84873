"""Everything in the box, registered exactly as any other plugin is."""

from __future__ import annotations

from collections.abc import Callable

import vgx
from vgx_builtin import (
    augmentations,
    datasets,
    decoders,
    discriminators,
    encoders,
    features,
    losses,
    metrics,
    priors,
    samplers,
    trackers,
)

PACKAGES = (
    datasets,
    augmentations,
    encoders,
    decoders,
    discriminators,
    losses,
    priors,
    samplers,
    features,
    metrics,
    trackers,
)


@vgx.hookimpl
def register_components(register: Callable[[type[vgx.Component]], None]) -> None:
    """Register the parts that each package imports in its `__init__`, by class name."""
    for package in PACKAGES:
        for _, part in sorted(vars(package).items()):
            if isinstance(part, type) and issubclass(part, vgx.Component):
                register(part)
