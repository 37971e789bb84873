"""Keyed randomness: the same address gives the same draws, on every machine and for ever."""

from __future__ import annotations

import contextlib

import torch

from vgx import rng


def test_keys_are_what_they_always_were():
    # Computed once: another value would make every stored run unrepeatable.
    assert rng.key(0, "posterior", 0, 0, 0) == 6790793066283997333
    assert rng.key(7, "order", 12) == 8101294104174977306


def test_every_part_of_an_address_counts():
    addresses = [
        (0, "posterior", 1), (1, "posterior", 1), (0, "prior", 1), (0, "posterior", 2),
        (0, "posterior", 1, 0), (0, "posterior"), (0, "posterior", 11), (0, "posterior", 1, 1),
    ]  # fmt: skip
    assert len({rng.key(*address) for address in addresses}) == len(addresses)
    assert all(0 <= rng.key(*address) < 2**63 for address in addresses)


def test_a_generator_is_fresh_each_time():
    draws = [torch.randn(3, generator=rng.generator(5, "x", 1)) for _ in range(2)]
    assert torch.equal(*draws)


def test_ambient_draws_are_keyed_and_leave_no_trace():
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    drawn = []
    for _ in range(2):
        with rng.ambient(0, "step", 4):
            drawn.append(torch.randn(2))
    assert torch.equal(*drawn)
    assert torch.equal(torch.randn(2), expected)


def test_draws_are_what_they_always_were():
    # Computed once, on the CPU, whose generator is the same everywhere.
    numbers = torch.randint(0, 10**6, (4,), generator=rng.generator(0, "posterior", 3, 0, 0))
    assert numbers.tolist() == [39405, 806467, 382122, 488207]
    assert torch.randperm(6, generator=rng.generator(7, "order", 12)).tolist() == [
        3,
        0,
        5,
        4,
        1,
        2,
    ]


def test_streams_and_steps_have_nothing_in_common():
    """Correlations of 10,000 draws are within 5 of their standard deviations, 1 / 100."""
    addresses = [(0, "prior", 0), (0, "prior", 1), (0, "posterior", 0), (1, "prior", 0)]
    draws = torch.stack(
        [torch.randn(10_000, generator=rng.generator(*address)) for address in addresses]
    )  # [4, 10000]
    others = torch.corrcoef(draws) - torch.eye(4)
    assert others.abs().max() < 0.05


def test_ambient_puts_the_state_back_after_an_error_too():
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    with contextlib.suppress(ValueError), rng.ambient(0, "step", 4):
        torch.randn(2)
        raise ValueError
    assert torch.equal(torch.randn(2), expected)


def test_ambient_draws_differ_from_those_of_another_address():
    drawn = []
    for address in ((0, "step", 4), (0, "step", 5), (0, "weights", 4), (1, "step", 4)):
        with rng.ambient(*address):
            drawn.append(tuple(torch.randn(2).tolist()))
    assert len(set(drawn)) == 4
