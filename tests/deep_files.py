"""PNG and TIFF files that Pillow does not write, made by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png16(array, *chunks):
    """A PNG file of 16 bits, written by hand: [H, W, C] of uint16."""
    height, width, channels = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    claim = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", claim), *chunks, data, chunk(b"IEND", b"")]
    )


def listed(file, code, values):
    """The offset of several numbers, or the number itself."""
    data = struct.pack(f"<{len(values)}{code}", *values)
    if len(data) <= 4:
        return data.ljust(4, b"\0")
    place = len(file)
    file.extend(data)
    return struct.pack("<I", place)


def tiff(*pages, compression=1, planar=1, bits=None, orientation=None, cut=None, words=(), tags=1):
    """A TIFF file, written by hand: pages [H, W, C] of whole numbers or floats, in one strip each.

    `cut` puts other bytes in the place of the pixels, and `words` is a description, so many times
    in the table of tags as `tags` says.
    """
    file, at = bytearray(b"II*\0\0\0\0\0"), 4
    for page in pages:
        height, width, samples = page.shape
        order = np.moveaxis(page, -1, 0) if planar == 2 else page
        planes = [each.tobytes() for each in (order if planar == 2 else [order])]
        if compression != 1:
            planes = [zlib.compress(each) for each in planes]
        planes = [cut] if cut else planes
        starts = []
        for plane in planes:
            starts.append(len(file))
            file += plane + b"\0" * (len(plane) % 2)
        size = 8 * page.dtype.itemsize if bits is None else bits

        fields = {
            256: (4, [width]), 257: (4, [height]), 258: (3, [size] * samples),
            259: (3, [compression]), 262: (3, [2 if samples == 3 else 1]), 273: (4, starts),
            277: (3, [samples]), 278: (4, [height]), 279: (4, [len(each) for each in planes]),
            284: (3, [planar]), 339: (3, [3 if page.dtype.kind == "f" else 1] * samples),
        }  # fmt: skip
        if samples > 3:
            fields[338] = 3, [0] * (samples - 1)
        if orientation:
            fields[274] = 3, [orientation]
        if words:
            fields[270] = 2, words
        entries = b"".join(
            (struct.pack("<HHI", tag, kind, len(values)) + listed(file, "_HBHI"[kind], values))
            * (tags if tag == 270 else 1)
            for tag, (kind, values) in sorted(fields.items())
        )
        file[at : at + 4] = struct.pack("<I", len(file))
        file += struct.pack("<H", len(entries) // 12) + entries
        at = len(file)
        file += bytes(4)
    return bytes(file)


def noise(*shape, kind=np.uint16):
    return np.random.default_rng(0).integers(0, 2**16 - 1, shape).astype(kind)
