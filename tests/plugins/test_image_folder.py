"""Folders of pictures of every kind."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx.data import open_store
from vgx.errors import DataError, RecipeError

SPEC = vgx.ImageSpec(size=8)


def source(path, **settings):
    return vgx.discover().part("dataset", "image-folder")(path=path, **settings).build(SPEC)


def save(path, mode="RGB", size=(10, 12), colour=(200, 100, 50), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)


def test_it_looks_into_folders_and_takes_pictures_only(tmp_path):
    save(tmp_path / "b" / "deep" / "one.PNG")
    save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    found = source(tmp_path)
    assert [file.name for file in found.files] == ["a.jpg", "one.PNG"]
    assert found[1].size == (10, 12)
    assert len(source(tmp_path, limit=1)) == 1


@pytest.mark.parametrize(
    ("mode", "ending", "reason"),
    [
        ("L", "png", "greyscale"), ("1", "png", "greyscale"), ("LA", "png", "with alpha"),
        ("RGBA", "png", "with alpha"), ("P", "gif", "in mode P"), ("CMYK", "jpg", "in mode CMYK"),
    ],
)  # fmt: skip
def test_other_modes_are_dropped_by_reason_or_converted(tmp_path, mode, ending, reason):
    save(tmp_path / f"odd.{ending}", mode)
    save(tmp_path / "plain.png")
    skipped = open_store(source(tmp_path, non_rgb="skip"), SPEC)
    assert (len(skipped.images), skipped.dropped) == (1, {reason: 1})
    kept = open_store(source(tmp_path, non_rgb="convert"), SPEC)
    assert kept.images.shape == (2, 8, 8, 3)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path, order):
    values = np.array([[0, 257, 25700, 65535]], order)
    mode = {"<u2": "I;16", ">u2": "I;16B"}[order]
    Image.frombytes(mode, (4, 1), values.tobytes()).save(tmp_path / "deep.tif")
    (picture,) = source(tmp_path)
    assert [picture.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 1, 100, 255)]


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    picture = Image.new("RGB", (4, 2))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = picture.getexif()
    exif[274] = 6  # turn clockwise by 90 degrees: the top left corner comes to the top right
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = source(tmp_path)[0]
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(DataError, match=r"torn\.png"):
        open_store(source(tmp_path), SPEC)


def test_folders_without_pictures_are_said(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        source(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no pictures"):
        source(tmp_path)


def test_a_change_changes_the_fingerprint(tmp_path):
    save(tmp_path / "a.png")
    before = source(tmp_path).fingerprint
    assert source(tmp_path).fingerprint == before
    os.utime(tmp_path / "a.png", (1, 1))
    assert source(tmp_path).fingerprint != before
    assert source(tmp_path, non_rgb="skip").fingerprint != source(
        tmp_path, non_rgb="convert"
    ).fingerprint  # fmt: skip


# --- labels --------------------------------------------------------------------------------------


def labelled(path, classes, **settings):
    part = vgx.discover().part("dataset", "image-folder")(path=path, label="folder", **settings)
    return part.build(vgx.ImageSpec(size=8, classes=classes))


@pytest.fixture
def animals(tmp_path):
    for name in ("dog/2.png", "Cat/1.png", "dog/deep/1.png", "bird/b.png", "bird/a.png"):
        save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_label_is_the_number_of_the_folder_as_torchvision_counts(animals):
    from torchvision.datasets import ImageFolder

    (animals / "empty").rmdir()  # torchvision refuses a folder without pictures
    theirs = dict(ImageFolder(str(animals)).samples)
    found = labelled(animals, 3)
    assert isinstance(found, vgx.Labelled)
    ours = {str(file): found.label(index) for index, file in enumerate(found.source.files)}
    assert ours == theirs
    assert sorted(ours.values()) == [0, 1, 1, 2, 2]
    kept = open_store(found, vgx.ImageSpec(size=8, classes=3))
    assert kept.labels.tolist() == [0, 1, 1, 2, 2]


def test_a_limit_changes_no_label(animals):
    every, first = labelled(animals, 3), labelled(animals, 3, limit=2)
    assert len(first) == 2
    assert [first.label(i) for i in range(2)] == [every.label(i) for i in range(2)]


def test_only_who_asks_for_labels_gets_them(animals):
    assert not isinstance(source(animals), vgx.Labelled)
    assert labelled(animals, 3).fingerprint != source(animals).fingerprint


def test_a_folder_more_changes_the_labels_and_with_them_the_fingerprint(animals):
    before = labelled(animals, 3, limit=1)
    save(animals / "Ape" / "later.png")  # sorts first, and takes the number 0
    after = labelled(animals, 4, limit=1)
    assert (before.label(0), after.label(0)) == (0, 0)
    save(animals / "zebra" / "last.png")  # beyond the limit: the same file, another numbering
    assert labelled(animals, 5, limit=1).fingerprint != after.fingerprint


def test_labels_that_cannot_be_are_said(animals):
    with pytest.raises(RecipeError, match="there are 3 classes, and image.classes is 2"):
        labelled(animals, 2)
    save(animals / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png: lies in no folder below"):
        labelled(animals, 3)


def test_without_a_path_the_fallback_serves_or_the_field_is_named(tmp_path):
    save(tmp_path / "one.png")
    part = vgx.discover().part("dataset", "image-folder")
    faces = vgx.discover().part("dataset", "drawn-faces")(count=3)
    assert len(part(fallback=faces).build(SPEC)) == 3
    assert len(part(path=tmp_path, fallback=faces).build(SPEC)) == 1
    with pytest.raises(RecipeError, match="dataset.path=FOLDER"):
        part().build(SPEC)
