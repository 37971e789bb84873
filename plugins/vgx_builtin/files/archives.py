"""Archives of images: their files, what is in them, and what becomes too large."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import vgx
from vgx_builtin.files.formats import endings, why_not
from vgx_builtin.files.image_files import MAX_BYTES, open_regular
from vgx_builtin.files.leftovers import left_out, mark_of
from vgx_builtin.files.walk import Found

AT_ONCE = 2**24
"""So many bytes of a member are unpacked whatever their number was before."""
MAX_RATIO = 100
"""More than `AT_ONCE` bytes are not unpacked if they are so many times as many as before."""
FEW = 300_000
"""Any archive may have so many members; more take memory, so only a large archive may."""
_BYTES_PER_MEMBER = 256  # of an archive with more than `FEW` members
_LONGEST = 255  # letters of a name that a file can have
_LEAST = 46  # bytes of a member in the table of contents of a zip file


class RegularFile(io.RawIOBase):
    """A regular file that threads read at the same time, by its descriptor.

    The file is closed when the object goes. Raises `DataError` for what is no regular file.
    """

    def __init__(self, path: Path) -> None:
        with open_regular(path, str(path)) as file:
            self.descriptor = os.dup(file.fileno())
            self.size = os.fstat(file.fileno()).st_size
        self.place = 0

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self.descriptor)
            io.RawIOBase.close(self)

    def at(self, place: int, size: int) -> bytes:
        """Return `size` bytes that begin at a place, or fewer at the end of the file."""
        pieces = list[bytes]()
        while size > 0 and (piece := os.pread(self.descriptor, min(size, 2**30), place)):
            pieces.append(piece)
            place, size = place + len(piece), size - len(piece)
        return b"".join(pieces)

    def read(self, size: int = -1, /) -> bytes:
        """Read as usual. Raises `DataError` for a table of contents that is too large."""
        size = self.size - self.place if size < 0 else size
        self.require_size_for(size // _LEAST)
        data = self.at(self.place, size)
        self.place += len(data)
        return data

    def require_size_for(self, members: int) -> None:
        """Raise `DataError` for so many members that remembering them takes much memory."""
        if members > max(FEW, self.size // _BYTES_PER_MEMBER):
            raise vgx.DataError(f"{members:,} members are too many for an archive of its size")

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place in the file, as usual."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError("before the beginning of the file")
        self.place = start + offset
        return self.place

    def tell(self) -> int:
        """Return the place in the file."""
        return self.place

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it has places to go to."""
        return True


class Contents:
    """What is in an archive, as its members are met one after another."""

    def __init__(self, inside: str) -> None:
        self.inside = f"{inside}/" if inside else ""  # only the members of this folder
        self.found, self.known = Found(), endings()
        self.marks: dict[str, set[str]] = {}  # files of folders that vgx may have made

    def add(self, written: str, why: str, head: Callable[[], bytes]) -> str | None:
        """Add a file under the name that the archive gives it.

        Returns its name in `inside`; `None` when it has none there. `why` is a reason to leave it
        out. `head` is called for its first bytes if they are needed.
        """
        parts = [part for part in written.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        if not name.startswith(self.inside) or name == self.inside:
            return None
        name = name.removeprefix(self.inside)
        if written.startswith("/") or ".." in parts or re.match("[A-Za-z]:", written):
            why = "name that leads out of the archive"
        elif any(len(part) > _LONGEST for part in parts):
            why = "name that is too long"
        if why:
            self.found.add(name, why)
            return None
        folder, _, file = name.rpartition("/")
        if file in ("recipe.yaml", "environment.json", "log.jsonl", "store.json", "hashes.u64"):
            self.marks.setdefault(folder, set()).add(file)
        reasons = (reason for part in name.split("/") if (reason := left_out(part)))
        why = next(reasons, "") or why_not(name, self.known, head)
        self.found.add(name, why)
        return name

    def finish(self, *, by_name: bool) -> Found:
        """Return what was found: each name once, and no files of runs. They may be sorted."""
        made = {f"{folder}/" if folder else "": mark_of(f) for folder, f in self.marks.items()}
        made = {folder: mark for folder, mark in made.items() if mark}
        names = dict.fromkeys(reversed(self.found.names))  # the last of equal names is the file
        if twice := len(self.found.names) - len(names):
            self.found.left_out["file that is there again"] = twice
        self.found.names = []
        for name in reversed(names):
            marks = (mark for folder, mark in made.items() if name.startswith(folder))
            self.found.add(name, f"file in a {mark}" if (mark := next(marks, "")) else "")
        if by_name:
            self.found.names.sort(key=lambda name: name.split("/"))
        return self.found


def require_size(name: str, size: int, packed: int) -> None:
    """Raise `DataError` for a member that becomes too large."""
    if size > MAX_BYTES:
        raise vgx.DataError(f"{name}: {size:,} bytes; at most {MAX_BYTES:,} are read")
    if size > AT_ONCE and size > MAX_RATIO * packed:
        raise vgx.DataError(f"{name}: {packed:,} bytes become {size:,}; that is no image")
