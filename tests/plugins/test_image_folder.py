"""Folders of pictures of every kind."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx.data import open_store
from vgx.errors import DataError

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
