"""The engine: a recipe's networks, and the training step.

`Engine.step`, `turns` and `update` are the whole step, from the forward pass to the optimizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.profiler import record_function

from vgx import rng
from vgx.data.batches import Batch
from vgx.distributed.group import averaged
from vgx.distributed.minibatch import shared, whole
from vgx.distributed.norms import average_statistics, over_all_processes
from vgx.distributed.rows import replicated
from vgx.distributed.state import group
from vgx.engine import averages
from vgx.engine import state as states
from vgx.engine.build import build_network, evaluating, label_inputs
from vgx.engine.finite import Guard
from vgx.engine.forward import Forward
from vgx.engine.losses import (
    PlayerName,
    build_losses,
    last_layer_of,
    owner_of,
    player_of,
    terms_of,
    weighted_losses,
)
from vgx.engine.optimizers import make_optimizer
from vgx.engine.players import Gradients, Player, add_gradients
from vgx.engine.starting import Fit, begin
from vgx.engine.stored_latents import MAX_LATENTS, StoredLatents
from vgx.errors import StorageError
from vgx.recipe.model import Recipe, Train
from vgx.runs.checkpoint import OTHER_VERSION, State, under
from vgx.step import Step

ROLLBACK_LR = 0.5  # what each rollback multiplies the learning rates by


class Engine:
    """A recipe's networks, and the step that trains them."""

    def __init__(
        self,
        recipe: Recipe,
        steps: int,
        codes: int = MAX_LATENTS,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Build everything for a training of `steps`, which stores the newest `codes` latents."""
        self.recipe = recipe
        self.device, self.dtype = torch.device(device), dtype
        self.losses = build_losses(recipe)
        self.networks = self._build_networks()
        self.forward = Forward(recipe, self.networks, steps, self.device, dtype)
        names: tuple[PlayerName, ...] = ("generator", "discriminator")
        self.players = {
            name: self._build_player(name)
            for name in (names if recipe.trains_discriminator else names[:1])
        }
        self.ema = self._build_ema()
        self.set_length(steps, codes)
        # With fused optimizers no step has to wait for the device.
        fused = all(p.optimizer.defaults.get("fused") for p in self.players.values())
        self.guard = Guard(self.device, deferred=self.device.type == "cuda" and fused)
        self.rollbacks = 0  # more of them draw other random numbers, at lower learning rates
        self.fits: list[Fit] = []  # what the networks took from another training
        self._last_layer: Tensor | None = None  # of the decoder, computed at its first use

    # --- the step --------------------------------------------------------------------------

    def step(self, number: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Train each player once, the discriminator once on each minibatch.

        Returns the unweighted terms by name, on the device; of several minibatches the last ones.
        """
        terms: dict[str, Tensor] = {}
        with rng.ambient(self.seed, "step", number):
            for index, batch in enumerate(batches):
                for players in self.turns(index, len(batches)):
                    terms |= self.update(players, number, index, batch)
        self._share_statistics(self.networks.values())
        if self.ema is not None:
            with record_function("vgx: averaging"):
                averages.update(self.ema, self.networks_to_average(), self.recipe.train)
        return terms

    def turns(self, index: int, count: int) -> list[list[Player]]:
        """Return who is trained on minibatch `index` of a step; an inner list shares one pass."""
        generator, discriminator = self.players["generator"], self.players.get("discriminator")
        if discriminator is None:
            return [[generator]]
        generator_first = self.recipe.train.order == "generator-first"
        of_generator = 0 if generator_first else count - 1  # the minibatch that it is trained on
        if index != of_generator:
            return [[discriminator]]
        # When the generator is first, D's weights are the same for its loss and for D's own loss.
        return [[generator, discriminator]] if generator_first else [[discriminator], [generator]]

    def update(
        self, players: list[Player], number: int, index: int, batch: Batch
    ) -> dict[str, Tensor]:
        """Run one forward pass, compute each player's gradient, and only then step the optimizers.

        With `train.accumulate` the gradients of several micro-batches are added up.
        """
        terms: dict[str, Tensor] = {}
        gradients: dict[PlayerName, Gradients] = {}
        micro_batches = batch.chunk(self.recipe.train.accumulate)
        train_generator = self.players["generator"] in players
        options = {"train_generator": train_generator, "lazy": self.lazy(players, number)}
        for position, micro_batch in enumerate(micro_batches):
            with shared(len(micro_batch)):
                streams = self.streams(number, index, position)
                step = self.forward(micro_batch, number, streams, **options)
                self.observe(players, step)
                if train_generator:
                    self.latents.add(step)
                for player in players:
                    if player is not players[0]:
                        step = self.forward.for_discriminator(step, streams)
                    losses = weighted_losses(player.terms, step, self.last_layer)
                    for label, value in losses.terms.items():
                        terms[label] = terms.get(label, 0) + value.detach() / len(micro_batches)
                    keep_graph = player is not players[-1]
                    for new in player.gradients(losses, len(micro_batches), keep_graph=keep_graph):
                        gradients[player.name] = add_gradients(gradients.get(player.name, {}), new)
        terms, gradients = over_processes(terms, gradients)
        self.guard.check(number, terms, gradients)  # raises when not finite
        for name, summed in gradients.items():
            self.players[name].step_optimizer(number, summed, self.lr_scale, self.guard.found_inf)
        return terms

    def lazy(self, players: list[Player], number: int) -> bool:
        """Return whether a step may leave the scores of discriminators for who reads them."""
        return not any(term.needs_scores(number) for player in players for term in player.terms)

    def observe(self, players: list[Player], step: Step) -> None:
        """Let augmentations see a pass: once for each minibatch, when the discriminator learns."""
        if self.players.get("discriminator", self.players["generator"]) in players:
            seen = whole(step)
            with replicated():
                self.forward.observe(seen)

    # --- random numbers and learning rates ---------------------------------------------------

    @property
    def seed(self) -> int:
        """The seed of the steps' random numbers: another one after each rollback."""
        seed = self.recipe.train.seed
        return rng.key(seed, "rollback", self.rollbacks) if self.rollbacks else seed

    @property
    def lr_scale(self) -> float:
        """What the learning rates are multiplied by: less after each rollback."""
        return ROLLBACK_LR**self.rollbacks

    def streams(self, *numbers: int) -> rng.Streams:
        """Return the generators of one place in the training."""
        return rng.Streams(self.seed, numbers, self.device)

    # --- what it consists of -----------------------------------------------------------------

    def _build_networks(self) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {}
        for name in self.recipe.networks:
            network = build_network(self.recipe, name)
            if network is not None:
                networks[name] = network
        for part, module in self.losses:
            if isinstance(module, nn.Module):
                networks[f"loss {part.label}"] = module
        for network in networks.values():
            network.to(self.device, self.dtype, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
            if group().size > 1 and self.recipe.train.batch_norm == "global":
                over_all_processes(network)
        for name in self.recipe.frozen:
            networks[name].eval().requires_grad_(False)
        return networks

    def start_from(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Begin with the weights of another training, by network, where they fit; set `fits`.

        To be called before the first step. Raises `RecipeError` for a network that takes none.
        """
        self.fits = [begin(name, self.networks[name], own) for name, own in weights.items()]
        self.ema = self._build_ema()

    def _build_player(self, name: PlayerName) -> Player:
        train = self.recipe.train
        trained = {key: p for key, p in self.named_parameters(name).items() if p.requires_grad}
        settings = getattr(train.optimizers, name)
        optimizer = make_optimizer(settings, [*trained.values()], name)
        return Player(name, trained, terms_of(self.losses, name), optimizer, settings, train.clip)

    def named_parameters(self, player: PlayerName) -> dict[str, nn.Parameter]:
        """Return a player's parameters by name."""
        return {
            f"{name}.{inner}": parameter
            for name, network in self.networks.items()
            for inner, parameter in network.named_parameters()
            if player_of(owner_of(f"{name}.{inner}")) == player
        }

    def networks_to_average(self) -> nn.ModuleDict:
        """Return the networks whose weights are averaged."""
        names = [name for name in ("encoder", "decoder") if name in self.networks]
        return nn.ModuleDict({name: self.networks[name] for name in names})

    def _build_ema(self) -> AveragedModel | None:
        if self.recipe.train.ema is None:
            return None
        return averages.averaged(self.networks_to_average())

    def refresh_average(self, number: int, batches: Iterable[Batch]) -> None:
        """Take the BatchNorm statistics of the averaged networks from minibatches of a training.

        Call it before the averaged networks are used or saved: each step copies the statistics of
        the trained networks, which do not fit averaged weights. The result depends on the weights,
        the number of the step and the minibatches alone.
        """
        if self.ema is None:
            return
        networks: dict[str, nn.Module] = dict(self.ema.module.named_children())
        # A frozen network keeps its statistics.
        renewed = [n for name, n in networks.items() if name not in self.recipe.train.freeze]
        if not any(map(averages.statistics_layers, renewed)):
            return
        forward = Forward(self.recipe, networks, self.steps, self.device, self.dtype)
        forward.bf16 = self.forward.bf16
        forward.share_augmentations(self.forward)  # and the networks stay as in the last step
        seed = rng.key(self.seed, "statistics", number)
        with rng.ambient(seed, "pass"), averages.new_statistics(renewed):
            for index, batch in enumerate(batches):
                streams = rng.Streams(seed, (index,), self.device)
                with shared(len(batch)):
                    forward(batch, number, streams, train_generator=False)
        self._share_statistics(networks.values())

    def _share_statistics(self, networks: Iterable[nn.Module]) -> None:
        """Let all processes have the same statistics of BatchNorm, which each has of its images."""
        if group().size > 1 and self.recipe.train.batch_norm == "local":
            average_statistics(networks)

    def network_for_sampling(self, name: str) -> nn.Module:
        """Return the network with averaged weights when there are any, else the trained one."""
        averaged: Any = {} if self.ema is None else self.ema.module
        network: nn.Module = averaged[name] if name in averaged else self.networks[name]
        return network

    def last_layer(self) -> Tensor | None:
        """Return the weight of the decoder's last layer, where adaptive weights compare gradients.

        It is found without compiling, which would hide the order of the layers.
        """
        if self._last_layer is None:
            z = torch.zeros((1, *self.recipe.latent.shape), device=self.device, dtype=self.dtype)
            labels = torch.zeros(1, dtype=torch.long, device=self.device)  # [1]
            decoder, further = self.networks["decoder"], label_inputs(self.recipe.decoder, labels)
            with evaluating([decoder]), rng.ambient(self.seed, "last layer"):
                self._last_layer = last_layer_of(decoder(z, *further))
        return self._last_layer

    # --- how long and how it computes, and its state -------------------------------------------

    def set_length(self, steps: int, codes: int) -> None:
        """Train for `steps`, and store the newest `codes` latents; to be called before a training.

        Nothing else depends on these numbers, so the networks can be built, and checked, while they
        are not yet known.
        """
        self.length = steps, codes
        self.steps = self.forward.steps = steps
        labelled = self.recipe.image.classes > 0
        self.latents = StoredLatents(
            codes, self.recipe.latent.shape, self.device, labelled=labelled
        )

    def configure(self, train: Train) -> None:
        """Set `precision` and `compile` as they are settled: they are no longer `auto`."""
        self.forward.bf16 = train.precision == "bf16"
        if train.compile is True:
            self.forward.compile()

    def state(self, numbers: dict[str, Any]) -> State:
        """Return everything that a checkpoint holds; `numbers` are saved with it."""
        model = states.network_tensors(self._saved_networks())
        tensors, plain = states.optimizer_tensors(self.players.values())
        return State(model, tensors, self.latents.state(), {**numbers, "optimizers": plain})

    def restore(self, state: State) -> None:
        """Take up a checkpoint's state. Raises `StorageError` when it is of another recipe."""
        try:
            networks = self._saved_networks()
            for name in self.forward.saved_augmentations:
                if not under(state.model, name):  # of an earlier vgx
                    del networks[name]
            states.load_networks(networks, state.model)
            states.load_optimizers(self.players, state.optimizer, state.numbers["optimizers"])
            self.latents.load(state.latents)
        # A checkpoint of another recipe makes the loaders raise many kinds of error.
        except Exception as error:
            message = f"the checkpoint does not fit the recipe: {error!r}; {OTHER_VERSION}"
            raise StorageError(message) from error

    def _saved_networks(self) -> dict[str, nn.Module]:
        average = {} if self.ema is None else {"average": self.ema}
        return {**self.networks, **average, **self.forward.saved_augmentations}


def over_processes(
    terms: dict[str, Tensor], gradients: dict[PlayerName, Gradients]
) -> tuple[dict[str, Tensor], dict[PlayerName, Gradients]]:
    """Return the means of terms and gradients over all processes, taken together in one sum."""
    several: dict[Any, dict[str, Tensor]] = {"terms": terms, **gradients}
    flat = {(of, name): value for of, named in several.items() for name, value in named.items()}
    means: dict[Any, dict[str, Tensor]] = {of: {} for of in several}
    for (of, name), mean in averaged(flat).items():
        means[of][name] = mean
    return means.pop("terms"), means
