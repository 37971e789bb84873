"""Keyed randomness: the same address gives the same draws, on every machine and for ever."""

from __future__ import annotations

import torch

from vgx import keys


def test_keys_are_what_they_always_were():
    # Computed once: another value would make every stored run unrepeatable.
    assert keys.key(0, "posterior", 0, 0, 0) == 6790793066283997333
    assert keys.key(7, "order", 12) == 8101294104174977306


def test_every_part_of_an_address_counts():
    addresses = [
        (0, "posterior", 1), (1, "posterior", 1), (0, "prior", 1), (0, "posterior", 2),
        (0, "posterior", 1, 0), (0, "posterior"), (0, "posterior", 11), (0, "posterior", 1, 1),
    ]  # fmt: skip
    assert len({keys.key(*address) for address in addresses}) == len(addresses)
    assert all(0 <= keys.key(*address) < 2**63 for address in addresses)


def test_a_generator_is_fresh_each_time():
    draws = [torch.randn(3, generator=keys.generator(5, "x", 1)) for _ in range(2)]
    assert torch.equal(*draws)


def test_ambient_draws_are_keyed_and_leave_no_trace():
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    drawn = []
    for _ in range(2):
        with keys.ambient(0, "step", 4):
            drawn.append(torch.randn(2))
    assert torch.equal(*drawn)
    assert torch.equal(torch.randn(2), expected)
