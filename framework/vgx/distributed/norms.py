"""BatchNorm over the images of all processes, with all derivatives, which penalties need.

`torch.nn.SyncBatchNorm` has no second derivative, and needs GPUs.

Letters: P processes, n rows of a process, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from vgx.distributed.group import averaged, stacked
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
    if not (self.training and shares()):
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
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    over = [0, *range(2, x.dim())]
    own_var, own_mean = torch.var_mean(wide, over, correction=0)  # [C] each
    means, variances = stacked(torch.stack([own_mean, own_var])).unbind(1)  # [P, C] each
    mean = means.mean(0)  # [C]
    var = (variances + (means - mean).square()).mean(0)  # [C]
    if running_mean is not None and running_var is not None:
        count = group().size * x.numel() // x.shape[1]
        unbiased = var.detach() * (count / max(count - 1, 1))
        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    factor = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight  # [C]
    shift = -mean * factor if bias is None else bias - mean * factor  # [C]
    shape = (1, -1, *[1] * (x.dim() - 2))
    return (wide * factor.view(shape) + shift.view(shape)).to(x.dtype)
