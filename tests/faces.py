"""Faces that tests train on are drawn once in a process, and not again by each of its tests.

A face is a function of its seed, its number and its size, which tests/plugins/test_drawn_faces.py
shows of the function itself. To draw the images of a tiny recipe takes as long as its training.
"""

from __future__ import annotations

from functools import lru_cache


def remember():
    """Have the data set `drawn-faces` keep what it drew."""
    from vgx_builtin.datasets import drawn_faces

    drawn = lru_cache(8192)(drawn_faces.draw_face)
    drawn_faces.draw_face = lambda *asked: drawn(*asked).copy()


def draw_tiny():
    """Draw the images of recipes/tiny.yaml, for the processes that are forked from this one."""
    from vgx_builtin.datasets.drawn_faces import DrawnFacesSource

    for number in range(64):
        DrawnFacesSource(seed=0, count=64, height=16, width=16)[number]
