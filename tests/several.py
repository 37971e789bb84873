"""Trainings in float64 on one or several processes, and how far what came of them is apart.

    torchrun --nproc-per-node 2 tests/several.py OUT small 3 vae dcgan

trains recipes of the gallery in real processes, and writes what came of them to the folder OUT, a
file for each recipe and process.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import vgx
from vgx.data.batches import Batches
from vgx.distributed.processes import begin, end
from vgx.distributed.state import group
from vgx.engine.engine import Engine
from vgx.errors import Notice
from vgx.recipe.lengths import with_length
from vgx.testing.processes import in_processes

RECIPES = Path(__file__).parents[1] / "recipes"
NAMES = sorted(file.stem for file in RECIPES.glob("*.yaml"))
BATCH = 8
LATER = 2000  # a step at which every term of every recipe counts, however seldom it is computed
SAME = 1e-9  # what rounding leaves in float64
STORED = 1e-6  # and, relative to values above 1, of latents, which are stored in float32

# What makes a recipe small beside a minibatch of 8 and narrow networks.
IMAGES_16 = ("image.size=16",)
TWO_LEVELS = (*IMAGES_16, "encoder.widths=[4,8]", "decoder.widths=[8,4]")
TIMM = (*TWO_LEVELS, "latent=8", "discriminator.backbone=test_resnet", "image.size=32")
SMALL = {
    "anime_vaegan": TIMM,
    "anime_vaegan_finetune": (*TIMM, "discriminator.pretrained=false"),
    "anime_vaegan_seed": TIMM,
    # R1 leaves gradients of rounding at some biases of BatchNorm, of which Adam would make 6e-9.
    "anime_best": (*TIMM, "train.optimizers.discriminator={type: sgd, lr: 1.0e-3}"),
    "quickstart": TIMM,
    "finetune_autoencoder": (
        "start=null", "image.size=16", "latent=[4,8,8]", "encoder.widths=[8,8]",
        "decoder.widths=[8,8]", "encoder.groups=2", "decoder.groups=2",
    ),
    "projected_gan": ("image.size=32", "discriminator.size=32", "decoder.widths=[8,4]"),
    "stylegan2_ada": (
        "image.size=16", "latent=8", "decoder.widths=[8,8,4]", "decoder.styles=8",
        "discriminator.widths=[4,8,8]",
    ),
    "unet_gan": ("image.size=16", "decoder.widths=[8,4]", "discriminator.widths=[4,8]"),
    # Of more codes several vectors would be equally near: those of a residual that is 0.
    "residual_autoencoder": ("encoder.codes=8",),
}  # fmt: skip


def small(name, *settings):
    """A recipe of the gallery with networks an eighth as wide."""
    recipe = vgx.load_recipe(RECIPES / f"{name}.yaml", [*narrow(name), *settings])
    return with_length(recipe, 2 * LATER)


def narrow(name):
    """The settings that make a recipe small: `--set` of each."""
    given = ["train.batch=8", *SMALL.get(name, ())]
    recipe = vgx.load_recipe(RECIPES / f"{name}.yaml", given)
    plain = recipe.model_dump(mode="json", by_alias=True)
    return [*(f"{place}={value}" for place, value in narrower(plain)), *given]


def narrower(plain, place=""):
    """Each field of widths in a recipe, and the same widths divided by 8."""
    for key, value in plain.items():
        inner = f"{place}{key}"
        if key == "widths":
            yield inner, [max(4, width // 8) for width in value]
        elif isinstance(value, dict) and key not in ("dataset", "prior", "sampler", "eval"):
            yield from narrower(value, f"{inner}.")


def trained(recipe, first=LATER, steps=2):
    """Train on this process's share of minibatches; all tensors that came of it, by name.

    That is the terms of each step, and the state of the engine with its averages.
    """
    images = torch.rand(
        (6 * BATCH, *recipe.image.shape), generator=torch.Generator().manual_seed(5),
        dtype=torch.float64,
    )  # fmt: skip
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, C]
    classes = recipe.image.classes
    labels = np.arange(len(pixels)) % classes if classes else None
    cpu = torch.device("cpu")
    batches = Batches(pixels, recipe.train.batch, recipe.train.seed, cpu, labels)
    engine = Engine(recipe, 2 * LATER, 64, dtype=torch.float64)
    found = {}
    each, pieces = recipe.batches_per_step, recipe.train.accumulate
    for number in range(first, first + steps):
        own = [batches.shared(number * each + k, pieces) for k in range(each)]
        terms = engine.step(number, own)
        found |= {f"term {name} {number}": value.detach() for name, value in terms.items()}
    engine.refresh_average(first + steps, (batches[number] for number in range(2)))
    state = engine.state({})
    found |= state.model
    found |= {f"optimizer {name}": value for name, value in state.optimizer.items()}
    return found | {f"stored {name}": value for name, value in state.latents.items()}


def on(processes, recipe, **settings):
    """The same in simulated processes, of which each one must have the same bits."""
    first, *others = in_processes(processes, lambda: trained(recipe, **settings))
    for other in others:
        same_bits(first, other)
    return first


def same_bits(first, other):
    assert first.keys() == other.keys()
    different = [name for name in first if not torch.equal(first[name], other[name])]
    assert not different


def distances(one, several):
    """How far each tensor of one training is from that of another at most, by name."""
    assert one.keys() == several.keys()
    assert all(one[name].shape == several[name].shape for name in one)
    found = {}
    for name, each in one.items():
        if each.numel():
            distance = (each.double() - several[name].double()).abs()
            if name.startswith("stored "):
                distance /= each.abs().clamp(min=1)
            found[name] = distance.max().item()
    return found


def apart(one, several):
    """The names of tensors that are further apart than rounding, and how far they are."""
    return {
        name: distance
        for name, distance in distances(one, several).items()
        if not distance <= (STORED if name.startswith("stored ") else SAME)
    }


def main():
    out, form, steps, *names = sys.argv[1:]
    warnings.simplefilter("ignore", Notice)
    torch.set_num_threads(1)
    begin()
    for name in names:
        recipe = small(name) if form == "small" else as_written(name)
        first = LATER if form == "small" else 0
        tensors = trained(recipe, first, int(steps))
        tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
        save_file(tensors, f"{out}/{name}-{group().rank}.safetensors")
    end()


def as_written(name):
    """A recipe of the gallery with its own networks, but for what a CPU or no network allows."""
    given = ["train.batch=8", *WRITTEN.get(name, ())]
    return with_length(vgx.load_recipe(RECIPES / f"{name}.yaml", given), 2 * LATER)


# As they are written, these are too large for a test or want weights of the hub; or see above.
WRITTEN = {
    name: SMALL[name] for name in (
        "anime_best", "anime_vaegan", "anime_vaegan_seed", "anime_vaegan_finetune",
        "finetune_autoencoder",
        "stylegan2_ada", "unet_gan", "residual_autoencoder",
    )
}  # fmt: skip


if __name__ == "__main__":
    main()
