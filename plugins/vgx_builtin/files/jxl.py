"""How large a JPEG XL image is, read before a decoder is asked, which decodes it at once.

The codestream (ISO/IEC 18181-1, SizeHeader) may lie in boxes (18181-2), in pieces.
"""

from __future__ import annotations

import struct
from typing import IO

import vgx

BEGINNING = b"\xff\x0a"
"""How a codestream begins."""
HEADER = 11
"""Bytes that hold the beginning of a codestream and its size: of any image there are more."""
MOST_BOXES = 1000
"""Boxes that are looked at for the codestream."""
# The width as a part of the height, by the number that says so.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def jxl_pixels(file: IO[bytes]) -> int:
    """Return how many pixels a JPEG XL image has, as its header says. Raises `DataError`."""
    file.seek(0)
    stream = file.read(HEADER)
    if not stream.startswith(BEGINNING):
        stream = _in_boxes(file)
    file.seek(0)
    if not stream.startswith(BEGINNING) or len(stream) < HEADER:
        raise vgx.DataError("a JPEG XL file that is broken at its beginning")
    bits = int.from_bytes(stream[2:], "little")

    def take(count: int) -> int:
        nonlocal bits
        bits, taken = bits >> count, bits & (1 << count) - 1
        return taken

    small = take(1)  # sides of at most 256 pixels, which 8 divides

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    height, ratio = side(), take(3)
    width = height * _RATIOS[ratio][0] // _RATIOS[ratio][1] if ratio else side()
    return width * height


def _in_boxes(file: IO[bytes]) -> bytes:
    """Return the first bytes of a codestream in boxes, or fewer where there are fewer."""
    stream, place = b"", 0
    for _ in range(MOST_BOXES):
        file.seek(place)
        size, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        content = place + (16 if size == 1 else 8) + (4 if kind == b"jxlp" else 0)
        end = place + (large if size == 1 else size) if size else content + HEADER
        if kind in (b"jxlc", b"jxlp"):
            file.seek(content)
            stream += file.read(max(0, min(HEADER - len(stream), end - content)))
        if len(stream) == HEADER or not size or end < content:
            break
        place = end
    return stream
