"""Recipes as nobody should write them: a valid one, changed at random by a seed."""

from __future__ import annotations

import copy
import random
import re

NUMBERS = [
    0, -1, 1, 2, 3, 7, 10**6, 10**12, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, 10**99, 10**400,
    -(10**20), 0.0, -0.5, 0.1, 1.5, 1e-300, 1e300, 5e-324, -1e300,
    float("inf"), float("-inf"), float("nan"),
]  # fmt: skip
WORDS = [
    "", " ", "no", "null", "~", "1e999", "-1e999", "0x" + "f" * 100, "9" * 5000, "1" * 100, ".nan",
    "12:30:45", "010", "2026-01-31", "../x", "/etc/passwd", "-rf", "CON", "a" * 5000, "a b", "a.b",
    "*",
    "é", "\uff43\uff4f\uff4e\uff56", "\u0441onv", "\u202econv", "😀" * 20, "\U0001d7d9",
    "٣", "\u0000x", "\ufeffx",
    "x\u0085y", "x\u2028y", "a\nb", "\x7f", "vgx:conv", "vgx:", ":conv", ":", "os.system",
    "torch.nn:Linear", "__import__('os')", "{}", "%s", "{0}", "{kind}", "type", "conv", "l1",
    "adam", "nan", "Infinity", "true",
]  # fmt: skip
OTHERS = [None, True, False, [], {}, [[]], [{}], {"type": None}, {"type": []}, {"": 1}, [None]]
GARBAGE = [
    "[", "]", "{", "}", ":", "- ", "? ", "& ", "*a ", "!!python/object/apply:os.system ", "!t ",
    "|", ">", "'", '"', "%YAML 9.9\n", "---\n", "...\n", "\t", "\x00", "\x1b[31m", "\ud800",
    "\ufffe", "#", "@", "`", "<<: ", "\r", "\r\n", "\\", "0x", "1e999", "[" * 200, "{a: " * 60,
    "&a [*a]", "- - - -", "\u2028",
]  # fmt: skip


def changed(tree, seed):
    """The bytes of a recipe of which one value is another."""
    tree = copy.deepcopy(tree)
    _change(tree, random.Random(seed))
    return "".join(_lines(tree)).encode("utf-8", "surrogatepass")


def mutated(tree, seed):
    """The bytes of one broken recipe; most are still mappings."""
    generator = random.Random(seed)
    tree = copy.deepcopy(tree)
    for _ in range(generator.choice([1, 1, 1, 2, 4])):
        _change(tree, generator)
    data = _text(tree, generator).encode("utf-8", "surrogatepass")
    if generator.random() < 0.15:
        place = generator.randrange(len(data) + 1)
        data = data[:place] + generator.randbytes(generator.choice([1, 1, 4, 40])) + data[place:]
    if generator.random() < 0.02:
        data = generator.randbytes(generator.randrange(400))
    return data


def _places(value):
    """Every (container, key) of a tree."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _change(tree, generator):
    places = list(_places(tree))
    if not places:
        return
    holder, key = generator.choice(places)
    old = holder[key]
    what = generator.randrange(9)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        name = str(key)
        place = generator.randrange(len(name) + 1)
        letter = generator.choice(["", "x", "-", " ", "é", "\x00", ".", "A"])
        holder[name[:place] + letter + name[place + 1 :]] = holder.pop(key)
    elif what in (2, 3, 4):
        holder[key] = generator.choice(NUMBERS)
    elif what == 5:
        holder[key] = generator.choice(WORDS)
    elif what == 6:
        holder[key] = copy.deepcopy(generator.choice(OTHERS))
    elif what == 7:
        other, name = generator.choice(places)  # what belongs elsewhere
        holder[key] = copy.deepcopy(other[name])
    else:
        for _ in range(generator.choice([1, 3, 30])):
            old = {"type": old} if generator.random() < 0.5 else [old]
        holder[key] = old


def _scalar(value):
    if isinstance(value, str):
        if re.fullmatch(r"[a-z][a-z0-9_/.-]*", value) and value not in ("null", "true", "false"):
            return value
        letters = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in value)
        return f'"{"".join(letters)}"'
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return re.sub(r"(inf|nan)$", r".\1", repr(value))


def _flow(value):
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _holds_collections(value):
    inner = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and any(isinstance(v, dict | list) for v in inner)


def _lines(value, indent=""):
    """The lines of a mapping or a list; what holds no other collection stands on one line.

    It shares nothing with the writer of vgx, and is ten times as fast.
    """
    if not _holds_collections(value):
        yield f"{indent}{_flow(value)}\n"
        return
    named = isinstance(value, dict)
    for key, inner in value.items() if named else enumerate(value):
        head = f"{indent}{_scalar(key)}:" if named else f"{indent}-"
        if _holds_collections(inner):
            yield f"{head}\n"
            yield from _lines(inner, f"{indent}  ")
        else:
            yield f"{head} {_flow(inner)}\n"


def _text(tree, generator):
    lines = list(_lines(tree))
    what = generator.random()
    if what < 0.1 and lines:
        lines.insert(generator.randrange(len(lines) + 1), generator.choice(lines))  # a key twice
    elif what < 0.15 and lines:
        del lines[generator.randrange(len(lines))]
    elif what < 0.2 and lines:
        number = generator.randrange(len(lines))
        lines[number] = " " * generator.randrange(1, 9) + lines[number]
    text = "".join(lines)
    if generator.random() < 0.15:
        place = generator.randrange(len(text) + 1)
        text = text[:place] + generator.choice(GARBAGE) + text[place:]
    return text
