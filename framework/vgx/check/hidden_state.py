"""Hidden state: what parts change while they work, and no checkpoint would hold."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vgx.check.audit import Finding
from vgx.check.blame import Working
from vgx.parts.base import Component
from vgx.parts.kinds import Augmentation


@contextmanager
def watching_state(parts: Working) -> Iterator[list[Finding]]:
    """Find attributes that parts change in the block; the list has the findings after it.

    Weights and buffers of networks and losses may change, and what was `None` may be filled in.
    """
    findings: list[Finding] = []
    before = {name: state_of(part, built) for name, (part, built) in parts.items()}
    yield findings
    for name, (part, built) in parts.items():
        after = state_of(part, built)
        changed = [key for key, value in before[name].items() if value != after.get(key, value)]
        findings += [Finding(f"hidden-state:{name}.{key}", _message(part, key)) for key in changed]


def _message(part: Component, key: str) -> str:
    attribute = key.rpartition(".")[2]
    advice = (
        "draw from the generator that it is given; what is kept between batches are buffers of an "
        "nn.Module that change in observe(step) or at(number, progress)"
        if isinstance(part, Augmentation)
        else "make it a buffer of a module that build() returns"
    )
    return (
        f"{part.kind} '{part.type}' changes its attribute {attribute} while it works; no "
        f"checkpoint holds it, so a resumed run would differ: {advice}"
    )


def state_of(part: Component, built: Any, *, between: bool = False) -> dict[str, str]:
    """Return digests of the attributes of what a part built that no checkpoint saves, by name.

    Those of an augmentation are also its buffers, which may change only `between` the passes.
    """
    modules = built.named_modules() if isinstance(built, nn.Module) else [("", built)]
    saved = between or not isinstance(part, Augmentation)
    return {
        f"{path}.{name}".lstrip("."): digest
        for path, module in modules
        for name, value in _attributes(module, saved=saved).items()
        if (digest := digest_of(value))
    }


def _attributes(owner: Any, *, saved: bool) -> dict[str, Any]:
    if isinstance(owner, Component):
        return {**owner.__dict__, **(owner.__pydantic_private__ or {})}
    common = nn.Module().__dict__  # weights, buffers, hooks
    attributes = {n: v for n, v in getattr(owner, "__dict__", {}).items() if n not in common}
    if isinstance(owner, nn.Module) and not saved:
        attributes |= dict(owner.named_buffers(recurse=False))
        attributes |= dict(owner.named_parameters(recurse=False))
    return attributes


def digest_of(value: object) -> str:
    """Return a text that changes with a plain value; an empty one for other objects."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
        return f"{tuple(value.shape)} {_sha256(plain.tobytes())}"
    if isinstance(value, torch.Generator):
        return _sha256(value.get_state().numpy().tobytes())
    if isinstance(value, np.ndarray):
        return f"{value.shape} {_sha256(value.tobytes())}"
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return repr(value.getstate())
    if isinstance(value, dict):
        return repr([(repr(key), digest_of(inner)) for key, inner in value.items()])
    if isinstance(value, list | tuple | set | frozenset | deque):
        return repr([digest_of(inner) for inner in value])
    return repr(value) if isinstance(value, bool | int | float | str | bytes) else ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
