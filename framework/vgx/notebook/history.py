"""Rows of numbers for people: as a frame of pandas where pandas is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from vgx.notebook import html
from vgx.runs.reading import Line

SHOWN = 5  # rows that are shown at the beginning and at the end


class Rows(Sequence[dict[str, Any]]):
    """A few columns and any number of rows, where pandas is not installed."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        """Keep the rows: dictionaries that may lack some columns."""
        self.rows = [*rows]
        self.columns = [*dict.fromkeys(name for row in self.rows for name in row)]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, index: str) -> list[Any]: ...
    def __getitem__(self, index: int | slice | str) -> Any:
        """Return a row, some rows, or the values of a column, None where it has none."""
        if isinstance(index, str):
            if index not in self.columns:
                raise KeyError(f"{index}: there are {', '.join(self.columns)}")
            return [row.get(index) for row in self.rows]
        return self.rows[index]

    def __repr__(self) -> str:
        names = ", ".join(self.columns)
        return f"{len(self):,} rows\n{names}"

    def _repr_html_(self) -> str:
        few = len(self) <= 2 * SHOWN
        cut = self.rows if few else [*self.rows[:SHOWN], {}, *self.rows[-SHOWN:]]
        cells = [[_text(row.get(name)) if row else "…" for name in self.columns] for row in cut]
        return html.block(html.table(self.columns, cells), f"{len(self):,} rows")


def history(lines: Iterable[Line]) -> Any:
    """Return the lines of a log as rows, with a column for each number: `losses.l1`.

    The result is a `pandas.DataFrame` where pandas is installed, else `Rows`.
    """
    return frame(_flat(line) for line in lines if line.get("losses"))


def frame(rows: Iterable[dict[str, Any]]) -> Any:
    """Return rows as a `pandas.DataFrame` where pandas is installed, else as `Rows`."""
    kept = Rows(rows)
    try:
        import pandas
    except ImportError:
        return kept
    return pandas.DataFrame(kept.rows, columns=kept.columns)


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": each for name, each in value.items()}
        elif not isinstance(value, list):
            flat[key] = value
    return flat


def _text(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
