"""The terminal: live progress where there is one, plain lines in a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from rich import console as rich_console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_SECONDS = 10  # between two lines of a progress that is not drawn live


class Console:
    """Where the program prints lines, notices, tables and progress."""

    def __init__(self, file: IO[str] | None = None, width: int | None = None) -> None:
        """Print to a file; by default to standard output."""
        self.rich = rich_console.Console(file=file, width=width)

    def print(self, text: str) -> None:
        """Print a line as it is."""
        self.rich.print(escape(text), soft_wrap=True, highlight=False)

    def warn(self, text: str) -> None:
        """Print a notice."""
        line = escape(f"NOTICE: {text}")
        self.rich.print(f"[bold yellow]{line}[/]", soft_wrap=True, highlight=False)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; columns of numbers are aligned on the right."""
        if not self.rich.is_terminal:
            widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
            for row in [header, *rows]:
                cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                self.print("  ".join(cells).rstrip())
            return
        table = Table()
        for i, name in enumerate(header):
            numbers = all(row[i].replace(",", "").isdigit() for row in rows)
            table.add_column(name, justify="right" if numbers else "left")
        for row in rows:
            table.add_row(*map(escape, row))
        self.rich.print(table)

    @contextmanager
    def progress(
        self, label: str, total: int, done: int = 0
    ) -> Iterator[Callable[[int, str], None]]:
        """Show the progress of a long task.

        The block gets a function to call with the number of items just done, and a text.
        """
        if self.rich.is_terminal or self.rich.is_jupyter:
            with self._bar() as bar:
                task = bar.add_task(label, total=total, completed=done, text="")

                def update(more: int, text: str) -> None:
                    bar.update(task, advance=more)
                    if text:
                        bar.update(task, text=escape(text))

                yield update
            return
        start = last = time.monotonic()
        so_far, latest = done, ""

        def advance(more: int, text: str) -> None:
            nonlocal last, so_far, latest
            so_far += more
            now = time.monotonic()
            latest = text or latest
            if now - last >= PLAIN_SECONDS or so_far == total:
                last = now
                left = (now - start) / max(so_far - done, 1) * (total - so_far)
                line = f"{label} {so_far:,}/{total:,} {latest} {_clock(left)} left"
                self.print(line.replace("  ", " "))

        yield advance

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self.rich,
            transient=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
