"""The engine: networks, optimizers, averaged weights, and the step.

Letters: B pictures, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vgx import keys
from vgx.checkpoint import State
from vgx.components import Loss, LossTerm, near
from vgx.errors import RecipeError, StorageError
from vgx.recipe import Optimizer, Recipe
from vgx.step import Score, Step

Player = Literal["generator", "discriminator"]

# Latents that a run keeps for its samplers: those of the last epoch, or of its last part.
MAX_CODES = 10_000


@dataclass(frozen=True)
class Term:
    """One half of a loss: what it is called, when it counts and how much."""

    label: str
    loss: Loss
    asked: LossTerm
    weighted: bool  # the discriminator's half of a two-player loss counts 1

    def weight(self, number: int) -> float:
        """Return the factor at a step; 0 before the loss starts."""
        if number < self.loss.start:
            return 0.0
        if not self.weighted:
            return 1.0
        weight = self.loss.weight
        return weight if isinstance(weight, float | int) else weight.at(number)


def build_network(recipe: Recipe, name: str) -> nn.Module | None:
    """Build the recipe's encoder, decoder or discriminator, its weights drawn from the seed.

    Each network has a key of its own, so that swapping one leaves the others as they were.
    """
    with keys.ambient(recipe.train.seed, f"weights of the {name}"):
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
    return recipe.model_copy(
        update={name: part and part.untrained() for name, part in parts.items()}
    )


def sigmoid(logits: Tensor) -> Tensor:
    """[B, C, H, W]  Pictures in [0, 1], in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()


