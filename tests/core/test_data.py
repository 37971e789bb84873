"""The image store and the order of pictures."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

import vgx
from vgx import rng
from vgx.data import cache, sums
from vgx.data import store as data
from vgx.data.batches import Batch, Batches, as_batch, as_images
from vgx.data.peek import check_labels, peek
from vgx.data.pieces import decode_all
from vgx.data.store import cached, open_source, open_store
from vgx.data.unusable import share
from vgx.errors import DataError, StorageError

SPEC = vgx.ImageSpec(size=4)
CPU = torch.device("cpu")


class Pictures:
    """A source of plain colours; every fifth is left out, by a reason of its own."""

    def __init__(self, n=12, fingerprint="plain-1", bad=()):
        self.n, self.fingerprint, self.bad = n, fingerprint, bad
        self.reads = Counter()

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.reads[index] += 1
        if index in self.bad:
            raise ValueError("torn file")
        if index % 5 == 4:
            raise vgx.Dropped("fifth")
        return Image.new("RGB", (8, 6), (index, 2 * index, 255 - index))


class Labelled(Pictures):
    def label(self, index):
        return index


def test_pictures_are_decoded_once():
    first, second = Pictures(), Pictures()
    store = open_store(first, SPEC)
    assert (store.images.shape, store.images.dtype) == ((10, 4, 4, 3), np.uint8)
    assert store.images[4, 0, 0].tolist() == [5, 10, 250]  # picture 4 was left out
    assert store.dropped == {"fifth": 2}
    assert store.summary() == "10 images kept, 2 dropped (2 fifth)"
    again = open_store(second, SPEC)
    assert not second.reads
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
    assert len(source.reads) == 12
    assert store.images.shape == (10, spec.size, spec.size, spec.channels)


def test_images_have_a_height_and_a_width():
    """Of 8 x 6 pixels in two halves, red above and blue below, 4 rows of 2 pixels are left."""
    both = Image.new("RGB", (8, 6), "red")
    both.paste((0, 0, 255), (0, 3, 8, 6))

    class Halves(Pictures):
        def __getitem__(self, index):
            return both if index % 2 else np.asarray(both)

    spec = vgx.ImageSpec(size=(4, 2))
    store = open_store(Halves(6), spec)
    assert store.images.shape == (6, 4, 2, 3)
    assert store.images[:, 0].tolist() == [[[255, 0, 0]] * 2] * 6
    assert store.images[:, 3].tolist() == [[[0, 0, 255]] * 2] * 6
    assert Batches(store.images, 2, 0, CPU)[0].images.shape == (2, 3, 4, 2)
    assert [each.pixels for each in cache.stores()] == ["4 x 2 x 3"]
    assert open_store(Halves(6), vgx.ImageSpec(size=(2, 4))).images.shape == (6, 2, 4, 3)


class Lazy:
    """Images that are no array: each float is made when its row is asked for."""

    shape, nbytes = (12, 1, 2, 3), 12 * 6 * 4

    def __len__(self):
        return 12

    def __getitem__(self, rows):
        chosen = np.arange(12, dtype=np.float32)[rows, None, None, None] / 12
        return np.broadcast_to(chosen, (len(chosen), 1, 2, 3)).copy()


@pytest.mark.parametrize("resident", [False, True])
def test_images_may_be_anything_that_gives_rows(resident):
    batches = Batches(Lazy(), 4, 0, CPU)
    if resident:
        batches.reside()
    rows, images = batches.rows(1), batches[1].images
    assert images.shape == (4, 3, 1, 2)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[:, 0, 0, 0], torch.from_numpy(rows.astype(np.float32) / 12))
    assert as_images(Lazy()[:3], CPU)[2].unique().tolist() == pytest.approx([2 / 12])


def test_progress_counts_every_picture():
    counts, labels = [], []

    def watch(*label):
        labels.append(label)
        return nullcontext(counts.append)

    open_store(Pictures(), SPEC, watch)
    assert sum(counts) == 12
    assert labels == [("Preparing", 12)]


def test_a_machine_that_fails_leaves_nothing_half():
    class Failing(Pictures):
        def __getitem__(self, index):
            if index == 7:
                raise MemoryError
            return super().__getitem__(index)

    with pytest.raises(DataError, match="no fault of the image"):
        open_store(Failing(), SPEC)
    folder = vgx.cache_dir() / "images"
    assert list(folder.iterdir()) == []


# --- pictures that cannot be read --------------------------------------------------------------


def test_bad_pictures_are_left_out_counted_and_named_when_that_is_asked_for():
    store = open_store(Pictures(100, bad=[0, 7, 98]), SPEC, max_bad=0.03)
    assert (len(store.images), store.bad) == (77, 3)  # a fifth is dropped, by its own reason
    assert store.dropped == {"fifth": 20}
    assert store.named == tuple(
        f"image {index} cannot be read: ValueError: torn file" for index in (0, 7, 98)
    )
    assert store.summary() == f"77 images kept, 20 dropped (20 fifth), 3 unreadable ({bad(3)})"
    assert store.images[0, 0, 0, 0] == 1
    again = Pictures(100, bad=[0, 7, 98])
    assert open_store(again, SPEC, max_bad=0.03).named == store.named
    assert not again.reads


def bad(n):
    return "; ".join(f"image {i} cannot be read: ValueError: torn file" for i in (0, 7, 98)[:n])


def test_more_bad_pictures_than_are_allowed_end_the_program_and_the_next_try_is_quick():
    source = Pictures(100, bad=[0, 7, 98, 99])
    with pytest.raises(DataError) as caught:
        open_store(source, SPEC, max_bad=0.03)
    assert str(caught.value).splitlines() == [
        "4 of 100 images cannot be read, and dataset.max_bad=0.03 allows 3:",
        *(f"  image {index} cannot be read: ValueError: torn file" for index in (0, 7, 98, 99)),
        "To leave them out: --set dataset.max_bad=0.04",
    ]
    again = Pictures(100, bad=[0, 7, 98, 99])
    assert open_store(again, SPEC, max_bad=0.04).bad == 4
    assert not again.reads


def test_all_bad_pictures_are_named_not_the_first_alone():
    """The first is told at once, since reading the others may take long; and they are read once."""
    messages, source = [], Pictures(100, bad=range(0, 100, 9))
    with pytest.raises(DataError) as caught:
        open_store(source, SPEC, report=messages.append)
    assert len(messages) == 1
    text = "image 0 cannot be read: ValueError: torn file; the others are read"
    assert messages[0].startswith(text)
    lines = str(caught.value).splitlines()
    assert lines[0] == "12 of 100 images cannot be read:"
    assert [int(line.split()[1]) for line in lines[1:8]] == [0, 9, 18, 27, 36, 45, 54]
    (folder,) = (vgx.cache_dir() / "images").iterdir()
    assert lines[8:] == [
        f"  and 5 more; {folder}/store.json names 12",
        "To leave them out: --set dataset.on_bad=skip --set dataset.max_bad=0.12",
    ]
    named = json.loads((folder / "store.json").read_text())["named"]
    assert [int(line.split()[1]) for line in named] == list(range(0, 100, 9))
    again = Pictures(100, bad=range(0, 100, 9))
    assert open_store(again, SPEC, max_bad=0.12).bad == 12
    assert not again.reads


@pytest.mark.parametrize("total", [1, 2, 3, 7, 50, 99, 1000, 12_040, 10**6])
def test_the_share_in_the_message_allows_what_there_is_and_hardly_more(total):
    for part in {1, 2, total // 3 + 1, total // 2 + 1, total}:
        if part <= total:
            allowed = float(f"{share(part, total):g}")  # as it is printed
            assert part <= allowed * total <= max(1.11 * part, part + 1e-9)
            assert allowed <= 1


def test_where_no_picture_is_usable_the_counts_and_the_settings_are_told():
    class Odd(Pictures):
        def __getitem__(self, index):
            if index == 3:
                raise ValueError("torn")
            if index % 2:
                raise vgx.Dropped("greyscale", "a.b=c", "d=1")
            raise vgx.Dropped("with alpha", "a.b=c") if index else vgx.Dropped("blue")

    with pytest.raises(DataError) as caught:
        open_store(Odd(), SPEC)
    assert str(caught.value).splitlines() == [
        (
            "none of 12 images is usable: 1 blue, 5 greyscale, 5 with alpha, 1 unreadable (image 3 "
            "cannot be read: ValueError: torn)"
        ),
        "To use those that are greyscale: --set a.b=c, or --set d=1",
        "To use those that are with alpha: --set a.b=c",
    ]
    with pytest.raises(DataError, match="none of 3 of 12 images is usable: 2 gr.*\n.*--set a.b=c"):
        peek(Odd(), SPEC, 1, [1, 3, 5], skip_bad=True)


def test_a_store_made_for_who_allows_bad_pictures_is_refused_to_who_does_not():
    assert open_store(Pictures(bad=[7]), SPEC, max_bad=1).bad == 1
    with pytest.raises(DataError, match="(?s)image 7 cannot be read.*--set dataset.on_bad=skip"):
        open_store(Pictures(bad=[7]), SPEC)
    with pytest.raises(DataError, match="1 of 12 .* and dataset.max_bad=0 allows 0"):
        open_store(Pictures(bad=[7]), SPEC, max_bad=0)


def test_a_store_without_bad_pictures_serves_both():
    open_store(Pictures(), SPEC)
    source = Pictures()
    assert open_store(source, SPEC, max_bad=0).bad == 0
    assert not source.reads


def test_labels_stay_with_their_pictures_where_bad_ones_are_left_out():
    store = open_store(Labelled(bad=[0, 6]), vgx.ImageSpec(size=4, classes=12), max_bad=1)
    assert store.labels.tolist() == [1, 2, 3, 5, 7, 8, 10, 11]
    assert store.images[:, 0, 0, 0].tolist() == store.labels.tolist()


def test_a_wrong_label_is_told_before_all_is_decoded_unless_its_picture_is_left_out():
    class Wrong(Labelled):
        def label(self, index):
            return -1 if index in self.wrong else super().label(index)

    spec, source = vgx.ImageSpec(size=4, classes=12), Wrong(bad=[3])
    source.wrong = {3, 4}  # one cannot be read, and a fifth is left out
    check_labels(source, spec)
    assert set(source.reads) == {3, 4}
    source.wrong = {3, 4, 5}
    with pytest.raises(DataError, match="image 5 has the label -1; image.classes allows 0 to 11"):
        check_labels(source, spec)


def test_all_bad_is_said_and_no_store_is_made():
    with pytest.raises(DataError, match="none of 3 images is usable: 3 unreadable"):
        open_store(Pictures(3, bad=range(3)), SPEC, max_bad=1)
    assert list((vgx.cache_dir() / "images").iterdir()) == []


def test_names_are_kept_up_to_a_bound_and_the_count_is_exact(monkeypatch):
    monkeypatch.setattr(sums, "NAMED", 2)
    store = open_store(Pictures(bad=[0, 1, 2, 3]), SPEC, max_bad=1)
    assert (store.bad, len(store.named)) == (4, 2)


def test_a_first_look_passes_over_bad_pictures_only_where_they_may_be():
    source = Pictures(bad=[0, 1])
    assert peek(source, SPEC, 1, skip_bad=True).images[0, 0, 0].tolist() == [2, 4, 253]
    with pytest.raises(DataError, match="(?s)image 0 cannot be read.*on_bad=skip"):
        peek(source, SPEC, 1)


def test_a_data_set_says_what_may_be_bad():
    part = vgx.discover().part("dataset", "drawn-faces")
    assert part().tolerated is None
    assert part(on_bad="skip").tolerated == 0.01
    assert part(on_bad="skip", max_bad=0).tolerated == 0
    assert part(on_bad="error", max_bad=0.5).tolerated is None


# --- builders that die, and several at once ----------------------------------------------------

BUILDER = """
import time
from pathlib import Path
from contextlib import nullcontext
from PIL import Image
import vgx
from vgx.data.store import open_store

