"""What is in a folder of images: each file is an image, or left out and counted."""

from __future__ import annotations

import io
import os
import socket
import sys

import pytest
from PIL import Image

import vgx
from vgx.data.store import open_source, open_store
from vgx.errors import DataError
from vgx.images import animate, save_grid, save_separately
from vgx_builtin.files import formats, leftovers, walk

SPEC = vgx.ImageSpec(size=8)


def part(path, **settings):
    return vgx.discover().part("dataset", "image-folder")(path=path, **settings)


def write(path, data=b"no image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def image(ending="png", colour=(200, 100, 50), **options):
    file = io.BytesIO()
    Image.new("RGB", (10, 12), colour).save(file, ending, **options)
    return file.getvalue()


def save(path, ending="png", **options):
    return write(path, image(ending, **options))


def opened(path, **settings):
    """The names of the images, how many other files there are by reason, and the notices."""
    source, notices = open_source(part(path, **settings), SPEC)
    return source.names, dict(source.left_out), notices


# --- what is left out ----------------------------------------------------------------------------


LEFT_OUT = {
    "hidden file": [
        [".DS_Store"], ["._1.jpg"], [".1.png"], [".ipynb_checkpoints/1.png"], [".git/a/1.png"],
        ["a/.thumbnails/1.png"], [".Trash-1000/files/1.png"],
    ],
    "__MACOSX": [["__MACOSX/1.png"], ["a/b/__MACOSX/1.png"]],
    "@eaDir": [["@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg"]],
    "#recycle": [["#recycle/1.png"]],
    "lost+found": [["lost+found/1.png"]],
    "$RECYCLE.BIN": [["$RECYCLE.BIN/1.png"]],
    "System Volume Information": [["System Volume Information/1.png"]],
    "__pycache__": [["__pycache__/1.png"]],
    "run of vgx": [
        ["runs/0001-a/recipe.yaml", "runs/0001-a/log.jsonl", "runs/0001-a/samples/1.png"],
        ["best one/recipe.yaml", "best one/environment.json", "best one/1.png"],
    ],
    "cache of vgx": [
        ["cache/images.lock", "cache/images/0a/1.png", "cache/datasets/1.png"],
        ["0a/store.json", "0a/hashes.u64", "0a/1.png"],
    ],
    ".db": [["Thumbs.db"]],
    ".ini": [["desktop.ini"]],
    ".txt": [["a.txt"], ["b/B.TXT"]],
    ".part": [["1.jpg.part"]],
    ".bak": [["1.png.bak"]],
    ".nef": [["1.NEF"]],
    "file without an ending": [["README"], ["b.d/README"]],
    "file of another kind": [["a.b c"], ["a.\u00fc"], ["1.png~"], ["a." + "b" * 200]],
}  # fmt: skip


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_is_no_image_is_left_out_and_counted(tmp_path, reason):
    save(tmp_path / "good.png")
    for names in LEFT_OUT[reason]:
        for name in names:
            write(tmp_path / name, image("tiff") if name.endswith(("png", "NEF")) else b"no image")
    names, left_out, _ = opened(tmp_path)
    assert names == ["good.png"]
    assert left_out == {reason: len(LEFT_OUT[reason])}


@pytest.mark.parametrize("reason", ["named pipe", "socket", "device"])
def test_what_would_be_waited_for_is_left_out(tmp_path, reason, monkeypatch):
    save(tmp_path / "good.png")
    if reason == "named pipe":
        os.mkfifo(tmp_path / "aa.png")
        (tmp_path / "b").symlink_to("aa.png")
    elif reason == "device":
        (tmp_path / "aa.png").symlink_to("/dev/zero")
        (tmp_path / "b").symlink_to("/dev/tty")
    else:
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        for name in ("aa.png", "b"):
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(name)
    assert opened(tmp_path)[:2] == (["good.png"], {reason: 2})


def test_an_ordinary_folder_is_no_run_and_no_cache(tmp_path):
    names = ["images/1.png", "samples/1.png", "checkpoints/1.png", "recipe/1.png", "cache/1.png"]
    for name in names:
        save(tmp_path / name)
    for name in ("recipe.yaml", "store.json", "images.lock", "samples/recipe.yaml"):
        write(tmp_path / name)
    write(tmp_path / "cache" / "CACHEDIR.TAG", b"of somebody else")
    assert opened(tmp_path)[0] == sorted(names)


def test_a_folder_with_the_mark_of_a_cache_is_left_out_unless_it_is_named(tmp_path):
    save(tmp_path / "good.png")
    save(tmp_path / "other" / "1.png")
    tag = b"Signature: 8a477f597d28d172789f06886806bc55\n# of any program\n"
    write(tmp_path / "other" / "CACHEDIR.TAG", tag)
    assert opened(tmp_path)[:2] == (["good.png"], {"cache": 1})
    assert opened(tmp_path / "other")[0] == ["1.png"]


def test_a_run_that_is_named_is_said(tmp_path):
    for name in ("recipe.yaml", "lock", "samples/1.png"):
        write(tmp_path / name)
    with pytest.raises(DataError, match=r"no images in it; 1 run of vgx$"):
        opened(tmp_path)


def test_the_cache_that_vgx_makes_has_the_mark_of_one(tmp_path, monkeypatch):
    save(tmp_path / "data" / "1.png")
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "data" / "cache"))
    open_store(open_source(part(tmp_path / "data"), SPEC)[0], SPEC)
    tag = tmp_path / "data" / "cache" / "CACHEDIR.TAG"
    assert tag.read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert opened(tmp_path / "data")[:2] == (["1.png"], {"cache of vgx": 1})
    # A folder of the user's that has been there before is not marked.
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "mine"))
    open_store(open_source(part(tmp_path / "data"), SPEC)[0], SPEC)
    assert not (tmp_path / "mine" / "CACHEDIR.TAG").exists()
    assert (tmp_path / "mine" / "images").is_dir()


