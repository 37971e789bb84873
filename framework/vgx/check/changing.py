"""Parts that change with time: a resumed run must be as if it had not been interrupted.

What `at` and `observe` change must be saved, and must follow from their arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vgx.check.attempt import call, same_tensors
from vgx.check.audit import Finding
from vgx.check.blame import working
from vgx.check.hidden_state import state_of
from vgx.engine.engine import Engine
from vgx.parts.base import Component
from vgx.parts.kinds import Observing, Timed
from vgx.step import Step

SAVED = "make it a buffer of the nn.Module that build() returns, which is saved with the run"


def try_changing(engine: Engine, step: Step) -> Iterator[Finding]:
    """Call `at` and `observe` of networks and augmentations, which may change their buffers."""
    last = engine.steps - 1
    for name, (part, built) in working(engine).items():
        if part.kind == "loss":  # it reads the number of the step
            continue
        for fault in faults_of_change(part, built, last, step):
            yield Finding(f"contract:{name}", fault)


def faults_of_change(part: Component, built: Any, last: int, step: Step) -> Iterator[str]:
    """Yield what is wrong with `at` and `observe` of what a part built, in words."""
    modules = list(built.modules()) if isinstance(built, nn.Module) else [built]
    timed = [module for module in modules if isinstance(module, Timed)]

    def at(number: int) -> None:
        for module in timed:
            call(part, module.at, number, number / (last + 1))

    with torch.no_grad():
        if timed:
            at(0)
            first, hidden = _saved(built), state_of(part, built, between=True)
            at(last)
            if state_of(part, built, between=True) != hidden:
                yield f"at(number, progress) changes an attribute: {SAVED}"
            at(0)
            if not same_tensors(first, _saved(built)):
                yield "at(number, progress) depends on earlier calls, and not on its numbers alone"
        if isinstance(built, Observing):
            first, hidden = _saved(built), state_of(part, built, between=True)
            call(part, built.observe, step)
            if state_of(part, built, between=True) != hidden:
                yield f"observe(step) changes an attribute: {SAVED}"
            once = _saved(built)
            _restore(built, first)
            call(part, built.observe, step)
            if not same_tensors(once, _saved(built)):
                yield "observe(step) gives something else when the same step is seen again"
            _restore(built, first)


def _saved(built: Any) -> dict[str, Tensor]:
    """Return copies of the tensors that a checkpoint would hold."""
    state = built.state_dict() if isinstance(built, nn.Module) else {}
    return {name: tensor.clone() for name, tensor in state.items()}


def _restore(built: Any, state: dict[str, Tensor]) -> None:
    if isinstance(built, nn.Module):
        built.load_state_dict(state)
