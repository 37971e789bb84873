"""Weights of another training in the networks of a recipe: what fits, and what stays new.

Networks of different sizes have their layers under other numbers: a decoder for twice the size has
one block more. So the layers of each list are aligned, in their order, such that as many numbers as
possible find their place. Of several blocks that are alike those next to the latent are taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from vgx.errors import RecipeError
from vgx.output import short, visible

COLUMNS = ("network", "taken", "not used")
SHOWN = 6  # names in a line
Tree = dict[str, Any]  # modules and tensors by the parts of their names
Pairs = dict[str, str]  # names of tensors in a network -> names in the other weights


@dataclass(frozen=True)
class Fit:
    """What a network takes from other weights."""

    network: str
    taken: Pairs
    fresh: list[str]  # names of the network's other tensors
    left: list[str]  # names of the other weights that have no place here
    numbers: int  # how many were taken
    of: int  # how many the network has
    notes: list[str]  # in words: which layers have other numbers, what is new, what is not used

    @property
    def row(self) -> tuple[str, ...]:
        """A row of a table with the columns `COLUMNS`."""
        tensors = len(self.taken) + len(self.fresh)
        share = f"{self.numbers:,} of {self.of:,} numbers"
        return self.network, f"{len(self.taken)} of {tensors} tensors, {share}", f"{len(self.left)}"


def begin(name: str, network: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """Copy into a network those tensors of other weights that fit, and return which.

    Raises `RecipeError` when none fits, and for numbers that are not finite.
    """
    own: dict[str, Tensor] = network.state_dict()
    pairs = aligned(own, weights, from_end=name != "decoder")
    if not pairs:
        here, there = (_examples(tensors) for tensors in (own, weights))
        message = f"nothing of the {name} fits: here it has {here}, there {there}"
        raise RecipeError(f"start: {message}; leave it out of start.networks")
    with torch.no_grad():
        for key, other in pairs.items():
            values = weights[other].to(own[key].dtype)
            if not values.isfinite().all():
                where = f"{name}.{short(visible(other))}"
                raise RecipeError(f"start: {where} has numbers that are not finite; use others")
            own[key].copy_(values)
    fresh = [key for key in own if key not in pairs]
    left = [key for key in weights if key not in {*pairs.values()}]
    notes = [*_moved(pairs), *_listed("new", [*_new(pairs, own, weights)])]
    notes += _listed("not used", [short(visible(name)) for name in _modules(left, weights)])
    numbers, of = (sum(own[key].numel() for key in keys) for keys in (pairs, own))
    return Fit(name, pairs, fresh, left, numbers, of, [f"{name}: {note}" for note in notes])


# --- in words -------------------------------------------------------------------------------------


def _examples(tensors: Mapping[str, Tensor]) -> str:
    some = [f"{short(visible(key))} {_shape(t)}" for key, t in list(tensors.items())[:2]]
    return ", ".join(some) or "nothing"


def _listed(what: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{what}: {', '.join(names[:SHOWN])}{more}"] if names else []


def _moved(pairs: Pairs) -> Iterator[str]:
    """Say which layers have other numbers than in the old weights, or are inside of others."""
    inside: list[str] = []
    layers: dict[tuple[str, int], list[int]] = {}  # old numbers, by place and shift
    for here, there in pairs.items():
        own, old = here.split("."), there.split(".")
        if len(own) != len(old):
            deeper, where = (own, "here") if len(own) > len(old) else (old, "in the old weights")
            inside.append(f"all of it is inside {short(visible(deeper.pop(0)))} {where}")
        at = next((i for i, (a, b) in enumerate(zip(own, old, strict=True)) if a != b), None)
        if at is not None:
            above = "".join(f"{part}." for part in own[:at])
            layers.setdefault((above, int(own[at]) - int(old[at])), []).append(int(old[at]))
    yield from dict.fromkeys(inside)
    for (above, shift), numbers in layers.items():
        first, last = min(numbers), max(numbers)
        if first == last:
            yield f"layer {above}{first} of the old weights is {above}{first + shift} here"
        else:
            new = f"{above}{first + shift} to {above}{last + shift}"
            yield f"layers {above}{first} to {above}{last} of the old weights are {new} here"


def _new(pairs: Pairs, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the layers that stay new, with both shapes where there is one of another shape."""
    modules = {key.rpartition(".")[0]: pairs[key].rpartition(".")[0] for key in pairs}
    for name in _modules([key for key in own if key not in pairs], own):
        above, _, last = name.rpartition(".")
        old = weights.get(f"{modules.get(above, above)}.{last}".lstrip("."))
        if old is None or name not in own or old.shape == own[name].shape:
            yield name
        else:
            yield f"{name} {_shape(own[name])} (old {_shape(old)})"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _modules(names: list[str], among: Iterable[str]) -> list[str]:
    """Return names of tensors; a module of which all tensors are named is named instead."""
    lost = {*names}
    partly = {prefix for name in among if name not in lost for prefix in _prefixes(name)}
    found = (next(p for p in _prefixes(name) if p not in partly) for name in names)
    return [*dict.fromkeys(found)]


