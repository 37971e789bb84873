"""Data sets in hub layout: local ones for real, the hub as a server on loopback that misbehaves."""

from __future__ import annotations

import io
import os
import socket
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import listening
from PIL import Image

import vgx
from vgx.data import cache
from vgx.data.store import open_source, open_store
from vgx.errors import DataError, HubError, RecipeError, noticing

SPEC = vgx.ImageSpec(size=8)
TO_USE, CONVERT = "To use those that are", "--set dataset.non_rgb=convert"
MODES = ["RGB", "L", "RGBA", "RGB", "P", "LA", "RGB"]


def sample_images(modes=MODES):
    return [Image.new("RGB", (9, 7), (40 * i, 10, 200)).convert(m) for i, m in enumerate(modes)]


def png(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder as the hub would hold it, written by the library itself."""
    columns = {"image": sample_images(), "label": list(range(len(MODES)))}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict(columns, features=features)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    return tmp_path / "hub"


def part(**fields):
    recipe = {
        "name": "t", "image": {"size": 8}, "latent": 4, "decoder": "conv-transpose",
        "losses": [{"type": "l1"}], "train": {"steps": 1}, "encoder": "conv", "sampler": "prior",
        "dataset": {"type": "huggingface", **fields},
    }  # fmt: skip
    from vgx.parts.base import validate
    from vgx.recipe.model import Recipe

    return validate(Recipe, recipe, vgx.discover()).dataset


def store(**fields):
    source, notices = open_source(part(**fields), SPEC)
    with noticing(notices):
        return open_store(source, SPEC), notices


def test_only_rgb_images_are_kept_and_the_others_are_counted(folder):
    kept, notices = store(path=str(folder))
    assert kept.images.shape == (3, 8, 8, 3)
    assert kept.dropped == {"greyscale": 1, "in mode P": 1, "with alpha": 2}
    assert kept.images[1, 0, 0].tolist() == [120, 10, 200]
    assert [notice.splitlines() for notice in notices] == [
        [
            "only 3 of 7 images are used: 1 greyscale, 1 in mode P, 2 with alpha",
            f"{TO_USE} greyscale: {CONVERT}, or --set image.channels=1",
            f"{TO_USE} with alpha, in mode P: {CONVERT}",
        ]
    ]


def test_when_none_is_rgb_the_message_says_what_keeps_them(tmp_path):
    cells = [{"bytes": png(image), "path": None} for image in sample_images(["L", "L", "LA"])]
    pq.write_table(pa.table({"image": cells}), tmp_path / "grey.parquet")
    with pytest.raises(DataError) as caught:
        store(path=str(tmp_path / "grey.parquet"))
    assert str(caught.value).splitlines() == [
        "none of 3 images is usable: 2 greyscale, 1 with alpha",
        f"{TO_USE} greyscale: {CONVERT}, or --set image.channels=1",
        f"{TO_USE} with alpha: {CONVERT}",
    ]


def test_convert_keeps_them_all(folder):
    kept, _ = store(path=str(folder), non_rgb="convert")
    assert (len(kept.images), kept.dropped) == (7, {})


def test_slices_and_limit_take_the_first_rows(folder):
    assert len(open_source(part(path=str(folder), split="train[:4]"), SPEC)[0]) == 4
    assert len(open_source(part(path=str(folder), limit=2), SPEC)[0]) == 2


def test_a_single_parquet_file_with_bare_structs_works(tmp_path):
    cells = [{"bytes": png(image), "path": None} for image in sample_images(["RGB", "L"])]
    pq.write_table(pa.table({"image": cells, "n": [1, 2]}), tmp_path / "bare.parquet")
    kept, _ = store(path=str(tmp_path / "bare.parquet"))
    assert (len(kept.images), kept.dropped) == (1, {"greyscale": 1})


def test_bad_rows_are_named_and_may_be_left_out(tmp_path):
    good = png(sample_images(["RGB"])[0])
    cells = [{"bytes": data, "path": path} for data, path in (
        (good, None), (good[:50], "faces/torn.png"), (b"text", None), (None, None), (good, "a.png"),
    )]  # fmt: skip
    pq.write_table(pa.table({"image": cells}), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"(?s)row 1 \(faces/torn\.png\): .*on_bad=skip"):
        store(path=str(tmp_path / "bad.parquet"))
    source, _ = open_source(part(path=str(tmp_path / "bad.parquet")), SPEC)
    kept = open_store(source, SPEC, max_bad=0.4)
    assert (len(kept.images), kept.dropped, kept.bad) == (2, {"empty": 1}, 2)
    assert kept.named[1] == "row 2: not an image, or broken at its beginning"


@pytest.mark.bar("D1")
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_parquet_file_that_breaks_off_is_an_error_of_the_data(folder, share):
    (file,) = folder.rglob("*.parquet")
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    for path in (folder, file):
        with pytest.raises(DataError, match=f"dataset huggingface: {path}, split train: "):
            store(path=str(path))


@pytest.mark.bar("D1")
def test_a_parquet_file_with_a_hole_is_refused_or_every_row_is_accounted_for(
    folder, record_property
):
    """Its end, where its columns are described, is whole; the format itself has no checksums."""
    (file,) = folder.rglob("*.parquet")
    data, refused, bad = file.read_bytes(), 0, 0
    for place in range(4, len(data) - 400, 150):
        file.write_bytes(data[:place] + bytes(60) + data[place + 60 :])
        os.utime(file, (place, place))  # another file than the one before
        try:
            source, _ = open_source(part(path=str(folder), non_rgb="convert"), SPEC)
            kept = open_store(source, SPEC, max_bad=1)
        except DataError:
            refused += 1
            continue
        assert len(kept.images) + kept.bad + sum(kept.dropped.values()) == len(MODES)
        bad += kept.bad
    assert refused
    assert bad
    record_property("cases", len(range(4, len(data) - 400, 150)))


def test_two_columns_of_images_must_be_told_apart(tmp_path):
    cells = [{"bytes": png(p), "path": None} for p in sample_images(["RGB", "RGB"])]
    pq.write_table(pa.table({"a": cells, "b": cells[::-1]}), tmp_path / "two.parquet")
    with pytest.raises(DataError, match="several columns hold images: a, b"):
        store(path=str(tmp_path / "two.parquet"))
    kept, _ = store(path=str(tmp_path / "two.parquet"), column="b")
    assert kept.images[0, 0, 0].tolist() == [40, 10, 200]
    with pytest.raises(DataError, match=r"no column 'c'; the columns are a \({bytes: .*b \("):
        store(path=str(tmp_path / "two.parquet"), column="c")


def test_a_column_of_something_else_is_refused(folder):
    with pytest.raises(DataError, match="column 'label' holds int64, not images"):
        store(path=str(folder), column="label")


def test_what_is_not_there_is_said(folder, tmp_path):
    with pytest.raises(DataError, match="~nobody-of-this-name/faces: no such folder or file"):
        store(path="~nobody-of-this-name/faces")
    with pytest.raises(DataError, match="no such folder or file"):
        store(path=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="test"):
        store(path=str(folder), split="test")


def test_a_changed_file_changes_the_fingerprint(folder):
    source = part(path=str(folder))
    before = source.build(SPEC).fingerprint
    (file,) = folder.rglob("*.parquet")
    os.utime(file, (1, 1))
    assert source.build(SPEC).fingerprint != before


def test_images_in_rows_are_other_data_without_a_library_that_reads_more(folder, monkeypatch):
    """Only where they are decoded once and kept: a stream decodes its images in each run."""
    kept, streamed = part(path=str(folder)), part(path=str(folder), stream=True)
    before = kept.build(SPEC).fingerprint, streamed.build(SPEC).fingerprint
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert kept.build(SPEC).fingerprint != before[0]
    assert streamed.build(SPEC).fingerprint == before[1]


def test_other_content_under_the_same_name_size_and_time_is_read(tmp_path):
    """The library itself would take its own files of the old content."""
    file, contents = tmp_path / "x.parquet", []
    for colour in ("red", "blue"):
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(picture, "BMP")
        rows = pa.table({"image": [{"bytes": picture.getvalue(), "path": None}] * 3})
        pq.write_table(rows, tmp_path / colour, compression="none", use_dictionary=False)
        contents.append((tmp_path / colour).read_bytes())
    assert len(contents[0]) == len(contents[1])
    file.write_bytes(contents[0])
    before = file.stat()
    assert store(path=str(file))[0].images[0, 0, 0].tolist() == [255, 0, 0]
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system has ticks
        file.write_bytes(contents[1])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store(path=str(file))[0].images[0, 0, 0].tolist() == [0, 0, 255]


def test_a_local_data_set_is_not_copied_into_the_cache(folder):
    source = part(path=str(folder)).build(SPEC)
    assert source[0].getpixel((0, 0)) == (0, 10, 200)
    assert cache.content() == []


# --- which files are which split ------------------------------------------------------------------


def lay(root, names):
    """Write a file of one row for each name; its colour is its place in the list."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cells = [{"bytes": png(Image.new("RGB", (8, 8), (number, 0, 0))), "path": None}]
        pq.write_table(pa.table({"image": cells}), root / name)
    return root


def colours(path, split="train"):
    return colours_of(path, split=split)


def colours_of(path, **fields):
    source, _ = open_source(part(path=str(path), **fields), SPEC)
    return [source[index].getpixel((0, 0))[0] for index in range(len(source))]


LAYOUTS = {
    "shards": (["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet",
                "data/extra-00000-of-00001.parquet", "other.parquet"],
               {"train": [1, 0], "extra": [2], "train[:1]+extra": [1, 2]}),
    "names": (["b/my-train-2.parquet", "a/train.parquet", "a_dev.parquet", "eval 1.parquet",
               "trained.parquet"],
              {"train": [1, 0], "validation": [2], "test": [3]}),
    "folders": (["x/train/b.parquet", "train-1/a.parquet", "testing/train.parquet", "a.parquet"],
                {"train": [0, 1], "test": [2], "train[50%:]": [1]}),
    "nothing said": (["b.parquet", "a/c.parquet", ".d.parquet", ".git/e.parquet", "__x/f.parquet"],
                     {"train": [1, 0]}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_those_that_the_library_finds(tmp_path, layout):
    """Of the names alone; the library looks at the same folder, and copies it into its cache."""
    names, expected = LAYOUTS[layout]
    folder = lay(tmp_path / "there", names)
    for split, values in expected.items():
        assert colours(folder, split) == values
        rows = datasets.load_dataset(str(folder), split=split, cache_dir=str(tmp_path / "copy"))
        assert [row["image"]["bytes"] for row in rows] == [
            png(Image.new("RGB", (8, 8), (value, 0, 0))) for value in values
        ]
    for split, message in (("nowhere", 'Unknown split "nowhere"'), ("train[9:]", "no rows in")):
        with pytest.raises(DataError, match=message):
            colours(folder, split)


def test_a_readme_chooses_among_the_files_of_its_folder(tmp_path):
    folder = lay(tmp_path / "there", ["a/1.parquet", "a/2.parquet", "b/1.parquet"])
    readme = folder / "README.md"
    readme.write_text(
        "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: [b/*, a/2.parquet]\n  - {split: test, path: 'a/[!2]*'}\n"
        "tags: [faces]\n---\n# Faces\n"
    )
    assert (colours(folder), colours(folder, "test")) == ([2, 1], [0])
    several = "---\nconfigs:\n- {config_name: a, data_files: a/*}\n- {config_name: b, %s}\n---\n"
    readme.write_text(several % "default: true, data_files: b/*")
    assert colours(folder) == [2]
    readme.write_text(several % "data_files: b/*")
    with pytest.raises(DataError, match=r"several configs: a, b; set dataset\.config=NAME"):
        colours(folder)
    assert colours_of(folder, config="a") == [0, 1]
    with pytest.raises(DataError, match="no config 'c'; there are: a, b"):
        colours_of(folder, config="c")
    readme.write_text("---\nconfigs: [{config_name: a, data_files: ../*}]\n---\n")
    with pytest.raises(DataError, match=r"'\.\./\*': no file of this folder that can be opened"):
        colours(folder)


def test_rows_are_found_in_any_order_over_files_and_row_groups(tmp_path):
    """700 rows in three files, in groups of 1, 64 and 300: by several threads, there and back."""
    cells = [{"bytes": png(Image.new("RGB", (1, 1), (n // 256, n % 256, 0))), "path": f"{n}"}
             for n in range(700)]  # fmt: skip
    for name, first, last, size in (("a", 0, 9, 1), ("b", 9, 200, 64), ("c", 200, 700, 300)):
        table = pa.table({"image": cells[first:last], "n": range(first, last)})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=size)
    spec = vgx.ImageSpec(size=8, classes=700)
    source, _ = open_source(part(path=str(tmp_path), label="n", split="train[5:-5]"), spec)

    def number(index):
        red, green, _ = source[index].getpixel((0, 0))
        return 256 * red + green - 5, source.label(index) - 5

    order = [(31 * index) % 690 for index in range(690)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(number, order)) == [(index, index) for index in order]
    assert [number(index)[0] for index in range(689, 0, -50)] == list(range(689, 0, -50))


@pytest.mark.bar("S9")
def test_a_row_may_name_a_file_of_its_folder_and_no_other(tmp_path):
    lay(tmp_path, ["outside/secret.parquet"])
    for name in ("outside/a.png", "there/faces/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (8, 8), (7, 0, 0)).save(tmp_path / name)
    cells = [{"bytes": None, "path": path} for path in (
        "faces/a.png", "../outside/a.png", str(tmp_path / "outside" / "a.png"), "none.png",
    )]  # fmt: skip
    table = pa.table(
        {"image": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    )
    pq.write_table(table, tmp_path / "there" / "a.parquet")
    source, _ = open_source(part(path=str(tmp_path / "there")), SPEC)
    assert source[0].getpixel((0, 0)) == (7, 0, 0)
    for row in (1, 2):
        with pytest.raises(DataError, match=rf"row {row} \(.*\): no image in the row, and no file"):
            source[row]
    with pytest.raises(DataError, match=r"row 3 \(none\.png\): No such file"):
        source[3]
    alone, _ = open_source(part(path=str(tmp_path / "there" / "a.parquet")), SPEC)
    with pytest.raises(DataError, match=r"row 0 \(faces/a\.png\): no image in the row"):
        alone[0]
    before = source.fingerprint
    Image.new("RGB", (9, 9)).save(tmp_path / "there" / "faces" / "a.png")
    assert part(path=str(tmp_path / "there")).build(SPEC).fingerprint != before


# --- labels --------------------------------------------------------------------------------------


def labelled(folder, label, classes, **fields):
    spec = vgx.ImageSpec(size=8, classes=classes)
    source, _ = open_source(part(path=str(folder), label=label, **fields), spec)
    return source, spec


@pytest.fixture
def named(tmp_path):
    """Two images of three of which the library knows the classes by name; one is not labelled."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog", "fish"]),
            "unknown": datasets.ClassLabel(names=["a"]),
            "some": datasets.Value("int32"),
            "score": datasets.Value("float32"),
        }
    )
    columns = {
        "image": sample_images(["RGB", "L", "RGB"]), "kind": [2, 1, 0], "unknown": [0, 0, -1],
        "some": [1, None, 0], "score": [0.5, 0.5, 0.5],
    }  # fmt: skip
    rows = datasets.Dataset.from_dict(columns, features=features)
    (tmp_path / "named").mkdir()
    rows.to_parquet(tmp_path / "named" / "train.parquet")
    return tmp_path / "named"


def test_whole_numbers_are_labels_and_stay_with_their_images(folder):
    source, spec = labelled(folder, "label", 7)
    assert isinstance(source, vgx.Labelled)
    with noticing([]):
        kept = open_store(source, spec)
    # The others are dropped: they are not RGB.
    assert kept.labels.tolist() == [0, 3, 6]
    assert kept.images[:, 0, 0, 0].tolist() == [0, 120, 240]
    first, spec = labelled(folder, "label", 7, limit=2, non_rgb="convert")
    assert open_store(first, spec).labels.tolist() == [0, 1]


def test_class_labels_are_those_of_the_library(named):
    kept = open_store(*labelled(named, "kind", 3))
    assert kept.labels.tolist() == [2, 0]
    with pytest.raises(
        RecipeError, match=r"kind: there are 3 classes \(cat, dog, fish\), and image.classes is"
    ):
        labelled(named, "kind", 2)


def test_labels_that_cannot_be_are_said(folder, named):
    names = r"7 classes \(0, 1, 2, 3, 4, 5, 6\)"
    with pytest.raises(RecipeError, match=f"there are {names}, and image.classes is 0"):
        labelled(folder, "label", 0)
    with pytest.raises(RecipeError, match=f"there are {names}, and image.classes is 3; set image"):
        labelled(folder, "label", 3)
    with pytest.raises(DataError, match="no column 'lable'; it has image, label"):
        labelled(folder, "lable", 7)
    with pytest.raises(DataError, match=r"score: it holds numbers with fractions, such as 0.5"):
        labelled(named, "score", 1)
    with pytest.raises(DataError, match=r"image: the column holds .*, not labels; give"):
        labelled(named, "image", 1)


@pytest.mark.parametrize(("column", "classes"), [("some", 2), ("unknown", 1)])
def test_a_row_without_a_label_is_left_out_and_counted(named, column, classes):
    source, spec = labelled(named, column, classes, non_rgb="convert")
    store = open_store(source, spec)
    assert store.summary() == "2 images kept, 1 dropped (1 without a label)"
    assert store.labels.tolist() == {"some": [1, 0], "unknown": [0, 0]}[column]


def test_words_truth_values_and_whole_floats_are_labels_with_names(tmp_path):
    columns = {
        "image": sample_images(["RGB"] * 4),
        "word": ["frog", "cat", "frog", None],
        "truth": [True, True, False, True],
        "whole": [10.0, 2.0, 10.0, 7.0],
        "from_one": [1, 2, 3, 1],
        "several": [[0, 1], [1, 0], [1, 1], [0, 0]],
    }
    features = datasets.Dataset.from_dict(columns).features
    features["image"] = datasets.Image()
    (tmp_path / "words").mkdir()
    file = tmp_path / "words" / "train.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(file)

    def read(column, classes, **fields):
        source, spec = labelled(file, column, classes, **fields)
        assert isinstance(source, vgx.Named)
        return list(source.classes), open_store(source, spec).labels.tolist()

    assert read("word", 2) == (["cat", "frog"], [1, 0, 1])
    assert read("truth", 2) == (["false", "true"], [1, 1, 0, 1])
    assert read("whole", 3) == (["2", "7", "10"], [2, 0, 2, 1])
    assert read("from_one", 3) == (["1", "2", "3"], [0, 1, 2, 0])
    # Where all are below image.classes they are labels already, as they have always been.
    assert read("from_one", 4) == (["0", "1", "2", "3"], [1, 2, 3, 1])
    assert read("word", 2, limit=2) == (["cat", "frog"], [1, 0])
    assert read("from_one", 3, limit=3) == (["1", "2", "3"], [0, 1, 2])
    with pytest.raises(DataError, match=r"several: the column holds .*, not labels; give each im"):
        labelled(file, "several", 2)
    with pytest.raises(RecipeError, match=r"word: there are 2 classes \(cat, frog\), and image.cl"):
        labelled(file, "word", 5)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_column_of_texts_that_is_much_larger_than_its_file_is_refused_at_once(tmp_path, kind):
    """One long text in a dictionary, and many rows that mean it."""
    texts = pa.array(["a" * 200_000]).dictionary_encode().take(pa.array([0] * 500))
    pictures = pa.array([png(Image.new("RGB", (8, 8)))] * 500)
    rows, file = pa.table({"image": pictures, "text": texts}), tmp_path / f"x.{kind}"
    if kind == "parquet":
        pq.write_table(rows, file)
    else:
        with pa.ipc.new_stream(file, rows.schema) as stream:
            stream.write_table(rows)
    tracemalloc.start()
    with pytest.raises(DataError, match="text: it holds texts such as 'aaa.*, not names of classe"):
        labelled(file, "text", 2)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * 10**6


def test_only_who_asks_for_labels_gets_them_under_a_fingerprint_of_their_own(named):
    plain = part(path=str(named)).build(SPEC)
    assert not isinstance(plain, vgx.Labelled)
    prints = {plain.fingerprint, labelled(named, "kind", 3)[0].fingerprint}
    assert len(prints | {labelled(named, "unknown", 1)[0].fingerprint}) == 3


# --- the hub's rows ------------------------------------------------------------------------------


@pytest.mark.bar("S9")
def test_rows_of_the_hub_name_no_file_outside_of_its_caches(tmp_path, monkeypatch):
    """What the library gives for a data set of the hub, made here."""
    from huggingface_hub import constants

    from vgx_builtin import hub

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    inside = [hub.folders()[0] / "a.png", tmp_path / "hub" / "a.png"]
    for file in (*inside, tmp_path / "secret.png"):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (7, 0, 0)).save(file)
    features = datasets.Features({"image": datasets.Image(), "n": datasets.Value("int64")})
    cells = [{"bytes": png(sample_images()[0]), "path": "a.png"}]
    cells += [{"bytes": None, "path": str(file)} for file in (*inside, tmp_path / "secret.png")]
    rows = datasets.Dataset.from_dict({"image": cells, "n": [0, 1, 2, 3]}, features=features)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(hub, "load", lambda **_: rows)
    spec = vgx.ImageSpec(size=8, classes=4)
    source, _ = open_source(part(path="someone/faces", label="n"), spec)
    assert [source[index].getpixel((0, 0))[0] for index in range(3)] == [0, 7, 7]
    assert [source.label(index) for index in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"row 3 \(.*secret\.png\): no image in the row"):
        source[3]


# --- the hub, which is not there -----------------------------------------------------------------


@contextmanager
def silent():
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refusing():
    """A server that knows nothing: 404 for everything."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    return listening(Refuse)


def test_nobody_waits_long_for_a_silent_hub(monkeypatch):
    from huggingface_hub import constants

    from vgx_builtin import hub

    assert hub.SECONDS == 10
    monkeypatch.setattr(hub, "SECONDS", 0.3)
    with silent() as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        assert not hub.reachable()
    with refusing() as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(hub, "SECONDS", 10)
        assert hub.reachable()


def unreachable(monkeypatch):
    from vgx_builtin import hub

    monkeypatch.setattr(hub, "reachable", lambda: False)


def test_without_a_hub_the_fallback_is_used_and_said(monkeypatch):
    unreachable(monkeypatch)
    source, notices = open_source(
        part(path="someone/faces", fallback={"type": "drawn-faces", "count": 5}), SPEC
    )
    assert len(source) == 5
    assert len(notices) == 1
    assert "someone/faces" in notices[0]
    assert "Using the fallback instead: drawn-faces" in notices[0]


def test_without_hub_and_fallback_it_says_what_would_work(monkeypatch):
    unreachable(monkeypatch)
    with pytest.raises(HubError, match=r"dataset\.path=LOCAL_FOLDER") as caught:
        open_source(part(path="someone/faces"), SPEC)
    assert caught.value.exit_code == 8


@pytest.mark.slow
def test_a_data_set_that_the_hub_does_not_have_is_no_reason_for_the_fallback(forkserver, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: t\nimage: {size: 8}\nlatent: 4\nencoder: {type: conv, widths: [8]}\n"
        "decoder: {type: conv-transpose, widths: [8]}\nlosses: [l1]\nsampler: prior\n"
        "dataset: {type: huggingface, path: someone/faces, fallback: drawn-faces}\n"
        "train: {steps: 1, batch: 2}\n"
    )
    with refusing() as address:
        hub = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
        err = forkserver.run(tmp_path, "check", recipe, code=8, **hub).err.read_text()
    assert "someone/faces" in err
    assert "Traceback" not in err
