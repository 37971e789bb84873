"""A part on two simulated processes, which together must compute what one process does.

Letters: B images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from vgx.distributed.minibatch import shared
from vgx.distributed.rows import gather, mean_over_processes, own_rows
from vgx.distributed.state import group
from vgx.testing.case import Case
from vgx.testing.processes import in_processes

Cut = Callable[[Tensor], Tensor]  # [B, ...] or [F*B, ...] -> the rows of a process
CLOSE = 1e-3  # allowed difference, as a share of the largest number
# Of the gradient by weights the norm is compared: in float32 the last digit of a sum decides
# whether a ReLU at 0 has a slope.
WEIGHTS, NEAR = "the gradient of its weights", 1e-2
ADVICE = (
    "draw for each image in the first dimension, and where several images are looked at use "
    "vgx.gather and vgx.own_rows, vgx.mean_over_processes, or `with vgx.replicated():`"
)


def check_shared(
    case: Case, images: int, compute: Callable[[Cut], Mapping[str, Tensor]], advice: str = ADVICE
) -> None:
    """Check what a part computes of the rows of a process: alike in each, and as in one process.

    `compute` gives tensors by name that belong to the whole minibatch. Nothing is checked of a part
    that has another fault.
    """
    if case.faults or images % 2:
        return

    def work() -> Mapping[str, Tensor]:
        with shared(images // group().size):
            return compute(own_rows)

    one = compute(lambda tensor: tensor)
    try:
        several = in_processes(2, work)
    except Exception as error:  # noqa: BLE001 - whatever a part raises is its fault
        case.faults.append(f"on two processes it raises {type(error).__name__}: {error}; {advice}")
        return
    for name, value in one.items():
        same = all(found[name].shape == value.shape for found in several) and all(
            _close(found[name] - value, value, norm=name == WEIGHTS) for found in several
        )
        case.check(same, f"two processes give another value of {name} than one: {advice}")


def _close(difference: Tensor, value: Tensor, *, norm: bool) -> bool:
    if norm:
        return bool(difference.norm() <= NEAR * value.norm())
    largest = value.detach().abs().max() if value.numel() else 0
    return bool((difference.abs() <= CLOSE * largest).all())


def over_rows(outputs: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return rows that a network gave, its gradient by them, and its buffers, of all processes."""
    loss = torch.stack([(rows * torch.randn_like(rows)).mean() for rows in outputs.values()]).sum()
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    flat = torch.cat([each.flatten() for each in gradients if each is not None])
    found = {f"its {name}": gather(rows.detach()) for name, rows in outputs.items()}
    found[WEIGHTS] = mean_over_processes(flat)
    return found | {f"its {name}": each.clone() for name, each in network.named_buffers()}
