"""The audit: which term trains which network, measured on one batch before the first step.

Published programs had each of these faults for years: a term that trains nothing, a term that leaks
into the networks of the other player, weights that nothing trains or that no optimizer has, a value
of the configuration that nothing reads. The audit measures each of them. A fault is an error unless
the recipe allows it: `allow: ["dead:l1"]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from vgx.engine.engine import Engine
from vgx.engine.losses import Term, leaves, owner_of
from vgx.engine.players import is_trained_by
from vgx.errors import RecipeError
from vgx.parts.base import Component
from vgx.parts.kinds import Dataset, Loss
from vgx.parts.values import Schedule
from vgx.recipe.model import Recipe
from vgx.step import Step

MOST = 8  # findings in one message
# Values that the generator computes. `prior_z` is none: it leads to no network.
FROM_GENERATOR = ("recon", "recon_logits", "prior", "z")
# Last operations of a network that gives probabilities, or at least no logits.
_SQUASHING = re.compile(
    r"(Sigmoid|LogSigmoid|Tanh|Softmax|LogSoftmax|Hardsigmoid|Hardtanh)Backward"
)
# Operations that only change the layout of values.
_LAYOUT = re.compile(
    r"(View|Reshape|UnsafeView|Alias|Clone|ToCopy|Cat|Stack|Permute|Transpose|T|Squeeze|Unsqueeze|"
    r"Flatten|Expand|Slice|Select|Mean|AsStrided|Identity)Backward"
)


@dataclass(frozen=True)
class Finding:
    """One fault: its name for `allow`, what is wrong, and what to do."""

    name: str
    message: str


@dataclass(frozen=True, eq=False)
class TermValue:
    """One term of a loss on the batch."""

    term: Term
    value: Tensor  # a scalar with its graph
    step: Step  # that it was computed from
    takes_gradients: bool = False  # itself, as penalties do
    across_batch: bool = False  # whether it depends on which images share a batch


@dataclass(frozen=True)
class Flow:
    """Gradient norms of one term by network; `None` where it trains nothing."""

    label: str
    norms: dict[str, float | None]


def measure(
    engine: Engine, values: list[TermValue], step: Step, detached: Step
) -> tuple[list[Flow], list[Finding]]:
    """Measure each term's gradient in each network of its player, and find what is wrong.

    The discriminator's terms were computed from `detached`, whose fakes are leaves of the graph: a
    gradient that arrives there would go on to the generator.
    """
    flows, findings = [], list(_shared(engine))
    reached: set[int] = set()
    for value in values:
        if value.term.player not in engine.players:
            findings.append(_without_player(value.term, engine))
            continue
        trained = _trained(engine, value.term)
        fakes = _from_generator(detached) if value.term.player == "discriminator" else {}
        gradients = _gradients(value.value, [*trained.values(), *fakes.values()])
        own = dict(zip(trained, gradients, strict=False))
        of_fakes = zip(fakes, gradients[len(trained) :], strict=True)
        leaks = [name for name, gradient in of_fakes if gradient is not None]
        flows.append(Flow(value.term.label, _norms(engine, own)))
        findings += _infinite(flows[-1])
        if all(gradient is None for gradient in own.values()):
            findings.append(_dead(value, engine))
        if leaks:
            findings.append(_leak(value.term, leaks))
        findings += _without_optimizer(value, engine, fakes)
        reached |= {id(trained[name]) for name, gradient in own.items() if gradient is not None}
    findings += _unreached(engine, values, reached)
    findings += _fresh(engine)
    findings += _squashed(engine, step)
    return flows, findings


def allowed(recipe: Recipe, findings: list[Finding]) -> list[str]:
    """Return the findings that the recipe allows, as notes.

    Raises `RecipeError` that lists the others.
    """
    notes, wrong = [], []
    for finding in findings:
        text = f"{finding.name}: {finding.message}"
        if any(fnmatchcase(finding.name, pattern) for pattern in recipe.allow):
            notes.append(f"Allowed by the recipe: {text}")
        else:
            wrong.append((finding.name, f"audit: {text}"))
    if wrong:
        lines = [line for _, line in wrong[:MOST]]
        if len(wrong) > MOST:
            lines.append(f"... and {len(wrong) - MOST} more")
        raise RecipeError("\n".join([*lines, f'If that is meant: allow: ["{wrong[0][0]}"]']))
    return notes


# --- gradients ---------------------------------------------------------------------------------


def _trained(engine: Engine, term: Term) -> dict[str, nn.Parameter]:
    """Return the parameters that a term may train, by name."""
    # A recipe may have no discriminator while one of its losses has a term for it.
    named = engine.named_parameters(term.player)
    trained = {name: p for name, p in named.items() if p.requires_grad}
    return {name: p for name, p in trained.items() if is_trained_by(name, term.reaches)}


def _from_generator(detached: Step) -> dict[str, Tensor]:
    """Return the values of a step that lead to the generator's networks, by name."""
    return {name: getattr(detached, name) for name in FROM_GENERATOR if detached.has(name)}


