"""A step whose rows the processes share, and the step of the whole minibatch.

Letters: b images of a process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor

from vgx.distributed.draws import WholeDraws
from vgx.distributed.rows import all_rows, shares, sharing
from vgx.distributed.state import Sharing, group
from vgx.step import Gaussian, Score, Step

T = TypeVar("T")


@contextmanager
def shared(images: int) -> Iterator[None]:
    """Compute in the block a minibatch of which this process has so many images, b.

    Random numbers are drawn for the whole minibatch, and cut. A program on its own has all images.
    """
    if group().size == 1:
        yield
        return
    with sharing(Sharing(images)), WholeDraws():
        yield


def whole(step: Step) -> Step:
    """Return the step of the whole minibatch. A value is gathered when it is first read.

    Its functions, such as `decode`, take whole minibatches, in `replicated`.
    """
    return _view(step, {}) if shares() else step


def _view(values: T, whole: Mapping[str, Any]) -> T:
    """Return an object with the same attributes, whose tensors are gathered when they are read.

    Those in `whole` are of the whole minibatch already.
    """
    kind: Any = type(values)
    view: T = object.__new__(_viewing(kind))
    vars(view).update(vars(values))
    object.__setattr__(view, "_gathered", {**whole})
    return view


def _viewing(kind: Any) -> Any:
    """Return the subclass of a class of values for `_view`."""

    def read(self: Any, name: str) -> Any:
        value = kind.__getattribute__(self, name)
        if name not in kind.__getattribute__(self, "__dict__"):
            return value  # a method, or a property of what is gathered
        gathered = object.__getattribute__(self, "_gathered")
        if name not in gathered:
            gathered[name] = _gathered(name, value)
        return gathered[name]

    def but(self: Any, **changes: Any) -> Any:
        return _view(kind(**{**vars(self), **changes}), changes)

    members = {"__getattribute__": read, "but": but, "__slots__": ("_gathered",)}
    return type(kind.__name__, (kind,), members)


def _gathered(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        return all_rows(value)
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return tuple(map(all_rows, value))
    if isinstance(value, Score | Gaussian) or (name == "posterior" and value is not None):
        return _view(value, {})
    if name == "views":  # by name, what a step of this discriminator has
        return tuple((key, {k: _gathered(k, v) for k, v in own.items()}) for key, own in value)
    return value
