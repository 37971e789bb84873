"""The engine of the page: onnxruntime-web, fetched once into the cache or read from a file.

It is too large for the package of vgx (14 MB), so npm fetches one version of it. Nothing is
unpacked or used before its SHA-256 is compared with the one that stands here.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import vgx
from vgx.errors import HubError, StorageError
from vgx.files import read_file, storage, write_file

MOST = 64 * 2**20  # bytes of the archive, and of each file in it
TIMEOUT = 300.0  # seconds that npm may take
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"


@dataclass(frozen=True)
class Release:
    """One version of onnxruntime-web, and the SHA-256 of what is used of it."""

    version: str
    archive: str  # SHA-256 of the archive
    script: str  # SHA-256 of the file `SCRIPT` in it
    wasm: str  # SHA-256 of the file `WASM` in it

    @property
    def name(self) -> str:
        """The file name of the archive, as `npm pack` calls it."""
        return f"onnxruntime-web-{self.version}.tgz"


RELEASE = Release(
    version="1.30.0",
    archive="d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
    script="11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    wasm="3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
)


@dataclass(frozen=True, eq=False)
class Engine:
    """onnxruntime-web: its script as a plain script that sets `self.ort`, and its WebAssembly."""

    script: bytes
    wasm: bytes


def load(archive: Path | None = None, release: Release = RELEASE) -> Engine:
    """Return the engine of the archive in a file, of the cache, or else of npm.

    What comes from an archive is kept in the cache. Raises `HubError` when the engine has to be
    fetched and cannot be, and `StorageError` for a file with other bytes than those of the release.
    """
    folder = vgx.cache_dir() / f"onnxruntime-web-{release.version}"
    if archive is None and (kept := cached(folder, release)):
        return kept
    if archive is not None:
        with storage(archive):
            data = read_file(archive, MOST)
        if not _is(data, release.archive):
            wanted = f"it is not {release.name} with the SHA-256 {release.archive}"
            raise StorageError(f"{archive}: {wanted}; get it with: npm pack {_package(release)}")
    else:
        data = _fetched(release, folder)
    script, wasm = _unpacked(data, release)
    write_file(folder / SCRIPT, script)
    write_file(folder / WASM, wasm)
    return Engine(_plain(script), wasm)


def cached(folder: Path, release: Release = RELEASE) -> Engine | None:
    """Return the engine that is kept in a folder, or None when it is missing or damaged."""
    try:
        script, wasm = (read_file(folder / name, MOST) for name in (SCRIPT, WASM))
    except (OSError, StorageError):
        return None
    whole = _is(script, release.script) and _is(wasm, release.wasm)
    return Engine(_plain(script), wasm) if whole else None


def _fetched(release: Release, folder: Path) -> bytes:
    """Return the archive of a release, which npm fetches. Raises `HubError`."""
    what = f"onnxruntime-web {release.version}, the engine of the page"
    instead = (
        f"where npm and a network are: npm pack {_package(release)}\n"
        f"then here: vgx explore RUN --engine {release.name}   (it is kept in {folder})"
    )
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):  # what --offline sets
        raise HubError(f"{what}, is not in the cache, and nothing is fetched offline;\n{instead}")
    npm = shutil.which("npm")
    if npm is None:
        raise HubError(f"{what}, is fetched by npm: install Node.js, which has it; or\n{instead}")
    try:
        data = _packed(npm, release)
    except subprocess.CalledProcessError as error:
        why = f"npm ended with exit code {error.returncode}"
        raise HubError(f"{what}, cannot be fetched: {why};\n{instead}\n{error.stderr}") from error
    except (OSError, subprocess.TimeoutExpired, StorageError) as error:
        raise HubError(f"{what}, cannot be fetched: {error};\n{instead}") from error
    if not _is(data, release.archive):
        got = hashlib.sha256(data).hexdigest()
        why = f"what npm fetched has the SHA-256 {got} instead of {release.archive}"
        raise HubError(f"{what}, was not used: {why};\n{instead}")
    return data


def _packed(npm: str, release: Release) -> bytes:
    """Return the archive that npm fetches: it knows the registry or the mirror of the user.

    Raises `OSError`, `StorageError`, and `CalledProcessError` or `TimeoutExpired` of subprocess.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Without --prefix, npm obeys an .npmrc above the folder, which in /tmp anybody may write.
        options = ("--ignore-scripts", "--loglevel=error", "--prefix", folder)
        command = (npm, "pack", _package(release), *options)
        subprocess.run(  # noqa: S603 - no word of it comes from a run
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=True,
            text=True, errors="replace", timeout=TIMEOUT,
        )  # fmt: skip
        return read_file(Path(folder, release.name), MOST)


def _unpacked(data: bytes, release: Release) -> tuple[bytes, bytes]:
    """Return the two files that are used of an archive whose sum is right."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        files = []
        for name, digest in ((SCRIPT, release.script), (WASM, release.wasm)):
            member = archive.extractfile(f"package/dist/{name}")
            content = b"" if member is None else member.read(MOST)
            if not _is(content, digest):
                raise StorageError(f"{release.name}: {name} has another SHA-256 than {digest}")
            files.append(content)
    return files[0], files[1]


def _plain(script: bytes) -> bytes:
    """Return a module as a plain script that sets `self.ort`.

    A page that is opened from a disk may start plain scripts as workers, but no modules. The
    address of the module is only asked for to find files beside it, and there are none.
    """
    text = re.sub(r"\n//# sourceMappingURL=.*\s*$", "", script.decode())
    exported = re.search(r"export\{(?:[^{}]*,)?([\w$]+) as default(?:,[^{}]*)?\};?\s*$", text)
    assert exported is not None  # the file is the one with the sum above
    body = text[: exported.start()].replace("import.meta.url", "self.location.href")
    return f"{body}\nself.ort = {exported[1]};\n".encode()


def _is(data: bytes, digest: str) -> bool:
    return hashlib.sha256(data).hexdigest() == digest


def _package(release: Release) -> str:
    return f"onnxruntime-web@{release.version}"
