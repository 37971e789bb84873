"""Images and animations as files, each written whole or not at all; and work done ahead in threads.

The ending of a file's name decides its format; `IMAGES` and `ANIMATIONS` list all endings.

Letters: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vgx.errors import RecipeError, StorageError
from vgx.files import require_ending, storage, tidy, write_file

if TYPE_CHECKING:
    from PIL import Image

THREADS = 8  # more than these are faster than any disk and any device
PADDING = 2  # pixels between the images of a grid
TEXT, STEP = 11, 40  # pixels of the captions' font, and of the steps of their width
WIDE, SHORT = 384, 150  # pixels of an animation's larger side, milliseconds of its frames
TICK = 50  # milliseconds between two images of a video
CHECKERBOARD = 0.6, 0.4  # its grey values: neither white nor black images vanish on it
T = TypeVar("T")
R = TypeVar("R")

_JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}  # colours at full resolution
# After PNG's filters a photograph compresses by runs alone: a third less time than the default,
# and no more bytes.
_PNG: dict[str, Any] = {"compress_type": zlib.Z_RLE}
# 150 pixels to the inch. Without dates, so that equal images are equal files.
_PDF: dict[str, Any] = {**_JPEG, "resolution": 150, "creationDate": None, "modDate": None}
# For each ending: Pillow's name of the format, its options, and the largest side in pixels.
IMAGES: dict[str, tuple[str, dict[str, Any], int]] = {
    ".png": ("PNG", _PNG, 2**31 - 1),
    ".jpg": ("JPEG", _JPEG, 65_500),
    ".jpeg": ("JPEG", _JPEG, 65_500),
    ".webp": ("WEBP", {"lossless": True}, 16_383),
    ".pdf": ("PDF", _PDF, 65_500),
}
# The same for images one after another; Pillow writes no video.
ANIMATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    ".webp": ("WEBP", {"quality": 80, "method": 2}),
    ".gif": ("GIF", {"comment": b"vgx"}),  # has no EXIF data
    ".mp4": ("", {}),
}


def levels(images: Tensor) -> Tensor:
    """Return images in [0, 1] as whole numbers from 0 to 255, of the same type and shape."""
    return (images * 255).round().clamp(0, 255)


def as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """[N, H, W, C]  Return images [N, C, H, W] in [0, 1] as bytes."""
    scaled = levels(images).to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def as_pil(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return pixels [H, W, C] as a PIL image: grey, RGB or RGBA.

    One or two channels are grey, the first of them; four are RGB and alpha; of others the first
    three are RGB.
    """
    from PIL import Image

    channels = pixels.shape[-1]
    if channels < 3:
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(np.ascontiguousarray(pixels[..., : 4 if channels == 4 else 3]))


