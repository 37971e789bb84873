"""What a run survives, counted: the table of docs/reliability.md.

A test says which bar it holds: `@pytest.mark.bar("R1")`. One that breaks something on purpose, and
passes when that is noticed, says so too: `@pytest.mark.bar("R1", control="written in place: ...")`.
A test of many cases says how many: `record_property("cases", 300)`; a control may say what was
measured: `record_property("seen", "0 of 8 saved")`.

A test that compares a recipe's training by several processes with that by one says how far they are
apart at most: `record_property("equal", [["vae", 2, 1.5e-13]])`. That is the table of docs/distributed.md.

The tables are written by the whole thorough tier, `pytest -n 2 -m chaos`, or by any selection of it
into the file that VGX_RELIABILITY names.
"""

# ruff: noqa: E501 - a row of a table is a line
from __future__ import annotations

import datetime
import os
import platform
import re
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
EQUAL = PAGE.with_name("distributed.md")
BEGIN, END = "<!-- made by pytest -m chaos -->", "<!-- end of what is made -->"

BARS = {
    "R1": "`kill -9` at random moments and while a checkpoint is written, VAE-GAN and GAN; after a resume the log and the SHA-256 of all tensors are those of a run that was never killed",
    "R2": "an error, or the end of the process, at every call that writes to the disk: the old checkpoint is loaded, or the new one",
    "R3": "a full disk or a full quota: exit 5, saved files are unchanged, and with room the run ends like one that always had room",
    "R4": "the order of flushes of everything that is committed: files, their directory, the rename, the directory above, and only then the removal of old ones",
    "R5": "checkpoints changed at random: each is refused by name and the one before is used; if none is left, exit 5",
    "R6": "SIGTERM, SIGINT and SIGUSR1 to the process group at any time: the step is saved, the exit code is right, no process is left, and a resume gives the same bits",
    "R7": "stopped anywhere and resumed, also after every step: all tensors, losses and learning rates are equal",
    "R8": "the same recipe again, on one thread, in new processes, with other times of logging, drawing and saving: the same SHA-256 of all tensors",
    "R9": "resumed with another recipe, other images, versions or plugins: refused with the difference, or continued with a notice",
    "R10": "a stored run of every format is resumed; a newer format is refused",
    "R11": "a log damaged at random, then a resume: every line that can be read stays, and so do the best checkpoint and all weights",
    "P1": "a signal to one of several processes, to torchrun and to `vgx --processes`, in a step, while the first one draws, and in the second stage: all stop at one step with one checkpoint, the exit code is right, the message is there once, no process is left",
    "P2": "one of several processes killed, silent, or with an error of its own: the others end with exit code 9 or that of the error, the checkpoint is whole; torchrun's restart goes on in the same run and ends with the same bits",
    "P3": "a run begun by some processes goes on with fewer and more: the same images in each minibatch, and the losses and weights of one process within rounding",
    "P4": "every recipe, 20 steps in float64 by 2 and by 4 processes over gloo: terms, weights, averages and optimizers are those of one process within 1e-9, and all processes have the same bits",
    "S1": "pickle files, archives and headers in place of everything that vgx reads, under an audit hook: refused; nothing is executed or written, and no connection is made",
    "S2": "the code itself: pickle, `eval`, `exec` and `torch.load` occur only in `import-weights`",
    "S3": "bombs in images, recipes, checkpoints, logs and archives: refused within 5 seconds and 200 MiB",
    "S4": "names that lead elsewhere, of runs, parts, samplers and files: nothing is written outside the folder of runs",
    "S5": "tokens of the environment are in no file of a run, and files have the permissions of the umask",
    "S6": "a run from a stranger, with plugin files of many kinds: no command that looks executes one, and the others only those that are trusted; else exit 3 with names and sums",
    "S7": "a plugin file is imported from the bytes that were hashed: edits within size and time, bytecode beside it, files replaced meanwhile",
    "S11": "links, devices and pipes in place of what is written, in a run and behind `--out`, `--svg` and `--separate`: nothing outside is changed",
    "S10": "each file of a run replaced by pipes, devices, folders, links, bombs and odd values, and each command that reads it: a documented exit code, no traceback, within 5 seconds and 200 MiB; the other runs are listed",
    "S8": "data sets and stores beyond the bounds are refused before decoding",
    "S9": "data folders and parquet files made by strangers: no socket, no file outside, no waiting, bounded memory and disk",
    "D1": "truncated and false image files in any share, truncated parquet files: counted and named exactly, or exit 4",
    "D2": "images of every mode, depth and orientation; none, one, too few: used as documented, or exit 4",
    "D3": "a store damaged at random bytes of each of its files, or by content changed under the same names, sizes and times: noticed and rebuilt; the weights are those of an undamaged store",
    "D4": "what a sampler learned, damaged at random: noticed",
    "C1": "recipes changed at random, read and checked: a recipe, or an error with its place, never a traceback",
    "C2": "scalars, duplicates, tags and aliases of YAML: as in YAML 1.2, or an error with its place",
    "C3": "values that contradict each other or fit no machine: exit 2 or 4 within 2 seconds, before there is a run directory",
    "X1": "twelve faulty distributions in twelve orders, and parts that fail while they train: named with plugin and version; everything else works",
    "X2": "two plugins with the same name: neither is chosen silently, and the result is the same in every order",
    "X3": "state that no checkpoint would contain: refused before the first step",
    "X4": "losses, networks and augmentations that change settings which all share, change their inputs in place, give values that are no scalars of a floating-point type, or raise what is no ordinary error, in the check and in a step: named with plugin and version, exit 3, the last checkpoint and the page are there; Ctrl-C stays 130",
    "H1": "a hub that refuses, breaks off, is too busy or silent: at most three tries (six for a download that breaks off), within 60 seconds, exit 8, no partial file is kept; no socket for local recipes",
    "N1": "NaN and infinity in losses and gradients of either player: no weight changes, nothing of it is saved, exit 6",
    "N2": "divergence without NaN: one warning of each kind, with advice",
    "L1": "simultaneous starts in one run directory: exactly one trains, the others end with exit 7; locks of killed processes are taken over",
    "L2": "existing directories are never written into: each run gets its own number",
    "L3": "unfinished files: of killed commands none is left after the next one, and writers with equal process ids never let a torn file be read",
    "M1": "2,000 steps: memory, open files and threads are as at the beginning",
    "W1": "workers of a sweep are killed at random while they train: every point is done once or failed and tried again, none is lost, none is done twice",
    "W2": "the server of a study is stopped and started while its workers are killed, or lies where only the network of a machine leads: as W1",
    "W3": "Ctrl-C to a sweep, or `kill -9` to the process that started its workers: all of them end, their runs are saved, and the trials wait",
    "Q1": "samples repeat to the byte and do not depend on their number; impossible settings are exit 2",
    "Q2": "a closed output, no terminal, an ASCII locale, no home directory, closed streams: no traceback",
    "Q3": "readers that leave, closed terminals, SIGHUP, full and closed streams, for six commands: each ends with its own code and keeps what it computed; a training has the same bits",
    "Q4": "escape sequences, marks of writing direction and undecodable bytes in paths, words of the command line, and the files of a run, for every command that shows a name, at a terminal: no byte that it obeys but those of rich",
}  # fmt: skip


