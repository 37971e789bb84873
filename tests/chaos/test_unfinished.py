"""What a killed command leaves is gone after the next one; equal process ids harm nobody."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

SHORT = ["--set", "train.steps=10", "--set", "train.save_every=5"]
# Stops for good before the NUMBER-th unfinished file becomes the real one, with a sign.
HOLD = """
import time
from pathlib import Path
renamed, replace = [], Path.replace
def hold(self, target):
    if self.name.startswith((".unfinished-", ".")):
        renamed.append(self)
        if len(renamed) == NUMBER:
            Path("held").touch()
            time.sleep(600)
    return replace(self, target)
Path.replace = hold
"""
COMMANDS = {
    "sample": (["sample", "-n", "4", "RUN"], 1),
    "out": (["sample", "-n", "4", "RUN", "--out", "drawn/a.png"], 1),
    "separate": (["sample", "-n", "40", "RUN", "--separate", "single"], 30),
    "eval": (["eval", "RUN", "--metrics", "psnr", "-n", "8", "--seeds", "1"], 1),
    "report": (["report", "RUN"], 1),
    "run": (["run", "--resume", "RUN", "--set", "train.steps=STEPS"], 8),
}
# The negative control: nobody tidies.
UNTIDY = """
from vgx import files, images
from vgx.runs import directory
files.tidy = images.tidy = directory.tidy = lambda _: None
"""


@pytest.fixture(scope="module")
def trained(forkserver, tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("trained")
    forkserver.run(folder, "run", tiny, *SHORT)
    (run,) = (folder / "runs").iterdir()
    return folder, run


def hidden(folder):
    """All that is unfinished in the runs and beside them."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


class Killer:
    """Kills a command, and gives it again."""

    def __init__(self, forkserver, folder, run):
        self.forkserver, self.folder, self.run = forkserver, folder, run
        self.steps, self.left = 10, 0

    def words(self, name):
        words = {"RUN": str(self.run), "train.steps=STEPS": f"train.steps={self.steps}"}
        return [words.get(word, word) for word in COMMANDS[name][0]]

    def kill(self, name, number=None, after=0.0):
        """Kill a command at its `number`-th file, or after some seconds."""
        self.steps += 5 if name == "run" else 0
        sign = self.folder / "held"
        sign.unlink(missing_ok=True)
        hook = HOLD.replace("NUMBER", str(number)) if number else ""
        child = self.forkserver.start(self.folder, *self.words(name), hook=hook)
        if number:
            child.wait_for(sign)
        else:
            time.sleep(after)
        child.kill()
        code = child.wait()
        assert code in (-9, 0), child.err.read_text()
        self.left += bool(hidden(self.folder))

    def again(self, name, hook=""):
        """Give the command again, and return what is hidden now."""
        self.steps += 5 if name == "run" else 0  # of a run that is done nothing would be left to do
        self.forkserver.run(self.folder, *self.words(name), hook=hook)
        return hidden(self.folder)


@pytest.mark.bar("L3")
@pytest.mark.parametrize(
    ("name", "kills"),
    [
        ("sample", 1),
        ("separate", 1),
        *(pytest.param(name, 4, marks=pytest.mark.chaos) for name in COMMANDS),
    ],
)
def test_after_the_next_command_nothing_unfinished_is_left(
    forkserver, trained, record_property, name, kills
):
    """Killed just before a file is renamed, and at any moment."""
    killer, generator = Killer(forkserver, *trained), random.Random(kills)
    start = time.monotonic()
    assert killer.again(name) == []
    length = time.monotonic() - start
    for number in range(kills):
        held = number % 2 == 0
        at = generator.randint(1, COMMANDS[name][1]) if held else None
        killer.kill(name, at, generator.uniform(0.3, 1) * length)
        assert killer.again(name) == []
    assert killer.left  # there was something to remove
    record_property("cases", kills)


@pytest.mark.bar("L3", control="nobody removes what was left")
def test_what_nobody_removes_would_be_seen(forkserver, trained, record_property):
    """The negative control."""
    killer = Killer(forkserver, *trained)
    killer.kill("sample", 1)
    left = killer.again("sample", hook=UNTIDY)
    assert len(left) == 1
    assert killer.again("sample") == []
    record_property("seen", left[0].rpartition("/")[2])


# --- equal process ids ---------------------------------------------------------------------------

WRITER = """
import os, sys
from pathlib import Path
os.getpid = lambda: 7
{careless}
from vgx.files import write_file
path, letter, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    write_file(path, letter * (200_000 + number), sync=number % 2 == 0)
"""
# The negative control: a name that two may choose at once, opened as it is found.
SAME_NAME = """
import secrets
secrets.token_hex = lambda _: "0" * 16
opened = Path.open
Path.open = lambda self, mode="r", *rest, **more: opened(
    self, mode.replace("x", "w"), *rest, **more
)
"""


def together(folder, count, careless=""):
    """Let three write one file under the same process id; return torn reads, reads and errors."""
    path, torn, reads = folder / "file", 0, 0
    program = WRITER.format(careless=careless)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), letter, str(count)],
            stdin=-1, stdout=-1, stderr=-1, text=True,
        )
        for letter in "abc"
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    path.write_text("d" * 200_000)
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        text = path.read_bytes()
        reads += 1
        torn += len(set(text)) != 1 or len(text) < 200_000
    errors = [writer.communicate()[1].strip() for writer in writers]
    return torn, reads, [error.splitlines()[-1] for error in errors if error]


@pytest.mark.bar("L3")
@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.chaos)])
def test_writers_with_equal_process_ids_never_let_a_torn_file_be_read(
    tmp_path, record_property, count
):
    """Containers on a shared disk are all process 1 or 7."""
    torn, reads, errors = together(tmp_path, count)
    assert errors == []
    assert torn == 0
    assert reads > count / 4
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    record_property("cases", reads)


@pytest.mark.bar("L3", control="names without a random part")
def test_one_name_for_all_would_be_noticed(tmp_path, record_property):
    """The negative control."""
    torn, reads, errors = together(tmp_path, 300, careless=SAME_NAME)
    assert torn or errors
    record_property("seen", f"{torn} of {reads} reads torn, {len(errors)} of 3 writers failed")
