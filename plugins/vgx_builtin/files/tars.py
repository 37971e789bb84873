"""Tar files of images, plain or compressed: nothing is unpacked to the disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Condition
from typing import IO

import vgx
from vgx_builtin.files.archives import Contents, RegularFile, require_size
from vgx_builtin.files.formats import HEAD
from vgx_builtin.files.image_files import digest
from vgx_builtin.files.tar_stream import Member, Stream, members

KEPT = 2**27
"""Bytes of members that were passed on the way to another one and are kept."""
PATIENCE = 1.0
"""Seconds to wait for others to take what is kept, before it is given up."""


class Tar:
    """A tar file of images. Those of a compressed one stay in its own order."""

    def __init__(self, path: Path, compression: str, inside: str = "") -> None:
        self.path, self.compression = path, compression
        contents, self.members = Contents(inside), dict[str, Member]()
        try:
            self.file = RegularFile(path)
            stream = self.stream()
            for number, member in enumerate(members(stream), 1):
                self.file.require_size_for(number)
                head = partial(stream.read, min(HEAD, member.size))
                name = contents.add(member.name, member.why, head)
                if name is not None:
                    self.members.pop(name, None)  # the last of equal names is the file
                    self.members[name] = member
        except vgx.DataError as error:
            raise vgx.DataError(f"{path}: {error}") from error
        self.found = contents.finish(by_name=not compression)

    def stream(self) -> Stream:
        """Return the bytes of the archive, from the beginning."""
        return Stream(RegularFile(self.path) if self.compression else self.file, self.compression)

    def reader(self, names: Sequence[str]) -> Callable[[str], IO[bytes]]:
        """Return a function that opens one of these members; threads may call it.

        Of a compressed archive they are best opened in the order of `found.names`.
        """
        missing = [name for name in names if name not in self.members]
        if missing:
            raise vgx.DataError(f"{missing[0]}: not in {self.path}")
        return Passed(self, names).open if self.compression else self._open

    def _open(self, name: str) -> IO[bytes]:
        member = self.members[name]
        require_size(name, member.size, member.size)
        return io.BytesIO(self.file.at(member.position, member.size))

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a hash that changes when the archive does."""
        del names
        return digest([self.path], self.path.parent)


class Passed:
    """Members of a compressed tar file, which can only be read forward.

    Whoever asks for a member makes the stream go on to it. The members on the way are kept for the
    other threads, up to `KEPT` bytes. For a member that was passed and is not kept, the stream
    begins again.
    """

    def __init__(self, tar: Tar, names: Iterable[str]) -> None:
        self.tar = tar
        self.wanted = {tar.members[name].position: name for name in names}
        self.changed = Condition()
        self.kept: dict[str, bytes | vgx.DataError] = {}
        self.bytes = self.position = 0
        self.stream = self._forward()

    def open(self, name: str) -> IO[bytes]:
        """Open a member. Raises `DataError` for one that cannot be read."""
        position = self.tar.members[name].position
        with self.changed:
            while name not in self.kept:
                if position <= self.position:
                    self._forget()
                    self.stream, self.position = self._forward(), 0
                elif self.bytes <= KEPT:
                    self._go_on()
                elif not self.changed.wait(PATIENCE):
                    self._forget()  # nobody takes them
            data = self.kept.pop(name)
            self.bytes -= 0 if isinstance(data, vgx.DataError) else len(data)
            self.changed.notify_all()
        if isinstance(data, vgx.DataError):
            raise data
        return io.BytesIO(data)

    def _go_on(self) -> None:
        passed = next(self.stream, None)
        if passed is None:
            raise vgx.DataError(f"{self.tar.path}: was changed while it was read")
        self.position, name, data = passed
        self.kept[name] = data
        self.bytes += 0 if isinstance(data, vgx.DataError) else len(data)

    def _forget(self) -> None:
        self.kept, self.bytes = {}, 0

    def _forward(self) -> Iterator[tuple[int, str, bytes | vgx.DataError]]:
        """Yield position, name and bytes of the members that are wanted, from the beginning."""
        stream = self.tar.stream()
        for member in members(stream):
            if name := self.wanted.get(member.position):
                try:
                    data: bytes | vgx.DataError = stream.member(name, member.size)
                except vgx.DataError as error:
                    data = error
                yield member.position, name, data
