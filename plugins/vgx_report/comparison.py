"""`vgx.compare`: several runs side by side, as a value that shows itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import vgx
from vgx.console import aligned
from vgx.files import require_ending, user_path
from vgx.notebook import html
from vgx.runs.directory import Run, find
from vgx_report import compare as comparing
from vgx_report.html import PAGE
from vgx_report.tables import Row


class Comparison:
    """Runs side by side: facts, where their recipes differ, figures. A notebook shows tables."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """Read the files of the runs. Raises `vgx.StorageError` for one without a recipe."""
        self.runs = [comparing.read(run) for run in runs]

    @property
    def notices(self) -> list[str]:
        """What makes these runs hard to compare."""
        return comparing.notices(self.runs)

    @property
    def differences(self) -> dict[str, tuple[str, ...]]:
        """The fields in which the recipes differ, with the value in each run."""
        rows = comparing.differences([run.recipe for run in self.runs])
        return {row[0]: row[1:] for row in rows}

    def save(self, path: str | Path) -> Path:
        """Write the page with curves and images, one HTML file, and return it."""
        file = user_path(path)
        require_ending(file, "a page", PAGE)
        comparing.write(self.runs, file)
        return file

    def __repr__(self) -> str:
        names = ", ".join(run.name for run in self.runs)
        fields = ", ".join(self.differences) or "nothing"
        return f"Comparison of {names}\ntheir recipes differ in: {fields}"

    def __str__(self) -> str:
        lines = [f"NOTICE: {text}" for text in self.notices]
        for title, header, rows in self.tables():
            lines += ["", title, *aligned([header, *rows])]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [
            html.block(html.escaped(title), html.table(header, rows))
            for title, header, rows in self.tables()
        ]
        return html.block(html.lines([f"NOTICE: {text}" for text in self.notices]), *parts)

    def tables(self) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        """Return a title, a header and rows each: facts, differences, figures."""
        names = tuple(run.name for run in self.runs)
        fields = [(field, *values) for field, values in self.differences.items()]
        tables = [("", ("", *names), comparing.facts(self.runs))]
        if fields:
            tables.append(("where their recipes differ", ("field", *names), fields))
        for table in comparing.evaluation_tables(self.runs):
            title = table.title + (f" ({table.warning})" if table.warning else "")
            tables.append((title, ("figure", *names), [*map(marked, table.rows)]))
        return tables


def marked(row: Row) -> tuple[str, ...]:
    """Return the cells of a row with a star at the best figure."""
    return (row.name, *(f"{cell} *" if i == row.best else cell for i, cell in enumerate(row.cells)))


def compare(*runs: Run | str | Path | int) -> Comparison:
    """Return two runs or more side by side; each is a run, a path, a number or a name."""
    found = [find(run) for run in runs]
    if len({run.path.resolve() for run in found}) < max(len(found), 2):
        raise vgx.RecipeError("give two runs or more, each once: vgx.compare(6, 7)")
    return Comparison(found)
