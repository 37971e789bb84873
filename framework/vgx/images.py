"""Pictures as PNG files, each written whole or not at all; and work that is done ahead in threads.

Letters: N pictures, C channels, H x W pixels.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgx.errors import StorageError
from vgx.files import refusal, write_file

if TYPE_CHECKING:
    from PIL import Image

THREADS = 8  # more than these are ahead of any disk, and of any device
WIDE, SHORT = 384, 150  # pixels of an animation, and milliseconds of each of its pictures
T = TypeVar("T")
R = TypeVar("R")


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> Tensor:
    """Write images [N, C, H, W] in [0, 1] as one PNG, as square as it goes: 100 make 10x10.

    Returns the grid [C, H, W]. Raises `StorageError`.
    """
    from torchvision.utils import make_grid

    columns = columns or math.ceil(math.sqrt(len(images)))
    grid: Tensor = make_grid(images.cpu(), nrow=columns, padding=2)
    save_png(grid, path)
    return grid


def save_png(image: Tensor, path: Path) -> None:
    """Write an image [C, H, W] in [0, 1] as a PNG. Raises `StorageError`."""
    write_file(path, _png(_pixels(image[None])[0]))


def save_separately(chunks: Iterable[Tensor], folder: Path) -> Iterator[int]:
    """Write images [N, C, H, W] in [0, 1], chunk by chunk, as 000000.png, 000001.png and so on.

    It is done in threads while the next chunks are made. Gives how many more are written. Raises
    `StorageError` for the first that cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: {refusal(error, folder.parent)}") from error
    yield from ahead(lambda piece: _write(folder, *piece), _numbered(chunks), threads())


def threads() -> int:
    """Return how many threads work is spread over."""
    return min(os.cpu_count() or 1, THREADS)


def ahead(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Give `work` of each item in order; threads are at it, so many items ahead and no more.

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
        torch.set_num_threads(cores)  # for threads that are yet to come; this one never changed


def _numbered(chunks: Iterable[Tensor]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    first = 0
    for chunk in chunks:
        yield first, _pixels(chunk)
        first += len(chunk)


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    """[N, H, W, C]  Images [N, C, H, W] in [0, 1] as bytes."""
    scaled = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    # After PNG's filters, runs are all there is to find in a photograph: a third less time than the
    # default, and no more bytes.
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()


def _write(folder: Path, first: int, pictures: NDArray[np.uint8]) -> int:
    """Write pictures [N, H, W, C]. They can be drawn again, so nobody waits for the disk."""
    for number, pixels in enumerate(pictures, first):
        path = folder / f"{number:06}.png"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(_png(pixels))
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise StorageError(f"{path}: {refusal(error, folder)}") from error
    return len(pictures)


def animate(images: Tensor, path: Path) -> None:
    """Write images [N, C, H, W] in [0, 1] one after another, as an animated WebP."""
    from PIL import Image

    scaled = (images * 255).round().clamp(0, 255).to(torch.uint8)
    pixels = scaled.permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()  # [N, H, W, C] or [N, H, W]
    frames = [enlarged(Image.fromarray(each).convert("RGB")) for each in pixels]
    write_file(path, film(frames, [SHORT] * len(frames)))


def film(frames: list[Image.Image], times: list[int]) -> bytes:
    """Return an animated WebP of pictures that stand for so many milliseconds each."""
    file = io.BytesIO()
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=times, loop=0,
        quality=80, method=2,
    )  # fmt: skip
    return file.getvalue()


def enlarged(picture: Image.Image) -> Image.Image:
    """Return a picture made larger by a whole number: each pixel stays one."""
    factor = max(WIDE // picture.width, 1)
    return picture.resize([side * factor for side in picture.size], 0)
