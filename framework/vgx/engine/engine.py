"""The engine: networks, optimizers, averaged weights, and the step.

Letters: B pictures, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.profiler import record_function

from vgx import rng
from vgx.engine.build import Player, Term, build_network, build_terms, sigmoid
from vgx.engine.finite import Guard
from vgx.engine.optimizers import averaging, laid_out, learning_rate, make_optimizer
from vgx.errors import Notice, StorageError
from vgx.parts.base import BrokenError
from vgx.parts.values import Adaptive
from vgx.recipe.model import Optimizer, Recipe
from vgx.runs.checkpoint import State, under
from vgx.step import Score, Step

# Latents that a run keeps for its samplers: those of the last epoch, or of its last part.
MAX_CODES = 10_000


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
        players: tuple[Player, ...] = ("generator", "discriminator")
        self.asked, self.terms = build_terms(
            recipe, players if recipe.discriminator else players[:1]
        )
        for loss, asked in self.asked:
            if isinstance(asked, nn.Module):
                self.networks[f"loss {loss.label}"] = asked
        for network in self.networks.values():
            network.to(self.device, dtype, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.compiled: dict[str, Callable[..., Any]] = {}  # what is called in their place
        self.augment = [part.build(recipe.image) for part in recipe.augment]
        self.diff_augment = [part.build(recipe.image) for part in recipe.diff_augment]
        self.names = {player: [name for name, _ in self.trained(player)] for player in self.terms}
        self.parameters = {player: [p for _, p in self.trained(player)] for player in self.terms}
        self.optimizers = {
            player: make_optimizer(
                getattr(recipe.train.optimizers, player), self.parameters[player], player
            )
            for player in self.terms
        }
        self.average = self._build_average()
        self.codes = torch.zeros(min(codes, MAX_CODES), *recipe.latent.shape, device=self.device)
        self.coded = 0  # latents written to `codes` so far, round and round
        self.seed = recipe.train.seed  # of the steps' draws: another one after a rollback
        self.slowed = 1.0  # what learning rates are multiplied by: less after a rollback
        self.masked = False  # whether the discriminator drew dropout masks when it last judged
        # Steps are looked at later where the optimizers see to it that nothing moves until then.
        fused = all(made.defaults.get("fused") for made in self.optimizers.values())
        self.guard = Guard(self.device, deferred=self.device.type == "cuda" and fused)

    def compile(self) -> None:
        """Have the networks compiled when they are next called: only the step calls them so.

        One that can't be compiled is called as it is, and a notice says so.
        """
        # What one player's gradient has used up, the other's still needs.
        torch._functorch.config.donated_buffer = False  # noqa: SLF001
        for name in ("encoder", "decoder", "discriminator"):
            if name in self.networks:
                self.compiled[name] = self._compiled(name)

    def _compiled(self, name: str) -> Callable[..., Any]:
        from torch._dynamo.exc import TorchDynamoException

        network = self.networks[name]
        fast = torch.compile(network, dynamic=False)

        def call(*inputs: Tensor) -> Any:
            try:
                with warnings.catch_warnings():  # torch looks at what it warns others of
                    warnings.filterwarnings("ignore", "The .grad attribute")
                    return fast(*inputs)
            except TorchDynamoException as error:
                first = str(error).splitlines()[0]
                warnings.warn(
                    f"the {name} can't be compiled, so it is not: {first}", Notice, stacklevel=2
                )
                del self.compiled[name]
                return network(*inputs)

        return call

    def _called(self, name: str) -> Callable[..., Any]:
        return self.compiled.get(name, self.networks[name])

    # --- the step --------------------------------------------------------------------------

    def step(
        self, number: int, minibatches: Sequence[Tensor], labels: Sequence[Tensor | None] = ()
    ) -> dict[str, Tensor]:
        """Do one step: each player moves, the discriminator once for each minibatch.

        `minibatches` are real images [B, C, H, W], `labels` theirs [B]. Returns the unweighted loss
        terms by name, on the device: reading them waits for it.
        """
        values: dict[str, Tensor] = {}
        first = self.recipe.train.order == "generator-first"
        shared = 0 if first else len(minibatches) - 1  # the one that the generator learns from
        with rng.ambient(self.seed, "step", number):
            for index, real in enumerate(minibatches):
                batch = (real, labels[index] if labels else None)
                if index != shared:
                    values |= self._move(["discriminator"], number, index, batch)
                elif first:
                    # D's weights are the same in both its judgements: one pass serves both players.
                    values |= self._move(["generator", "discriminator"], number, index, batch)
                else:
                    values |= self._move(["discriminator"], number, index, batch)
                    values |= self._move(["generator"], number, index, batch)
        if self.average is not None:
            with record_function("vgx: averaging"):
                self.average.update_parameters(self._averaged())
        return values

    def _move(
        self, players: list[Player], number: int, index: int, batch: tuple[Tensor, Tensor | None]
    ) -> dict[str, Tensor]:
        """Run everything forward once, give each player its gradient, and only then step."""
        players = [player for player in players if player in self.terms]
        pieces = batch[0].chunk(self.recipe.train.accumulate)
        labels = [None] * len(pieces) if batch[1] is None else batch[1].chunk(len(pieces))
        sums: dict[Player, list[Tensor | None]] = {}
        values: dict[str, Tensor] = {}
        for piece, part in enumerate(pieces):
            address, learn = (number, index, piece), "generator" in players
            step = self.play(number, part, address, learn=learn, labels=labels[piece])
            if learn:
                self._keep(step.z)
            for player in players:
                if learn and player == "discriminator" and self.masked:
                    step = self._judged_again(step, address)
                with record_function("vgx: losses"):
                    shares, terms = self.shares(step, player)
                if player == players[-1]:
                    del step  # or its pictures and features would outlive the graph's use of them
                for label, value in terms.items():
                    values[label] = values.get(label, 0) + value.detach() / len(pieces)
                for networks, total in shares.items():
                    done = player == players[-1] and networks == list(shares)[-1]
                    mean = total / len(pieces)
                    with record_function(f"vgx: gradients {player}"):
                        gradients = self.gradients(mean, player, networks, keep=not done)
                    sums[player] = _add(sums.get(player), gradients)
        with record_function("vgx: finite check"):
            named = {p: [*zip(self.names[p], each, strict=True)] for p, each in sums.items()}
            self.guard.look(number, values, named)
        with record_function("vgx: optimizers"):
            for player, summed in sums.items():
                self._apply(player, number, summed)
        return values

    def play(
        self,
        number: int,
        real: Tensor,
        address: tuple[int, ...] = (),
        *,
        learn: bool = True,
        labels: Tensor | None = None,
    ) -> Step:
        """Run every network forward once on real images [B, C, H, W].

        The draws are keyed by `address`. Without `learn` nothing leads back to the generator.
        """
        train, latent = self.recipe.train, self.recipe.latent.shape
        real = real.to(self.dtype)
        chance = self.chance("augmentation", *address)
        with torch.no_grad(), record_function("vgx: augmentation"):
            for change in self.augment:
                real = change(real, chance)  # [B, C, H, W]
        posterior = recon = recon_logits = prior = real_score = fake_score = None
        z = torch.randn(
            (len(real), *latent),
            generator=self.chance("prior", *address),
            device=self.device,
            dtype=self.dtype,
        )  # [B, *Z]
        with self._autocast():
            with torch.set_grad_enabled(learn):
                if "prior" in train.fakes or "encoder" not in self.networks:
                    prior = sigmoid(self.decode(z, labels))  # [B, C, H, W]
                if "encoder" in self.networks:
                    with record_function("vgx: encode"):
                        posterior = self._called("encoder")(real)
                    z = posterior.sample(self.chance("posterior", *address))  # [B, *Z]
                    recon_logits = self.decode(z, labels)  # [B, C, H, W]
                    recon = sigmoid(recon_logits)  # [B, C, H, W]
            if "discriminator" in self.networks:
                luck = self._luck()
                fakes = self._fakes(recon, prior)  # [F*B, C, H, W]
                real_score = self.judge(real, labels, "real", address)
                fake_score = self.judge(fakes, labels, "fake", address)
                self.masked = not torch.equal(luck, self._luck())
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
            discriminator=partial(self.judge, labels=labels, stream="penalty", address=address)
            if "discriminator" in self.networks
            else None,
            fakes=train.fakes,
            labels=labels,
            chance=lambda stream: self.chance(f"loss {stream}", *address),
        )

    def _fakes(self, recon: Tensor | None, prior: Tensor | None) -> Tensor:
        """[F*B, C, H, W]  What the discriminator is shown as fake, in the recipe's order."""
        made = {"recon": recon, "prior": prior}
        shown = [images for name in self.recipe.train.fakes if (images := made[name]) is not None]
        return shown[0] if len(shown) == 1 else torch.cat(shown)

    def _judged_again(self, step: Step, address: tuple[int, ...]) -> Step:
        """Return the step with scores of the same pictures under other dropout masks."""
        fakes = self._fakes(step.recon, step.prior).detach()  # [F*B, C, H, W]
        with self._autocast():
            real_score = self.judge(step.real, step.labels, "real", address)
            fake_score = self.judge(fakes, step.labels, "fake", address)
        return replace(step, real_score=real_score, fake_score=fake_score)

    def _luck(self) -> Tensor:
        """Return the state of the generator that dropout draws from."""
        if self.device.type == "cuda":
            return torch.cuda.get_rng_state(self.device)
        return torch.get_rng_state()

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the decoder's logits [B, C, H, W] of latents [B, *Z], in float32 at least."""
        told = (labels,) if self.recipe.decoder.conditional else ()
        with record_function("vgx: decode"):
            logits: Tensor = self._called("decoder")(z, *told)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def judge(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        stream: str = "penalty",
        address: tuple[int, ...] = (),
    ) -> Score:
        """Return the discriminator's score of images [B, C, H, W], logits in float32 at least."""
        chance = self.chance(f"augmentation of the {stream}", *address)
        for change in self.diff_augment:
            images = change(images, chance)
        told: tuple[Tensor, ...] = ()
        if (
            labels is not None
            and self.recipe.discriminator
            and self.recipe.discriminator.conditional
        ):
            told = (labels.repeat(len(images) // len(labels)),)  # [F*B]
        # Compiled networks give no second derivatives, which is what penalties take.
        penalty = stream == "penalty"
        network = self.networks["discriminator"] if penalty else self._called("discriminator")
        with record_function(f"vgx: judge {stream}"):
            score: Score = network(images, *told)
        wide = torch.promote_types(score.logits.dtype, torch.float32)
        return Score(score.logits.to(wide), score.features)

    def shares(
        self, step: Step, player: Player
    ) -> tuple[dict[tuple[str, ...] | None, Tensor], dict[str, Tensor]]:
        """Return a player's weighted sums by the networks that they reach, and the terms by name.

        `None` stands for all of the player's networks.
        """
        counted: dict[str, tuple[Term, Tensor, float]] = {}
        for term in self.terms[player]:
            weight = term.weight(step.number)
            value = getattr(term.asked, player)(step) if weight else None
            if value is not None:
                self._expect_scalar(term, player, value)
                counted[term.label] = (term, value, weight)
        sums: dict[tuple[str, ...] | None, Tensor] = {}
        for term, value, weight in counted.values():
            networks = term.loss.reaches if player == "generator" else None
            total = weight * value
            if term.weighted and isinstance(term.loss.weight, Adaptive):
                against = term.loss.weight.against
                others = [w * v for other, v, w in counted.values() if other.loss.label in against]
                total = total * self._level(sum(others), value, term.loss.weight.most)
            sums[networks] = sums[networks] + total if networks in sums else total
        return sums, {label: value for label, (_, value, _) in counted.items()}

    def _expect_scalar(self, term: Term, player: Player, value: object) -> None:
        """Raise `BrokenError` for what a loss must not give, whatever step it is."""
        if not isinstance(value, Tensor):
            wrong = f"a {type(value).__name__}"
        elif value.dim():
            wrong = f"of shape {tuple(value.shape)}"
        elif value.device.type != self.device.type:
            wrong = f"on {value.device}, while the run is on {self.device}"
        else:
            return
        raise BrokenError(term.loss, f"its {player}'s half is {wrong}, not a scalar of the run's")

    def _level(self, others: Tensor | int, value: Tensor, most: float) -> Tensor | float:
        """Return how much stronger the others pull at the decoder's last layer: a scalar."""
        if isinstance(others, int):  # none of them counts in this step
            return 1.0
        weights = [p for p in self.networks["decoder"].parameters() if p.dim() > 1]
        (a,), (b,) = (
            torch.autograd.grad(term, weights[-1:], retain_graph=True) for term in (others, value)
        )
        ratio: Tensor = a.norm() / (b.norm() + 1e-4)
        return ratio.clamp(max=most)

    def gradients(
        self, total: Tensor, player: Player, networks: tuple[str, ...] | None, *, keep: bool
    ) -> list[Tensor | None]:
        """Return the gradient of a scalar for each of the player's weights in these networks."""
        wanted = [
            parameter
            for name, parameter in zip(self.names[player], self.parameters[player], strict=True)
            if networks is None or name.startswith(("loss ", *(f"{n}." for n in networks)))
        ]
        found = iter(torch.autograd.grad(total, wanted, retain_graph=keep, allow_unused=True))
        chosen = set(map(id, wanted))
        return [next(found) if id(p) in chosen else None for p in self.parameters[player]]

    def _apply(self, player: Player, number: int, gradients: list[Tensor | None]) -> None:
        parameters = self.parameters[player]
        chosen: Optimizer = getattr(self.recipe.train.optimizers, player)
        for group in self.optimizers[player].param_groups:
            group["lr"] = self.slowed * learning_rate(chosen, number)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else laid_out(gradient, parameter)
        if self.recipe.train.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.recipe.train.clip)
        if self.guard.deferred:  # fused optimizers look at it before they move anything
            self.optimizers[player].found_inf = self.guard.halted.float()  # type: ignore[attr-defined]
        self.optimizers[player].step()
        for parameter in parameters:
            parameter.grad = None

    def _keep(self, z: Tensor) -> None:
        """Write latents [B, *Z] over the oldest stored ones."""
        z = z.detach()[-len(self.codes) :].to(self.codes.dtype)
        places = (self.coded + torch.arange(len(z), device=self.device)) % len(self.codes)
        self.codes[places] = z
        self.coded += len(z)

    def chance(self, stream: str, *address: int) -> torch.Generator:
        """Return a fresh generator on the device, keyed by the seed."""
        return rng.generator(self.seed, stream, *address, device=self.device)

    def _autocast(self) -> torch.autocast:
        # `auto` is settled before a training; whoever asks an engine directly gets what is exact.
        enabled = self.recipe.train.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    # --- what it is made of ----------------------------------------------------------------

    def trained(self, player: Player) -> list[tuple[str, nn.Parameter]]:
        """Return the weights by name that the player's optimizer moves."""
        return [(name, p) for name, p in self.named(player) if p.requires_grad]

    def named(self, player: Player) -> list[tuple[str, nn.Parameter]]:
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
        average = averaging(decay, rising=self.recipe.train.ema_warmup)
        # Buffers are copied, not averaged: BatchNorm's statistics are averages already.
        made = AveragedModel(self._averaged(), multi_avg_fn=average)
        made.n_averaged = made.n_averaged.cpu()  # it is asked in every step
        return made

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
            names = self.names[player]
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
                _fill(network, under(state.model, name))
            if self.average is not None:
                _fill(self.average, under(state.model, "average"))
            for player, optimizer in self.optimizers.items():
                names = self.names[player]
                saved = state.numbers["optimizers"][player]
                values: dict[int, dict[str, Any]] = {}
                for place, value in {**state.optimizer, **saved["values"]}.items():
                    owner, name, key = place.split("/")
                    if self.optimizers[owner] is optimizer:
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
                            kept[key] = laid_out(value, parameter)
            codes = state.latents["codes"].to(self.codes)
            self.codes[: len(codes)] = codes
            self.coded = len(codes)
        # What is no checkpoint of this recipe makes readers raise anything.
        except Exception as error:
            raise StorageError(f"the checkpoint does not fit the recipe: {error!r}") from error


def _fill(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load exactly these tensors: BatchNorm would make up a count of batches that is missing."""
    if lost := sorted(network.state_dict().keys() - tensors.keys()):
        raise KeyError(lost[0])
    network.load_state_dict(tensors)


def _add(old: list[Tensor | None] | None, new: Sequence[Tensor | None]) -> list[Tensor | None]:
    if old is None:
        return list(new)
    pairs = zip(old, new, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]
