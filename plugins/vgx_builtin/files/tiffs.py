"""TIFF files as tifffile reads them.

Letters: H x W pixels, C channels.
"""

from __future__ import annotations

import logging
import math
import zlib
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

import vgx

MAX_BYTES = 2**27
"""Arrays that are larger are not made: they take twice as much while they are resized."""
PLAIN, DEFLATED = 1, (8, 32946)
"""The TIFF compressions that are read with tifffile."""


def read_tiff(file: IO[bytes]) -> NDArray[Any] | None:
    """[H, W, C]  Return the first image of a TIFF file as tifffile reads it; None without it.

    Only plain and deflated pixels are read. Raises `DataError` without a name.
    """
    try:
        import tifffile
    except ImportError:
        return None
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # prints no warnings of its own
    file.seek(0)
    # A name, since that of a file that was opened by its number is a number.
    with tifffile.TiffFile(cast("Any", file), name="image.tif") as opened:
        series = opened.series[0]
        page = series.keyframe
        axes, shape = series.axes, series.shape
        require_few(math.prod(shape) * series.dtype.itemsize)
        if int(page.compression) not in (PLAIN, *DEFLATED):
            raise vgx.DataError(f"a TIFF compressed with {page.compression.name}")
        if int(page.compression) in DEFLATED:
            segment = math.prod(page.chunks) * page.dtype.itemsize
            for each in series.pages:
                _require_small_segments(file, each, segment)
        array = np.asarray(series.asarray())
    channels = [at for at, axis in enumerate(axes) if axis not in "YX"]
    if array.ndim - len(channels) != 2 or len(channels) > 1:
        raise vgx.DataError(f"a TIFF of the axes {axes}: no image with channels")
    return np.moveaxis(array, channels[0], -1) if channels else array[..., None]


def require_few(size: int) -> None:
    """Raise `DataError` for arrays of more bytes than are made."""
    if size > MAX_BYTES:
        raise vgx.DataError(f"{size:,} bytes of pixels; at most {MAX_BYTES:,} are decoded")


def _require_small_segments(file: IO[bytes], page: Any, size: int) -> None:
    """Raise `DataError` when a compressed part of a page is larger than its pixels."""
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(start)
        inflater = zlib.decompressobj()
        inflater.decompress(file.read(count), 2 * size + 1024)
        if inflater.unconsumed_tail:
            raise vgx.DataError("compressed data larger than the image")
