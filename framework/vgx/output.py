"""What is shown: streams that may lose their reader, and text that no terminal obeys."""

from __future__ import annotations

import io
import os
import select
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_LINES, MAX_LETTERS = 10, 2000  # of a message, and of each of its lines


def visible(text: str) -> str:
    r"""Replace characters that a terminal would obey, or could not show, by their numbers.

    Letters, marks, emoji and spaces of all scripts stay. Control characters (line breaks too),
    marks of writing direction, characters of no width and bytes of a file name that are no text
    become `\x1b`, `\u202e`, `\udcff`.
    """
    return "".join(
        letter
        if letter.isprintable() or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def visible_lines(text: str) -> str:
    """Return the visible text of several lines."""
    return "\n".join(map(visible, text.split("\n")))


def short(text: str) -> str:
    """Cut a long text, so that a message stays readable."""
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text):,} characters)"


def cut(message: str) -> list[str]:
    """Return a message as a few lines that no terminal obeys; those of a library may be many."""
    lines = message.expandtabs(2).splitlines()
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [f"... and {len(lines) - MAX_LINES + 1} more lines"]
    short = (line if len(line) <= MAX_LETTERS else f"{line[:MAX_LETTERS]}..." for line in lines)
    return [*map(visible, short)]


class Output(io.BufferedIOBase):
    """A descriptor that is written to until that fails; later output is dropped in silence.

    A reader that leaves, a terminal that is closed and a full disk are noted in `error` and raise
    nothing, so that they end no training. Nobody but the garbage collector can close it.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to a copy of a descriptor."""
        self.name = self.descriptor = os.dup(descriptor)
        self.error: OSError | None = None

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        """Close the copy. When the program ends, `os` may be gone before."""
        close(self.descriptor)

    def close(self) -> None:
        """Stay open: a part that closes a stream of the program changes nothing."""

    def fileno(self) -> int:
        """Return the copy of the descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self.descriptor)

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all bytes, and return how many they are; after an error they are dropped."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.error is None:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:  # a full pipe that does not wait by itself
                poll = select.poll()
                poll.register(self.descriptor, select.POLLOUT)
                poll.poll()
            except OSError as error:
                self.error = error
        return size


def guarded(stream: TextIO | None) -> TextIO:
    """Return a stream to write to instead, which loses its reader without an error.

    Streams that are no files, as in a notebook, stay as they are. None is a stream that was closed
    before the program began.
    """
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    raw = _raw(stream)
    if type(raw) is not io.FileIO:
        return stream
    stream.flush()
    return io.TextIOWrapper(
        Output(raw.fileno()),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=isinstance(stream, io.TextIOWrapper) and stream.line_buffering,
    )


def guard_streams() -> None:
    """Guard standard output and standard error for the rest of the program.

    Descriptors 0 to 2 that are closed are opened, because the next file that is opened would get
    their number, and with it what libraries print there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)


def lost(stream: TextIO | None) -> OSError | None:
    """Return the error that a guarded stream met, if it met one."""
    raw = _raw(stream)
    if stream is None or not isinstance(raw, Output):
        return None
    stream.flush()
    return raw.error


def _raw(stream: TextIO | None) -> object:
    """Return what writes the bytes of a stream of text."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)
