"""Values that are not finite: found before any weight changes, and on a GPU without waiting."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from vgx.engine.losses import PlayerName
from vgx.engine.players import Gradients
from vgx.errors import DivergedError

UNREAD = 100  # steps whose values are read together, at most


class Guard:
    """Checks every term and gradient of a step; when deferred, the values are read later."""

    def __init__(self, device: torch.device, *, deferred: bool) -> None:
        """Check steps on a device; with `deferred`, no step waits for the device."""
        self.deferred = deferred
        self.halted = torch.zeros((), dtype=torch.bool, device=device)  # not finite any more
        self.unread: list[tuple[int, list[str], Tensor]] = []  # steps, their terms and values
        # Norms of the last gradients of each player's trained parameters, for monitors.
        self.norms: dict[PlayerName, dict[str, Tensor]] = {}

    @property
    def found_inf(self) -> Tensor | None:
        """The flag that keeps fused optimizers from changing anything, when steps are deferred."""
        return self.halted if self.deferred else None

    def check(
        self, number: int, values: dict[str, Tensor], gradients: dict[PlayerName, Gradients]
    ) -> None:
        """Check terms by name, and each player's gradients by the names of their parameters.

        Raises `DivergedError` that names the first one that is not finite. Only their sum is read,
        because each read waits for the device: the sum is finite only if all values are.
        """
        with record_function("vgx: finite check"):
            summed = [*values.values()]
            for player, named in gradients.items():
                norms = torch._foreach_norm([*named.values()]) if named else []  # noqa: SLF001
                self.norms[player] = dict(zip(named, norms, strict=True))
                summed += norms
            if not summed:  # no term counts at this step
                return
            total = torch.stack(summed).sum()
        if self.deferred:
            unread = {**values, "the norm of the gradients": total}
            self.unread.append((number, list(unread), torch.stack([*unread.values()])))
            self.halted |= ~total.isfinite()
            if len(self.unread) == UNREAD:
                self.confirm()
        elif not total.isfinite():
            _raise_first(number, values, gradients)

    def confirm(self) -> None:
        """Read the values of deferred steps; this waits once for the device.

        Raises `DivergedError` for the first one that was not finite. No trained weight has changed
        since, because the optimizers read `found_inf` on the device. The training loop calls this
        before it logs, draws or saves.
        """
        unread, self.unread = self.unread, []
        if not unread or not bool(self.halted):
            return
        self.halted.zero_()
        for number, names, read in unread:
            for name, value in zip(names, read.tolist(), strict=True):
                if not math.isfinite(value):
                    raise DivergedError(f"step {number + 1}: {name} is {value}", number)


def _raise_first(
    number: int, values: dict[str, Tensor], gradients: dict[PlayerName, Gradients]
) -> None:
    """Raise `DivergedError` for the first term, gradient or norm that is not finite."""
    largest = {
        f"the gradient of {name}": gradient.abs().max()
        for named in gradients.values()
        for name, gradient in named.items()
    }
    totals = {
        f"the norm of the {player}'s gradient": nn.utils.get_total_norm(named.values())
        for player, named in gradients.items()
    }
    # The norm comes last, because it overflows before the gradients do.
    for name, value in (values | largest | totals).items():
        if not value.isfinite():
            raise DivergedError(f"step {number + 1}: {name} is {value.item()}", number)
