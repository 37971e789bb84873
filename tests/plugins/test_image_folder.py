"""Folders of images of every kind."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx.data.store import open_source, open_store
from vgx.errors import DataError, RecipeError
from vgx_builtin.files import formats, image_files

SPEC = vgx.ImageSpec(size=8)


def source(path, **settings):
    return vgx.discover().part("dataset", "image-folder")(path=path, **settings).build(SPEC)


def save(path, mode="RGB", size=(10, 12), colour=(200, 100, 50), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **options)


def test_it_looks_into_folders_and_takes_images_only(tmp_path):
    save(tmp_path / "b" / "deep" / "one.PNG")
    save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    files = source(tmp_path)
    assert files.names == ["a.jpg", "b/deep/one.PNG"]
    assert files[1].size == (10, 12)
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
    images = open_store(source(tmp_path), vgx.ImageSpec(size=(4, 4))).images
    assert images[:][0, 3, :, 1].tolist() == pytest.approx([0, 257 / 65535, 25700 / 65535, 1])


def test_images_are_turned_as_their_camera_says(tmp_path):
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = image.getexif()
    exif[274] = 6  # turn clockwise by 90 degrees: the top left corner comes to the top right
    image.save(tmp_path / "turned.png", exif=exif)
    upright = source(tmp_path)[0]
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(DataError, match=r"torn\.png"):
        open_store(source(tmp_path), SPEC)


# --- files that are no good --------------------------------------------------------------------


def jpeg():
    file = io.BytesIO()
    Image.effect_noise((40, 40), 90).convert("RGB").save(file, "jpeg")
    return file.getvalue()


def png(size=(40, 40), mode="RGB"):
    file = io.BytesIO()
    Image.effect_noise(size, 90).convert(mode).save(file, "png")
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width, height, *more):
    """A PNG file that claims a size, and has whatever else."""
    claim = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", claim) + b"".join(more)


def turned_bits(data, place):
    return data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]


NAN = struct.pack("<f", float("nan")) * 16
BAD = {
    "empty.png": b"",
    "text.jpg": b"no picture at all",
    "page.png": b"<!DOCTYPE html><html>404</html>",
    "zeros.png": bytes(1000),
    "short.jpg": jpeg()[:-200],
    "half.png": png()[: len(png()) // 2],
    "begins.png": png()[:20],
    "flipped.png": turned_bits(png(), 60),
    "size.png": turned_bits(png(), 18),
    "bomb.png": header(20000, 20000, chunk(b"IDAT", zlib.compress(bytes(60001)))),
    "warned.png": header(9000, 9000, chunk(b"IDAT", zlib.compress(bytes(27001)))),
    "talks.png": header(8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 * 10**7)))),
    "none.gif": b"GIF89a" + bytes(20),
    "nan.pfm": b"Pf\n4 4\n-1.0\n" + NAN,
    "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "tags.tif": b"II*\x00\x08\x00\x00\x00" + b"\xff" * 40,
}
WHY = {
    "empty.png": "not an image", "text.jpg": "not an image", "short.jpg": "truncated",
    "bomb.png": "400,000,000 pixels, and at most 67,108,864 are decoded",
    "warned.png": "81,000,000 pixels, and at most 67,108,864 are decoded: make the image smaller",
    "talks.png": "too large", "program.png": "not an image", "nan.pfm": "not finite",
}  # fmt: skip


def test_warned_is_between_vgx_and_pillow():
    assert image_files.MAX_PIXELS < 9000 * 9000 < Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_and_may_be_left_out(tmp_path, name):
    (tmp_path / name).write_bytes(BAD[name])
    save(tmp_path / "good.png")
    with pytest.raises(DataError, match=f"(?s)  {name}: .*{WHY.get(name, '')}.*on_bad=skip"):
        open_store(source(tmp_path), SPEC)
    store = open_store(source(tmp_path), SPEC, max_bad=0.5)
    assert (len(store.images), store.bad) == (1, 1)
    assert store.named[0].startswith(f"{name}: ")
    assert f"1 unreadable ({name}: " in store.summary()


def test_the_same_bad_files_are_bad_to_whoever_is_deaf_to_warnings(tmp_path):
    """The suite turns warnings into errors; a person's Python does not."""
    for name, data in BAD.items():
        (tmp_path / name).write_bytes(data)
    save(tmp_path / "good.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = open_store(source(tmp_path), SPEC, max_bad=1)
    assert (len(store.images), store.bad) == (1, len(BAD))


def test_a_bad_file_below_a_folder_is_named_with_the_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "torn.png").write_bytes(b"torn")
    save(tmp_path / "good.png")
    store = open_store(source(tmp_path), SPEC, max_bad=1)
    assert store.named == ("a/b/torn.png: not an image, or broken at its beginning",)


def test_a_repaired_file_is_looked_at_again(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"torn")
    save(tmp_path / "good.png")
    assert open_store(source(tmp_path), SPEC, max_bad=1).bad == 1
    save(tmp_path / "torn.png")
    assert open_store(source(tmp_path), SPEC).bad == 0


