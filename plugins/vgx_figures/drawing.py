"""The style of all figures, and a figure with the files that it can be written to.

Lengths are in millimetres, as journals give them.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

import vgx
from vgx.files import require_ending, user_path, write_file
from vgx.output import short, visible

MM = 1 / 25.4  # inches
UNITS = {"mm": 1.0, "cm": 10.0, "in": 25.4, "pt": 25.4 / 72}
NARROWEST, WIDEST = 30.0, 600.0
PANEL = 42.0  # the least width of one of several panels
DPI, SCREEN = 300, 120  # of a .png file, and of a figure in a notebook
SIZE = 8  # points of the letters
LETTER = 1.6  # the width of most of them
LARGEST = 1e100  # larger numbers are not drawn: their sums and squares would not be finite
TICKS = (1, 2, 5, 10)  # steps of an axis
PANELS = 40  # in one figure, at most
# Okabe and Ito 2008: people with any kind of colour blindness tell these apart. Without yellow,
# which is hardly seen on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))  # for print without colours
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so every machine has it
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SIZE - 1,
    "ytick.labelsize": SIZE - 1,
    "legend.fontsize": SIZE,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.markerscale": 1.5,
    "legend.columnspacing": 1.2,
    "image.composite_image": False,  # each image keeps its own pixels in a PDF or SVG file
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse type 3
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "vgx",  # names in the file do not change from one time to the next
}
# Of the canvas of each ending, and what it would write into the file that changes with the time.
CANVASES: dict[str, tuple[Callable[[Figure], Any], dict[str, None]]] = {
    ".pdf": (FigureCanvasPdf, {"CreationDate": None}),
    ".svg": (FigureCanvasSVG, {"Date": None}),
    ".png": (FigureCanvasAgg, {}),
}
_LOCK = threading.RLock()  # matplotlib's settings belong to the whole process


@contextmanager
def styled() -> Iterator[None]:
    """Use the style of vgx in the block, whatever the user's own settings of matplotlib are."""
    with _LOCK, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure that can be saved, and that a notebook shows.

    `figure` is matplotlib's own, to be changed before it is saved. `caption` says what is drawn.
    """

    figure: Figure
    caption: str

    def save(self, path: str | Path) -> Path:
        """Write the figure to a `.pdf`, `.svg` or `.png` file, and return its path.

        The same figure always gives the same bytes. Raises `RecipeError` for another ending, and
        `StorageError`.
        """
        file = user_path(path)
        ending = require_figure_file(file)
        write_file(file, self.encode(ending))
        return file

    def encode(self, ending: str, dpi: int = DPI) -> bytes:
        """Return the content of a file with this ending."""
        canvas, metadata = CANVASES[ending]
        file = io.BytesIO()
        with styled(), _missing_letters():
            for image in (image for axes in self.figure.axes for image in axes.images):
                # A PDF or SVG file gets the pixels as they are; in a PNG file they are scaled.
                image.set_interpolation("antialiased" if ending == ".png" else "none")
            canvas(self.figure).print_figure(
                file, format=ending[1:], dpi=dpi, metadata=metadata, bbox_inches=None
            )
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        """Return the figure as a notebook shows it."""
        return self.encode(".png", SCREEN)

    def __repr__(self) -> str:
        """Name the size, and say what is drawn."""
        width, height = self.figure.get_size_inches() / MM
        return f"Plot({width:.0f} x {height:.0f} mm)\n{self.caption}"


@contextmanager
def _missing_letters() -> Iterator[None]:
    """Give one `Notice` for all letters that the font lacks, instead of a warning for each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message="Glyph .* missing from font")
        yield
    missing = [str(each.message) for each in caught if "missing from font" in str(each.message)]
    for other in caught:
        if "missing from font" not in str(other.message):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if missing:
        numbers = [int(found[1]) for text in missing if (found := re.match(r"Glyph (\d+)", text))]
        letters = " ".join(map(chr, sorted(set(numbers))[:20]))
        text = f"the font has no letters {letters}, so boxes are drawn; give other labels"
        warnings.warn(text, vgx.Notice, stacklevel=2)


