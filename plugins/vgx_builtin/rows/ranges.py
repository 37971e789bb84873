"""Files of the hub that are read in ranges: none is fetched as a whole."""

from __future__ import annotations

import io
import os
import re
import time
from dataclasses import dataclass
from typing import IO, Any, cast

import vgx
from vgx_builtin import hub
from vgx_builtin.files.image_files import described

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before a request is repeated that was not answered, or answered in part."""
LONGEST = 60.0
"""The longest wait in seconds that the hub may ask for."""
TAIL = 2**16
"""Bytes that are read at once where nothing is known of what follows, such as the end of a file."""
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(frozen=True)
class HubFile:
    """A file of a data set on the hub, as it is at a commit."""

    repository: str
    path: str
    commit: str

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.repository}/{self.path}"

    def open(self, first: int = 0, last: int = 0) -> IO[bytes]:
        """Open it. The bytes from `first` to before `last` are read at once, or else its end.

        Raises `HubError`.
        """
        wanted = f"{first}-{last - 1}" if last else f"-{TAIL}"
        return cast("IO[bytes]", io.BufferedReader(_Ranges(self, *fetch(self, wanted))))


class _Ranges(io.RawIOBase):
    """A file of which some neighbouring bytes are here; others are read when they are needed."""

    def __init__(self, file: HubFile, data: bytes, start: int, size: int) -> None:
        self.file, self.data, self.start, self.size, self.at = file, data, start, size, 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it has places."""
        return True

    def tell(self) -> int:
        """Return the place in the file."""
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        self.at = max(0, base + offset)
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer. Raises `HubError`."""
        wanted = min(len(buffer), self.size - self.at)
        if wanted <= 0:
            return 0
        inside = self.at - self.start
        if not 0 <= inside < len(self.data):
            last = min(self.at + max(wanted, TAIL), self.size)
            self.data, self.start, _ = fetch(self.file, f"{self.at}-{last - 1}")
            inside = 0
        part = self.data[inside : inside + wanted]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)


class _AgainError(Exception):
    """The hub may answer later."""

    def __init__(self, reason: str, seconds: float = 0) -> None:
        super().__init__(reason)
        self.seconds = seconds


def fetch(file: HubFile, wanted: str) -> tuple[bytes, int, int]:
    """Return the bytes of a range, where they begin, and the size of the file.

    A request is repeated when the hub is busy or breaks off. Raises `HubError` when that does not
    help, and for what will not change.
    """
    for wait in (*WAITS, None):
        try:
            return _ask(file, wanted)
        except _AgainError as error:
            if wait is None:
                tries = f"{len(WAITS) + 1} tries"
                raise vgx.HubError(f"{file.name}: {error}, in {tries}") from error
            time.sleep(max(wait, min(error.seconds, LONGEST)))
    raise AssertionError


def _ask(file: HubFile, wanted: str) -> tuple[bytes, int, int]:
    from huggingface_hub import errors, get_session, get_token, hf_hub_url

    url = hf_hub_url(file.repository, file.path, repo_type="dataset", revision=file.commit)
    headers = {"Range": f"bytes={wanted}", "Accept-Encoding": "identity"}
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    try:
        with get_session().stream("GET", url, headers=headers, timeout=hub.SECONDS) as answer:
            code = answer.status_code
            if code in (408, 429) or code >= 500:
                asked = answer.headers.get("retry-after", "")
                raise _AgainError(
                    f"the hub answers {code}", float(asked) if asked.isdecimal() else 0
                )
            if code != 206:
                what = "serves no ranges" if code == 200 else f"answers {code}"
                raise vgx.HubError(f"{file.name}: the hub {what}")
            given = _RANGE.fullmatch(answer.headers.get("content-range", ""))
            if given is None:
                raise vgx.HubError(f"{file.name}: the hub says not which range it sends")
            start, end, size = map(int, given.groups())
            data = b"".join(_bounded(answer.iter_bytes(), end + 1 - start))
    except (_AgainError, vgx.HubError):
        raise
    except errors.OfflineModeIsEnabled as error:
        raise vgx.HubError(f"{file.name}: {described(error)}") from error
    # The client raises many kinds of error for a connection that fails.
    except Exception as error:
        raise _AgainError(f"no whole answer of the hub ({described(error)})") from error
    if len(data) != end + 1 - start:
        raise _AgainError(f"the hub sends {len(data):,} bytes of {end + 1 - start:,}")
    return data, start, size


def _bounded(chunks: Any, most: int) -> Any:
    for chunk in chunks:
        most -= len(chunk)
        if most < 0:
            raise ValueError("more bytes than were asked for")
        yield chunk