def _gradients(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    if not (value.requires_grad and inputs):
        return [None] * len(inputs)
    return list(torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True))


def _norms(engine: Engine, gradients: dict[str, Tensor | None]) -> dict[str, float | None]:
    norms: dict[str, float | None] = {}
    for network in engine.networks:
        inside = [g for n, g in gradients.items() if n.startswith(f"{network}.") and g is not None]
        norm = torch.stack([g.double().norm() for g in inside]).norm().item() if inside else None
        norms[network] = norm
    return norms


# --- faults ------------------------------------------------------------------------------------


def _dead(value: TermValue, engine: Engine) -> Finding:
    term = value.term
    if term.player == "generator":
        own = engine.named_parameters("discriminator").values()
        others = [p for p in own if p.requires_grad]
        if any(gradient is not None for gradient in _gradients(value.value, others)):
            message = "reaches only the discriminator: the generator's term must read the fakes"
            return Finding(f"dead:{term.label}", message)
    why = (
        "none of the networks that it may train is on the way to its value"
        if value.value.requires_grad
        else "it was computed under no_grad or from detached values"
    )
    if (frozen := engine.recipe.train.freeze) and not value.value.requires_grad:
        why = f"nothing that it depends on is trained (train.freeze: {', '.join(frozen)})"
    message = f"the {term.player} learns nothing from it: {why}; correct the loss or remove it"
    return Finding(f"dead:{term.label}", message)


def _without_player(term: Term, engine: Engine) -> Finding:
    why = f"the recipe has no {term.player}, so it counts in no step"
    message = f"{why}: add a {term.player}, or remove the loss"
    if engine.recipe.judges:
        message = f"train.freeze has the {term.player}, so it counts in no step: remove the loss"
    return Finding(f"dead:{term.label}", message)


def _infinite(flow: Flow) -> Iterator[Finding]:
    lost = [name for name, norm in flow.norms.items() if norm is not None and not isfinite(norm)]
    if lost:
        advice, where = "look for a root, a logarithm or a division at 0", " and ".join(lost)
        message = f"its gradient in {where} is not finite, so the first step would fail: {advice}"
        yield Finding(f"not-finite:{flow.label}", message)


def _leak(term: Term, leaks: list[str]) -> Finding:
    names = " and ".join(f"step.{name}" for name in leaks)
    detached = ", ".join(f"step.{name}.detach()" for name in leaks)
    advice = f"write {detached}, or use step.fake_score"
    message = f"the discriminator's term leads to {names} and so into the generator: {advice}"
    return Finding(f"leak:{term.label}", message)


def _without_optimizer(
    value: TermValue, engine: Engine, fakes: dict[str, Tensor]
) -> Iterator[Finding]:
    """Find tensors that a term learns but no optimizer has, such as a log-variance."""
    known = {id(p) for network in engine.networks.values() for p in network.parameters()}
    known |= {id(fake) for fake in fakes.values()}
    unknown = [leaf for leaf in leaves(value.value) if id(leaf) not in known]
    # A penalty makes a new leaf each time it is computed; a leaf that stays is meant to be learned.
    again = value.term.value(value.step) if unknown else None
    lasting = {id(leaf) for leaf in leaves(again)} if again is not None else set()
    for leaf in unknown:
        if id(leaf) in lasting:
            learned = f"it learns a tensor of shape {tuple(leaf.shape)} that no optimizer holds"
            message = (
                f"{learned}: make it an nn.Parameter of a module that the loss's build returns"
            )
            yield Finding(f"unstepped:{value.term.label}", message)


def never_counts(term: Term, steps: int) -> str:
    """Return a note when a term counts in none of so many steps, else an empty string.

    It is not a fault: a recipe for a long training may be tried for a few steps.
    """
    weight, first = term.part.weight, term.part.start
    if ratio := term.adaptive or term.share:
        first = max(first, ratio.after)
    if term.weighted and isinstance(weight, Schedule) and weight.start == 0:
        first = max(first, weight.after + 1)
    if first >= steps:
        return f"{term.label} never counts: it starts at step {first:,} of {steps:,}."
    if term.part.stop is not None and first >= term.part.stop:
        return f"{term.label} never counts: it stops at step {term.part.stop:,}."
    levels = (weight.start, weight.to) if isinstance(weight, Schedule) else (weight,)
    if term.weighted and all(level == 0 for level in levels):
        return f"{term.label} never counts: its weight is 0."
    return ""


def _shared(engine: Engine) -> Iterator[Finding]:
    if len(engine.players) < 2:
        return
    generator = {id(p) for p in engine.players["generator"].parameters}
    for name, parameter in engine.named_parameters("discriminator").items():
        if id(parameter) in generator:
            message = "is in the generator too: each player's step would change the other's weights"
            yield Finding(f"leak:{name}", message)


