"""Parts that hide state: what changes while they work, and no checkpoint would hold."""

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
from vgx.engine.engine import Engine
from vgx.parts.base import Component
from vgx.parts.kinds import Augmentation


def working(engine: Engine) -> dict[str, tuple[Component, Any]]:
    """Return the parts that a step asks and what they built, by the name that findings give."""
    recipe = engine.recipe
    found: dict[str, tuple[Component, Any]] = {
        name: (getattr(recipe, name), engine.networks[name])
        for name in ("encoder", "decoder", "discriminator")
        if name in engine.networks
    }
    found |= {loss.label: (loss, asked) for loss, asked in engine.asked}
    for field, built in (("augment", engine.augment), ("diff_augment", engine.diff_augment)):
        parts = zip(getattr(recipe, field), built, strict=True)
        found |= {f"{field}.{index}": pair for index, pair in enumerate(parts)}
    return found


@contextmanager
def holding_still(engine: Engine) -> Iterator[list[Finding]]:
    """Look for state that parts hide while they work in the block, after which the list has it.

    Weights and buffers of networks and losses may change, and what was `None` may be filled in.
    """
    findings: list[Finding] = []
    parts = working(engine)
    before = {name: _hidden(part, thing) for name, (part, thing) in parts.items()}
    yield findings
    for name, (part, thing) in parts.items():
        now = _hidden(part, thing)
        changed = [key for key, value in before[name].items() if value != now.get(key, value)]
        findings += [Finding(f"hidden-state:{name}.{key}", _message(part, key)) for key in changed]


def _message(part: Component, key: str) -> str:
    attribute = key.rpartition(".")[2]
    advice = (
        "draw from the generator that it is given, and keep nothing between batches"
        if isinstance(part, Augmentation)
        else "make it a buffer of a module that build() returns"
    )
    return (
        f"{part.kind} '{part.type}' changes its attribute {attribute} while it works, and no "
        f"checkpoint would hold that, so a resumed run would be another: {advice}"
    )


def _hidden(part: Component, thing: Any) -> dict[str, str]:
    """Return what an object, or a module and those in it, hold besides what is saved, by name."""
    modules = thing.named_modules() if isinstance(thing, nn.Module) else [("", thing)]
    saved = not isinstance(part, Augmentation)
    return {
        f"{path}.{name}".lstrip("."): told
        for path, module in modules
        for name, value in _attributes(module, saved=saved).items()
        if (told := _told(value))
    }


def _attributes(thing: Any, *, saved: bool) -> dict[str, Any]:
    if isinstance(thing, Component):
        return {**thing.__dict__, **(thing.__pydantic_private__ or {})}
    own = nn.Module().__dict__  # weights, buffers, hooks
    held = {name: v for name, v in getattr(thing, "__dict__", {}).items() if name not in own}
    if isinstance(thing, nn.Module) and not saved:
        held |= dict(thing.named_buffers(recurse=False))
        held |= dict(thing.named_parameters(recurse=False))
    return held


def _told(value: object) -> str:
    """Return what stands for a value; nothing for one that is no plain value."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
        return f"{tuple(value.shape)} {_sum(plain.tobytes())}"
    if isinstance(value, torch.Generator):
        return _sum(value.get_state().numpy().tobytes())
    if isinstance(value, np.ndarray):
        return f"{value.shape} {_sum(value.tobytes())}"
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return repr(value.getstate())
    if isinstance(value, dict):
        return repr([(repr(key), _told(inner)) for key, inner in value.items()])
    if isinstance(value, list | tuple | set | frozenset | deque):
        return repr([_told(inner) for inner in value])
    return repr(value) if isinstance(value, bool | int | float | str | bytes) else ""


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
