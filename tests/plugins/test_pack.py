"""`vgx pack`: any data set as shards of parquet."""

from __future__ import annotations

import hashlib
import io
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deep_files import noise, png16, tiff
from PIL import Image

import vgx
from vgx.console import Console
from vgx_data import pack
from vgx_data.commands import pack as command
from vgx_data.pack import Sizes, pack_images, recipe_of

SMALL = Sizes(10, 10**9)


@pytest.fixture(scope="module")
def registry():
    return vgx.discover()


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for number in range(25):
        kind = folder / ("cats" if number % 2 else "dogs")
        kind.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (9, 7), (number * 10, 0, 0))
        image.save(kind / f"{number:02}.{'jpg' if number % 3 else 'png'}")
    return folder


def packed(place, out, registry, sizes=SMALL, overrides=(), limit=None):
    recipe = recipe_of(str(place), overrides, registry)
    return pack_images(recipe, registry, out, sizes, Console(io.StringIO()), limit)


def rows_of(out):
    files = sorted((out / "data").iterdir())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_files_stay_the_files_that_they_were(tmp_path, pictures, registry):
    out = tmp_path / "out"
    assert packed(pictures, out, registry) == f"25 images in 1 file in {out}"
    files = sorted(file for file in pictures.rglob("*") if file.is_file())
    assert [row["image"]["bytes"] for row in rows_of(out)] == [file.read_bytes() for file in files]
    (shard,) = (out / "data").iterdir()
    assert shard.name == "train-00000-of-00001.parquet"
    about = pq.ParquetFile(shard).metadata
    assert [about.row_group(number).num_rows for number in range(3)] == [10, 10, 5]


@pytest.mark.parametrize(("image", "words"), [
    (png16(noise(6, 5, 3)), ()), (tiff(noise(6, 5, 3)), ()),
    (tiff(noise(6, 5, 3).astype(np.float32)), ()), (tiff(noise(6, 5, 2)), ("image.channels=2",)),
], ids=["png of 16 bits", "tiff of 16 bits", "tiff of floats", "tiff of 2 channels"])  # fmt: skip
def test_files_that_are_decoded_as_arrays_stay_files_too(tmp_path, registry, image, words):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(image)
    out = tmp_path / "out"
    assert packed(tmp_path / "in", out, registry, overrides=words) == f"1 images in 1 file in {out}"
    assert [row["image"]["bytes"] for row in rows_of(out)] == [image]


def test_an_archive_is_packed_as_its_folder(tmp_path, pictures, registry):
    archive = shutil.make_archive(str(tmp_path / "pictures"), "zip", pictures)
    packed(pictures, tmp_path / "one", registry)
    packed(archive, tmp_path / "two", registry)
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "two")


def test_the_library_opens_it(tmp_path, pictures, registry):
    packed(pictures, tmp_path / "out", registry)
    opened = datasets.load_dataset(
        str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hub")
    )
    assert isinstance(opened.features["image"], datasets.Image)
    assert opened[0]["image"].size == (9, 7)
    assert len(opened) == 25


def test_images_without_files_become_png_without_loss(tmp_path, registry):
    faces = ["dataset={type: drawn-faces, count: 7, label: accessory}", "image.size=16",
             "image.classes=4"]  # fmt: skip
    packed("quickstart", tmp_path / "out", registry, overrides=faces)
    recipe = vgx.load_recipe("quickstart", faces, registry)
    source = recipe.dataset.build(recipe.image)
    for index, row in enumerate(rows_of(tmp_path / "out")):
        pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
        assert (pixels == np.asarray(source[index])).all()
        assert row["label"] == source.label(index)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_in_a_column_become_png_without_loss(tmp_path, registry, dtype):
    rows = (np.arange(5 * 64) * np.iinfo(dtype).max // 320).astype(dtype).reshape(5, 8, 8)
    table = pa.table(
        {"image": pa.array(rows.tolist(), pa.list_(pa.list_(pa.from_numpy_dtype(dtype))))}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    words = ["dataset.non_rgb=convert"]
    packed(tmp_path / "x.parquet", tmp_path / "out", registry, overrides=words)
    found = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in
             rows_of(tmp_path / "out")]  # fmt: skip
    assert (np.stack(found) == rows).all()


@pytest.mark.parametrize(("array", "mode"), [
    (np.zeros((4, 4, 4), np.uint8), "RGBA"), (np.zeros((4, 4, 2), np.uint8), "LA"),
    (np.zeros((4, 4, 1), np.uint8), "L"), (np.zeros((4, 4), np.uint16), "I;16"),
])  # fmt: skip
def test_arrays_become_png_of_the_same_kind(array, mode):
    assert Image.open(io.BytesIO(pack._as_png(array))).mode == mode


@pytest.mark.parametrize("array", [
    np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint16), np.zeros((4, 4, 5), np.uint8),
])  # fmt: skip
def test_arrays_that_png_cannot_hold_are_refused(array):
    with pytest.raises(vgx.DataError, match="without loss"):
        pack._as_png(array)


