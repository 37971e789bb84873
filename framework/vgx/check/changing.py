"""Parts that change with time: a resumed run must be as if it had not been interrupted.

What `at` and `observe` change must be saved, and must follow from their arguments. What `figures`
gives must be numbers.
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
from vgx.engine.forward import modules_in
from vgx.parts.base import Component
from vgx.parts.contract import fault_of_figures
from vgx.parts.kinds import Observing, Reporting, Timed
from vgx.step import Step

SAVED = "make it a buffer of the nn.Module that build() returns, which is saved with the run"


def try_changing(engine: Engine, step: Step) -> Iterator[Finding]:
    """Call `at` and `observe` of networks and augmentations, which may change their buffers.

    And `figures`, which may not.
    """
    last = engine.steps - 1
    for name, (part, built) in working(engine).items():
        if part.kind == "loss":  # it reads the number of the step
            faults = faults_of_figures(part, built)
        else:
            faults = faults_of_change(part, built, last, step)
        for fault in faults:
            yield Finding(f"contract:{name}", fault)


def faults_of_figures(part: Component, built: Any) -> Iterator[str]:
    """Yield what is wrong with the `figures` of what a part built, in words."""
    for module in modules_in([built]):
        if isinstance(module, Reporting):
            before = _saved(built)
            if fault := fault_of_figures(call(part, module.figures)):
                yield fault
            if not same_tensors(before, _saved(built)):
                yield "figures() changes what the part has learned or kept"


def faults_of_change(part: Component, built: Any, last: int, step: Step) -> Iterator[str]:
    """Yield what is wrong with `figures`, `at` and `observe` of what a part built, in words."""
    yield from faults_of_figures(part, built)
    timed = [module for module in modules_in([built]) if isinstance(module, Timed)]

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
