"""A table of values in a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vgx

if TYPE_CHECKING:
    from torch import Tensor


class Csv(vgx.Tracker, type="csv"):
    """A table `trackers/values.csv` in the run: a row for each step, a column for each value.

    The steps are those of the log, the format is RFC 4180. A cell is empty where a step lacks a
    value. Images are not kept; `samples/` has them.
    """

    def build(self, run: Path) -> vgx.OpenTracker:
        """Open the run's table, which may have rows already."""
        return _Table(run / "trackers" / "values.csv")


class _Table:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.path, self.temporary = path, path.with_name(f".{path.name}")
        self.temporary.unlink(missing_ok=True)  # left by a process that was killed
        self.columns, rows = ["step"], list[dict[str, Any]]()
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # without a row that was cut off by a kill
            reader = csv.DictReader(whole.splitlines())
            rows, self.columns = list(reader), list(reader.fieldnames or self.columns)
            if whole != text:
                self._write(rows)
        self.last = int(rows[-1]["step"]) if rows else -1

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append a row, or rewrite the table when a step is repeated or has a new column."""
        row = {"step": step, **values}
        new = [name for name in row if name not in self.columns]
        if new or step <= self.last or not self.path.exists():
            rows = self._read()
            self.columns += new
            self._write([*(old for old in rows if int(old["step"]) < step), row])
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                self._writer(file).writerow(row)
        self.last = step

    def images(self, step: int, name: str, grid: Tensor) -> None:
        """Keep no images."""

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with self.temporary.open("w", encoding="utf-8", newline="") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(rows)
        self.temporary.replace(self.path)

    def _writer(self, file: Any) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self.columns, lineterminator="\n")
