"""Runs and recipes, as lists that show themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from vgx.console import aligned
from vgx.notebook import html
from vgx.notebook.history import frame
from vgx.notebook.run import Run
from vgx.output import short
from vgx.recipe import library
from vgx.runs import directory
from vgx.runs.summary import Summary, age, summarize

HEADER = ("run", "state", "step", "age", "best metric")


class Runs(Sequence[Run]):
    """Runs, newest first. In a notebook they are shown as a table."""

    def __init__(self, folder: Path, runs: Sequence[Run]) -> None:
        """Keep the runs of a folder."""
        self.folder, self.runs = folder, [*runs]

    def __len__(self) -> int:
        return len(self.runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        """Return the run at a place in the list: 0 is the newest; `vgx.Run(7)` is number 7."""
        if isinstance(index, slice):
            return Runs(self.folder, self.runs[index])
        return self.runs[index]

    def frame(self) -> Any:
        """Return a row for each run: a `pandas.DataFrame` where pandas is, else `Rows`."""
        summaries = map(summarize, self.runs)
        return frame(
            {
                "run": each.name, "state": each.state, "step": each.step, "of": each.of,
                "since": each.since, "bytes": each.bytes, "best": each.best,
            }
            for each in summaries
        )  # fmt: skip

    def _rows(self) -> list[tuple[str, ...]]:
        now = time.time()
        return [_row(summarize(run), now) for run in self.runs]

    def __repr__(self) -> str:
        count = "1 run" if len(self) == 1 else f"{len(self):,} runs"
        return "\n".join([f"{count} in {self.folder}", *aligned([HEADER, *self._rows()])])

    def _repr_html_(self) -> str:
        return html.block(html.title(str(self.folder)), html.table(HEADER, self._rows()))


def _row(each: Summary, now: float) -> tuple[str, ...]:
    steps = f"{each.step:,}" + (f" of {each.of:,}" if each.of else "")
    return each.name, short(each.state), steps, age(now - each.since), each.best


def runs(out: str | Path | None = None) -> Runs:
    """Return the runs in a folder of runs, newest first."""
    every = [Run(run.path) for run in reversed(directory.every(out))]
    return Runs(directory.runs_dir(out), every)


class Recipes(Mapping[str, str]):
    """Names of recipes, and what each is in one sentence. In a notebook they are a table."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Keep the names and the first sentences of some files."""
        self._about = {name: library.about(file) for name, file in files.items()}

    def __getitem__(self, name: str) -> str:
        """Return what a recipe is; `vgx.load_recipe(name)` is the recipe."""
        return self._about[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._about)

    def __len__(self) -> int:
        return len(self._about)

    def __repr__(self) -> str:
        count = f"{len(self):,} recipes come with vgx; train one with vgx.run(NAME)"
        return "\n".join([count, *aligned([*self.items()])])

    def _repr_html_(self) -> str:
        return html.table(("recipe", "what it is"), self.items())


def recipes() -> Recipes:
    """Return the recipes that come with vgx: their names, and what each is in one sentence."""
    return Recipes(library.recipes())
