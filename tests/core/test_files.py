"""Files: read whole and bounded, and written whole."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import vgx
from vgx.files import (
    HELPS,
    UNFINISHED,
    new_folder,
    open_own,
    opened,
    read_file,
    refusal,
    replacing,
    require_ending,
    write_file,
)


def test_a_regular_file_is_read_whole_up_to_its_bound(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_file(file, 5) == b"12345"
    with pytest.raises(vgx.StorageError, match="5 bytes; at most 4 are read"):
        read_file(file, 4)


def test_a_large_sparse_file_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "a"
    file.touch()
    os.truncate(file, 2**40)
    with pytest.raises(vgx.StorageError, match=r"1,099,511,627,776 bytes; at most 10 are read"):
        read_file(file, 10)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a pipe", "/dev/zero"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, kind):
    file = tmp_path / "a"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "b")
        file.symlink_to(tmp_path / "b")
    else:
        file.symlink_to("/dev/zero")
    assert not stat.S_ISREG(file.stat().st_mode)
    with pytest.raises(vgx.StorageError, match="a: not a regular file"):
        read_file(file, 10)


def test_a_missing_file_stays_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "a", 10)


# --- written whole -------------------------------------------------------------------------------


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_link_stays_a_link_and_the_file_behind_it_is_replaced(tmp_path):
    real, link = tmp_path / "real" / "a.txt", tmp_path / "a.txt"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    write_file(link, "new")
    assert link.readlink() == real
    assert real.read_text() == "new"
    (tmp_path / "later.txt").symlink_to("real/later.txt")  # names nothing yet
    write_file(tmp_path / "later.txt", "made")
    assert (real.parent / "later.txt").read_text() == "made"
    assert names(tmp_path) == ["a.txt", "later.txt", "real"]
    assert names(real.parent) == ["a.txt", "later.txt"]


def test_a_device_is_written_to_and_stays(tmp_path):
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # one more /dev/null
        node.write_bytes(b"")
    except OSError:
        pytest.skip("only root can make a device here")
    (tmp_path / "link").symlink_to(node)
    for path in (node, tmp_path / "link"):
        write_file(path, "text")
    assert stat.S_ISCHR(node.lstat().st_mode)
    assert names(tmp_path) == ["link", "null"]
    assert require_ending(node, "an image", [".png", ".jpg"]) == ".png"


def test_a_pipe_is_written_to(tmp_path):
    pipe, data = tmp_path / "pipe.jpg", os.urandom(300_000)  # more than a pipe holds
    os.mkfifo(pipe)
    assert require_ending(pipe, "an image", [".png", ".jpg"]) == ".jpg"
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_file(pipe, data)
        assert read.result() == data
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


PRINTING = (
    "import os, sys; from pathlib import Path; from vgx.files import write_file; "
    "print('before', flush=True); write_file(Path(sys.argv[1]), 'FILE'); print('after')"
)


@pytest.mark.parametrize("path", ["a link", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("to", ["a file", "a pipe"])
def test_an_open_file_is_written_where_it_stands(tmp_path, path, to):
    """Opened anew, a file would be written from its beginning, over what was printed."""
    if path == "a link":  # as /dev/stdout is, which root could replace
        path = tmp_path / "link"
        path.symlink_to("/proc/self/fd/1")
    command, file = [sys.executable, "-c", PRINTING, path], tmp_path / "out"
    if to == "a pipe":
        said = subprocess.run(command, check=True, capture_output=True).stdout
    else:
        with file.open("wb") as out:
            subprocess.run(command, check=True, stdout=out)
        said = file.read_bytes()
    assert said == b"before\nFILEafter\n"


@pytest.mark.parametrize(
    ("kind", "said"), [("folder", "is a folder"), ("socket", "is a socket"), ("disk", "is a disk")]
)
def test_what_cannot_be_written_to_is_refused_before_anything_is_drawn(tmp_path, kind, said):
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    else:
        try:
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 250))
        except OSError:
            pytest.skip("only root can make a device here")
    mode = path.lstat().st_mode
    with pytest.raises(vgx.StorageError, match=said):
        require_ending(path, "an image", [".png"])
    with pytest.raises(vgx.StorageError, match=said):
        write_file(path, "text")
    assert path.lstat().st_mode == mode
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("length", [240, 247, 255])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, length):
    file = tmp_path / ("x" * (length - 4) + ".png")
    write_file(file, "whole")
    write_file(file, "again")
    assert file.read_text() == "again"
    with pytest.raises(vgx.StorageError, match="give a shorter name"):
        write_file(tmp_path / ("x" * 256), "whole")


def leave(file, error):
    with replacing(file) as new:
        new.write(b"half")
        assert len(names(file.parent)) == 2
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
def test_however_the_block_is_left_nothing_unfinished_stays(tmp_path, error):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(error):
        leave(file, error)
    assert names(tmp_path) == ["a.txt"]
    assert file.read_text() == "old"


@pytest.mark.bar("L3")
def test_what_a_killed_writer_left_is_removed_by_the_next_one_and_nothing_else(tmp_path):
    left, held = tmp_path / f".unfinished-{'a' * 16}", tmp_path / f".unfinished-{'b' * 16}"
    link, other = tmp_path / f".unfinished-{'c' * 16}", tmp_path / ".unfinished-notes"
    for path in (left, held, other, tmp_path / "mine"):
        path.write_text("half")
    link.symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / f".unfinished-{'d' * 16}")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_file(tmp_path / "a.txt", "new", sync=False)
        assert left.exists()
        write_file(tmp_path / "a.txt", "new")
        assert not left.exists()
        assert held.exists()
    write_file(tmp_path / "a.txt", "new")
    rest = {path.name for path in (link, other)}
    assert {*names(tmp_path)} == {"a.txt", "mine", f".unfinished-{'d' * 16}", *rest}


def test_folders_of_killed_writers_are_removed_too_and_no_link_is_followed(tmp_path):
    held, linked = (tmp_path / f".unfinished-{letter * 16}" for letter in "ac")
    left, link = (path.with_name(f"{path.name}.folder") for path in (held, linked))
    for folder in (left, tmp_path / "mine"):
        folder.mkdir()
        (folder / "half").write_text("half")
    held.touch()
    linked.touch()
    link.symlink_to("mine")
    with new_folder(tmp_path / "a") as place:
        assert UNFINISHED.fullmatch(place.stem)  # so it would be removed
        assert not left.exists()
        assert not held.exists()
        (place / "half").write_text("half")
        write_file(tmp_path / "b.txt", "new")
        assert (place / "half").exists()  # of a writer that lives
    assert {*names(tmp_path)} == {"a", "b.txt", "mine", link.name}
    assert names(tmp_path / "mine") == names(tmp_path / "a") == ["half"]
    with pytest.raises(vgx.StorageError, match="not an empty folder"), new_folder(tmp_path / "a"):
        pass


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_folder_has_the_permissions_of_any_other(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "a"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.bar("L3")
def test_an_unfinished_file_that_was_found_before_it_was_locked_is_begun_again(
    tmp_path, monkeypatch
):
    flock, found = fcntl.flock, []

    def late(file, how):
        if not found and how == fcntl.LOCK_EX:
            (found_now,) = tmp_path.glob(".unfinished-*")
            found.append(found_now)
            found_now.unlink()  # as a tidier does that has just locked it
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_file(tmp_path / "a.txt", "new")
    assert found
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_files_that_wait_for_no_disk_look_through_no_folder(tmp_path, monkeypatch):
    """Of 100,000 single images each would look through all before it."""
    looks = []
    monkeypatch.setattr(os, "scandir", looks.append)
    monkeypatch.setattr(os, "listdir", looks.append)
    write_file(tmp_path / "000000.png", b"image", sync=False)
    assert looks == []


def test_a_disk_without_locks_takes_files_all_the_same(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    write_file(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]


# --- files of a run ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a pipe", "two names"])
def test_only_a_file_of_its_own_is_appended_to(tmp_path, kind):
    file, stranger = tmp_path / "log", tmp_path / "thesis.txt"
    stranger.write_text("my thesis")
    if kind == "a link":
        file.symlink_to(stranger)
    elif kind == "a link to nothing":
        file.symlink_to(tmp_path / "nothing")
    elif kind == "a pipe":
        os.mkfifo(file)
    else:
        file.hardlink_to(stranger)
    with pytest.raises(vgx.StorageError, match=r"log: a .*nothing was written.*cp -rL RUN COPY"):
        open_own(file)
    assert stranger.read_text() == "my thesis"
    assert names(tmp_path) == ["log", "thesis.txt"]


# --- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [errno.errorcode[number] for number in HELPS])
def test_what_the_system_refuses_is_said_with_what_helps(tmp_path, name):
    number = getattr(errno, name)
    text = refusal(OSError(number, os.strerror(number)), tmp_path)
    assert os.strerror(number) in text
    assert HELPS[number] in text


def test_a_disk_without_inodes_is_not_said_to_have_room(tmp_path, monkeypatch):
    about = SimpleNamespace(f_bavail=20 * 256, f_frsize=4096, f_files=100, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _: about)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    text = refusal(full, tmp_path / "not" / "made yet", 2**20)
    assert ": it takes 20.00 MiB, but only 0 files (inodes) of 1; remove files" in text
    assert "needs" not in text
    about.f_favail = 5
    assert refusal(full, tmp_path, 2**20).endswith("needs 1.00 MiB, has 20.00 MiB")
    about.f_files = about.f_favail = 0  # a file system that counts none
    assert refusal(full, tmp_path).endswith("has 20.00 MiB")


def test_bytes_of_a_path_that_are_no_text_become_question_marks(tmp_path):
    path = os.fsdecode(b"caf\xe9")
    write_file(tmp_path / "a.json", json.dumps({"path": path}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text()) == {"path": "caf?"}


def test_a_file_that_is_longer_than_its_size_is_bounded_too():
    """As one that grows while it is read, or one of /proc, which has no size at all."""
    file = Path("/proc/self/status")
    assert file.stat().st_size == 0
    with pytest.raises(vgx.StorageError, match="more than 10 bytes; no more are read"):
        read_file(file, 10)


def test_what_is_opened_stays_the_file_that_it_was(tmp_path):
    """Whoever replaces a file while it is read changes nothing of what is read."""
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    with opened(file, 5) as data:
        file.rename(tmp_path / "b")
        file.symlink_to("/dev/zero")
        assert data.read() == b"12345"
