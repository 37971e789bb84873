"""Which images no training sees: a share of them, chosen by their bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vgx.errors import DataError

# Makes this choice independent of others that use the same hashes.
_MIX = np.uint64(0x9E3779B97F4A7C15)


def held_out(hashes: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """[N]  Return whether each image is held out, because its hash is among the lowest `share`.

    Equal images have equal hashes, so no image is on both sides. An image stays on its side when
    others are added or removed. Raises `DataError` when one side is empty.
    """
    held = (hashes ^ _MIX) < np.uint64(share * 2.0**64)
    if share and (held.all() or not held.any()):
        trained = "none" if held.all() else "all"
        message = f"{len(hashes):,} images are too few: {trained} of them would be trained on"
        raise DataError(f"eval.holdout: {share:g}: {message}")
    return held
