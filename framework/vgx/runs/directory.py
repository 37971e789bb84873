"""Run directories: where they are, what lies in them, and which process is writing."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from vgx.errors import BusyError, Notice, StorageError
from vgx.files import (
    UNFINISHED,
    flush_directory,
    open_own,
    opened,
    replacing,
    require_own,
    storage,
    tidy,
    user_path,
)
from vgx.parts.plugin_file import PluginFile, files_in
from vgx.runs import reading

_NAME = re.compile(r"(\d{4,})-(.+)")
# The files and folders of a run that vgx writes.
_FILES = (
    "lock", "log.jsonl", reading.DAMAGED, "nonfinite.jsonl", "recipe.yaml", "environment.json",
    "audit.json", "ended.json", "evaluation.json", "profile.json", "report.html", "explore.html",
    "note.txt",
)  # fmt: skip
_APPENDED = ("lock", "log.jsonl", reading.DAMAGED, "nonfinite.jsonl")
_FOLDERS = ("checkpoints", "plugins", "prior", "replays", "samplers", "samples", "trackers")
# Unfinished files of the first edition: the name of the file and the number of a process.
_OLD_UNFINISHED = re.compile(r"\..+\.(json|jsonl|yaml|html|png|webp|gif|safetensors)\.\d+")
_HOLDER = re.compile(r"\d+ \(on (.*) since .*\)")


def runs_dir(out: str | Path | None = None) -> Path:
    """Return the folder of runs: `out`, else the environment's VGX_RUNS, else `runs`."""
    return user_path(out or os.environ.get("VGX_RUNS") or "runs")


