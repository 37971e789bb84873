"""The audit: what reaches whom, measured on one batch before the first step.

Published programs had each of these faults for years: a term that reaches nobody, one that leaks
into the other player's networks, weights that nothing trains or no optimizer holds, a value in the
configuration that nothing reads. Each is found here by measuring, and is an error until the recipe
says that it is meant: `allow: ["dead:l1"]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from vgx.engine.build import Player
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.parts.base import Component
from vgx.parts.kinds import Dataset, Loss
from vgx.parts.values import Adaptive, Schedule
from vgx.recipe.model import Recipe
from vgx.step import Step

SHOWN = 8  # findings in one message
# What a network ends in that gives probabilities, or at least no logits.
_SQUASHING = re.compile(
    r"(Sigmoid|LogSigmoid|Tanh|Softmax|LogSoftmax|Hardsigmoid|Hardtanh)Backward"
)
# What only lays values out otherwise.
_ARRANGING = re.compile(
    r"(View|Reshape|UnsafeView|Alias|Clone|ToCopy|Cat|Stack|Permute|Transpose|T|Squeeze|Unsqueeze|"
    r"Flatten|Expand|Slice|Select|Mean|AsStrided|Identity)Backward"
)


@dataclass(frozen=True)
class Finding:
    """One fault: the name that `allow` knows it by, what is wrong, and what to do."""

    name: str
    message: str


@dataclass(frozen=True)
class Half:
    """One player's half of a loss on the batch, with its graph."""

    label: str
    loss: Loss
    player: Player
    value: Tensor  # a scalar
    ask: Callable[[], Tensor]  # computes it once more


@dataclass(frozen=True)
class Flow:
    """Gradient norms of one term by network; `None` where it moves nothing."""

    label: str
    norms: dict[str, float | None]


def measure(engine: Engine, halves: list[Half], held: Step) -> tuple[list[Flow], list[Finding]]:
    """Measure each term's gradient in each network of its player, and say what is wrong.

    `held` is the step that the discriminator's halves were asked with: its fakes are leaves of the
    graph, so whatever leads to them would lead on to the generator.
    """
    flows, findings = [], list(_shared(engine))
    reached: set[int] = set()
    for half in halves:
        named = _within(engine, half)
        doors = _doors(held) if half.player == "discriminator" else {}
        gradients = _gradients(half.value, [*named.values(), *doors.values()])
        own = dict(zip(named, gradients, strict=False))
        open_doors = [
            n for n, g in zip(doors, gradients[len(named) :], strict=True) if g is not None
        ]
        flows.append(Flow(half.label, _norms(engine, own)))
        if all(gradient is None for gradient in own.values()):
            findings.append(_dead(half, engine))
        if open_doors:
            findings.append(_leak(half, open_doors))
        findings += _unheld(half, engine, doors)
        reached |= {id(named[name]) for name, g in own.items() if g is not None}
    findings += _unreached(engine, halves, reached)
    findings += _unstepped(engine)
    findings += _squashed(engine, held)
    return flows, findings


def judge(recipe: Recipe, findings: list[Finding]) -> list[str]:
    """Return what was allowed, as notes. Raises `RecipeError` that lists what was not."""
    wrong: list[Finding] = []
    allowed: list[Finding] = []
    for finding in findings:
        meant = any(fnmatchcase(finding.name, pattern) for pattern in recipe.allow)
        (allowed if meant else wrong).append(finding)
    if wrong:
        lines = [f"audit: {finding.name}: {finding.message}" for finding in wrong[:SHOWN]]
        if len(wrong) > SHOWN:
            lines.append(f"... and {len(wrong) - SHOWN} more")
        raise RecipeError("\n".join([*lines, f'If that is meant: allow: ["{wrong[0].name}"]']))
    return [f"Allowed by the recipe: {finding.name}: {finding.message}" for finding in allowed]


# --- gradients ---------------------------------------------------------------------------------