class Slow:
    fingerprint = "slow"
    def __len__(self):
        return 600
    def __getitem__(self, index):
        return Image.new("RGB", (8, 8), (index % 256, index // 256, 9))

def advance(n):
    global done
    done += n
    if {stops} and done - n < 300 <= done:
        Path("there").touch()
        while not Path("go on").exists():
            time.sleep(0.001)

def report(text):
    print(text, flush=True)

done = 0
watch = lambda *label: nullcontext(advance)
store = open_store(Slow(), vgx.ImageSpec(size=4), watch, report=report)
print(done, store.content)
raise SystemExit
"""
WAITING = "Another run decodes these images; waiting\n"


@pytest.fixture
def builder(forkserver, tmp_path):
    """Builders in processes of their own; one that is told to stop does so half-way."""

    def start(*, stops=False):
        made = forkserver.start(tmp_path, hook=BUILDER.replace("{stops}", str(stops)))
        if stops:
            made.wait_for(tmp_path / "there")
        return made

    return start


def waits(builder):
    """Wait until a builder says that it waits for another one."""
    deadline = time.monotonic() + 60
    while not builder.out.read_text().endswith("\n"):  # which is written on its own
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert builder.out.read_text() == WAITING


def ended(builder):
    builder.out.with_name("go on").touch()
    assert builder.wait() == 0, builder.err.read_text()
    done, content = builder.out.read_text().removeprefix(WAITING).split()
    return int(done), content


def test_a_builder_that_was_killed_leaves_nothing_in_the_way(builder):
    images = vgx.cache_dir() / "images"
    dying = builder(stops=True)
    dying.kill()
    dying.wait()
    (left,) = images.iterdir()
    assert left.name.startswith(".")
    assert not (left / "store.json").exists()
    done, content = ended(builder())
    assert done == 600
    (made,) = images.iterdir()  # and what was left is gone
    assert hashlib.sha256((made / "images.u8").read_bytes()).hexdigest() == content


def test_who_comes_second_waits_says_so_once_and_decodes_nothing(builder):
    first = builder(stops=True)
    second = builder()
    waits(second)
    assert second.kill(0)  # it is there
    done, content = ended(first)
    assert done == 600
    assert ended(second) == (0, content)


def test_when_the_first_dies_one_of_those_who_wait_builds_and_the_other_waits_for_it(builder):
    first = builder(stops=True)
    others = [builder(), builder()]
    for other in others:
        waits(other)
    first.kill()
    first.wait()
    (one, content), (two, same) = map(ended, others)
    assert sorted([one, two]) == [0, 600]
    assert content == same
    assert [path.name[0] for path in (vgx.cache_dir() / "images").iterdir()] != ["."]


def test_large_pictures_are_decoded_a_few_at_a_time(monkeypatch):
    """Not dozens by each thread: those of 4,096 pixels would be gigabytes."""

    class Plain(Pictures):
        def __getitem__(self, index):
            return Image.new("L", (1, 1))

    large = vgx.ImageSpec(size=4096, channels=1)  # 16 MiB each
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert [piece.count for piece in decode_all(Plain(10), large)] == [4, 4, 2]
    assert [piece.count for piece in decode_all(Plain(70), SPEC)] == [32, 32, 6]
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert [piece.count for piece in decode_all(Plain(3), large)] == [1, 1, 1]


def test_no_more_is_decoded_ahead_than_a_few_pieces(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    source = Pictures(1000)
    pieces = decode_all(source, SPEC)
    next(pieces)
    assert len(source.reads) <= 4 * 32
    assert sum(piece.count for piece in pieces) == 1000 - 32


def test_no_usable_picture_is_said():
    class Nothing(Pictures):
        def __getitem__(self, index):
            raise vgx.Dropped("greyscale")

    with pytest.raises(DataError, match="none of 12 images is usable.*greyscale"):
        open_store(Nothing(), SPEC)


def test_a_notice_says_how_to_keep_images_when_most_are_left_out():
    class Grey(Pictures):
        def __init__(self, kept):
            super().__init__()
            self.kept, self.fingerprint = kept, f"grey {kept}"

        def __getitem__(self, index):
            if index >= self.kept:
                raise vgx.Dropped("greyscale", "a.b=1")
            return Image.new("RGB", (8, 8), (index, 0, 0))

    message = "only 5 of 12 images are used: 7 greyscale\nTo use those that are grey.*: --set a.b=1"
    with pytest.warns(vgx.Notice, match=message):
        open_store(Grey(5), SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_store(Grey(6), SPEC)


def test_a_first_look_needs_no_store():
    source = Pictures()
    assert peek(source, SPEC, 5).images[4, 0, 0].tolist() == [5, 10, 250]
    assert max(source.reads) == 5
    assert len(peek(source, SPEC, 11).images) == 10  # as many as there are


def test_a_first_look_at_nothing_usable_is_said():
    class Nothing(Pictures):
        def __getitem__(self, index):
            raise vgx.Dropped("greyscale")

    with pytest.raises(DataError, match="none of 12 images is usable"):
        peek(Nothing(), SPEC, 1)


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


def test_only_the_pictures_that_are_asked_for_are_trained_on():
    images = open_store(Pictures(30), SPEC).images
    chosen = np.array([1, 3, 4, 7, 20, 22, 23])
    batches = Batches(images, 3, 0, CPU, labels=np.arange(24) * 10, rows=chosen)
    assert batches.per_epoch == 2
    for epoch in range(5):
        rows = np.concatenate([batches.rows(2 * epoch), batches.rows(2 * epoch + 1)])
        assert len(set(rows.tolist())) == 6
        assert set(rows.tolist()) <= set(chosen.tolist())
    assert batches[3].labels.tolist() == (batches.rows(3) * 10).tolist()
    assert torch.equal(batches[3].images, as_images(images[batches.rows(3)], CPU))
    with pytest.raises(DataError, match="7 images don't fill one minibatch of 8"):
        Batches(images, 8, 0, CPU, rows=chosen)


def test_all_pictures_are_trained_on_unless_some_are_chosen():
    images = open_store(Pictures(30), SPEC).images
    plain = Batches(images, 5, 3, CPU)
    # The keyed permutation itself.
    order = torch.randperm(24, generator=rng.generator(3, "order", 1)).tolist()
    assert plain.rows(5).tolist() == order[5:10]
    chosen = Batches(images, 5, 3, CPU, rows=np.arange(24))
    assert (chosen.rows(5) == plain.rows(5)).all()


def test_equal_pictures_have_equal_hashes():
    class Twins(Pictures):
        def __getitem__(self, index):
            return super().__getitem__([0, 1, 4, 2, 1, 0][index])

    store = open_store(Twins(6), SPEC)
    assert store.hashes.dtype == np.uint64
    # Worked out once more: 4 is left out.
    expected = [
        int.from_bytes(hashlib.blake2b(bytes([n, 2 * n, 255 - n] * 16)).digest()[:8], "little")
        for n in (0, 1, 2, 1, 0)
    ]
    assert store.hashes.tolist() == expected
    assert (open_store(Twins(6), SPEC).hashes == store.hashes).all()
    assert peek(Twins(6), SPEC, 3).hashes.tolist() == expected[:3]


def test_a_minibatch_is_images_between_zero_and_one():
    images = open_store(Pictures(), SPEC).images
    batches = Batches(images, 10, seed=0, device=CPU)
    batch = batches[0].images
    assert batch.shape == (10, 3, 4, 4)
    row = batches.rows(0)[0]
    assert torch.equal(batch[0, :, 0, 0] * 255, torch.tensor(images[row, 0, 0]).float())
    assert as_images(np.full((1, 4, 4, 3), 255, np.uint8), CPU).max() == 1


def test_a_batch_is_split_with_its_labels_as_torch_splits():
    images, labels = torch.rand(7, 3, 4, 4), torch.arange(7)
    pieces = Batch(images, labels).chunk(3)
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    assert torch.equal(torch.cat([piece.images for piece in pieces]), images)
    assert torch.equal(torch.cat([piece.labels for piece in pieces]), labels)
    plain = Batch(images[:4]).chunk(3)  # two of two, as torch.chunk has it
    assert [(len(piece), piece.labels) for piece in plain] == [(2, None), (2, None)]


def test_another_seed_gives_a_copy_in_another_order():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    first = Batches(images, 8, 0, CPU, labels=np.arange(20), rows=np.arange(3, 20))
    first.reside()
    before = first.rows(1).tolist()
    other = first.reseeded(5)
    fresh = Batches(images, 8, 5, CPU, labels=np.arange(20), rows=np.arange(3, 20))
    for number in range(5):
        assert torch.equal(other[number].images, fresh[number].images)
        assert torch.equal(other[number].labels, fresh[number].labels)
    assert other.resident is first.resident
    assert first.seed == 0
    assert before == first.rows(1).tolist() != other.rows(1).tolist()


def test_the_first_images_of_a_store_are_a_batch():
    store = open_store(Labelled(), vgx.ImageSpec(size=4, classes=12))
    batch = as_batch(store, 3, CPU)
    assert torch.equal(batch.images, as_images(store.images[:3], CPU))
    assert batch.labels.tolist() == store.labels[:3].tolist()
    assert as_batch(open_store(Pictures(), SPEC), 3, CPU).labels is None


# --- a store that is there already -------------------------------------------------------------


def test_a_store_is_found_in_the_cache_without_its_data_set():
    spec = vgx.ImageSpec(size=4, classes=100)
    store = open_store(Labelled(100, bad=[7]), spec, max_bad=1)
    again = cached(store.fingerprint, spec)
    assert (again.images == store.images).all()
    assert (again.hashes == store.hashes).all()
    assert (again.labels == store.labels).all()
    assert (again.content, again.fingerprint) == (store.content, store.fingerprint)
    assert (again.dropped, again.bad, again.named) == (store.dropped, store.bad, store.named)


def test_a_store_that_is_not_in_the_cache_is_none():
    assert cached("plain-1", SPEC) is None  # not even the cache is there
    store = open_store(Pictures(), SPEC)
    assert cached("plain-2", SPEC) is None
    for other in (vgx.ImageSpec(size=5), vgx.ImageSpec(size=4, classes=2)):
        assert cached(store.fingerprint, other) is None
    assert cached(store.fingerprint, SPEC).content == store.content


def test_a_store_from_the_cache_is_held_like_any_other():
    fingerprint = open_store(Pictures(), SPEC).fingerprint
    store = cached(fingerprint, SPEC)
    assert data.cache.remove() == []  # somebody has it open
    assert store.images[4, 0, 0].tolist() == [5, 10, 250]
    del store
    assert len(data.cache.remove()) == 1
    assert cached(fingerprint, SPEC) is None


def test_a_cache_that_cannot_be_read_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="file/images/.*Not a directory"):
        cached("plain-1", SPEC)


def test_too_few_pictures_for_a_minibatch_are_said():
    message = "10 images don't fill one minibatch of 11; lower train.batch to 10"
    with pytest.raises(DataError, match=message):
        Batches(open_store(Pictures(), SPEC).images, 11, 0, CPU)


def test_pictures_keep_their_order_however_many_there_are():
    """More than the 256 that are decoded at a time."""
    images = open_store(Pictures(600), vgx.ImageSpec(size=4, channels=1)).images
    kept = [index for index in range(600) if index % 5 != 4]
    # Drawn and turned grey by Pillow itself, one by one.
    expected = [
        Image.new("RGB", (1, 1), (index, 2 * index, 255 - index)).convert("L").getpixel((0, 0))
        for index in kept
    ]
    assert images[:, 0, 0, 0].tolist() == expected


def test_pictures_of_any_mode_become_the_recipes_channels():
    class Modes(Pictures):
        def __getitem__(self, index):
            return Image.new(["L", "RGB", "RGBA", "P", "1", "CMYK"][index], (5, 7), 0)

    for channels in (1, 3):
        store = open_store(Modes(6), vgx.ImageSpec(size=4, channels=channels))
        assert store.images.shape == (6, 4, 4, channels)


def test_a_picture_is_resized_as_pillow_does_it():
    class Gradient(Pictures):
        def __getitem__(self, index):
            row = np.arange(8, dtype=np.uint8) * 30
            return Image.fromarray(np.tile(row[None, :, None], (8, 1, 3)))

    images = open_store(Gradient(1), SPEC).images
    # Half the size: a triangle over four pixels, 1 3 3 1, cut off and made up for at the borders.
    # (3*0 + 3*30 + 1*60) / 7 = 21.4; inside (30 + 3*60 + 3*90 + 120) / 8 = 75; and so on.
    assert images[0, 0, :, 0].tolist() == [21, 75, 135, 189]


def test_the_store_cannot_be_written_to():
    images = open_store(Pictures(), SPEC).images
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_several_that_build_the_same_store_agree():
    sources = [Pictures() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda source: open_store(source, SPEC), sources))
    assert len({store.content for store in stores}) == 1
    assert all((store.images == stores[0].images).all() for store in stores)
    assert len(list((vgx.cache_dir() / "images").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="file/images/.*Not a directory"):
        open_store(Pictures(), SPEC)


def test_a_full_disk_is_said_with_what_the_store_takes_and_leaves_nothing(monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = r"images/\w+: No space left on device \(it takes up to 1 MiB; VGX_CACHE says where\)"
    with pytest.raises(StorageError, match=message):
        open_store(Pictures(6000), vgx.ImageSpec(size=8))
    assert list((vgx.cache_dir() / "images").iterdir()) == []


def test_another_way_of_resizing_would_have_a_store_of_its_own(monkeypatch):
    open_store(Pictures(), SPEC)
    monkeypatch.setattr(data, "POLICY", "another")
    source = Pictures()
    open_store(source, SPEC)
    assert len(source.reads) == 12


def test_reasons_are_counted_apart_and_told_in_their_order():
    class Choosy(Pictures):
        def __getitem__(self, index):
            if index < 5:
                raise vgx.Dropped("with alpha" if index < 3 else "greyscale")
            return Image.new("RGB", (4, 4))

    store = open_store(Choosy(1505), SPEC)
    assert store.dropped == {"greyscale": 2, "with alpha": 3}
    assert store.summary() == "1,500 images kept, 5 dropped (2 greyscale, 3 with alpha)"


def test_nothing_dropped_is_not_spoken_of():
    assert open_store(Pictures(3), SPEC).summary() == "3 images"


def test_what_a_dataset_has_to_say_is_kept_and_other_warnings_go_on():
    class Talkative:
        def build(self, image):
            warnings.warn("the fallback is drawn", vgx.Notice, stacklevel=1)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            return Pictures()

    with pytest.warns(DeprecationWarning, match="old"):
        source, notices = open_source(Talkative(), SPEC)
    assert notices == ["the fallback is drawn"]
    assert len(source) == 12


def test_the_order_is_what_it_always_was():
    # Computed once: another order would make every stored run unrepeatable.
    rows = Batches(np.zeros((5, 1, 1, 3), np.uint8), 2, seed=0, device=CPU)
    assert [rows.rows(number).tolist() for number in range(4)] == [[2, 4], [1, 0], [0, 1], [4, 2]]


def test_over_the_epochs_every_picture_has_its_turn():
    """Of 5 pictures in minibatches of 2, one sits out in each epoch, not always the same."""
    batches = Batches(np.zeros((5, 1, 1, 3), np.uint8), 2, seed=0, device=CPU)
    seen = [
        {row for place in range(2) for row in batches.rows(2 * epoch + place).tolist()}
        for epoch in range(20)
    ]
    assert {len(rows) for rows in seen} == {4}
    assert len({frozenset(rows) for rows in seen}) == 5


def test_pictures_on_the_device_make_the_same_minibatches(monkeypatch):
    monkeypatch.setattr("vgx.data.batches.READ", 7)
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    here, there = (Batches(images, 8, 0, torch.device("cpu")) for _ in range(2))
    there.reside()
    assert all(torch.equal(here[number].images, there[number].images) for number in range(5))
    assert there[0].images.is_contiguous(memory_format=torch.channels_last)
