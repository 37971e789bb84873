"""The step of the small recipes: where its time goes, and what was tried to make it shorter."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from speed_training import operations, random_images
from speed_tried import Work, alternately
from tables import spread, table
from torch import Tensor, nn

import vgx
from vgx.data.batches import Batch, Batches
from vgx.engine import optimizers
from vgx.engine.engine import Engine
from vgx.recipe.lengths import with_length

SIDES = {"quickstart": 64, "anime_best": 96}
# Adversarial terms are used in every eighth step only, and R1 of anime_best in every sixteenth.
STEPS, LATE = 16, 8000
STORED = 3000  # images in the store of the quickstart
NORMS, ACTIVATIONS = (nn.BatchNorm2d, nn.GroupNorm), (nn.LeakyReLU, nn.ReLU)
INTRO = """`quickstart` and `anime_best` in float32. Times are those of sixteen steps together,
because their adversarial terms are used in every eighth step only, and R1 in every sixteenth. Muon
spends its time in products of matrices. Before, with timm's method, each of them had the whole
matrix of a layer's weights; now only the first and the last product have it, and all others a
square as large as its shorter side. Shares of a step's time, medians of several profiles, before
and now:"""
TRIED = """Each candidate and what vgx does were timed alternately, twice in each round, with
`quickstart`. A value above 1 means that the candidate is faster. Reading in advance can gain no
more than is shown: the candidate has a minibatch that is there already. The last row compares the
optimizer alone. Activations work in place already."""
WITH_ADAM = """With Adam the optimizers take {:.1%} of a step, and a flat tensor can gain no more
than a part of that. Muon works on matrices, so it cannot be flattened."""
RANGES = {
    "encoder, forward": ("vgx: encode",),
    "decoder, forward": ("vgx: decode",),
    "discriminator, forward": ("vgx: score real", "vgx: score fake"),
    "losses": ("vgx: losses",),
    "gradients of encoder and decoder": ("vgx: gradients generator",),
    "gradients of the discriminator": ("vgx: gradients discriminator",),
    "optimizers": ("vgx: optimizers",),
    "averages of weights": ("vgx: averaging",),
}


def quickstart(options: argparse.Namespace) -> str:
    batch = 4 if options.quick else 32
    columns, heads = [], ["part of the step"]
    for recipe, side in SIDES.items():
        images = random_images(batch, side)
        for when, make in (("before", with_timms_products), ("now", work)):
            columns.append(shares(make(images, recipe=recipe), options.rounds))
            heads.append(f"`{recipe}` {when}")
    parts = [[name, *(f"{column[name]:.0%}" for column in columns)] for name in columns[0]]
    real = random_images(batch, SIDES["quickstart"])
    ours, theirs = work(real), with_timms_products(real)
    kinds = operations(lambda _: ours(), real)
    convolutions = sum(share for kind, share in kinds.items() if kind.startswith("convolutions"))
    adam = work(real, "train.optimizers.generator={type: adam, lr: 1.0e-3}")
    with_adam = shares(adam, options.rounds)["optimizers"]
    others = {
        "Muon with the products of timm": theirs,
        "Adam instead of Muon": adam,
        "no averages of weights": work(real, "train.ema=null", "train.ema_warmup=false"),
        "`precision: bf16`": work(real, "train.precision=bf16"),
        "images and weights not in `channels_last`": work(real, layout=torch.contiguous_format),
        f"one thread, not {torch.get_num_threads()}": on_one_thread(ours),
    }
    rounds = 2 * options.rounds + 1
    pairs = [(name, ours, other) for name, other in others.items()]
    pairs += [("minibatches read in advance", with_reading(batch), ours)]
    if not options.quick:  # compiling takes longer than all else
        pairs += [(name, ours, other) for name, other in compiled(real).items()]
    pairs += [("one flat tensor for Adam, not one for each parameter", *adams())]
    rows = [[name, spread(alternately(plain, other, rounds))] for name, plain, other in pairs]
    return "\n\n".join(
        [
            "## Step of the small recipes",
            INTRO,
            table(heads, parts),
            f"Convolutions take {convolutions:.0%} of `quickstart` now, forward and backward.",
            TRIED,
            table(["what", "relative to vgx"], rows),
            WITH_ADAM.format(with_adam),
        ]
    )


def built(recipe: str, *settings: str) -> Engine:
    return Engine(with_length(vgx.load_recipe(recipe, settings), 2 * LATE), 2 * LATE)


def work(
    real: Tensor,
    *settings: str,
    layout: torch.memory_format = torch.channels_last,
    recipe: str = "quickstart",
) -> Work:
    """Return a function that trains some steps on images [B, C, H, W]; it has run once."""
    engine = built(recipe, *settings)
    for network in engine.networks.values():
        network.to(memory_format=layout)
    same = Batch(real.contiguous(memory_format=layout))
    return steps(engine, lambda _: same)


def steps(engine: Engine, minibatch: Callable[[int], Batch]) -> Work:
    def train() -> None:
        for number in range(LATE, LATE + STEPS):
            engine.step(number, [minibatch(number)])

    train()
    return train


def with_reading(batch: int) -> Work:
    """Return the same steps with minibatches that are gathered from a store of images."""
    engine, side = built("quickstart"), SIDES["quickstart"]
    for network in engine.networks.values():
        network.to(memory_format=torch.channels_last)
    images = torch.randint(256, (STORED, side, side, 3), dtype=torch.uint8).numpy()
    return steps(engine, Batches(images, batch, 0, torch.device("cpu")).__getitem__)


def with_timms_products(real: Tensor, recipe: str = "quickstart") -> Work:
    ours = optimizers.orthogonal
    optimizers.orthogonal = lambda plain, *given, **options: plain(*given, **options)
    try:
        return work(real, recipe=recipe)
    finally:
        optimizers.orthogonal = ours


def on_one_thread(train: Work) -> Work:
    def alone() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        train()
        torch.set_num_threads(threads)

    return alone


def compiled(real: Tensor) -> dict[str, Work]:
    """Return the steps with all networks and terms compiled, and with what follows convolutions."""
    found = {}
    for name, apply in (
        ("`train.compile: true`", lambda engine: engine.forward.compile()),
        ("normalisation and activation compiled as one", compile_pairs),
    ):
        engine, start = built("quickstart"), time.perf_counter()
        apply(engine)
        train = steps(engine, lambda _: Batch(real))
        found[f"{name}, after {time.perf_counter() - start:.0f} s of compiling"] = train
    return found


def compile_pairs(engine: Engine) -> None:
    """Compile each normalisation of encoder and decoder with the activation after it."""
    for network in engine.networks.values():
        for chain in (each for each in network.modules() if isinstance(each, nn.Sequential)):
            for norm, activation in itertools.pairwise(chain):
                if isinstance(norm, NORMS) and isinstance(activation, ACTIVATIONS):
                    norm.forward = torch.compile(in_turn(norm.forward, activation.forward))
                    activation.forward = nn.Identity().forward


def in_turn(first: Callable[..., Tensor], second: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x: second(first(x))


def adams() -> tuple[Work, Work]:
    """Return steps of Adam alone: for each parameter of the generator, and for one flat tensor."""
    found = []
    networks = built("quickstart").networks
    own = [p for name in ("encoder", "decoder") for p in networks[name].parameters()]
    for tensors in (own, [torch.cat([p.detach().flatten() for p in own])]):
        given = [nn.Parameter(tensor.detach().clone()) for tensor in tensors]
        for parameter in given:
            parameter.grad = torch.randn_like(parameter)
        optimizer = torch.optim.Adam(given, lr=1e-5, fused=True)
        found.append(partial(repeat, optimizer.step))
    return found[0], found[1]


def repeat(function: Work) -> None:
    """Call a function often enough to time it."""
    for _ in range(20 * STEPS):
        function()


def shares(train: Callable[[], object], profiles: int) -> dict[str, float]:
    """Return the share of each part of a step in its time: the median of several profiles."""
    seen: dict[str, list[float]] = {}
    for _ in range(profiles):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            train()
        events = profile.key_averages()
        whole = sum(event.self_cpu_time_total for event in events)
        spent = {event.key: event.cpu_time_total / whole for event in events}
        parts = {part: sum(spent.get(key, 0) for key in keys) for part, keys in RANGES.items()}
        for part, share in {**parts, "all others": 1 - sum(parts.values())}.items():
            seen.setdefault(part, []).append(share)
    return {part: statistics.median(values) for part, values in seen.items()}
