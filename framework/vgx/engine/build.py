"""What a recipe's parts are built to: its networks, and the terms of its losses.

Letters: B pictures, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.engine.memory import measured
from vgx.parts.kinds import Loss, LossTerm
from vgx.parts.values import Adaptive, at
from vgx.recipe.model import Recipe

Player = Literal["generator", "discriminator"]


@dataclass(frozen=True)
class Term:
    """One half of a loss: what it is called, when it counts and how much."""

    label: str
    loss: Loss
    asked: LossTerm
    weighted: bool  # the discriminator's half of a two-player loss counts 1

    def weight(self, number: int) -> float:
        """Return the factor at a step; 0 when the term does not count then.

        An adaptive weight is this factor times a ratio of gradients.
        """
        loss, weight = self.loss, self.loss.weight
        if number < loss.start or (number - loss.start) % loss.every:
            return 0.0
        if not self.weighted:
            return float(loss.every)
        if isinstance(weight, Adaptive):
            return loss.every * weight.factor if number >= weight.after else 0.0
        return loss.every * at(weight, number)


def build_network(recipe: Recipe, name: str) -> nn.Module | None:
    """Build the recipe's encoder, decoder or discriminator, its weights drawn from the seed.

    Each network has a key of its own, so that swapping one leaves the others as they were.
    """
    with rng.ambient(recipe.train.seed, f"weights of the {name}"), measured(name):
        if name == "encoder":
            part = recipe.encoder
            return None if part is None else part.build(recipe.image, recipe.latent)
        if name == "decoder":
            return recipe.decoder.build(recipe.latent, recipe.image)
        judge = recipe.discriminator
        return None if judge is None else judge.build(recipe.image)


def untrained(recipe: Recipe) -> Recipe:
    """Return the recipe without outside weights: a checkpoint is about to give them."""
    parts = {name: getattr(recipe, name) for name in ("encoder", "decoder", "discriminator")}
    changed: dict[str, Any] = {name: part and part.untrained() for name, part in parts.items()}
    changed["losses"] = tuple(loss.untrained() for loss in recipe.losses)
    return recipe.model_copy(update=changed)


def sigmoid(logits: Tensor) -> Tensor:
    """[B, C, H, W]  Pictures in [0, 1], in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()


def plays(asked: object, player: Player) -> bool:
    """Tell whether a loss has a half for this player: its class defines one."""
    method = getattr(type(asked), player, None)
    return method is not None and method is not getattr(Loss, player)


def build_terms(
    recipe: Recipe, players: tuple[Player, ...]
) -> tuple[list[tuple[Loss, LossTerm]], dict[Player, list[Term]]]:
    """Build the losses, and give each player the halves that are its own."""
    built: list[tuple[Loss, LossTerm]] = []
    terms: dict[Player, list[Term]] = {player: [] for player in players}
    for loss in recipe.losses:
        with rng.ambient(recipe.train.seed, f"weights of the loss {loss.label}"):
            asked = loss.build()
        built.append((loss, asked))
        both = plays(asked, "generator") and plays(asked, "discriminator")
        for player, halves in terms.items():
            if plays(asked, player):
                label = f"{loss.label}.{player}" if both else loss.label
                weighted = player == "generator" or not both
                halves.append(Term(label, loss, asked, weighted))
    return built, terms