@pytest.mark.slow
def test_a_training_in_the_folder_of_the_images_leaves_its_own_out(forkserver, tmp_path):
    for number in range(9):
        save(tmp_path / f"{number}.png", colour=(number, 9, 9))
    write(tmp_path / "small.yaml", SMALL)
    settings = {"VGX_RUNS": "", "VGX_CACHE": "cache"}  # beside the images, as without settings
    for runs in (0, 1, 2):
        child = forkserver.run(tmp_path, "run", "small.yaml", "--device", "cpu", **settings)
        (line,) = [line for line in child.out.read_text().splitlines() if line.startswith("Data: ")]
        assert line.startswith("Data: 9 images, ")
        assert ("run of vgx" in line, "runs of vgx" in line) == (runs == 1, runs == 2)


SMALL = b"""
name: small
image: {size: 16}
latent: 4
dataset: {type: image-folder, path: .}
encoder: {type: conv, widths: [4, 8]}
decoder: {type: conv-transpose, widths: [8, 4]}
losses: [l1, kl]
sampler: prior
train: {steps: 2, batch: 4, log_every: 1, draw_every: 1}
eval: {holdout: 0}
"""


# --- what vgx has drawn --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp"])
def test_a_grid_among_the_images_is_dropped(tmp_path, ending):
    import torch

    save(tmp_path / "good.png")
    save_grid(torch.rand(4, 3, 8, 8), tmp_path / f"grid.{ending}")
    store = open_store(open_source(part(tmp_path), SPEC)[0], SPEC)
    assert (len(store.images), store.dropped) == (1, {"grids made by vgx": 1})


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_an_animation_among_the_images_is_dropped(tmp_path, ending):
    import torch

    save(tmp_path / "good.png")
    animate(torch.rand(4, 3, 8, 8), tmp_path / f"moving.{ending}")
    store = open_store(open_source(part(tmp_path), SPEC)[0], SPEC)
    assert (len(store.images), store.dropped) == (1, {"grids made by vgx": 1})


def test_images_that_were_drawn_one_by_one_are_images(tmp_path):
    import torch

    assert sum(save_separately([torch.rand(3, 3, 8, 8)], tmp_path)) == 3
    store = open_store(open_source(part(tmp_path), SPEC)[0], SPEC)
    assert (len(store.images), store.dropped) == (3, {})


# --- links ---------------------------------------------------------------------------------------


def test_folders_that_are_links_are_searched(tmp_path):
    for name in ("elsewhere/a/1.png", "elsewhere/b/deep/2.png", "data/own.png"):
        save(tmp_path / name)
    for name in ("a", "b"):
        (tmp_path / "data" / name).symlink_to(f"../elsewhere/{name}")
    (tmp_path / "root").symlink_to("data")
    for root in (tmp_path / "data", tmp_path / "root"):
        names, left_out, (notice,) = opened(root)
        assert names == ["a/1.png", "b/deep/2.png", "own.png"]
        assert left_out == {}
        target = tmp_path / "elsewhere" / "a"
        assert f"links that lead out of this folder: 2, such as a -> {target}" in notice