def test_labels_keep_their_names(tmp_path, pictures, registry):
    words = ["dataset.label=folder", "image.classes=2"]
    packed(pictures, tmp_path / "out", registry, overrides=words)
    opened = datasets.load_dataset(
        str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hub")
    )
    assert opened.features["label"].names == ["cats", "dogs"]
    assert opened["label"] == [0] * 12 + [1] * 13
    fields = {"type": "huggingface", "path": str(tmp_path / "out"), "stream": True}
    again = {"dataset": {**fields, "label": "label"}, "image.classes": 2}
    recipe = vgx.load_recipe("quickstart", again, registry)
    source = recipe.dataset.build(recipe.image)
    assert isinstance(source, vgx.Named)
    assert isinstance(source, vgx.Grouped)
    assert (source.classes, source.label(24)) == (["cats", "dogs"], 1)


def test_shards_are_numbered_among_all(tmp_path, pictures, registry):
    text = packed(pictures, tmp_path / "out", registry, Sizes(5, 1))
    assert "25 images in 5 files" in text
    names = [file.name for file in sorted((tmp_path / "out" / "data").iterdir())]
    assert names == [f"train-{number:05}-of-00005.parquet" for number in range(5)]


def test_large_images_make_smaller_row_groups(tmp_path, pictures, registry, monkeypatch):
    monkeypatch.setattr(pack, "GROUP", 2 * max(f.stat().st_size for f in pictures.rglob("*.jpg")))
    packed(pictures, tmp_path / "out", registry)
    (file,) = (tmp_path / "out" / "data").iterdir()
    about = pq.ParquetFile(file).metadata
    sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    assert sum(sizes) == 25
    assert 1 < max(sizes) < 10


def test_unusable_images_are_left_out_and_counted(tmp_path, pictures, registry):
    (pictures / "cats" / "01.jpg").write_bytes(b"no image")
    Image.new("L", (9, 7)).save(pictures / "cats" / "03.png")
    text = packed(pictures, tmp_path / "out", registry, overrides=["dataset.non_rgb=skip"])
    assert "23 images in 1 file, 1 dropped (1 greyscale), 1 unreadable (cats/01.jpg" in text
    assert len(rows_of(tmp_path / "out")) == 23


def test_without_a_usable_image_nothing_is_left(tmp_path, registry):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no image")
    with pytest.raises(vgx.DataError, match="none of 1 images is usable"):
        packed(tmp_path / "in", tmp_path / "out", registry)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["in"]


def test_the_first_images_only(tmp_path, pictures, registry):
    assert packed(pictures, tmp_path / "out", registry, limit=4).startswith("4 images")


def test_other_images_have_another_footer(tmp_path, pictures, registry):
    """Also when they have as many bytes: what a run holds fast is the footers."""
    fingerprints = []
    for number, colour in enumerate((b"one", b"two", b"one")):
        out = tmp_path / str(number)
        image = Image.new("RGB", (2, 2), tuple(hashlib.sha256(colour).digest()[:3]))
        image.save(pictures / "cats" / "01.jpg", quality=100, subsampling=0)
        (pictures / "cats" / "01.jpg").write_bytes(
            (pictures / "cats" / "01.jpg").read_bytes().ljust(2000, b"\0")
        )
        packed(pictures, out, registry)
        fields = {"type": "huggingface", "path": str(out), "stream": True}
        recipe = vgx.load_recipe("quickstart", {"dataset": fields}, registry)
        fingerprints.append(recipe.dataset.build(recipe.image).fingerprint)
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]