def _within(engine: Engine, half: Half) -> dict[str, nn.Parameter]:
    """Return the weights that a half may move, by name."""
    names = (name for name, p in engine.named(half.player) if p.requires_grad)
    everything = dict(zip(names, engine.parameters[half.player], strict=True))
    reaches = half.loss.reaches if half.player == "generator" else None
    if reaches is None:
        return everything
    inside = ("loss ", *(f"{name}." for name in reaches))
    return {name: p for name, p in everything.items() if name.startswith(inside)}


def _doors(held: Step) -> dict[str, Tensor]:
    """Return what leads from a step to the generator's networks, by name."""
    names = ("recon", "recon_logits", "prior", "z")
    found = {name: getattr(held, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _gradients(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    if not value.requires_grad:
        return [None] * len(inputs)
    return list(torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True))


def _norms(engine: Engine, gradients: dict[str, Tensor | None]) -> dict[str, float | None]:
    norms: dict[str, float | None] = {}
    for network in engine.networks:
        inside = [g for n, g in gradients.items() if n.startswith(f"{network}.") and g is not None]
        norm = torch.stack([g.double().norm() for g in inside]).norm().item() if inside else None
        norms[network] = norm
    return norms


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """Go through the leaves of a value's graph that want a gradient."""
    nodes: list[Any] = [value.grad_fn] if value.grad_fn is not None else []
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # only an AccumulateGrad node has one
        if variable is not None:
            yield variable
        nodes += [following for following, _ in node.next_functions]


# --- faults ------------------------------------------------------------------------------------


def _dead(half: Half, engine: Engine) -> Finding:
    if half.player == "generator" and "discriminator" in engine.networks:
        theirs = [p for p in engine.networks["discriminator"].parameters() if p.requires_grad]
        if any(gradient is not None for gradient in _gradients(half.value, theirs)):
            message = "reaches only the discriminator: the generator's half must read the fakes"
            return Finding(f"dead:{half.label}", message)
    why = (
        "no network that it may move is on the way to its value"
        if half.value.requires_grad
        else "it was computed under no_grad or from detached values"
    )
    whose = f"the {half.player} learns nothing from it"
    return Finding(f"dead:{half.label}", f"{whose}: {why}; mend the loss or leave it out")


def _leak(half: Half, doors: list[str]) -> Finding:
    names = " and ".join(f"step.{name}" for name in doors)
    fixed = ", ".join(f"step.{name}.detach()" for name in doors)
    message = (
        f"the discriminator's half leads to {names} and so into the generator: "
        f"write {fixed}, or use step.fake_score"
    )
    return Finding(f"leak:{half.label}", message)


def _unheld(half: Half, engine: Engine, doors: dict[str, Tensor]) -> Iterator[Finding]:
    """Find what is learnable in a term and is in no optimizer: a log-variance left outside."""
    known = {id(p) for network in engine.networks.values() for p in network.parameters()}
    known |= {id(door) for door in doors.values()}
    strange = [leaf for leaf in _leaves(half.value) if id(leaf) not in known]
    if not strange:
        return
    # A penalty makes a new leaf each time that it is asked; what stays is meant to be learned.
    again = {id(leaf) for leaf in _leaves(half.ask())}
    for leaf in strange:
        if id(leaf) in again:
            message = (
                f"it learns a tensor of shape {tuple(leaf.shape)} that no optimizer holds: make it "
                "an nn.Parameter of a module that the loss's build returns"
            )
            yield Finding(f"unstepped:{half.label}", message)


def idle(half: Half, steps: int) -> str:
    """Say why a half counts in none of so many steps, or nothing: a short trial is no fault."""
    weight = half.loss.weight
    scaled = half.player == "generator" or half.label == half.loss.label
    first = half.loss.start
    if scaled and isinstance(weight, Adaptive):
        first = max(first, weight.after)
    if scaled and isinstance(weight, Schedule) and weight.start == 0:
        first = max(first, weight.after + 1)
    if first >= steps:
        return f"{half.label} never counts: it starts at step {first:,} of {steps:,}."
    levels = (weight.start, weight.to) if isinstance(weight, Schedule) else (weight,)
    if scaled and all(level == 0 for level in levels):
        return f"{half.label} never counts: its weight is 0."
    return ""


def _shared(engine: Engine) -> Iterator[Finding]:
    if len(engine.parameters) < 2:
        return
    ours = {id(p) for p in engine.parameters["generator"]}
    for name, parameter in engine.named("discriminator"):
        if id(parameter) in ours:
            message = "is in the generator too: each player's step would move the other's weights"
            yield Finding(f"leak:{name}", message)


def _unreached(engine: Engine, halves: list[Half], reached: set[int]) -> Iterator[Finding]:
    for player in engine.terms:
        if not any(half.player == player for half in halves):
            message = f"no loss has a half for the {player}, so its optimizer never steps"
            yield Finding(f"unstepped:{player}", message)
            continue
        for network in dict.fromkeys(name.partition(".")[0] for name, _ in engine.named(player)):
            named = [
                (name, p) for name, p in engine.named(player)
                if name.partition(".")[0] == network and p.requires_grad
            ]  # fmt: skip
            lost = [name for name, parameter in named if id(parameter) not in reached]
            if lost and len(lost) == len(named):
                lost = [network]
            for name in lost:
                message = "no loss term trains it: freeze it, or give it something to do"
                yield Finding(f"unreached:{name}", message)


def _unstepped(engine: Engine) -> Iterator[Finding]:
    for player in engine.terms:
        rate = getattr(engine.recipe.train.optimizers, player).lr
        if isinstance(rate, Schedule) and rate.start == rate.to == 0:
            yield Finding(f"unstepped:{player}", "its learning rate is 0 from beginning to end")


def _squashed(engine: Engine, held: Step) -> Iterator[Finding]:
    """Find networks that give probabilities where logits are expected."""
    step = engine.play(0, held.real, labels=held.labels)
    ends = {"decoder": step.recon_logits, "discriminator": None}
    if step.real_score is not None:
        ends["discriminator"] = step.real_score.logits
    if step.recon_logits is None:
        ends["decoder"] = engine.decode(step.z, held.labels)
    for network, logits in ends.items():
        node: Any = None if logits is None else logits.grad_fn
        while node is not None and _ARRANGING.match(node.name()):
            node = node.next_functions[0][0]
        if node is not None and (found := _SQUASHING.match(node.name())):
            message = (
                f"it ends in a {found[1].lower()}, but is to give logits: leave that out; "
                "losses and pictures apply their own"
            )
            yield Finding(f"squashed:{network}", message)


# --- what nothing read -------------------------------------------------------------------------


def unread(recipe: Recipe, reads: set[tuple[int, str]]) -> Iterator[Finding]:
    """Find fields of parts that the recipe sets and nothing read while all was built and tried."""
    if recipe.train.ema_warmup and recipe.train.ema is None:
        yield Finding("unread:train.ema_warmup", "there is no average to warm up; set train.ema")
    if recipe.diff_augment and recipe.discriminator is None:
        yield Finding("unread:diff_augment", "there is no discriminator to be shown anything")
    for place, part in _parts(recipe):
        inside = part.__dict__.values()
        stood_in = any(isinstance(p, Dataset) and (id(p), "build") in reads for p in inside)
        # A data set's fallback stands by, or stands in for it: nobody reads the other's fields.
        if stood_in or (id(part), "build") not in reads:
            continue
        for name, field in type(part).model_fields.items():
            if name in Loss.model_fields or (id(part), name) in reads:
                continue
            value = part.__dict__[name]
            if value != field.get_default(call_default_factory=True, validated_data={}):
                message = f"nothing read it, so {value!r} changes nothing; leave it out"
                yield Finding(f"unread:{place}.{name}", message)


def _parts(recipe: Recipe) -> Iterator[tuple[str, Component]]:
    """Go through all parts of a recipe with their places, parts inside parts included."""
    pending: list[tuple[str, Any]] = [(name, recipe.__dict__[name]) for name in Recipe.model_fields]
    while pending:
        place, value = pending.pop(0)
        if isinstance(value, Component):
            yield place, value
        if isinstance(value, tuple):
            pending += [(f"{place}.{index}", inner) for index, inner in enumerate(value)]
        elif isinstance(value, BaseModel):
            pending += [(f"{place}.{name}", inner) for name, inner in value.__dict__.items()]