def opaque(images: Tensor) -> Tensor:
    """[N, 1 or 3, H, W]  Return images [N, C, H, W] as they are shown to people: grey or RGB.

    Channels are read as in `as_pil`. RGBA images are laid on a checkerboard, because grids are
    also written as files that cannot hold alpha, and a plain background would hide images of its
    own colour.
    """
    channels, height, width = images.shape[1:]
    if channels < 3:
        return images[:, :1]
    if channels != 4:
        return images[:, :3]
    side = max(min(height, width) // 8, 1)  # of a square of the board
    rows, columns = (torch.arange(size, device=images.device) // side for size in (height, width))
    light = (rows[:, None] + columns) % 2 == 0  # [H, W]
    board = torch.where(light, *CHECKERBOARD).to(images)
    return images[:, :3] * images[:, 3:] + board * (1 - images[:, 3:])


def require_image_file(
    path: Path, n: int = 1, size: tuple[int, int] = (0, 0), columns: int | None = None
) -> None:
    """Raise `RecipeError` unless a grid of n images of this height and width can be this file."""
    ending = require_ending(path, "a still image", IMAGES)
    columns, most = columns or _columns(n), IMAGES[ending][2]
    counts = math.ceil(n / columns), columns
    sides = (count * (each + PADDING) for count, each in zip(counts, size, strict=True))
    side = max(sides) + PADDING
    if side > most:
        message = f"{side:,} pixels wide or high, and a {ending} file takes at most {most:,}"
        raise RecipeError(f"{path}: a grid of {n:,} images is {message}; write a .png file")


def require_animation_file(path: Path) -> None:
    """Raise `RecipeError` unless an animation can be written to this file."""
    if require_ending(path, "an animation", ANIMATIONS) == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            others = "or write a .gif or .webp file"
            message = f"a video needs the library PyAV: pip install 'vgx[video]'; {others}"
            raise RecipeError(f"{path}: {message}") from None


def save_grid(
    images: Tensor, path: Path, columns: int | None = None, captions: Sequence[str] = ()
) -> Tensor:
    """Write the `grid` of images [N, C, H, W] in [0, 1] as one image, and return it.

    Raises `StorageError`, and `RecipeError` for an unknown ending.
    """
    made = grid(images, columns, captions)
    save_image(made, path)
    return made


def grid(images: Tensor, columns: int | None = None, captions: Sequence[str] = ()) -> Tensor:
    """[3, H, W]  Images [N, C, h, w] in [0, 1] in rows, by default as many as columns.

    100 images make 10 x 10. They are shown as `opaque` says. `captions` are written at the left of
    the rows.
    """
    shown = opaque(images).cpu()
    columns = min(columns or _columns(len(shown)), len(shown))
    rows = _in_rows(shown, columns) if len(shown) > 1 else shown[0]  # [1 or 3, H, W]
    rows = rows.expand(3, -1, -1).contiguous()  # [3, H, W]
    return torch.cat([_margin(captions, rows, images.shape[-2]), rows], 2) if captions else rows


def _in_rows(images: Tensor, columns: int) -> Tensor:
    """[C, H, W]  Images [N, C, h, w] in rows, in black frames, as torchvision's `make_grid`.

    To import torchvision takes longer than all else before the first step of a small run.
    """
    missing = -len(images) % columns
    framed = F.pad(images, (PADDING, 0, PADDING, 0, 0, 0, 0, missing))  # [R * columns, C, h', w']
    rows = framed.reshape(-1, columns, *framed.shape[1:])  # [R, columns, C, h', w']
    rows = rows.permute(2, 0, 3, 1, 4)  # [C, R, h', columns, w']
    return F.pad(rows.flatten(3, 4).flatten(1, 2), (0, PADDING, 0, PADDING))


def _margin(captions: Sequence[str], rows: Tensor, height: int) -> Tensor:
    """[C, H, W]  The captions of rows of images of this height, white on black."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(TEXT)
    # The font has the letters of Western Europe only.
    known = [text.encode("latin-1", "replace").decode("latin-1") for text in captions]
    # In steps, so that captions of other numbers do not change the size of the grid.
    width = math.ceil(max(font.getlength(text) for text in known) / STEP) * STEP + 2 * TEXT
    margin = Image.new("L", (width, rows.shape[1]))
    for row, text in enumerate(known):
        middle = PADDING + row * (height + PADDING) + height / 2
        ImageDraw.Draw(margin).text((TEXT, middle), text, 255, font, anchor="lm")
    levels = torch.from_numpy(np.array(margin)).to(rows) / 255  # [H, W]
    return levels.expand(len(rows), -1, -1)


def _columns(n: int) -> int:
    return math.ceil(math.sqrt(n))


def save_image(image: Tensor, path: Path, *, marked: bool = True) -> None:
    """Write an image [C, H, W] in [0, 1] in the format of the file's ending.

    A grid is marked as made by vgx, so that a data set of its folder leaves it out. Raises
    `StorageError`, and `RecipeError` for an unknown ending.
    """
    ending = require_ending(path, "a still image", IMAGES)
    more = {"exif": _mark()} if marked else {}
    write_file(path, encode_image(as_pixels(image[None])[0], ending, **more))


def save_separately(chunks: Iterable[Tensor], folder: Path) -> Iterator[int]:
    """Write images [N, C, H, W] in [0, 1], chunk by chunk, as 000000.png, 000001.png and so on.

    RGBA images keep their alpha; of more channels `as_pil` takes three. Threads write while the
    next chunks are computed. Yields how many more are written. Raises
    `StorageError` for the first that cannot be.
    """
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    yield from ahead(lambda chunk: _write(folder, *chunk), _numbered(chunks), threads())


def require_free_folder(folder: Path, n: int, beside: Iterable[str] = ()) -> None:
    """Raise `StorageError` when a folder has files that are none of n images saved separately.

    `beside` are other files of the same command. A link is no such file: it leads elsewhere. What a
    killed process left is removed.
    """
    with storage(folder):
        tidy(folder)
        entries = list(os.scandir(folder)) if folder.exists() else []
        names = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    names &= {*beside, *(f"{number:06}.png" for number in range(n))}
    others = sorted({entry.name for entry in entries} - names)
    if others:
        message = f"other files are there, {len(others):,} in all, such as {others[0]}"
        raise StorageError(f"{folder}: {message}; give an empty folder or a new one")


def threads() -> int:
    """Return how many threads to use."""
    return min(os.cpu_count() or 1, THREADS)


def ahead(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield `work(item)` of each item in order; threads compute as many items ahead as there are.

    Each computes with one core: several that wait for each other in every operation are slower.
    """
    waiting = deque[Future[R]]()
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # for threads started later; this thread's never changed


def _numbered(chunks: Iterable[Tensor]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    first = 0
    for chunk in chunks:
        yield first, as_pixels(chunk)
        first += len(chunk)


def _write(folder: Path, first: int, images: NDArray[np.uint8]) -> int:
    """Write images [N, H, W, C]. They can be drawn again, so nothing waits for the disk."""
    for number, pixels in enumerate(images, first):
        write_file(folder / f"{number:06}.png", encode_image(pixels), sync=False)
    return len(images)


def animate(images: Tensor, path: Path) -> None:
    """Write images [N, C, H, W] in [0, 1] one after another, in the format of the file's ending.

    Raises `StorageError`, and `RecipeError` for an ending that no animation has.
    """
    require_animation_file(path)
    ending = require_ending(path, "an animation", ANIMATIONS)
    frames = [enlarge(as_pil(pixels).convert("RGB")) for pixels in as_pixels(opaque(images))]
    write_file(path, encode_animation(frames, [SHORT] * len(frames), ending))


def _mark() -> Image.Exif:
    """Return EXIF data that say which program made an image."""
    from PIL import ExifTags, Image

    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "vgx"
    return exif


def encode_image(pixels: NDArray[np.uint8], ending: str = ".png", **more: Any) -> bytes:
    """Return pixels [H, W, C] as a file of the format of `ending`; `more` are Pillow's options."""
    file = io.BytesIO()
    name, options, _ = IMAGES[ending]
    as_pil(pixels).save(file, name, **options, **more)
    return file.getvalue()


def encode_animation(
    frames: list[Image.Image], milliseconds: list[int], ending: str = ".webp"
) -> bytes:
    """Return frames as a file of the format of `ending`, each shown for its milliseconds.

    It is marked as made by vgx.
    """
    file = io.BytesIO()
    if ending == ".mp4":
        _write_video(frames, milliseconds, file)
        return file.getvalue()
    name, options = ANIMATIONS[ending]
    frames[0].save(
        file, name, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0,
        exif=_mark(), **options,
    )  # fmt: skip
    return file.getvalue()


def _write_video(frames: list[Image.Image], milliseconds: list[int], file: io.BytesIO) -> None:
    """Write frames as MP4 with H.264, which needs even sides: an odd last row is left out."""
    import av

    width, height = (side - side % 2 for side in frames[0].size)
    with av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=Fraction(1000, TICK))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame, time in zip(frames, milliseconds, strict=True):
            image = av.VideoFrame.from_image(frame.crop((0, 0, width, height)))
            for _ in range(round(time / TICK)):
                image.pts = None  # the next tick
                video.mux(stream.encode(image))
        video.mux(stream.encode(None))


def enlarge(image: Image.Image) -> Image.Image:
    """Return an image enlarged by a whole factor, to at most `WIDE` pixels: each pixel a square."""
    factor = max(WIDE // max(image.size), 1)
    return image.resize([side * factor for side in image.size], 0)
