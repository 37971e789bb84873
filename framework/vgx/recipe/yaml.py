"""YAML as plain data with the place of every value.

The reader takes the scalars of YAML 1.2: `1e-4` is a number, `no` is a string. Tags, aliases and
duplicate keys are errors. Size and depth are limited. All errors of a file are reported at once.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml
from yaml import events

from vgx.output import short

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 20_000  # keys, scalars and collections; read in less than a second
MAX_LENGTH = 2000  # characters of a text

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_SPECIAL = {".inf": "inf", "-.inf": "-inf", "+.inf": "inf", ".nan": "nan"}


@dataclass(frozen=True)
class Node:
    """A value with its place and the place of its key. The values inside it are nodes too."""

    value: Any  # a scalar, a dict[str, Node] or a list[Node]
    place: str  # "recipe.yaml:12:5", or "--set train.batch"
    key_place: str = ""
    text: str = ""  # of a setting: what stands after KEY=, for fields that take a text
    unread: str = ""  # why YAML does not read this text, or not all of it; the value is the text

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


@dataclass(frozen=True)
class Fault:
    """One error, with its place."""

    place: str
    message: str


def read(text: str, name: str) -> tuple[Node, list[Fault]]:
    """Parse one YAML document. Places are `name`, line and column.

    Returns the values that could be read, and an error for all that could not.
    """
    faults: list[Fault] = []
    start = f"{name}:1:1"
    if len(text.encode(errors="replace")) > MAX_BYTES:
        return Node(None, start), [Fault(start, f"longer than {MAX_BYTES:,} bytes")]
    reader = _Reader(name, _events(text), faults)
    try:
        root = reader.document()
    except _BeyondError as error:
        return Node(None, start), [*faults, error.fault]
    except yaml.MarkedYAMLError as error:
        place, why = _explained(error, text)
        return Node(None, start), [*faults, Fault(f"{name}:{place}", f"no YAML: {why}")]
    # A character that YAML cannot have; of PyYAML without its part in C, any error.
    except Exception as error:  # noqa: BLE001
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Node(None, start), [*faults, Fault(reader.last, f"no YAML: {first}")]
    return root, faults


def _events(text: str) -> Iterator[events.Event]:
    # In C where PyYAML has it, which is several times as fast.
    yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_setting(text: str, place: str) -> Node:
    """Return the value of a setting KEY=TEXT: its YAML, if YAML reads the whole text.

    Otherwise the value is the text itself, which suits a field that takes a text, such as a path;
    for other fields `unread` says what is wrong.
    """
    node, faults = read(text, place)
    unread, word = faults[0].message if faults else "", text.strip()
    if not faults and (comment := _comment(text)):
        unread = f"no value: in YAML {short(repr(comment))} is a comment; leave it out"
    elif not faults and not isinstance(node.value, dict | list) and word[:1] not in ("'", '"'):
        if repr(node.value) != repr(_scalar(word)):
            unread = f"no value: YAML reads only a part of it, {short(repr(node.value))}"
        elif isinstance(node.value, str):
            return Node(text, place, place)
    return Node(text if unread else _moved(node, place).value, place, place, text, unread)


def _moved(node: Node, place: str) -> Node:
    """Return a tree in which all values have the same place."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _moved(inner, place) for key, inner in value.items()}
    elif isinstance(value, list):
        value = [_moved(inner, place) for inner in value]
    return Node(value, place, place)


def _comment(text: str) -> str:
    """Return the first comment in a text that is YAML; an empty text if it has none."""
    if "#" not in text:
        return ""
    scalars = [
        range(event.start_mark.index, event.end_mark.index)
        for event in _events(text)
        if isinstance(event, events.ScalarEvent) and event.style
    ]
    for match in re.finditer(r"(?<!\S)#.*", text):
        if not any(match.start() in scalar for scalar in scalars):
            return match[0]
    return ""


def _explained(error: yaml.MarkedYAMLError, text: str) -> tuple[str, str]:
    """Return line and column of an error, within the text, and what is wrong there."""
    mark, lines = error.problem_mark, text.splitlines() or [""]
    inside = mark.line < len(lines)
    line, column = (mark.line, mark.column) if inside else (len(lines) - 1, len(lines[-1]))
    why = ", ".join(filter(None, (error.context, error.problem)))
    if "cannot start any token" in why:
        wrong = lines[line][column].replace("\t", "a tab; write spaces, not tabs")
        why += f": {wrong}"
    return f"{line + 1}:{column + 1}", why


class _BeyondError(Exception):
    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(place, message)


