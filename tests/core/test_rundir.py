"""Run directories: numbers, names, and one writer at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from vgx.errors import BusyError, StorageError
from vgx.rundir import create, find, runs_dir, write_file


def made(name, out=None):
    run = create(name, out)
    run.recipe_file.write_text("name: x\n")
    return run


def test_runs_are_numbered_from_the_highest():
    assert [made(name).path.name for name in ("a", "b")] == ["0001-a", "0002-b"]
    (runs_dir() / "0041-by-hand").mkdir()
    assert made("c").path.name == "0042-c"


def test_two_never_get_the_same_number():
    with ThreadPoolExecutor(8) as pool:
        names = [run.path.name for run in pool.map(lambda _: create("x"), range(24))]
    assert sorted(names) == [f"{n:04}-x" for n in range(1, 25)]


def test_a_run_is_found_by_path_number_name_or_as_the_newest(tmp_path):
    first, second, third = made("a-b"), made("a-b"), made("other")
    far = made("far", tmp_path / "elsewhere")
    assert find() == third
    assert find("1") == find(1) == find("0001-a-b") == first
    assert find("a-b") == second  # the newest of that name
    assert find(str(far.path)) == far
    assert find(None, tmp_path / "elsewhere") == far
    assert find(first) is first


def test_what_is_not_there_is_said_with_what_is():
    with pytest.raises(StorageError, match="no runs here yet; make one with: vgx run RECIPE"):
        find()
    made("only")
    with pytest.raises(StorageError, match="no run '7' in .*; the newest there: 0001-only"):
        find("7")


def test_one_writer_holds_a_run():
    run = made("x")
    with run.held():
        with pytest.raises(BusyError, match=r"process \d+ is training here") as busy, run.held():
            pass
        assert busy.value.exit_code == 7
    with run.held():
        pass


def test_a_torn_last_line_of_the_log_is_left_out_and_lines_after_a_step_go():
    run = made("x")
    for step in (1, 2, 3):
        run.log({"step": step})
    with run.log_file.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in run.read_log()] == [1, 2, 3]
    run.rewind_log(2)
    assert run.log_file.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    file = tmp_path / "f.txt"
    write_file(file, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "no space left")))
    with pytest.raises(StorageError, match="no space left"):
        write_file(file, "new")
    assert file.read_text() == "old"
