"""The quickstart's step: where its time goes, and what was tried to make it shorter."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from speed_training import operations, random_images
from speed_tried import Work, alternately
from tables import spread, table
from torch import Tensor

import vgx
from vgx.data.batches import Batch
from vgx.engine import optimizers
from vgx.engine.engine import Engine
from vgx.recipe.lengths import with_length

STEPS, LATE = 8, 8000  # the adversarial terms are used in every eighth step
INTRO = """`quickstart` in float32. Times are those of eight steps together, because its adversarial
terms are used in every eighth step only. Muon spends its time in products of matrices. Before,
with timm's method, each of them had the whole matrix of a layer's weights; now only the first and
the last product have it, and all others a square as large as its shorter side. Shares of a step's
time, medians of several profiles, before and now:"""
TRIED = """Each candidate and the step of vgx were timed alternately, twice in each round. A value
above 1 means that the candidate is faster."""
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
    real = random_images(4 if options.quick else 32, 64)
    ours, theirs = work(real), with_timms_products(real)
    before, after = (shares(train, options.rounds) for train in (theirs, ours))
    parts = [[name, f"{before[name]:.0%}", f"{after[name]:.0%}"] for name in after]
    kinds = operations(lambda _: ours(), real)
    convolutions = sum(share for kind, share in kinds.items() if kind.startswith("convolutions"))
    others = {
        "Muon with the products of timm": theirs,
        "Adam instead of Muon": work(real, "train.optimizers.generator={type: adam, lr: 1.0e-3}"),
        "no averages of weights": work(real, "train.ema=null", "train.ema_warmup=false"),
        "`precision: bf16`": work(real, "train.precision=bf16"),
        "images and weights not in `channels_last`": work(real, layout=torch.contiguous_format),
        f"one thread, not {torch.get_num_threads()}": on_one_thread(ours),
    }
    rows = [
        [name, spread(alternately(ours, other, 2 * options.rounds + 1))]
        for name, other in others.items()
    ]
    if not options.quick:  # compiling takes longer than all else
        rows.append(compiled(real, ours, 2 * options.rounds + 1))
    return "\n\n".join(
        [
            "## Step of the quickstart",
            INTRO,
            table(["part of the step", "before", "now"], parts),
            f"Convolutions take {convolutions:.0%} of it now, forward and backward.",
            TRIED,
            table(["what", "relative to vgx"], rows),
        ]
    )


def built(*settings: str) -> Engine:
    return Engine(with_length(vgx.load_recipe("quickstart", settings), 2 * LATE), 2 * LATE)


def work(real: Tensor, *settings: str, layout: torch.memory_format = torch.channels_last) -> Work:
    """Return a function that trains for eight steps on images [B, C, H, W]; it has run once."""
    engine = built(*settings)
    for network in engine.networks.values():
        network.to(memory_format=layout)
    return steps(engine, real.contiguous(memory_format=layout))


def steps(engine: Engine, real: Tensor) -> Work:
    def train() -> None:
        for number in range(LATE, LATE + STEPS):
            engine.step(number, [Batch(real)])

    train()
    return train


def with_timms_products(real: Tensor) -> Work:
    ours = optimizers.orthogonal
    optimizers.orthogonal = lambda plain, *given, **options: plain(*given, **options)
    try:
        return work(real)
    finally:
        optimizers.orthogonal = ours


def on_one_thread(train: Work) -> Work:
    def alone() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        train()
        torch.set_num_threads(threads)

    return alone


def compiled(real: Tensor, ours: Work, rounds: int) -> list[str]:
    engine, start = built(), time.perf_counter()
    engine.forward.compile()
    fast = steps(engine, real)
    name = f"`train.compile: true`, after {time.perf_counter() - start:.0f} s of compiling"
    return [name, spread(alternately(ours, fast, rounds))]


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
