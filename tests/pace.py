"""Bars in seconds are for a processor of its own; on one that others slow down they are longer."""

from __future__ import annotations

import time

ADDED, REFERENCE = 15_000_000, 0.5  # numbers, and the seconds in which a core of its own adds them


def within(seconds, bar):
    """Return whether something took at most `bar` seconds, or as many times more as all does now.

    So a machine that is busy, or slow, makes no test fail, and a cost that grows does.
    """
    if seconds <= bar:
        return True
    start, total = time.process_time(), 0
    for number in range(ADDED):
        total += number
    return seconds <= bar * (time.process_time() - start) / REFERENCE