@pytest.mark.parametrize("made", ["file", "folder"])
def test_what_is_there_is_not_touched(tmp_path, pictures, registry, made):
    out = tmp_path / "out"
    if made == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    with pytest.raises(vgx.StorageError, match="there already, and not an empty folder"):
        packed(pictures, out, registry)
    assert (out if made == "file" else out / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path, pictures, registry):
    (tmp_path / "out").mkdir()
    packed(pictures, tmp_path / "out", registry)
    assert len(rows_of(tmp_path / "out")) == 25


def test_a_link_to_an_empty_folder_is_followed(tmp_path, pictures, registry):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    packed(pictures, tmp_path / "out", registry)
    assert len(rows_of(tmp_path / "disk")) == 25
    assert (tmp_path / "out").readlink() == pathlib.Path("disk")


def test_a_mounted_disk_is_not_replaced(tmp_path, pictures, registry, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(pathlib.Path, "is_mount", lambda path: path.name == "out")
    with pytest.raises(vgx.StorageError, match="a disk or the working directory"):
        packed(pictures, tmp_path / "out", registry)


def test_links_of_strangers_are_not_followed(tmp_path, pictures, registry, monkeypatch):
    """In a folder that somebody sent: the hidden folder beside `out` leads to another one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    (tmp_path / "sent").mkdir()
    for number in "0123456789abcdef":  # whatever name could be guessed
        (tmp_path / "sent" / f".unfinished-{number * 16}").symlink_to("..")
    (tmp_path / "sent" / ".out.packing").symlink_to("..")
    packed(pictures, tmp_path / "sent" / "out", registry)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "sent" / "out").is_symlink()
    assert [path.name for path in (tmp_path / "sent" / "out").iterdir()] == ["data"]


@pytest.mark.parametrize("name", [".", "../here"])
def test_the_current_folder_is_not_replaced(tmp_path, pictures, registry, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(vgx.StorageError, match="a disk or the working directory; give another"):
        packed(pictures, pathlib.Path(name), registry)
    assert [*(tmp_path / "here").iterdir()] == []


def test_the_command(tmp_path, pictures, capsys):
    arguments = [str(pictures), str(tmp_path / "out"), "--limit", "3", "--shard-size", "1KB"]
    command.main(arguments, standalone_mode=False)
    assert "3 images in 1 file" in capsys.readouterr().out
    with pytest.raises(vgx.RecipeError, match="--shard-size: 'big' is no size"):
        command.main([str(pictures), str(tmp_path / "b"), "--shard-size", "big"],
                     standalone_mode=False)  # fmt: skip


def test_names_of_files_are_shown_and_not_obeyed(tmp_path, pictures, capsys):
    (pictures / "dogs" / "x\x1b]0;owned\x07.png").write_bytes(b"no image")
    command.main([str(pictures), str(tmp_path / "out")], standalone_mode=False)
    out = capsys.readouterr().out
    assert r"1 unreadable (dogs/x\x1b]0;owned\x07.png" in out
    assert "\x1b" not in out


SLOW = """
import sys, time
from vgx_data import pack
from vgx_data.commands import pack as command
whole = pack._read
pack._read = lambda source, index: (time.sleep(0.2), whole(source, index))[1]
print("begun", flush=True)
command.main(sys.argv[1:], standalone_mode=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_leaves_no_shard_with_a_final_name(tmp_path, pictures, registry, number):
    words = [sys.executable, "-c", SLOW, str(pictures), str(tmp_path / "out"), "--shard-size", "1B"]
    process = subprocess.Popen(
        [*words, "--rows-per-group", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while len([*tmp_path.glob(".unfinished-*/data/*")]) <= 2 and time.monotonic() < until:
        time.sleep(0.05)
    packed(pictures, tmp_path / "other", registry)
    assert len([*tmp_path.glob(".unfinished-*/data/*")]) > 2  # another one's work stays
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (tmp_path / "out").exists()
    assert bool([*tmp_path.glob(".*")]) == (number == signal.SIGKILL)
    packed(pictures, tmp_path / "out", registry)  # what a killed one left is removed
    assert not [*tmp_path.glob(".*")]
    assert len(rows_of(tmp_path / "out")) == 25
