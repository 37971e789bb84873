"""Streamed images: decoded when they are needed, kept while there is room, replaced by a rule."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
import weakref
from collections import Counter
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vgx
from vgx.console import Console
from vgx.data import stream
from vgx.data.batches import Batches
from vgx.data.opening import encoded_hashes, open_stream
from vgx.data.split import held_out
from vgx.data.stream import StreamedImages, StreamedLabels
from vgx.testing.processes import in_processes

SPEC = vgx.ImageSpec(size=4)
CPU = torch.device("cpu")
WHOLE_IMAGE = 4 * 4 * 3  # bytes


def colour(row):
    return row % 251, row * 7 % 251, 255 - row % 199


class Group:
    """Plain colours by row, as PNG files; some rows are left out, some are torn."""

    def __init__(self, source, first, count):
        self.source, self.first, self.count, self.fingerprint = source, first, count, ""

    def __len__(self):
        return self.count

    def encoded(self, index):
        file = io.BytesIO()
        Image.new("RGB", (4, 4), colour(self.first + index)).save(file, "PNG")
        return file.getvalue()

    def __getitem__(self, index):
        row = self.first + index
        self.source.decoded[row] += 1
        if row in self.source.bad:
            raise vgx.DataError(f"row {row}: torn")
        if row in self.source.grey:
            raise vgx.Dropped("greyscale")
        return Image.open(io.BytesIO(self.encoded(index)))


class Stream:
    revision = ""

    def __init__(self, groups, bad=(), grey=(), group_bytes=1000):
        self.groups, self.bad, self.grey, self.group_bytes = (
            groups,
            set(bad),
            set(grey),
            group_bytes,
        )
        self.fingerprint = f"stream-{groups}"
        self.decoded, self.reads = Counter(), Counter()
        self.alive, self.lock = weakref.WeakSet(), threading.Lock()
        self.most = 0  # groups in memory at one time
        self.fails = {}

    def __len__(self):
        return sum(self.groups)

    def __getitem__(self, index):
        number = int(np.searchsorted(np.cumsum(self.groups), index, "right"))
        group = self.group(number)
        return group[index - group.first]

    def group(self, number):
        if number in self.fails:
            raise self.fails[number]
        group = Group(self, [0, *accumulate(self.groups)][number], self.groups[number])
        with self.lock:
            self.reads[number] += 1
            self.alive.add(group)
            self.most = max(self.most, len(self.alive))
        return group


class Labels(Stream):
    def label(self, index):
        return index % 3


def opened(source, **more):
    return StreamedImages(source, SPEC, **more)


def colours(images):
    assert images.shape[1:] == (4, 4, 3)
    assert (images == images[:, :1, :1]).all()
    return [tuple(image[0, 0].tolist()) for image in images]


def replaced(source, row, held=None):
    """The rule in other words: search the group from the row on, then the groups that follow."""
    edges = [0, *accumulate(source.groups)]
    number = next(n for n in range(len(source.groups)) if edges[n] <= row < edges[n + 1])
    own = list(range(edges[number], edges[number + 1]))
    candidates = own[row - edges[number] :] + own[: row - edges[number]]
    for other in range(1, len(source.groups)):
        after = (number + other) % len(source.groups)
        candidates += range(edges[after], edges[after + 1])
    side = [each for each in candidates if held is None or held[each] == held[row]]
    return next(each for each in side if each not in source.bad | source.grey)


GROUPS = st.one_of(
    st.lists(st.integers(1, 7), min_size=1, max_size=12),
    st.integers(1, 20).map(lambda n: [1] * n),
    st.integers(1, 30).map(lambda n: [n]),
)


@given(GROUPS, st.sampled_from([0, 3, 1000]), st.data())
def test_the_images_are_those_of_the_rows_whatever_was_read_before(groups, room, data):
    total = sum(groups)
    rows = st.lists(st.integers(0, total - 1), min_size=1, max_size=12)
    bad = data.draw(st.sets(st.integers(0, total - 1), max_size=total - 1))
    source = Stream(groups, bad=bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE_MAX", f"{room * WHOLE_IMAGE}")
        images = opened(source, max_bad=1.0)
        for read in data.draw(st.lists(rows, min_size=1, max_size=4)):
            expected = [colour(replaced(source, row)) for row in read]
            assert colours(images[np.array(read)]) == expected
        last = data.draw(st.integers(1, total))
        images.expect(np.arange(total))
        expected = [colour(replaced(source, row)) for row in range(last)]
        assert colours(images[:last]) == expected


@given(GROUPS.filter(lambda groups: sum(groups) > 5), st.data())
def test_an_image_is_replaced_by_one_on_its_own_side(groups, data):
    total = sum(groups)
    held = np.arange(total) % 3 == 0
    bad = data.draw(st.sets(st.integers(2, total - 1), max_size=total - 3)) - {1}
    source = Stream(groups, bad=bad)
    images = opened(source, held=held, max_bad=1.0)
    stood = images.standing(np.arange(total))
    assert stood.tolist() == [replaced(source, row, held) for row in range(total)]
    assert (held[stood] == held).all()


def test_a_second_epoch_decodes_nothing_when_there_is_room():
    source = Stream([10] * 6)
    batches = Batches(opened(source), 10, 0, CPU)
    first = [batches[number].images for number in range(6)]
    before = source.decoded.copy()
    again = [batches[number].images for number in range(6, 12)]
    # One image is decoded twice, to see how much room an image takes.
    assert sum(source.decoded.values()) == 61
    assert source.decoded == before
    assert sorted(torch.cat(first).flatten(1).tolist()) == sorted(
        torch.cat(again).flatten(1).tolist()
    )


def test_only_what_fits_is_kept(monkeypatch):
    monkeypatch.setenv("VGX_CACHE_MAX", f"{20 * WHOLE_IMAGE}")
    source = Stream([10] * 6)
    images = opened(source)
    for _ in range(3):
        for start in range(0, 60, 10):
            images[np.arange(start, start + 10)]
    # 20 stay after the first time, the other 40 are decoded each time.
    assert Counter(source.decoded.values()) == {1: 19, 2: 1, 3: 40}


def test_nothing_is_left_in_the_cache(tmp_path):
    images = opened(Stream([5, 5]))
    images[np.arange(10)]
    assert images._spill.taken == 10
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


def test_a_full_disk_ends_the_keeping_not_the_training(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = Stream([5, 5])
    images = opened(source)
    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        assert colours(images[np.arange(10)]) == [colour(row) for row in range(10)]
    assert min(source.decoded[row] for row in range(10)) == 2


@pytest.mark.parametrize(("group_bytes", "width"), [(1, 8), (2**24, 8), (2**25, 4), (2**30, 1)])
def test_a_window_is_bounded_by_bytes(group_bytes, width):
    assert stream.width(Stream([1], group_bytes=group_bytes)) == width


@pytest.mark.parametrize("group_bytes", [2**27, 2**26, 1])
def test_two_windows_are_in_memory_at_most(monkeypatch, group_bytes):
    monkeypatch.setenv("VGX_CACHE_MAX", "0")
    source = Stream([16] * 40, group_bytes=group_bytes)
    batches = Batches(opened(source), 8, 0, CPU)
    for number in range(batches.per_epoch):
        batches[number]
    width = stream.width(source)
    # Those that are being decoded, or were just pushed out, are held a little longer.
    assert source.most <= 2 * width + 2 * (os.cpu_count() or 1)


def test_each_group_is_read_once_in_an_epoch(monkeypatch):
    monkeypatch.setenv("VGX_CACHE_MAX", "0")
    source = Stream([16] * 40)
    batches = Batches(opened(source), 8, 0, CPU)
    for number in range(batches.per_epoch):
        batches[number]
    assert max(source.reads.values()) <= 2  # one for the kind of its images; 8 of the next epoch
    assert sum(source.reads.values()) <= 40 + 1 + 8


def test_four_readers_give_the_minibatches_of_one():
    one = Batches(opened(Stream([7] * 9)), 12, 3, CPU)
    readers = [Batches(opened(Stream([7] * 9)), 12, 3, CPU) for _ in range(4)]
    for number in (7, 0, 3):
        whole = one[number].images
        for rank, reader in enumerate(readers):
            rows = reader.rows(number)[rank::4]
            mine = torch.from_numpy(reader.images[rows]).permute(0, 3, 1, 2) / 255
            assert torch.equal(mine, whole[rank::4])


def test_labels_go_with_the_images_that_stand_for_others():
    source = Labels([5, 5], bad=[3], grey=[7])
    images = opened(source, max_bad=1.0)
    labels = StreamedLabels(images, np.arange(10) % 3)
    assert labels[np.array([2, 3, 7, 9])].tolist() == [2, 4 % 3, 8 % 3, 0]
    assert np.bincount(labels).tolist() == [4, 3, 3]


def test_unusable_images_are_told_once():
    source = Stream([10], bad=[3], grey=[5, 6])
    images = opened(source, max_bad=0.5)
    assert images.news() == []
    images[np.arange(10)]
    (line,) = images.news()
    assert "2 greyscale, 1 unreadable (row 3: torn)" in line
    assert images.news() == []


def test_the_first_unreadable_image_ends_the_program_unless_they_are_skipped():
    with pytest.raises(
        vgx.DataError, match=r"(?s)1 of 10 images .*row 3: torn.*--set dataset.on_bad=skip"
    ):
        opened(Stream([10], bad=[3]))[np.arange(10)]


def test_too_many_unreadable_images_end_the_program_with_their_names():
    images = opened(Stream([10] * 10, bad=[3, 4, 5]), max_bad=0.02)
    with pytest.raises(
        vgx.DataError, match=r"(?s)3 of 100 .*max_bad=0.02 allows 2:\n  row 3: torn\n  row 4"
    ):
        images[np.arange(10)]


def test_a_source_without_a_usable_image_says_so():
    with pytest.raises(vgx.DataError, match="none of 6 images is usable: 6 greyscale"):
        opened(Stream([3, 3], grey=range(6)))[np.arange(6)]


def test_a_group_that_cannot_be_read_is_tried_again_when_it_is_asked_for():
    source = Stream([4, 4])
    images = opened(source)
    images[np.arange(4)]
    source.fails[1] = vgx.HubError("the hub is silent")
    for _ in range(2):
        with pytest.raises(vgx.HubError, match="silent"):
            images[np.arange(4, 8)]
    del source.fails[1]
    assert colours(images[np.arange(4, 8)]) == [colour(row) for row in range(4, 8)]


def test_what_is_waited_for_is_told(monkeypatch):
    messages = []
    monkeypatch.setattr(stream, "SLOW", 0.05)
    source = Stream([4])
    whole = source.group
    monkeypatch.setattr(source, "group", lambda number: (time.sleep(0.3), whole(number))[1])
    opened(source, report=messages.append)[np.arange(4)]
    assert messages[0].startswith("Waiting for images")


def test_a_sample_is_of_few_groups():
    source = Stream([10] * 100)
    images = opened(source)
    few, first = images.spread(np.arange(1000), 64), images.first(np.arange(1000), 40)
    assert len(few) == 64
    assert len(set((few // 10).tolist())) <= 8
    assert (len(first), len(set((first // 10).tolist()))) == (40, 4)
    assert (
        images.spread(np.arange(1000), 999).tolist()
        == np.linspace(0, 999, 999).astype(int).tolist()
    )
    assert opened(Stream([1] * 30)).spread(np.arange(30), 20).size == 20


# --- the pass over all bytes -------------------------------------------------------------------


def test_hashes_are_those_of_the_bytes_and_kept(tmp_path):
    source = Stream([5, 7])
    hashes = encoded_hashes(source)
    assert hashes.tolist() == [vgx_hash(Group(source, 0, 12).encoded(row)) for row in range(12)]
    reads = source.reads.total()
    assert encoded_hashes(source).tolist() == hashes.tolist()
    assert source.reads.total() == reads
    (file,) = (tmp_path / "cache" / "streams").iterdir()
    assert file.stat().st_size == 12 * 8 + 32
    for damage in (b"x", file.read_bytes()[:-1], bytes(128)):
        file.write_bytes(damage)
        with pytest.warns(vgx.Notice, match="all images are read again"):
            assert encoded_hashes(source).tolist() == hashes.tolist()


def test_the_hashes_can_be_removed_from_the_cache():
    from vgx.data import cache

    encoded_hashes(Stream([5, 7]))
    (kept,) = cache.content()
    assert kept.line == "hashes of streamed images: 0.0 MB"
    assert cache.remove() == [kept]
    assert cache.content() == []


def vgx_hash(data):
    import hashlib

    return int.from_bytes(hashlib.blake2b(data).digest()[:8], "little")


def test_without_a_holdout_nothing_is_read_at_the_opening():
    source = Stream([5, 7])
    store = open_stream(source, SPEC, Console())
    assert source.reads.total() == 0
    assert not held_out(store.hashes, 0.0).any()


def test_held_out_images_are_in_no_minibatch():
    source = Stream([20] * 10)
    store = open_stream(source, SPEC, Console(), holdout=0.2)
    held = held_out(store.hashes, 0.2)
    batches = Batches(store.images, 16, 0, CPU, rows=np.flatnonzero(~held))
    seen = np.concatenate([batches.rows(number) for number in range(batches.per_epoch)])
    assert not held[seen].any()
    assert batches.per_epoch == (~held).sum() // 16


def test_the_content_is_that_of_the_fingerprint():
    one, two = (open_stream(Stream(groups), SPEC, Console()).content for groups in ([5], [6]))
    assert one != two
    assert open_stream(Stream([5]), SPEC, Console()).content == one


class Asked(StreamedImages):
    """A stream of grey images that notes which are asked for ahead."""

    ahead = 16

    def __init__(self):
        self.source = SimpleNamespace(groups=[12, 12])
        self.width, self.expected = 2, []

    def expect(self, rows):
        self.expected += rows.tolist()

    def expect_groups(self, groups):
        pass

    def __getitem__(self, rows):
        return np.zeros((len(rows), 2, 2, 3), np.uint8)


def test_each_process_decodes_its_own_images_alone():
    def expected():
        images = Asked()
        batches = Batches(images, 8, 0, torch.device("cpu"))
        batches.shared(0, 2)
        return images.expected, [batches.rows(n).tolist() for n in range(3)]

    found = in_processes(2, expected)
    first, second, third = found[0][1]
    for rank, (rows, _) in enumerate(found):
        cut = slice(2 * rank, 2 * rank + 2), slice(4 + 2 * rank, 6 + 2 * rank)  # of two pieces
        assert rows == [
            row for batch in (first, second, third) for part in cut for row in batch[part]
        ]
