"""Tensors in safetensors files with a SHA-256 sum of their own, for what can be computed again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from torch import Tensor

from vgx.errors import StorageError
from vgx.files import replacing
from vgx.runs.checkpoint import tensor_bytes, tensors, whole

_NONE = b"0" * 64  # stands in place of the sum while it is computed
_SUM = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def write(file: Path, named: dict[str, Tensor], of: str) -> None:
    """Write tensors with a sum of the whole file and of a text that says what they belong to.

    Raises `StorageError`.
    """
    with replacing(file) as new:  # whatever is there: a pipe would be waited for
        new.write(packed(named, of))


def packed(named: dict[str, Tensor], of: str) -> bytes:
    """Return the content of such a file."""
    data = tensor_bytes(named, {"sha256": _NONE.decode()})
    return data.replace(_NONE, _sum(data, of), 1)


def read(file: Path, of: str, most: int) -> dict[str, Tensor]:
    """Return the tensors of a file of at most `most` bytes that `write` wrote for the same text.

    Raises `OSError`, and `StorageError` when a byte of it, or the text, is another.
    """
    return unpacked(whole(file, most), file, of)


def unpacked(data: bytes, file: Path, of: str) -> dict[str, Tensor]:
    """Return the tensors in what `packed` returned for the same text. Raises `StorageError`."""
    match = _SUM.search(data)
    if match is None:
        raise StorageError(f"{file}: damaged, or of an earlier version: it has no sum")
    start, end = match.span(1)
    if _sum(data[:start] + _NONE + data[end:], of) != match[1]:
        raise StorageError(f"{file}: not as it was written")
    return tensors(data, file)


def _sum(data: bytes, of: str) -> bytes:
    return hashlib.sha256(of.encode() + b"\n" + data).hexdigest().encode()