def test_a_link_that_leads_nowhere_is_a_bad_file_until_it_leads_somewhere(tmp_path):
    (tmp_path / "folder").mkdir()
    save(tmp_path / "folder" / "good.png")
    (tmp_path / "folder" / "link.png").symlink_to(tmp_path / "later.png")
    part = vgx.discover().part("dataset", "image-folder")(path=tmp_path / "folder")
    linked, notices = open_source(part, SPEC)
    store = open_store(linked, SPEC, max_bad=1)
    assert (store.bad, store.named[0][:8]) == (1, "link.png")
    (notice,) = notices
    assert notice.startswith(f"dataset image-folder: {tmp_path / 'folder'}: links that lead out of")
    assert notice.endswith(f"1, such as link.png -> {tmp_path / 'later.png'}")
    save(tmp_path / "later.png")
    assert len(open_store(open_source(part, SPEC)[0], SPEC).images) == 2


def test_names_that_are_no_text_are_names_all_the_same(tmp_path):
    torn = os.fsencode(tmp_path) + b"/\xff\n.png"
    with open(torn, "wb") as file:  # noqa: PTH123 - a path of bytes
        file.write(b"torn")
    save(tmp_path / "good.png")
    store = open_store(source(tmp_path), SPEC, max_bad=1)
    assert store.named[0].startswith("? .png: not an image")
    json.dumps(store.named, ensure_ascii=False).encode()


def test_a_file_that_may_not_be_read_is_no_bad_image(tmp_path, monkeypatch):
    """Left out silently it would stay away after its rights were mended."""
    save(tmp_path / "closed.png")
    save(tmp_path / "good.png")
    original = os.open

    def refusing(file, *flags):
        if Path(file).name == "closed.png":
            raise PermissionError(13, "Permission denied", str(file))
        return original(file, *flags)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(DataError, match=r"closed\.png.*Permission denied.*no fault of the image"):
        open_store(source(tmp_path), SPEC, max_bad=1)


def test_a_folder_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    save(tmp_path / "good.png")
    (tmp_path / "closed").mkdir()
    original = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="closed: Permission denied"):
        source(tmp_path)


