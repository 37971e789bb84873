"""Files of tensors with a sum of their own: what is read is what was written, or refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from memory import grows_by_less_than
from safetensors.torch import load_file

from vgx.errors import StorageError
from vgx.runs import summed
from vgx.runs.checkpoint import MAX_TENSORS

OF = "codes of step 4"
MOST = 10_000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "fit.safetensors"
    summed.write(path, {"mean": torch.tensor([1.5, -2.0]), "scale": torch.ones(1)}, OF)
    return path


def test_what_was_written_is_read_by_vgx_and_by_the_library(file):
    assert summed.read(file, OF, MOST)["mean"].tolist() == [1.5, -2.0]
    assert load_file(file)["mean"].tolist() == [1.5, -2.0]


def test_the_sum_is_that_of_the_text_and_of_the_file_with_zeros_in_its_place(file):
    data = file.read_bytes()
    start = data.index(b'"sha256":"') + len(b'"sha256":"')
    plain = OF.encode() + b"\n" + data[:start] + b"0" * 64 + data[start + 64 :]
    assert data[start : start + 64].decode() == hashlib.sha256(plain).hexdigest()


@pytest.mark.bar("D4")
def test_a_change_of_any_byte_is_noticed(file, record_property):
    whole = file.read_bytes()
    record_property("cases", len(whole))
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StorageError):
            summed.read(file, OF, MOST)


@pytest.mark.bar("D4")
@pytest.mark.parametrize("length", [0, 8, 100, -1])
def test_a_file_that_breaks_off_is_refused(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(StorageError, match="not as it was written|has no sum"):
        summed.read(file, OF, MOST)


def test_a_file_of_a_false_size_is_refused_before_it_is_read(file):
    """It would fill the memory; the rest of it is a hole, and takes no room on the disk."""
    os.truncate(file, 2**30)
    with (
        grows_by_less_than(200 * 2**20),
        pytest.raises(StorageError, match=r"fit\.safetensors: not as it was written: "),
    ):
        summed.read(file, OF, MAX_TENSORS)


def test_a_file_is_read_in_a_folder_whose_name_is_no_text(file, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd.mkdir()
    shutil.copy(file, odd)
    kept = summed.read(file, OF, MOST)
    again = summed.read(odd / file.name, OF, MOST)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_what_belongs_to_something_else_is_refused(file):
    with pytest.raises(StorageError, match="not as it was written"):
        summed.read(file, "codes of step 5", MOST)


def test_a_file_beyond_the_bound_is_not_read(file):
    with pytest.raises(StorageError, match="bytes"):
        summed.read(file, OF, len(file.read_bytes()) - 1)
