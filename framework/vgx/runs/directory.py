"""Run directories: where they are, what lies in them, who is writing."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from vgx.errors import BusyError, StorageError
from vgx.files import storage, write_file

_NAME = re.compile(r"(\d{4,})-(.+)")
_TOLD = ("environment", "audit", "ended")  # what a run's writer says of it in JSON
_HOLDER = re.compile(r"\d+ \(on (.*) since .*\)")


def runs_dir(out: str | Path | None = None) -> Path:
    """Return the folder of runs: `out`, else the environment's VGX_RUNS, else `runs`."""
    return Path(out or os.environ.get("VGX_RUNS") or "runs")


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
            # What a resume reads of it, in the form in which it is written.
            str(loaded["data"]["content"]), int(loaded["data"]["kept"])
            dict(loaded.get("packages", {}))
            [p["name"] + p["version"] for p in loaded.get("plugins", [])]
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            kind = type(error).__name__
            raise StorageError(f"{self.path / 'environment.json'}: {kind}: {error}") from None
        return loaded

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to the log."""
        with storage(self.log_file), self.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Return the log's whole lines; a torn last line is left out."""
        lines: list[dict[str, Any]] = []
        if self.log_file.exists():
            for text in self.log_file.read_text("utf-8", errors="replace").splitlines():
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    break
                if not (isinstance(line, dict) and isinstance(line.get("step"), int)):
                    break
                lines.append(line)
        return lines

    def rewind_log(self, step: int) -> None:
        """Drop the lines after a step, which are about to be written again."""
        kept = [line for line in self.read_log() if line["step"] <= step]
        write_file(self.log_file, "".join(json.dumps(line) + "\n" for line in kept))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for one writer; the lock ends with the process, however it ends.

        Raises `BusyError`. What a writer on another machine has not taken back is believed: not
        every network disk tells machines of each other's locks.
        """
        with storage(self.path):
            file = (self.path / "lock").open("a+", encoding="utf-8")
        with file:
            with storage(self.path / "lock"):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = _holder(file)
                    message = f"process {holder} is training here{self._advice(holder)}"
                    raise BusyError(f"{self.path}: {message}") from None
                file.seek(0)
                left = file.read().strip()
                if advice := self._advice(left):
                    message = f"process {left} has not said that it ended{advice}"
                    raise BusyError(f"{self.path}: {message}")
                file.truncate(0)
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                file.write(f"{os.getpid()} (on {platform.node()} since {now})")
                file.flush()
            self._tidy()
            try:
                yield
            finally:
                file.truncate(0)

    def holder(self) -> str:
        """Return who is writing here now, and nothing when nobody is."""
        try:
            with (self.path / "lock").open(encoding="utf-8", errors="replace") as file:
                said = file.read().strip()
                if said and not self._advice(said):
                    # What a writer of this machine left behind without the lock says nothing.
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return ""
        except BlockingIOError:
            return said
        except OSError:
            return ""
        return said

    def unlock(self) -> None:
        """Forget the lock of a writer on another machine, who is known to have ended."""
        lock = self.path / "lock"
        with storage(lock):
            if lock.is_file() and self._advice(lock.read_text("utf-8", "replace").strip()):
                lock.unlink()

    def _advice(self, holder: str) -> str:
        """Say what helps when the holder of the lock is on another machine; else nothing."""
        where = _HOLDER.fullmatch(holder)
        if where is None or where[1] == platform.node():
            return ""
        return f"; if it has ended: vgx resume {self.path} --force-unlock"

    def _tidy(self) -> None:
        """Remove what a writer that was killed left unfinished; whoever holds the run is alone."""
        for path in self.checkpoints.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)
        for file in ("recipe.yaml", "log.jsonl", *(f"{n}.json" for n in _TOLD), "report.html"):
            for path in self.path.glob(f".{file}.*"):
                with suppress(OSError):
                    path.unlink()


def _holder(lock: TextIO) -> str:
    """Return what a lock's file says of its holder, who may be about to write it."""
    for _ in range(20):
        lock.seek(0)
        if said := lock.read().strip():
            return said
        time.sleep(0.05)
    return "another one"


def create(name: str, out: str | Path | None = None) -> Run:
    """Make the next numbered directory; two processes never get the same one."""
    root = runs_dir(out)
    with storage(root):
        root.mkdir(parents=True, exist_ok=True)
        number, claim = _claim(root)
        run = Run(root / f"{number:04}-{name}")
        claim.rename(run.path)
        for folder in (run.samples, run.checkpoints, run.path / "plugins"):
            folder.mkdir()
    return run


def _claim(root: Path) -> tuple[int, Path]:
    """Make a directory called by the next number alone; no lock, since NFS locks no directory."""
    while True:
        claimed = [int(path.name) for path in root.glob("*") if re.fullmatch(r"\d{4,}", path.name)]
        number = max([*claimed, *(number for number, _ in _numbered(root))], default=0) + 1
        claim = root / f"{number:04}"
        with suppress(FileExistsError):
            claim.mkdir()
            # Another one may have given this number its name since it was looked for.
            if number not in dict(_numbered(root)):
                return number, claim
            claim.rmdir()


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
    with suppress(OSError, ValueError):  # names that no file can have
        if (Path(wanted) / "recipe.yaml").is_file():
            return Run(Path(wanted))
    for number, path in reversed(runs):
        named = wanted in (path.name, path.name.partition("-")[2])
        if named or (wanted.lstrip("0") == str(number)):
            return Run(path)
    there = ", ".join(path.name for _, path in runs[-5:]) or "none"
    raise StorageError(f"no run '{wanted}' in {root}; the newest there: {there}")


def _numbered(root: Path) -> list[tuple[int, Path]]:
    paths = [path for path in root.glob("*-*") if path.is_dir()]
    found = [(int(match[1]), path) for path in paths if (match := _NAME.fullmatch(path.name))]
    return sorted(found)


def every(out: str | Path | None = None) -> list[Run]:
    """Return the runs in the folder of runs, by number."""
    return [Run(path) for _, path in _numbered(runs_dir(out))]
