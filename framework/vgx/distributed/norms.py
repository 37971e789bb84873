"""BatchNorm over the images of all processes, with all derivatives, which penalties need.

`torch.nn.SyncBatchNorm` has no second derivative, and needs GPUs.

Letters: n rows of a process, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from vgx.distributed.group import sum_over_processes
from vgx.distributed.rows import shares
from vgx.distributed.state import group


def over_all_processes(network: nn.Module) -> None:
    """Let the BatchNorm layers of a network normalise by the images of all processes."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(self: _BatchNorm, x: Tensor) -> Tensor:
    measures = self.training or self.running_mean is None
    if not (measures and shares()):
        return type(self).forward(self, x)
    with _AllStatistics():  # a class of timm has more in its `forward` than the normalisation
        return type(self).forward(self, x)


class _AllStatistics(TorchFunctionMode):
    """In the block `torch.nn.functional.batch_norm` uses the images of all processes."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch."""
        del types
        call = batch_norm if func is nn.functional.batch_norm else func
        return call(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do what `torch.nn.functional.batch_norm` does, with the rows [n, C, ...] of all processes."""
    if not training:
        return nn.functional.batch_norm(
            x, running_mean, running_var, weight, bias, False, momentum, eps
        )
    kind = torch.promote_types(x.dtype, torch.float32)
    weight = x.new_ones(x.shape[1], dtype=kind) if weight is None else weight
    bias = x.new_zeros(x.shape[1], dtype=kind) if bias is None else bias
    normalised, mean, var = _BatchNormOfAll.apply(x, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        count = group().size * x.numel() // x.shape[1]
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * (count / max(count - 1, 1))).to(running_var.dtype), momentum)
    return normalised  # type: ignore[no-any-return]


class _BatchNormOfAll(torch.autograd.Function):
    """BatchNorm in training: the kernels of one process, and a sum of [2, C] each way.

    A gradient that is itself differentiated is computed from its formula.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        zeros = torch.zeros_like(weight, dtype=torch.promote_types(x.dtype, torch.float32))
        # The buffers only tell the dtype of the result: with a momentum of 0 they stay.
        own = torch.ops.aten.batch_norm_update_stats(x, zeros, zeros.clone(), 0.0)
        mean, var = _of_all(*own)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        normalised = nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        return normalised, mean, var

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> Any:
        x, weight, mean, var = ctx.saved_tensors
        count = group().size * x.numel() // x.shape[1]
        over, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        if torch.is_grad_enabled():
            wide = x.to(mean.dtype)
            own_var, own_mean = torch.var_mean(wide, over, correction=0)
            mean, var = _of_all(own_mean, own_var)
            factor = (var + ctx.eps).rsqrt()  # [C]
            of_weight = (gradient * (wide - mean.view(shape)) * factor.view(shape)).sum(over)
            of_bias = gradient.sum(over, dtype=mean.dtype)
        else:
            factor = (var + ctx.eps).rsqrt()
            _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
            )
        means = sum_over_processes(torch.stack([of_weight, of_bias])) / count  # [2, C]
        # The gradient less what moves mean and variance is linear in x and in the gradient.
        slope = -weight * factor.square() * means[0]
        constant = -weight * factor * means[1] - slope * mean
        of_x = torch.addcmul(constant.view(shape), x, slope.view(shape))
        of_x = of_x.addcmul(gradient, (weight * factor).view(shape))
        return of_x.to(x.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _of_all(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """[C] each  Return mean and variance over all processes, of the own ones; differentiable.

    Squares are added up in float64: the size of the sum does not grow with the processes.
    """
    squares = torch.stack([mean, var]).double()
    squares = torch.stack([squares[0], squares[1] + squares[0].square()])
    means = sum_over_processes(squares) / group().size
    of_all = means[1] - means[0].square()
    return means[0].to(mean.dtype), of_all.clamp_min(0).to(mean.dtype)
