"""YAML as plain data with the place of every value.

The reader takes the scalars of YAML 1.2: `1e-4` is a number, `no` is a string. Tags, aliases and
duplicate keys are errors. Size and depth are limited. All errors of a file are reported at once.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from vgx.output import short

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 20_000  # keys, scalars and collections; read in about a second
MAX_LENGTH = 2000  # characters of a text

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
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
    reader = _Reader(name, iter(YAML(typ="safe", pure=True).parse(io.StringIO(text))), faults)
    try:
        root = reader.document()
    except _BeyondError as error:
        return Node(None, start), [*faults, error.fault]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else start
        return Node(None, start), [*faults, Fault(place, f"no YAML: {_sentence(error)}")]
    except YAMLError as error:
        first = str(error).strip().splitlines()[0]
        return Node(None, start), [*faults, Fault(start, f"no YAML: {first}")]
    # Characters and versions that do not exist are no YAML errors for the library.
    except Exception:  # noqa: BLE001
        why = "no YAML: here or below is a character or a version that does not exist"
        return Node(None, start), [*faults, Fault(reader.last, why)]
    return root, faults


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
        for event in YAML(typ="safe", pure=True).parse(io.StringIO(text))
        if isinstance(event, events.ScalarEvent) and event.style is not None
    ]
    for match in re.finditer(r"(?<!\S)#.*", text):
        if not any(match.start() in scalar for scalar in scalars):
            return match[0]
    return ""


def _sentence(error: MarkedYAMLError) -> str:
    problem = (error.problem or "").strip()
    if "\\t" in problem:
        problem += " (YAML is indented with spaces, not tabs)"
    return ", ".join(part for part in ((error.context or "").strip(), problem) if part)


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
        return Node(_scalar(event.value) if event.style is None else event.value, place)

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


def write(data: Any) -> str:
    """Return plain data as YAML that `read` gives back unchanged.

    The library writes some texts so that they are something else, such as one that begins with ":".
    Then it is JSON, which is YAML too.
    """
    stream = io.StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None  # lists of scalars on one line
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 100
    yaml.allow_unicode = True
    yaml.dump(data, stream)
    text = stream.getvalue()
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
