"""The terms of the losses on a few images: their values, and what each depends on.

Letters: B images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from vgx import rng
from vgx.check.attempt import alike, call, failed, keeping_buffers
from vgx.check.audit import Finding, TermValue
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.engine.losses import PlayerName, Term, gradient_ratio, share_ratios, terms_of
from vgx.errors import RecipeError
from vgx.parts.base import BrokenError, near
from vgx.parts.contract import NO_TERM, images_of, reduction
from vgx.parts.kinds import Loss
from vgx.step import AbsentError, Score, Step

Steps = Mapping[PlayerName, Step]


@dataclass
class Tried:
    """All terms on the first batch, and what was found."""

    values: list[TermValue] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reads_labels: bool = False


class GradientWatch(TorchFunctionMode):
    """Notes whether a gradient is taken in its block, as penalties do."""

    taken = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note a call of `torch.autograd.grad`."""
        del types
        self.taken = self.taken or func is torch.autograd.grad
        return func(*args, **(kwargs or {}))


def try_terms(engine: Engine, steps: Steps) -> Tried:
    """Compute each term of each loss, also those of a player that the recipe lacks.

    Each is computed at the first step and at the last one, whatever its `start`, `every` and
    weight, so that nothing fails only then.
    """
    tried = Tried()
    for index, (part, module) in enumerate(engine.losses):
        terms = [
            (term, step.about(part.about))
            for player, step in steps.items()
            for term in terms_of([(part, module)], player)
        ]
        if not terms:
            method = "; nothing calls forward" if "forward" in type(module).__dict__ else ""
            raise BrokenError(part, NO_TERM + method)
        tried.findings += _misspelt(part, module)
        silent = [term for term, step in terms if not _try_term(engine, index, term, step, tried)]
        if isinstance(module, nn.Module):
            tried.findings += _rebuilt(engine, part, module, terms)
        names = " and ".join(f"{term.player}(step)" for term in silent)
        if len(silent) == len(terms):
            message = f"{names} returns None, so the loss counts in no step: is a return missing?"
            tried.findings.append(Finding(f"silent:{part.label}", message))
        elif silent:
            tried.notes.append(f"{part.label}: {names} returns None: is a return missing?")
    _try_adaptive(engine, tried.values)
    _try_shares(engine, tried.values)
    return tried


def _misspelt(part: Loss, module: object) -> Iterator[Finding]:
    """Find methods whose names are nearly those of the terms: nothing calls them."""
    terms = ("generator", "discriminator")
    for name in {*vars(type(module)), *vars(type(part))} - {*terms}:
        if not name.startswith("_") and (meant := near(name, terms, 0.8)):
            message = f"nothing calls its {name}; did you mean {meant}(step)?"
            yield Finding(f"silent:{part.label}", message)


def _try_term(engine: Engine, index: int, term: Term, step: Step, tried: Tried) -> bool:
    """Add what a term gives to `tried`; return whether it gives anything."""
    last = max(engine.steps - 1, 0)
    end = step.but(number=last, progress=last / engine.steps)
    with GradientWatch() as watch:
        value = _computed(index, term, step, "on the first batch")
    late = _computed(index, term, end, f"at step {engine.steps:,}")
    if value is None and late is None:
        return False
    if value is None:
        value, step = late, end
    assert value is not None
    depends = _measured(engine, term, step)
    if depends.random:
        advice = f'draw from step.rng("{term.part.type}") alone, and keep nothing between steps'
        message = f"the same images and the same key give another {term.player}'s term: {advice}"
        tried.findings.append(Finding(f"random:{term.part.label}", message))
    elif depends.reduction == "sum":
        advice = "end it with .mean(), or train.batch changes its weight"
        message = f"its value is a sum over the images of a batch: {depends.numbers}; {advice}"
        tried.findings.append(Finding(f"sum:{term.label}", message))
    across_batch = term.part.across_batch or depends.reduction == "other"
    tried.values.append(TermValue(term, value, step, watch.taken, across_batch))
    tried.reads_labels = tried.reads_labels or depends.reads_labels
    return True


def _rebuilt(
    engine: Engine, part: Loss, module: Any, terms: list[tuple[Term, Step]]
) -> Iterator[Finding]:
    """Build a loss a second time and load its state, as a resumed run does."""
    recipe = engine.recipe
    with rng.ambient(recipe.train.seed, "check"):
        other: Any = call(part, part.untrained().build, recipe.image, recipe.latent)
    call(part, other.to(engine.device, engine.dtype).load_state_dict, module.state_dict())
    for term, step in terms:
        values = []
        for each in (module, other):
            networks = [*engine.networks.values(), other]
            with evaluating(networks), keeping_buffers([each]), rng.ambient(0, "check"):
                values.append(call(part, getattr(each, term.player), step))
        if values[0] is not None and not alike(*values):
            message = "built anew and loaded from a checkpoint it gives another value"
            yield Finding(f"contract:{part.label}", message)


def _computed(index: int, term: Term, step: Step, when: str) -> Tensor | None:
    try:
        with keeping_buffers(_modules(term)):
            value = term.value(step)
    except AbsentError as error:
        message = f"asks for step.{error.name}: the recipe needs {error.needs}"
        raise RecipeError(f"losses.{index}: {term.part.label} {message}") from error
    except RecipeError as error:
        raise RecipeError(f"losses.{index}: {term.part.label}: {error}") from error
    except BrokenError as error:
        raise BrokenError(term.part, f"{when} {error}") from error
    except Exception as error:
        raise failed(term.part, error, when) from error
    if value is not None and not value.isfinite():
        raise BrokenError(term.part, f"its {term.player}'s term is not finite {when}")
    return value


