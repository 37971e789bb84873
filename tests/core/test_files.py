"""Files: read whole and bounded, and written whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import vgx
from vgx.files import opened, read_file


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