class _Reader:
    """Makes nodes from parser events: later stages of the parser resolve tags and aliases."""

    def __init__(self, name: str, stream: Iterator[events.Event], faults: list[Fault]) -> None:
        self.name, self.stream, self.faults = name, stream, faults
        self.count, self.last = 0, f"{name}:1:1"

    def document(self) -> Node:
        root = Node(None, f"{self.name}:1:1")
        documents = 0
        for event in self.stream:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.fault(event, "a second document; write one document only")
            elif not isinstance(
                event, events.StreamStartEvent | events.StreamEndEvent | events.DocumentEndEvent
            ):
                node = self.node(event, 1)
                root = node if documents == 1 else root
        return root

    def place(self, event: events.Event) -> str:
        self.last = f"{self.name}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        return self.last

    def fault(self, event: events.Event, message: str) -> None:
        self.faults.append(Fault(self.place(event), message))

    def node(self, event: events.Event, depth: int) -> Node:
        place = self.place(event)
        if depth > MAX_DEPTH:
            raise _BeyondError(place, f"nested deeper than {MAX_DEPTH}")
        self.count += 1
        if self.count > MAX_VALUES:
            raise _BeyondError(place, f"more than {MAX_VALUES:,} values")
        if isinstance(event, events.AliasEvent):
            self.fault(event, "an alias (*name); write the value itself")
            return Node(None, place)
        if tag := getattr(event, "tag", None):
            self.fault(event, f"a tag ({tag}); write the value without it")
        if isinstance(event, events.MappingStartEvent):
            return Node(self.mapping(depth), place)
        if isinstance(event, events.SequenceStartEvent):
            items = []
            while not isinstance(inner := next(self.stream), events.SequenceEndEvent):
                items.append(self.node(inner, depth + 1))
            return Node(items, place)
        assert isinstance(event, events.ScalarEvent)
        return Node(event.value if event.style else _scalar(event.value), place)

    def mapping(self, depth: int) -> dict[str, Node]:
        items: dict[str, Node] = {}
        while not isinstance(key := next(self.stream), events.MappingEndEvent):
            name = self.node(key, depth + 1)
            value = replace(self.node(next(self.stream), depth + 1), key_place=name.place)
            if not isinstance(key, events.ScalarEvent):
                self.fault(key, "a key must be a word")
            elif key.value in items:
                first = items[key.value].key_place.removeprefix(f"{self.name}:")
                self.fault(key, f"{key.value}: duplicate key, first at {first}; keep one")
            else:
                items[key.value] = value
        return items


def _scalar(text: str) -> Any:
    """Resolve a plain scalar by the YAML 1.2 core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in _SPECIAL:
        return float(_SPECIAL[text.lower()])
    return text


_Dumper: Any = type("_Dumper", (getattr(yaml, "CSafeDumper", yaml.SafeDumper),), {})
# A text that is a number in YAML 1.2, such as 1e5, is written in quotes.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*"+-.0123456789"])


def write(data: Any) -> str:
    """Return plain data as YAML that `read` gives back unchanged.

    What it would not give back, such as a list that is there twice and becomes an alias, is written
    as JSON, which is YAML too.
    """
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True,
        default_flow_style=None,  # lists of scalars on one line
    )  # fmt: skip
    return text if read(text, "")[0].plain() == data else json.dumps(data, ensure_ascii=False)


# --- values that no recipe needs ----------------------------------------------------------------


def unfit(node: Node, field: str = "") -> Iterator[Fault]:
    """Give an error for each text or number that no part needs and that libraries cannot handle."""
    if isinstance(node.value, dict | list):
        items = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
        for key, child in items:
            if isinstance(key, str) and (why := _unfit_text(key)):
                yield Fault(child.key_place, f"{field}: a key {why}: {short(key)}".lstrip(": "))
            yield from unfit(child, f"{field}.{key}".lstrip("."))
    elif isinstance(node.value, str) and (why := _unfit_text(node.value)):
        wrong = node.unread or f"a text {why} (here: {short(repr(node.value))})"
        yield Fault(node.place, f"{field}: {wrong}")
    elif isinstance(node.value, int) and not -(2**63) <= node.value < 2**63:
        yield Fault(node.place, f"{field}: a whole number of more than 64 bits")


def _unfit_text(text: str) -> str:
    if len(text) > MAX_LENGTH:
        return f"of more than {MAX_LENGTH:,} characters"
    # Control characters, and surrogates, which file names cannot contain.
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        return "with characters that can't be printed"
    return ""
