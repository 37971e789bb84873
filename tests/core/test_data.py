"""The image store and the order of pictures."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

import vgx
from vgx.data import Batches, as_images, open_store, peek
from vgx.errors import DataError

SPEC = vgx.ImageSpec(size=4)
CPU = torch.device("cpu")


class Pictures:
    """A source of plain colours; every fifth is left out, by a reason of its own."""

    def __init__(self, n=12, fingerprint="plain-1", bad=None):
        self.n, self.fingerprint, self.bad = n, fingerprint, bad
        self.asked = Counter()

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.asked[index] += 1
        if index == self.bad:
            raise ValueError("torn file")
        if index % 5 == 4:
            raise vgx.Dropped("fifth")
        return Image.new("RGB", (8, 6), (index, 2 * index, 255 - index))


def test_pictures_are_decoded_once():
    first, second = Pictures(), Pictures()
    store = open_store(first, SPEC)
    assert (store.images.shape, store.images.dtype) == ((10, 4, 4, 3), np.uint8)
    assert store.images[4, 0, 0].tolist() == [5, 10, 250]  # picture 4 was left out
    assert store.dropped == {"fifth": 2}
    assert store.summary() == "10 pictures kept, 2 dropped (2 fifth)"
    again = open_store(second, SPEC)
    assert not second.asked
    assert (again.images == store.images).all()
    assert (again.content, again.dropped) == (store.content, store.dropped)


@pytest.mark.parametrize(
    ("source", "spec"),
    [
        (Pictures(fingerprint="plain-2"), SPEC),
        (Pictures(), vgx.ImageSpec(size=5)),
        (Pictures(), vgx.ImageSpec(size=4, channels=1)),
    ],
    ids=["data", "size", "channels"],
)
def test_what_changes_the_pictures_has_a_store_of_its_own(source, spec):
    open_store(Pictures(), SPEC)
    store = open_store(source, spec)
    assert len(source.asked) == 12
    assert store.images.shape == (10, spec.size, spec.size, spec.channels)


def test_progress_counts_every_picture():
    told = []
    open_store(Pictures(), SPEC, told.append)
    assert sum(told) == 12


def test_a_bad_picture_is_named_and_nothing_half_stays():
    with pytest.raises(DataError, match="picture 7 cannot be read: ValueError: torn file"):
        open_store(Pictures(bad=7), SPEC)
    folder = vgx.cache_dir() / "images"
    assert list(folder.iterdir()) == []


def test_no_usable_picture_is_said():
    class Nothing(Pictures):
        def __getitem__(self, index):
            raise vgx.Dropped("greyscale")

    with pytest.raises(DataError, match="none of 12 pictures is usable.*greyscale"):
        open_store(Nothing(), SPEC)


def test_a_first_look_needs_no_store():
    source = Pictures()
    assert peek(source, SPEC, 5)[4, 0, 0].tolist() == [5, 10, 250]
    assert max(source.asked) == 5
    with pytest.raises(DataError, match="only 10 usable pictures of 12"):
        peek(source, SPEC, 11)


def test_every_picture_comes_once_an_epoch_in_an_order_of_its_own():
    images = open_store(Pictures(23), SPEC).images  # 19 stay: 4, 9, 14 and 19 are left out
    batches = Batches(images, 4, seed=0, device=CPU)
    assert batches.per_epoch == 4
    epochs = [
        np.concatenate([batches.rows(4 * epoch + place) for place in range(4)])
        for epoch in range(3)
    ]
    for rows in epochs:
        assert len(set(rows.tolist())) == 16
    assert not (epochs[0] == epochs[1]).all()
    # A number says all: no minibatch needs the ones before it.
    fresh = Batches(images, 4, seed=0, device=CPU)
    assert (fresh.rows(9) == batches.rows(9)).all()
    assert not (Batches(images, 4, seed=1, device=CPU).rows(9) == batches.rows(9)).all()


def test_a_minibatch_is_images_between_zero_and_one():
    images = open_store(Pictures(), SPEC).images
    batches = Batches(images, 10, seed=0, device=CPU)
    batch = batches[0]
    assert batch.shape == (10, 3, 4, 4)
    row = batches.rows(0)[0]
    assert torch.equal(batch[0, :, 0, 0] * 255, torch.tensor(images[row, 0, 0]).float())
    assert as_images(np.full((1, 4, 4, 3), 255, np.uint8), CPU).max() == 1


def test_too_few_pictures_for_a_minibatch_are_said():
    with pytest.raises(DataError, match=r"10 pictures don't fill one minibatch.*train\.batch"):
        Batches(open_store(Pictures(), SPEC).images, 11, 0, CPU)