@dataclass(frozen=True)
class Run:
    """One run directory."""

    path: Path

    @property
    def short(self) -> str:
        """The run in a command: its number if `find` finds it by that, else its path, quoted."""
        if numbered_name := _NAME.fullmatch(self.path.name):
            number = numbered_name[1].lstrip("0")
            with suppress(StorageError, OSError):
                if find(number).path.resolve() == self.path.resolve():
                    return number
        return shlex.quote(str(self.path))

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe, complete: `vgx run` takes it."""
        return self.path / "recipe.yaml"

    @property
    def samples(self) -> Path:
        """The folder of images made during and after training."""
        return self.path / "samples"

    @property
    def fits(self) -> Path:
        """The folder of fitted samplers, one file for each sampler and checkpoint."""
        return self.path / "samplers"

    @property
    def checkpoints(self) -> Path:
        """The folder of committed checkpoints, one directory for each step."""
        return self.path / "checkpoints"

    @property
    def log_file(self) -> Path:
        """The log: one JSON object in each line, for each logged step."""
        return self.path / "log.jsonl"

    @property
    def plugin_files(self) -> list[PluginFile]:
        """The copies of `--plugin` files that the run needs, with their content.

        Raises `PluginError` for files that no run contains, such as links and hidden files.
        """
        return files_in(self.path / "plugins")

    def place(self, *names: str) -> Path:
        """Return the path of a file or folder in the run that is about to be written.

        Each name is one more folder, or the file. All that vgx writes in a run goes through here: a
        run of somebody else may have a link anywhere, which would lead out of it. Raises
        `StorageError` for a link, a pipe and the like on the way. The run itself may be a link.
        """
        path = self.path
        for name in names:
            if name in ("", ".", "..") or "/" in name:
                raise StorageError(f"{path}: {name!r} is not the name of a file in it")
            path /= name
            require_own(path)
        if self.path.is_dir() and not os.access(self.path, os.W_OK):
            advice = "write elsewhere (--out), or work on a copy of the run"
            raise StorageError(f"{self.path}: is read-only for this user; {advice}")
        return path

    def require_own_places(self) -> None:
        """Raise `StorageError` unless all that a training writes to is in the run itself."""
        for name in (*_FILES, *_FOLDERS):
            path = self.place(name)
            if path.exists() and path.is_dir() != (name in _FOLDERS):
                right = "a folder" if name in _FOLDERS else "a file"
                raise StorageError(f"{path}: not {right}; nothing was written. Remove it")
            require_own(path, alone=name in _APPENDED)
        for folder in _FOLDERS:
            for inside, folders, files in os.walk(self.path / folder):
                for name in (*folders, *files):
                    path = Path(inside, name)
                    # Trackers link to their own files, and append to files.
                    if folder == "trackers" and path.is_symlink():
                        real = (self.path / folder).resolve()
                        if path.resolve().is_relative_to(real):
                            continue
                    require_own(path, alone=folder == "trackers")

    def environment(self) -> reading.Environment:
        """Return what the run was made with, the images among it.

        Raises `StorageError` if the file is missing or damaged.
        """
        loaded = reading.environment(self.path)
        if loaded is None or "data" not in loaded:
            what = "missing" if loaded is None else "data: missing"
            raise StorageError(f"{self.path / 'environment.json'}: {what}")
        return loaded

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to the log."""
        with storage(self.log_file), open_own(self.log_file) as text:
            file = text.buffer
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            # What a killed writer left of a line must not become the beginning of this one.
            glue = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.write(glue + json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n")

    def read_log(self) -> list[reading.Line]:
        """Return the lines of the log. Lines that cannot be read are passed over with a `Notice`.

        The last line of a killed writer is passed over in silence. Of a log of more than 100,000
        lines every second or fourth and so on is returned, and the last.
        """
        lines, damaged = reading.log(self.path)
        if damaged:
            warnings.warn(self._passed_over(damaged), Notice, stacklevel=2)
        return lines

    def rewind_log(self, step: int) -> None:
        """Remove the lines after a step, which are about to be written again.

        Lines that cannot be read are moved to another file, with a `Notice`.
        """
        damaged: list[reading.Entry] = []
        aside = self.place(reading.DAMAGED)
        with replacing(self.place("log.jsonl")) as kept, ExitStack() as files:
            for entry in reading.entries(self.path):
                line = entry.text.rstrip(b"\n") + b"\n"
                if entry.line is not None and entry.line["step"] <= step:
                    kept.write(line)
                elif entry.line is None and not entry.torn:
                    if not damaged:
                        other = files.enter_context(open_own(aside)).buffer
                    other.write(line)
                    damaged += [entry._replace(text=b"")] if len(damaged) < reading.LINES else []
        if damaged:
            text = f"{self._passed_over(damaged)}; now in {reading.DAMAGED}"
            warnings.warn(text, Notice, stacklevel=2)

    def flush_log(self) -> None:
        """Wait until the log is on the disk, if there is one."""
        with storage(self.log_file), suppress(FileNotFoundError):
            descriptor = os.open(self.log_file, os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            flush_directory(self.path)

    def _passed_over(self, damaged: Sequence[reading.Entry]) -> str:
        """Return a message that names the first lines of the log that cannot be read."""
        named = "; ".join(f"line {entry.number}: {entry.why}" for entry in damaged[:3])
        more = f"; and {len(damaged) - 3:,} more" if len(damaged) > 3 else ""
        return f"{self.log_file}: passed over: {named}{more}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the directory for one writer; the lock ends with the process, however it ends.

        Raises `BusyError`. The name of a writer on another machine counts as its lock until it is
        removed: not every network disk shows the locks of other machines. Raises `StorageError`,
        before anything is written, for a run with links that lead out of it.
        """
        self.require_own_places()
        reading.lock(self.path)  # no lock is as large as the memory
        with storage(self.path / "lock"):
            file = open_own(self.path / "lock")
        with file:
            with storage(self.path / "lock"):
                if not _locked(file):
                    holder = _holder(file)
                    message = f"process {holder} is training here{self.advice(holder)}"
                    raise BusyError(f"{self.path}: {message}")
                file.seek(0)
                previous = file.read().strip()
                if advice := self.advice(previous):
                    message = f"process {previous} has not said that it ended{advice}"
                    raise BusyError(f"{self.path}: {message}")
                file.truncate(0)
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                file.write(f"{os.getpid()} (on {platform.node()} since {now})")
                file.flush()
            self.tidy()
            try:
                yield
            finally:
                file.truncate(0)

    def others(self) -> list[str]:
        """Return the names of files and folders in it that vgx does not write."""
        return sorted(
            name
            for name in os.listdir(self.path)  # noqa: PTH208
            if name not in (*_FILES, *_FOLDERS) and not UNFINISHED.fullmatch(name)
        )

    def holder(self) -> str:
        """Return which process is writing here now; an empty text if none is.

        Raises `StorageError` for a lock that no process has written.
        """
        holder = reading.lock(self.path)
        if not holder or self.advice(holder):
            return holder
        # On this machine only the lock counts: the text outlives a killed writer.
        with suppress(OSError), opened(self.path / "lock", reading.MAX_LOCK) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return holder
        return ""

    def unlock(self) -> None:
        """Remove the lock of a writer on another machine that is known to have ended."""
        with storage(self.path / "lock"):
            if self.advice(reading.lock(self.path)):
                (self.path / "lock").unlink()

    def advice(self, holder: str) -> str:
        """Return advice if the holder of the lock is on another machine; else an empty text.

        It is the same for each command: a training, a removal.
        """
        where = _HOLDER.fullmatch(holder)
        if where is None or where[1] == platform.node():
            return ""
        return f"; if it has ended: rm {shlex.quote(str(self.path / 'lock'))}"

    def tidy(self) -> None:
        """Remove unfinished files of writers that were killed. The caller holds the lock."""
        for path in self.checkpoints.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)
        for folder in (self.path, *(self.path / name for name in _FOLDERS)):
            tidy(folder)
            for path in folder.glob(".*"):
                if _OLD_UNFINISHED.fullmatch(path.name):
                    with suppress(OSError):
                        path.unlink()


def _locked(lock: TextIO) -> bool:
    """Take the lock of a run, and return whether that went well.

    It is tried for a moment, since whoever looks for the holder of a killed run has it for one.
    """
    for _ in range(20):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.01)
    return False


def _holder(lock: TextIO) -> str:
    """Return the text of a lock file, which its holder may write a moment later."""
    for _ in range(20):
        lock.seek(0)
        if holder := lock.read().strip():
            return holder
        time.sleep(0.05)
    return "another one"


def create(name: str, out: str | Path | None = None) -> Run:
    """Create the next numbered directory; two processes never get the same number."""
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
    """Create a directory named by the next number only; no lock, since NFS locks no directory."""
    while True:
        claimed = [int(path.name) for path in root.glob("*") if re.fullmatch(r"\d{4,}", path.name)]
        number = max([*claimed, *(number for number, _ in numbered(root))], default=0) + 1
        claim = root / f"{number:04}"
        with suppress(FileExistsError):
            claim.mkdir()
            # Another process may have used this number since the folder was listed.
            if number not in dict(numbered(root)):
                return number, claim
            claim.rmdir()


def find(run: Run | str | Path | int | None = None, out: str | Path | None = None) -> Run:
    """Return the run with a path, a number or a name; by default the newest.

    Raises `StorageError` that lists the newest runs.
    """
    if isinstance(run, Run):
        return run
    root = runs_dir(out)
    runs = numbered(root)
    if run is None:
        if runs:
            return Run(runs[-1][1])
        raise StorageError(f"{root}: no runs here yet; make one with: vgx run RECIPE")
    wanted, place = str(run), user_path(str(run))
    with suppress(OSError, ValueError):  # text that cannot be the name of a file
        if (place / "recipe.yaml").is_file():
            return Run(place)
    by_number = [path for number, path in runs if wanted.lstrip("0") == str(number)]
    by_name = [path for _, path in runs if wanted in (path.name, path.name.partition("-")[2])]
    if found := by_number or by_name:
        return Run(found[-1])
    for renamed in (known := every(out)):
        if renamed.path.name == wanted:
            return renamed
    with suppress(OSError, ValueError):
        if _NAME.fullmatch(place.name) and place.is_dir():  # it was ended before it began
            return Run(place)
    newest = ", ".join(each.path.name for each in known[-5:]) or "none"
    raise StorageError(f"no run '{wanted}' in {root}; the newest there: {newest}")


def numbered(root: Path) -> list[tuple[int, Path]]:
    """Return the run directories in a folder with their numbers, in ascending order."""
    paths = [path for path in root.glob("*-*") if path.is_dir()]
    return sorted((int(match[1]), path) for path in paths if (match := _NAME.fullmatch(path.name)))


def every(out: str | Path | None = None) -> list[Run]:
    """Return the runs in the folder of runs: first those that were renamed, then by number."""
    root = runs_dir(out)
    paths = [path for _, path in numbered(root)]
    renamed = sorted({file.parent for file in root.glob("[!.]*/recipe.yaml")} - {*paths})
    return [Run(path) for path in (*renamed, *paths)]
