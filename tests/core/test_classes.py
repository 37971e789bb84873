"""Names of classes: from the source into the store, the lines of the program and its files."""

from __future__ import annotations

import json

import pytest
from PIL import Image

import vgx
from vgx.data import cache
from vgx.data.classes import classes_of, label_called, summary
from vgx.data.store import cached, open_store
from vgx.errors import DataError, RecipeError
from vgx.runs import reading

SPEC = vgx.ImageSpec(size=4, classes=3)


class Plain:
    """Grey images with labels; the one with label -1 is left out."""

    def __init__(self, labels, fingerprint="animals"):
        self.labels, self.fingerprint = labels, fingerprint

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        if self.labels[index] < 0:
            raise vgx.Dropped("without a label")
        return Image.new("RGB", (4, 4), (index, index, index))

    def label(self, index):
        return self.labels[index]


class Animals(Plain):
    """The same with names."""

    classes = ("cat", "dog", "fish")


def test_names_and_counts_come_from_the_source_and_stay_in_the_store():
    source = Animals([0, 2, -1, 2, 2])
    assert isinstance(source, vgx.Named)
    assert not isinstance(Plain([0]), vgx.Named)
    for _ in range(2):  # built, and read again
        store = open_store(source, SPEC)
        assert store.classes(SPEC) == [("cat", 1), ("dog", 0), ("fish", 3)]
    alone = cached("animals", SPEC)  # without the source
    assert alone.names == ("cat", "dog", "fish")
    assert classes_of(source, SPEC) == store.classes(SPEC)


def test_labels_without_names_are_their_own_names():
    store = open_store(Plain([0, 2, 2]), SPEC)
    assert store.names == ()
    assert store.classes(SPEC) == [("0", 1), ("1", 0), ("2", 2)]
    assert open_store(Plain([0, 2]), vgx.ImageSpec(size=4)).classes(SPEC) == []


def test_a_store_without_names_takes_them_from_the_source():
    open_store(Plain([0, 1, 2]), SPEC)
    (about,) = (cache.folder()).glob("*/store.json")
    assert json.loads(about.read_text())["classes"] == []
    before = about.read_text(), about.stat().st_ino
    store = open_store(Animals([0, 1, 2]), SPEC)
    assert store.names == ("cat", "dog", "fish")
    assert (about.read_text(), about.stat().st_ino) == before  # not built again


def test_an_image_that_is_used_must_have_a_label():
    source = Animals([0, 1, 2])
    source.label = lambda _: -1
    with pytest.raises(DataError, match="image 0 has the label -1; image.classes allows 0 to 2"):
        open_store(source, SPEC)
    assert classes_of(source, SPEC) == [("cat", 0), ("dog", 0), ("fish", 0)]


def test_names_must_be_as_many_as_the_classes():
    with pytest.raises(DataError, match=r"3 classes \(cat, dog, fish\), and image.classes is 4; s"):
        open_store(Animals([0]), vgx.ImageSpec(size=4, classes=4))


def test_names_of_strangers_cannot_disturb_a_terminal_or_fill_a_file():
    source = Animals([0, 1, 2])
    source.classes = ("a\x1b[2J\nb", "\udcff", "long " * 10**6)
    names = open_store(source, SPEC).names
    assert names[:2] == ("a?[2J b", "?")
    assert len(names[2]) == 100


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([("cat", 1200), ("dog", 7)], "2 classes: cat (1,200), dog (7)"),
        ([("cat", 0), ("dog", 7)], "2 classes: cat (0), dog (7); without images: cat"),
        (
            [(str(n), n % 2) for n in range(12)],
            (
                "12 classes: 0 (0), 1 (1), 2 (0), 3 (1), 4 (0), 5 (1), 6 (0), 7 (1), 8 (0), 9 (1) "
                "and 2 more; without images: 0, 2, 4, 6, 8, 10"
            ),
        ),
    ],
)
def test_the_line_of_classes(classes, expected):
    assert summary(classes) == expected


NAMES = ("cat", "Dog", "10", "2", "dog house", "twice", "twice")


@pytest.mark.parametrize(
    ("wanted", "label"),
    [
        ("cat", 0), (" cat ", 0), ("CAT", 0), ("Dog", 1), ("dog", 1), ("10", 2), ("2", 3),
        (2, 2), (0, 0), ("0", 0), ("6", 6), ("dog house", 4),
    ],
)  # fmt: skip
def test_a_class_is_called_by_its_name_and_else_by_its_number(wanted, label):
    assert label_called(wanted, NAMES) == label


def test_names_that_differ_in_large_and_small_letters_are_told_apart():
    names = ("B", "b", "A")
    assert [label_called(name, names) for name in ("B", "b", "a")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("cta", r"no class 'cta'; the 7 classes are cat, Dog, .*, twice; did you mean 'cat'\?"),
        ("zebra", r"no class 'zebra'; the 7 classes are cat, Dog, 10, 2, dog house, twice, twice$"),
        ("7", "no class '7'"),
        (7, "no class '7'"),
        (-1, "no class '-1'"),
        ("", "no class ''"),
        ("9" * 10_000, "no class '9999"),
        ("twice", "class 'twice': the labels 5, 6 are called so; give one"),
    ],
)
def test_a_class_that_is_not_there_is_said_with_those_that_are(wanted, message):
    with pytest.raises(RecipeError, match=message) as error:
        label_called(wanted, NAMES)
    assert len(str(error.value)) < 300


def test_an_environment_with_many_names_is_read_and_a_foreign_one_is_checked(tmp_path):
    many = [{"name": "n" * 100, "count": 10**9}] * 10_000
    file = tmp_path / "environment.json"
    file.write_text(json.dumps({"data": {"content": "", "kept": 1, "classes": many}}, indent=1))
    assert len(reading.environment(tmp_path)["data"]["classes"]) == 10_000
    file.write_text('{"data": {"content": "", "kept": 1, "classes": [{"name": 3, "count": 1}]}}')
    with pytest.raises(vgx.StorageError, match=r"classes.0.name"):
        reading.environment(tmp_path)
