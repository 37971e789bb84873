"""A training in a notebook: one output, replaced as the training goes on. Needs no ipywidgets."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self, TextIO, TypeVar

from vgx.console import LOG, Console, Progress, aligned
from vgx.images import as_pil, as_pixels
from vgx.notebook import html
from vgx.notebook.curves import charts
from vgx.notebook.images import as_webp, enlarged
from vgx.notebook.kernel import in_notebook
from vgx.notebook.run import Run, heading, newest_grid, second_stage
from vgx.output import visible_lines
from vgx.runs.reading import Line
from vgx.training.state import TrainedStep

SECONDS = 1.0  # between two updates, at least
LINES = 2000  # of the log that are kept for the curves; of more, every second one
MESSAGES = 400  # lines that are kept
TRACK = "height:8px;border-radius:4px;background:rgba(128,128,128,.25);max-width:480px"


class Shows(Protocol):
    """A value that shows itself, but not twice in a cell: see `kernel.ShownOnce`."""

    def _repr_html_(self) -> str: ...

    def shown(self) -> Self:
        """Note that the cell shows it already."""
        ...


Value = TypeVar("Value", bound=Shows)


class Live(Console):
    """Shows lines, notices, a bar, the newest grid and the curves in one output of a notebook."""

    def __init__(self) -> None:
        """Show nothing yet: the output appears with the first line."""
        super().__init__(io.StringIO())
        self.doing = ""
        self.bar: Progress | None = None
        self.messages: list[str] = []
        self.notices: list[str] = []
        self.lines: list[Line] = []
        self.second: list[Line] = []  # of the log of the second stage
        self.run: Run | None = None
        self.result = self.plain = ""
        self.image: tuple[bytes, str, str] | None = None
        self._handle: Any = None
        self._last = 0.0
        self._lock = threading.RLock()  # a thread prints the lines of signals

    @property
    def begun(self) -> bool:
        """Whether anything was shown."""
        return self._handle is not None

    # --- what a console does ---------------------------------------------------------------------

    def print(self, text: str) -> None:
        """Add lines to the messages."""
        LOG.info("%s", visible_lines(text))
        self.messages += text.split("\n")
        del self.messages[:-MESSAGES]
        self.update()

    def warn(self, text: str) -> None:
        """Add a notice, which is always seen."""
        LOG.warning("%s", visible_lines(text))
        self.notices.append(text)
        del self.notices[:-MESSAGES]
        self.update()

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table to the messages."""
        self.print("\n".join(aligned([header, *rows])))

    @contextlib.contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show what the program does in the block."""
        self.doing = text
        self.print(text)
        try:
            yield
        finally:
            self.doing = ""

    @contextlib.contextmanager
    def progress(
        self, label: str, total: int, done: int = 0, unit: str = "images", images: int = 1
    ) -> Iterator[Callable[[int, Sequence[str]], None]]:
        """Show a bar in the block."""
        self.bar = bar = Progress(label, total, done, unit, images)

        def advance(more: int, values: Sequence[str]) -> None:
            bar.advance(more, values)
            self.update()

        try:
            yield advance
        finally:
            self.bar = None

    def logged(self, line: Any) -> None:
        """Draw a line of the log of the second stage."""
        self.second = _fewer([*self.second, line])

    # --- what a training shows -------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """Show a run whose second stage is trained."""
        self.run, self.lines = run, _fewer(run.read_log())

    def step(self, step: TrainedStep) -> None:
        """Show what is new after a step."""
        if self.run is None:
            self.lines = step.run.read_log()  # also of the time before it was resumed
        elif step.line is not None:
            self.lines.append(step.line)
        self.lines = _fewer(self.lines)
        self.run = step.run
        if step.grids:
            name, grid = next(iter(step.grids.items()))
            image = as_webp(enlarged(as_pil(as_pixels(grid[None])[0])))
            self.image = image, "webp", f"{name} at step {step.number:,}"
        self.update()

    def end(self, run: Run | None = None, result: str = "", plain: str = "") -> None:
        """Show how it ended, with the result as HTML and as text.

        Nothing is shown when nothing was shown before.
        """
        if not self.begun:
            return
        self.run, self.doing, self.bar, self.result = run or self.run, "", None, result
        self.plain = plain
        if self.run is not None:
            self.image = newest_grid(self.run) or self.image
        self.update(now=True)

    # --- the output ------------------------------------------------------------------------------

    def update(self, *, now: bool = False) -> None:
        """Replace the output, at most once a second."""
        with self._lock:
            if not now and time.monotonic() - self._last < SECONDS:
                return
            self._last = time.monotonic()
            content = {"text/html": self.html(), "text/plain": self.text()}
            if self._handle is None:
                from IPython.display import display

                self._handle = display(content, raw=True, display_id=True)
            else:
                self._handle.update(content, raw=True)

    def text(self) -> str:
        """Return the newest line, for a notebook that shows no HTML."""
        if self.bar is not None:
            return self.bar.line
        return self.plain or (repr(self.run) if self.run else (self.messages or [""])[-1])

    def html(self) -> str:
        """Return all of it."""
        if self.run is not None and self.bar is None:
            top = html.block(heading(self.run), html.escaped(self.pace()))
        else:
            newest = "" if self.bar or self.result else self.doing or (self.messages or [""])[-1]
            top = html.title(self.run.path.name if self.run else "", newest)
        return html.block(
            top,
            self._bar(),
            html.picture(*self.image) if self.image else "",
            charts(self.lines),
            second_stage(self.second),
            self.result,
            html.lines([f"NOTICE: {text}" for text in self.notices[-10:]]),
            html.folded("what it printed", html.lines(self.messages)),
        )

    def pace(self) -> str:
        """Return the time and the speed of the training so far."""
        last = self.lines[-1] if self.lines else None
        images, seconds = (last.get("images"), last.get("seconds")) if last else (None, None)
        if images is None or not seconds:  # the log may be an older one, or a stranger's
            return ""
        return f"{images / seconds:,.1f} images/s over {seconds:,.0f} s"

    def _bar(self) -> str:
        if self.bar is None:
            return ""
        share = 100 * self.bar.done / max(self.bar.total, 1)
        inner = f'<div style="width:{share:.1f}%;height:8px;border-radius:4px;background:#2f86c9">'
        return f'{html.escaped(self.bar.line)}<div style="{TRACK}">{inner}</div></div>'


def _fewer(lines: list[Line]) -> list[Line]:
    """Return the lines, or every second one and the last of too many."""
    return lines if len(lines) <= LINES else [*lines[:-1:2], lines[-1]]


def chosen_console(*, quiet: bool) -> Console:
    """Return where a function of Python shows what it does."""
    if quiet:
        return Console(quiet=True)
    return Live() if in_notebook() else Console()


def shown(console: Console, value: Value) -> Value:
    """Show a value as the last state of a console's output; return it, to be shown once."""
    if isinstance(console, Live) and console.begun:
        console.end(None, value._repr_html_(), repr(value))
        value.shown()
    return value


