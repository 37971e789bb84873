"""How weights move: optimizers by name, their rates, averages of weights, layouts in memory."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vgx.errors import RecipeError
from vgx.parts.base import near
from vgx.parts.values import at
from vgx.recipe.model import Optimizer

SECOND_ORDER = ("adahessian",)


def make_optimizer(
    chosen: Optimizer, parameters: list[nn.Parameter], player: str
) -> torch.optim.Optimizer:
    """Make the optimizer that a recipe names. Raises `RecipeError` for a name or value it lacks."""
    kind: Any
    options: dict[str, Any] = {}
    if chosen.type == "adam":
        kind, options = torch.optim.Adam, {"fused": True}
    else:
        from timm.optim import get_optimizer_class, list_optimizers

        if chosen.type not in list_optimizers():
            close = near(chosen.type, list_optimizers())
            hint = f"; did you mean '{close}'?" if close else ""
            message = f"train.optimizers.{player}.type: timm has no '{chosen.type}'{hint}"
            raise RecipeError(message)
        try:
            kind = get_optimizer_class(chosen.type, bind_defaults=False)
        except (AssertionError, ImportError) as error:  # it wants CUDA, or a library of its own
            message = f"train.optimizers.{player}.type: {chosen.type}: {error}"
            raise RecipeError(message) from error
        if chosen.type in SECOND_ORDER:
            message = f"{chosen.type} wants second derivatives, which the engine does not take"
            raise RecipeError(f"train.optimizers.{player}.type: {message}; take another one")
    known = inspect.signature(kind).parameters
    # Adan, for one, has three, and means other things by them.
    two = "betas" in known and len(known["betas"].default or ()) == 2
    betas = chosen.betas or ((0.5, 0.999) if two else None)
    # Decay is none unless asked for: a library's own default, adamw's 0.01, is no recipe's.
    decay = chosen.weight_decay if "weight_decay" in known else chosen.weight_decay or None
    given = {"betas": betas, "momentum": chosen.momentum, "weight_decay": decay}
    for field, value in given.items():
        if value is None:
            continue
        if field not in known:
            raise RecipeError(
                f"train.optimizers.{player}.{field}: {chosen.type} has none; leave it out"
            )
        options[field] = value
    if not parameters:
        raise RecipeError(f"the {player} has no weights to train")
    try:
        with _no_compiler():
            made: torch.optim.Optimizer = kind(parameters, lr=learning_rate(chosen, 0), **options)
    except (ValueError, TypeError, AssertionError) as error:  # each has ranges of its own
        message = f"train.optimizers.{player}: {chosen.type} does not take this: {error}"
        raise RecipeError(message) from error
    return made


@contextmanager
def _no_compiler() -> Iterator[None]:
    """Make optimizers without PyTorch's compiler, which they import only to be left alone by it.

    That import takes longer than all else before the first step of a small run.
    """
    kind: Any = torch.optim.Optimizer
    wrapped = kind.add_param_group
    kind.add_param_group = inspect.unwrap(wrapped)
    try:
        yield
    finally:
        kind.add_param_group = wrapped


def learning_rate(chosen: Optimizer, number: int) -> float:
    """Return the rate after `number` steps: on its schedule, and risen from 0 by then."""
    risen = min((number + 1) / chosen.warmup, 1.0) if chosen.warmup else 1.0
    return risen * at(chosen.lr, number)


def averaging(decay: float, *, rising: bool) -> Any:
    """Return how `AveragedModel` averages weights: exponentially.

    A decay that is `rising` soon forgets the first weights, as TensorFlow's `num_updates` does.
    """
    if not rising:
        return get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def average(averaged: Any, current: Any, number: Any) -> None:
        now = min(decay, (1 + int(number)) / (10 + int(number)))
        get_ema_multi_avg_fn(now)(averaged, current, number)  # type: ignore[no-untyped-call]

    return average


def laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor of the parameter's shape in its memory layout.

    Fused optimizers walk through memory: in another layout they would pair the gradient or average
    of one place with the weight of another. Only `backward` sees to it by itself.
    """
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
