"""BatchNorm over the images of all processes, with all derivatives, which penalties need.

`torch.nn.SyncBatchNorm` has no second derivative, and needs GPUs.

Letters: n rows of a process, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from vgx.distributed.group import averaged, sum_over_processes
from vgx.distributed.rows import shares
from vgx.distributed.state import group


def over_all_processes(network: nn.Module) -> None:
    """Let the BatchNorm layers of a network normalise by the images of all processes."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def average_statistics(networks: Iterable[nn.Module]) -> None:
    """Make the statistics of BatchNorm layers the means of those that each process has."""
    own = {
        (number, name): buffer
        for number, module in enumerate(m for network in networks for m in network.modules())
        if isinstance(module, _BatchNorm)
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point()
    }
    for key, mean in averaged(own).items():
        own[key].copy_(mean)


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
        return nn.functional.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
    own: tuple[Tensor, Tensor] = _Moments.apply(x)
    mean, var = of_all(*own)  # [C] each
    if running_mean is not None and running_var is not None:
        count = group().size * x.numel() // x.shape[1]
        unbiased = var.detach() * (count / max(count - 1, 1))
        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    # PyTorch's own function takes statistics as numbers without a derivative. So `factor` and
    # `shift` are what weight and bias would be for these numbers: their values are 1 and 0 times
    # the weight, and their derivatives are those by the statistics.
    slope = (var + eps).rsqrt()  # [C]
    factor = slope / slope.detach()
    shift = (mean.detach() - mean) * slope
    if weight is not None:
        factor, shift = factor * weight, shift * weight
    if bias is not None:
        shift = shift + bias
    return nn.functional.batch_norm(
        x, mean.detach(), var.detach(), factor, shift, False, momentum, eps
    )


def of_all(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """[C] each  Return mean and variance of the rows of all processes, of the own ones.

    It is differentiable. In float64 a difference of squares keeps the digits of float32, so that
    the size of the sum does not grow with the number of processes.
    """
    wide = mean.double()
    sums = sum_over_processes(torch.stack([wide, var.double() + wide.square()])) / group().size
    whole = (sums[1] - sums[0].square()).clamp(min=0)
    return sums[0].to(mean.dtype), whole.to(var.dtype)


class _Moments(torch.autograd.Function):
    """The means and variances [C] of this process's rows [n, C, ...], in float32 at least.

    `torch.var_mean` takes several times as long on a CPU, and so does its derivative.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, var = torch.batch_norm_update_stats(wide, None, None, 0.0)
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_var: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        each = x.shape[1] / x.numel()  # the share of one value in a mean
        factor = 2 * each * of_var  # [C]
        shift = each * of_mean - factor * mean  # [C]
        shape = (1, -1, *[1] * (x.dim() - 2))
        return torch.addcmul(shift.view(shape), x.to(mean.dtype), factor.view(shape)).to(x.dtype)