class Captured:
    """Prints what anything prints in a block on a console that shows itself, or is quiet.

    It can be entered again. A part or a logger may keep the stream that it found in the block and
    print there at any time: outside of the blocks it gets the stream that was there before.
    """

    def __init__(self, console: Console) -> None:
        """Capture for a console of a notebook or a quiet one; for others do nothing."""
        shown = isinstance(console, Live) or console.rich.quiet
        self._streams = {name: _Lines(console.print) for name in ("stdout", "stderr") if shown}

    def __enter__(self) -> None:
        for name, stream in self._streams.items():
            if (outer := getattr(sys, name)) is not stream:
                stream.outer = outer
            stream.open = True
            setattr(sys, name, stream)

    def __exit__(self, *error: object) -> None:
        for name, stream in self._streams.items():
            setattr(sys, name, stream.outer)
            stream.flush_rest()
            stream.open = False


@contextlib.contextmanager
def showing(console: Console) -> Iterator[None]:
    """Print what anything prints in the block on a console, which shows no bar after a failure."""
    with Captured(console):
        try:
            yield
        except BaseException:
            if isinstance(console, Live):
                console.end()
            raise


class _Lines(io.TextIOBase):
    """A stream that passes on whole lines while it is open, and stands for another one then."""

    outer: TextIO

    def __init__(self, give: Callable[[str], None]) -> None:
        self.give, self.rest, self.open = give, "", False

    def write(self, text: str) -> int:
        if not self.open:
            return self.outer.write(text)
        *whole, self.rest = (self.rest + text).split("\n")
        for line in whole:
            self._pass_on(line)
        return len(text)

    def flush(self) -> None:
        if not self.open:
            self.outer.flush()

    def writable(self) -> bool:
        return True

    def flush_rest(self) -> None:
        """Pass on a last line that has no end."""
        if self.rest:
            self._pass_on(self.rest)
        self.rest = ""

    def _pass_on(self, line: str) -> None:
        # Of a bar that is drawn again and again the last state is enough.
        if last := line.rstrip().rpartition("\r")[2]:
            self.give(last)
