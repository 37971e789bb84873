"""Labels as people write them: values of any kind, and files beside the images."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path

import pytest
from PIL import Image

import vgx
from vgx.data.store import open_store
from vgx.errors import DataError, RecipeError
from vgx_builtin.labels import beside as label_files
from vgx_builtin.labels import formats as label_formats
from vgx_builtin.labels.image_names import Names
from vgx_builtin.labels.sources import evenly
from vgx_builtin.labels.values import natural, numbered

# --- values --------------------------------------------------------------------------------------


def spec(classes):
    return vgx.ImageSpec(size=8, classes=classes)


@pytest.mark.parametrize(
    "expected",
    [
        ["0", "1", "2", "10", "11", "100"],
        ["img2", "img10", "img10a", "img010b"],
        ["a1b2", "a1b10", "a2b1"],
        ["\uff12", "10", "\uff11\uff10\uff10"],  # 2, 10, 100 in full-width digits
        ["٢", "10"],  # Arabic digits
        ["Cat", "bird", "dog"],
        ["", "a", "a1", "aa"],
        ["1.9", "1.10"],
        ["x", "x1", "x²"],  # the last digit is no decimal number
    ],
)
def test_numbers_in_names_count_by_their_value(expected):
    mixed = [*expected]
    mixed.reverse()
    assert sorted(mixed, key=natural) == expected


def test_names_that_count_alike_have_one_order():
    assert sorted(["02", "2", "002"], key=natural) == sorted(["2", "002", "02"], key=natural)


@pytest.mark.parametrize(
    ("values", "numbers", "names"),
    [
        (["cat", "dog", "cat"], [0, 1, 0], ["cat", "dog"]),
        ([" cat", "cat ", "dog"], [0, 0, 1], ["cat", "dog"]),
        (["e\u0301", "\u00e9", "a"], [1, 1, 0], ["a", "\u00e9"]),  # é in two spellings
        (["class10", "class2"], [1, 0], ["class2", "class10"]),
        ([5, 3, 5], [1, 0, 1], ["3", "5"]),
        ([-1, 1, 1], [0, 1, 1], ["-1", "1"]),
        (["-1", "1", "1"], [0, 1, 1], ["-1", "1"]),
        ([10.0, 2.0, 10.0], [1, 0, 1], ["2", "10"]),
        (["10.0", "2.0", ""], [1, 0, -1], ["2", "10"]),  # as pandas writes whole numbers
        (["007", "10", "007"], [0, 1, 0], ["007", "10"]),
        ([True, False, None], [1, 0, -1], ["false", "true"]),
        ([float("nan"), 2.0, 7.0], [-1, 0, 1], ["2", "7"]),
        (["a", 3, 3], [1, 0, 0], ["3", "a"]),
        (["no", "yes", None], [0, 1, -1], ["no", "yes"]),
        ([-1, 0, 1], [0, 1, 2], ["-1", "0", "1"]),
        ([-1, 0, 1, 0], [-1, 0, 1, 0], ["0", "1"]),  # as many data sets write "no label"
        ([2**70, 5, 5], [1, 0, 0], ["5", str(2**70)]),
    ],
)
def test_values_are_numbered_in_natural_order_and_keep_their_names(values, numbers, names):
    labels = numbered(values, "here", spec(len(names)))
    assert (list(labels.numbers), list(labels.names)) == (numbers, names)


def test_whole_numbers_below_the_number_of_classes_are_labels_already():
    for values in ([0, 3, 1], ["0", "3", "1"], [0.0, 3.0, 1.0]):
        labels = numbered(values, "here", spec(4))
        assert (list(labels.numbers), list(labels.names)) == ([0, 3, 1], ["0", "1", "2", "3"])
        assert list(numbered(values, "here", spec(3)).numbers) == [0, 2, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.25, 0.5], "numbers with fractions, such as 0.25, which are no classes; give each im"),
        (["0.25", "1.0"], "numbers with fractions, such as 0.25"),
        (["1.2e-05", "0.5"], "numbers with fractions"),
        ([float("inf"), 1.0], "numbers with fractions, such as inf"),
        ([[0, 1], [1, 0]], r"several values for one image \(\[0, 1\]\), not labels; give each"),
        ([{"a": 1}], "several values for one image"),
        ([b"cat"], r"it holds values \(b'cat'\), not labels"),
        (["a small brown cat sits on a wall " * 4], "texts such as 'a small brown cat .*', not"),
        ([None, ""], "here: no image has a label"),
        ([], "here: no image has a label"),
    ],
)
def test_values_that_are_no_labels_are_refused_with_words(values, message):
    with pytest.raises(DataError, match=message):
        numbered(values, "here", spec(2))


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        (["a", "b", "c"], 0, "there are 3 classes (a, b, c), and image.classes is 0; set image.c"),
        (
            [-1, 0, 1],
            0,
            "classes (-1, 0, 1), and image.classes is 0; set image.classes=3 (or 2, if",
        ),
        (["a"], 2, "there is 1 class (a), and image.classes is 2; set image.classes=1"),
        (
            [1, 2, 3],
            0,
            "there are 3 classes (1, 2, 3), and image.classes is 0; set image.classes=3",
        ),
        (list(range(12)), 3, "12 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more), and image.cl"),
    ],
)
def test_a_wrong_number_of_classes_is_said_with_their_names(values, classes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        numbered(values, "here", spec(classes))


def test_a_limit_takes_the_first_of_each_class_in_turn():
    numbers = [0, 0, 0, 2, 2, -1, 1]
    assert list(evenly(numbers, None)) == [0, 1, 2, 3, 4, 5, 6]
    assert evenly(numbers, 1) == [0]
    assert evenly(numbers, 3) == [0, 3, 6]
    assert evenly(numbers, 5) == [0, 1, 3, 4, 6]
    assert evenly(numbers, 100) == [0, 1, 2, 3, 4, 6]  # the one without a label is not taken


# --- files ---------------------------------------------------------------------------------------

IMAGES = ("a/img1.png", "a/img2.png", "b/img10.png", "b/img3.jpg", "c.d.png")


@pytest.fixture
def pictures(tmp_path):
    for name in IMAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def source(folder, labels, classes, **fields):
    part = vgx.discover().part("dataset", "image-folder")
    recipe = json.dumps({"path": str(folder), "labels": labels, **fields})
    return part.model_validate_json(recipe).build(spec(classes))


def by_name(found):
    """The class of each image that has one."""
    files = list(found.source.names)
    labels = [found.label(index) for index in range(len(found))]
    named = zip(files, labels, strict=True)
    return {file: found.classes[label] for file, label in named if label >= 0}


FOUND = {"a/img1.png": "cat", "a/img2.png": "dog", "b/img10.png": "cat"}
SPELLINGS = {
    "whole names": ["a/img1.png", "a/img2.png", "b/img10.png"],
    "other slashes": ["a\\img1.png", "a\\img2.png", "b\\img10.png"],
    "from here": ["./a/img1.png", "./a/img2.png", ".\\b\\img10.png"],
    "without endings": ["a/img1", "a/img2", "b/img10"],
    "without folders": ["img1.png", "img2.png", "img10.png"],
    "bare": ["img1", "img2", "img10"],
    "with more folders": ["train/a/img1.png", "/data/faces/a/img2.png", "C:\\x\\b\\img10.png"],
    "other endings": ["a/img1.jpg", "img2.JPEG", "IMG10.PNG"],
}


@pytest.mark.parametrize("names", SPELLINGS.values(), ids=list(SPELLINGS))
@pytest.mark.parametrize(
    "form",
    [
        "file,label\n{},cat\n{},dog\n{},cat\n",
        "label,file\r\ncat,{}\r\ndog,{}\r\ncat,{}\r\n",
        "{},cat\n{},dog\n{},cat\n",
        "{}\tcat\n{}\tdog\n{}\tcat\n",
        "id;species\n{};cat\n{};dog\n{};cat\n",
        "{} cat\n{} dog\n{} cat\n",
        '"file", "label"\n"{}", "cat"\n"{}", "dog"\n"{}", "cat"\n\n',
    ],
    ids=["titles", "other order", "no titles", "tabs", "semicolons", "blanks", "quotes"],
)
def test_tables_as_people_write_them(pictures, form, names):
    (pictures / "labels.csv").write_bytes(form.format(*names).encode())
    assert by_name(source(pictures, "labels.csv", 2)) == FOUND


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (
            "metadata.jsonl",
            '{"file": "a/img1.png", "text": "cat"}\n\n{"file": "c.d.png", "text": null}\n',
            {"a/img1.png": "cat"},
        ),
        (
            "metadata.jsonl",
            '{"text": true, "file_name": "img1"}\n{"text": false, "file_name": "img2"}',
            {"a/img1.png": "true", "a/img2.png": "false"},
        ),
        (
            "dataset.json",
            '{"labels": [["a/img1.png", 6], ["b\\\\img10.png", 3], ["c.d.png", null]]}',
            {"a/img1.png": "6", "b/img10.png": "3"},
        ),
        (
            "dataset.json",
            '{\n "labels": [\n  [\n   "a/img1.png",\n   6\n  ],\n  ["b/img10.png", 3]\n ]\n}\n',
            {"a/img1.png": "6", "b/img10.png": "3"},
        ),
    ],
)
def test_json_lines_and_the_file_of_stylegan3(pictures, name, text, found):
    (pictures / name).write_text(text)
    assert by_name(source(pictures, name, len(set(found.values())))) == found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_as_spreadsheets_save_them(pictures, encoding):
    (pictures / "labels.csv").write_bytes("file,label\nimg1,猫\nimg2,Bär\n".encode(encoding))
    assert by_name(source(pictures, "labels.csv", 2)) == {"a/img1.png": "猫", "a/img2.png": "Bär"}


def test_a_name_that_a_mac_spells_apart_is_found(pictures):
    Image.new("RGB", (8, 8)).save(pictures / "Ba\u0308r.png")  # as a Mac's disk has it
    (pictures / "labels.csv").write_text("file,label\nB\u00e4r.png,bear\nimg1,cat\n")
    assert by_name(source(pictures, "labels.csv", 2))["Ba\u0308r.png"] == "bear"


def test_the_columns_may_be_named_and_the_file_may_lie_elsewhere(pictures, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "list.csv"
    elsewhere.write_text("n,name,species,age\n1,img1,cat,3\n2,img2,dog,4\n")
    chosen = {"file": str(elsewhere), "label": "species"}
    found = {"a/img1.png": "cat", "a/img2.png": "dog"}
    assert by_name(source(pictures, chosen, 2)) == found
    assert by_name(source(pictures, {**chosen, "picture": "name"}, 2)) == found
    (pictures / "list.csv").write_text(elsewhere.read_text())
    found = {"img1.png": "cat", "img2.png": "dog"}
    assert by_name(source(pictures / "a", {**chosen, "file": "../list.csv"}, 2)) == found


@pytest.mark.parametrize(
    ("chosen", "text", "kind", "message"),
    [
        ({}, "file,a,b\nimg1,1,2\n", RecipeError,
         r"which column has the labels\? the columns are file, a, b; --set 'dataset.labels={file:"),
        ({"label": "speces"}, "file,species,b\nimg1,1,2\n", RecipeError,
         r"no column 'speces'; the columns are file, species, b; did you mean 'species'\?"),
        ({"picture": "x"}, "file,a,b\nimg1,1,2\n", RecipeError, "no column 'x'; the columns are f"),
        ({}, "file,label\nx.png,1\n", DataError,
         r"no column names images; .*its first row is \['x.png', '1'\], an image is called 'a/img"),
        ({"picture": "file", "label": "label"}, "file,label\nx.png,1\n", DataError,
         "none of its 1 rows names an image; a row names 'x.png', an image is called 'a/img1.png'"),
        ({}, "file,label\nimg1,cat\nimg1,dog\n", DataError,
         "line 3: 'a/img1.png' has two labels: 'cat' and 'dog'"),
        ({}, "file,label\nimg1,cat\nimg2\n", DataError, "line 3: columns: 1 here, 2 in the first"),
        ({}, 'file,label\nimg1,"cat\nimg2,dog\n', DataError, "line 3: unexpected end of data"),
        ({}, "file,label\nimg1,0.5\n", DataError, "numbers with fractions, such as 0.5"),
        ({}, "", DataError, "there are no rows in it"),
        ({}, "file,label\n", DataError, "there are no rows in it"),
        ({}, "[1, 2]", DataError, "other labels are read from CSV or JSON Lines"),
        ({}, '{"a": 1}\nx', DataError, "line 2: not JSON"),
        ({}, '{"a": "img1", "b": "cat"}\n3', DataError, r"line 2: no object such as \{...\}"),
        ({}, '{"file": "img1", "b": [0, 1]}', DataError, "several values for one image"),
        ({}, "file,label\nimg1,c\xe4t\n".encode("latin-1"), DataError, "not UTF-8; save it as UTF"),
    ],
)  # fmt: skip
def test_tables_that_give_no_labels_are_refused_with_words(pictures, chosen, text, kind, message):
    (pictures / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(kind, match=f"^dataset image-folder: labels: labels.csv.*{message}"):
        source(pictures, {"file": "labels.csv", **chosen}, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"labels": null}', r"it says that there are no labels \(null\)"),
        ('{"labels": []}', r"it says that there are no labels \(\[\]\)"),
        ('{"labels": [["a/img1.png", [0, 1]]]}', "several values for one image"),
        ('{"labels": [["a/img1.png", 1], oops', r"entry 1: not of the form \[name, label\]"),
        ('{"labels": [["a/img1.png", 1]', r"entry 0: not of the form \[name, label\]"),
        (
            '{"annotations": []}',
            r"not \{\"labels\": \[\[.*; other labels are read from CSV or JSON",
        ),
    ],
)
def test_a_dataset_json_that_gives_no_labels_is_refused(pictures, text, message):
    (pictures / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=message):
        source(pictures, "dataset.json", 2)


def test_a_name_that_several_images_have_must_be_written_with_its_folder(pictures):
    Image.new("RGB", (8, 8)).save(pictures / "b" / "img1.png")
    (pictures / "labels.csv").write_text("file,label\nimg1,cat\nimg2,dog\n")
    with pytest.raises(DataError, match="line 2: several images are called 'img1'; write their"):
        source(pictures, "labels.csv", 2)
    (pictures / "labels.csv").write_text("file,label\na/img1,cat\nimg2,dog\n")
    assert by_name(source(pictures, "labels.csv", 2)) == {"a/img1.png": "cat", "a/img2.png": "dog"}


@pytest.mark.parametrize(
    ("image", "written", "found"),
    [
        ("val/0001.jpg", "train/0001.jpg", None),
        ("val/0001.jpg", "TRAIN/0001", None),
        ("val/0001.jpg", "data/val/0001.png", 0),
        ("data/val/0001.jpg", "val/0001.png", 0),
        ("data/val/0001.jpg", "al/0001.png", None),
        ("data/val/v.01.jpg", "VAL/v.01", 0),
        ("0001.jpg", "train/0001", 0),
        ("val/0001.jpg", "/", None),
    ],
)
def test_folders_that_are_written_are_those_of_the_image(image, written, found):
    assert Names([image, "other/0002.jpg"]).find(written) == found


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("cat/1.png", 0),  # one image alone ends so, though several are called 1
        ("CAT/1", 0),
        ("dog/1.png", -1),
        ("1.png", -1),
        ("val/dog/1.jpg", 2),
        ("data/val/dog/1.jpg", 2),
        ("og/1.png", None),
    ],
)
def test_names_with_some_of_their_folders_mean_the_one_image_that_ends_so(written, found):
    images = ["train/cat/1.png", "train/dog/1.png", "val/dog/1.png"]
    assert Names(images).find(written) == found


def test_a_row_of_another_folder_gives_no_label(pictures):
    Image.new("RGB", (8, 8)).save(pictures / "b" / "img1.png")
    rows = "a/img1.png,cat\nb/img1.png,dog\nc/img1.png,dog\nc/img2.png,dog\n"
    (pictures / "labels.csv").write_text(f"file,label\n{rows}")
    with pytest.warns(vgx.Notice, match="2 of 4 rows name no image here, such as 'c/img1.png'"):
        found = source(pictures, "labels.csv", 2)
    assert by_name(found) == {"a/img1.png": "cat", "b/img1.png": "dog"}


def test_what_has_no_partner_is_counted(pictures):
    (pictures / "labels.csv").write_text("file,label\nimg1,cat\nimg2,dog\nx.png,dog\ny.png,cow\n")
    with pytest.warns(vgx.Notice, match="2 of 4 rows name no image here, such as 'x.png'"):
        found = source(pictures, "labels.csv", 2)
    assert list(found.classes) == ["cat", "dog"]  # the cow has no image
    store = open_store(found, spec(2))
    assert store.summary() == ("2 images kept, 3 dropped (3 without a label), 1 left out (1 .csv)")
    (pictures / "labels.csv").write_text("file,label\nimg1,cat\nimg2,dog\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source(pictures, "labels.csv", 2)


def test_other_labels_are_other_data(pictures):
    prints = set()
    for text in ("img1,cat\nimg2,dog\n", "img1,dog\nimg2,cat\n", "img1,cat\nimg2,cow\n"):
        (pictures / "labels.csv").write_text(text)
        prints.add(source(pictures, "labels.csv", 2).fingerprint)
    prints.add(source(pictures, "labels.csv", 2, limit=1).fingerprint)
    assert len(prints) == 4


def test_only_regular_files_of_bounded_size_are_read(pictures, monkeypatch):
    os.mkfifo(pictures / "pipe.csv")
    for name, message in (
        ("pipe.csv", "not a regular file"),
        ("a", "not a regular file|Is a directory"),
        ("none.csv", "none.csv: No such file"),
        ("~nobody-is-called-so/x.csv", "No such file"),
    ):
        with pytest.raises(DataError, match=message):
            source(pictures, name, 2)
    (pictures / "labels.csv").write_text("file,label\n" + "img1,cat\n" * 20)
    monkeypatch.setattr(label_files, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="more than 100 bytes; no more are read"):
        source(pictures, "labels.csv", 1)
    monkeypatch.undo()
    monkeypatch.setattr(label_formats, "MAX_ROWS", 10)
    with pytest.raises(DataError, match="more than 10 rows; no more are read"):
        source(pictures, "labels.csv", 1)


def test_folders_or_a_file_and_not_both(pictures):
    (pictures / "labels.csv").write_text("img1,cat\n")
    with pytest.raises(RecipeError, match="set label or labels, and not both"):
        source(pictures, "labels.csv", 1, label="folder")


def test_a_recipe_may_write_the_file_alone_or_with_its_columns(tmp_path):
    text = "extends: tiny\ndataset: {type: image-folder, path: p, labels: a.csv}\n"
    Path(tmp_path / "r.yaml").write_text(text)
    recipe = vgx.load_recipe(tmp_path / "r.yaml")
    assert recipe.dataset.labels.file == "a.csv"
    chosen = "dataset.labels={file: b.csv, label: species}"
    changed = vgx.load_recipe(tmp_path / "r.yaml", [chosen])
    assert (changed.dataset.labels.file, changed.dataset.labels.label) == ("b.csv", "species")
    more = vgx.load_recipe(tmp_path / "r.yaml", ["dataset.labels.label=species"])
    assert (more.dataset.labels.file, more.dataset.labels.label) == ("a.csv", "species")
    (tmp_path / "again.yaml").write_text(vgx.dump_recipe(changed))
    assert vgx.load_recipe(tmp_path / "again.yaml") == changed
    with pytest.raises(RecipeError, match=r"dataset.labels.*colum.*unknown field"):
        vgx.load_recipe(tmp_path / "r.yaml", ["dataset.labels={file: b.csv, colum: x}"])
