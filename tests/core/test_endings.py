"""The ending of a file's name says what is in it: images, animations, pages, weights."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageStat

from vgx import images as pictures
from vgx.errors import RecipeError, StorageError
from vgx.runs.import_weights import import_weights

# The first bytes by which other programs know a format.
MAGIC = {
    ".png": rb"\x89PNG\r\n\x1a\n",
    ".jpg": rb"\xff\xd8\xff",
    ".jpeg": rb"\xff\xd8\xff",
    ".webp": rb"RIFF....WEBP",
    ".pdf": rb"%PDF-1\.",
    ".gif": rb"GIF89a",
    ".mp4": rb"....ftyp",
}


def is_format(data, ending):
    return re.match(MAGIC[ending], data, re.DOTALL) is not None


def ramp(channels, size=32):
    """A smooth image: channel c is a ramp from 0 to 1 that is c quarters brighter at the left."""
    steps = torch.linspace(0, 1, size).expand(size, size)
    return torch.stack([steps * (1 - c / 4) + c / 4 for c in range(channels)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".jpeg", ".webp", ".pdf", ".JPG"])
def test_an_image_is_what_its_ending_says(tmp_path, ending, channels):
    path = tmp_path / f"x{ending}"
    pictures.save_image(ramp(channels), path)
    assert is_format(path.read_bytes(), ending.lower())


@pytest.mark.parametrize(("ending", "most"), [(".png", 0), (".webp", 0), (".jpg", 4)])
def test_an_image_can_be_read_back(tmp_path, ending, most):
    """Without loss, or with JPEG's at high quality and full colour resolution: four levels."""
    image = ramp(3)
    pictures.save_image(image, tmp_path / f"x{ending}")
    with Image.open(tmp_path / f"x{ending}") as opened:
        read = torch.tensor(list(opened.convert("RGB").tobytes())).view(32, 32, 3).permute(2, 0, 1)
    assert (read - (image * 255).round()).abs().max() <= most


def test_the_page_of_a_pdf_is_the_image_and_equal_images_are_equal_files(tmp_path):
    """A page is measured in points, 72 to the inch; the image has 150 pixels to the inch."""
    pictures.save_image(ramp(3, 300), tmp_path / "x.pdf")
    pictures.save_image(ramp(3, 300), tmp_path / "y.pdf")
    text = (tmp_path / "x.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ ([\d. ]+)\]", text)[1]
    assert [float(number) for number in box.split()] == [0, 0, 144, 144]
    assert b"/Width 300" in text
    assert text == (tmp_path / "y.pdf").read_bytes()


@pytest.mark.parametrize("ending", [".gif", ".webp", ".GIF"])
def test_an_animation_is_what_its_ending_says(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    images = torch.stack([torch.full((3, 16, 16), level) for level in (0.2, 0.8, 0.4)])
    pictures.animate(images, path)
    assert is_format(path.read_bytes(), ending.lower())
    with Image.open(path) as film:
        assert (film.n_frames, film.size) == (3, (384, 384))
        levels, times = [], []
        for index in range(3):
            film.seek(index)
            levels.append(ImageStat.Stat(film.convert("RGB")).mean[0])
            times.append(film.info["duration"])
    assert levels == pytest.approx([51, 204, 102], abs=2)
    assert times == [150] * 3


@pytest.mark.parametrize("size", [16, 15])  # 15 pixels are shown on 375, an odd number
def test_a_video_shows_the_images_for_their_time(size):
    av = pytest.importorskip("av", reason="PyAV, which writes videos, is not installed")
    images = torch.stack([torch.full((3, size, size), level) for level in (0.2, 0.8, 0.4)])
    frames = [pictures.enlarge(pictures.as_pil(p)) for p in pictures.as_pixels(images)]
    data = pictures.encode_animation(frames, [150, 150, 600], ".mp4")
    assert is_format(data, ".mp4")
    with av.open(io.BytesIO(data)) as film:
        assert film.streams.video[0].codec_context.name == "h264"
        assert film.duration / 1e6 == pytest.approx(0.9)
        shown = [
            (float(frame.time), frame.to_ndarray(format="rgb24").mean())
            for frame in film.decode(video=0)
        ]
    assert frames[0].width - shown_width(data, av) in (0, 1)
    for start, end, level in ((0, 0.15, 51), (0.15, 0.3, 204), (0.3, 0.9, 102)):
        inside = [mean for time, mean in shown if start - 1e-6 <= time < end - 1e-6]
        assert len(inside) == round((end - start) / 0.05)
        assert inside == pytest.approx([level] * len(inside), abs=4)


def shown_width(data, av):
    with av.open(io.BytesIO(data)) as film:
        return film.streams.video[0].width


def test_a_video_without_its_library_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RecipeError, match=r"needs the library PyAV: pip install 'vgx\[video\]'"):
        pictures.require_animation_file(tmp_path / "x.mp4")
    with pytest.raises(RecipeError):
        pictures.animate(torch.zeros(2, 3, 8, 8), tmp_path / "new" / "x.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.xyz", "x", "x.gif", "x.mp4", "x.png.bak", "a.png/x"])
def test_no_image_is_written_under_another_ending(tmp_path, name):
    with pytest.raises(RecipeError, match=r"must end in \.png, \.jpg, \.jpeg, \.webp or \.pdf"):
        pictures.save_grid(torch.zeros(4, 3, 8, 8), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.png", "x", "x.avi"])
def test_no_animation_is_written_under_another_ending(tmp_path, name):
    with pytest.raises(RecipeError, match=r"must end in \.webp, \.gif or \.mp4"):
        pictures.animate(torch.zeros(2, 3, 8, 8), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_written_to_safetensors_only(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "in.pt")
    with pytest.raises(RecipeError, match=r"must end in \.safetensors"):
        import_weights(tmp_path / "in.pt", tmp_path / "out.pt")
    import_weights(tmp_path / "in.pt", tmp_path / "OUT.SAFETENSORS")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["OUT.SAFETENSORS", "in.pt"]


def test_a_grid_that_a_format_cannot_hold_is_refused_by_its_numbers():
    """248 columns of 64 + 2 pixels and a margin of 2 are 16,370; one more is above 16,383."""
    path = Path("x.webp")
    pictures.require_image_file(path, 248**2, (64, 64))
    with pytest.raises(RecipeError, match=r"16,436 pixels wide or high, and a \.webp file"):
        pictures.require_image_file(path, 248**2 + 1, (64, 64))
    pictures.require_image_file(Path("x.png"), 10**7, (64, 64))
    with pytest.raises(ValueError, match="16383"):  # which is what Pillow allows
        pictures.encode_image(torch.zeros(1, 16384, 3, dtype=torch.uint8).numpy(), ".webp")
    pictures.encode_image(torch.zeros(1, 16383, 3, dtype=torch.uint8).numpy(), ".webp")


def test_a_folder_with_other_files_takes_no_images(tmp_path):
    pictures.require_free_folder(tmp_path / "new", 3)
    for number in range(6):
        (tmp_path / f"{number:06}.png").write_bytes(b"")
    pictures.require_free_folder(tmp_path, 6)  # the same images again
    with pytest.raises(StorageError, match=r"other files are there, 3 in all, such as 000003"):
        pictures.require_free_folder(tmp_path, 3)
