"""The contract of losses: a mean over the batch, of the step alone, that reaches its player."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check.attempt import same_tensors
from vgx.check.changing import faults_of_figures
from vgx.distributed.rows import gather, mean_over_processes, replicated
from vgx.distributed.state import group
from vgx.engine.losses import PlayerName, Term, has_term
from vgx.parts.contract import NO_TERM, fault_of_term, with_tensors
from vgx.step import Step
from vgx.testing.case import (
    ROUNDING,
    Case,
    Networks,
    built,
    require,
    saved_and_loaded,
    tensors_of,
)
from vgx.testing.shared import ADVICE, Cut, check_shared

SHARED = f"{ADVICE}; or say across_batch = True in the loss, which then sees all images"


def check_loss(case: Case) -> None:
    """Check the generator's and the discriminator's term of a loss."""
    # Leaves throughout, so that the gradient of each tensor is its own.
    step = replace(with_tensors(case.step, _leaf), real=case.step.real.detach().clone())
    if step.has("prior_z"):  # which leads to no network
        step = replace(step, prior_z=step.prior_z.detach())
    before = tensors_of(with_tensors(step, lambda tensor: tensor.detach().clone()))
    players: tuple[PlayerName, ...] = ("generator", "discriminator")
    terms = 0
    for player in players:
        if has_term(built(partial(_build, case), case.part), player):
            own = step if player == "generator" else _without_gradients(step)
            loss_module, value = _evaluate(case, player, own)
            same = same_tensors(before, tensors_of(step))
            case.check(same, f"its {player}'s term changes the step in place")
            terms += value is not None
            if value is not None:
                _check_term(case, player, own, loss_module, value)
    module = built(partial(_build, case), case.part)
    case.faults.extend(faults_of_figures(case.part, module))
    beside = case.part.note_beside((case.part,), case.image)
    case.check(isinstance(beside, str), "note_beside() gives no string")
    case.check(terms, NO_TERM)


def _without_gradients(step: Step) -> Step:
    """Return the step whose `encode` and `decode` give no gradient, as for the discriminator."""
    calls = ("encode", "decode", "decode_logits", "map", "decode_mapped")
    names = [name for name in calls if step.has(name)]
    without = {name: torch.no_grad()(getattr(step, name)) for name in names}

    def parameters(network: str) -> dict[str, Tensor]:
        judge = network.startswith("discriminator")
        own = step.parameters(network)
        return {name: each if judge else each.detach() for name, each in own.items()}

    return step.but(**without, parameters=parameters)


def _check_term(case: Case, player: PlayerName, step: Step, loss_module: Any, value: Any) -> None:
    term = f"its {player}'s term"
    fault = fault_of_term(value, step)
    require(not fault, f"{term} is {fault}")
    require(value.isfinite(), f"{term} is not finite, but {value!r}")
    again = _evaluate(case, player, step, ambient=1)[1]
    case.check(torch.equal(value, again), f"{term} draws from something else than step.rng")
    untouched = all(tensor.grad is None for tensor in tensors_of(step).values() if tensor.is_leaf)
    case.check(untouched, f"{term} calls backward(), which the engine does")
    doubled = with_tensors(step, lambda tensor: _twice(tensor, len(step.z)))
    once, twice = value.item(), _evaluate(case, player, doubled)[1].item()
    exempt = case.part.across_batch or abs(once) < ROUNDING
    mean = exempt or 2 / 3 < twice / once < 3 / 2
    numbers = f"{once:.4g}, and {twice:.4g} for the same images twice"
    case.check(mean, f"{term} is no mean over the batch: {numbers}")
    require(value.requires_grad, f"{term} has no gradient: is it computed in no_grad?")
    _check_reach(case, player, step, loss_module, value)
    if isinstance(loss_module, nn.Module):
        other = built(partial(_build, case), case.part.untrained(), 1)
        other.load_state_dict(saved_and_loaded(loss_module.state_dict()))
        same = torch.equal(getattr(other, player)(step), getattr(loss_module, player)(step))
        case.check(same, f"saved and loaded {term} is another")
    check_shared(case, len(step.z), partial(_shared_term, case, player, step), SHARED)


def _shared_term(case: Case, player: PlayerName, step: Step, cut: Cut) -> dict[str, Tensor]:
    """Return a term, its gradients and what the loss keeps, of the rows of all processes."""
    counts = len(step.z), 2 * len(step.z)
    with replicated():
        fresh = built(partial(_build, case), case.part)

    def rows(tensor: Tensor) -> Tensor:
        own = cut(tensor) if tensor.dim() and len(tensor) in counts else tensor
        return own.detach().requires_grad_(tensor.requires_grad)

    own = with_tensors(step, rows)
    with rng.ambient(0, "testing"):
        value: Any = Term(case.part.label, player, case.part, fresh, weighted=True).value(own)
    inputs = {name: each for name, each in tensors_of(own).items() if each.requires_grad}
    slopes = torch.autograd.grad(value, [*inputs.values()], allow_unused=True)
    found = {f"its {player}'s term": mean_over_processes(value.detach())}
    found |= {
        f"the gradient of its {player}'s term in {name}": gather(slope) / group().size
        for name, slope in zip(inputs, slopes, strict=True)
        if slope is not None
    }
    kept = fresh.named_buffers() if isinstance(fresh, nn.Module) else ()
    return found | {f"its {name}": each.clone() for name, each in kept}


def _check_reach(
    case: Case, player: PlayerName, step: Step, loss_module: Any, value: Tensor
) -> None:
    """Check which tensors of the step, and which weights of the loss, get a gradient."""
    inputs = {name: tensor for name, tensor in tensors_of(step).items() if tensor.requires_grad}
    inputs |= _called_networks(step)
    own = dict(loss_module.named_parameters()) if isinstance(loss_module, nn.Module) else {}
    weights = {
        f"its weight {name}": p
        for name, p in own.items()
        if p.requires_grad and name.startswith("critic.") == (player == "discriminator")
    }
    tensors = {**inputs, **weights}
    gradients = torch.autograd.grad(
        value, list(tensors.values()), retain_graph=True, allow_unused=True
    )
    reached = {n: g for n, g in zip(tensors, gradients, strict=True) if g is not None}
    for name, gradient in reached.items():
        case.check(gradient.isfinite().all(), f"the gradient in {name} is not finite")
    judges = ("real_score", "fake_score", "discriminator", "its")
    generated = [name for name in reached if not name.startswith(judges)]
    if player == "discriminator":
        for name in generated:
            fixed = f"step.{name}.detach()"
            case.faults.append(f"its discriminator's term leads into the generator: use {fixed}")
        for name in weights:
            case.check(name in reached, f"no gradient of its discriminator's term reaches {name}")
        return
    good = generated or any(name.startswith("fake_score") for name in reached)
    case.check(good, "its generator's term reaches no output of the generator")
    for name in weights:
        case.check(name in reached, f"no gradient of its generator's term reaches {name}")


def _called_networks(step: Step) -> dict[str, Tensor]:
    """Return the weights of the networks that `encode` and `decode` call, where they are known."""
    networks = getattr(vars(step)["decode"], "__self__", None)
    return networks.weights if isinstance(networks, Networks) else {}


def _evaluate(case: Case, player: PlayerName, step: Step, ambient: int = 0) -> tuple[Any, Any]:
    """Build the loss anew; return it and the value of one of its terms."""
    loss_module = built(partial(_build, case), case.part)
    with rng.ambient(ambient, "testing"):
        return loss_module, getattr(loss_module, player)(step)


def _build(case: Case, loss: Any) -> Any:
    return loss.build(case.image, case.latent)


def _twice(tensor: Tensor, n: int) -> Tensor:
    """Return n rows twice. Of 2n rows, n of each kind of fakes, return each kind twice."""
    if tensor.dim() == 0 or len(tensor) not in (n, 2 * n):
        return tensor
    return torch.cat([piece for kind in torch.split(tensor, n) for piece in (kind, kind)])


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.is_floating_point())