def require_figure_file(path: Path) -> str:
    """Return the ending of a figure's file. Raises `RecipeError` for any but .pdf, .svg, .png."""
    return require_ending(path, "a figure", CANVASES)


def width_of(width: str | float) -> float:
    """Return a width in millimetres: a number of these, or a text such as 85mm, 3.3in, 241pt.

    Raises `RecipeError`.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(mm|cm|in|pt)?\s*", str(width))
    value = float(found[1]) * UNITS[found[2] or "mm"] if found else math.nan
    if not NARROWEST <= value <= WIDEST:
        range_of = f"from {NARROWEST:g} to {WIDEST:g} mm"
        raise vgx.RecipeError(f"width: {width!r}: write 85mm, 8.5cm, 3.3in or 241pt, {range_of}")
    return value


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in millimetres, laid out by matplotlib."""
    return Figure((width * MM, height * MM), layout="constrained")


def panels(
    count: int, width: float, ratio: float = 0.75, least: float = PANEL
) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many panels, `least` wide or wider, and `ratio` as high as wide."""
    columns = max(1, min(count, int(width // least)))
    rows = math.ceil(count / columns)
    figure = new_figure(width, rows * min(ratio * width / columns, 65))
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def chosen(
    known: Iterable[Iterable[str]], wanted: Sequence[str], how: str, most: int = PANELS
) -> list[str]:
    """Return the names to draw: those that are wanted, or all, in the order of the first run.

    `how` says how they became known. Raises `StorageError` when there are none, and `RecipeError`
    for an unknown name and for more than `most`.
    """
    names = list(dict.fromkeys(name for each in known for name in each))
    if not names:
        raise vgx.StorageError(f"nothing was {how} yet, so there is nothing to draw")
    for name in wanted:
        if name not in names:
            listed = ", ".join(repr(short(name)) for name in names[:most])
            raise vgx.RecipeError(f"terms: {name!r} was not {how}; there are {listed}")
    if len(names := list(dict.fromkeys(wanted)) or names) > most:
        raise vgx.RecipeError(f"terms: a figure has {most} at most, and there are {len(names):,}")
    return names


def lowest(panel: Axes, axes: Sequence[Axes]) -> bool:
    """Return whether a panel has no other one below it."""
    places = [each.get_subplotspec() for each in axes]
    own = panel.get_subplotspec()
    return own is not None and not any(
        place and place.colspan == own.colspan and place.rowspan.start > own.rowspan.start
        for place in places
    )


def in_lines(name: str, panel: Axes) -> str:
    """Return a name as the title of a panel, in as many lines as its width asks for."""
    spec, figure = panel.get_subplotspec(), panel.get_figure(root=True)
    columns = spec.get_gridspec().ncols if spec else 1
    width = figure.get_size_inches()[0] / MM / columns - 10 if figure else math.inf
    lines = [""]
    for piece in re.split(r"(?<=[._/ -])", short(visible(name))):
        if lines[-1] and len(lines[-1] + piece) * LETTER > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(map(plain, lines))


def plain(text: str) -> str:
    """Return a text as matplotlib draws it letter by letter: no formula, nothing invisible."""
    return short(visible(text)).replace("$", r"\$")


def logarithmic(panel: Axes, values: NDArray[np.float64]) -> None:
    """Give a panel a logarithmic vertical axis for values; as it is, if none is positive."""
    positive = values[values > 0]
    if not len(positive):
        return
    panel.set_yscale("log", nonpositive="mask")
    panel.yaxis.set_minor_formatter(NullFormatter())
    if positive.max() < 10 * positive.min():  # no two powers of ten are in it
        panel.yaxis.set_major_locator(MaxNLocator(3, steps=TICKS))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def colour(index: int) -> str:
    """Return the colour of a line by its number."""
    return COLOURS[index % len(COLOURS)]


def legend(figure: Figure, names: dict[str, Artist]) -> None:
    """Write the names of what is drawn above all panels, if there are two or more."""
    if len(names) > 1:
        widest = (max(map(len, names)) + 4) * LETTER
        columns = max(1, int(figure.get_size_inches()[0] / MM // widest))
        columns = min(columns, len(names))
        figure.legend(names.values(), names, loc="outside upper left", ncols=columns)
