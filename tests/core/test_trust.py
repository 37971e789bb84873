"""Which plugin files of a run are executed: those that this user trusts, by their SHA-256."""

from __future__ import annotations

import hashlib
import io
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vgx
from vgx.cli import options, run_program
from vgx.errors import Notice
from vgx.parts import plugin_file
from vgx.runs import directory, trust

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
USES = ("sample", "eval", "report", "resume")
PART = '''
from pathlib import Path
import vgx

class Mine(vgx.Loss, type="mine"):
    """A loss."""

    def generator(self, step):
        return (step.recon - step.real).abs().mean()

with Path({marker!r}).open("a") as file:
    file.write("x")

@vgx.hookimpl
def register_components(register):
    register(Mine)
'''


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "executed"


@pytest.fixture
def program(marker):
    """A plugin file's text: whoever executes it leaves a marker."""
    return PART.format(marker=str(marker))


@pytest.fixture
def strange(program):
    """A run that lies there, with a plugin file; it has no checkpoint."""
    run = directory.create("strange")
    (run.path / "plugins" / "mine.py").write_text(program)
    run.recipe_file.write_text(vgx.dump_recipe(vgx.load_recipe(TINY)))
    return run


def digest(run):
    return hashlib.sha256((run.path / "plugins" / "mine.py").read_bytes()).hexdigest()


def place(run):
    return Path(os.environ["VGX_CONFIG"]) / "plugins" / digest(run)


@pytest.mark.bar("S6")
@pytest.mark.parametrize("command", USES)
def test_a_file_that_nobody_gave_is_refused_by_name_size_and_sum(strange, marker, command, capsys):
    assert run_program([command, str(strange.path)]) == 3
    err = capsys.readouterr().err
    size = (strange.path / "plugins" / "mine.py").stat().st_size
    assert f"'mine.py', {size:,} bytes, SHA-256 {digest(strange)}" in err
    assert "--trust-plugins" in err
    assert not marker.exists()


def test_run_resume_refuses_it_too(strange, marker, capsys):
    assert run_program(["run", "--resume", str(strange.path)]) == 3
    assert digest(strange) in capsys.readouterr().err
    assert not marker.exists()


def test_python_refuses_it_too(strange, marker):
    from vgx.console import Console
    from vgx.training import session, verify
    from vgx_report.run_page import write_page

    console = Console(file=io.StringIO())
    for use in (
        lambda: vgx.sample(strange),
        lambda: vgx.load(strange),
        lambda: session.resume(strange, console=console),
        lambda: verify.verify(strange, console=console),
        lambda: write_page(strange, console),
    ):
        with pytest.raises(vgx.PluginError, match=digest(strange)):
            use()
    assert not marker.exists()


def test_a_flag_trusts_it_for_one_command(strange, marker, capsys):
    assert run_program(["sample", str(strange.path), "--trust-plugins"]) == 5  # no checkpoint
    assert "checkpoint" in capsys.readouterr().err
    assert marker.exists()
    assert not place(strange).exists()


def test_a_flag_without_a_run_means_nothing(capsys):
    assert run_program(["run", str(TINY), "--trust-plugins"]) == 2
    assert "--resume RUN" in capsys.readouterr().err


def test_python_trusts_it_for_good(strange, marker):
    vgx.trust_plugins(strange)
    assert marker.exists()
    assert place(strange).is_file()
    assert trust.registry_of(strange).part("loss", "mine")


@pytest.mark.bar("S6")
def test_what_is_noted_is_executed_and_a_changed_or_added_file_is_not(strange, marker, capsys):
    trust.remember(strange.plugin_files)
    assert run_program(["sample", str(strange.path)]) == 5
    assert marker.exists()
    marker.unlink()
    capsys.readouterr()
    file = strange.path / "plugins" / "mine.py"
    text = file.read_text()
    file.write_text(text + "# changed\n")
    assert run_program(["sample", str(strange.path)]) == 3
    file.write_text(text)
    (strange.path / "plugins" / "more.py").write_text(text.replace("Mine", "More"))
    assert run_program(["sample", str(strange.path)]) == 3
    assert "'more.py'" in (err := capsys.readouterr().err)
    assert err.count("SHA-256") == 2  # the file that is trusted is not listed
    assert not marker.exists()


def test_the_same_bytes_are_trusted_in_another_run(strange, program, marker):
    trust.remember(strange.plugin_files)
    other = directory.create("other")
    (other.path / "plugins" / "renamed.py").write_text(program)
    trust.registry_of(other)
    assert marker.exists()


