"""Names and texts of other people at a terminal: every command, and no byte that it obeys."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import threading
import unicodedata
from pathlib import Path

import pytest

# A title, a cleared screen, blinking, an 8-bit sequence, a backspace, marks of writing direction.
EVIL = "a\x1b]0;x\x07\x1b[2J\x1b[7;5m\x9b31m\x08\x7f\u202e\u200b\u2066b[bold]c:smile:"
FOLDER = os.fsdecode(os.fsencode(EVIL) + b"\xff")  # a byte that is no text
RICH = re.compile(r"\x1b\[(?:\d{0,3}(?:;\d{1,3})*m|\?25[lh]|\d?[AK])|\r|\n")
TERMINAL = """
import os
terminal = os.open({path!r}, os.O_RDWR)
for number in range(3):
    os.dup2(terminal, number)
"""
BLIND = """
import sys
for name, module in list(sys.modules.items()):
    if name.startswith("vgx") and hasattr(module, "visible"):
        module.visible = module.visible_lines = lambda text: text
"""


def at_a_terminal(forkserver, folder, *words, hook="", **environment):
    """Run a command at a terminal; return its exit code, and what was written there."""
    master, slave = pty.openpty()
    shown = []

    def read():
        while data := os.read(master, 100_000):
            shown.append(data)
            if b"\x04end" in data:
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    begin = TERMINAL.format(path=os.ttyname(slave))
    child = forkserver.start(folder, *words, hook=begin + hook, TERM="xterm", **environment)
    code = child.wait()
    os.write(slave, b"\x04end")
    reader.join(10)
    os.close(slave)
    os.close(master)
    return code, b"".join(shown).removesuffix(b"\x04end").decode("utf-8", "surrogateescape")


def obeyed(shown):
    """Return the characters that a terminal would obey or could not show, without those of rich."""
    rest = RICH.sub("", shown)
    bad = {c for c in rest if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    return sorted(bad) + ["blinking"] * ("\x1b[7;5m" in shown)


def spoilt(value):
    """Return plain data of a file of a run with the text in all names and texts."""
    if isinstance(value, dict):
        return {key: spoilt(inner) for key, inner in value.items()} | {EVIL: 0.5}
    if isinstance(value, list):
        return [spoilt(inner) for inner in value]
    return value + EVIL if isinstance(value, str) else value


@pytest.fixture(scope="module")
def stranger(forkserver, tmp_path_factory, tiny):
    """A folder with two runs, which lie in a folder with an evil name and have evil files."""
    folder = tmp_path_factory.mktemp("stranger")
    forkserver.run(folder, "run", tiny, "--set", "train.steps=2")
    forkserver.run(folder, "eval", "1", "--metrics", "psnr", "-n", "8", "--seeds", "1")
    shutil.copytree(folder / "runs" / "0001-tiny", folder / "runs" / f"0002-{FOLDER}")
    (folder / "runs").rename(folder / FOLDER)
    (folder / f"{FOLDER}.yaml").write_text("losses: [l1, nothing]\n" + f"{EVIL!r}: 1\n")
    return folder


FILES = ("audit.json", "environment.json", "evaluation.json", "ended.json", "log.jsonl")


def spoil(run, name):
    """Put the text into every name and text of one file of a run, and before them."""
    file = run / name
    lines = file.read_text().splitlines() if name.endswith("l") else [file.read_text()]
    file.write_text("".join(json.dumps(spoilt(json.loads(line))) + "\n" for line in lines))


def commands(folder):
    """Every command that shows a name, by what is odd in it."""
    runs = folder / FOLDER
    run, other = runs / "0001-tiny", runs / f"0002-{FOLDER}"
    return {
        "list": ("list",),
        "list of nothing": ("list", "--out", folder / (FOLDER + "x")),
        "compare": ("compare", run, other),
        "explain": ("explain", other),
        "report": ("report", other),
        "report elsewhere": ("report", run, "--out", folder / f"{FOLDER}.html"),
        "eval": ("eval", other, "--metrics", "psnr", "-n", 8, "--seeds", 1),
        "sample": ("sample", other),
        "separate": ("sample", run, "-n", 2, "--separate", folder / f"{FOLDER}s"),
        "resume": ("resume", other),
        "longer": ("run", "--resume", other, "--set", "train.steps=3"),
        "run": ("run", "tiny", "--set", "train.steps=1", "--out", runs),
        "check": ("check", folder / f"{FOLDER}.yaml"),
        "check nothing": ("check", folder / f"{FOLDER}.no"),
        "a setting": ("check", "tiny", "--set", f"train.{EVIL}=1", "--set", f"encoder={EVIL}"),
        "cache": ("cache",),
        "clear": ("cache", "--clear"),
        "a command": (EVIL,),
        "an option": ("list", f"--{EVIL}"),
        "a number": ("sample", "-n", EVIL),
        "too many words": ("list", EVIL),
        "a part": ("parts", f"loss/{EVIL}"),
        "a kind": ("parts", EVIL),
        "a plugin": ("plugins", "--plugin", folder / f"{FOLDER}.py"),
        "a new plugin": ("new-plugin", EVIL),
        "a recipe": ("recipes", EVIL),
        "weights": ("import-weights", folder / f"{FOLDER}.pt", folder / "w.safetensors"),
        "a device": ("check", "tiny", "--device", EVIL),
        "a data set": ("check", "tiny", "--data", folder / FOLDER),
        "a sampler": ("sample", run, "--sampler", EVIL),
        "a metric": ("eval", run, "--metrics", EVIL),
        "debug": ("check", folder / f"{FOLDER}.no", "--debug"),
    }


SHOWN = ("list of nothing", "separate", "report elsewhere", "resume", "check nothing", "a command")
FAST = ("list", "explain", "check", "a sampler")
CASES = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.chaos) for name in commands(Path())
]


@pytest.mark.bar("Q4")
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_shown_that_a_terminal_obeys(
    forkserver, stranger, tmp_path, name, record_property
):
    cases = 0
    for spoils in (None, *FILES) if name in ("compare", "explain", "list", "report") else (None,):
        folder = tmp_path / f"{spoils}"
        shutil.copytree(stranger, folder)
        if spoils is not None:
            for run in (folder / FOLDER).iterdir():
                spoil(run, spoils)
        words = commands(folder)[name]
        _, shown = at_a_terminal(forkserver, folder, *words, VGX_RUNS=str(folder / FOLDER))
        assert obeyed(shown) == [], (spoils, shown)
        assert "Traceback" not in shown or name == "debug", shown
        if name in SHOWN:
            assert "[bold]c:smile:" in re.sub(r"\s", "", RICH.sub("", shown)), shown
        cases += 1
    record_property("cases", cases)


@pytest.mark.bar("Q4")
def test_a_name_is_shown_as_it_is_and_its_advice_can_be_copied(forkserver, tmp_path, tiny):
    odd = tmp_path / ":smile: [bold]x[red]"
    words = ("run", tiny, "--set", "train.steps=1", "--out", odd)
    code, shown = at_a_terminal(forkserver, tmp_path, *words, COLUMNS="300")
    assert code == 0
    assert f"Run {odd}/0001-tiny on cpu" in shown
    (advice,) = re.findall(r"Draw more with: vgx (.*?)\r", shown)
    assert advice == f"sample '{odd}/0001-tiny'"


@pytest.mark.bar("Q4", control="text that is shown as it comes")
def test_without_visible_the_sequences_are_seen(forkserver, stranger, tmp_path, record_property):
    """The negative control."""
    shutil.copytree(stranger, tmp_path / "s")
    runs = str(tmp_path / "s" / FOLDER)
    _, shown = at_a_terminal(forkserver, tmp_path / "s", "list", hook=BLIND, VGX_RUNS=runs)
    assert "\x1b" in obeyed(shown) or "\u202e" in obeyed(shown)
    record_property("seen", f"{len(obeyed(shown))} kinds of control characters")
