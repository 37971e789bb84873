"""The losses of a recipe: each player's terms, their weights, and what they sum to."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from vgx import rng
from vgx.distributed.group import sum_over_processes
from vgx.distributed.minibatch import whole
from vgx.distributed.rows import mean_over_processes, replicated, shares
from vgx.distributed.state import group
from vgx.engine.surroundings import untouched
from vgx.parts.base import BrokenError
from vgx.parts.contract import fault_of_term, tensors_in
from vgx.parts.kinds import Loss, LossTerm
from vgx.parts.values import Adaptive, Share, at
from vgx.recipe.model import Recipe
from vgx.step import Step

PlayerName = Literal["generator", "discriminator"]
MOST_RATIO = 1e4  # of two gradient norms, for weights that are shares
Reaches = tuple[str, ...] | None  # names of networks; None is all networks of the player


@dataclass(frozen=True, eq=False)
class Term:
    """One player's term of a loss: its name, when it counts and how much."""

    label: str  # in the log
    player: PlayerName
    part: Loss  # of the recipe
    module: LossTerm  # what the part built
    weighted: bool  # False for the discriminator's term of a two-player loss, which counts 1

    def weight(self, number: int) -> float:
        """Return the weight at a step; 0 when the term does not count then.

        An adaptive weight, or a share, is this number times a ratio of gradient norms.
        """
        part = self.part
        weight = part.weight if self.weighted else 1.0
        if not self.active(number) or (number - part.start) % part.every:
            return 0.0
        if isinstance(weight, Adaptive | Share):
            factor = weight.factor if isinstance(weight, Adaptive) else weight.share
            return part.every * factor if number >= weight.after else 0.0
        return part.every * at(weight, number)

    def active(self, number: int) -> bool:
        """Return whether a step lies between the part's `start` and `stop`."""
        return self.part.start <= number and (self.part.stop is None or number < self.part.stop)

    def pauses(self, number: int) -> bool:
        """Return whether a step lies between two of those that `every` lets the term count at."""
        return self.active(number) and (number - self.part.start) % self.part.every > 0

    def needs_scores(self, number: int) -> bool:
        """Return whether a step must have the scores of discriminators for it: when it counts.

        That is if it trains one too, or is computed of the whole minibatch. Any other term gets
        them when it reads them.
        """
        own = has_term(self.module, "discriminator") or self.part.across_batch
        return own and self.weight(number) != 0

    @property
    def adaptive(self) -> Adaptive | None:
        """The adaptive weight, when the term has one."""
        weight = self.part.weight
        return weight if self.weighted and isinstance(weight, Adaptive) else None

    @property
    def share(self) -> Share | None:
        """The share of the gradient, when the weight is one."""
        weight = self.part.weight
        return weight if self.weighted and isinstance(weight, Share) else None

    @property
    def reaches(self) -> Reaches:
        """The networks that the term trains."""
        return self.part.reaches if self.player == "generator" else None

    def value(self, step: Step) -> Tensor | None:
        """Compute the unweighted term: a scalar, or None.

        Raises `BrokenError` when the loss gives anything else, or changes what is not its own.
        """
        step = step.about(self.part.about)
        seen = step
        where: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.part.across_batch:  # each process computes it of the whole minibatch
            seen, where = whole(step), replicated()
        with untouched(self.part, tensors_in(step)), where:
            value: Tensor | None = getattr(self.module, self.player)(seen)
        if value is not None and (fault := fault_of_term(value, step)):
            raise BrokenError(self.part, f"its {self.player}'s term is {fault}")
        return value


def owner_of(parameter: str) -> str:
    """Return the network that a parameter is of, by its name; "loss L.critic" for a critic."""
    network, _, inner = parameter.partition(".")
    critic = network.startswith("loss ") and inner.startswith("critic.")
    return f"{network}.critic" if critic else network


def player_of(owner: str) -> PlayerName:
    """Return who trains a network: the discriminator its own and critics, the generator the rest.

    `owner` is what `owner_of` returns.
    """
    judge = owner.startswith("discriminator") or owner.endswith(".critic")
    return "discriminator" if judge else "generator"


def has_term(loss: object, player: PlayerName) -> bool:
    """Return whether a loss has a term for this player: its class defines the method."""
    return getattr(type(loss), player, None) not in (None, getattr(Loss, player))


def build_losses(recipe: Recipe) -> list[tuple[Loss, LossTerm]]:
    """Build each loss of the recipe, its weights drawn from the seed."""
    built = []
    for part in recipe.losses:
        ambient = rng.ambient(recipe.train.seed, f"weights of the loss {part.label}")
        with ambient, untouched(part):
            module = part.build(recipe.image, recipe.latent)
        has = isinstance(module, nn.Module) and "critic" in dict(module.named_children())
        if part.critic != has:
            there = "has a" if has else "has no"
            message = f"the module of its build {there} network `critic`, which the discriminator's"
            instead = f"say so in the part: critic: ClassVar[bool] = {has}"
            raise BrokenError(part, f"{message} optimizer trains; {instead}")
        built.append((part, module))
    return built


def terms_of(losses: list[tuple[Loss, LossTerm]], player: PlayerName) -> list[Term]:
    """Return the terms that a player minimises."""
    terms = []
    for part, module in losses:
        both = has_term(module, "generator") and has_term(module, "discriminator")
        if has_term(module, player):
            label = f"{part.label}.{player}" if both else part.label
            weighted = player == "generator" or not both
            terms.append(Term(label, player, part, module, weighted))
    return terms


