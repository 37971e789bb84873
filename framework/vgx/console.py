"""The terminal: live progress where there is one, plain lines in a file or a pipe.

What is shown may be text of other people: all of it goes through `visible`, and rich reads no
markup and no names of emoji in it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import TextWrapper
from typing import IO, Any

from rich import console as rich_console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vgx.output import guarded, visible, visible_lines

PLAIN_SECONDS = 10  # between two lines of a progress that is not drawn live
# The speed is that of the last RATE_SECONDS, or of RATE_COUNT advances if they took longer.
RATE_SECONDS = 30
RATE_COUNT = 10  # fewer advances give no estimate of the time that is left
BAR = 30  # characters, at most
ROWS = 4  # lines of values below a bar, at most
# All lines and notices are logged too, for programs that use vgx as a library.
LOG = logging.getLogger("vgx")
LOG.addHandler(logging.NullHandler())  # without it Python would print the notices once more


class Console:
    """Where the program prints lines, notices, tables and progress."""

    def __init__(
        self, file: IO[str] | None = None, width: int | None = None, *, quiet: bool = False
    ) -> None:
        """Print to a file, by default to standard output; with `quiet` to the log alone."""
        self.rich = rich_console.Console(
            file=file or guarded(sys.stdout), width=width, quiet=quiet,
            markup=False, emoji=False, highlight=False,
            force_jupyter=False,  # `notebook.live` shows a training in a notebook
        )  # fmt: skip

    def print(self, text: str) -> None:
        """Print a text, of one line or several; a terminal gets it wrapped between words."""
        LOG.info("%s", visible_lines(text))
        self.rich.print(Text(self._wrapped(text)), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a notice."""
        LOG.warning("%s", visible_lines(text))
        self.rich.print(Text(self._wrapped(f"NOTICE: {text}"), "bold yellow"), soft_wrap=True)

    def _wrapped(self, text: str) -> str:
        """Return the visible text, its lines wrapped between words if they end in a terminal."""
        text = visible_lines(text)
        if not self.rich.is_terminal:
            return text
        # A word that is longer than a line, as a path may be, is left whole: it can be copied then.
        wrapper = TextWrapper(self.rich.width, break_long_words=False, break_on_hyphens=False)
        return "\n".join(wrapper.fill(line) for line in text.split("\n"))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; columns of numbers are aligned on the right."""
        header, *rows = ([*map(visible, row)] for row in (header, *rows))
        if not self.rich.is_terminal:
            for line in aligned([header, *rows]):
                self.print(line)
            return
        table = Table()
        for i, name in enumerate(header):
            numbers = all(row[i].replace(",", "").isdigit() for row in rows)
            table.add_column(Text(name), justify="right" if numbers else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        self.rich.print(table)

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show what the program does in the block."""
        if self.rich.is_terminal:
            with self.rich.status(Text(visible(text))):
                yield
            return
        self.print(text)
        yield

    def logged(self, line: Mapping[str, Any]) -> None:
        """Take a line of the log of a second stage. A terminal shows its progress alone."""

    @contextmanager
    def progress(
        self, label: str, total: int, done: int = 0, unit: str = "images", images: int = 1
    ) -> Iterator[Callable[[int, Sequence[str]], None]]:
        """Show the progress of a long task over items of `images` images each.

        The block gets a function to call with the number of items just done, and with values to
        show; no values leave the former ones.
        """
        progress = Progress(label, total, done, unit, images)
        if self.rich.is_terminal:
            with Live(progress, console=self.rich, transient=True):
                yield progress.advance
            return
        last = time.monotonic()

        def advance(more: int, values: Sequence[str]) -> None:
            nonlocal last
            progress.advance(more, values)
            if time.monotonic() - last >= PLAIN_SECONDS or progress.done == total:
                last = time.monotonic()
                self.print(progress.line)

        yield advance


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows of a table as lines of text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


class Progress:
    """How far a long task is. In a terminal: a bar, and below it the newest values."""

    def __init__(self, label: str, total: int, done: int, unit: str, images: int) -> None:
        """Begin with `done` of `total` items, each of `images` images."""
        self.label, self.unit = visible(label), visible(unit)
        self.total, self.done, self.images = total, done, images
        self.values: Sequence[str] = ()
        self.rate = self.left = ""  # images per second, and the time that is left
        self._marks = deque([(time.monotonic(), done)])  # times, and items done by then

    def advance(self, more: int, values: Sequence[str]) -> None:
        """Note that more items are done; fewer after a rollback."""
        self.done, self.values = self.done + more, [*map(visible, values)] or self.values
        now, marks = time.monotonic(), self._marks
        if more < 0:
            marks.clear()
        marks.append((now, self.done))
        while len(marks) > RATE_COUNT + 1 and now - marks[1][0] >= RATE_SECONDS:
            marks.popleft()
        speed = (self.done - marks[0][1]) / max(now - marks[0][0], 1e-9)  # items a second
        images = speed * self.images
        self.rate = images_per_second(images) if speed else ""
        known = speed > 0 and len(marks) > RATE_COUNT and self.done < self.total
        self.left = f"{_clock((self.total - self.done) / speed)} left" if known else ""

    @property
    def line(self) -> str:
        """All of it as one line of text."""
        count = f"{self.label} {self.done:,}/{self.total:,} {self.unit}"
        return ", ".join(text for text in (count, self.rate, self.left, *self.values) if text)

    def __rich_console__(
        self, console: rich_console.Console, options: rich_console.ConsoleOptions
    ) -> rich_console.RenderResult:
        """Draw it: first what must be seen in the narrowest terminal."""
        total = f"{self.total:,}"
        count = f"{self.done:,}".rjust(len(total)) + f"/{total}"
        numbers = f" {count} {self.rate:>16} {self.left:>13}".rstrip()
        room = options.max_width - len(self.label) - len(numbers) - 1
        bar = ProgressBar(total=self.total, completed=self.done, width=max(4, min(BAR, room)))
        row = Table.grid()
        for _ in range(3):
            row.add_column(no_wrap=True)
        row.add_row(Text(f"{self.label} ", "bold"), bar, Text(numbers))
        yield row
        for line in packed(self.values, options.max_width):
            yield Text(line, no_wrap=True, overflow="ellipsis")


def packed(values: Sequence[str], width: int) -> list[str]:
    """Return values in a few lines of at most `width` characters; dots mean that more follow."""
    lines = [""]
    for value in values:
        longer = f"{lines[-1]}  {value}"
        if len(longer) <= width - 4 or not lines[-1]:
            lines[-1] = longer
        elif len(lines) < ROWS:
            lines.append(f"  {value}")
        else:
            lines[-1] += " ..."
            break
    return lines if values else []


def images_per_second(speed: float) -> str:
    """Return a speed for people."""
    return f"{speed:,.{0 if speed >= 10 else 1}f} images/s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
