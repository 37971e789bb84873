"""The folder of stores: its bound, its list, and who may remove what."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx.cli import run_program
from vgx.data import cache
from vgx.data.store import name_of, open_store
from vgx.errors import RecipeError, StorageError

SPEC = vgx.ImageSpec(size=10)  # 300 bytes a picture
PER_STORE = 10 * (300 + 8)  # pictures and hashes; store.json comes on top


class Plain:
    """Ten pictures of a colour that the name chooses."""

    def __init__(self, name):
        self.fingerprint, self.reads = name, 0

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.reads += 1
        return Image.new("RGB", (2, 2), (len(self.fingerprint), index, 0))


def made(name, used=None):
    """A store that was last used at a time, and that nobody has open."""
    open_store(Plain(name), SPEC, name=name)
    (path,) = [kept.path for kept in cache.stores() if kept.source == name]
    if used is not None:
        os.utime(path / "store.json", (used, used))
    return path


def there():
    return [kept.source for kept in cache.stores()]


def test_stores_are_listed_with_the_longest_unused_first():
    made("b", 200)
    made("a", 300)
    made("c", 100)
    assert there() == ["c", "b", "a"]
    kept = cache.stores()[0]
    assert (kept.images, kept.shape, kept.used) == (10, (10, 10, 3), 100)
    assert kept.bytes == sum(file.stat().st_size for file in kept.path.iterdir()) > PER_STORE
    assert kept.line == "c: 10 images of 10 x 10 x 3, 0.0 MB"


def test_opening_a_store_is_a_use_of_it():
    path = made("a", 100)
    made("b", 200)
    assert open_store(source := Plain("a"), SPEC).images.shape == (10, 10, 10, 3)
    assert source.reads == 0
    assert (path / "store.json").stat().st_mtime > 10**9
    assert there() == ["b", "a"]


def test_a_full_cache_loses_the_longest_unused_when_a_store_is_built(monkeypatch):
    for number, name in enumerate(("first", "second", "third")):
        made(name, 100 + number)
    made("first", 300)
    size = cache.stores()[0].bytes
    monkeypatch.setenv("VGX_CACHE_MAX", str(3 * size + 20))  # room for three of four
    messages = []
    open_store(Plain("fourth"), SPEC, name="fourth", report=messages.append)
    assert there() == ["third", "first", "fourth"]
    assert messages == [
        "Removed from the cache, which is full: second: 10 images of 10 x 10 x 3, 0.0 MB"
    ]
    open_store(Plain("third"), SPEC, report=messages.append)  # nothing is built, so nothing goes
    monkeypatch.setenv("VGX_CACHE_MAX", "1")
    open_store(Plain("third"), SPEC, report=messages.append)
    assert len(messages) == 1


def test_what_somebody_has_open_stays_until_it_is_let_go(monkeypatch):
    monkeypatch.setenv("VGX_CACHE_MAX", str(PER_STORE))  # for one, but not its store.json
    used = open_store(Plain("used"), SPEC, name="used")
    images = open_store(Plain("mapped"), SPEC, name="mapped").images
    open_store(Plain("new"), SPEC, name="new")
    assert there() == ["used", "mapped", "new"]
    assert (np.asarray(used.images)[:, 0, 0, 1] == np.arange(10)).all()
    del used
    open_store(Plain("newer"), SPEC, name="newer")
    assert there() == ["mapped", "newer"]
    part = images[3:5]  # of the map: it keeps the whole
    del images
    assert cache.remove() != []
    assert there() == ["mapped"]
    del part
    assert [kept.source for kept in cache.remove()] == ["mapped"]


@pytest.mark.bar("S8")
def test_a_store_larger_than_the_bound_is_refused_before_anything_is_decoded(monkeypatch):
    monkeypatch.setenv("VGX_CACHE_MAX", str(PER_STORE - 1))
    source = Plain("large")
    message = (
        r"10 images takes up to 0\.0 MB; VGX_CACHE_MAX allows 0\.0 MB; take fewer or smaller images"
    )
    with pytest.raises(StorageError, match=message):
        open_store(source, SPEC)
    assert source.reads == 0
    assert not cache.folder().exists() or not [*cache.folder().iterdir()]
    monkeypatch.setenv("VGX_CACHE_MAX", str(PER_STORE))
    open_store(source, SPEC)
    monkeypatch.setenv("VGX_CACHE_MAX", "0")
    assert len(open_store(source, SPEC).images) == 10  # what is there needs no room


def test_labels_take_room_too(monkeypatch):
    class Labelled(Plain):
        def label(self, index):
            return index

    monkeypatch.setenv("VGX_CACHE_MAX", str(PER_STORE + 79))
    with pytest.raises(StorageError, match="VGX_CACHE_MAX allows"):
        open_store(Labelled("a"), vgx.ImageSpec(size=10, classes=10))


def test_values_of_16_bits_take_twice_the_room(monkeypatch):
    class Deep(Plain):
        def __getitem__(self, index):
            self.reads += 1
            return np.full((2, 2, 3), 300 + index, np.uint16)

    room = 10 * (600 + 8)
    monkeypatch.setenv("VGX_CACHE_MAX", str(room - 1))
    with pytest.raises(StorageError, match="VGX_CACHE_MAX allows"):
        open_store(Deep("deep"), SPEC)
    monkeypatch.setenv("VGX_CACHE_MAX", str(room))
    assert open_store(Deep("deep"), SPEC).kind == "uint16"


def test_a_store_larger_than_the_disk_is_refused_before_anything_is_decoded(monkeypatch):
    monkeypatch.setenv("VGX_CACHE_MAX", "1TB")
    usage = SimpleNamespace(total=10**6, free=PER_STORE - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    source = Plain("large")
    message = r"takes up to 0\.0 MB; the disk has 0\.0 MB; .*--clear makes room.*VGX_CACHE names"
    with pytest.raises(StorageError, match=message):
        open_store(source, SPEC)
    assert source.reads == 0


@pytest.mark.bar("S8")
@pytest.mark.parametrize("count", [10**9, 2**62])
def test_more_images_than_any_machine_holds_are_refused_at_once(count, monkeypatch):
    class Many(Plain):
        def __len__(self):
            return count

    monkeypatch.delenv("VGX_CACHE_MAX", raising=False)
    source = Many("many")
    message = r"without VGX_CACHE_MAX, at most .* GB, a fifth of the disk; take fewer"
    with pytest.raises(StorageError, match=f"a store of {count:,} images takes .* GB; {message}"):
        open_store(source, vgx.ImageSpec(size=256))
    assert source.reads == 0


def test_what_is_no_store_is_never_listed_and_never_removed(monkeypatch):
    whole, more = (made(name, 100 + n) for n, name in enumerate("ab"))
    (more / "notes.txt").write_text("mine")
    root = cache.folder()
    (root / "file").write_text("mine")
    for name in ("pictures", ".snapshot", "f" * 32):
        (root / name).mkdir()
        (root / name / "images.u8").write_text("mine")
    before = {path for path in root.rglob("*") if whole not in (path, path.parent)}
    monkeypatch.setenv("VGX_CACHE_MAX", str(PER_STORE))
    assert there() == ["a"]
    open_store(Plain("new"), SPEC, name="new")
    assert there() == ["new"]
    assert len(cache.remove()) == 1
    assert set(root.rglob("*")) == before


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 10**5, '{"count": 1e999}'])
def test_a_store_of_which_nothing_is_known_is_listed_and_removed(text):
    """As one that an earlier version made, whose file has no sum."""
    (made("a") / "store.json").write_text(text)
    (kept,) = cache.stores()
    assert (kept.source, kept.images) == ("damaged, or of an earlier vgx", 0)
    assert kept.bytes == PER_STORE + len(text)
    assert cache.remove() == [kept]
    assert there() == []


def test_half_of_a_removed_store_is_removed_by_the_next_builder(monkeypatch):
    path = made("a")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if it were killed there
        cache.remove()
    assert not path.exists()
    assert [left.name[:33] for left in cache.folder().iterdir()] == [f".{path.name}"]
    made("b")
    assert [left.name[0] == "." for left in cache.folder().iterdir()] == [False]


def test_a_place_that_cannot_be_removed_is_said(monkeypatch):
    """And not waited for: nobody builds there."""
    path = made("a")
    place = path.with_name(f".{path.name}")
    path.rename(place)
    (place / "images.u8").unlink()
    (place / "images.u8").mkdir()  # no file to lock
    with pytest.raises(StorageError, match="Is a directory"):
        open_store(Plain("a"), SPEC)


@pytest.mark.parametrize(
    ("said", "count"),
    [("0", 0), ("1000", 1000), ("50GB", 50 * 10**9), ("1.5 TB", 15 * 10**11), ("20mb", 2 * 10**7)],
)
def test_the_bound_is_what_the_environment_says(said, count, monkeypatch):
    monkeypatch.setenv("VGX_CACHE_MAX", said)
    assert cache.limit() == count


def test_the_bound_is_a_fifth_of_the_disk_when_nobody_says(monkeypatch):
    paths = []
    usage = SimpleNamespace(total=5_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: paths.append(path) or usage)
    assert cache.limit() == 1_000
    assert paths[0].is_dir()  # the cache itself is not there yet


@pytest.mark.parametrize("said", ["much", "-1GB", "50GiB", "1e9", "", "9" * 400])
def test_a_bound_that_is_no_size_is_said_before_anything_is_decoded(said, monkeypatch):
    monkeypatch.setenv("VGX_CACHE_MAX", said)
    source = Plain("a")
    with pytest.raises(RecipeError, match="VGX_CACHE_MAX: .* is no size; write one like 50GB"):
        open_store(source, SPEC)
    assert source.reads == 0


def test_a_data_set_is_called_what_the_recipe_sets_of_it():
    part = vgx.discover().part("dataset", "image-folder")
    assert name_of(part()) == "image-folder"
    hub = vgx.load_recipe("anime_vaegan").dataset
    assert name_of(hub) == (
        "huggingface path=DrishtiSharma/Anime-Face-Dataset fallback=(drawn-faces count=20000)"
    )
    called = name_of(part(path=Path("/a/b"), non_rgb="skip", on_bad="skip", limit=9))
    assert called == "image-folder path=/a/b non_rgb=skip limit=9"


# --- what is no store ----------------------------------------------------------------------------


def other(path, size, used):
    """A file of some bytes that was last used at a time."""
    file = vgx.cache_dir() / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(size))
    os.utime(file, (used, used))
    return file


def test_files_of_the_hubs_library_and_features_count_and_go(monkeypatch):
    made("a", 200)
    prepared = other("datasets/a___b/default/0.0.0/abc/dataset_info.json", 1000, 50)
    other("datasets/a___b/default/0.0.0/abc/b-train.arrow", 2000, 100)
    broken_off = other("datasets/local-1/parquet/x/0.0.0/abc.incomplete/x.arrow", 4000, 300)
    features = other("features/abc.safetensors", 8000, 150)
    kept = [*prepared.parents[1].glob("*.lock"), other("datasets/note.txt", 10, 1)]
    listed = [(cached.source, cached.bytes, cached.used) for cached in cache.content()]
    size = cache.stores()[0].bytes
    assert listed == [
        ("files of the hub's library: a___b/default", 3000, 100),
        ("features of real images", 8000, 150),
        ("a", size, 200),
        ("files of the hub's library: local-1/parquet", 4000, 300),
    ]
    monkeypatch.setenv("VGX_CACHE_MAX", "13kB")  # less than all of them and another store
    messages = []
    open_store(Plain("new"), SPEC, name="new", report=messages.append)
    assert [text.partition("full: ")[2] for text in messages] == [
        "files of the hub's library: a___b/default: 0.0 MB", "features of real images: 0.0 MB",
    ]  # fmt: skip
    assert not prepared.parent.exists()
    assert not features.exists()
    assert broken_off.exists()
    cache.remove()
    assert not broken_off.parent.exists()
    assert all(file.exists() for file in kept)
    assert cache.content() == []


def test_files_of_the_hubs_library_stay_as_long_as_it_works():
    prepared = other("datasets/a___b/default/0.0.0/abc/dataset_info.json", 1000, 50)
    with (vgx.cache_dir() / "datasets.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert cache.remove() == []
    assert prepared.exists()
    assert len(cache.remove()) == 1


def test_models_weights_and_the_engine_count_and_go():
    """Folders of these names with files of somebody else stay, and so do links."""
    for name, size in (("vgx.json", 100), ("model.safetensors", 2000), ("codes.safetensors", 7)):
        other(f"models/some-body--faces/{'ab' * 20}/{name}", size, 30)
    other("models/some-body--faces/main.txt", 3, 60)
    other("weights/inception-2015.safetensors", 4000, 20)
    other("weights/inception-2015.sha256", 64, 10)
    other("onnxruntime-web-1.30.0/ort.wasm.bundle.min.mjs", 50, 5)
    other("onnxruntime-web-1.30.0/ort-wasm-simd-threaded.wasm", 500, 40)
    kept = [
        other(f"models/my--own/{'ab' * 20}/sub/note", 1, 1),
        other("models/my--other/thesis.tex", 1, 1),
        other("onnxruntime-web-mine/package.json", 1, 1),
        other("models/readme", 1, 1),
        other("else/where/main.txt", 1, 1),
    ]
    (vgx.cache_dir() / "models" / "a--link").symlink_to(vgx.cache_dir() / "else" / "where")
    listed = [(cached.source, cached.bytes, cached.used) for cached in cache.content()]
    assert listed == [
        ("weights of networks", 4064, 20),
        ("engine of vgx explore: onnxruntime-web-1.30.0", 550, 40),
        ("model of the hub: some-body/faces", 2110, 60),
    ]
    assert len(cache.remove(2200)) == 2  # the longest unused first
    assert [cached.bytes for cached in cache.remove()] == [2110]
    assert cache.content() == []
    assert all(file.exists() for file in kept)
    names = sorted(path.name for path in vgx.cache_dir().iterdir())
    assert names == ["datasets.lock", "else", "models", "onnxruntime-web-mine"]


# --- the command -------------------------------------------------------------------------------


def listed(capsys, *arguments):
    assert run_program(["cache", *arguments]) == 0
    return [re.sub("  +", "  ", line) for line in capsys.readouterr().out.splitlines()]


def test_the_command_lists_what_there_is(capsys, monkeypatch):
    monkeypatch.setenv("VGX_CACHE_MAX", "2.5GB")
    bound = f"of at most 2.50 GB, in {vgx.cache_dir()}"
    assert listed(capsys) == [f"0 stores, 0.0 MB {bound}"]
    monkeypatch.setenv("TZ", "UTC")
    made("one path=x", 1_700_000_000)
    header, row, total = listed(capsys)
    assert header == "source  pixels  images  size  last used"
    assert row.startswith("one path=x  10 x 10 x 3  10  0.0 MB  2023-11-1")
    assert total == f"1 store, 0.0 MB {bound}"


def test_the_command_lists_what_is_no_store(capsys, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("VGX_CACHE_MAX", "1GB")
    other("features/abc.safetensors", 5 * 10**6, 1_700_000_000)
    made("one", 1_800_000_000)
    _, features, store, total = listed(capsys)
    assert features.startswith("features of real images  -  -  5.0 MB  2023-11-14")
    assert store.startswith("one  10 x 10 x 3  10  0.0 MB")
    assert total == f"1 store and 1 more, 5.0 MB of at most 1.00 GB, in {vgx.cache_dir()}"
    assert listed(capsys, "--clear")[:2] == [
        "Removed features of real images: 5.0 MB",
        "Removed one: 10 images of 10 x 10 x 3, 0.0 MB",
    ]


def test_the_command_clears_and_says_exactly_what(capsys):
    made("one", 100)
    made("two", 200)
    used = open_store(Plain("three"), SPEC, name="three")
    lines = listed(capsys, "--clear")
    assert lines[:2] == [
        f"Removed {name}: 10 images of 10 x 10 x 3, 0.0 MB" for name in ("one", "two")
    ]
    assert lines[3].startswith("three  10 x 10 x 3")
    assert lines[4] == f"2 removed, 0.0 MB; 1 in use, 0.0 MB, in {vgx.cache_dir()}"
    assert there() == ["three"]
    assert len(used.images) == 10
    del used
    listed(capsys, "--clear")
    assert listed(capsys, "--clear") == [f"0 removed, 0.0 MB; none is left, in {vgx.cache_dir()}"]
