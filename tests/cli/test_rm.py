"""What is removed is a run, and nothing but a run; and what is noted about one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest

from vgx.runs import directory, reading
from vgx_runs import commands, remove

RECIPE = "name: a\ntrain: {steps: 40}\n"


@pytest.fixture(autouse=True)
def _in_a_pipe(monkeypatch):
    monkeypatch.setattr(commands, "at_a_terminal", lambda: False)


def made(name="a"):
    run = directory.create(name)
    run.recipe_file.write_text(RECIPE)
    (run.path / "environment.json").write_text("{}")
    (run.checkpoints / "step-00000001").mkdir()
    (run.checkpoints / "step-00000001" / "model.safetensors").write_bytes(b"x" * 1_500_000)
    return run


def everything(folder):
    return sorted(path for path in folder.rglob("*"))


def test_a_run_is_removed_and_what_it_frees_is_said(vgx_here):
    run, other = made(), made("b")
    (run.path / "thesis.txt").write_text("mine")
    code, out, err = vgx_here("rm", 1)
    assert (code, run.path.is_dir()) == (2, True)
    assert "--yes" in err
    assert "with what vgx has not written: thesis.txt" in out
    code, out, _ = vgx_here("rm", 1, "--yes")
    assert code == 0
    assert out.endswith("1 removed, 1.5 MB freed\n")
    assert [*run.path.parent.iterdir()] == [other.path]
    assert vgx_here("rm", "0002-b", "0002-b", "--yes")[:2][1].endswith("1 removed, 1.5 MB freed\n")


@pytest.mark.parametrize(("answer", "left"), [("y\n", False), ("n\n", True), ("\n", True)])
def test_at_a_terminal_it_is_asked(vgx_here, monkeypatch, answer, left):
    run = made()
    monkeypatch.setattr(commands, "at_a_terminal", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer.strip())
    code, out, _ = vgx_here("rm", 1)
    assert (code, run.path.exists()) == (0, left)
    assert ("Nothing was removed" in out) == left


@pytest.mark.bar("S11")
def test_what_is_no_run_stays(vgx_here, tmp_path):
    """A folder with a recipe, a folder like a run with a file of somebody, a link to a run, and a
    run that somebody trains; and with one of them none of the others is removed."""
    run = made()
    project, like = tmp_path / "project", run.path.parent / "0007-like"
    for folder in (project, like):
        folder.mkdir()
    (project / "recipe.yaml").write_text(RECIPE)
    (like / "thesis.txt").write_text("mine")
    link = tmp_path / "latest"
    link.symlink_to(run.path)
    fake = made("fake")
    (fake.path / "environment.json").unlink()
    (fake.path / "environment.json").symlink_to("/etc/hostname")
    before = everything(tmp_path)
    for given, why in (
        (project, "does not have recipe.yaml and environment.json"),
        (like.name, "no run, since"),
        (link, "a link to .*0001-a; name the run itself"),
        (tmp_path / "nothing", "no run"),
        (run.path / "checkpoints", "no run"),
    ):
        code, _, err = vgx_here("rm", run.path, given, "--yes")
        assert code == 5, given
        assert re.search(why, err), err
        assert everything(tmp_path) == before
    with run.held():
        code, _, err = vgx_here("rm", 1, "--yes")
    assert code == 7
    assert "is training here" in err
    assert run.path.is_dir()


def test_the_page_to_explore_is_no_file_of_somebody(vgx_here):
    run = made()
    (run.path / "explore.html").write_text("")
    assert "has not written" not in vgx_here("rm", 1)[1]
    assert run.others() == []


def test_a_run_whose_trainer_was_on_another_machine_says_what_frees_it(vgx_here):
    run = made()
    (run.path / "lock").write_text("12 (on another-machine since 2026-01-01T00:00:00+00:00)")
    code, _, err = vgx_here("rm", 1, "--yes")
    assert (code, run.path.is_dir()) == (7, True)
    assert "has not said that it ended; nothing was removed" in err
    (command,) = re.findall(r"if it has ended: (rm .*/lock)", " ".join(err.split()))
    subprocess.run(shlex.split(command), check=True)  # what it says is all that is needed
    assert vgx_here("rm", 1, "--yes")[0] == 0
    assert not run.path.exists()


def test_a_training_that_begins_meanwhile_keeps_its_run(tmp_path):
    """It locks the run between the look and the removal."""
    run = made()
    (run.path / "lock").write_text("12 (on here)")
    file = (run.path / "lock").open("r+")

    def locking(given):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        del given

    with mock.patch.object(remove, "require_run", locking), pytest.raises(remove.BusyError):
        remove.remove([run])
    assert [*run.path.parent.iterdir()] == [run.path]
    file.close()


@pytest.mark.bar("S11")
def test_links_in_a_run_are_removed_and_not_what_they_lead_to(vgx_here, tmp_path):
    run, mine = made(), tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    (run.path / "samples").rmdir()
    (run.path / "samples").symlink_to(mine)
    (run.path / "more").symlink_to(mine / "thesis.txt")
    os.mkfifo(run.path / "pipe")
    left = run.path.with_name(".0009-b.removed-" + "0" * 16)  # of a removal that was killed
    left.mkdir()
    (left / "log.jsonl").write_text("{}")
    assert vgx_here("rm", 1, "--yes")[0] == 0
    assert [*run.path.parent.iterdir()] == []
    assert (mine / "thesis.txt").read_text() == "mine"


def test_two_may_remove_at_the_same_time(vgx_here, monkeypatch):
    """What another one was removing is gone when it is looked at, in part or as a whole."""
    run = made()
    left = run.path.with_name(".0009-b.removed-" + "0" * 16)
    (left / "samples").mkdir(parents=True)
    really, calls = shutil.rmtree, []

    def interrupted(folder, ignore_errors=False):
        calls.append(folder.name)
        if calls.count(folder.name) > 2:
            really(folder)
        elif not ignore_errors:
            raise FileNotFoundError(folder / "samples")

    monkeypatch.setattr(remove.shutil, "rmtree", interrupted)
    assert vgx_here("rm", 1, "--yes")[0] == 0
    assert len(calls) == 6
    assert [*run.path.parent.iterdir()] == []


@pytest.fixture
def stuck(monkeypatch):
    """Folders called `root` cannot be deleted, as if another user had made them."""
    unlink, rmdir = os.unlink, os.rmdir

    def refusing(really):
        def refused(path, **more):
            if Path(path).name == "root":
                raise PermissionError(13, "Permission denied", str(path))
            really(path, **more)

        return refused

    monkeypatch.setattr(os, "unlink", refusing(unlink))
    monkeypatch.setattr(os, "rmdir", refusing(rmdir))


def test_what_cannot_be_deleted_is_named_and_all_else_is_deleted(vgx_here, stuck):
    """So are the other runs of the command."""
    run, _ = made(), made("b")
    (run.path / "root").mkdir()
    code, _, err = vgx_here("rm", 1, 2, "--yes")
    (left,) = run.path.parent.iterdir()
    assert code == 5
    assert " ".join(err.split()) == (
        f"vgx: {left}: the rest of a run that vgx rm removed and vgx list does not show cannot "
        "be deleted: Permission denied; delete this folder yourself"
    )
    assert [path.name for path in left.iterdir()] == ["root"]


def test_what_an_earlier_removal_left_keeps_no_run(vgx_here, stuck):
    """Whether it is found before the run's own folder or after."""
    run, other = made(), made("b")
    runs = run.path.parent
    left = [runs / f".0009-{name}.removed-{'0' * 16}" for name in "abc"]
    for folder in left:
        (folder / ("root" if folder == left[1] else "samples")).mkdir(parents=True)
    code, out, err = vgx_here("rm", 1, 2, "--yes")
    assert (code, [*runs.iterdir()]) == (0, [left[1]])
    assert "2 removed, 3.0 MB freed" in out
    assert f"NOTICE: {left[1]}: the rest of a run" in err
    assert not other.path.exists()