def test_each_folder_is_searched_once_and_by_its_own_name(tmp_path):
    for name in ("images/1.png", "images/deep/2.png", "z/3.png"):
        save(tmp_path / name)
    for name, target in (
        ("a", "images"), ("images/up", ".."), ("images/deep/self", "."), ("z/z", "../z"),
        ("latest", "images/deep"), ("round", "round"), ("gone", "nowhere"), ("gone.png", "nowhere"),
    ):  # fmt: skip
        (tmp_path / name).symlink_to(target)
    names, left_out, notices = opened(tmp_path)
    assert names == ["gone.png", "images/1.png", "images/deep/2.png", "z/3.png"]
    assert left_out == {"folder that was met before": 5, "dead link": 2}
    assert notices == []


def test_a_link_around_the_target_of_another_link_does_not_search_it_again(tmp_path):
    save(tmp_path / "elsewhere" / "deep" / "1.png")
    save(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to("../elsewhere/deep")
    (tmp_path / "data" / "b").symlink_to("../elsewhere")
    names, left_out, _ = opened(tmp_path / "data")
    assert names == ["a/1.png", "b/2.png"]
    assert left_out == {"folder that was met before": 1}


def test_links_that_double_at_each_step_end(tmp_path):
    save(tmp_path / "f0" / "1.png")
    for number in range(1, 40):
        (tmp_path / f"f{number}").mkdir()
        for name in ("x", "y"):
            (tmp_path / f"f{number}" / name).symlink_to(f"../f{number - 1}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to("../f39")
    names, left_out, _ = opened(tmp_path / "data")
    assert names == ["/".join(["link", *["x"] * 39, "1.png"])]
    assert left_out == {"folder that was met before": 39}


@pytest.mark.parametrize("target", ["..", "../..", "/", "/proc", "/sys/kernel", "/dev"])
def test_a_link_to_a_folder_around_or_to_the_system_is_not_followed(tmp_path, target):
    save(tmp_path / "data" / "1.png")
    save(tmp_path / "beside" / "2.png")
    (tmp_path / "data" / "up").symlink_to(target)
    assert opened(tmp_path / "data")[:2] == (["1.png"], {"link to a folder": 1})


def test_hub_layouts_are_searched_in_the_same_way_without_linked_folders(tmp_path):
    write(tmp_path / "elsewhere" / "train.parquet")
    write(tmp_path / "data" / ".hidden.parquet")
    write(tmp_path / "data" / "__MACOSX" / "train.parquet")
    (tmp_path / "data" / "link").symlink_to("../elsewhere")
    assert not walk.has_parquet(tmp_path / "data")
    (tmp_path / "data" / "test.parquet").symlink_to("../elsewhere/train.parquet")
    assert list(walk.files_below(tmp_path / "data")) == [tmp_path / "data/test.parquet"]


# --- the content decides -------------------------------------------------------------------------


KINDS = (
    "JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "PCX", "SGI", "JPEG2000", "QOI", "AVIF",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["photo", "x.jpg?itok=1", "x.jpg_large", "00.000", "x.dat"])
def test_an_image_needs_no_ending(tmp_path, kind, name):
    if not formats.can_read(kind):
        pytest.skip(f"this Pillow has no {kind}")
    save(tmp_path / name, kind)
    (only,) = open_source(part(tmp_path), SPEC)[0]
    assert only.size == (10, 12)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"BM", b"BMW is a maker of cars", b"P3 is a size of paper", b"P6", b"\n\5\1\1 x",
        b"\x01\xda no", b"\0\0\1\0" + bytes(40), b"\x28\0\0\0" + bytes(40), b"GIF", b"RIFFxxxxWAVE",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", b"\0\0\0\x18ftypqt  \0\0\0\0qt  ", b"%PDF-1.4",
        b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"II", b"MM", b"\xff\xd8", b"ftyp",
    ],
)  # fmt: skip
def test_what_begins_almost_like_an_image_is_none(tmp_path, data):
    save(tmp_path / "good.png")
    write(tmp_path / "other", data)
    assert opened(tmp_path)[:2] == (["good.png"], {"file without an ending": 1})


def test_files_with_known_endings_are_not_opened_to_list_them(tmp_path, monkeypatch):
    for ending in ("png", "JPG", "jpeg", "webp", "bmp", "tif"):
        write(tmp_path / f"a.{ending}")
    monkeypatch.setattr(vgx, "open_regular", None)
    assert len(walk.images_below(tmp_path).names) == 6


def test_formats_that_need_a_library_are_counted_with_what_reads_them(tmp_path, monkeypatch):
    """Without the libraries, whether they are installed here or not."""
    monkeypatch.setattr(formats, "can_read", lambda kind: kind not in ("HEIF", "JXL", "AVIF", ""))
    box = b"\0\0\0\x1cftyp%b\0\0\0\0mif1%bmiaf" + bytes(50)
    for number, (name, data) in enumerate({
        "1.HEIC": box % (b"heic", b"heic"), "2": box % (b"mif1", b"heic"), "3.heif": box % (
            b"msf1", b"hevc"), "4.jpg?x": box % (b"heix", b"mif1"),
        "5.avif?": box % (b"avif", b"mif1"), "6": box % (b"mif1", b"avif"),
        "7.jxl": b"\xff\x0a" + bytes(50), "8": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50),
    }.items()):  # fmt: skip
        write(tmp_path / "a" / f"{number}{name}", data)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    reads = r"(pip install 'vgx[formats]' reads them)"
    assert str(caught.value).endswith(
        f": no images in it; 4 .heic {reads}, 2 .avif {reads}, 2 .jxl {reads}"
    )
    save(tmp_path / "good.png")
    names, left_out, notices = opened(tmp_path)
    assert names == ["good.png"]
    assert left_out == {".heic": 4, ".avif": 2, ".jxl": 2}
    assert len(notices) == 3
    assert "4 .heic left out: pip install 'vgx[formats]' reads them" in " ".join(notices)
    # Under the name of another format it is an image that cannot be read, and it is said why.
    write(tmp_path / "wrong.jpg", box % (b"heic", b"heic"))
    with pytest.raises(DataError, match=r"wrong\.jpg: its format is HEIF; pip install 'vgx\[form"):
        open_store(open_source(part(tmp_path), SPEC)[0], SPEC)


