"""`vgx watch` without a run: the runs of a folder, live, each with a link to its own page.

The list is read from the files of the runs and executes none of their code. The page of a run is
made when somebody opens it, by the rules of `watch`: it needs the parts of the recipe.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import vgx
from vgx.errors import Notice, VgxError
from vgx.output import short
from vgx.runs import reading
from vgx.runs.directory import Run, every, runs_dir
from vgx.runs.frames import evenly, files, pixels_of
from vgx.runs.summary import summarize
from vgx.runs.trust import registry_of
from vgx_report.family import origin
from vgx_report.tables import number
from vgx_report.watch import (
    GRID,
    REST,
    Reply,
    Watched,
    address_of,
    as_news,
    as_page,
    png_of,
    stamps,
    time_left,
)

MOST = 100  # runs in the list
POINTS = 60  # of a curve
CURVES = 24  # of a run
LOOKED_AT = 4  # steps, of which the newest with a grid is shown
OPEN = 8  # pages of runs whose data are kept


class Overview:
    """The runs of a folder, the newest first, read again when their files have changed."""

    def __init__(self, out: Path | None = None) -> None:
        """Look at the runs in `out`, by default the folder of runs."""
        self.out = out
        self.lock, self.drawing = threading.Lock(), threading.Lock()
        self.rested = 0.0  # the time from which the runs may be looked at again
        self.version = 0
        self.count = 0  # of all runs in the folder
        self.known: dict[str, tuple[list[object], dict[str, Any]]] = {}  # by name, as listed
        self.pages: dict[str, Watched] = {}

    def answer(self, place: str, query: str) -> Reply:
        """Return the list, its state, or what belongs to one of the runs."""
        if place == "/":
            return as_page(self.newest()[1], "runs")
        if place == "/state":
            return as_news(*self.newest(), query)
        quoted, _, rest = place.removeprefix("/").partition("/")
        name = os.fsdecode(unquote_to_bytes(quoted))
        run = next((each for each in every(self.out) if each.path.name == name), None)
        if run is None or not place.startswith(f"/{quoted}/"):
            return Reply(404)
        try:
            if rest.startswith("grids/"):
                pixels = pixels_of(reading.recipe(run.path))
                return png_of(run, rest.removeprefix("grids/"), pixels, self.drawing)
            return self.page(run).answer(f"/{rest}", query)
        except VgxError as error:
            again = f"When that is mended: vgx watch {run.short}"
            text = f"The page of {name} cannot be shown:\n\n{error}\n\n{again}\n"
            return Reply(409, body=text.encode(errors="replace"))

    def page(self, run: Run) -> Watched:
        """Return the page of a run. Raises `vgx.VgxError` for one that is damaged or not trusted.

        Its plugin files are executed only when they are trusted already.
        """
        name = run.path.name
        with self.lock:
            if name not in self.pages:
                recipe = vgx.load_recipe(run.recipe_file, (), registry_of(run))
                self.pages[name] = Watched(run, recipe, up="../")
                for old in [*self.pages][:-OPEN]:
                    del self.pages[old]
            return self.pages[name]

    def newest(self) -> tuple[int, dict[str, Any]]:
        """Return the version and the data of the page.

        Making them takes at most a tenth of the time of one processor, however many runs there are.
        """
        with self.lock:
            begun = time.monotonic()
            if begun >= self.rested:
                self._look()
                self.rested = time.monotonic() + REST * (time.monotonic() - begun)
            return self.version, {
                "name": "Runs",
                "kicker": f"The runs in {runs_dir(self.out).resolve().name}",
                "runs": [row for _, row in self.known.values()],
                "count": self.count,
                "live": {"version": self.version, "state": "running"},
            }

    def _look(self) -> None:
        """Read the runs whose files have changed."""
        runs = [*reversed(every(self.out))]
        known = {}
        for run in runs[:MOST]:
            name = run.path.name
            before = self.known.get(name)
            seen = stamps(run, before[1]["state"] if before else "")
            known[name] = before if before and before[0] == seen else (seen, row_of(run))
        if (len(runs), [*known.items()]) != (self.count, [*self.known.items()]):
            self.version += 1
        self.count, self.known = len(runs), known


def row_of(run: Run) -> dict[str, Any]:
    """Return what the list shows of a run; of a damaged one, what is left of it."""
    now = summarize(run)
    with warnings.catch_warnings():  # what is wrong with a file stands on the page of the run
        warnings.simplefilter("ignore", Notice)
        lines = reading.unless_damaged(lambda path: Run(path).read_log(), run.path) or []
    running = now.state == "running" and lines
    return {
        "name": now.name,
        "page": f"{quote_from_bytes(os.fsencode(run.path.name), safe='')}/",
        "state": short(now.state),
        "step": now.step,
        "of": now.of,
        "left": time_left(now, lines[-1]) if running else "",
        "since": now.since,
        "best": now.best,
        "note": now.note,
        "origin": origin(now.parent),
        "grid": _grid(run),
        "curves": _curves(lines),
    }


def _grid(run: Run) -> dict[str, Any] | None:
    """Return the address of the newest grid: of the sampler, of reconstructions or of the prior."""
    names = [path.name for path in run.samples.glob("*-*.png") if GRID.fullmatch(path.name)]
    steps = {int(name.removesuffix(".png").partition("-")[2]) for name in names}
    for step in sorted(steps, reverse=True)[:LOOKED_AT]:
        ours = files(run.samples, step)
        for kind in ("samples", "recon", "prior"):
            if found := address_of(run, ours[kind]):
                return found
    return None


def _curves(lines: list[reading.Line]) -> dict[str, dict[str, Any]]:
    """Return the metrics and the losses of a log by name: steps and values."""
    found: dict[str, dict[str, Any]] = {}
    for kind in ("metrics", "losses"):
        having = [line for line in lines if line.get(kind)]
        for line in evenly(having, POINTS):
            values = line["metrics"] if kind == "metrics" else line["losses"]
            for name, value in values.items():
                if (finite := number(value)) is None:
                    continue
                if name not in found and len(found) < CURVES:
                    found[name] = {"kind": kind, "steps": [], "values": []}
                if name in found and found[name]["kind"] == kind:
                    found[name]["steps"].append(line["step"])
                    found[name]["values"].append(finite)
    return found
