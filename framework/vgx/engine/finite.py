"""Numbers that are not finite: seen before any weight moves, and on a GPU without waiting."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vgx.engine.losses import PlayerName
from vgx.errors import DivergedError

UNREAD = 100  # steps that are looked at together at most


class Guard:
    """Looks at every term and gradient of a step; when deferred, what it saw is read later."""

    def __init__(self, device: torch.device, *, deferred: bool) -> None:
        """Guard steps on a device; `deferred`: so that none of them waits for it."""
        self.deferred = deferred
        self.halted = torch.zeros((), dtype=torch.bool, device=device)  # not finite any more
        self.unread: list[tuple[int, list[str], Tensor]] = []  # steps, their terms and values
        # Of each trained weight's gradient when last its player moved, for whoever wants to look.
        self.norms: dict[PlayerName, list[Tensor | None]] = {}

    @property
    def halt(self) -> Tensor | None:
        """What fused optimizers look at before they change anything, when steps are deferred."""
        return self.halted if self.deferred else None

    def look(
        self,
        number: int,
        values: dict[str, Tensor],
        gradients: dict[PlayerName, list[tuple[str, Tensor | None]]],
    ) -> None:
        """Look at terms by name, and at each player's gradients by their weights' names.

        Raises `DivergedError` that names the first one that is not finite. All is read as one
        number, for reading one waits for the device: a sum is finite only when all of it is.
        """
        seen = [*values.values()]
        for player, named in gradients.items():
            given = [gradient for _, gradient in named if gradient is not None]
            norms = iter(torch._foreach_norm(given) if given else ())  # noqa: SLF001
            self.norms[player] = [None if g is None else next(norms) for _, g in named]
            seen += [norm for norm in self.norms[player] if norm is not None]
        total = torch.stack(seen).sum()
        if self.deferred:
            told = {**values, "the norm of the gradients": total}
            self.unread.append((number, list(told), torch.stack([*told.values()])))
            self.halted |= ~total.isfinite()
            if len(self.unread) == UNREAD:
                self.confirm()
        elif not total.isfinite():
            _name(number, values, gradients)

    def confirm(self) -> None:
        """Read what deferred steps left unread: one wait for the device, not one a step.

        Raises `DivergedError` for the first one that was not finite. No trained weight has moved
        since: the optimizers saw to that on the device. A training calls this before it logs, draws
        or saves.
        """
        unread, self.unread = self.unread, []
        if not unread or not bool(self.halted):
            return
        self.halted.zero_()
        for number, names, seen in unread:
            for name, value in zip(names, seen.tolist(), strict=True):
                if not math.isfinite(value):
                    raise DivergedError(f"step {number + 1}: {name} is {value}", number)


def _name(
    number: int,
    values: dict[str, Tensor],
    gradients: dict[PlayerName, list[tuple[str, Tensor | None]]],
) -> None:
    """Raise `DivergedError` for the first term, gradient or norm that is not finite."""
    largest = {
        f"the gradient of {name}": gradient.abs().max()
        for named in gradients.values()
        for name, gradient in named
        if gradient is not None
    }
    totals = {
        f"the norm of the {player}'s gradient": nn.utils.get_total_norm(
            [gradient for _, gradient in named if gradient is not None]
        )
        for player, named in gradients.items()
    }
    # The norm comes last: it overflows before the gradients do.
    for name, value in (values | largest | totals).items():
        if not value.isfinite():
            raise DivergedError(f"step {number + 1}: {name} is {value.item()}", number)
