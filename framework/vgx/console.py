"""How vgx speaks: live for a person at a terminal, plain lines for a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_SECONDS = 10  # between two lines of a long work, where nothing can be drawn over


class Voice:
    """One place where everything is said."""

    def __init__(self, console: Console | None = None) -> None:
        """Speak on standard output unless told otherwise."""
        self.console = console or Console()

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(escape(text), soft_wrap=True, highlight=False)

    def warn(self, text: str) -> None:
        """Print a line that must not be overlooked."""
        line = escape(f"NOTICE: {text}")
        self.console.print(f"[bold yellow]{line}[/]", soft_wrap=True, highlight=False)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; columns of numbers stand on the right."""
        if not self.console.is_terminal:
            widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
            for row in [header, *rows]:
                self.say(
                    "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                )
            return
        drawn = Table()
        for i, name in enumerate(header):
            numbers = all(row[i].replace(",", "").isdigit() for row in rows)
            drawn.add_column(name, justify="right" if numbers else "left")
        for row in rows:
            drawn.add_row(*map(escape, row))
        self.console.print(drawn)

    @contextmanager
    def work(self, label: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
        """Show how far a long work is: the block gets a function of (how many more, a text)."""
        if self.console.is_terminal or self.console.is_jupyter:
            with self._bar() as bar:
                task = bar.add_task(label, total=total, completed=done, text="")

                def update(more: int, text: str) -> None:
                    bar.update(task, advance=more)
                    if text:
                        bar.update(task, text=escape(text))

                yield update
            return
        start = last = time.monotonic()
        so_far, said = done, ""

        def advance(more: int, text: str) -> None:
            nonlocal last, so_far, said
            so_far += more
            now = time.monotonic()
            said = text or said
            if now - last >= PLAIN_SECONDS or so_far == total:
                last = now
                left = (now - start) / max(so_far - done, 1) * (total - so_far)
                self.say(
                    f"{label} {so_far:,}/{total:,} {said} {_clock(left)} left".replace("  ", " ")
                )

        yield advance

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
