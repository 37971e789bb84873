"""Run directories: numbers, names, and one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import vgx
from vgx.errors import BusyError, StorageError
from vgx.files import cache_dir, write_file
from vgx.runs.directory import create, every, find, runs_dir
from vgx.training.resuming import require_begun


def made(name, out=None):
    run = create(name, out)
    run.recipe_file.write_text("name: x\n")
    return run


def test_runs_are_numbered_from_the_highest():
    assert [made(name).path.name for name in ("a", "b")] == ["0001-a", "0002-b"]
    (runs_dir() / "0041-by-hand").mkdir()
    assert made("c").path.name == "0042-c"


@pytest.mark.bar("L2")
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
    named = made("2")
    assert find("2") == second  # the number that every message uses
    assert find("0004-2") == find() == named


def test_what_is_not_there_is_said_with_what_is():
    with pytest.raises(StorageError, match="no runs here yet; make one with: vgx run RECIPE"):
        find()
    made("only")
    with pytest.raises(StorageError, match="no run '7' in .*; the newest there: 0001-only"):
        find("7")


def test_one_writer_holds_a_run():
    run = made("x")
    with run.held():
        said = f"process {os.getpid()} .on .* since .* is training here"
        with pytest.raises(BusyError, match=said) as busy, run.held():
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


ALONE = "from vgx.runs.directory import create, find; "  # in a process of its own, without torch


def started(program):
    return subprocess.Popen([sys.executable, "-c", ALONE + program], stdin=-1, stdout=-1, text=True)


@pytest.mark.bar("L2", control="numbers given without a check of existing directories")
def test_a_number_that_is_taken_would_be_refused(monkeypatch):
    first = made("x")
    monkeypatch.setattr("vgx.runs.directory.numbered", lambda _: [])
    with pytest.raises(StorageError, match="not empty"):
        create("x")
    assert first.recipe_file.read_text() == "name: x\n"


@pytest.mark.bar("L2")
def test_a_number_that_somebody_took_a_moment_ago_is_not_taken_twice(monkeypatch):
    """Another process names its run between our look and our claim."""
    from vgx.runs import directory as rundir

    numbered, looks = rundir.numbered, []

    def late(root):
        looks.append(root)
        runs = numbered(root)
        if len(looks) == 1:
            (root / "0001-other").mkdir()
        return runs

    monkeypatch.setattr(rundir, "numbered", late)
    assert create("mine").path.name == "0002-mine"
    assert sorted(path.name for path in runs_dir().iterdir()) == ["0001-other", "0002-mine"]


def test_a_claim_that_was_left_stops_nobody():
    (runs_dir() / "0001").mkdir(parents=True)
    assert create("x").path.name == "0002-x"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        '{"data": {"content": "x"}}',
        '{"data": {"content": "x", "kept": "many"}}',
        '{"data": {"content": "x", "kept": 1}, "packages": 5}',
        '{"data": {"content": "x", "kept": 1}, "plugins": [1]}',
        '{"data": {"content": "x", "kept": 1}, "plugins": [{"name": "a", "version": {}}]}',
    ],
)
def test_an_environment_that_nobody_wrote_so_is_an_error_of_the_storage(text):
    run = made("x")
    (run.path / "environment.json").write_text(text)
    with pytest.raises(StorageError, match=r"environment\.json"):
        run.environment()


def test_a_deep_line_of_the_log_is_left_out():
    run = made("x")
    run.log({"step": 1})
    with run.log_file.open("a") as file:
        file.write("[" * 100_000 + "\n")
    with pytest.warns(vgx.Notice, match=r"log\.jsonl: passed over: line 2: "):
        assert [line["step"] for line in run.read_log()] == [1]


@pytest.mark.bar("L2")
def test_two_processes_never_get_the_same_number():
    program = "[print(create('x').path.name) for _ in range(5)]"
    processes = [started(program) for _ in range(3)]
    names = [name for process in processes for name in process.communicate()[0].split()]
    assert sorted(names) == [f"{n:04}-x" for n in range(1, 16)]


def test_another_processes_lock_holds_and_ends_with_it():
    """However it ends: SIGKILL leaves nobody time to tidy up."""
    run = made("x")
    holder = started("h = find().held(); h.__enter__(); print(1, flush=True); input()")
    try:
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(BusyError, match=f"process {holder.pid} .on .* since 20"), run.held():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with run.held():
        assert (run.path / "lock").read_text().startswith(f"{os.getpid()} (on ")


def test_a_look_at_who_writes_here_keeps_nobody_from_writing():
    """The lock of a killed run is tried by whoever lists it, for a moment."""
    run = made("x")
    with (run.path / "lock").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        done = threading.Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN))
        done.start()
        with run.held():
            done.join()


ELSEWHERE = "4711 (on another-machine since 2026-01-31T12:00:00+00:00)"


@pytest.mark.bar("L1")
def test_a_lock_that_another_machine_did_not_take_back_is_believed():
    """Its own lock may not be seen from here; only the user knows whether it has ended."""
    run = made("x")
    (run.path / "lock").write_text(ELSEWHERE)
    said = r"process 4711 \(on another-machine since .*has not said that it ended; if it has ended"
    with (
        pytest.raises(BusyError, match=f"{said}: rm .*/runs/0001-x/lock$"),
        run.held(),
    ):
        pass
    assert (run.path / "lock").read_text() == ELSEWHERE
    run.unlock()
    with run.held():
        assert (run.path / "lock").read_text().startswith(f"{os.getpid()} (on ")
    assert (run.path / "lock").read_text() == ""


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_disk_that_locks_no_files_is_named_with_what_helps(monkeypatch, number):
    def refused(*_):
        raise OSError(number, "no locks here")

    run = made("x")
    monkeypatch.setattr(fcntl, "flock", refused)
    said = "0001-x/lock: no locks here: this disk locks no files; mount it with locks, or write to"
    with pytest.raises(StorageError, match=said), run.held():
        pass


@pytest.mark.parametrize("left", ["", "half a li", "4711 (on {node} since 2026)"])
def test_what_a_dead_process_of_this_machine_left_holds_nobody(left):
    run = made("x")
    (run.path / "lock").write_text(left.format(node=platform.node()))
    with run.held():
        pass


def test_a_lock_that_is_held_here_cannot_be_forgotten():
    run = made("x")
    with run.held():
        run.unlock()
        with pytest.raises(BusyError, match="is training here$"), run.held():
            pass


def test_a_lock_that_is_held_elsewhere_can():
    """As a network disk shows it: the lock is there, and its holder is on another machine."""
    run = made("x")
    with (run.path / "lock").open("w") as file:
        file.write(ELSEWHERE)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="is training here; if it has ended: "), run.held():
            pass
        run.unlock()
        with run.held():
            pass


@pytest.mark.bar("L2")
def test_numbers_go_on_beyond_four_digits():
    for name in ("9999-old", "10000-new", "10-short", "x-y", "0001"):
        (runs_dir() / name).mkdir(parents=True)
    assert find().path.name == "10000-new"
    assert find(9999).path.name == "9999-old"
    assert create("next").path.name == "10001-next"
    (runs_dir() / "20000-a-file").write_text("")
    assert create("next").path.name == "10002-next"


@pytest.mark.parametrize("run", ["²", "-1", "0", "2", "", "-", "..", "0001-onl", "1.0"])
def test_what_nearly_names_a_run_does_not(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made("only")
    with pytest.raises(StorageError, match="no run"):
        find(run)


def test_a_run_that_was_renamed_is_found_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    numbered = made("only")
    best, one = (made("x").path.rename(numbered.path.with_name(name)) for name in ("best one", "1"))
    assert find("best one").path == best
    assert find("1").path == numbered.path  # a number is a number, whatever else there is
    assert find(one).path == one
    (numbered.path.parent / "no run").mkdir()
    shutil.copytree(one, one.with_name(".hidden"))
    assert [run.path for run in every()] == [one, best, numbered.path]
    with pytest.raises(StorageError, match="no run 'no run'"):
        find("no run")


def test_a_run_that_ended_before_it_began_is_found_by_its_path_too(monkeypatch, tmp_path):
    """It has no recipe. A folder of pictures that is named like a run hides no run."""
    run, elsewhere = create("a"), create("b", tmp_path / "elsewhere")
    assert find(str(run.path)) == find("1") == find("0001-a") == run
    assert find(str(elsewhere.path)) == elsewhere
    with pytest.raises(StorageError, match="ended before it began"):
        require_begun(find(str(run.path)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0001-a").mkdir()
    assert find("0001-a") == run
    for name in ("0002-file", "pictures"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    for name in ("0002-file", "pictures", "folder", str(run.samples), "0003-\0", "0003-" * 99):
        with pytest.raises(StorageError, match="no run"):
            find(name)


def test_a_run_has_its_folders_and_says_where_things_are():
    run = create("x")
    assert {path.name for path in run.path.iterdir()} == {"samples", "checkpoints", "plugins"}
    assert run.read_log() == []
    assert run.plugin_files == []
    with pytest.raises(StorageError, match=r"environment\.json"):
        run.environment()


def test_places_come_from_the_caller_then_from_the_environment(monkeypatch, tmp_path):
    assert runs_dir(tmp_path / "mine") == tmp_path / "mine"
    assert runs_dir() == tmp_path / "runs"
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("VGX_RUNS", "")
    assert str(runs_dir()) == "runs"
    monkeypatch.delenv("VGX_RUNS")
    assert str(runs_dir()) == "runs"
    monkeypatch.delenv("VGX_CACHE")
    assert cache_dir().name == "vgx"


def test_where_no_folder_can_be_made_the_path_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file: File exists"):
        create("x", tmp_path / "file")


# --- only in the run itself ----------------------------------------------------------------------

OWN = ("lock", "log.jsonl", "recipe.yaml", "ended.json", "report.html", "evaluation.json")
OWN += ("note.txt",)
FOLDERS = ("checkpoints", "samples", "samplers", "trackers", "plugins", "replays")
INSIDE = ("checkpoints/step-00000005", "samples/x.png", "samplers/x", "plugins/x.py", "trackers/x")


def put(path, kind, victim):
    """Put something in place of a file or folder of a run."""
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"a link": victim, "a link to nothing": victim / "nothing"}[kind])


@pytest.mark.bar("S11")
@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a pipe"])
@pytest.mark.parametrize("name", [*OWN, *FOLDERS, *INSIDE])
def test_a_run_that_leads_elsewhere_is_not_trained_in(tmp_path, name, kind):
    run = made("x")
    mine = tmp_path / "mine"
    (mine / ".step-9").mkdir(parents=True)
    put(run.path / name, kind, mine)
    with (
        pytest.raises(StorageError, match=f"{name}: a (link|pipe).*nothing was written"),
        run.held(),
    ):
        pass
    assert [path.name for path in mine.rglob("*")] == [".step-9"]
    assert not (run.path / "lock").is_file()
    with pytest.raises(StorageError, match=f"{name}: a"):
        run.place(*name.split("/"), "x")


@pytest.mark.parametrize("name", [*OWN, *FOLDERS])
def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder_are_refused(name):
    run = made("x")
    path = run.path / name
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_text("") if name in FOLDERS else path.mkdir()
    with pytest.raises(StorageError, match=f"{name}: not a f"), run.held():
        pass


@pytest.mark.bar("S11")
@pytest.mark.parametrize("name", ["lock", "log.jsonl", "nonfinite.jsonl", "trackers/values.csv"])
def test_a_second_name_of_somebodys_file_is_not_appended_to(tmp_path, name):
    run = made("x")
    mine = tmp_path / "thesis.txt"
    mine.write_text("my thesis")
    path = run.path / name
    path.parent.mkdir(exist_ok=True)
    path.hardlink_to(mine)
    with pytest.raises(StorageError, match=r"a file with 2 names \(hard links\)"), run.held():
        pass
    assert mine.read_text() == "my thesis"


def test_the_run_and_the_folder_of_runs_may_be_links(tmp_path, monkeypatch):
    run = made("x")
    (tmp_path / "latest").symlink_to(run.path)
    (tmp_path / "all").symlink_to(runs_dir())
    (run.path / "my notes").symlink_to(tmp_path)  # nothing that vgx writes
    for step, path in enumerate((tmp_path / "latest", tmp_path / "all" / run.path.name)):
        with find(path).held():
            find(path).log({"step": step})
    assert len(run.read_log()) == 2
    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "all"))
    assert create("y").path.name == "0002-y"


def test_trackers_may_link_to_files_of_their_own(tmp_path):
    run = made("x")
    folder = run.path / "trackers" / "wandb"
    (folder / "offline-1").mkdir(parents=True)
    (folder / "latest-run").symlink_to("offline-1")
    with run.held():
        pass
    (folder / "debug.log").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(StorageError, match=r"debug\.log: a link to "), run.held():
        pass


@pytest.mark.parametrize("name", ["..", "a/b", "/etc/passwd", "", "../x"])
def test_a_place_in_a_run_is_one_name_after_another(name):
    with pytest.raises(StorageError, match="is not the name of a file in it"):
        made("x").place("samples", name)


def test_unfinished_files_of_killed_writers_are_removed_from_all_folders_of_a_run():
    run = made("x")
    for folder in FOLDERS:
        (run.path / folder).mkdir(exist_ok=True)
    left = [
        run.path / f".unfinished-{'0' * 16}",
        run.samples / f".unfinished-{'1' * 16}",
        run.path / "plugins" / f".unfinished-{'2' * 16}",
        # Of the first edition:
        run.path / ".evaluation.json.4711",
        run.samples / ".step-00000010.png.4711",
        run.samples / ".timelapse.webp.1",
        run.fits / ".gaussian-00000010-0a0a0a0a.safetensors.7",
    ]
    kept = [run.path / ".mine.swp", run.samples / ".hidden.png", run.samples / ".version.4.1"]
    for path in (*left, *kept):
        path.write_text("half")
    (run.checkpoints / ".step-00000005.0123456789abcdef").mkdir()
    with run.held():
        assert [path for path in left if path.exists()] == []
        assert all(path.exists() for path in kept)
        assert not list(run.checkpoints.iterdir())