class Engine:
    """A recipe's networks, and how they move."""

    def __init__(
        self,
        recipe: Recipe,
        steps: int,
        codes: int = MAX_CODES,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Build everything for a training of `steps`, which keeps the latest `codes` latents."""
        self.recipe, self.steps = recipe, steps
        self.device, self.dtype = torch.device(device), dtype
        self.networks: dict[str, nn.Module] = {}
        for name in ("encoder", "decoder", "discriminator"):
            network = build_network(recipe, name)
            if network is not None:
                self.networks[name] = network
        self.terms = self._build_terms()
        for network in self.networks.values():
            network.to(self.device, dtype, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.augment = [part.build(recipe.image) for part in recipe.augment]
        self.parameters = {player: self._parameters(player) for player in self.terms}
        self.optimizers = {
            player: make_optimizer(
                getattr(recipe.train.optimizers, player), self.parameters[player], player
            )
            for player in self.terms
        }
        self.average = self._build_average()
        self.codes = torch.zeros(min(codes, MAX_CODES), *recipe.latent.shape, device=self.device)
        self.coded = 0  # latents written to `codes` so far, round and round

    # --- the step --------------------------------------------------------------------------

    def step(self, number: int, minibatches: Sequence[Tensor]) -> dict[str, Tensor]:
        """Do one step: each player moves, the discriminator once for each minibatch.

        `minibatches` are real images [B, C, H, W]. Returns the unweighted loss terms by name, on
        the device: reading them waits for it.
        """
        values: dict[str, Tensor] = {}
        first = self.recipe.train.order == "generator-first"
        shared = 0 if first else len(minibatches) - 1  # the one that the generator learns from
        with keys.ambient(self.recipe.train.seed, "step", number):
            for index, real in enumerate(minibatches):
                if index != shared:
                    values |= self._move(["discriminator"], number, index, real)
                elif first:
                    # D's weights are the same in both its judgements: one pass serves both players.
                    values |= self._move(["generator", "discriminator"], number, index, real)
                else:
                    values |= self._move(["discriminator"], number, index, real)
                    values |= self._move(["generator"], number, index, real)
        if self.average is not None:
            self.average.update_parameters(self._averaged())
        return values

    def _move(
        self, players: list[Player], number: int, index: int, real: Tensor
    ) -> dict[str, Tensor]:
        """Run everything forward once, give each player its gradient, and only then step."""
        players = [player for player in players if player in self.terms]
        pieces = real.chunk(self.recipe.train.accumulate)
        sums: dict[Player, list[Tensor | None]] = {}
        values: dict[str, Tensor] = {}
        for piece, part in enumerate(pieces):
            step = self.play(number, part, (number, index, piece), learn="generator" in players)
            for player in players:
                total, terms = self.total(step, player)
                for label, value in terms.items():
                    values[label] = values.get(label, 0) + value.detach() / len(pieces)
                if total is None:
                    continue
                gradients = torch.autograd.grad(
                    total / len(pieces),
                    self.parameters[player],
                    retain_graph=player != players[-1],
                    allow_unused=True,
                )
                sums[player] = _add(sums.get(player), gradients)
            if "generator" in players:
                self._keep(step.z)
        for player, summed in sums.items():
            self._apply(player, summed)
        return values

    def play(
        self, number: int, real: Tensor, address: tuple[int, ...] = (), *, learn: bool = True
    ) -> Step:
        """Run every network forward once on real images [B, C, H, W].

        The draws are keyed by `address`. Without `learn` nothing leads back to the generator.
        """
        train, latent = self.recipe.train, self.recipe.latent.shape
        real = real.to(self.dtype)
        chance = self._chance("augmentation", *address)
        with torch.no_grad():
            for change in self.augment:
                real = change(real, chance)  # [B, C, H, W]
        posterior = recon = recon_logits = prior = real_score = fake_score = None
        z = torch.randn(
            (len(real), *latent),
            generator=self._chance("prior", *address),
            device=self.device,
            dtype=self.dtype,
        )  # [B, *Z]
        with self._autocast():
            with torch.set_grad_enabled(learn):
                if "prior" in train.fakes or "encoder" not in self.networks:
                    prior = sigmoid(self.networks["decoder"](z))  # [B, C, H, W]
                if "encoder" in self.networks:
                    posterior = self.networks["encoder"](real)
                    z = posterior.sample(self._chance("posterior", *address))  # [B, *Z]
                    recon_logits = self.networks["decoder"](z)  # [B, C, H, W]
                    recon_logits = recon_logits.to(
                        torch.promote_types(recon_logits.dtype, torch.float32)
                    )
                    recon = sigmoid(recon_logits)  # [B, C, H, W]
            if "discriminator" in self.networks:
                shown = {"recon": recon, "prior": prior}
                fakes = torch.cat(
                    [images for name in train.fakes if (images := shown[name]) is not None]
                )  # [F*B, C, H, W]
                real_score, fake_score = self.judge(real), self.judge(fakes)
        return Step(
            number=number,
            progress=number / self.steps,
            real=real,
            posterior=posterior,
            z=z,
            recon=recon,
            recon_logits=recon_logits,
            prior=prior,
            real_score=real_score,
            fake_score=fake_score,
            discriminator=self.judge if "discriminator" in self.networks else None,
        )

    def judge(self, images: Tensor) -> Score:
        """Return the discriminator's score of images [B, C, H, W], logits in float32 at least."""
        score: Score = self.networks["discriminator"](images)
        wide = torch.promote_types(score.logits.dtype, torch.float32)
        return Score(score.logits.to(wide), score.features)

    def total(self, step: Step, player: Player) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return a player's weighted sum of terms, and the terms by name."""
        total, values = None, {}
        for term in self.terms[player]:
            weight = term.weight(step.number)
            value = getattr(term.asked, player)(step) if weight else None
            if value is not None:
                values[term.label] = value
                total = weight * value if total is None else total + weight * value
        return total, values

    def _apply(self, player: Player, gradients: list[Tensor | None]) -> None:
        parameters = self.parameters[player]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else _laid_out(gradient, parameter)
        if self.recipe.train.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.recipe.train.clip)
        self.optimizers[player].step()
        for parameter in parameters:
            parameter.grad = None

    def _keep(self, z: Tensor) -> None:
        """Write latents [B, *Z] over the oldest stored ones."""
        z = z.detach()[-len(self.codes) :].to(self.codes.dtype)
        places = (self.coded + torch.arange(len(z), device=self.device)) % len(self.codes)
        self.codes[places] = z
        self.coded += len(z)

    def _chance(self, stream: str, *address: int) -> torch.Generator:
        return keys.generator(self.recipe.train.seed, stream, *address, device=self.device)

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.train.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    # --- what it is made of ----------------------------------------------------------------

    def _build_terms(self) -> dict[Player, list[Term]]:
        """Build the losses; each player gets the halves that are its own."""
        terms: dict[Player, list[Term]] = {"generator": []}
        if "discriminator" in self.networks:
            terms["discriminator"] = []
        for loss in self.recipe.losses:
            with keys.ambient(self.recipe.train.seed, f"weights of the loss {loss.label}"):
                asked = loss.build()
            if isinstance(asked, nn.Module):
                self.networks[f"loss {loss.label}"] = asked
            both = plays(asked, "generator") and plays(asked, "discriminator")
            for player, halves in terms.items():
                if plays(asked, player):
                    label = f"{loss.label}.{player}" if both else loss.label
                    weighted = player == "generator" or not both
                    halves.append(Term(label, loss, asked, weighted))
        return terms

    def _parameters(self, player: Player) -> list[nn.Parameter]:
        return [p for _, p in self._named(player) if p.requires_grad]

    def _named(self, player: Player) -> list[tuple[str, nn.Parameter]]:
        """Return a player's parameters by name; a loss's own weights go with the generator."""
        return [
            (f"{name}.{inner}", parameter)
            for name, network in self.networks.items()
            if (name == "discriminator") == (player == "discriminator")
            for inner, parameter in network.named_parameters()
        ]

    def _averaged(self) -> nn.ModuleDict:
        names = [name for name in ("encoder", "decoder") if name in self.networks]
        return nn.ModuleDict({name: self.networks[name] for name in names})

    def _build_average(self) -> AveragedModel | None:
        decay = self.recipe.train.ema
        if decay is None:
            return None
        # Buffers are copied, not averaged: BatchNorm's statistics are averages already.
        return AveragedModel(self._averaged(), multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    def shown(self, name: str) -> nn.Module:
        """Return the network to draw with: the averaged one when there is one."""
        if self.average is not None:
            averaged: Any = self.average.module
            if name in averaged:
                chosen: nn.Module = averaged[name]
                return chosen
        return self.networks[name]

    # --- its state ---------------------------------------------------------------------------

    def state(self, numbers: dict[str, Any]) -> State:
        """Return everything that a checkpoint holds; `numbers` go along."""
        model = {
            f"{name}.{key}": tensor
            for name, network in self.networks.items()
            for key, tensor in network.state_dict().items()
        }
        if self.average is not None:
            model |= {f"average.{key}": t for key, t in self.average.state_dict().items()}
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {}
        for player, optimizer in self.optimizers.items():
            names = [name for name, p in self._named(player) if p.requires_grad]
            saved = optimizer.state_dict()
            groups = [{k: v for k, v in g.items() if k != "params"} for g in saved["param_groups"]]
            plain[player] = {"groups": groups, "values": {}}
            for index, values in saved["state"].items():
                for key, value in values.items():
                    place = f"{player}/{names[index]}/{key}"
                    if isinstance(value, Tensor):
                        tensors[place] = value
                    else:
                        plain[player]["values"][place] = value
        return State(model, tensors, {"codes": self._ordered()}, {**numbers, "optimizers": plain})

    def _ordered(self) -> Tensor:
        """[K, *Z]  The stored latents, oldest first."""
        if self.coded <= len(self.codes):
            return self.codes[: self.coded]
        return self.codes.roll(-(self.coded % len(self.codes)), 0)

    def restore(self, state: State) -> None:
        """Take up a checkpoint's state. Raises `StorageError` when it is another recipe's."""
        try:
            for name, network in self.networks.items():
                network.load_state_dict(under(state.model, name))
            if self.average is not None:
                self.average.load_state_dict(under(state.model, "average"))
            for player, optimizer in self.optimizers.items():
                names = [name for name, p in self._named(player) if p.requires_grad]
                saved = state.numbers["optimizers"][player]
                values: dict[int, dict[str, Any]] = {}
                for place, value in {**state.optimizer, **saved["values"]}.items():
                    owner, name, key = place.split("/")
                    if owner == player:
                        values.setdefault(names.index(name), {})[key] = value
                shell = optimizer.state_dict()["param_groups"]
                groups = [
                    {**old, "params": new["params"]}
                    for old, new in zip(saved["groups"], shell, strict=True)
                ]
                optimizer.load_state_dict({"state": values, "param_groups": groups})
                for parameter, kept in optimizer.state.items():
                    for key, value in kept.items():
                        if isinstance(value, Tensor) and value.shape == parameter.shape:
                            kept[key] = _laid_out(value, parameter)
        except (RuntimeError, KeyError, ValueError) as error:
            raise StorageError(f"the checkpoint does not fit the recipe: {error}") from error
        codes = state.latents["codes"].to(self.codes)
        self.codes[: len(codes)] = codes
        self.coded = len(codes)


def under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one network, without its name before theirs."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


def _laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor of the parameter's shape in its memory layout.

    Fused optimizers walk through memory: in another layout they would pair the gradient or average
    of one place with the weight of another. Only `backward` sees to it by itself.
    """
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def plays(asked: object, player: Player) -> bool:
    """Tell whether a loss has a half for this player: its class defines one."""
    method = getattr(type(asked), player, None)
    return method is not None and method is not getattr(Loss, player)


def make_optimizer(
    chosen: Optimizer, parameters: list[nn.Parameter], player: str
) -> torch.optim.Optimizer:
    """Make the optimizer that a recipe names. Raises `RecipeError` for a name or value it lacks."""
    kind: Any
    options: dict[str, Any] = {}
    if chosen.type == "adam":
        kind, options = torch.optim.Adam, {"fused": True}
    else:
        from timm.optim import get_optimizer_class, list_optimizers

        if chosen.type not in list_optimizers():
            close = near(chosen.type, list_optimizers())
            hint = f"; did you mean '{close}'?" if close else ""
            message = f"train.optimizers.{player}.type: timm has no '{chosen.type}'{hint}"
            raise RecipeError(message)
        kind = get_optimizer_class(chosen.type, bind_defaults=False)
    known = inspect.signature(kind).parameters
    betas = chosen.betas or ((0.5, 0.999) if "betas" in known else None)
    # Decay is none unless asked for: a library's own default, adamw's 0.01, is no recipe's.
    decay = chosen.weight_decay if "weight_decay" in known else chosen.weight_decay or None
    given = {"betas": betas, "momentum": chosen.momentum, "weight_decay": decay}
    for field, value in given.items():
        if value is None:
            continue
        if field not in known:
            raise RecipeError(
                f"train.optimizers.{player}.{field}: {chosen.type} has none; leave it out"
            )
        options[field] = value
    if not parameters:
        raise RecipeError(f"the {player} has no weights to train")
    made: torch.optim.Optimizer = kind(parameters, lr=chosen.lr, **options)
    return made


def _add(old: list[Tensor | None] | None, new: Sequence[Tensor | None]) -> list[Tensor | None]:
    if old is None:
        return list(new)
    pairs = zip(old, new, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]
