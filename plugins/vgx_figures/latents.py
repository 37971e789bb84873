"""Figures of latents: the KL of each dimension, and a map.

Letters: M images, D latent dimensions, H x W pixels, R runs of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

import vgx
from vgx.data.batches import as_images
from vgx.data.store import Store
from vgx.evaluation.latents import ACTIVE, active_dimensions, kl_by_dimension
from vgx.images import as_pixels, opaque
from vgx.runs.directory import Run
from vgx_figures.drawing import (
    COLOURS,
    DASHES,
    PANELS,
    TICKS,
    Plot,
    colour,
    in_lines,
    legend,
    logarithmic,
    panels,
    plain,
)
from vgx_figures.groups import Group, named, names_of_runs
from vgx_figures.trained import Place, encoded, images_for, opened, trained_rows
from vgx_report.panels import one_in_each_cell, principal

ENCODED = 600  # images that are encoded
IMAGE = 6.0  # millimetres of an image on a map
RATIO = 3 / 4  # height of a map over its width
Rows = NDArray[np.float64]


def draw_kl(
    groups: Sequence[Group],
    width: float,
    *,
    log: bool = False,
    data: Place = None,
    device: str | None = None,
) -> Plot:
    """Draw the KL of each latent dimension, the largest first, in nats, mean over images.

    A single run has bars, with another colour for dimensions that are not active. Others have
    lines: that of several seeds is the mean of the largest ones, of the second largest, and so on,
    with a band of one standard deviation. `data` are other images than those of the runs. Raises
    `RecipeError` for an encoder without Gaussian posteriors.
    """
    figure, (panel,) = panels(1, width, 0.6)
    lines: dict[str, Artist] = {}
    notes, drawn = list[str](), list[float]()
    for i, group in enumerate(groups):
        sorted_kl, active = zip(*(_kl(run, data, device) for run in group.runs), strict=True)
        if len(groups) == len(group.runs) == 1:
            lines |= _kl_bars(panel, sorted_kl[0], active[0])
        else:
            lines[plain(group.label)] = _kl_line(panel, np.array(sorted_kl), i)
        drawn += np.concatenate(sorted_kl).tolist()
        counts = ", ".join(f"{int(each.sum()):,} of {len(each):,}" for each in active)
        notes.append(f"{group.label}: {counts} dimensions are active")
    panel.set_xlabel("latent dimension, by rank")
    panel.set_ylabel("KL (nats)")
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=TICKS, integer=True))
    panel.margins(x=0.01)
    if log:
        logarithmic(panel, np.array(drawn))
    legend(figure, lines)
    caption = f"KL of each latent dimension: {named(groups)}. {'; '.join(notes)}: the variance of "
    return Plot(figure, f"{caption}the mean over images is above {ACTIVE:g} (Burda et al. 2016).")


def _kl(run: Run, data: Place, device: str | None) -> tuple[Rows, NDArray[np.bool_]]:
    """[D], [D]  Return the KL of each dimension, largest first, and which are active."""
    trained = opened(run, device)
    store = images_for(trained, data)
    rows = store.spread(trained_rows(trained, store, data), ENCODED)
    latents = encoded(trained, store, rows)
    kl = np.array(kl_by_dimension(latents))  # [D]
    if not len(kl):
        encoder = f"the encoder {trained.recipe.encoder.type}" if trained.recipe.encoder else ""
        raise vgx.RecipeError(f"{run.path}: {encoder} gives no Gaussians, so there is no KL")
    order = np.argsort(-kl, kind="stable")
    return kl[order], active_dimensions(latents.mean).numpy()[order]


def _kl_bars(panel: Axes, kl: Rows, active: NDArray[np.bool_]) -> dict[str, Artist]:
    edges = np.arange(len(kl) + 1) + 0.5
    drawn: dict[str, Artist] = {}
    for name, shown, shade in (("active", active, COLOURS[0]), ("not active", ~active, COLOURS[4])):
        if shown.any():
            values = np.where(shown, kl, 0)
            drawn[name] = panel.stairs(values, edges, fill=True, color=shade, linewidth=0)
    return drawn


def _kl_line(panel: Axes, kl: Rows, number: int) -> Artist:
    """Draw the mean of KLs [R, D] that are sorted, with its band."""
    ranks, mean = np.arange(kl.shape[1]) + 1, kl.mean(0)
    if len(kl) > 1:
        spread = kl.std(0, ddof=1)
        panel.fill_between(
            ranks, mean - spread, mean + spread, step="mid", color=colour(number), alpha=0.2,
            linewidth=0,
        )  # fmt: skip
    style = DASHES[number % len(DASHES)]
    (line,) = panel.plot(ranks, mean, color=colour(number), linestyle=style, drawstyle="steps-mid")
    return line


# --- the map -----------------------------------------------------------------------------------


def draw_map(
    groups: Sequence[Group], width: float, *, data: Place = None, device: str | None = None
) -> Plot:
    """Draw posterior means on their first two principal axes, one panel for each run.

    Points have the colours of their classes, if the images have labels; else some of the images
    are drawn at their places. `data` are other images than those of the runs.
    """
    runs = names_of_runs(groups)
    if len(runs) > PANELS:
        raise vgx.RecipeError(f"{len(runs)} maps: a figure has {PANELS} at most")
    figure, axes = panels(len(runs), width, RATIO)
    lines: dict[str, Artist] = {}
    colours: dict[str, str] = {}  # of classes, the same in all panels
    for (name, run), panel in zip(runs, axes, strict=True):
        trained = opened(run, device)
        store = images_for(trained, data)
        rows = store.spread(trained_rows(trained, store, data), ENCODED)  # [M]
        means = encoded(trained, store, rows).mean  # [M, D]
        found = principal(means)
        if found is None:
            raise vgx.RecipeError("the latents vary in one direction only, so there is no map")
        points, explained = found
        _limits(panel, points)
        if store.labels is not None:
            names = [plain(name) for name, _ in store.classes(trained.recipe.image)]
            lines |= _classes(panel, points, np.asarray(store.labels[rows]), names, colours)
        else:
            panel.scatter(points[:, 0], points[:, 1], s=1.5, color="0.6", linewidths=0)
            # 4, 8, 12, ...: then whole cells fill the height too.
            across = 4 * max(1, round(width / _columns(axes) / IMAGE / 4))
            _thumbnails(panel, points, store, rows, across)
        panel.set_aspect("equal")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_xlabel(f"axis 1 ({explained[0]:.0%})")
        panel.set_ylabel(f"axis 2 ({explained[1]:.0%})")
        if len(runs) > 1:
            panel.set_title(in_lines(name, panel))
    legend(figure, lines)
    text = f"Posterior means of at most {ENCODED} images on their first two principal axes, with "
    return Plot(figure, f"{text}the share of the variance on each: {named(groups)}.")


def _columns(axes: Sequence[Axes]) -> int:
    spec = axes[0].get_subplotspec()
    return spec.get_gridspec().ncols if spec else 1


def _limits(panel: Axes, points: Rows) -> None:
    """Give both axes the same scale, with some room around all points."""
    low, high = points.min(0), points.max(0)
    half = 0.55 * max(high[0] - low[0], (high[1] - low[1]) / RATIO)
    middle = (low + high) / 2
    panel.set_xlim(middle[0] - half, middle[0] + half)
    panel.set_ylim(middle[1] - RATIO * half, middle[1] + RATIO * half)


def _classes(
    panel: Axes, points: Rows, labels: Rows, names: list[str], colours: dict[str, str]
) -> dict[str, Artist]:
    """Draw points [M, 2] with labels [M], those of the largest classes in the colours of these.

    Classes without a colour get one, as long as there are any left. Returns what has which name.
    """
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    largest = values[np.argsort(-counts, kind="stable")][: len(COLOURS)]
    for label in sorted(largest.tolist()):
        if len(colours) < len(COLOURS):
            colours.setdefault(names[label], colour(len(colours)))
    shown = {label: names[label] for label in largest.tolist() if names[label] in colours}
    rest = ~np.isin(labels, [*shown])
    panel.scatter(points[rest, 0], points[rest, 1], s=3, color="0.8", linewidths=0)
    drawn: dict[str, Artist] = {}
    for label, name in sorted(shown.items()):
        x, y = points[labels == label].T
        drawn[name] = panel.scatter(x, y, s=5, color=colours[name], linewidths=0, alpha=0.8)
    return drawn


def _thumbnails(
    panel: Axes, points: Rows, store: Store, rows: NDArray[np.int64], across: int
) -> None:
    """Draw in each of the square cells, `across` in a row, the image nearest to its middle."""
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    side = (right - left) / across
    placed = (points - [left, bottom]) / side  # [M, 2]
    cells = np.floor(placed).astype(np.int64)
    chosen = one_in_each_cell(placed, cells)
    pixels = as_pixels(opaque(as_images(store.images[rows[chosen]], "cpu")))  # [N, H, W, C]
    height, width = np.array(pixels.shape[1:3]) / max(pixels.shape[1:3]) * side * 0.47
    for index, image in zip(chosen, pixels, strict=True):
        x, y = (cells[index] + 0.5) * side + [left, bottom]
        extent = (x - width, x + width, y - height, y + height)
        shown = image if image.shape[-1] == 3 else image.repeat(3, -1)
        panel.imshow(shown, extent=extent, aspect="auto", zorder=2)
    panel.set_xlim(left, right)
    panel.set_ylim(bottom, top)
