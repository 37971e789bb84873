"""YAML as recipes use it: what each scalar is, what is refused, and where everything stands."""

from __future__ import annotations

import math
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from memory import grows_by_less_than
from pace import within

from vgx.recipe.yaml import MAX_BYTES, MAX_DEPTH, MAX_VALUES, read, write


def plain(text):
    node, faults = read(text, "r.yaml")
    assert faults == []
    return node.plain()


def faults_of(text):
    _, faults = read(text, "r.yaml")
    return [(fault.place, fault.message) for fault in faults]


SCALARS_OF_1_2 = [
    ("1e-4", 1e-4), ("1E3", 1000.0), ("+1.5e+2", 150.0), (".5", 0.5), ("5.", 5.0),
    ("-0.0", -0.0), ("12", 12), ("-7", -7), ("0o10", 8), ("0x1F", 31),
    ("010", 10), ("08", 8),  # YAML 1.1 reads 8, and text
    ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
    (".inf", math.inf), ("-.INF", -math.inf),
    # What only YAML 1.1 takes for something else than text:
    ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("off", "off"), ("y", "y"),
    ("1_000", "1_000"), ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("0b11", "0b11"),
    ("2026-01-31", "2026-01-31"),
    # Nearly something else:
    ("tRuE", "tRuE"), ("1e", "1e"), (".", "."), ("0x", "0x"), ("1.2.3", "1.2.3"),
    # Quoted, everything is text:
    ("'12'", "12"), ('"true"', "true"), ("'~'", "~"), ("|\n  12\n", "12\n"),
]  # fmt: skip


def is_as_in_yaml_1_2(text, value):
    found = plain(f"v: {text}")["v"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.bar("C2")
@pytest.mark.parametrize(("text", "value"), SCALARS_OF_1_2)
def test_a_scalar_is_what_yaml_1_2_says(text, value):
    is_as_in_yaml_1_2(text, value)


@pytest.mark.bar("C2", control="scalars read as in YAML 1.1")
def test_a_scalar_of_yaml_1_1_would_be_seen(monkeypatch, record_property):
    """PyYAML, which the hub's library needs, reads them so: `no` is false, `1e-4` is text."""
    monkeypatch.setattr("vgx.recipe.yaml._scalar", yaml.safe_load)
    wrong = []
    for text, value in SCALARS_OF_1_2:
        try:
            is_as_in_yaml_1_2(text, value)
        except AssertionError:
            wrong.append(text)
    assert {"no", "Yes", "on", "1e-4", "010", "1:30", "0b11"} <= {*wrong}
    assert "12" not in wrong
    record_property("seen", f"{len(wrong)} of {len(SCALARS_OF_1_2)} scalars are others")


def test_not_a_number_is_a_number():
    assert math.isnan(plain("v: .nan")["v"])


def test_an_endless_row_of_digits_does_no_harm():
    """Python refuses to convert more than some thousand digits; the reader never asks it to."""
    assert plain(f"v: -{'9' * 5000}") == {"v": -math.inf}


def test_every_value_and_key_knows_its_place():
    node, faults = read("name: x\ntrain:\n  batch: 8\nlosses:\n  - {type: l1}\n  - kl\n", "r.yaml")
    assert faults == []
    assert node.place == "r.yaml:1:1"
    assert node.value["name"].place == "r.yaml:1:7"
    assert node.value["name"].key_place == "r.yaml:1:1"
    batch = node.value["train"].value["batch"]
    assert (batch.key_place, batch.place) == ("r.yaml:3:3", "r.yaml:3:10")
    first, second = node.value["losses"].value
    assert first.place == "r.yaml:5:5"
    assert first.value["type"].place == "r.yaml:5:12"
    assert second.place == "r.yaml:6:5"


def duplicate_is_refused():
    node, faults = read("a: 1\nb:\n  c: 2\n  c: 3\na: 4\n", "r.yaml")
    assert [(fault.place, fault.message) for fault in faults] == [
        ("r.yaml:4:3", "c: duplicate key, first at 3:3; keep one"),
        ("r.yaml:5:1", "a: duplicate key, first at 1:1; keep one"),
    ]
    assert node.plain() == {"a": 1, "b": {"c": 2}}


def tag_is_refused(text, place):
    ((where, message),) = faults_of(text)
    assert where == place
    assert message.startswith("a tag (")


def alias_is_refused():
    assert faults_of("a: &x {b: 1}\nc: *x\nd: [*x]") == [
        ("r.yaml:2:4", "an alias (*name); write the value itself"),
        ("r.yaml:3:5", "an alias (*name); write the value itself"),
    ]


@pytest.mark.bar("C2")
def test_a_duplicate_key_is_refused_and_the_first_value_stays():
    duplicate_is_refused()


@pytest.mark.bar("C2")
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: !!python/object:os.system x", "r.yaml:1:4"),
        ("a: !thing {b: 1}", "r.yaml:1:4"),
        ("a:\n  - !!str 5", "r.yaml:2:5"),
        ("!top\na: 1", "r.yaml:1:1"),
    ],
)
def test_a_tag_is_refused_at_its_place(text, place):
    tag_is_refused(text, place)


@pytest.mark.bar("C2")
def test_an_alias_is_refused_where_it_is_used():
    alias_is_refused()


@pytest.mark.bar("C2", control="duplicates, tags and aliases passed over")
def test_what_is_passed_over_would_be_seen(monkeypatch, record_property):
    monkeypatch.setattr("vgx.recipe.yaml._Reader.fault", lambda *_: None)
    for check in (duplicate_is_refused, alias_is_refused):
        with pytest.raises(AssertionError):
            check()
    with pytest.raises(ValueError, match="expected 1, got 0"):
        tag_is_refused("a: !thing {b: 1}", "r.yaml:1:4")
    record_property("seen", "3 of 3 are read in silence")


