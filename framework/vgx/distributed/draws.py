"""Random numbers that are the same for any number of processes: drawn for all images, and cut.

Whoever draws for the images of a minibatch gives them the first dimension, whether the draw is from
a generator or from PyTorch's own. A draw without dimensions is one number for all images.

Letters: P processes, n rows of a process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vgx.distributed.rows import own_rows, shares
from vgx.distributed.state import group
from vgx.errors import RecipeError

F = nn.functional
Function = Callable[..., Any]


class WholeDraws(TorchFunctionMode):
    """Each draw in the block gives this process's rows of what a program on its own would draw."""

    def __torch_function__(
        self, func: Function, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch."""
        del types
        call = partial(HANDLERS[func], func) if func in HANDLERS and shares() else func
        return call(*args, **(kwargs or {}))


def _in_place(func: Function, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if tensor.dim() == 0:
        return func(tensor, *args, **kwargs)
    if any(isinstance(each, Tensor) and each.dim() for each in (*args, *kwargs.values())):
        _unknown(func)  # a parameter for each image
    return tensor.copy_(own_rows(func(_for_all(tensor), *args, **kwargs)))


def _like(func: Function, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    drawn: Tensor = func(tensor if tensor.dim() == 0 else _for_all(tensor), *args, **kwargs)
    return drawn if tensor.dim() == 0 else own_rows(drawn)


def _of_size(func: Function, *args: Any, **kwargs: Any) -> Any:
    """Draw for `torch.rand(2, 3)`, `torch.rand((2, 3))` and `torch.randint(9, (2, 3))`."""
    limits = tuple(each for each in args if func is torch.randint and isinstance(each, int))
    args = args[len(limits) :]
    size = kwargs.pop("size", args[0] if args and isinstance(args[0], Sequence) else args)
    if len(size) == 0:
        return func(*limits, size=(), **kwargs)
    return own_rows(func(*limits, size=(size[0] * group().size, *size[1:]), **kwargs))


def _dropout(
    func: Function, tensor: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if not training or p == 0:
        return tensor
    factors = own_rows(func(_for_all(tensor).fill_(1), p, True))
    return tensor.mul_(factors) if inplace else tensor * factors


def _unknown(func: Function, *_: Any, **__: Any) -> Any:
    raise RecipeError(
        f"{func.__name__} draws random numbers that several processes can't share; draw with "
        "uniform_, normal_ or randint for the images in the first dimension, or inside of "
        "`with vgx.replicated():`, where each process draws the same; inside of attention and of "
        "recurrent layers use no dropout"
    )


def _in_training(func: Function, *args: Any, **kwargs: Any) -> Any:
    given = inspect.signature(func).bind(*args, **kwargs).arguments
    draws = given.get("training", "dropout_p" in given) and given.get("dropout_p", 1)
    return _unknown(func) if draws else func(*args, **kwargs)


def _attention(func: Function, *args: Any, **kwargs: Any) -> Any:
    draws = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0)
    return _unknown(func) if draws else func(*args, **kwargs)


def _recurrent(func: Function, *args: Any) -> Any:
    rate = next(place for place, each in enumerate(args) if isinstance(each, float))
    return _unknown(func) if args[rate] and args[rate + 1] else func(*args)  # dropout, training


def _for_all(tensor: Tensor) -> Tensor:
    """[P*n, ...]  Return a new tensor like one [n, ...], in its memory layout."""
    size = (group().size * len(tensor), *tensor.shape[1:])
    # Dimensions in the order in which they lie in memory; that of a single image may lie anywhere.
    steps = [float("inf") if len(tensor) == 1 else tensor.stride(0), *tensor.stride()[1:]]
    order = sorted(range(tensor.dim()), key=lambda each: -steps[each])
    return torch.empty_permuted(size, order, dtype=tensor.dtype, device=tensor.device)


_DRAWING: dict[Function, tuple[Any, ...]] = {
    _in_place: (
        Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_,
        Tensor.log_normal_, Tensor.normal_, Tensor.random_, Tensor.uniform_,
    ),
    _like: (torch.rand_like, torch.randint_like, torch.randn_like),
    _of_size: (torch.rand, torch.randint, torch.randn),
    _dropout: (
        F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, torch.feature_dropout,
    ),
    _unknown: (
        torch.bernoulli, torch.binomial, torch.multinomial, torch.normal, torch.poisson,
        torch._sample_dirichlet, torch._standard_gamma, torch.randperm,  # noqa: SLF001
        torch.alpha_dropout, torch.alpha_dropout_, torch.dropout_, torch.feature_alpha_dropout,
        torch.feature_alpha_dropout_, torch.feature_dropout_, torch.native_dropout, torch.rrelu,
        torch.rrelu_, Tensor.bernoulli, Tensor.multinomial, F.fractional_max_pool2d,
        F.fractional_max_pool2d_with_indices, F.fractional_max_pool3d,
        F.fractional_max_pool3d_with_indices, F.gumbel_softmax,
    ),
    _in_training: (
        F.alpha_dropout, F.feature_alpha_dropout, F.rrelu, F.multi_head_attention_forward,
    ),
    _attention: (F.scaled_dot_product_attention,),
    _recurrent: (torch.gru, torch.lstm, torch.rnn_relu, torch.rnn_tanh),
}  # fmt: skip
HANDLERS: dict[Any, Function] = {func: how for how, funcs in _DRAWING.items() for func in funcs}
