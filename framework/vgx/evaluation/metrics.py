"""Measurements of a model: its reconstructions, and what its sampler draws.

Letters: N pictures, C channels, S pixels high and wide, Z the latent shape, F features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vgx import rng
from vgx.data.batches import as_images
from vgx.data.split import held_out
from vgx.data.store import Store
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.files import cache_dir, write_file
from vgx.images import levels
from vgx.parts.kinds import Comparison, Features, LatentSampler, Metric
from vgx.parts.values import ImageSpec
from vgx.recipe.model import Eval
from vgx.runs import checkpoint
from vgx.sampling.draw import draw, prepare
from vgx.sampling.model import CHUNK, Model

Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Real:
    """Real pictures to measure against."""

    images: NDArray[np.uint8]  # [N, S, S, C]  of the store
    rows: NDArray[np.int64]  # which of them
    labels: NDArray[np.int64] | None
    content: str  # SHA-256 of all the store's pictures

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self, device: torch.device, n: int | None = None) -> Iterator[Tensor]:
        """Go through the first `n` pictures, [<=CHUNK, C, S, S] each time."""
        rows = self.rows[:n]
        for start in range(0, len(rows), CHUNK):
            yield as_images(self.images[rows[start : start + CHUNK]], device)

    def told(self, device: torch.device) -> Tensor | None:
        """[N]  The labels of the pictures."""
        return None if self.labels is None else torch.from_numpy(self.labels[self.rows]).to(device)


@dataclass(eq=False)
class Eyes:
    """Features of pictures: each network is built once, each real side seen once.

    `versions` say which plugin a part is of: other code may mean other features.
    """

    image: ImageSpec
    device: torch.device
    versions: Callable[[Features], str] = lambda _: ""
    keep: bool = True  # what the real sides look like, in the cache
    networks: dict[str, nn.Module] = field(default_factory=dict)
    known: dict[str, Tensor] = field(default_factory=dict)

    def network(self, part: Features) -> nn.Module:
        """Return a part's network."""
        name = part.model_dump_json()
        if name not in self.networks:
            built = part.build(self.image).to(self.device).eval()
            self.networks[name] = built.requires_grad_(False)
        return self.networks[name]

    @torch.no_grad()
    def see(self, part: Features, images: Tensor) -> Tensor:
        """[N, F]  The features of images [N, C, S, S]."""
        seen: Tensor = self.network(part)(images).float().cpu()
        return seen

    def of_real(self, part: Features, real: Real, advance: Advance) -> Tensor:
        """[N, F]  The features of the real side, from the cache when they are there."""
        address = self.address(part, real)
        file = cache_dir() / "features" / f"{address}.safetensors"
        if address not in self.known and self.keep and file.is_file():
            self.known[address] = checkpoint.tensors(file.read_bytes(), file)["features"]
        if address in self.known:
            advance(len(real))
            return self.known[address]
        pieces = []
        for images in real.chunks(self.device):
            pieces.append(self.see(part, images))
            advance(len(images))
        self.known[address] = torch.cat(pieces)
        if self.keep:
            write_file(file, checkpoint.tensor_bytes({"features": self.known[address]}))
        return self.known[address]

    def address(self, part: Features, real: Real) -> str:
        """Return what the features of a real side depend on, all of it, as one hash."""
        what = [
            real.content,
            hashlib.sha256(real.rows.tobytes()).hexdigest(),
            [self.image.size, self.image.channels],
            part.model_dump_json(),
            self.digest(part),
            self.versions(part),
        ]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]

    def digest(self, part: Features) -> str:
        """Return the SHA-256 of a network's weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network(part).state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def rounded(images: Tensor) -> Tensor:
    """[N, C, S, S]  Images as a PNG would hold them: real ones were bytes too."""
    return levels(images) / 255


@dataclass(frozen=True, eq=False)
class Sides:
    """Real pictures that are reconstructed, and those that samples are held against."""

    shown: Real
    held_against: Real
    split: tuple[str, str]  # what these are: held out, trained on, or of another data set


def sides(store: Store, share: float | None, n: int) -> Sides:
    """Choose at most `n` pictures by their hashes, so that no order of files chooses them.

    `share` is held out of the training; without one no picture is of the training. Samples are held
    against pictures that were trained on, as published figures are.
    """

    def chosen(among: NDArray[np.bool_]) -> Real:
        rows = np.flatnonzero(among)
        rows = rows[np.argsort(store.hashes[rows], kind="stable")][:n]
        return Real(store.images, rows, store.labels, store.content)

    if share is None:
        others = chosen(np.ones(len(store.images), bool))
        return Sides(others, others, ("of another data set",) * 2)
    held = held_out(store.hashes, share)
    trained = chosen(~held)
    if not held.any():
        return Sides(trained, trained, ("trained on",) * 2)
    return Sides(chosen(held), trained, ("held out", "trained on"))


def try_out(asked: Eval, image: ImageSpec) -> None:
    """Build what will be measured while training, and compare features that stand in for any.

    Raises `RecipeError` for what would fail after the first steps only.
    """
    if asked.every is None:
        return
    chance = rng.generator(0, "check")
    stand_ins = [torch.rand(asked.n, 8, generator=chance) for _ in range(2)]  # [N, F]
    for metric in asked.metrics:
        metric.build(image)
        if isinstance(metric, Comparison) and not metric.pairs:
            metric.compare(*stand_ins)


def while_training(engine: Engine, store: Store, step: int, eyes: Eyes) -> dict[str, float]:
    """Measure what the recipe asks for, and leave the training as it was."""
    recipe = engine.recipe
    settings, seed = recipe.eval, recipe.train.seed
    names = [name for name in ("encoder", "decoder") if name in engine.networks]
    networks = {name: engine.network_for_sampling(name) for name in names}
    encoder, decoder = networks.get("encoder"), networks["decoder"]
    model = Model(recipe, step, engine.latents.newest(), encoder, decoder, None)
    chosen = sides(store, settings.holdout, settings.n)
    sets = [metric for metric in settings.metrics if not metric.pairs]

    def advance(_: int) -> None:
        return

    with rng.ambient(seed, "evaluation", step), evaluating(networks.values()):
        metrics = settings.metrics
        figures = of_reconstructions(model, chosen.shown, metrics, engine.device, advance)
        if sets:
            drawer = ready(model)
            against, n = chosen.held_against, settings.n
            drawn = of_samples(model, drawer, against, sets, 0, n, eyes, advance)
            figures = _joined(figures, drawn)
    return figures


@torch.no_grad()
def of_reconstructions(
    model: Model, real: Real, metrics: Sequence[Metric], device: torch.device, advance: Advance
) -> dict[str, float]:
    """Compare real pictures with what the decoder makes of their posteriors' means."""
    gauges = [metric.build(model.recipe.image) for metric in metrics if metric.pairs]
    if not gauges:
        return {}
    labels, done = real.told(device), 0
    for images in real.chunks(device):
        told = None if labels is None else labels[done : done + len(images)]
        recon = rounded(model.decode(model.encode(images), told))
        for gauge in gauges:
            gauge.update(images, recon)
        done += len(images)
        advance(len(images))
    return _joined(*(gauge.compute() for gauge in gauges))


