"""YAML: what is read, what is refused, and where it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgx.yamlfile import MAX_BYTES, MAX_DEPTH, read, write


def plain(text):
    node, faults = read(text, "f")
    assert faults == []
    return node.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("5.0e-4", 5e-4), ("0.5", 0.5), ("-3", -3), ("0o17", 15), ("0x1f", 31),
        ("017", 17), ("no", "no"), ("on", "on"), ("true", True), ("null", None), ("~", None),
        ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("2026-01-01", "2026-01-01"),
        ("'1'", "1"), ('"null"', "null"), (".5", 0.5), ("1.", 1.0),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = plain(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1", "a"),
        ("a: {b: 1, b: 2}\n", "f:1:11", "b"),
        ("a: !!python/object:os.system x\n", "f:1:4", "tag"),
        ("a: &x 1\nb: *x\n", "f:2:4", "alias"),
        ("a: [1\nb: 2\n", "f:2:", ""),
        ("a: 1\n---\nb: 2\n", "f:2:1", "document"),
        ("[" * (MAX_DEPTH + 5) + "]" * (MAX_DEPTH + 5), "f:1:", "deep"),
        ("a: '" + "x" * MAX_BYTES + "'", "f:1:1", "bytes"),
    ],
    ids=["duplicate", "duplicate inside", "tag", "alias", "open", "two", "depth", "size"],
)
def test_what_is_refused_has_its_place(text, place, said):
    _, faults = read(text, "f")
    assert any(fault.place.startswith(place) and said in fault.message for fault in faults), faults


def test_values_and_keys_know_where_they_stand():
    node, _ = read("name: x\ntrain:\n  batch:  4\nlosses:\n- l1\n- {type: kl}\n", "r.yaml")
    batch = node.value["train"].value["batch"]
    assert (batch.place, batch.key_place) == ("r.yaml:3:11", "r.yaml:3:3")
    assert node.value["losses"].value[1].value["type"].place == "r.yaml:6:10"


SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12)
)  # fmt: skip
KEYS = st.text("abcdefghij_", min_size=1, max_size=6)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=5))
def test_what_is_written_reads_as_the_same(tree):
    assert plain(write(tree)) == tree
