"""Keyed random numbers: each draw has an address (seed, stream, numbers), so no state is saved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def key(seed: int, stream: str, *numbers: int) -> int:
    """Return the 63-bit seed of an address. It is the same on all machines."""
    address = "/".join([str(seed), stream, *map(str, numbers)])
    digest = hashlib.blake2b(address.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(
    seed: int, stream: str, *numbers: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a new generator for an address."""
    return torch.Generator(device).manual_seed(key(seed, stream, *numbers))


@contextmanager
def ambient(seed: int, stream: str, *numbers: int) -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore their state after it.

    Weight initialisation and dropout draw from the global generators and take no others.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(key(seed, stream, *numbers))
        yield
