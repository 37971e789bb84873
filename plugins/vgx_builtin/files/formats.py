"""Formats of image files: which are read, by their endings and by their first bytes."""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Callable

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI",
    "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Formats of pixels that Pillow reads: no programs (EPS), no metafiles, no data formats."""
EXTRA = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}
"""Formats that another library reads, and the name of that library for `import`."""
READERS = (*EXTRA.values(), "tifffile", "PIL.AvifImagePlugin")
"""Modules that may be missing here: with one more of them, a file may become another image."""
INSTALL = "pip install 'vgx[formats]'"
HEAD = 2048
"""So many bytes at the beginning of a file say what it is."""

_ENDINGS = {"HEIF": {".heic", ".heif", ".hif"}, "JXL": {".jxl"}}
# Files of these formats that are left out, as their reason.
_UNREAD = {"HEIF": ".heic", "JXL": ".jxl", "AVIF": ".avif"}
# Formats whose first bytes also begin other files: their whole header is looked at.
_WEAK = ("BMP", "PCX", "PPM", "SGI")
# Formats that are known by their ending only: TGA and MPO have no first bytes of their own, and
# those of the others begin too many other files.
_BY_ENDING = ("DIB", "ICO", "MPO", "TGA")
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_JXL = b"\0\0\0\x0cJXL \r\n\x87\n"
# Raw data of cameras begin like TIFF or JPEG files, and what could be read is a thumbnail.
_RAW = {
    ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
}  # fmt: skip
# Unfinished downloads, backups and thumbnails of videos.
_NEVER = {*_RAW, ".bak", ".crdownload", ".download", ".part", ".partial", ".thm", ".tmp"}


def endings() -> set[str]:
    """Return the endings of image files in lower case: ".jpg" and others."""
    from PIL import Image

    known = {end for end, name in Image.registered_extensions().items() if name in FORMATS}
    return known.union(*(ends for kind, ends in _ENDINGS.items() if can_read(kind)))


def why_not(name: str, known: set[str], head: Callable[[], bytes]) -> str:
    """Return why a file is not read as an image; an empty text for an image.

    `known` are the `endings` of image files. A file with another ending is an image if it begins
    like one: `head` is called for its first `HEAD` bytes. The reason is the ending, such as ".txt".
    """
    dot = name.rfind(".", name.rfind("/") + 2)  # a dot at the beginning begins no ending
    ending = name[dot:].lower() if dot > 0 else ""
    if ending in known:
        return ""
    if not re.fullmatch(r"\.[a-z0-9_]{1,10}", ending):
        reason = "file of another kind" if ending else "file without an ending"
    else:
        reason = ending
    if ending in _NEVER or name.endswith("~"):
        return reason
    kind = kind_of(head())
    return "" if can_read(kind) else _UNREAD.get(kind, reason)


def newer_kind(head: bytes) -> str:
    """Return whether these bytes begin HEIF, AVIF or JXL; "" for another file."""
    if head[4:8] == b"ftyp":  # one of many formats, whose brands are listed here
        listed = head[8 : min(int.from_bytes(head[:4], "big"), 512)]
        brands = {listed[i : i + 4] for i in range(0, len(listed), 4)}
        if brands & _HEIC:
            return "HEIF"
        return "AVIF" if brands & {b"avif", b"avis"} else ""
    return "JXL" if head.startswith((b"\xff\x0a", _JXL)) else ""


def kind_of(head: bytes) -> str:
    """Return the format that begins with these bytes, by Pillow's name; "" for none of ours."""
    from PIL import Image

    if not head:
        return ""
    if kind := newer_kind(head):
        return kind
    Image.init()
    for name in FORMATS:
        accept = Image.OPEN[name][1] if name in Image.OPEN and name not in _BY_ENDING else None
        # A text instead of True says that Pillow lacks a library.
        if accept is not None and accept(head[:16]) is True:
            return name if name not in _WEAK or _has_header(head, name) else ""
    return ""


def _has_header(head: bytes, name: str) -> bool:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(head), formats=[name]).close()
    except Exception:  # noqa: BLE001 - decoders raise many kinds of error
        return False
    return True


def can_read(kind: str) -> bool:
    """Return whether a format can be read here."""
    from PIL import Image

    if kind in EXTRA:
        return importlib.util.find_spec(EXTRA[kind]) is not None
    Image.init()
    return kind in FORMATS and kind in Image.OPEN


def missing_readers() -> str:
    """Return a text for fingerprints: which `READERS` are missing; "" where all are there."""
    missing = [name for name in READERS if importlib.util.find_spec(name) is None]
    return f"|without {' '.join(missing)}" if missing else ""


def load_reader(kind: str) -> bool:
    """Load the library for a format, if it needs one; return whether the format can be read."""
    readable = can_read(kind)
    if readable and kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    elif readable and kind == "JXL":
        import pillow_jxl  # noqa: F401 - it registers itself
    return readable


def advice(reason: str) -> str:
    """Return what to do to have files read that were left out for a reason; "" for nothing."""
    if reason in _UNREAD.values():
        return f"{INSTALL} reads them"
    if reason == "encrypted file":
        return "unpack it with its password"
    return "raw data of a camera; convert them to TIFF or PNG" if reason in _RAW else ""
