"""Run directories: where they are, what lies in them, who is writing."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from vgx.errors import BusyError, StorageError

_NAME = re.compile(r"(\d{4,})-(.+)")


def runs_dir(out: str | Path | None = None) -> Path:
    """Return the folder of runs: `out`, else the environment's VGX_RUNS, else `runs`."""
    return Path(out or os.environ.get("VGX_RUNS") or "runs")


def cache_dir() -> Path:
    """Return the folder of things that can be made again: VGX_CACHE, or the user's cache."""
    return Path(os.environ.get("VGX_CACHE") or platformdirs.user_cache_path("vgx"))


@dataclass(frozen=True)
class Run:
    """One run directory."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe; it runs again by itself."""
        return self.path / "recipe.yaml"

    @property
    def samples(self) -> Path:
        """Pictures made during and after training."""
        return self.path / "samples"

    @property
    def fits(self) -> Path:
        """What fitted samplers learned, one file a sampler and checkpoint."""
        return self.path / "samplers"

    @property
    def checkpoints(self) -> Path:
        """Committed checkpoints, one directory a step."""
        return self.path / "checkpoints"

    @property
    def log_file(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "log.jsonl"

    @property
    def plugin_files(self) -> list[Path]:
        """The copies of `--plugin` files that the run needs."""
        return sorted((self.path / "plugins").glob("*.py"))

    def environment(self) -> dict[str, Any]:
        """Return what the run was made with."""
        try:
            loaded: dict[str, Any] = json.loads((self.path / "environment.json").read_text())
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.path / 'environment.json'}: {error}") from None
        return loaded

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to the log."""
        with _storage(self.log_file), self.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Return the log's whole lines; a torn last line is left out."""
        lines = []
        if self.log_file.exists():
            for text in self.log_file.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:
                    break
        return lines

    def rewind_log(self, step: int) -> None:
        """Drop the lines after a step, which are about to be written again."""
        kept = [line for line in self.read_log() if line["step"] <= step]
        write_file(self.log_file, "".join(json.dumps(line) + "\n" for line in kept))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for one writer; the lock ends with the process, however it ends."""
        with _storage(self.path):
            file = (self.path / "lock").open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                message = f"{self.path}: process {file.read().strip()} is training here"
                raise BusyError(message) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def create(name: str, out: str | Path | None = None) -> Run:
    """Make the next numbered directory; two processes never get the same one."""
    root = runs_dir(out)
    with _storage(root):
        root.mkdir(parents=True, exist_ok=True)
        claim = os.open(root, os.O_RDONLY)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX)
            number = max((number for number, _ in _numbered(root)), default=0) + 1
            run = Run(root / f"{number:04}-{name}")
            run.path.mkdir()
        finally:
            os.close(claim)
        for folder in (run.samples, run.checkpoints, run.path / "plugins"):
            folder.mkdir()
    return run


def find(run: Run | str | Path | int | None = None, out: str | Path | None = None) -> Run:
    """Return the run that a path, a number or a name means; nothing means the newest.

    Raises `StorageError` that says what there is.
    """
    if isinstance(run, Run):
        return run
    root = runs_dir(out)
    runs = _numbered(root)
    if run is None:
        if runs:
            return Run(runs[-1][1])
        raise StorageError(f"{root}: no runs here yet; make one with: vgx run RECIPE")
    wanted = str(run)
    if (Path(wanted) / "recipe.yaml").is_file():
        return Run(Path(wanted))
    for number, path in reversed(runs):
        named = wanted in (path.name, path.name.partition("-")[2])
        if named or (wanted.isdecimal() and int(wanted) == number):
            return Run(path)
    there = ", ".join(path.name for _, path in runs[-5:]) or "none"
    raise StorageError(f"no run '{wanted}' in {root}; the newest there: {there}")


def _numbered(root: Path) -> list[tuple[int, Path]]:
    paths = [path for path in root.glob("*-*") if path.is_dir()]
    found = [(int(match[1]), path) for path in paths if (match := _NAME.fullmatch(path.name))]
    return sorted(found)


def write_file(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole: it holds the old content or the new, never a part."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