@pytest.mark.slow
def test_a_training_notes_what_it_was_given(tmp_path, program, capsys):
    """And its own end, which opens the run again, needs no question."""
    file = tmp_path / "mine.py"
    file.write_text(program)
    command = ["run", str(TINY), "--plugin", str(file), "--set", "losses.1=mine"]
    assert run_program([*command, "--set", "train.steps=1"]) == 0
    run = directory.find()
    assert place(run).is_file()
    assert (run.path / "report.html").is_file()
    copied = Path(shutil.copytree(run.path, tmp_path / "moved"))
    for name in [name for name in sys.modules if name.startswith("vgx_plugin_file_mine_")]:
        del sys.modules[name]  # as in another process
    assert run_program(["sample", str(copied), "-n", "1"]) == 0
    assert "NOTICE" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_configuration_that_cannot_be_written_costs_a_notice_only(
    tmp_path, program, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VGX_CONFIG", str(tmp_path / "file" / "config"))
    file = tmp_path / "mine.py"
    file.write_text(program)
    command = ["run", str(TINY), "--plugin", str(file), "--set", "losses.1=mine"]
    assert run_program([*command, "--set", "train.steps=1"]) == 0
    said = capsys.readouterr()
    assert "NOTICE: " in said.err
    assert "will ask before it imports 'mine.py' from a run" in said.err
    assert (directory.find().path / "report.html").is_file()


def test_a_relative_folder_notes_nothing(strange, tmp_path, monkeypatch):
    """It would be another one in each working directory: a stranger's, perhaps."""
    monkeypatch.setenv("VGX_CONFIG", "config")
    monkeypatch.chdir(tmp_path)
    place(strange).parent.mkdir(parents=True)
    place(strange).touch()
    with pytest.raises(vgx.PluginError):
        trust.registry_of(strange)
    with pytest.warns(Notice, match="must be an absolute path"):
        trust.remember(strange.plugin_files)


def test_what_is_checked_is_what_is_executed(strange, marker, monkeypatch):
    """A file that is replaced after the check is not read again."""
    trust.remember(strange.plugin_files)
    file, text = strange.path / "plugins" / "mine.py", "raise SystemExit('replaced')\n"
    require = trust.require
    monkeypatch.setattr(
        trust, "require", lambda *given: (require(*given), file.write_text(text))[0]
    )
    assert trust.registry_of(strange).part("loss", "mine")
    assert marker.exists()


# --- the question --------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 5), ("n\n", 3), ("\n", 3), ("", 130)])
def test_at_a_terminal_it_is_asked(strange, marker, monkeypatch, answer, code):
    err = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", err)
    assert run_program(["sample", str(strange.path)]) == code
    assert digest(strange) in err.getvalue()
    assert marker.exists() == (code == 5)
    assert place(strange).exists() == (code == 5)


@pytest.mark.parametrize("lost", ["stdin", "stderr"])
def test_without_a_terminal_nothing_is_asked(strange, marker, monkeypatch, lost):
    monkeypatch.setattr(sys, "stdin", None if lost == "stdin" else Terminal("y\n"))
    monkeypatch.setattr(sys, "stderr", io.StringIO() if lost == "stderr" else Terminal())
    monkeypatch.setattr(options.click, "confirm", lambda *_, **__: pytest.fail("asked"))
    assert run_program(["sample", str(strange.path)]) == 3
    assert not marker.exists()


def test_files_that_no_run_contains_are_not_even_asked_about(strange, marker, monkeypatch):
    (strange.path / "plugins" / ".hidden.py").write_text("")
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert run_program(["sample", str(strange.path)]) == 3
    assert run_program(["sample", str(strange.path), "--trust-plugins"]) == 3
    assert not marker.exists()


def at_a_terminal(folder, answer, *arguments):
    """Run vgx in a real terminal and answer its question: (exit code, what the terminal showed)."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vgx", *arguments],
        cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown, deadline, answered = "", time.monotonic() + 60, False
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        assert time.monotonic() < deadline, shown
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:  # nobody has the other end any more
                break
        if not answered and "[y/N]" in shown:
            os.write(ours, answer.encode())
            answered = True
    os.close(ours)
    return process.wait(), shown


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code"), [("y\n", 5), ("n\n", 3)])
def test_the_question_in_a_real_terminal(strange, marker, tmp_path, answer, code):
    ended, shown = at_a_terminal(tmp_path, answer, "sample", str(strange.path))
    assert ended == code, shown
    flat = " ".join(shown.split())
    assert f"SHA-256 {digest(strange)}" in flat
    assert "Execute them, now and in later commands? [y/N]" in flat
    assert marker.exists() == (code == 5)


def test_a_large_number_of_files_is_cut_in_the_message(strange):
    for number in range(9):
        (strange.path / "plugins" / f"x{number}.py").write_text(f"x = {number}\n")
    with pytest.raises(vgx.PluginError, match="and 4 more") as caught:
        trust.registry_of(strange)
    assert len(str(caught.value).splitlines()) == 8
    assert plugin_file.MOST_FILES == 100


def test_a_refusal_imports_nothing_heavy(strange):
    """So that it comes at once, and a run is explained without PyTorch."""
    program = (
        "import sys\nfrom vgx.cli import run_program\n"
        f"codes = [run_program([name, {str(strange.path)!r}]) for name in "
        "('sample', 'eval', 'report', 'explain')]\n"
        "heavy = {'torch', 'torchvision', 'timm', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'{codes}, imported {heavy}' if heavy or codes != [3, 3, 3, 5] else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
