"""Image files that Pillow reads in part: colours of 16 bits, pages and samples that are channels.

Letters: H x W pixels, C channels.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

import vgx
from vgx_builtin.files.tiffs import DEFLATED, MAX_BYTES, PLAIN, read_tiff, require_few

if TYPE_CHECKING:
    from PIL import Image, ImageFile

CUT = ("LA;16B", "RGB;16B", "RGBA;16B")
"""What Pillow calls the pixels of a PNG file of 16 bits that it cuts to 8."""
OF_8_BITS = "of 16 bits cut to 8"
"""What the line of counts says of images that stay cut."""
COLOURS = (1, 3, 4)
"""Numbers of channels that are grey, RGB and RGBA."""
MOST_PAGES = 257
"""Pages are counted up to this number; no recipe has as many channels."""
BITS = 258
"""The TIFF tag with the bits of each sample."""
COMPRESSION = 259
"""The TIFF tag with the way that the pixels are compressed."""
READS_MORE = "pip install 'vgx[formats]' reads more kinds"


def read_deep(
    image: ImageFile.ImageFile, file: IO[bytes], channels: int
) -> Image.Image | NDArray[Any] | None:
    """[H, W, C]  Return what Pillow would cut of an open image; None for what it reads whole.

    An image that stays cut gets a remark. Raises `DataError` without the file's name, and errors of
    decoders.
    """
    if image.format == "PNG" and str(image.tile[0].args) in CUT:
        array = None if getattr(image, "is_animated", False) else _png(image, file)
        if array is None:
            image.info["remark"] = OF_8_BITS
        return array
    if image.format != "TIFF":
        return None
    pages = _pages(image, channels + 1 if channels in COLOURS else MOST_PAGES)
    if pages == channels > 1 and len(image.getbands()) == 1 and image.mode not in "1P":
        return _stack(image, pages)
    if pages > 1 and channels not in COLOURS:
        instead = f"write --set image.channels={pages}"
        raise vgx.DataError(f"it has {pages} pages, and image.channels is {channels}; {instead}")
    if pages > 1:
        image.info["remark"] = "of several pages, of which the first is used"
    tags = cast("Any", image).tag_v2
    bits, compression = tags.get(BITS, (8,)), tags.get(COMPRESSION, PLAIN)
    if channels in COLOURS and (len(bits) == 1 or max(bits) <= 8):
        return None
    # What is compressed in another way is cut rather than refused, if Pillow reads it.
    read = compression in (PLAIN, *DEFLATED) or channels not in COLOURS
    array = read_tiff(file) if read else None
    if array is None and channels in COLOURS:
        image.info["remark"] = OF_8_BITS
    return array


def _png(image: ImageFile.ImageFile, file: IO[bytes]) -> NDArray[np.uint16] | None:
    """[H, W, C]  Return a PNG file of 16 bits as kornia_rs decodes it; None if it cannot."""
    try:
        from kornia_rs.io import decode_image_png_u16
    except ImportError:  # kornia takes older versions too
        return None
    channels = len(image.getbands())
    if image.width * image.height * channels * 2 > MAX_BYTES:
        return None
    file.seek(0)
    try:
        pixels = decode_image_png_u16(file.read(), (image.height, image.width), image.mode.lower())
    except Exception:  # noqa: BLE001 - Pillow may be less strict, or says what is wrong
        return None
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and channels == 3:
        shown = (pixels != np.array(transparent, np.uint16)).any(2, keepdims=True)  # [H, W, 1]
        pixels = np.concatenate([pixels, shown * np.uint16(65535)], axis=2)
    array: NDArray[np.uint16] = pixels
    return array


def _pages(image: ImageFile.ImageFile, most: int) -> int:
    """Return how many pages a TIFF file has, and at most `most`; the first one stays open."""
    pages = 1
    try:
        while pages < most:
            image.seek(pages)
            pages += 1
    except EOFError:
        pass
    image.seek(0)
    return pages


def _stack(image: ImageFile.ImageFile, pages: int) -> Image.Image | NDArray[Any]:
    """[H, W, C]  Return grey pages of equal size, each as a channel.

    Three or four of 8 bits could be a document as well, so they are an image with a remark.
    """
    size, planes = image.size, list[NDArray[Any]]()
    require_few(image.width * image.height * pages * 4)
    for page in range(pages):
        image.seek(page)
        if image.size != size or len(image.getbands()) > 1:
            raise vgx.DataError(f"page {page} differs from the first in size or channels")
        planes.append(np.array(image))
    array = np.stack(planes, axis=2)
    if array.dtype != np.uint8 or pages not in COLOURS:
        return array
    from PIL import Image

    colours = Image.fromarray(array)
    colours.info["remark"] = "whose pages are channels"
    return colours
