"""Images as PNG and WebP files, each written whole or not at all; and work done ahead in threads.

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
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgx.files import storage, write_file

if TYPE_CHECKING:
    from PIL import Image

THREADS = 8  # more than these are faster than any disk and any device
PADDING = 2  # pixels between the images of a grid
TEXT, STEP = 11, 40  # pixels of the captions' font, and of the steps of their width
WIDE, SHORT = 384, 150  # pixels of an animation, and milliseconds of each of its frames
T = TypeVar("T")
R = TypeVar("R")


def levels(images: Tensor) -> Tensor:
    """Return images in [0, 1] as whole numbers from 0 to 255, of the same type and shape."""
    return (images * 255).round().clamp(0, 255)


def as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """[N, H, W, C]  Return images [N, C, H, W] in [0, 1] as bytes."""
    scaled = levels(images).to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def as_pil(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return pixels [H, W, C] as a PIL image, in greyscale if there is one channel."""
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def save_grid(
    images: Tensor, path: Path, columns: int | None = None, captions: Sequence[str] = ()
) -> Tensor:
    """Write the `grid` of images [N, C, H, W] in [0, 1] as one PNG, and return it.

    Raises `StorageError`.
    """
    made = grid(images, columns, captions)
    save_png(made, path)
    return made


def grid(images: Tensor, columns: int | None = None, captions: Sequence[str] = ()) -> Tensor:
    """[C, H, W]  Images [N, C, h, w] in [0, 1] in rows, by default as a square: 100 make 10x10.

    `captions` are written at the left of the rows.
    """
    from torchvision.utils import make_grid

    columns = columns or math.ceil(math.sqrt(len(images)))
    rows: Tensor = make_grid(images.cpu(), nrow=columns, padding=PADDING)
    return torch.cat([_margin(captions, rows, images.shape[-1]), rows], 2) if captions else rows


def _margin(captions: Sequence[str], rows: Tensor, size: int) -> Tensor:
    """[C, H, W]  The captions of rows of images of so many pixels, white on black."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(TEXT)
    # In steps, so that captions of other numbers do not change the size of the grid.
    width = math.ceil(max(font.getlength(text) for text in captions) / STEP) * STEP + 2 * TEXT
    margin = Image.new("L", (width, rows.shape[1]))
    for row, text in enumerate(captions):
        middle = PADDING + row * (size + PADDING) + size / 2
        ImageDraw.Draw(margin).text((TEXT, middle), text, 255, font, anchor="lm")
    levels = torch.from_numpy(np.array(margin)).to(rows) / 255  # [H, W]
    return levels.expand(len(rows), -1, -1)


def save_png(image: Tensor, path: Path) -> None:
    """Write an image [C, H, W] in [0, 1] as a PNG. Raises `StorageError`."""
    write_file(path, encode_png(as_pixels(image[None])[0]))


def save_separately(chunks: Iterable[Tensor], folder: Path) -> Iterator[int]:
    """Write images [N, C, H, W] in [0, 1], chunk by chunk, as 000000.png, 000001.png and so on.

    Threads write while the next chunks are computed. Yields how many more are written. Raises
    `StorageError` for the first that cannot be.
    """
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    yield from ahead(lambda chunk: _write(folder, *chunk), _numbered(chunks), threads())


def threads() -> int:
    """Return how many threads to use."""
    return min(os.cpu_count() or 1, THREADS)


def ahead(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield `work(item)` of each item in order; so many threads compute as many items ahead.

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
        write_file(folder / f"{number:06}.png", encode_png(pixels), sync=False)
    return len(images)


def animate(images: Tensor, path: Path) -> None:
    """Write images [N, C, H, W] in [0, 1] one after another, as an animated WebP."""
    frames = [enlarge(as_pil(pixels).convert("RGB")) for pixels in as_pixels(images)]
    write_file(path, encode_webp(frames, [SHORT] * len(frames)))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels [H, W, C] as a PNG file."""
    file = io.BytesIO()
    # After PNG's filters a photograph compresses by runs alone: a third less time than the default,
    # and no more bytes.
    as_pil(pixels).save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()


def encode_webp(frames: list[Image.Image], milliseconds: list[int]) -> bytes:
    """Return frames as an animated WebP file, each shown for its number of milliseconds."""
    file = io.BytesIO()
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0,
        quality=80, method=2,
    )  # fmt: skip
    return file.getvalue()


def enlarge(image: Image.Image) -> Image.Image:
    """Return an image enlarged by a whole factor, to at most `WIDE` pixels: each pixel a square."""
    factor = max(WIDE // image.width, 1)
    return image.resize([side * factor for side in image.size], 0)
