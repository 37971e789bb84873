"""Models on the Hugging Face hub: their names, and their files, which are fetched once.

Of a repository only the files of an exported model are fetched, by name, with the sizes and sums
that its `vgx.json` has of them. What a hub sends beyond that is not read.
"""

from __future__ import annotations

import re
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vgx.errors import HubError, Notice, StorageError
from vgx.files import cache_dir, read_file, storage, write_file
from vgx.output import short, visible
from vgx.runs import exported

SECONDS = 10  # the longest wait for an answer of the hub
WAITS = (1, 3)  # seconds before a request is repeated
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/")
_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def is_name(text: object) -> bool:
    """Return whether a text names a model of the hub: `owner/name`, with `@revision` or without.

    A path of this machine is none: its first folder is there.
    """
    if not isinstance(text, str):
        return False
    match = _NAME.fullmatch(_ADDRESS.sub("", text))
    return match is not None and not Path(text.partition("/")[0]).is_dir()


def model_folder(name: str) -> Path:
    """Return a folder with the files of a model of the hub, which are fetched once.

    Without a network it is the newest that was fetched before, with a `Notice`. Raises `HubError`
    when there is none, and `StorageError` for files that are not those of an exported model.
    """
    match = _NAME.fullmatch(_ADDRESS.sub("", name))
    if match is None:
        raise HubError(f"{short(visible(name))}: no name of the hub; these are owner/name")
    repository, revision = match[1], match[2] or "main"
    place = cache_dir() / "models" / repository.replace("/", "--")
    note = place / f"{revision.replace('/', '--')}.txt"
    last, digest = _noted(note)
    try:
        commit = _commit(repository, revision)
    except HubError as error:
        if not last:
            raise
        if not _about(place / last, digest):
            raise HubError(f"{error}; what was fetched before is damaged") from error
        text = f"{error}; the files of commit {last[:12]}, fetched before, are used"
        warnings.warn(text, Notice, stacklevel=2)
        return place / last
    digest = _fetch_all(repository, commit, place / commit, digest if commit == last else "")
    _put(note, f"{commit} {digest}".encode())
    return place / commit


def _noted(note: Path) -> tuple[str, str]:
    """Return the commit that was fetched last, and the SHA-256 of its `vgx.json`; else "" twice."""
    with suppress(OSError, StorageError):
        commit, _, digest = read_file(note, 200).decode(errors="replace").strip().partition(" ")
        if _COMMIT.fullmatch(commit):
            return commit, digest
    return "", ""


def _about(folder: Path, digest: str) -> bytes:
    """Return the `vgx.json` in a folder; nothing if it is missing, or has another SHA-256."""
    with suppress(OSError, StorageError):
        data = read_file(folder / exported.ABOUT, exported.MAX_ABOUT)
        if exported.summed(data)["sha256"] == digest:
            return data
    return b""


def _fetch_all(repository: str, commit: str, folder: Path, digest: str) -> str:
    """Fetch those files of a model that are not there or damaged; `vgx.json` comes last into place.

    `digest` is the SHA-256 of the `vgx.json` that was fetched before. Return that of the one that
    is there now.
    """
    about, kept = folder / exported.ABOUT, _about(folder, digest)
    data = kept or _fetched(repository, commit, exported.ABOUT, exported.MAX_ABOUT)
    known = exported.parse_about(data, about)
    for name in exported.NEEDED:
        if (expected := known["files"].get(name)) is None:
            continue
        with suppress(StorageError):
            exported.content(folder, known, name)
            continue
        size = expected["bytes"]
        if size > exported.limit(name):
            most = exported.limit(name)
            raise StorageError(f"{repository}: {name}: {size:,} bytes; at most {most:,} are read")
        content = _fetched(repository, commit, name, size)
        if exported.summed(content) != expected:
            raise StorageError(f"{repository}: {name}: not as vgx.json says; nothing is loaded")
        _put(folder / name, content)
    if not kept:
        _put(about, data)
    return exported.summed(data)["sha256"]


def _put(file: Path, content: bytes) -> None:
    """Write a file of the cache; whatever else has its name, or that of its folder, is removed."""
    with storage(file):
        for path, fits in ((file.parent, Path.is_dir), (file, Path.is_file)):
            if path.is_symlink() or (path.exists() and not fits(path)):
                _remove(path)
    write_file(file, content)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _commit(repository: str, revision: str) -> str:
    """Return the commit that a revision is at now. Raises `HubError`."""
    from huggingface_hub import HfApi

    with _hub_errors(repository):
        commit = str(HfApi().model_info(repository, revision=revision, timeout=SECONDS).sha)
    if not _COMMIT.fullmatch(commit):
        raise HubError(f"{repository}: the hub says no commit")
    return commit


def _fetched(repository: str, commit: str, name: str, most: int) -> bytes:
    """Return a file of at most `most` bytes. Raises `HubError`, after three tries at most."""
    for wait in (*WAITS, None):
        try:
            return _request(repository, commit, name, most)
        except _AgainError as error:
            if wait is None:
                tries = f"{len(WAITS) + 1} tries"
                raise HubError(f"{repository}: {name}: {error}, in {tries}") from error
            time.sleep(wait)
    raise AssertionError


class _AgainError(Exception):
    """The hub may answer later."""


def _request(repository: str, commit: str, name: str, most: int) -> bytes:
    from huggingface_hub import get_session, get_token, hf_hub_url

    url = hf_hub_url(repository, name, revision=commit)
    headers = {"Accept-Encoding": "identity"}
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    try:
        with get_session().stream("GET", url, headers=headers, timeout=SECONDS) as answer:
            code = answer.status_code
            if code in (408, 429) or code >= 500:
                raise _AgainError(f"the hub answers {code}")
            if code == 404 and name == exported.ABOUT:
                what = "has no vgx.json, so it is no model that vgx export wrote"
                raise HubError(f"{repository}: {what}")
            if code != 200:
                raise HubError(f"{repository}: {name}: the hub answers {code}")
            return b"".join(_bounded(answer.iter_bytes(), most, f"{repository}: {name}"))
    except HubError:
        raise
    # The client raises many kinds of error for a connection that fails.
    except Exception as error:
        raise _AgainError(short(visible(str(error) or type(error).__name__))) from error


def _bounded(chunks: Any, most: int, where: str) -> Iterator[bytes]:
    for chunk in chunks:
        most -= len(chunk)
        if most < 0:
            raise HubError(f"{where}: more bytes than it should have; not read")
        yield chunk


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turn errors of the hub's library in the block into a `HubError` that names the repository."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RepositoryNotFoundError as error:
        text = "no folder here, nor a model of the hub that you may read (hf auth login)"
        raise HubError(f"{repository}: {text}") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{repository}: the hub has no such revision") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError(f"{repository}: no folder here, and offline") from error
    # A network fails with many kinds of error.
    except Exception as error:
        first = short(visible((str(error).splitlines() or [type(error).__name__])[0]))
        text = f"no folder here, and the hub can't be reached: {first}"
        raise HubError(f"{repository}: {text}") from error
