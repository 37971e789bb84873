"""Damage of stores: what is noticed, what it costs, and what happens then."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx.console import Console
from vgx.data import cache, sums
from vgx.data.store import cached, open_store, watched_on
from vgx.errors import Notice, StorageError

SPEC = vgx.ImageSpec(size=4, classes=12)
FILES = ("images.u8", "hashes.u64", "labels.i64", "store.json")
DAMAGED = "damaged: .*; its images are decoded again"


class Colours:
    """Twelve images of one colour each, with labels."""

    fingerprint = "colours"

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.reads += 1
        return Image.new("RGB", (4, 4), (index, 2 * index, 255 - index))

    def label(self, index):
        return 11 - index


def expected():
    """The bytes of the images, worked out here."""
    return b"".join(bytes((index, 2 * index, 255 - index)) * 16 for index in range(12))


def right(store):
    """Whether a store holds what its source gives."""
    assert store.images.tobytes() == expected()
    assert store.labels.tolist() == list(range(11, -1, -1))
    hashes = [
        hashlib.blake2b(bytes((index, 2 * index, 255 - index)) * 16).digest()[:8]
        for index in range(12)
    ]
    assert store.hashes.tobytes() == b"".join(hashes)
    labels = np.arange(11, -1, -1).astype("<i8").tobytes()
    assert store.content == hashlib.sha256(expected() + labels).hexdigest()


@pytest.fixture
def folder(monkeypatch):
    """A store that was made and verified, and that nobody has open."""
    monkeypatch.setattr(sums, "SETTLED", -1.0)  # its files are as old as they need to be
    right(open_store(Colours(), SPEC))
    (made,) = cache.folder().iterdir()
    return made


@pytest.fixture
def hashed(monkeypatch):
    """The images that are hashed, by count; each time that some are."""
    counts = []
    piece = sums._piece
    monkeypatch.setattr(sums, "_piece", lambda *a: counts.append(a[1] // 48) or piece(*a))
    return counts


def flip(file, place, bit):
    """Change one bit, and put the times of the file back."""
    status, data = file.stat(), bytearray(file.read_bytes())
    data[place % len(data)] ^= 1 << bit
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def rebuilt():
    """Open the store: it is damaged, and is made again."""
    source = Colours()
    with pytest.warns(Notice, match=DAMAGED) as notices:
        right(open_store(source, SPEC))
    assert source.reads == 12
    right(open_store(source, SPEC))  # and is whole afterwards
    assert source.reads == 12
    return str(notices[0].message)


@pytest.mark.bar("D3")
@pytest.mark.parametrize("file", FILES)
def test_any_bit_of_any_file_is_noticed_and_the_store_is_made_again(folder, file):
    generator = random.Random(file)
    for _ in range(8):
        flip(folder / file, generator.randrange(2**20), generator.randrange(8))
        assert f"{folder}: damaged: {file}" in rebuilt()


@pytest.mark.bar("D3")
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["shorter", "longer", "empty", "gone", "pipe", "folder", "circle"])
def test_a_file_that_is_not_as_it_was_is_noticed(folder, file, how):
    path = folder / file
    data = path.read_bytes()
    path.unlink()
    if how in ("shorter", "longer", "empty"):
        path.write_bytes({"shorter": data[:-1], "longer": data + b"\0", "empty": b""}[how])
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "circle":
        path.symlink_to(path)
    assert file in rebuilt()


ABOUT = {
    "list": lambda about: [about],
    "text": lambda about: "x",
    "none": lambda about: None,
    "missing": lambda about: {key: about[key] for key in about if key != "count"},
    "more": lambda about: {**about, "odd": 1},
    "negative": lambda about: {**about, "count": -1},
    "nothing": lambda about: {**about, "count": 0},
    "huge": lambda about: {**about, "count": 10**18},
    "fewer": lambda about: {**about, "count": 11},
    "fraction": lambda about: {**about, "count": 12.0},
    "true": lambda about: {**about, "bad": True},
    "infinite": lambda about: {**about, "bad": float("inf")},
    "names": lambda about: {**about, "named": {"a": 1}},
    "number": lambda about: {**about, "named": [1]},
    "reasons": lambda about: {**about, "dropped": []},
    "reason": lambda about: {**about, "dropped": {"a": "b"}},
    "sum": lambda about: {**about, "sha256": 3},
    "sums": lambda about: {**about, "sums": {"images.u8": "0"}},
    "no sums": lambda about: {**about, "sums": None},
    "smaller": lambda about: {**about, "size": 2, "count": 48},  # as many bytes
    "greyscale": lambda about: {**about, "channels": 1, "count": 36},
    "elsewhere": lambda about: {**about, "address": "0" * 32},
}


@pytest.mark.parametrize("change", ABOUT)
@pytest.mark.parametrize("signed", [False, True])
def test_an_odd_description_is_damage_with_a_right_sum_too(folder, change, signed):
    about = json.loads((folder / "store.json").read_text())
    own = about.pop("own")
    about = ABOUT[change](about)
    if isinstance(about, dict):
        text = json.dumps(about, indent=1)
        about["own"] = hashlib.sha256(text.encode()).hexdigest() if signed else own
    (folder / "store.json").write_text(json.dumps(about, indent=1))
    rebuilt()


@pytest.mark.parametrize("data", [b"[" * 10**6, b"\xff\xfe", b"", b"9" * 5000, b"{}"])
def test_a_description_that_is_no_json_is_damage(folder, data):
    (folder / "store.json").write_bytes(data)
    assert "store.json is not as it was written" in rebuilt()


def test_a_huge_description_is_not_read(folder):
    os.truncate(folder / "store.json", 2**34)
    assert "17,179,869,184 bytes; at most" in rebuilt()


def test_nothing_outside_of_a_store_is_touched(folder, tmp_path):
    """By the time that says when a store was last opened."""
    (tmp_path / "theirs").write_text("theirs")
    os.utime(tmp_path / "theirs", (1, 1))
    (folder / "store.json").unlink()
    (folder / "store.json").symlink_to(tmp_path / "theirs")
    rebuilt()
    assert (tmp_path / "theirs").stat().st_mtime == 1
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_a_store_of_an_earlier_version_is_made_again(folder):
    """It had no sums of its other files, and none of the description."""
    about = json.loads((folder / "store.json").read_text())
    for new in ("own", "sums", "address"):
        del about[new]
    (folder / "store.json").write_text(json.dumps(about, indent=1))
    rebuilt()


def test_the_store_of_other_images_under_this_address_is_noticed(folder):
    class Others(Colours):
        fingerprint = "others"

        def __getitem__(self, index):
            return Image.new("RGB", (4, 4))

    open_store(Others(), SPEC)
    (other,) = {*cache.folder().iterdir()} - {folder}
    shutil.rmtree(folder)
    other.rename(folder)
    assert "store.json is that of another store" in rebuilt()


# --- what it costs -------------------------------------------------------------------------------


def test_images_are_hashed_once(folder, hashed):
    for _ in range(3):
        right(open_store(Colours(), SPEC))
        right(cached("colours", SPEC))
    assert hashed == []
    right(open_store(Colours(), SPEC, verify=True))
    assert hashed == [12]


@pytest.mark.parametrize("what", ["boot", "mode", "mtime", "copy", "link"])
def test_images_are_hashed_again_when_anything_about_them_changed(
    folder, hashed, what, monkeypatch, tmp_path
):
    images = folder / "images.u8"
    if what == "boot":
        (tmp_path / "boot").write_text("another\n")
        monkeypatch.setattr(sums, "BOOT", tmp_path / "boot")
    elif what == "mode":
        images.chmod(0o600)  # which changes the ctime alone
    elif what == "mtime":
        os.utime(images, (1, 1))
    elif what == "copy":
        shutil.copy2(images, tmp_path / "copy")
        (tmp_path / "copy").replace(images)
    else:
        images.rename(tmp_path / "moved")
        images.symlink_to(tmp_path / "moved")
    right(open_store(Colours(), SPEC))
    assert hashed == [12]
    right(open_store(Colours(), SPEC))
    assert hashed == [12]


def test_a_system_that_does_not_say_when_it_was_started_hashes_each_time(
    folder, hashed, monkeypatch
):
    monkeypatch.setattr(sums, "BOOT", Path("/nowhere/boot"))
    for count in (1, 2):
        right(open_store(Colours(), SPEC))
        assert hashed == [12] * count


@pytest.mark.parametrize("how", ["pipe", "folder", "circle", "bytes", "empty", "huge", "zero"])
def test_a_stamp_that_is_none_costs_a_look_and_no_more(folder, hashed, how, tmp_path):
    (stamp,) = (vgx.cache_dir() / "verified").iterdir()
    right_one = stamp.read_bytes()
    stamp.unlink()
    if how == "pipe":
        os.mkfifo(stamp)
    elif how == "folder":
        stamp.mkdir()
    elif how == "circle":
        stamp.symlink_to(stamp)
    elif how == "zero":
        stamp.symlink_to("/dev/zero")
    elif how == "huge":
        stamp.touch()
        os.truncate(stamp, 2**33)
    else:
        stamp.write_bytes(b"\xff" * 300 if how == "bytes" else b"")
    right(open_store(Colours(), SPEC))
    assert hashed == [12]
    if how != "folder":
        assert stamp.read_bytes() == right_one
        assert not stamp.is_symlink()


def test_every_bit_of_a_stamp_counts(folder, hashed):
    (stamp,) = (vgx.cache_dir() / "verified").iterdir()
    size = stamp.stat().st_size
    for place in range(size):
        flip(stamp, place, place % 8)
        open_store(Colours(), SPEC)
    assert len(hashed) == size


def test_a_change_just_after_another_one_is_not_taken_for_none(folder, hashed, monkeypatch):
    """The clock of a file system has ticks: within one, the ctime stays the same."""
    monkeypatch.setattr(sums, "SETTLED", 1000.0)
    (folder / "images.u8").chmod(0o600)
    for count in (1, 2):  # nothing is noted
        open_store(Colours(), SPEC)
        assert hashed == [12] * count


def test_a_cache_that_cannot_be_written_is_hashed_each_time(folder, hashed, monkeypatch):
    (folder / "images.u8").chmod(0o600)

    def refuse(path, *_, **__):
        raise StorageError(f"{path}: Read-only file system")

    monkeypatch.setattr(sums, "replacing", refuse)
    for count in (1, 2):
        right(open_store(Colours(), SPEC))
        assert hashed == [12] * count


def test_a_long_look_is_shown(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(sums, "AT_ONCE", 48 * 5)
    seen = []

    @contextmanager
    def watch(label, images):
        seen.append((label, images))
        yield seen.append

    open_store(Colours(), SPEC, watch, verify=True)
    assert seen == []  # some bytes take no time
    monkeypatch.setattr(sums, "SHOWN", 100)
    open_store(Colours(), SPEC, watch, verify=True)
    assert seen == [("Verifying", 12), 5, 5, 2]
    with (tmp_path / "out").open("w") as out:
        open_store(Colours(), SPEC, watched_on(Console(out)), verify=True)
    assert (tmp_path / "out").read_text().startswith("Verifying 12/12 images")


# --- without the source, and with others ---------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_store_without_its_source_is_none(folder, file):
    flip(folder / file, 7, 3)
    with pytest.warns(Notice, match=f"damaged: {file} is not as it was written; it is not used"):
        assert cached("colours", SPEC) is None
    assert (folder / file).exists()


def test_who_has_a_damaged_store_open_keeps_what_it_has(folder):
    store = open_store(Colours(), SPEC)
    flip(folder / "images.u8", 100, 1)
    rebuilt()
    assert store.images.shape == (12, 4, 4, 3)
    assert (np.asarray(store.images).tobytes() == expected()) is False  # its own, damaged file
    assert len(list(cache.folder().iterdir())) == 1


def test_many_that_find_the_same_damage_make_one_store(folder, forkserver, tmp_path):
    """All see the damage before one of them makes the store again."""
    flip(folder / "images.u8", 100, 1)
    module = Path(__file__).read_text().partition("class Colours")[2].partition("def expected")[0]
    code = f"""
