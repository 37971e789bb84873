"""What was tried for the training step and is not faster, with its times."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from speed_training import ours, random_images
from tables import ROOT, spread, table
from torch import Tensor

import vgx
from vgx.data.batches import Batch
from vgx.engine.engine import Engine

# In, out, pixels: 1x1 convolutions of ResNet50 at 96 pixels.
SHAPES = [(64, 256, 24), (256, 64, 24), (512, 128, 12), (1024, 256, 6), (2048, 512, 3)]
Work = Callable[[], object]


def tried(options: argparse.Namespace) -> str:
    batch = 4 if options.quick else 32
    rows = [
        [name, spread(alternately(plain, other, 2 if options.quick else 20))]
        for name, plain, other in [*products(batch), *normalisations(batch)]
    ]
    if not options.quick:  # compiling takes longer than all else
        rows += compiled(options, batch)
    intro = """Each candidate is timed in turns with what vgx does, in float32. A value above 1
means that the candidate is faster."""
    return f"## Tried, and not used\n\n{intro}\n\n{table(['what', 'relative to vgx'], rows)}"


def alternately(plain: Work, other: Work, rounds: int) -> list[float]:
    """Return how many times as fast the other is, for each round."""
    ratios = []
    for _ in range(rounds):
        seconds = []
        for work in (plain, other):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return ratios[1:]


def channels_last(*shape: int) -> Tensor:
    return torch.randn(*shape).to(memory_format=torch.channels_last)


def products(batch: int) -> list[tuple[str, Work, Work]]:
    """Weight gradients of 1x1 convolutions as products of matrices."""
    cases = []
    for into, out, side in SHAPES:
        x = channels_last(batch, into, side, side)
        g = channels_last(batch, out, side, side)
        w = channels_last(out, into, 1, 1)
        rows, gradients = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (x, g))  # [B*h*w, C]
        given = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])

        def plain(x: Tensor = x, g: Tensor = g, w: Tensor = w, given: tuple = given) -> object:
            return torch.ops.aten.convolution_backward(g, x, w, None, *given)

        def product(rows: Tensor = rows, gradients: Tensor = gradients) -> object:
            return gradients.T @ rows

        size = f"{into} -> {out} at {side}x{side}"
        name = f"weight gradient of a 1x1 convolution {size} as a matrix product"
        cases.append((name, plain, product))
    return cases


def normalisations(batch: int) -> list[tuple[str, Work, Work]]:
    """BatchNorm backward by its formula: three passes over the memory instead of the kernel's."""
    cases = []
    for width, side in ((256, 24), (512, 12), (2048, 3)):
        x, g = channels_last(batch, width, side, side), channels_last(batch, width, side, side)
        w, zero, one = torch.rand(width), torch.zeros(width), torch.ones(width)
        _, mean, scale = torch.native_batch_norm(x, w, zero, zero, one, True, 0.1, 1e-5)
        rows, gradients = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (x, g))  # [B*h*w, C]

        def plain(given: tuple = (g, x, w, zero, one, mean, scale)) -> object:
            mask = [True, True, True]
            return torch.ops.aten.native_batch_norm_backward(*given, True, 1e-5, mask)

        def formula(given: tuple = (rows, gradients, w, mean, scale)) -> object:
            x, g, w, mean, scale = given
            total = g.sum(0)
            slope = ((g * x).sum(0) - mean * total) * scale
            a = w * scale
            b = -a * scale * slope / len(x)
            return torch.addcmul(-a * total / len(x) - b * mean, x, b).addcmul_(g, a)

        cases.append(
            (f"BatchNorm backward by its formula, {width} at {side}x{side}", plain, formula)
        )
    return cases


def compiled(options: argparse.Namespace, batch: int) -> list[list[str]]:
    recipe = vgx.load_recipe(ROOT / "recipes" / "anime_vaegan.yaml", {"augment": []})
    real, engine = random_images(batch, 96), Engine(recipe, 1000)
    plain = ours(96, "resnet50")
    engine.forward.compile()

    def fast() -> object:
        return {name: v.item() for name, v in engine.step(0, [Batch(real)]).items()}

    start = time.perf_counter()
    fast()
    seconds = time.perf_counter() - start
    plain(real)
    ratios = alternately(lambda: plain(real), fast, options.rounds + 1)
    return [[f"`train.compile: true`, after {seconds:.0f} s of compiling", spread(ratios)]]