@dataclass
class Test:
    """What came of one test that holds a bar."""

    bar: str
    control: str | None
    cases: int = 1
    seen: str = ""
    seconds: float = 0.0
    outcome: str = "passed"


class Table:
    """Listens to a session of pytest, and writes what it heard."""

    def __init__(self, config):
        self.config, self.tests, self.start = config, {}, time.monotonic()
        self.equal = {}  # by recipe and number of processes
        asked = config.option.markexpr == "chaos" and not config.option.collectonly
        narrowed = config.option.keyword or config.option.deselect or config.option.ignore
        self.whole = asked and not narrowed and config.args == config.getini("testpaths")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        for item in items:
            for mark in item.iter_markers("bar"):
                assert mark.args[0] in BARS, f"{item.nodeid}: no bar is called {mark.args[0]}"
                # The tests of the ordinary suite that hold a bar belong to the table too.
                if self.config.option.markexpr == "chaos":
                    item.add_marker("chaos")
                item.user_properties.append(("bar", (mark.args[0], mark.kwargs.get("control"))))

    def pytest_runtest_logreport(self, report):
        properties = dict(report.user_properties)
        if "bar" not in properties:
            return
        test = self.tests.setdefault(report.nodeid, Test(*properties["bar"]))
        test.cases, test.seen = properties.get("cases", 1), properties.get("seen", "")
        test.seconds += report.duration
        for recipe, processes, distance in properties.get("equal", ()):
            self.equal.setdefault(recipe, {})[processes] = distance
        if not report.passed:
            test.outcome = report.outcome

    def pytest_sessionfinish(self, session):
        if hasattr(self.config, "workerinput"):  # only the process that waits hears of all tests
            return
        target = os.environ.get("VGX_RELIABILITY")
        if target:
            Path(target).write_text(f"{self.text()}\n{self.distances()}")
        elif self.whole and not (session.shouldstop or session.shouldfail):
            for page, text in ((PAGE, self.text()), (EQUAL, self.distances())):
                written = page.read_text(encoding="utf-8")
                before, after = written.split(BEGIN)[0], written.split(END)[1]
                page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")

    def text(self):
        """Return the table, and what it was made with."""
        made = ", ".join(f"{name} {version(name)}" for name in ("vgx", "torch", "pillow"))
        cores, today = len(os.sched_getaffinity(0)), datetime.datetime.now(datetime.UTC).date()
        minutes = (time.monotonic() - self.start) / 60
        made = f"{made}, Python {platform.python_version()}, {platform.system()}, {cores} cores"
        processes = getattr(self.config.option, "numprocesses", None) or 1
        about = f"{today}, {made}: {minutes:.1f} minutes in {processes} processes."
        head = "| bar | what was done | N | failures | seconds | negative control |"
        rows = [row(bar, [t for t in self.tests.values() if t.bar == bar]) for bar in BARS]
        return "\n".join([about, "", head, "|---|---|---|---|---|---|", *rows, ""])

    def distances(self):
        """Return the table of recipes that several processes trained, and one."""
        numbers = sorted({number for found in self.equal.values() for number in found})
        head = f"| recipe | {' | '.join(f'{number} processes' for number in numbers)} |"
        rows = [
            f"| `{recipe}` | {' | '.join(f'{found[n]:.1e}' if n in found else '-' for n in numbers)} |"
            for recipe, found in sorted(self.equal.items())
        ]
        return "\n".join([head, f"|---|{'---|' * len(numbers)}", *rows, ""])


def row(bar, tests):
    """Return a line of the table. A control that was not noticed is a failure of the bar."""
    controls = [test for test in tests if test.control]
    held = [test for test in tests if not test.control]
    cases = sum(test.cases for test in held if test.outcome != "skipped")
    failures = str(sum(test.outcome == "failed" for test in tests))
    if skipped := sum(test.outcome == "skipped" for test in tests):
        failures += f" ({skipped} skipped)"
    told = "; ".join(dict.fromkeys(map(outcome, controls))) or "none"
    seconds = sum(test.seconds for test in tests)
    return f"| {bar} | {BARS[bar]} | {cases:,} | {failures} | {seconds:,.0f} | {told} |"


def outcome(test):
    """Say in words what a control came to."""
    words = f"{test.control}: {test.seen}" if test.seen else test.control
    said = {"passed": words, "failed": f"NOT NOTICED: {words}", "skipped": f"not run: {words}"}
    return re.sub(r"\s+", " ", said[test.outcome]).replace("|", "/")