@pytest.mark.bar("S3")
def test_aliases_of_aliases_stay_small():
    """Followed, nine at a time and thirty deep, they would be 9^30 values."""
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
    )
    assert len(faults_of(bomb)) == 9 * 29


def test_a_key_is_a_word():
    assert faults_of("? [a, b]\n: 1") == [("r.yaml:1:3", "a key must be a word")]


def test_a_second_document_is_refused():
    node, faults = read("a: 1\n---\na: 2\n", "r.yaml")
    assert [fault.message for fault in faults] == ["a second document; write one document only"]
    assert node.plain() == {"a": 1}


def nested(depth):
    return "[" * (depth - 1) + "x" + "]" * (depth - 1)


def test_depth_is_capped():
    assert faults_of(nested(MAX_DEPTH)) == []
    ((place, message),) = faults_of(nested(MAX_DEPTH + 1))
    assert place == f"r.yaml:1:{MAX_DEPTH + 1}"
    assert message == "nested deeper than 20"


@pytest.mark.bar("S3")
def test_great_depth_does_not_exhaust_the_stack():
    assert faults_of("[" * 900)[-1] == ("r.yaml:1:21", "nested deeper than 20")
    place, message = faults_of("[" * 50_000)[-1]
    assert place == "r.yaml:1:1001"
    assert message.startswith("no YAML: ")
    assert message.endswith("exceeded maximum nesting depth")


def test_the_number_of_values_is_capped():
    fitting = "- a\n" * (MAX_VALUES - 1)  # and the list itself
    assert faults_of(fitting) == []
    assert faults_of(fitting + "- a") == [("r.yaml:20000:3", "more than 20,000 values")]


BOMBS = {
    "items": "- a\n" * 249_000,
    "numbers": "a: [" + "1," * 490_000 + "]",
    "keys": "".join(f"k{number}: 1\n" for number in range(90_000)),
    "aliases": "a: &a x\nb: [" + "*a," * 300_000 + "]",
    "one key": "a: 1\n" * 190_000,
    "documents": "---\n" * 249_000,
    "tags": "- !t a\n" * 140_000,
    "brackets": "[" * 900_000,
    "anchors": "&a " * 300_000,
    "questions": "? " * 450_000,
    "escapes": 'a: "' + "\\x41" * 240_000 + '"',
    "comments": "#\n" * 490_000,
    "digits": "a: " + "9" * 900_000 + ".5e" + "1" * 1000,
}


@pytest.mark.bar("S3")
@pytest.mark.parametrize("name", BOMBS)
def test_a_file_made_to_keep_a_reader_busy_does_not(name):
    """Within five seconds and 200 MB, whatever it is made of; without the caps it is twenty."""
    start = time.process_time()
    with grows_by_less_than(200_000_000):
        _, faults = read(BOMBS[name], "r.yaml")
    assert within(time.process_time() - start, 5)
    assert faults or name in ("comments", "escapes", "digits")


@pytest.mark.parametrize("letter", ["#", "ä"])
def test_size_is_capped_in_bytes(letter):
    fitting = "#" + letter * ((MAX_BYTES - 1) // len(letter.encode()))
    assert faults_of(fitting) == []
    assert faults_of(fitting + letter) == [("r.yaml:1:1", "longer than 1,000,000 bytes")]


@pytest.mark.bar("C2")
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2", "r.yaml:1:9"),
        ("a: 'x", "r.yaml:1:6"),
        ("a: 1\n b: 2", "r.yaml:2:3"),
        ("a: b: c", "r.yaml:1:5"),
        ("a:\n\t- 1", "r.yaml:2:1"),
        ("a: \x00", "r.yaml:1:1"),
        ("a: \ud800", "r.yaml:1:1"),
        ('a: 1\nname: "\\UFFFFFFFF"', "r.yaml:2:10"),
        ('a: "\\U00110000"', "r.yaml:1:7"),
        ("%YAML 1.9999999999999999999999\n---\na: 1", "r.yaml:1:18"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "r.yaml:1:18"),
    ],
)
def test_what_is_no_yaml_is_one_fault_with_a_place(text, place):
    ((where, message),) = faults_of(text)
    assert where == place
    assert message.startswith("no YAML: ")
    assert "\n" not in message
    assert ("spaces, not tabs" in message) == ("\t" in text)


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_file_holds_nothing(text):
    assert plain(text) is None


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
    | st.sampled_from(["no", "1e-4", "0x1F", "08", "~", "", "true", "2026-01-31", "- a", "a: b"])
    | st.text("ab: ?", max_size=150)  # folded lines, and what looks like a key
)
KEYS = st.text("ab_-.", max_size=5) | st.sampled_from(["1", "1.5", "true", "no", "~", "null"])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def test_what_is_written_is_yaml_that_a_person_reads():
    data = {
        "a": "1e5",
        "b": 1e5,
        "n": "3d-faces",
        "v": "1.2.3",
        "c": ["no", 1, None],
        "d": {"e": [{"f": "é"}]},
    }
    text = (
        "a: '1e5'\nb: 100000.0\nn: 3d-faces\nv: 1.2.3\nc: ['no', 1, null]\nd:\n  e:\n  - {f: é}\n"
    )
    assert write(data) == text
    twice = [1]
    assert write([twice, twice]) == "[[1], [1]]"  # JSON, and no alias


@given(TREES)
def test_what_is_written_is_read_back(tree):
    found = plain(write(tree))
    assert found == tree
    assert repr(found) == repr(tree)  # 1 == 1.0 == True
