"""Work on many images, cut into pieces of which each process computes its own.

A piece is computed as in a program on its own, and sent to all processes. So what comes of the
work is the same to the bit, whatever the number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor

from vgx.distributed.group import stacked
from vgx.distributed.state import group
from vgx.errors import StorageError

Piece = Mapping[str, Tensor]  # what was computed, by name


def own_pieces() -> slice:
    """Return which of all pieces, in their order, this process computes: every P-th of P."""
    return slice(group().rank, None, group().size)


def gathered(own: Iterable[Piece]) -> Iterator[Piece]:
    """Give the pieces of all processes in order, of those that this one computes.

    All processes must go through them to the end. The tensors are contiguous, and on the CPU if
    there are several processes.
    """
    if group().size == 1:
        yield from ({name: t.contiguous() for name, t in piece.items()} for piece in own)
        return
    pieces, sizes = iter(own), [1]
    while all(sizes):
        piece = next(pieces, None)
        content = save({name: t.cpu().contiguous() for name, t in piece.items()}) if piece else b""
        sizes = stacked(torch.tensor(len(content))).tolist()
        if not any(sizes):
            return
        padded = torch.frombuffer(bytearray(content.ljust(max(sizes), b"\0")), dtype=torch.uint8)
        for row, size in zip(stacked(padded), sizes, strict=True):
            if size:
                yield load(row[:size].numpy().tobytes())


def require_same(value: str, what: str) -> None:
    """Raise `StorageError` unless all processes have the same value, which says what they opened.

    `what` names it in the plural, for people.
    """
    digest = torch.tensor([*hashlib.sha256(value.encode()).digest()])
    if not (stacked(digest) == digest).all():
        raise StorageError(
            f"the processes opened different {what}: each machine must have the same files, and "
            "none of them may change meanwhile, as in a run that is being trained (--step names "
            "a checkpoint)"
        )