def _modules(term: Term) -> list[nn.Module]:
    module: object = term.module
    return [module] if isinstance(module, nn.Module) else []


# --- what a term depends on ----------------------------------------------------------------------


@dataclass(frozen=True)
class Dependence:
    """What a term was seen to depend on."""

    random: bool = False  # on random numbers that step.rng does not give, or on earlier calls
    reduction: str = ""  # "mean", "sum" or "other" over the images; "" if that is not known
    numbers: str = ""  # from which the reduction is known
    reads_labels: bool = False


def _measured(engine: Engine, term: Term, step: Step) -> Dependence:
    """Compute a term again: with other global generators, other labels, and half of the images.

    Networks are in evaluation mode, so that any difference comes from the loss. A term that cannot
    be computed in this way is not judged.
    """
    drawn: list[str] = []
    step = _noting_draws(engine, step, drawn)
    with evaluating(engine.networks.values()):
        once, again = _value(term, step), _value(term, step, ambient=1)
        relabelled, classes = once, engine.recipe.image.classes
        if step.labels is not None and classes > 1:
            labels = (step.labels + 1) % classes  # [B]
            relabelled = _value(term, step.but(labels=labels))
        halves = [] if drawn else [_value(term, half) for half in _halves(engine, term, step)]
    if not once.isfinite():
        return Dependence()
    depends = Dependence(random=not _same(once, again), reads_labels=not alike(once, relabelled))
    if not halves or not torch.stack(halves).isfinite().all():
        return depends
    one, two = (half.item() for half in halves)
    numbers = f"{once.item():.4g} for {len(step.real)} images, {one:.4g} and {two:.4g} for halves"
    return replace(depends, reduction=reduction(once.item(), (one, two)), numbers=numbers)


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether a value is the same the second time; a GPU may round it in another way."""
    return torch.equal(one, other) if one.device.type == "cpu" else alike(one, other)


def _value(term: Term, step: Step, ambient: int = 0) -> Tensor:
    """Compute a term and leave no trace: 0 if it is `None`, NaN if it raises an error."""
    zero = step.real.new_zeros(())
    try:
        with keeping_buffers(_modules(term)), rng.ambient(ambient, "check"):
            value = term.value(step)
    except Exception:  # noqa: BLE001 - it worked while training, which was tried before
        return zero / 0
    return zero if value is None else value.detach()


def _noting_draws(engine: Engine, step: Step, drawn: list[str]) -> Step:
    """Return the step; what a loss draws by its key, itself or in `diff_augment`, is noted."""

    def draws(stream: str) -> Generator:
        drawn.append(stream)
        return step.rng(stream)

    def scores(*judged: Tensor) -> Score:
        drawn.extend(part.type for part in engine.recipe.diff_augment)
        return step.discriminator(*judged)

    noting = step.but(rng=draws)
    return noting.but(discriminator=scores) if step.has("discriminator") else noting


def _halves(engine: Engine, term: Term, step: Step) -> list[Step]:
    """Return the step with each half of its images; nothing when a half would be one image."""
    images = len(step.real)
    if images < 4 or images % 2:
        return []
    forward, streams = engine.forward, engine.streams()
    learns = term.player == "generator"
    network = engine.recipe.judge_of(term.part)
    halves = []
    for part in (slice(images // 2), slice(images // 2, images)):
        half = images_of(step, part)
        half = half.but(**forward.calls(half.labels, streams, train_generator=learns))
        if network is not None and step.has("discriminator"):
            score = partial(forward.score, network=network, labels=half.labels, streams=streams)
            half = half.but(discriminator=score)
        halves.append(half)
    return halves


def _try_adaptive(engine: Engine, values: list[TermValue]) -> None:
    """Compare gradients as each adaptive weight will.

    Raises `RecipeError` if that is impossible.
    """
    for value in values:
        term, adaptive = value.term, value.term.adaptive
        if adaptive is None:
            continue
        beside = [other for other in values if other.term.player == term.player]
        others = [other.value for other in beside if other.term.part.label in adaptive.against]
        layer = engine.last_layer()
        if gradient_ratio(others, value.value, layer, adaptive.most) is not None:
            continue
        names = ", ".join(adaptive.against)
        own = gradient_ratio([value.value], value.value, layer, adaptive.most) is None
        wrong = term.label if own else names
        instead = "give it a number as its weight" if own else "name a reconstruction term"
        index = [part for part, _ in engine.losses].index(term.part)
        raise RecipeError(
            f"losses.{index}: {term.part.label}: weight: against [{names}]: {wrong} has no "
            f"gradient in the decoder's last layer, where gradients are compared; {instead}"
        )


def _try_shares(engine: Engine, values: list[TermValue]) -> None:
    """Take the gradients that shares are of. Raises `RecipeError` for a term without one."""
    for value in values:
        term = value.term
        if term.share is None:
            continue
        own = {term.label: (value.value, 1.0)}
        if value.step.has("recon_logits") and share_ratios(own, value.step)[term.label] is not None:
            continue
        index = [part for part, _ in engine.losses].index(term.part)
        raise RecipeError(
            f"losses.{index}: {term.part.label}: weight: share: it has no gradient in the "
            "reconstruction, where gradients are compared; give it a number as its weight"
        )