def test_no_program_is_started_for_an_image(tmp_path, monkeypatch):
    """Pillow would hand PostScript to Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", None)
    (tmp_path / "a.eps").write_bytes(BAD["program.png"])
    with pytest.raises(DataError, match="no images in it"):
        source(tmp_path)
    assert {".eps", ".pdf", ".h5", ".wmf"}.isdisjoint(formats.endings())


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue")]
    for ending in ("gif", "png", "webp", "tiff"):
        options = {"lossless": True} if ending == "webp" else {}
        file = tmp_path / f"moving.{ending}"
        frames[0].save(file, save_all=True, append_images=frames[1:], **options)
    store = open_store(source(tmp_path), SPEC)
    assert store.images.shape == (4, 8, 8, 3)
    assert (store.images == [255, 0, 0]).all()


def test_a_transparent_grey_of_few_bits_is_found_again(tmp_path):
    """Pillow brings the pixels to 8 bits, and leaves the transparent grey as it was."""
    claim = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
    grey = chunk(b"tRNS", struct.pack(">H", 10)) + chunk(b"IDAT", zlib.compress(b"\0\xab"))
    data = b"\x89PNG\r\n\x1a\n" + claim + grey + chunk(b"IEND", b"")
    (tmp_path / "few.png").write_bytes(data)
    images = open_store(source(tmp_path), vgx.ImageSpec(size=(4, 4), background="#010203")).images
    assert images[0, 0, [0, 3]].tolist() == [[1, 2, 3], [187, 187, 187]]


def test_bad_data_of_a_camera_turn_nothing(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (4, 2)).save(file, "jpeg", exif=b"Exif\0\0II*\0\xff\xff")
    (tmp_path / "odd.jpg").write_bytes(file.getvalue())
    assert source(tmp_path)[0].size == (4, 2)


def test_folders_without_images_are_said(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        source(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no images"):
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


def replace_content(file, data):
    """Write other bytes of the same number into a file, and put its times back."""
    before = file.stat()
    assert len(data) == before.st_size
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system has ticks
        file.write_bytes(data)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("kind", ["bmp", "ppm"])
def test_other_content_under_the_same_name_size_and_time_is_decoded(tmp_path, kind):
    file = tmp_path / f"a.{kind}"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file)
    first = open_store(source(tmp_path), SPEC)
    assert first.images[0, 0, 0].tolist() == [1, 2, 3]
    Image.new("RGB", (8, 8), (9, 2, 3)).save(tmp_path.with_name(f"other.{kind}"))
    replace_content(file, tmp_path.with_name(f"other.{kind}").read_bytes())
    second = open_store(source(tmp_path), SPEC)
    assert second.images[0, 0, 0].tolist() == [9, 2, 3]
    assert second.content != first.content


def test_two_images_that_change_places_are_noticed(tmp_path):
    for name, colour in (("a", 1), ("b", 2)):
        Image.new("RGB", (8, 8), (colour,) * 3).save(tmp_path / f"{name}.bmp")
        os.utime(tmp_path / f"{name}.bmp", (1, 1))
    assert open_store(source(tmp_path), SPEC).images[:, 0, 0, 0].tolist() == [1, 2]
    for name, other in (("a", "c"), ("b", "a"), ("c", "b")):
        (tmp_path / f"{name}.bmp").rename(tmp_path / f"{other}.bmp")
    assert open_store(source(tmp_path), SPEC).images[:, 0, 0, 0].tolist() == [2, 1]


def test_the_same_images_elsewhere_are_the_same_content(tmp_path):
    """They are decoded again, since a copy has a ctime of its own; a resume compares content."""
    (tmp_path / "one").mkdir()
    save(tmp_path / "one" / "a.png")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (open_store(source(tmp_path / name), SPEC) for name in ("one", "two"))
    assert one.fingerprint != two.fingerprint
    assert one.content == two.content


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

    (animals / "empty").rmdir()  # torchvision refuses a folder without images
    theirs = dict(ImageFolder(str(animals)).samples)
    files = labelled(animals, 3)
    assert isinstance(files, vgx.Labelled)
    names = files.source.names
    ours = {str(animals / name): files.label(index) for index, name in enumerate(names)}
    assert ours == theirs
    assert sorted(ours.values()) == [0, 1, 1, 2, 2]
    kept = open_store(files, vgx.ImageSpec(size=8, classes=3))
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
    with pytest.raises(
        RecipeError, match=r"there are 3 classes \(Cat, bird, dog\), and image.classes is 2"
    ):
        labelled(animals, 2)
    for file in animals.rglob("*.png"):
        file.rename(animals / f"{file.parent.name}-{file.name}")
    with pytest.raises(DataError, match="all images lie beside each other, in no folders below"):
        labelled(animals, 3)


def test_an_image_in_no_folder_has_no_label_and_is_left_out_and_counted(animals):
    save(animals / "stray.png")
    spec = vgx.ImageSpec(size=8, classes=3)
    store = open_store(labelled(animals, 3), spec)
    assert store.summary() == "5 images kept, 1 dropped (1 without a label)"
    assert store.classes(spec) == [("Cat", 1), ("bird", 2), ("dog", 2)]


def test_folders_are_numbered_in_natural_order(tmp_path):
    for number in (*range(12), 100):
        save(tmp_path / str(number) / "a.png")
    files = labelled(tmp_path, 13)
    assert isinstance(files, vgx.Named)
    assert list(files.classes) == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "11",
        "100",
    ]
    folders = [name.split("/")[0] for name in files.source.names]
    assert [files.classes[files.label(i)] for i in range(13)] == folders


def test_a_limit_takes_as_many_of_each_class_as_there_are(tmp_path):
    for name, count in (("a", 5), ("b", 1), ("c", 3)):
        for number in range(count):
            save(tmp_path / name / f"{number}.png")

    def taken(limit):
        files = labelled(tmp_path, 3, limit=limit)
        names = [files.source.names[row] for row in files.rows]
        return " ".join(names), [files.label(i) for i in range(len(files))]

    assert taken(2) == ("a/0.png b/0.png", [0, 1])
    assert taken(5) == ("a/0.png a/1.png b/0.png c/0.png c/1.png", [0, 0, 1, 2, 2])
    assert taken(8)[1] == [0, 0, 0, 0, 1, 2, 2, 2]
    assert taken(99)[1] == [0, 0, 0, 0, 0, 1, 2, 2, 2]
    prints = {labelled(tmp_path, 3, limit=limit).fingerprint for limit in (None, 2, 5)}
    assert len(prints) == 3


def test_without_a_path_the_fallback_serves_or_the_field_is_named(tmp_path):
    save(tmp_path / "one.png")
    part = vgx.discover().part("dataset", "image-folder")
    faces = vgx.discover().part("dataset", "drawn-faces")(count=3)
    with pytest.warns(vgx.Notice, match="no folder is given; using the fallback: drawn-faces"):
        assert len(part(fallback=faces).build(SPEC)) == 3
    assert len(part(path=tmp_path, fallback=faces).build(SPEC)) == 1
    with pytest.raises(RecipeError, match="dataset.path=FOLDER"):
        part().build(SPEC)


def test_it_asks_nobody_unless_its_fallback_does(tmp_path):
    part = vgx.discover().part("dataset", "image-folder")
    hub = vgx.discover().part("dataset", "huggingface")
    far, near = hub(path="nobody/has-this"), hub(path=str(tmp_path))
    assert far.asks() == "the hub, with your token if you are logged in"
    assert near.asks() == ""
    assert part(path=tmp_path, fallback=far).asks() == ""
    assert part(fallback=near).asks() == ""
    assert part(fallback=far).asks() == far.asks()
    assert vgx.discover().part("dataset", "drawn-faces")().asks() == ""