@pytest.mark.parametrize(("kind", "library"), formats.EXTRA.items())
def test_formats_that_need_a_library_are_read_with_it(tmp_path, kind, library):
    pytest.importorskip(library)
    assert formats.load_reader(kind)
    for name in ("1.xyz", "photo", "wrong.jpg"):
        save(tmp_path / name, kind, **{"quality": 95} if kind == "HEIF" else {"lossless": True})
    images = [*open_source(part(tmp_path), SPEC)[0]]
    assert [image.size for image in images] == [(10, 12)] * 3
    assert all(abs(image.getpixel((5, 5))[0] - 200) < 9 for image in images)


def test_a_library_that_is_installed_later_reads_what_was_refused(tmp_path, monkeypatch):
    """The store with the refusal is not served again."""
    pytest.importorskip("pillow_heif")
    assert formats.load_reader("HEIF")
    save(tmp_path / "photo.jpg", "HEIF")
    save(tmp_path / "other.png")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(DataError, match=r"photo\.jpg: its format is HEIF; pip install"):
            open_store(open_source(part(tmp_path), SPEC)[0], SPEC)
    store = open_store(open_source(part(tmp_path), SPEC)[0], SPEC)
    assert (len(store.images), store.bad) == (2, 0)


@pytest.mark.parametrize("library", formats.READERS)
def test_images_are_other_data_without_a_library_that_reads_more(tmp_path, monkeypatch, library):
    pytest.importorskip(library)
    save(tmp_path / "good.png")
    before = open_source(part(tmp_path), SPEC)[0].fingerprint
    monkeypatch.setitem(sys.modules, library, None)
    assert open_source(part(tmp_path), SPEC)[0].fingerprint != before


# --- what is said --------------------------------------------------------------------------------


def test_the_line_of_counts_has_the_most_frequent_reasons(tmp_path):
    save(tmp_path / "good.png")
    save(tmp_path / "bad.gif", "gif")
    for number in range(12):
        write(tmp_path / f"{number}.txt")
        write(tmp_path / f"kind.a{number}")
    os.mkfifo(tmp_path / "a")
    os.mkfifo(tmp_path / "b")
    source, _ = open_source(part(tmp_path, non_rgb="skip"), SPEC)
    store = open_store(source, SPEC)
    assert store.left_out == {".txt": 12, "named pipe": 2} | {f".a{n}": 1 for n in range(12)}
    assert store.summary() == (
        "1 images kept, 1 dropped (1 in mode P), 26 left out (12 .txt, 2 named pipes, 1 .a0, "
        "1 .a1, 1 .a10, 1 .a11, 1 .a2, 1 .a3, 6 others)"
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images in it$"),
        (["a.txt", "b.txt", ".c.png"], "no images in it; 2 .txt, 1 hidden file$"),
        (["1.nef"], "1 .nef .raw data of a camera; convert them to TIFF or PNG.$"),
        (["1.rar"], "1 .rar .unpack it.$"),
        (["train.parquet"], "1 .parquet .dataset.type=huggingface reads them.$"),
    ],
)
def test_a_folder_without_images_says_what_is_there(tmp_path, names, message):
    for name in names:
        write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_data_says_what_is_in_a_folder_without_images(tmp_path):
    from vgx.recipe.places import dataset_at

    write(tmp_path / "a.txt")
    with pytest.raises(DataError, match=rf"^--data {tmp_path}: no images in it; 1 \.txt$"):
        dataset_at(str(tmp_path), vgx.discover())
    write(tmp_path / "train.parquet")
    assert dataset_at(str(tmp_path), vgx.discover())["type"] == "huggingface"


