"""Which fields of parts are read: noted inside a block, and nowhere else."""

from __future__ import annotations

import threading

import vgx
from vgx.parts.base import Component, noting_reads


def kl():
    return vgx.discover().part("loss", "kl")()


def test_reads_are_noted_by_part_and_name_inside_the_block_only():
    one, other = kl(), kl()
    with noting_reads() as reads:
        _ = one.unit
    _ = one.free_bits
    assert (id(one), "unit") in reads
    assert (id(one), "free_bits") not in reads
    assert (id(other), "unit") not in reads


def test_a_block_inside_a_block_has_its_own_reads():
    part = kl()
    with noting_reads() as outer:
        with noting_reads() as inner:
            _ = part.unit
        _ = part.free_bits
    assert (id(part), "unit") in inner
    assert (id(part), "free_bits") in outer


def test_blocks_in_threads_wait_for_each_other_and_leave_nothing_behind():
    plain, part, entered = Component.__getattribute__, kl(), threading.Event()
    seen = {}

    def other():
        with noting_reads() as reads:
            entered.set()
            _ = part.unit
        seen.update(reads=reads)

    thread = threading.Thread(target=other)
    with noting_reads() as reads:
        thread.start()
        assert not entered.wait(0.2)
        _ = part.free_bits
    thread.join()
    assert (id(part), "free_bits") in reads
    assert (id(part), "unit") in seen["reads"]
    assert Component.__getattribute__ is plain
