"""TIFF files as tifffile reads them.

Letters: H x W pixels, C channels.
"""

from __future__ import annotations

import logging
import math
import zlib
from itertools import islice
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

import vgx
from vgx_builtin.files.image_files import FewReads

MAX_BYTES = 2**27
"""Arrays that are larger are not made: they take twice as much while they are resized."""
MOST_AGAIN = 2**25
"""Bytes that are read of a file more often than once, such as tags with one place for all."""
PLAIN, DEFLATED = 1, (8, 32946)
"""The TIFF compressions that are read with tifffile."""
MOST_PAGES = 257
"""Pages are read up to this number; no recipe has as many channels."""
# What it would otherwise read of all pages before it gives the first one.
_FIRST_PAGE_ONLY = {"is_lsm": False, "is_ndpi": False, "is_scanimage": False}


def read_tiff(file: IO[bytes]) -> NDArray[Any] | None:
    """[H, W, C]  Return a TIFF file as tifffile reads it; None without it.

    Grey pages like the first are channels; of other files the first page is the image. What a file
    says of itself in other ways, such as OME-XML, is not looked at: it may name other files, and
    any number of pages. Only plain and deflated pixels are read. Raises `DataError` without a name.
    """
    try:
        import tifffile
    except ImportError:
        return None
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # prints no warnings of its own
    bounded = cast("Any", FewReads(file, MOST_AGAIN))
    with tifffile.TiffFile(bounded, name="image.tif", **_FIRST_PAGE_ONLY) as opened:
        first, planes, size = opened.pages.first, list[NDArray[Any]](), 0
        for page in islice(opened.pages, MOST_PAGES if first.samplesperpixel == 1 else 1):
            if _kind(page) != _kind(first):  # a mask, for instance
                break
            size += _bytes(page, page.shape)
            require_few(size)
            planes.append(_pixels(file, page))
    return np.concatenate(planes, axis=2)


def _kind(page: Any) -> tuple[Any, ...]:
    return page.shape, page.dtype, page.compression, page.photometric


def _pixels(file: IO[bytes], page: Any) -> NDArray[Any]:
    """[H, W, C]  Return a page. Raises `DataError` for one that is no image, or is compressed."""
    compression = int(page.compression)
    if compression not in (PLAIN, *DEFLATED):
        raise vgx.DataError(f"a TIFF compressed with {page.compression.name}")
    require_few(segment := _bytes(page, page.chunks))  # a tile may be larger than its page
    if compression in DEFLATED:
        _require_small_segments(file, page, segment)
    array, channels = page.asarray(), [at for at, axis in enumerate(page.axes) if axis not in "YX"]
    if array.ndim - len(channels) != 2 or len(channels) > 1:
        raise vgx.DataError(f"a TIFF of the axes {page.axes}: no image with channels")
    return np.moveaxis(array, channels[0], -1) if channels else array[..., None]


def _bytes(page: Any, shape: tuple[int, ...]) -> int:
    """Return how many bytes samples of a page are. Raises `DataError` for an unknown type."""
    if page.dtype is None:
        raise vgx.DataError(f"a TIFF with samples of {page.bitspersample} bits")
    return int(math.prod(shape) * page.dtype.itemsize)


def require_few(size: int) -> None:
    """Raise `DataError` for arrays of more bytes than are made."""
    if size > MAX_BYTES:
        raise vgx.DataError(f"{size:,} bytes of pixels; at most {MAX_BYTES:,} are decoded")


def _require_small_segments(file: IO[bytes], page: Any, size: int) -> None:
    """Raise `DataError` when a compressed part of a page is larger than its pixels."""
    bounded = FewReads(file, MOST_AGAIN)
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        bounded.seek(start)
        inflater = zlib.decompressobj()
        inflater.decompress(bounded.read(count), 2 * size + 1024)
        if inflater.unconsumed_tail:
            raise vgx.DataError("compressed data larger than the image")