def test_a_path_that_is_no_folder_says_what_to_write(tmp_path):
    save(tmp_path / "a b" / "1.png")
    write(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe")
    for name, message in {
        "a b/1.png": f"an image, not a folder of images; its folder: dataset.path={tmp_path}/a b$",
        "notes.txt": "not a folder, and neither a zip file nor a tar file",
        "pipe": "not a regular file", "none": "there is no such folder or archive",
        "a b/none/deep": "there is no such folder or archive",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=message):
            opened(tmp_path / name)


@pytest.mark.parametrize(
    ("folders", "notice"),
    [
        (("train", "test"), "train (2 images), test (2 images); dataset.path={root}/train takes"),
        (("a/Training", "a/Validation", "a/val"), "dataset.path={root}/a/Training takes one of"),
        (("trainA", "trainB", "testA", "testB"), "trainA (2 images), trainB (2 images), testA"),
        (("train2017", "val2017"), "train2017 (2 images), val2017 (2 images)"),
        (("test", "images"), None), (("train",), None), (("trains", "tests"), None),
        (("a", "b"), None),
    ],
)  # fmt: skip
def test_splits_that_are_mixed_are_said(tmp_path, folders, notice):
    for folder in folders:
        save(tmp_path / folder / "1.png")
        save(tmp_path / folder / "deep" / "1.png")
    notices = opened(tmp_path)[2]
    assert len(notices) == (notice is not None)
    if notice:
        assert notice.format(root=tmp_path) in notices[0]


# --- labels by folder ----------------------------------------------------------------------------


def classes(path, count, **settings):
    source = part(path, label="folder", **settings).build(vgx.ImageSpec(size=8, classes=count))
    return tuple(source.classes), [source.label(index) for index in range(len(source))]


def test_classes_are_folders_with_images_in_natural_order(tmp_path):
    for name in ("10/1.png", "2/1.png", "1/1.png", "1/2.png", "02/1.png"):
        save(tmp_path / name)
    for name in ("3/notes.txt", ".ipynb_checkpoints/1.png", "@eaDir/1.png", "runs/x/recipe.yaml",
                 "runs/x/lock", "runs/x/1.png"):  # fmt: skip
        write(tmp_path / name)
    (tmp_path / "empty").mkdir()
    # Files are in the order of their names, as text: 02/1, 1/1, 1/2, 10/1, 2/1.
    assert classes(tmp_path, 4) == (("1", "02", "2", "10"), [1, 0, 0, 3, 2])


def test_leading_folders_and_splits_are_no_classes(tmp_path):
    for name in ("a/all/cat/1.png", "a/all/dog/x/1.png"):
        save(tmp_path / name)
    assert classes(tmp_path, 2) == (("cat", "dog"), [0, 1])
    for name in ("b/train/cat/1.png", "b/train/dog/1.png", "b/test/cat/1.png"):
        save(tmp_path / name)
    with pytest.warns(vgx.Notice, match="these look like splits"):
        assert classes(tmp_path / "b", 2) == (("cat", "dog"), [0, 0, 1])
    save(tmp_path / "b" / "test" / "1.png")
    with pytest.warns(vgx.Notice, match="these look like splits"):
        assert classes(tmp_path / "b", 2) == (("cat", "dog"), [-1, 0, 0, 1])  # one has none
    assert classes(tmp_path / "b" / "train", 2) == (("cat", "dog"), [0, 1])


def test_the_marks_of_runs_and_caches_are_files_that_vgx_writes():
    from vgx.data.sums import ABOUT, HASHES
    from vgx.runs import directory

    files = {"recipe.yaml", "environment.json", "log.jsonl", "lock"}
    assert files <= set(directory._FILES)
    assert leftovers.mark_of({ABOUT, HASHES}) == "cache of vgx"
    for name in files - {"recipe.yaml"}:
        assert leftovers.mark_of({"recipe.yaml", name}) == "run of vgx"