def _prefixes(name: str) -> Iterator[str]:
    """Yield the names of the modules that hold a tensor, the outermost first, then its own."""
    return accumulate(name.split("."), "{}.{}".format)


# --- the layers of two networks, side by side -----------------------------------------------------


def aligned(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, from_end: bool) -> Pairs:
    """Return for names of a network's tensors those of the other tensors that take their place.

    Names with words are compared as they are. Numbers count the layers of a list: these are aligned
    in their order. With `from_end` the latent is at the end of the network, as in an encoder.
    """
    here, there = _tree(own), _tree(weights)
    # A network may be inside of another one, as in an encoder that quantises.
    inside = [(inner, there) for inner in here.values()]
    outside = [(here, inner) for inner in there.values()]
    trees = [(here, there), *inside, *outside]
    return max((_matched(*two, from_end) for two in trees), key=lambda found: found[0])[1]


def _tree(tensors: Mapping[str, Tensor]) -> Tree:
    """Return tensors by the parts of their names; each leaf has its name and its tensor."""
    tree: Tree = {}
    for name, tensor in tensors.items():
        *above, last = name.split(".")
        node = tree
        for part in above:
            inner = node.setdefault(part, {})
            node = inner if isinstance(inner, dict) else {}
        node[last] = (name, tensor)
    return tree


def _matched(own: Any, other: Any, from_end: bool) -> tuple[int, Pairs]:
    """Return how many numbers of two trees fit, and the pairs of names."""
    if isinstance(own, tuple) and isinstance(other, tuple):
        (name, tensor), (theirs, weights) = own, other
        floats = tensor.is_floating_point()
        if floats != weights.is_floating_point() or tensor.shape != weights.shape:
            return 0, {}
        # Two layers are not the same because both count their batches.
        return (tensor.numel() if floats else 0), {name: theirs}
    if not (isinstance(own, dict) and isinstance(other, dict)):
        return 0, {}
    words = [key for key in own if not _is_number(key) and key in other]
    found = [_matched(own[key], other[key], from_end) for key in words]
    found += _layers(own, other, from_end)
    numbers = sum(fitting for fitting, _ in found)
    pairs = {name: theirs for _, inner in found for name, theirs in inner.items()}
    return numbers, pairs if numbers else {}


def _layers(own: Tree, other: Tree, from_end: bool) -> Iterator[tuple[int, Pairs]]:
    """Align the numbered layers of two lists, so that most numbers fit; yield what fits."""
    rows, columns = (_numbered(tree, from_end) for tree in (own, other))
    fits = [[_matched(row, column, from_end) for column in columns] for row in rows]
    # best[i][j]: the most numbers that fit from layer i of the one and j of the other.
    best = [[0] * (len(columns) + 1) for _ in range(len(rows) + 1)]
    for i in reversed(range(len(rows))):
        for j in reversed(range(len(columns))):
            here = fits[i][j][0] + best[i + 1][j + 1]
            best[i][j] = max(here, best[i + 1][j], best[i][j + 1])
    i = j = 0
    while i < len(rows) and j < len(columns):
        numbers = fits[i][j][0]
        if numbers and numbers + best[i + 1][j + 1] == best[i][j]:
            yield fits[i][j]
            i, j = i + 1, j + 1
        elif best[i + 1][j] == best[i][j]:
            i += 1
        else:
            j += 1


def _numbered(tree: Tree, from_end: bool) -> list[Any]:
    return [tree[key] for key in sorted(filter(_is_number, tree), key=int, reverse=from_end)]


def _is_number(key: str) -> bool:
    return key.isdecimal() and len(key) < 10  # a file may have any names
