"""Grids of images with names of rows and columns: samples, and reconstructions.

Letters: N images in a row, R rows, C channels, H x W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from torch import Tensor

import vgx
from vgx.data.batches import as_images
from vgx.images import opaque
from vgx.output import short
from vgx.runs.directory import Run
from vgx.sampling.draw import Prepared, draw_rows, open_sampler
from vgx_figures.drawing import MM, SIZE, Plot, plain
from vgx_figures.groups import Group, named, names_of_runs
from vgx_figures.trained import Place, held_rows, images_for, opened
from vgx_report.run_page import device_for

ROWS, CLASSES = 60, 10  # in one figure, at most
LINE = 4.0  # millimetres of a line of text
GAP = 1.5  # millimetres between a text and an image
BAR = 2.5  # millimetres of a scale's height
POINT = 25.4 / 72  # millimetres
SMALLEST = 6  # points of the letters of a row's name
WIDEST = 0.3  # share of the width that names of rows may take
MAP = "inferno"  # black is no difference; light and dark for the colour-blind too
Row = tuple[str, Tensor]  # a name, and images [N, C, H, W] in [0, 1]


def draw_samples(
    groups: Sequence[Group],
    width: float,
    *,
    n: int | None = None,
    samplers: Sequence[str] = (),
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    seed: int = 0,
    device: str | None = None,
) -> Plot:
    """Draw new images of each run and each of the `samplers`, `n` in a row, by default 8.

    A sampler whose rows belong together has its own rows, with its names, whatever `n` is. A single
    run with a conditional decoder has a row for each class, and any other single run 4 rows;
    several runs have one row each. `rows` and `columns` are names to write instead. Image i of a
    run is that of `vgx sample` with this seed.
    """
    runs = names_of_runs(groups)
    alone = len(runs) * max(len(samplers), 1) == 1
    drawn: list[Row] = []
    for name, run in runs:
        for sampler in samplers or (None,):
            words = [name] * (len(runs) > 1) + [sampler or ""] * (len(samplers) > 1)
            drawn += _rows(run, sampler, ": ".join(words), n, seed, device, alone=alone)
    figure = _figure(_named(drawn, rows), columns, width)
    samplers_used = f" with {', '.join(samplers)}" if samplers else ""
    return Plot(figure, f"Samples drawn{samplers_used} with seed {seed}: {named(groups)}.")


def _rows(
    run: Run,
    sampler: str | None,
    name: str,
    n: int | None,
    seed: int,
    device: str | None,
    *,
    alone: bool,
) -> list[Row]:
    """Return the rows of one run and one sampler."""
    model, prepared = open_sampler(run, sampler, device=device_for(run, device))
    row = prepared.part.row_length
    if prepared.classes and prepared.names and not row and alone:
        return _classes(model, prepared, n or 8, seed)
    if n and row:
        text = f"-n: a row of the sampler {prepared.part.type} has {row} images"
        warnings.warn(text, vgx.Notice, stacklevel=2)
    length, count = row or n or 8, 4 if alone or row else 1
    images, captions = draw_rows(model, prepared, length * count, seed)
    of_rows = [": ".join(filter(None, (name, text))) for text in captions]
    names = of_rows or [name] + [""] * (count - 1)
    return list(zip(names, torch.split(images, length), strict=True))


def _classes(model: vgx.Model, prepared: Prepared, n: int, seed: int) -> list[Row]:
    """Return a row for each of the first classes.

    A class that the sampler cannot draw, for lack of stored latents, is left out with a `Notice`;
    if all are, its `RecipeError` is raised.
    """
    drawn: list[Row] = []
    failed: vgx.RecipeError | None = None
    for label, name in enumerate(prepared.names[:CLASSES]):
        try:
            drawn.append((name, draw_rows(model, replace(prepared, label=label), n, seed)[0]))
        except vgx.RecipeError as error:
            failed = error
            warnings.warn(f"left out: class {name}: {error}", vgx.Notice, stacklevel=2)
    if failed is not None and not drawn:
        raise failed
    return drawn


def draw_reconstructions(
    groups: Sequence[Group],
    width: float,
    *,
    n: int = 8,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    data: Place = None,
    device: str | None = None,
) -> Plot:
    """Draw `n` images, their reconstructions by each run, and maps of the difference.

    The images are held-out ones if there are any, chosen by their content, or those of `data`. A
    map has the absolute difference of values in [0, 1], mean over channels; one scale holds for
    all maps. `rows` and `columns` are names to write instead. Raises `RecipeError` for runs of
    other images.
    """
    runs = names_of_runs(groups)
    real: Tensor | None = None
    maps: list[tuple[int, Tensor]] = []
    drawn: list[Row] = []
    for name, run in runs:
        trained = opened(run, device)
        store = images_for(trained, data)
        of, what = held_rows(trained, store, data)
        chosen = store.first(of, n)
        images = as_images(store.images[chosen], trained.device)  # [N, C, H, W]
        labels = None if store.labels is None else torch.from_numpy(store.labels[chosen])  # [N]
        z = trained.model.encode(images, labels)  # [N, *Z]
        recon = trained.model.decode(z, labels).cpu()  # [N, C, H, W]
        images = images.cpu()
        if real is None:
            real = images
            drawn.append(("image", real))
        elif not torch.equal(real, images):
            raise vgx.RecipeError(
                f"{run.path}: its images are not those of {runs[0][1].path}; give images for all "
                "of them: --data PLACE (in Python: data=)"
            )
        words = f"{name}: " if len(runs) > 1 else ""
        drawn.append((f"{words}reconstruction", recon))
        maps.append((len(drawn), (recon - images).abs().mean(1)))
        drawn.append(("difference", recon))
    top = max(float(difference.max()) for _, difference in maps) or 1.0
    for place, difference in maps:
        drawn[place] = (drawn[place][0], _coloured(difference / top))
    figure = _figure(_named(drawn, rows), columns, width, top)
    text = f"{what[0].upper()}{what[1:]}, their reconstructions, and absolute differences"
    return Plot(figure, f"{text} (mean over channels): {named(groups)}.")


def _coloured(values: Tensor) -> Tensor:
    """[N, 3, H, W]  Return values [N, H, W] in [0, 1] as colours."""
    colours = matplotlib.colormaps[MAP](values.numpy())[..., :3]  # [N, H, W, 3]
    return torch.from_numpy(colours).float().permute(0, 3, 1, 2)


# --- the grid ----------------------------------------------------------------------------------


def _named(drawn: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return rows with the names that the user gives.

    Raises `RecipeError` for too many rows, and for images of several sizes.
    """
    if names and len(names) != len(drawn):
        raise vgx.RecipeError(f"rows: {len(names)} names for {len(drawn)} rows")
    if len(drawn) > ROWS:
        raise vgx.RecipeError(f"{len(drawn)} rows of images: a figure has {ROWS} at most")
    sizes = dict.fromkeys("{} x {}".format(*images.shape[2:]) for _, images in drawn)
    if len(sizes) > 1:
        message = f"the images have {' and '.join(sizes)} pixels; give runs of one size"
        raise vgx.RecipeError(message)
    if not names:
        return list(drawn)
    return [(name, images) for name, (_, images) in zip(names, drawn, strict=True)]


