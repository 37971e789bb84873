"""Averaged weights of the encoder and the decoder, and BatchNorm statistics that fit them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vgx.engine.build import evaluating

# Images from which statistics are taken; more of them gave no better reconstructions.
STATISTICS_IMAGES = 512


def averaged(networks: nn.ModuleDict, decay: float, *, warmup: bool) -> AveragedModel:
    """Return exponential averages of the networks' weights.

    Each update copies the buffers of the networks. For BatchNorm's statistics see `new_statistics`.
    """
    model = AveragedModel(networks, multi_avg_fn=_averaging(decay, warmup=warmup))
    model.n_averaged = model.n_averaged.cpu()  # it is read in every step
    return model


def _averaging(decay: float, *, warmup: bool) -> Any:
    """Return the function that `AveragedModel` calls.

    With `warmup` the decay rises to its value, so that the first weights are soon forgotten, as
    with `num_updates` in TensorFlow.
    """
    if not warmup:
        return get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def average(averages: Any, current: Any, number: Any) -> None:
        now = min(decay, (1 + int(number)) / (10 + int(number)))
        get_ema_multi_avg_fn(now)(averages, current, number)  # type: ignore[no-untyped-call]

    return average


@contextmanager
def new_statistics(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Take the statistics of BatchNorm layers anew from the forward passes in the block.

    They become plain means over the passes, as with PyTorch's `update_bn`. Everything else is in
    evaluation mode: dropout draws nothing, and no other buffer changes.
    """
    networks = list(networks)
    layers = [module for network in networks for module in statistics_layers(network)]
    momentum = [layer.momentum for layer in layers]
    with evaluating(networks):
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean
            layer.training = True
        try:
            yield
        finally:
            for layer, old in zip(layers, momentum, strict=True):
                layer.momentum = old


def statistics_layers(network: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers of a network that keep statistics for evaluation."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
