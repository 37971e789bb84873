"""Short forms for tests that drive an engine by hand."""

from __future__ import annotations

from vgx.data.batches import Batch

TIMES = ("seconds", "images_per_second")  # of a line of the log: not the same twice


def batches(*images, labels=None):
    """Minibatches of images [B, C, H, W], with the same labels [B] in each."""
    return [Batch(each, labels) for each in images]


def forward(engine, number, images, address=(), labels=None, *, train_generator=True):
    """The step of one forward pass; its random numbers are keyed by `address`."""
    return engine.forward(
        Batch(images, labels), number, engine.streams(*address), train_generator=train_generator
    )