def _figure(
    drawn: Sequence[Row], columns: Sequence[str], width: float, top: float | None = None
) -> Figure:
    """Return rows of images as a figure; with `top`, a scale from 0 to that stands below them."""
    pixels, middles = _tiled(drawn)
    count = max(len(images) for _, images in drawn)
    if columns and len(columns) != count:
        raise vgx.RecipeError(f"columns: {len(columns)} names for {count} columns")
    left = max((_length(name) for name, _ in drawn), default=0.0)
    left = min(left + 2 * GAP, WIDEST * width) if left else 0.0
    across = width - left
    above, upright = 0.0, False
    if columns:
        longest = max(map(_length, columns))
        upright = longest > 0.95 * across / count
        above = (longest if upright else LINE) + GAP
    below = 0.0 if top is None else BAR + 3 * LINE
    high = across * pixels.shape[0] / pixels.shape[1]
    height = above + high + below
    figure = Figure((width * MM, height * MM))
    axes = figure.add_axes((left / width, below / height, across / width, high / height))
    axes.imshow(pixels, aspect="auto")
    axes.set_axis_off()
    texts, size = _row_names([name for name, _ in drawn], left - 2 * GAP, high / len(drawn))
    for text, middle in zip(texts, middles[0], strict=True):
        x, y = (left - GAP) / width, 1 - (above + middle * high) / height
        if text:
            figure.text(x, y, text, size=size, ha="right", va="center")
    for name, middle in zip(columns, middles[1], strict=False):
        x, y = (left + middle * across) / width, 1 - (above - GAP) / height
        angle = 90 if upright else 0
        figure.text(x, y, plain(name), ha="center", va="bottom", rotation=angle)
    if top is not None:
        # Narrower than the images, so that the last number has room.
        place = (left / width, (below - GAP - BAR) / height, 0.95 * across / width, BAR / height)
        _scale(figure, place, top)
    return figure


