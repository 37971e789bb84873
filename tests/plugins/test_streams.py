"""Parquet files that are streamed: row groups of any size, on this machine."""

from __future__ import annotations

import io
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vgx
from vgx.console import Console
from vgx.data.opening import open_stream
from vgx.data.stream import StreamedImages
from vgx_builtin.datasets.huggingface import HuggingFace
from vgx_builtin.rows import row_groups

SPEC = vgx.ImageSpec(size=4)


def png(row):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (row % 256, row // 256, 7)).save(file, "PNG")
    return file.getvalue()


def write(file, rows, rows_per_group, labels=False, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": [{"bytes": png(row), "path": None} for row in rows]}
    if labels:
        columns["kind"] = [row % 3 for row in rows]
    pq.write_table(pa.table(columns), file, row_group_size=rows_per_group, **options)


def folder(root, files=((0, 25), (25, 32)), rows_per_group=10):
    for number, (first, last) in enumerate(files):
        write(root / "data" / f"train-{number:05}-of-00002.parquet", range(first, last),
              rows_per_group)  # fmt: skip
    return root


def opened(path, image=SPEC, **fields):
    return HuggingFace(path=str(path), stream=True, **fields).build(image)


def numbers(images):
    return [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in images]


def test_the_groups_are_the_row_groups_in_the_order_of_files(tmp_path):
    source = opened(folder(tmp_path))
    assert isinstance(source, vgx.Grouped)
    assert source.groups == [10, 10, 5, 7]
    images = StreamedImages(source, SPEC)
    assert numbers(images[np.arange(32)]) == list(range(32))
    assert numbers(images[np.array([31, 0, 24, 25])]) == [31, 0, 24, 25]
    assert source.group(3).encoded(2) == png(27)
    assert source[17].getpixel((0, 0)) == (17, 0, 7)


@pytest.mark.parametrize("rows_per_group", [1, 32])
def test_row_groups_of_one_row_and_of_all(tmp_path, rows_per_group):
    write(tmp_path / "x.parquet", range(32), rows_per_group)
    source = opened(tmp_path / "x.parquet")
    assert len(source.groups) == 32 // rows_per_group
    assert numbers(StreamedImages(source, SPEC)[np.arange(32)]) == list(range(32))


def test_slices_and_limits_cut_row_groups(tmp_path):
    path = folder(tmp_path)
    assert opened(path, split="train[5:28]").groups == [5, 10, 5, 3]
    source = opened(path, split="train[5:28]", limit=17)
    assert source.groups == [5, 10, 2]
    assert numbers(StreamedImages(source, SPEC)[np.arange(17)]) == list(range(5, 22))


def test_labels_are_those_of_the_rows(tmp_path):
    write(tmp_path / "x.parquet", range(20), 6, labels=True)
    source = opened(tmp_path / "x.parquet", vgx.ImageSpec(size=4, classes=3), label="kind")
    assert isinstance(source, vgx.Grouped)
    assert isinstance(source, vgx.Labelled)
    assert [source.label(row) for row in range(20)] == [row % 3 for row in range(20)]


def test_other_labels_are_other_data_although_the_footers_are_the_same(tmp_path):
    image, fingerprints, ends = vgx.ImageSpec(size=4, classes=3), set(), set()
    for kinds in ([0, 1, 2, 0], [1, 0, 2, 0]):
        columns = {"image": [{"bytes": png(row), "path": None} for row in range(4)], "kind": kinds}
        pq.write_table(pa.table(columns), tmp_path / "x.parquet", compression="none")
        file = (tmp_path / "x.parquet").read_bytes()
        ends.add(file[-8 - int.from_bytes(file[-8:-4], "little") :])
        source = opened(tmp_path / "x.parquet", image, label="kind")
        fingerprints.add(open_stream(source, image, Console(io.StringIO())).content)
    assert (len(ends), len(fingerprints)) == (1, 2)


def test_a_row_without_a_label_is_replaced(tmp_path):
    columns = {"image": [{"bytes": png(row), "path": None} for row in range(6)],
               "kind": ["a", None, "b", "a", None, "b"]}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=3)
    image = vgx.ImageSpec(size=4, classes=2)
    source = opened(tmp_path / "x.parquet", image, label="kind")
    store = open_stream(source, image, Console(io.StringIO()))
    assert numbers(store.images[:]) == [0, 2, 2, 3, 5, 5]
    assert store.labels[:].tolist() == [0, 1, 1, 0, 1, 1]
    assert store.classes(image) == [("a", 2), ("b", 2)]
    assert store.images.news() == [
        "images replaced by the next ones of their row groups: 2 without a label"
    ]


def test_a_limit_does_not_take_classes_evenly_from_a_stream(tmp_path):
    write(tmp_path / "x.parquet", range(20), 6, labels=True)
    image = vgx.ImageSpec(size=4, classes=3)
    with pytest.raises(vgx.RecipeError, match=r"dataset.split=train\[:9\]"):
        opened(tmp_path / "x.parquet", image, label="kind", limit=9)


def test_the_fingerprint_is_that_of_the_data_not_of_the_place(tmp_path):
    one = folder(tmp_path / "one")
    shutil.copytree(one, tmp_path / "two" / "deep")
    os.utime(one / "data" / "train-00000-of-00002.parquet", (1, 1))
    assert opened(one).fingerprint == opened(tmp_path / "two" / "deep").fingerprint
    names = {opened(one).fingerprint}
    for change in ({"limit": 31}, {"split": "train[1:]"}, {"non_rgb": "convert"}):
        names.add(opened(one, **change).fingerprint)
    names.add(opened(folder(tmp_path / "three", rows_per_group=11)).fingerprint)
    names.add(opened(folder(tmp_path / "four", ((0, 25), (25, 31)))).fingerprint)
    assert len(names) == 6


def test_a_part_of_a_column_is_streamed(tmp_path):
    rows = [[{"bytes": png(row), "path": None}, {"bytes": b"", "path": None}] for row in range(9)]
    pq.write_table(pa.table({"images": rows}), tmp_path / "x.parquet", row_group_size=4)
    source = opened(tmp_path / "x.parquet", column="images.0")
    assert numbers(StreamedImages(source, SPEC)[np.arange(9)]) == list(range(9))
    assert source.group_bytes > 4 * len(png(1))


@pytest.mark.parametrize(("given", "expected"), [("auto", [0, 16, 255]), ((0, 4095), [0, 1, 1])])
def test_16_bits_have_the_whole_range_unless_one_is_given(tmp_path, given, expected):
    rows = []
    for value in (0, 4112, 65535):
        file = io.BytesIO()
        Image.fromarray(np.full((4, 4), value, np.uint16)).save(file, "PNG")
        rows.append({"bytes": file.getvalue(), "path": None})
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet")
    image = vgx.ImageSpec(size=4, channels=1, range=given)
    images = StreamedImages(opened(tmp_path / "x.parquet", image), image)
    assert images[:][:, 0, 0, 0].tolist() == expected
    assert images[:][:, 0, 0, 0].tolist() == expected  # and from the disk


def test_numbers_are_not_streamed(tmp_path):
    rows = np.arange(9 * 64, dtype=np.uint16).reshape(9, 8, 8).tolist()
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet")
    with pytest.raises(vgx.DataError, match=r"holds numbers; vgx pack"):
        opened(tmp_path / "x.parquet")


def test_only_parquet_is_streamed(tmp_path, monkeypatch):
    from vgx_builtin.rows import streams

    with pytest.raises(vgx.DataError, match="only parquet files can be streamed; vgx pack"):
        streams.open_stream([], "here", "image", None, SPEC, "skip")


def test_a_shard_that_is_gone_is_named(tmp_path):
    source = opened(folder(tmp_path))
    (tmp_path / "data" / "train-00001-of-00002.parquet").unlink()
    images = StreamedImages(source, SPEC)
    assert numbers(images[np.arange(25)]) == list(range(25))
    with pytest.raises(vgx.DataError, match="train-00001-of-00002.parquet: row group 0: No such"):
        images[np.arange(25, 32)]


def test_a_torn_shard_is_named(tmp_path):
    source = opened(folder(tmp_path))
    file = tmp_path / "data" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(vgx.DataError, match="train-00001-of-00002.parquet: row group 0: "):
        StreamedImages(source, SPEC)[np.arange(25, 32)]


def test_a_shard_that_is_torn_from_the_beginning_ends_the_opening(tmp_path):
    file = folder(tmp_path) / "data" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(vgx.DataError, match="train-00001-of-00002.parquet: "):
        opened(tmp_path)


def test_a_large_row_group_is_refused_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(row_groups, "GROUP_BYTES", 5000)
    with pytest.raises(vgx.DataError, match=r"row group 1 has .* vgx pack writes smaller"):
        opened(folder(tmp_path, ((0, 10), (10, 510)), 10).joinpath(write_large(tmp_path)))
    assert len(opened(tmp_path / "data" / "train-00000-of-00002.parquet")) == 10


def write_large(root):
    table = pq.read_table(root / "data" / "train-00001-of-00002.parquet")
    file = root / "large.parquet"
    with pq.ParquetWriter(file, table.schema) as writer:
        writer.write_table(table.slice(0, 10), row_group_size=10)
        writer.write_table(table, row_group_size=500)
    return "large.parquet"


def test_equal_bytes_are_in_memory_once(tmp_path):
    rows = [{"bytes": png(1), "path": "a.png"} for _ in range(1000)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet")
    group = opened(tmp_path / "x.parquet").group(0)
    for key in ("bytes", "path"):
        assert len({id(cell[key]) for cell in group.cells}) == 1


def test_a_group_that_expands_beyond_its_footer_is_not_read(tmp_path, monkeypatch):
    """Distinct values that a dictionary repeats stay small; a footer that lies is noticed."""
    write(tmp_path / "x.parquet", range(300), 300)
    group = opened(tmp_path / "x.parquet").rows[0]
    monkeypatch.setattr(row_groups, "LARGE", 0)
    monkeypatch.setattr(type(group), "size", lambda *_: 100)
    with pytest.raises(vgx.DataError, match="more bytes than its footer says"):
        group.cells("image")
