"""What is in a folder of images: each file is an image, or left out and counted."""

from __future__ import annotations

import pytest
from PIL import Image

import vgx
from vgx.data.store import open_source

SPEC = vgx.ImageSpec(size=8)


def part(path, **settings):
    return vgx.discover().part("dataset", "image-folder")(path=path, **settings)


def save(path, colour=(200, 100, 50), ending=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 12), colour).save(path, ending)
    return path


def opened(path):
    """The names of the images, how many other files there are, and the notices."""
    source, notices = open_source(part(path), SPEC)
    return source.names, dict(source.left_out), notices


# --- what is left out ------------------------------------------------------------------------


LEFT_OUT = {
    "hidden file": (".DS_Store", "._1.jpg", ".hidden.png", ".ipynb_checkpoints/1.png",
                    ".thumbnails/1.png", ".git/1.png", ".Trash-1000/files/1.png"),
    "__MACOSX": ("__MACOSX/1.png",), "@eaDir": ("@eaDir/1.png",), "#recycle": ("#recycle/1.png",),
    "lost+found": ("lost+found/1.png",), "$RECYCLE.BIN": ("$RECYCLE.BIN/1.png",),
    "System Volume Information": ("System Volume Information/1.png",),
    "__pycache__": ("__pycache__/1.png",),
    "run of vgx": ("runs/0001-a/recipe.yaml runs/0001-a/log.jsonl runs/0001-a/samples/1.png",
                   "deep/er/best/recipe.yaml deep/er/best/environment.json deep/er/best/1.png"),
    "cache of vgx": ("cache/images.lock cache/images/0a/1.png cache/datasets/1.png",
                     "0a/store.json 0a/hashes.u64 0a/1.png"),
    ".db": ("Thumbs.db",), ".ini": ("desktop.ini",), ".txt": ("a.txt", "b.TXT"),
    ".json": ("labels.json",), ".part": ("1.jpg.part",), ".nef": ("1.nef",), ".eps": ("1.eps",),
    "file without an ending": ("README",), "file of another kind": ("a.b c", "a.\u00fc"),
}  # fmt: skip


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_is_no_image_is_left_out_and_counted(tmp_path, reason):
    save(tmp_path / "data" / "good.png")
    for names in LEFT_OUT[reason]:
        for name in (
            names.split(" ")
            if "runs/" in names or "/store" in names or "/er/" in names or "images.lock" in names
            else [names]
        ):
            save(tmp_path / "data" / name, ending="PNG") if name.endswith(".png") else (
                (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True),
                (tmp_path / "data" / name).write_bytes(b"no image"),
            )
    names, left_out, notices = opened(tmp_path / "data")
    assert names == ["good.png"]
    assert left_out == {reason: len(LEFT_OUT[reason])}