def _unreached(engine: Engine, values: list[TermValue], reached: set[int]) -> Iterator[Finding]:
    for player in engine.players.values():
        rate = player.settings.lr
        if isinstance(rate, Schedule) and rate.start == rate.to == 0:
            message = "its learning rate is 0 from beginning to end"
            yield Finding(f"unstepped:{player.name}", message)
        if not any(value.term.player == player.name for value in values):
            message = f"no loss has a term for the {player.name}, so its optimizer never steps"
            yield Finding(f"unstepped:{player.name}", message)
            continue
        by_network: dict[str, dict[str, nn.Parameter]] = {}
        for name, parameter in player.trained.items():
            by_network.setdefault(owner_of(name), {})[name] = parameter
        for network, named in by_network.items():
            lost = [name for name, parameter in named.items() if id(parameter) not in reached]
            for name in [network] if len(lost) == len(named) else lost:
                message = "no loss term trains it: freeze it, or add a loss that trains it"
                yield Finding(f"unreached:{name}", message)


def _fresh(engine: Engine) -> Iterator[Finding]:
    """Find frozen networks with initial weights, which are random numbers that nothing trains."""
    fresh = {fit.network: fit.fresh for fit in engine.fits}
    for name in engine.recipe.frozen:
        part, own = engine.recipe.networks[name], engine.networks[name].state_dict()
        if name not in fresh and part.untrained() != part:  # it begins with weights of its own
            continue
        if lost := fresh.get(name, [*own]):
            some = f"{len(lost)} of its {len(own)} tensors are" if name in fresh else "it is"
            advice = "take it out of train.freeze, or start from a run with the same network"
            message = f"train.freeze keeps it as it is, and {some} new random numbers: {advice}"
            yield Finding(f"fresh:{name}", message)


def _squashed(engine: Engine, step: Step) -> Iterator[Finding]:
    """Find networks that give probabilities where logits are expected."""
    known = step.has("recon_logits")
    decoded = step.recon_logits if known else engine.forward.decode(step.z, step.labels)
    for network, output in {"decoder": decoded, **logits_of(engine, step)}.items():
        node: Any = output.grad_fn
        while node is not None and _LAYOUT.match(node.name()):
            node = node.next_functions[0][0]
        if node is not None and (match := _SQUASHING.match(node.name())):
            advice = "remove that; losses and images apply their own"
            message = f"it ends in a {match[1].lower()}, but should give logits: {advice}"
            yield Finding(f"squashed:{network}", message)


def logits_of(engine: Engine, step: Step) -> dict[str, Tensor]:
    """Return the logits of what is real, by the name of the discriminator's network."""
    judges = engine.recipe.judges
    steps = [step.about(name.partition(" ")[2]) for name in judges]
    return {name: own.real_score.logits for name, own in zip(judges, steps, strict=True)}


# --- values that nothing read --------------------------------------------------------------------


def unread(recipe: Recipe, reads: set[tuple[int, str]]) -> Iterator[Finding]:
    """Find fields of parts that the recipe sets but that nothing read while all was built."""
    if recipe.train.ema_warmup and recipe.train.ema is None:
        yield Finding("unread:train.ema_warmup", "there is no average to warm up; set train.ema")
    if recipe.diff_augment and all(p.judges == "latents" for p in recipe.judges.values()):
        yield Finding("unread:diff_augment", "there is no discriminator that would see its images")
    for place, part in parts_of(recipe):
        inside = part.__dict__.values()
        replaced = any(isinstance(p, Dataset) and (id(p), "build") in reads for p in inside)
        # A data set is used, or its fallback: nothing reads the fields of the other one.
        if replaced or (id(part), "build") not in reads:
            continue
        for name, field in type(part).model_fields.items():
            if name in Loss.model_fields or (id(part), name) in reads:
                continue
            value = part.__dict__[name]
            if value != field.get_default(call_default_factory=True, validated_data={}):
                message = f"nothing read it, so {value!r} changes nothing; leave it out"
                yield Finding(f"unread:{place}.{name}", message)


def parts_of(recipe: Recipe) -> Iterator[tuple[str, Component]]:
    """Go through all parts of a recipe with their places, parts inside parts included."""
    pending: list[tuple[str, Any]] = [(name, recipe.__dict__[name]) for name in Recipe.model_fields]
    while pending:
        place, value = pending.pop(0)
        if isinstance(value, Component):
            yield place, value
        if isinstance(value, tuple):
            pending += [(f"{place}.{index}", inner) for index, inner in enumerate(value)]
        elif isinstance(value, BaseModel | dict):
            named = value if isinstance(value, dict) else value.__dict__
            pending += [(f"{place}.{name}", inner) for name, inner in named.items()]