@torch.no_grad()
def of_samples(
    model: Model,
    drawer: tuple[LatentSampler, Tensor],
    real: Real,
    metrics: Sequence[Metric],
    seed: int,
    n: int,
    eyes: Eyes,
    advance: Advance,
) -> dict[str, float]:
    """Compare real pictures with `n` that the recipe's sampler, built and fitted, draws."""
    compared = [m for m in metrics if not m.pairs and isinstance(m, Comparison)]
    others = [m for m in metrics if not m.pairs and not isinstance(m, Comparison)]
    parts = {m.features.model_dump_json(): m.features for m in compared}
    gauges = [metric.build(model.recipe.image) for metric in others]
    seen: dict[str, list[Tensor]] = {name: [] for name in parts}
    beside = real.chunks(eyes.device, n)
    for drawn in draw(model, *drawer, n, seed):
        images = rounded(drawn)
        for name, part in parts.items():
            seen[name].append(eyes.see(part, images))
        if gauges and (shown := next(beside, None)) is not None:
            for gauge in gauges:  # as many of each side
                gauge.update(shown[: len(images)], images[: len(shown)])
        advance(len(images))
    figures = []
    for metric in compared:
        name = metric.features.model_dump_json()
        sides = eyes.of_real(parts[name], real, lambda _: None), torch.cat(seen[name])
        figures.append(metric.compare(*(side.to(eyes.device) for side in sides)))
    return _joined(*figures, *(gauge.compute() for gauge in gauges))


def ready(model: Model) -> tuple[LatentSampler, Tensor]:
    """Return the recipe's sampler, ready to draw, and the latents that it draws from.

    Raises `RecipeError` for a sampler that shows images it is given.
    """
    sampler = model.recipe.sampler
    if sampler.pictures(model.recipe.image) is not None:
        message = "shows images that it is given; choose another sampler to evaluate"
        raise RecipeError(f"sampler {sampler.type}: {message}")
    return prepare(model)


def _joined(*figures: dict[str, float]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for given in figures:
        if twice := numbers.keys() & given.keys():
            name = min(twice)
            raise RecipeError(f"two metrics give a number '{name}'; ask for one of them at a time")
        numbers |= given
    return numbers