import time
from pathlib import Path
from PIL import Image
import vgx
from vgx.data.store import open_store
class Colours{module}
source = Colours()
Path("ready {{number}}").touch()
while not Path("go").exists():
    time.sleep(0.001)
store = open_store(source, vgx.ImageSpec(size=4, classes=12))
print(source.reads, store.content)
"""
    cache_dir = {"VGX_CACHE": os.environ["VGX_CACHE"]}
    started = []
    for number in range(4):
        hook = code.replace("{number}", str(number))
        started.append(forkserver.start(tmp_path, "--version", hook=hook, **cache_dir))
        started[-1].wait_for(tmp_path / f"ready {number}")
    with (folder / "images.u8").open("rb") as images:
        fcntl.flock(images, fcntl.LOCK_SH)
        (tmp_path / "go").touch()
        ends = []
        for child in started:
            assert child.wait() == 0, child.err.read_text()
            ends.append(child.out.read_text().splitlines()[0].split())
    assert len({content for _, content in ends}) == 1
    assert sorted(reads for reads, _ in ends) == ["0", "0", "0", "12"]
    assert [path.name[0] == "." for path in cache.folder().iterdir()] == [False]


def test_a_store_that_is_removed_while_it_is_opened_is_no_damage(folder, monkeypatch):
    original, source = cache.open_images, Colours()

    def gone(store):
        if not source.reads:
            shutil.rmtree(store)
        return original(store)

    monkeypatch.setattr(cache, "open_images", gone)
    right(open_store(source, SPEC))  # without a notice


def test_damage_that_comes_back_at_once_is_said(folder, monkeypatch):
    """Else the same images would be decoded again and again."""
    monkeypatch.setattr(sums, "_piece", lambda file, size: bytes(size))
    flip(folder / "images.u8", 5, 5)
    with (
        pytest.warns(Notice, match=DAMAGED),
        pytest.raises(StorageError, match="damaged when it was just built .* may be faulty"),
    ):
        open_store(Colours(), SPEC)


def test_a_damaged_store_with_a_file_of_somebody_is_left_to_them(folder):
    (folder / "notes.txt").write_text("mine")
    right(open_store(Colours(), SPEC))  # it is in nobody's way
    flip(folder / "images.u8", 5, 5)
    with (
        pytest.warns(Notice, match=DAMAGED),
        pytest.raises(StorageError, match="'notes.txt' in it is no file of a store; move it away"),
    ):
        open_store(Colours(), SPEC)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_store_that_is_a_link_is_replaced_and_what_it_leads_to_stays(folder, tmp_path):
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    right(open_store(Colours(), SPEC))
    flip(tmp_path / "elsewhere" / "images.u8", 5, 5)
    rebuilt()
    assert not folder.is_symlink()
    assert {file.name for file in (tmp_path / "elsewhere").iterdir()} == set(FILES)
    assert [path.name[0] == "." for path in cache.folder().iterdir()] == [False]


def test_a_damaged_store_that_cannot_be_removed_is_said(folder, monkeypatch):
    flip(folder / "images.u8", 5, 5)

    def refuse(self, target):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.warns(Notice, match=DAMAGED),
        pytest.raises(
            StorageError, match=f"{folder.name}: it cannot be made again: Permission denied"
        ),
    ):
        open_store(Colours(), SPEC)


def test_a_fault_of_the_machine_is_no_damage(folder, monkeypatch):
    """Too many open files, for example: the store is whole."""

    def refuse(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(sums, "read_file", refuse)
    with pytest.raises(StorageError, match="Too many open files"):
        open_store(Colours(), SPEC)
    monkeypatch.undo()
    assert folder.is_dir()


def test_a_pipe_in_place_of_images_stops_no_list_and_no_removal(folder):
    (folder / "images.u8").unlink()
    os.mkfifo(folder / "images.u8")
    done = threading.Thread(target=lambda: (cache.stores(), cache.remove()), daemon=True)
    done.start()
    done.join(10)
    assert not done.is_alive()


def test_what_is_removed_leaves_no_stamp(folder):
    assert len(list((vgx.cache_dir() / "verified").iterdir())) == 1
    assert len(cache.remove()) == 1
    assert list((vgx.cache_dir() / "verified").iterdir()) == []
