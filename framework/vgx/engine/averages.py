"""Averaged weights of the encoder and the decoder, and BatchNorm statistics that fit them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from vgx.engine.build import evaluating
from vgx.recipe.model import Train

# Images from which statistics are taken; more of them gave no better reconstructions.
STATISTICS_IMAGES = 512


def averaged(networks: nn.ModuleDict) -> AveragedModel:
    """Return averages of the networks' weights, which `update` moves."""
    model = AveragedModel(networks)
    model.n_averaged = model.n_averaged.cpu()  # it is read in every step
    return model


@torch.no_grad()
def update(average: AveragedModel, networks: nn.ModuleDict, train: Train) -> None:
    """Move averaged weights towards those of now, as a recipe says, and copy the buffers.

    The first update copies the weights. With `ema_warmup` the decay rises to its value, so that the
    first weights are soon forgotten, as with `num_updates` in TensorFlow. PyTorch's own
    `update_parameters` copies the number of updates to the device, and waits for that.
    """
    number, decay = int(average.n_averaged), train.ema or 0.0
    if train.ema_warmup:
        decay = min(decay, (1 + number) / (10 + number))
    own, now = (tuple(each.parameters()) for each in (average.module, networks))
    if number:
        torch._foreach_lerp_(own, now, 1 - decay)
    else:
        torch._foreach_copy_(own, now)
    for copied, buffer in zip(average.module.buffers(), networks.buffers(), strict=True):
        copied.copy_(buffer)
    average.n_averaged += 1


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