@dataclass(frozen=True)
class Losses:
    """A player's losses of one forward pass."""

    terms: dict[str, Tensor]  # unweighted, by label
    ratios: dict[str, Tensor] = field(default_factory=dict)  # of gradient norms, by label
    sums: dict[Reaches, Tensor] = field(default_factory=dict)  # weighted, by what they reach


def weighted_losses(
    terms: list[Term], step: Step, last_layer: Callable[[], Tensor | None]
) -> Losses:
    """Compute the terms that count at this step, and their weighted sums.

    `last_layer` returns the decoder's last layer, where adaptive weights compare gradients.
    """
    with record_function("vgx: losses"):
        weights = [(term, term.weight(step.number)) for term in terms]
        values = [(term, term.value(step), weight) for term, weight in weights if weight]
        counted = [(term, value, weight) for term, value, weight in values if value is not None]
        terms_values = {term.label: value for term, value, _ in counted}
        losses = Losses(terms_values, _ratios(counted, step, last_layer))
        for term, value, weight in counted:
            weighted = weight * value * losses.ratios.get(term.label, 1.0)
            previous = losses.sums.get(term.reaches)
            losses.sums[term.reaches] = weighted if previous is None else previous + weighted
    return losses


def _ratios(
    counted: list[tuple[Term, Tensor, float]], step: Step, last_layer: Callable[[], Tensor | None]
) -> dict[str, Tensor]:
    """Return what multiplies each weight that is adaptive or a share, by label.

    It lacks a term whose gradients cannot be compared at this step: its weight is the factor, or
    the share, alone.
    """
    ratios: dict[str, Tensor | None] = {}
    for term, value, _ in counted:
        if term.adaptive is not None:
            names = term.adaptive.against
            others = [w * v for other, v, w in counted if other.part.label in names]
            ratios[term.label] = gradient_ratio(others, value, last_layer(), term.adaptive.most)
    shared = {term.label: (value, term.share.share) for term, value, _ in counted if term.share}
    ratios |= share_ratios(shared, step) if shared else {}
    return {label: ratio for label, ratio in ratios.items() if ratio is not None}


def share_ratios(shared: dict[str, tuple[Tensor, float]], step: Step) -> dict[str, Tensor | None]:
    """Return what multiplies each share, by label, from values and shares in the recipe's order.

    With it the gradients of all terms at the decoder's output are as their shares, and the first
    one's is its own. None for a term without a gradient there, and for all when the first has none.
    """
    output = step.recon_logits
    gradients = {label: _gradient([value], output) for label, (value, _) in shared.items()}
    norms = {label: _norm_of_rows(gradient) for label, gradient in gradients.items()}
    first, *_ = shared
    (_, share), length = shared[first], norms[first]
    if length is None:
        return dict.fromkeys(shared)
    ratios: dict[str, Tensor | None] = {
        label: None if norm is None else (length / (norm + 1e-12)).clamp(max=MOST_RATIO) / share
        for label, norm in norms.items()
    }
    ratios[first] = torch.ones_like(length) / share
    return ratios


def gradient_ratio(
    others: list[Tensor], value: Tensor, layer: Tensor | None, most: float
) -> Tensor | None:
    """Return the ratio of two gradient norms at the decoder's last layer, at most `most`: a scalar.

    |d sum(others) / d w| / (|d value / d w| + 1e-4) (Esser et al. 2021, eq. 7). None when one of
    the two has no gradient there.
    """
    a, b = (_norm(_gradient(terms, layer)) for terms in (others, [value]))
    if a is None or b is None:
        return None
    ratio: Tensor = a / (b + 1e-4)
    return ratio.clamp(max=most)


def _norm(gradient: Tensor | None) -> Tensor | None:
    """Return the norm of the gradient of a weight: a scalar, or None when there is no gradient."""
    return None if gradient is None else mean_over_processes(gradient).norm()


def _norm_of_rows(gradient: Tensor | None) -> Tensor | None:
    """Return the norm of the gradient [B, ...] of what is computed of each image, or None."""
    if gradient is None or not shares():
        return None if gradient is None else gradient.norm()
    # A process has the gradient of its own loss, a mean over fewer images than the whole.
    return sum_over_processes(gradient.square().sum()).sqrt() / group().size


def _gradient(terms: list[Tensor], layer: Tensor | None) -> Tensor | None:
    """Return the gradient of a sum of terms by a tensor, or None when there is none."""
    connected = [term for term in terms if term.requires_grad]
    if layer is None or not connected:
        return None
    total = sum(connected[1:], connected[0])
    found: tuple[Tensor | None, ...]
    found = torch.autograd.grad(total, [layer], retain_graph=True, allow_unused=True)
    return found[0]


def leaves(value: Tensor) -> Iterator[Tensor]:
    """Go through the leaves of a value's graph that need a gradient, the nearest ones first."""
    nodes: deque[Any] = deque([value.grad_fn])
    seen: set[Any] = {None}
    while nodes:
        node = nodes.popleft()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # only an AccumulateGrad node has one
        if variable is not None:
            yield variable
        nodes += [following for following, _ in node.next_functions]


def last_layer_of(output: Tensor) -> Tensor | None:
    """Return the trained weight of a network's last layer: the nearest one to its output.

    It has two dimensions or more. The order in which a network registers its layers says nothing
    about the order in which it uses them. None if nothing is trained.
    """
    return next((leaf for leaf in leaves(output) if leaf.dim() > 1), None)
