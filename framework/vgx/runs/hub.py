"""Models on the Hugging Face hub: their names, and their files, which are fetched once.

Of a repository only the files of an exported model are fetched, by name, with the sizes and sums
that its `vgx.json` has of them; or the two files of an autoencoder of diffusers, with the sizes and
sums that the hub lists. What a hub sends beyond that is not read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vgx.errors import HubError, Notice, StorageError
from vgx.files import cache_dir, read_file, storage, write_file
from vgx.output import short, visible
from vgx.runs import checkpoint, diffusers, exported
from vgx.runs.reading import Summed, parsed

SECONDS = 10  # the longest wait for an answer of the hub
INSIDE = ("", f"{diffusers.SUBFOLDER}/")  # where an autoencoder of diffusers may be
FETCHED = "fetched.json"  # sizes and sums of what was fetched of an autoencoder of diffusers
WAITS = (1, 3)  # seconds before a request is repeated
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/")
_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
_SUMS = TypeAdapter(dict[str, Summed])
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

    They are those of an exported model, or `config.json` and weights of diffusers. Without a
    network it is the newest that was fetched before, with a `Notice`. Raises `HubError` when there
    is none, and `StorageError` for files that are not those of a model.
    """
    match = _NAME.fullmatch(_ADDRESS.sub("", name))
    if match is None:
        raise HubError(f"{short(visible(name))}: no name of the hub; these are owner/name")
    repository, revision = match[1], match[2] or "main"
    place = cache_dir() / "models" / repository.replace("/", "--")
    note = place / f"{revision.replace('/', '--')}.txt"
    last, digest = _noted(note)
    try:
        commit, listed = _listing(repository, revision)
    except HubError as error:
        if not last:
            raise
        if not (_kept(place / last / exported.ABOUT, digest) or _whole(place / last, digest)):
            raise HubError(f"{error}; what was fetched before is damaged") from error
        text = f"{error}; the files of commit {last[:12]}, fetched before, are used"
        warnings.warn(text, Notice, stacklevel=2)
        return place / last
    folder, before = place / commit, digest if commit == last else ""
    inside = next((each for each in INSIDE if each + diffusers.CONFIG in listed), None)
    if exported.ABOUT in listed or inside is None:
        digest = _fetch_all(repository, commit, folder, before)
    else:
        digest = _fetch_autoencoder(repository, commit, folder, listed, inside, before)
    _put(note, f"{commit} {digest}".encode())
    return folder


def _noted(note: Path) -> tuple[str, str]:
    """Return the commit that was fetched last, and the SHA-256 of its list of sums; else "" twice.

    That list is `vgx.json`, or `FETCHED` beside an autoencoder of diffusers.
    """
    with suppress(OSError, StorageError):
        commit, _, digest = read_file(note, 200).decode(errors="replace").strip().partition(" ")
        if _COMMIT.fullmatch(commit):
            return commit, digest
    return "", ""


def _kept(file: Path, digest: str) -> bytes:
    """Return a list of sums; nothing if it is missing, or has another SHA-256."""
    with suppress(OSError, StorageError):
        data = read_file(file, exported.MAX_ABOUT)
        if exported.summed(data)["sha256"] == digest:
            return data
    return b""


def _fetch_all(repository: str, commit: str, folder: Path, digest: str) -> str:
    """Fetch those files of a model that are not there or damaged; `vgx.json` comes last into place.

    `digest` is the SHA-256 of the `vgx.json` that was fetched before. Return that of the one that
    is there now.
    """
    about = folder / exported.ABOUT
    kept = _kept(about, digest)
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


def _fetch_autoencoder(
    repository: str, commit: str, folder: Path, listed: dict[str, Any], inside: str, digest: str
) -> str:
    """Fetch the two files of an autoencoder of diffusers; `FETCHED` comes last into place.

    Nothing is fetched when they are there as `digest`, the SHA-256 of `FETCHED`, says. Return the
    one that it has now.
    """
    if _whole(folder, digest):
        return digest
    limits = {diffusers.CONFIG: diffusers.MAX_CONFIG, diffusers.WEIGHTS: checkpoint.MAX_TENSORS}
    sums: dict[str, Summed] = {}
    for name, most in limits.items():
        if (entry := listed.get(inside + name)) is None:
            there = [each.removeprefix(inside) for each in listed if each.startswith(inside)]
            raise StorageError(f"{repository}: {diffusers.why_not(there)}")
        size = (entry.lfs or entry).size
        if not isinstance(size, int) or size > most:
            given = f"its size is {short(visible(str(size)))}; at most {most:,} bytes are read"
            raise StorageError(f"{repository}: {name}: {given}")
        content = _fetched(repository, commit, inside + name, size)
        if not _is_listed(content, entry):
            raise StorageError(f"{repository}: {name}: not as the hub lists it; nothing is loaded")
        sums[inside + name] = exported.summed(content)
        _put(folder / inside / name, content)
    data = json.dumps(sums).encode()
    _put(folder / FETCHED, data)
    return exported.summed(data)["sha256"]


def _is_listed(content: bytes, entry: Any) -> bool:
    """Return whether content has the sum in a hub's list: SHA-256, or git's for a small file."""
    if entry.lfs is not None:
        return exported.summed(content)["sha256"] == str(entry.lfs.sha256)
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest() == str(entry.blob_id)


def _whole(folder: Path, digest: str) -> bool:
    """Return whether the autoencoder in a folder was fetched, and is as it was then."""
    file = folder / FETCHED
    with suppress(OSError, StorageError):
        known = parsed(_kept(file, digest), file, _SUMS)
        names = (each + name for each in INSIDE for name in (diffusers.CONFIG, diffusers.WEIGHTS))
        sums = {name: known[name] for name in names if name in known}
        return len(sums) == 2 and all(checkpoint.contents(folder / n, sums[n]) for n in sums)
    return False


def _listing(repository: str, revision: str) -> tuple[str, dict[str, Any]]:
    """Return the commit that a revision is at now, and its files by name. Raises `HubError`."""
    from huggingface_hub import HfApi

    with _hub_errors(repository):
        about = HfApi().model_info(
            repository, revision=revision, timeout=SECONDS, files_metadata=True
        )
    commit = str(about.sha)
    if not _COMMIT.fullmatch(commit):
        raise HubError(f"{repository}: the hub says no commit")
    return commit, {each.rfilename: each for each in about.siblings or ()}


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
                what = "has neither vgx.json (vgx export) nor an autoencoder of diffusers"
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