def _tiled(drawn: Sequence[Row]) -> tuple[np.ndarray, tuple[list[float], list[float]]]:
    """Return rows of images side by side [H, W, 3], and where the middles of rows and columns are.

    Between them is white. The middles are shares of the height and of the width.
    """
    height, width = drawn[0][1].shape[2:]
    gap = max(1, min(height, width) // 24)
    count = max(len(images) for _, images in drawn)
    shape = (len(drawn) * (height + gap) - gap, count * (width + gap) - gap, 3)
    pixels = np.ones(shape, np.float32)
    for r, (_, images) in enumerate(drawn):
        shown = opaque(images).cpu().clamp(0, 1)  # [N, 1 or 3, H, W]
        shown = shown.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        for i, image in enumerate(shown.numpy()):
            y, x = r * (height + gap), i * (width + gap)
            pixels[y : y + height, x : x + width] = image
    rows = [(r * (height + gap) + height / 2) / shape[0] for r in range(len(drawn))]
    columns = [(i * (width + gap) + width / 2) / shape[1] for i in range(count)]
    return pixels, (rows, columns)


def _length(text: str, size: float = SIZE) -> float:
    """Return the length of a text in millimetres, in letters of this size in points."""
    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), plain(text), size=size).get_extents().width) * POINT


def _row_names(names: Sequence[str], wide: float, high: float) -> tuple[list[str], float]:
    """Return names in lines that fit this width and height, and the size of their letters.

    The letters are smaller where that helps; what does not fit then is cut.
    """
    for size in range(SIZE, SMALLEST - 1, -1):
        lines = [_lines(short(name), wide, size) for name in names]
        most = max(1, int(high / (1.2 * size * POINT)))
        if all(len(each) <= most for each in lines):
            break
    cut = [
        each if len(each) <= most else [*each[: most - 1], f"{each[most - 1]}…"] for each in lines
    ]
    return ["\n".join(map(plain, each)) for each in cut], size


def _lines(name: str, room: float, size: float) -> list[str]:
    """Return a name, broken at its spaces into lines of at most this length."""
    lines: list[str] = []
    for word in name.split(" "):
        if lines and _length(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _scale(figure: Figure, place: tuple[float, float, float, float], top: float) -> None:
    """Draw the scale of the maps."""
    axes: Axes = figure.add_axes(place)
    mappable = ScalarMappable(Normalize(0, top), MAP)
    bar = figure.colorbar(mappable, cax=axes, orientation="horizontal")
    bar.set_label("absolute difference")
    bar.outline.set_linewidth(0.6)
