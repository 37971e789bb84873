"""The two players of a training: what each one trains, minimises and steps with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from vgx.engine.losses import Losses, PlayerName, Reaches, Term
from vgx.engine.optimizers import laid_out, learning_rate, unwrapped
from vgx.recipe.model import Optimizer

Gradients = dict[str, Tensor]  # by the name of the parameter, where a term has one


@dataclass(frozen=True, eq=False)
class Player:
    """The generator (encoder, decoder, weights of losses) or the discriminator (and critics)."""

    name: PlayerName
    trained: dict[str, nn.Parameter]  # by name, such as "decoder.0.weight"
    terms: list[Term]
    optimizer: torch.optim.Optimizer
    settings: Optimizer
    clip: float | None  # largest norm of the gradient

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters."""
        return [*self.trained.values()]

    def gradients(self, losses: Losses, count: int, *, keep_graph: bool) -> Iterator[Gradients]:
        """Yield the gradients of each weighted sum, divided by the number of micro-batches."""
        for index, (reaches, total) in enumerate(losses.sums.items()):
            inputs = {name: p for name, p in self.trained.items() if is_trained_by(name, reaches)}
            if not (total.requires_grad and inputs):  # a dead term that the recipe allows
                yield {}
                continue
            keep = keep_graph or index < len(losses.sums) - 1
            with record_function(f"vgx: gradients {self.name}"):
                gradients = torch.autograd.grad(
                    total / count, [*inputs.values()], retain_graph=keep, allow_unused=True
                )
            named = zip(inputs, gradients, strict=True)
            yield {name: gradient for name, gradient in named if gradient is not None}

    def step_optimizer(
        self, number: int, gradients: Gradients, lr_scale: float, found_inf: Tensor | None
    ) -> None:
        """Set the learning rate, clip the gradients, and step the optimizer.

        A fused optimizer changes nothing while `found_inf` is true; the host does not wait for it.
        """
        with record_function("vgx: optimizers"):
            for group in self.optimizer.param_groups:
                group["lr"] = lr_scale * learning_rate(self.settings, number)
            for name, gradient in gradients.items():
                self.trained[name].grad = laid_out(gradient, self.trained[name])
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.clip)
            if found_inf is not None:
                self.optimizer.found_inf = found_inf.float()  # type: ignore[attr-defined]
            unwrapped(self.optimizer.step)()
            for parameter in self.parameters:
                parameter.grad = None


def is_trained_by(name: str, reaches: Reaches) -> bool:
    """Return whether a term that reaches some networks trains this parameter.

    The weights of losses are trained by every term that uses them.
    """
    if reaches is None:
        return True
    return name.startswith(("loss ", *(f"{network}." for network in reaches)))


def add_gradients(sums: Gradients, new: Gradients) -> Gradients:
    """Add gradients of another micro-batch, or of terms that reach other networks."""
    return sums | {name: sums[name] + g if name in sums else g for name, g in new.items()}