def test_a_run_that_ended_before_it_began_can_be_removed(vgx_here):
    for named in (lambda run: 1, lambda run: run.path):
        run = directory.create("a")
        assert vgx_here("rm", named(run), "--yes")[0] == 0
        assert not run.path.exists()


def test_a_note_is_kept_with_the_run_and_shown(vgx_here, tmp_path):
    run = made()
    assert vgx_here("note", 1) == (0, f"{run.path}: no note\n", "")
    assert vgx_here("note", 1, "less KL, \x1b[31mfaces") == (0, "", "")
    assert reading.note(run.path) == "less KL, \x1b[31mfaces"
    assert vgx_here("note", 1)[1] == "less KL, \\x1b[31mfaces\n"
    assert vgx_here("note", 1, "x" * 5000)[0] == 2
    assert vgx_here("note", 1, "")[0] == 0
    assert not (run.path / "note.txt").exists()
    mine = tmp_path / "mine"
    mine.write_text("thesis")
    (run.path / "note.txt").symlink_to(mine)
    for text in ("other", ""):
        code, _, err = vgx_here("note", 1, text)
        assert code == 5
        assert "nothing was written" in err
    assert mine.read_text() == "thesis"
    assert json.loads((run.path / "environment.json").read_text()) == {}
    assert Path(run.path / "note.txt").is_symlink()
