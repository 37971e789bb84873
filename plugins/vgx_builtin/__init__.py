"""Everything in the box, registered exactly as any other plugin is."""

from __future__ import annotations

from collections.abc import Callable

import vgx


@vgx.hookimpl
def register_components(register: Callable[[type[vgx.Component]], None]) -> None:
    """Register the parts that each package imports in its `__init__`, by class name."""
    # Imported here: who looks for commands of plugins needs no part.
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

    packages = (
        datasets, augmentations, encoders, decoders, discriminators, losses, priors, samplers,
        features, metrics, trackers,
    )  # fmt: skip
    for package in packages:
        for _, part in sorted(vars(package).items()):
            if isinstance(part, type) and issubclass(part, vgx.Component):
                register(part)
