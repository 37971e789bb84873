"""Optimizers by name, learning rates, and layouts in memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vgx.errors import RecipeError
from vgx.parts.base import near
from vgx.parts.values import at
from vgx.recipe.model import Optimizer

T = TypeVar("T")

SECOND_ORDER = ("adahessian",)
ADAM_BETAS = (0.9, 0.999)  # the default of Adam


def make_optimizer(
    settings: Optimizer, parameters: list[nn.Parameter], player: str
) -> torch.optim.Optimizer:
    """Build the optimizer that a recipe names.

    Raises `RecipeError` for a name or a field that it does not have, and for a value it refuses.
    """
    place = f"train.optimizers.{player}"
    if settings.type == "adam":
        kind: Any = torch.optim.Adam
        options: dict[str, Any] = {"fused": True}
    else:
        kind, options = _timm_class(settings.type, f"{place}.type"), {}
        if parameters and parameters[0].device.type == "cpu":
            kind = muon_for_cpu(kind, parameters[0].dtype)
    known = inspect.signature(kind).parameters
    if {"nesterov", "momentum"} <= {*known} and not settings.momentum:
        # Without momentum Nesterov's changes nothing, and PyTorch refuses it.
        options["nesterov"] = known["nesterov"].default and known["momentum"].default > 0
    # Other defaults, as those of Lion and Adan, are for averages of another meaning.
    as_adam = "betas" in known and known["betas"].default == ADAM_BETAS
    betas = settings.betas or ((0.5, 0.999) if as_adam else None)
    # By default there is no decay: a default of the library, such as 0.01 of adamw, is not used.
    decay = settings.weight_decay if "weight_decay" in known else settings.weight_decay or None
    fields = {"betas": betas, "momentum": settings.momentum, "weight_decay": decay}
    given = {field: value for field, value in fields.items() if value is not None}
    if unknown := given.keys() - known.keys():
        raise RecipeError(f"{place}.{min(unknown)}: {settings.type} has none; leave it out")
    options |= given
    if not parameters:
        raise RecipeError(f"the {player} has no weights to train")
    try:
        with _no_compiler():
            rate = learning_rate(settings, 0)
            optimizer: torch.optim.Optimizer = kind(parameters, lr=rate, **options)
    except (ValueError, TypeError, AssertionError) as error:  # each optimizer has its own ranges
        raise RecipeError(f"{place}: {settings.type} does not take this: {error}") from error
    return optimizer


def _timm_class(name: str, place: str) -> Any:
    """Return an optimizer class of timm. Raises `RecipeError` that begins with `place`."""
    from timm.optim import get_optimizer_class, list_optimizers

    if name not in list_optimizers():
        close = near(name, list_optimizers())
        hint = f"; did you mean '{close}'?" if close else ""
        raise RecipeError(f"{place}: timm has no '{name}'{hint}")
    if name in SECOND_ORDER:
        message = f"{name} needs second derivatives, which the engine does not compute"
        raise RecipeError(f"{place}: {message}; choose another one")
    try:
        # With the settings by which timm makes, for example, `cadamw` of `adamw`.
        return get_optimizer_class(name, bind_defaults=True)
    except (AssertionError, ImportError) as error:  # it needs CUDA, or another library
        raise RecipeError(f"{place}: {name}: {error}") from error


def muon_for_cpu(kind: Any, dtype: torch.dtype) -> Any:
    """Return timm's Muon with fewer products of matrices, in `dtype`; other classes as they are.

    Without instructions for it, a CPU takes many times as long in bfloat16, as timm's own are.
    """
    from timm.optim import muon

    base, options = (kind.func, kind.keywords) if isinstance(kind, partial) else (kind, {})
    if base is not muon.Muon:
        return kind
    name = "zeropower_via_newtonschulz"
    faster = partial(orthogonal, partial(getattr(muon, name), dtype=dtype))

    class Muon(muon.Muon):  # type: ignore[misc]  # timm has no types
        def step(self, closure: Any = None) -> Any:
            with _replaced(muon, name, faster):
                return muon.Muon.step(self, closure)

    return partial(Muon, **options)


def orthogonal(
    plain: Callable[..., Tensor], matrix: Tensor, steps: int, coefficients: Any, **options: Any
) -> Tensor:
    """Return what timm's `zeropower_via_newtonschulz`, here `plain`, does to a matrix [..., M, N].

    An iteration is x -> P x with P = a I + b G + c G G and G = x x^T, after which G is P G P. So
    only the first and the last product have the longer side.
    """
    shorter, longer = sorted(matrix.shape[-2:])
    if longer < 2 * shorter:  # no gain
        return plain(matrix, steps, coefficients, **options)
    x = plain(matrix, 0, coefficients, **options)  # [..., M, N]  divided by its norm
    x = x.mT if x.shape[-1] == shorter else x  # [..., S, L]
    gram, product = x @ x.mT, torch.eye(shorter, dtype=x.dtype, device=x.device)  # [..., S, S]
    for step in range(steps):
        a, b, c = coefficients[min(step, len(coefficients) - 1)]
        change = b * gram + c * gram @ gram
        change.diagonal(dim1=-2, dim2=-1).add_(a)
        gram, product = change @ gram @ change, change @ product
    x = product @ x
    return x if x.shape == matrix.shape else x.mT


@contextmanager
def _replaced(owner: Any, name: str, new: object) -> Iterator[None]:
    """Let an attribute have another value in the block."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


def _no_compiler() -> AbstractContextManager[None]:
    """Build optimizers without importing PyTorch's compiler, which they import only to disable it.

    The import takes longer than everything else before the first step of a small run.
    """
    plain = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    return _replaced(torch.optim.Optimizer, "add_param_group", plain)


def unwrapped(method: Callable[..., T]) -> Callable[..., T]:
    """Return a method of an optimizer without PyTorch's wrappers, to be called without gradients.

    They import the compiler, only to disable it, as in `_no_compiler`.
    """
    bound: Any = method
    plain: Any = partial(inspect.unwrap(bound.__func__), bound.__self__)
    without_gradients: Callable[..., T] = torch.no_grad()(plain)
    return without_gradients


def learning_rate(settings: Optimizer, number: int) -> float:
    """Return the learning rate after `number` steps: its schedule times a linear warmup."""
    warmup = min((number + 1) / settings.warmup, 1.0) if settings.warmup else 1.0
    return warmup * at(settings.lr, number)


def laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor of the parameter's shape in its memory layout.

    Fused optimizers go through memory in order, so a gradient or an average in another layout
    would be paired with the wrong weights. Only `backward` ensures the layout by itself.
    """
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
