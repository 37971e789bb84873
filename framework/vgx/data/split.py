"""Which pictures no training sees: a share of them, chosen by what is on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vgx.errors import DataError

# Another address than that of anybody else who goes by the same hashes.
_MIX = np.uint64(0x9E3779B97F4A7C15)


def held_out(hashes: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """[N]  Whether each picture is held out: its hash is among the lowest `share` of all hashes.

    Equal pictures have equal hashes, so none is on both sides, and whatever else the data set has
    or gets, a picture stays on its side. Raises `DataError` when that leaves a side empty.
    """
    held = (hashes ^ _MIX) < np.uint64(share * 2.0**64)
    if share and (held.all() or not held.any()):
        few = "none" if held.all() else "all"
        message = f"{len(hashes):,} pictures are too few: {few} of them would be trained on"
        raise DataError(f"eval.holdout: {share:g}: {message}")
    return held
