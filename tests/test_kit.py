"""The author's kit: each check of the contract can fail, and what `vgx new-plugin` makes passes."""

from __future__ import annotations

import itertools
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ConfigDict, Field, PositiveFloat
from safetensors.torch import load_file
from torch import nn

import vgx
from vgx.parts.kinds import KINDS
from vgx.testing import check_part, full_step

# --- parts that keep their contract, each broken in one place below ------------------------------


class Dots(vgx.Dataset, type="dots"):
    """Pictures of one grey each, labelled in turn."""

    break_: str = ""
    """What is wrong."""

    def build(self, image):
        return Greys(self.break_)


class Greys:
    def __init__(self, wrong):
        self.wrong, self.reads = wrong, 0
        self.fingerprint = f"dots {id(self)}" if wrong == "fingerprint" else "dots"
        if wrong == "no fingerprint":
            self.fingerprint = None

    def __len__(self):
        return 0 if self.wrong == "empty" else 5

    def __getitem__(self, index):
        if index >= 5 and self.wrong != "endless":
            raise IndexError(index)
        if index == 3:
            raise vgx.Dropped("third")
        self.reads += self.wrong == "moves"
        picture = Image.new("L", (4, 4), 10 * index + self.reads)
        if self.wrong in ("array", "a good array"):
            shape = (4, 4) if self.wrong == "a good array" else 16
            return np.asarray(picture).reshape(shape)
        return picture.tobytes() if self.wrong == "bytes" else picture

    def label(self, index):
        return 7 if self.wrong == "label" else index % 2


class Dim(vgx.Augmentation, type="dim"):
    """Darken each picture by its own factor."""

    break_: str = ""
    """What is wrong."""

    def build(self, image):
        return self.change

    def change(self, images, generator):  # noqa: C901
        rows = 1 if self.break_ == "batch" else len(images)
        factor = images.new_empty(rows, 1, 1, 1).uniform_(generator=generator)
        if self.break_ == "images second":
            factor = images.new_empty(2, rows).uniform_(generator=generator)[1].view(-1, 1, 1, 1)
        if self.break_ == "order":
            factor = factor[torch.randperm(rows, generator=generator)]
        if self.break_ == "brightest":
            factor = factor * images.mean((1, 2, 3), keepdim=True) / images.mean()
        if self.break_ == "ambient":
            factor = torch.rand_like(factor)
        if self.break_ == "in place":
            return images.mul_(0.5)
        if self.break_ == "range":
            factor = factor * 3
        if self.break_ == "shape":
            return images[:, :, 1:]
        if self.break_ == "nan":
            return images / 0 * 0
        if self.break_ == "double":
            return images.double() * factor
        if self.break_ == "cut off":
            return (images * factor).detach()
        if self.break_ == "root":  # its slope at 0 is infinite
            return (images * factor).sqrt()
        return images * factor


def centred(rows):
    """Rows less the mean of those of all processes, with the slope of their own mean alone."""
    mean = rows.mean(0)
    return rows - mean + mean.detach() - vgx.mean_over_processes(mean.detach())


class Net(nn.Module):
    """One linear layer, and what a test breaks."""

    def __init__(self, before, after, wrong):
        super().__init__()
        self.linear, self.wrong = nn.Linear(before, after), wrong
        self.hidden = torch.rand(())  # in no state_dict
        if wrong == "counts":
            self.register_buffer("mean", torch.zeros(()))
        if wrong == "unused":
            self.extra = nn.Parameter(torch.zeros(3))
        if wrong == "numpy":
            self.linear.weight.data += float(np.random.default_rng().random())

    def run(self, inputs):
        flat = inputs.flatten(1)
        if self.wrong == "in place" and not flat.requires_grad:
            inputs.mul_(0.5)
        if self.wrong == "neighbours":
            flat = flat + flat.mean(0)
        if self.wrong == "no_grad":
            with torch.no_grad():
                return self.linear(flat)
        if self.wrong == "own norm" and self.training:
            flat = (flat - flat.mean(0)) / (flat.std(0) + 1)
        if self.wrong == "features first" and self.training:
            flat = flat * nn.functional.dropout(torch.ones_like(flat).T, 0.5).T
        if self.wrong == "counts" and self.training:
            self.mean.copy_(flat.detach().mean())
        if self.wrong == "cut off":
            flat = flat.detach()
        if self.wrong == "dropout":
            flat = nn.functional.dropout(flat, 0.5, training=True)
        if self.wrong == "pairs" and len(flat) == 2:
            raise ValueError("BatchNorm wants more")
        outputs = self.linear(flat) + (self.hidden if self.wrong == "state" else 0)
        return centred(outputs) if self.wrong == "own gradient" and self.training else outputs


class Flat(vgx.Encoder, type="flat"):
    """One linear layer for mu and logvar."""

    break_: str = ""
    """What is wrong."""

    def build(self, image, latent):
        if self.break_ == "function":
            return lambda images: images
        return FlatNet(image.pixel_values, 2 * latent.shape[0], self.break_)


class FlatNet(Net):
    def forward(self, images):
        mu, logvar = self.run(images).chunk(2, 1)
        if self.wrong == "sample":
            return Loose(mu, logvar)
        if self.wrong == "a tuple":
            return Pair(mu, logvar)
        return vgx.Gaussian(mu[:, 1:] if self.wrong == "shape" else mu, logvar)


class Loose(vgx.Gaussian):
    def sample(self, generator):
        return self.mu + torch.randn_like(self.mu)


class Pair(NamedTuple):
    mean: torch.Tensor
    logvar: torch.Tensor

    def sample(self, generator):
        return vgx.Gaussian(*self).sample(generator)


class Painter(vgx.Decoder, type="painter"):
    """One linear layer from latents to logits."""

    break_: str = ""
    """What is wrong."""

    def build(self, latent, image):
        return PainterNet(latent.shape[0], image.pixel_values, self.break_, image.shape)


class PainterNet(Net):
    def __init__(self, before, after, wrong, size):
        super().__init__(before, after, wrong)
        self.size = size

    def forward(self, z):
        logits = self.run(z).unflatten(1, self.size)
        return logits.sigmoid() if self.wrong == "sigmoid" else logits


class Labelled(vgx.Decoder, type="labelled"):
    """The same, moved by the label's embedding."""

    conditional = True

    def build(self, latent, image):
        return LabelledNet(latent.shape[0], image)


class LabelledNet(nn.Module):
    def __init__(self, before, image):
        super().__init__()
        self.linear = nn.Linear(before, image.pixel_values)
        self.embedding = nn.Embedding(image.classes, image.pixel_values)
        self.size = image.shape

    def forward(self, z, labels):
        return (self.linear(z) + self.embedding(labels)).unflatten(1, self.size)


class Critic(vgx.Discriminator, type="critic"):
    """One linear layer from pixels to a logit."""

    break_: str = ""
    """What is wrong."""

    def build(self, image, latent):
        return CriticNet(image.pixel_values, 1, self.break_)


class CriticNet(Net):
    def forward(self, images):
        logits = self.run(images)
        if self.wrong == "tensor":
            return logits
        if self.wrong == "one number":
            return vgx.Score(logits.mean().view(1, 1))
        if self.wrong == "flat":
            return vgx.Score(logits.squeeze(1))
        return vgx.Score(logits, (images.mean() if self.wrong == "features" else images,))


class Gap(vgx.Loss, type="gap"):
    """Mean squared error for one player, a mean of logits for the other."""

    break_: str = ""
    """What is wrong."""

    def generator(self, step):  # noqa: C901, PLR0912
        if self.break_ == "silent":
            return None
        difference = (step.recon - step.real) ** 2
        if self.break_ == "spread":
            return difference.mean((1, 2, 3)).var(correction=0)
        if self.break_ == "root of a mean":
            return difference.mean().sqrt()
        if self.break_ == "sum":
            return difference.sum()
        if self.break_ == "vector":
            return difference.mean((1, 2, 3))
        if self.break_ == "nan":
            return difference.mean() * torch.inf
        if self.break_ == "detached":
            return difference.mean().detach()
        if self.break_ == "wrong player":
            return step.real_score.logits.mean()
        if self.break_ == "weights":
            return step.parameters("discriminator")["weight"].mean()
        if self.break_ == "ambient":
            return (difference * torch.rand_like(difference)).mean()
        if self.break_ == "in place":
            step.real.clamp_(0.1, 0.9)
        if self.break_ == "backward":
            difference.mean().backward(retain_graph=True)
        if self.break_ == "root":
            return (difference * 0).sqrt().mean()
        if self.break_ == "misspelt":
            return step.reconstruction.mean()
        return difference.mean()

    def discriminator(self, step):
        if self.break_ == "silent":
            return None
        if self.break_ == "leak":
            return step.discriminator(step.recon).logits.mean()
        if self.break_ == "judge's spread":
            return step.real_score.logits.mean((1, 2, 3)).var(correction=0)
        if self.break_ == "weights leak":
            return step.parameters("decoder")["weight"].mean()
        return step.fake_score.logits.mean()


class Learned(vgx.Loss, type="learned"):
    """A loss with a weight of its own."""

    break_: str = ""
    """What is wrong."""

    def build(self, image, latent):
        return LearnedNet(self.break_)


class LearnedNet(nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.wrong, self.hidden = wrong, torch.rand(())
        self.log_scale = nn.Parameter(torch.randn(()))

    def generator(self, step):
        scale = self.hidden if self.wrong == "state" else self.log_scale
        scale = scale.detach() if self.wrong == "untrained" else scale
        return (step.recon - step.real).abs().mean() * scale.exp() + scale


DRAWN = itertools.count(1.0)


class Spread(vgx.Prior, type="spread"):
    """A Gaussian with a learned deviation."""

    break_: str = ""
    """What is wrong."""

    def build(self, latent, codes):
        return Wide(self.break_, codes.shape)


class Wide(nn.Module):
    def __init__(self, wrong, shape):
        super().__init__()
        self.wrong, self.shape = wrong, shape
        self.logs = nn.Parameter(torch.full(shape, next(DRAWN) if wrong == "drawn" else 0.0))
        self.spare = nn.Parameter(torch.ones(1)) if wrong == "unused" else None

    def loss(self, codes, generator):
        if self.wrong == "noise":
            codes = codes + torch.rand_like(codes)
        each = (codes / self.logs.exp()) ** 2 / 2 + self.logs
        if self.wrong == "detached":
            return each.mean().detach()
        return each.mean((1,)) if self.wrong == "vector" else each.mean()

    def draw(self, n, generator):
        noise = torch.randn((n, *self.shape), generator=generator)
        if self.wrong == "ambient":
            noise = torch.randn(n, *self.shape)
        if self.wrong == "few":
            noise = noise[:-1]
        return noise * self.logs.exp().detach()


class Near(vgx.Sampler, type="near"):
    """A Gaussian about the mean of the codes."""

    break_: str = ""
    """What is wrong."""

    def build(self, latent):
        if self.break_ == "unsaved":
            return Unsaved(self.break_, latent)
        if self.break_ == "least":
            return First()
        return NearDrawer(self.break_, latent)

    def pictures(self, image):
        return Greys("endless") if self.break_ == "pictures" else None

    @property
    def row_length(self):
        return 0 if self.break_ == "rows" else 2

    @property
    def least_codes(self):
        return 0 if self.break_ == "least" else 1

    def for_kl(self, kl):
        return None if self.break_ == "kl" else self

    def captions(self, n, codes, kl):
        return ["first"] if self.break_ == "captions" else ["row"] * math.ceil(n / 2)


class NearDrawer:
    def __init__(self, wrong, latent):
        self.wrong, self.latent, self.mean = wrong, latent, None

    def draw_class(self, label, n, codes, generator):
        return self.draw(n + (self.wrong == "class"), codes, generator)

    def fit(self, codes):
        self.mean = codes.mean(0)
        self.hidden = float(self.mean.sum())
        if self.wrong == "fit":
            self.mean = self.mean + torch.rand(())
        if self.wrong == "spoils":
            codes.zero_()

    def draw(self, n, codes, generator):
        if self.wrong == "shape":
            return torch.randn(n, 3, generator=generator)
        if self.wrong == "number":
            return torch.randn(*self.latent.shape, n, generator=generator).mT.reshape(
                n, *self.latent.shape
            )
        if self.wrong == "ambient":
            return torch.randn(n, *self.latent.shape)
        rows = [torch.randn(self.latent.shape, generator=generator) for _ in range(n)]
        z = torch.stack(rows) + self.mean
        if self.wrong == "state":
            z = z + self.hidden
        return z.double() if self.wrong == "double" else z

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean, self.hidden = state["mean"], 0.0


class First:
    def draw(self, n, codes, generator):
        return codes[[0] * n]


class Unsaved:
    def __init__(self, wrong, latent):
        self.latent = latent

    def fit(self, codes):
        pass

    def draw(self, n, codes, generator):
        return torch.stack([torch.randn(self.latent.shape, generator=generator) for _ in range(n)])


class Means(vgx.Features, type="means"):
    """The mean of each channel."""

    break_: str = ""
    """What is wrong."""

    def build(self, image):
        return Eye(self.break_)


class Eye(nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.wrong, self.weight = wrong, nn.Parameter(torch.ones(3), wrong == "trained")
        self.noise = torch.rand(3) if wrong == "drawn" else 0

    def forward(self, images):
        if self.wrong == "in place":
            images.zero_()
        if self.wrong == "map":
            return images
        seen = images.mean((2, 3)) * self.weight + self.noise
        if self.wrong == "batch":
            seen = seen - seen.mean(0)
        return seen + torch.rand(3) if self.wrong == "ambient" else seen


class Brightness(vgx.Metric, type="brightness"):
    """Difference of mean brightness."""

    break_: str = ""
    """What is wrong."""

    def build(self, image):
        return Meter(self.break_)

    def why_not(self, image, real, generated):
        return {"refuses": "the moon is full", "says nothing": None}.get(self.break_, "")


class Meter:
    def __init__(self, wrong):
        self.wrong, self.sums, self.seen, self.reads = wrong, [0.0, 0.0], 0, 0

    def update(self, real, fake):
        self.sums = [
            a + float(b.double().mean()) for a, b in zip(self.sums, (real, fake), strict=True)
        ]
        self.seen += 1
        if self.wrong == "in place":
            fake.zero_()

    def compute(self):
        self.reads += 1
        seen = {"batches": 1, "moves": self.seen + self.reads}.get(self.wrong, self.seen)
        value = (self.sums[0] - self.sums[1]) / seen
        if self.wrong == "ambient":
            value += torch.initial_seed()
        if self.wrong == "tensor":
            value = torch.tensor(value)
        if self.wrong == "nan":
            value = float("nan")
        name = "darkness" if self.wrong == "name" else "brightness"
        return {} if self.wrong == "empty" else {name: value}


class Diary(vgx.Tracker, type="diary"):
    """Lines in a file beside the run."""

    break_: str = ""
    """What is wrong."""

    def build(self, run):
        return Pages(self.break_, run)


class Pages:
    def __init__(self, wrong, run):
        self.wrong = wrong
        inside = run / "diary" if wrong == "inside" else run.with_name("diary")
        inside.mkdir(exist_ok=wrong != "once")
        self.file = (inside / "lines").open("a")
        if wrong == "log":
            (run / "log.jsonl").write_text("")

    def log(self, step, values):
        self.file.write(f"{step} {values}\n")
        if self.wrong == "values":
            values.clear()

    def images(self, step, name, grid):
        if self.wrong == "grid":
            grid.zero_()

    def close(self):
        self.file.close()


GOOD = [Dots, Dim, Flat, Painter, Labelled, Critic, Gap, Learned, Near, Means, Brightness, Diary]
GOOD += [Spread]


@pytest.mark.parametrize("cls", GOOD, ids=lambda cls: cls.type)
def test_a_good_part_passes(cls):
    check_part(cls())


def test_a_data_set_may_give_arrays():
    check_part(Dots(break_="a good array"))


def test_the_good_ones_are_of_every_kind():
    assert {cls.kind for cls in GOOD} == {kind.kind for kind in KINDS}


BROKEN = [
    (Dots, "fingerprint", "its fingerprint is another each time"),
    (Dots, "no fingerprint", "is empty or no string"),
    (Dots, "empty", "it has no images"),
    (Dots, "endless", r"it has 5 images, and \[5\] raises no IndexError"),
    (Dots, "moves", "the same index gives another image the second time"),
    (Dots, "array", r"\[0\] is an array \(16,\) of uint8, not \[H, W\] or \[H, W, C\]"),
    (Dots, "bytes", r"\[0\] is a bytes, no PIL image and no array"),
    (Dim, "batch", "changes all images of a batch alike"),
    (Dim, "ambient", "draws from something else than the generator"),
    (Dim, "in place", "changes images in place"),
    (Dim, "range", r"images leave \[0, 1\]"),
    (Dim, "shape", r"shape \(8, 3, 15, 16\), not \(8, 3, 16, 16\)"),
    (Dim, "nan", "not all finite numbers"),
    (Dim, "double", r"it makes torch\.float64 of torch\.float32"),
    (Dim, "cut off", "no gradient passes through it"),
    (Dim, "root", "the gradient that passes through it is not finite"),
    (Flat, "function", r"build does not give a torch\.nn\.Module"),
    (Flat, "numpy", "its first weights draw not only from torch"),
    (Flat, "in place", "changes its input in place"),
    (Flat, "shape", r"its posterior's mean: shape \(8, 7\), not \(8, 8\)"),
    (Flat, "sample", "its posterior's sample draws from something else"),
    (Flat, "unused", "no gradient reaches its extra"),
    (Flat, "no_grad", "leads to no weight"),
    (Flat, "dropout", "in evaluation mode the same input gives another output"),
    (Flat, "state", "saved and loaded it gives another output"),
    (Flat, "neighbours", "its mean depends on the batch's other images"),
    (Flat, "pairs", "it raises ValueError: BatchNorm wants more"),
    (Painter, "sigmoid", r"it gives images in \[0, 1\]"),
    (Painter, "cut off", "no gradient reaches its input"),
    (Painter, "neighbours", "its logits depends on the batch's other images"),
    (Critic, "tensor", r"it gives a Tensor, not a vgx\.Score"),
    (Critic, "one number", r"its logits are \(1, 1\), not \[B, 1\] or \[B, 1, h, w\] with B = 8"),
    (Critic, "flat", r"its logits are \(8,\), not \[B, 1\] or \[B, 1, h, w\] with B = 8"),
    (Critic, "features", r"its features\[0\]: shape \(\), not \(8,\)"),
    (Gap, "sum", "its generator's term is no mean over the batch"),
    (Gap, "vector", r"its generator's term is of shape \(8,\), not a scalar: end it with .mean"),
    (Gap, "nan", "its generator's term is not finite"),
    (Gap, "detached", "its generator's term has no gradient"),
    (Gap, "wrong player", "its generator's term reaches no output of the generator"),
    (Gap, "ambient", r"its generator's term draws from something else than step\.rng"),
    (Gap, "in place", "its generator's term changes the step in place"),
    (Gap, "backward", r"its generator's term calls backward\(\)"),
    (Gap, "root", "the gradient in recon is not finite"),
    (Gap, "misspelt", "it raises AttributeError: .*reconstruction"),
    (Gap, "leak", r"leads into the generator: use step\.recon\.detach\(\)"),
    (Gap, "weights", "its generator's term reaches no output of the generator"),
    (Gap, "weights leak", "its discriminator's term has no gradient"),
    (Gap, "silent", "it has no term"),
    (Learned, "state", "saved and loaded its generator's term is another"),
    (Learned, "untrained", "no gradient of its generator's term reaches its weight log_scale"),
    (Near, "shape", r"its latents: shape \(5, 3\), not \(5, 8\)"),
    (Near, "number", "its latent i depends on how many are drawn: 5 or 2"),
    (Near, "ambient", "draws from something else than the generator"),
    (Near, "double", r"makes torch\.float64 latents"),
    (Near, "fit", "fitted twice to the same codes it learns something else"),
    (Near, "spoils", "changes codes in place"),
    (Near, "state", "saved and loaded it draws something else"),
    (Near, "unsaved", "it has fit, but not state_dict"),
    (Near, "pictures", r"\[5\] raises no IndexError"),
    (Near, "rows", "its row_length is 0; it must be None or above 0"),
    (Near, "least", "its least_codes is 0, but that number fails: IndexError"),
    (Near, "kl", "its for_kl returns something else than a sampler"),
    (Near, "captions", r"its captions are \['first'\]; give a text for each row: 3"),
    (Brightness, "batches", "its brightness depends on how the images are cut into batches"),
    (Brightness, "moves", r"compute\(\) gives something else the second time"),
    (Brightness, "ambient", "the same images give other numbers"),
    (Brightness, "tensor", "as brightness, no finite float"),
    (Brightness, "nan", "as brightness, no finite float"),
    (Brightness, "name", r"compute\(\) gives other values than gives says: \['darkness'\]"),
    (Brightness, "refuses", "it cannot compare 8 images of 16 x 16 pixels: the moon is full"),
    (Brightness, "says nothing", r"why_not\(\) gives None, no text"),
    (Brightness, "empty", r"compute\(\) gives {}"),
    (Means, "in place", "changes images in place"),
    (Means, "map", r"no tensor \[N, F\]"),
    (Means, "trained", "lead to weights"),
    (Means, "ambient", "other features the second time"),
    (Means, "drawn", "built twice it gives other features"),
    (Means, "batch", "depend on the others in its batch"),
    (Brightness, "in place", "changes images in place"),
    (Diary, "inside", "it writes into the run's directory"),
    (Diary, "log", "it writes into the run's directory"),
    (Diary, "once", "it raises FileExistsError"),
    (Diary, "values", "it changes the values that it is given"),
    (Diary, "grid", "changes its image in place"),
    (Spread, "drawn", "its first weights draw not only from torch"),
    (Spread, "unused", "no gradient reaches its spare"),
    (Spread, "noise", "its loss draws from something else than the generator"),
    (Spread, "detached", "its loss leads to no weight"),
    (Spread, "vector", r"its loss: shape \(8,\), not \(\)"),
    (Spread, "ambient", "it draws from something else than the generator"),
    (Spread, "few", r"what it draws: shape \(7, 8\), not \(8, 8\)"),
]


ROWS = "draw for each image in the first dimension, and where several images are looked at use vgx"
BROKEN += [
    (Dim, "images second", f"two processes give another value of what it gives than one: {ROWS}"),
    (
        Dim,
        "brightest",
        rf"value of what it gives .*{ROWS}.gather and vgx.own_rows, vgx.mean_over_pro",
    ),
    (Dim, "order", r"on two processes it raises RecipeError: randperm draws .*vgx\.replicated\(\)"),
    (Flat, "a tuple", "it gives a Pair; return .* no tuple, and without __slots__"),
    (Flat, "own norm", f"two processes give another value of its mean than one: {ROWS}"),
    (Flat, "features first", f"two processes give another value of its mean than one: {ROWS}"),
    (Flat, "own gradient", f"value of the gradient of its weights than one: {ROWS}"),
    (Flat, "counts", f"two processes give another value of its mean than one: {ROWS}"),
    (Painter, "own norm", f"two processes give another value of its logits than one: {ROWS}"),
    (Critic, "own norm", f"two processes give another value of its logits than one: {ROWS}"),
    (Critic, "features first", f"two processes give another value of its logits than one: {ROWS}"),
    (Gap, "spread", "another value of its generator's term than .*or say across_batch = True"),
    (
        Gap,
        "root of a mean",
        "the gradient of its generator's term in recon than one.*vgx.mean_over_processes",
    ),
    (Gap, "judge's spread", "another value of its discriminator's term than one"),
]


@pytest.mark.parametrize(("cls", "wrong", "message"), BROKEN, ids=lambda v: getattr(v, "type", v))
def test_a_broken_part_is_told_by_name(cls, wrong, message):
    with pytest.raises(AssertionError, match=message) as fault:
        check_part(cls(break_=wrong))
    whose = f"{cls.kind} '{cls.type}' ({cls.__name__}) breaks its contract:\n- "
    assert str(fault.value).startswith(whose)


def test_latents_of_a_class_are_drawn_where_there_are_classes():
    with pytest.raises(AssertionError, match=r"latents of a class: shape \(3, 8\), not \(2, 8\)"):
        check_part(Near(break_="class"), image=vgx.ImageSpec(16, classes=3))
    check_part(Near(break_="class"))
    check_part(Near(), image=vgx.ImageSpec(16, classes=3))


class Declared(vgx.Loss, type="declared"):
    """The spread of distances, which says that it looks across the images."""

    across_batch = True

    def generator(self, step):
        return (step.recon - step.real).square().mean((1, 2, 3)).var(correction=0)


class Nearest(vgx.Loss, type="nearest"):
    """The smallest distance between two images, which is 0 when each is there twice."""

    across_batch = True

    def generator(self, step):
        return torch.pdist(step.recon.flatten(1)).min()


class Averaged(vgx.Loss, type="averaged"):
    """The root of a mean over the images of all processes."""

    def generator(self, step):
        return vgx.mean_over_processes((step.recon - step.real).square().mean()).sqrt()


class Ranked(vgx.Augmentation, type="ranked"):
    """Darken by the brightness beside that of all images, in an order that is drawn for all."""

    def build(self, image):
        return self.change

    def change(self, images, generator):
        every = vgx.gather(images.mean((1, 2, 3), keepdim=True))
        with vgx.replicated():
            order = torch.randperm(len(every), generator=generator)
        factor = vgx.own_rows((every / every.max())[order])
        own = images.new_empty(len(images), 1, 1, 1).uniform_(generator=generator)
        return images * factor * own * torch.rand((), generator=generator)


@pytest.mark.parametrize("cls", [Declared, Nearest, Averaged, Ranked], ids=lambda cls: cls.type)
def test_a_part_that_looks_across_images_as_the_tutorial_says_passes(cls):
    check_part(cls())


@pytest.mark.parametrize(
    ("name", "made", "right"),
    [
        ("error", torch.Tensor.tolist, True),
        ("other", torch.Tensor.tolist, False),  # which compute() does not give
        ("error", lambda each: (each + 1).tolist(), False),
        ("error", lambda each: each.tolist()[:4], False),
        ("error", list, False),  # tensors
    ],
)
def test_the_values_of_images_have_the_mean_that_a_metric_gives(name, made, right):
    class Each(vgx.Metric, type="each"):
        """The mean error of each image."""

        pairs = True
        gives = ("error",)

        def build(self, image):
            return Errors()

    class Errors:
        def __init__(self):
            self.rows = []

        def update(self, real, fake):
            self.rows += (real - fake).double().abs().mean((1, 2, 3))

        def compute(self):
            return {"error": float(torch.stack(self.rows).mean())}

        def per_image(self):
            return {name: made(torch.stack(self.rows))}

    if right:
        check_part(Each())
        return
    with pytest.raises(AssertionError, match="per_image.. does not give 8 floats with the mean"):
        check_part(Each())


def test_all_that_is_wrong_is_told_at_once_and_an_exception_keeps_its_traceback():
    class Both(vgx.Loss, type="both"):
        """Undocumented"""

        much: float = 1.0

        def generator(self, step):
            raise ZeroDivisionError("by nothing")

    with pytest.raises(AssertionError) as fault:
        check_part(Both())
    assert str(fault.value).splitlines() == [
        "loss 'both' (Both) breaks its contract:",
        "- its docstring is its documentation, and has fewer than four words",
        "- its field much has no docstring below it",
        "- it raises ZeroDivisionError: by nothing",
    ]
    assert isinstance(fault.value.__cause__, ZeroDivisionError)


def test_the_tutorial_shows_what_is_told():
    class Huber(vgx.Loss, type="huber"):
        """Huber distance between image and reconstruction, mean over pixels (Huber 1964)."""

        delta: PositiveFloat = 1.0

        def generator(self, step: vgx.Step):
            return nn.functional.huber_loss(step.recon, step.real, "sum", delta=self.delta)

    with pytest.raises(AssertionError) as fault:
        check_part(Huber())
    tutorial = Path(__file__).parents[1] / "docs" / "plugin-tutorial.md"
    assert f"```text\n{fault.value}\n```" in tutorial.read_text()


def test_labels_are_looked_at_where_there_are_classes():
    check_part(Dots(break_="label"))
    with pytest.raises(AssertionError, match=r"label\(0\) is 7, no int below 2"):
        check_part(Dots(break_="label"), image=vgx.ImageSpec(16, classes=2))


class Codebook(nn.Module):
    """Eight latents, moved by the label; the nearest one is that of an image."""

    codes = 8

    def __init__(self, pixels, size):
        super().__init__()
        self.layer, self.moves = nn.Linear(pixels, size), nn.Embedding(3, size)
        self.vectors = nn.Parameter(torch.randn(self.codes, size))

    def forward(self, images, labels):
        found = self.layer(images.flatten(1)) + self.moves(labels)
        indices = torch.cdist(found, self.vectors).argmin(1)
        mean = self.from_indices(indices) + (found - found.detach())
        return SimpleNamespace(mean=mean, indices=indices, sample=lambda generator: mean)

    def from_indices(self, indices):
        return self.vectors[indices]


def test_a_quantising_encoder_may_take_labels():
    class Book(vgx.Encoder, type="book"):
        """Vectors of a codebook, by image and label."""

        conditional = True

        def build(self, image, latent):
            return Codebook(image.pixel_values, latent.size)

    check_part(Book())


def test_a_conditional_prior_gets_no_labels_where_there_are_no_classes():
    class ByLabel(vgx.Prior, type="by-label"):
        """A mean of each label."""

        conditional = True

        def build(self, latent, codes):
            return LabelMeans(codes)

    class LabelMeans(nn.Module):
        def __init__(self, codes):
            super().__init__()
            self.means = nn.Parameter(torch.zeros(codes.classes or 1, *codes.shape))
            self.classes = codes.classes

        def of(self, n, labels):
            assert (labels is None) == (self.classes == 0)
            return self.means.expand(n, -1) if labels is None else self.means[labels]

        def loss(self, codes, labels, generator):
            return (codes - self.of(len(codes), labels)).square().mean()

        def draw(self, n, labels, generator):
            return self.of(n, labels) + torch.randn(n, 8, generator=generator)

    for classes in (0, 3):
        check_part(ByLabel(), image=vgx.ImageSpec(16, classes=classes))


def test_what_a_recipe_cannot_say_is_told():
    class Quiet(vgx.Loss, type="quiet"):
        """A field that is changed on its way in."""

        model_config = ConfigDict(extra="ignore")
        scale: PositiveFloat = 1.0
        """A factor that is doubled when it is read."""

        def model_post_init(self, context):
            object.__setattr__(self, "scale", self.scale * 2)

        def generator(self, step):
            return (step.recon - step.real).abs().mean() * self.scale

        def note(self, image):
            return None

        def note_beside(self, losses, image):
            return len(losses)

        def untrained(self):
            return Gap()

    with pytest.raises(AssertionError) as fault:
        check_part(Quiet())
    assert "written to a recipe and read again it is Quiet" in str(fault.value)
    assert "its model_config is not that of parts" in str(fault.value)
    assert "note() gives no string" in str(fault.value)
    assert "note_beside() gives no string" in str(fault.value)
    assert "untrained() gives another part" in str(fault.value)


def test_parts_within_parts_are_written_and_read():
    class Twice(vgx.Encoder, type="twice"):
        """Another encoder, and a few losses beside it."""

        inner: vgx.Encoder = Flat()
        """The encoder."""
        losses: tuple[vgx.Loss, ...] = (Gap(),)
        """Losses."""
        named: dict[str, vgx.Loss] = Field(default={"gap": Gap()})
        """Losses by name."""

        def build(self, image, latent):
            return self.inner.build(image, latent)

    check_part(Twice())
    check_part(Twice(inner=Twice(), losses=()))
    with pytest.raises(AssertionError, match="no gradient reaches its extra"):
        check_part(Twice(inner=Flat(break_="unused")))


def test_the_caller_says_what_is_around_a_part():
    class Only(vgx.Loss, type="only"):
        """For greyscale pictures and a posterior of its own."""

        def generator(self, step):
            assert step.real.shape[1:] == (1, 8, 8)
            return step.posterior.energy.mean() * step.progress

    class Own:
        def __init__(self, energy):
            self.energy = energy

    image = vgx.ImageSpec(8, channels=1)
    step = replace(full_step(image), posterior=Own(torch.ones(8, 5)))
    check_part(Only(), image=image, step=step)
    with pytest.raises(AssertionError, match="- it raises AssertionError: "):
        check_part(Only())


def test_a_step_has_everything_and_is_the_same_each_time():
    step, again = full_step(vgx.ImageSpec(8, classes=3)), full_step(vgx.ImageSpec(8, classes=3))
    assert [name for name, value in vars(step).items() if value is None] == []
    assert step.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert torch.equal(step.recon, again.recon)
    assert torch.equal(step.recon, step.recon_logits.sigmoid())
    assert len(step.fake_score.logits) == 2 * len(step.real_score.logits) == 16
    assert step.discriminator(step.real).logits.shape == (8, 1)
    assert full_step().labels is None


# --- vgx new-plugin ------------------------------------------------------------------------------


@pytest.fixture
def vgx_here(tmp_path, monkeypatch, capfd):
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments):
        code = run_program(arguments)
        return code, *capfd.readouterr()

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Swirl"], "no name for a package"),
        (["../swirl"], "no name for a package"),
        (["swirl\n"], "no name for a package"),
        (["vgx-"], "no name for a package"),
        (["swirl--x"], "no name for a package"),
        (["import"], "Python has a 'import' already"),
        (["torch"], "Python has a 'torch' already"),
        (["vgx"], "Python has a 'vgx' already"),
        (["vgx-hinge"], "vgx has a loss 'hinge' already"),
        (["vgx-conv", "--kind", "encoder"], "vgx has a encoder 'conv' already"),
        (["vgx-swirl", "--kind", "lose"], r"no kind 'lose'; .*did you mean 'loss'\?"),
        (["taken"], "taken: is already there"),
        (["a" * 65], r"is no name for a package: write at most 64 lowercase"),
        (["a" * 3000], r"^vgx: 'a{80}' is no name"),
        (["a-" * 140 + "a"], "is no name for a package"),
        (["a\n"], r"'a\\n' is no name"),
        (["../x"], "is no name for a package"),
    ],
)
def test_a_name_that_would_not_do_is_refused_and_nothing_is_written(
    vgx_here, tmp_path, arguments, message
):
    (tmp_path / "taken").mkdir()
    code, out, err = vgx_here("new-plugin", *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_the_help_names_every_kind(vgx_here):
    _, out, _ = vgx_here("new-plugin", "--help")
    assert all(kind.kind in out for kind in KINDS)


def test_a_loss_is_made_unless_another_kind_is_asked_for(vgx_here, tmp_path):
    code, out, _ = vgx_here("new-plugin", "vgx-deep-swirl")
    assert code == 0
    made = tmp_path / "vgx-deep-swirl"
    names = ["README.md", "pyproject.toml", "test_vgx_deep_swirl.py", "vgx_deep_swirl.py"]
    assert sorted(file.name for file in made.iterdir()) == names
    assert all(f"vgx-deep-swirl/{name}" in out for name in names)
    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["vgx"] == {"deep-swirl": "vgx_deep_swirl"}
    registry = vgx.discover([made / "vgx_deep_swirl.py"])
    assert registry.part("loss", "deep-swirl").__name__ == "DeepSwirlLoss"
    assert vgx_here("new-plugin", "vgx-deep-swirl")[0] == 2


@pytest.mark.parametrize("kind", [kind.kind for kind in KINDS])
def test_what_is_made_is_typed_out_whole_and_keeps_its_contract(vgx_here, tmp_path, kind):
    assert vgx_here("new-plugin", "vgx-swirl", "--kind", kind)[0] == 0
    made = tmp_path / "vgx-swirl"
    for file in made.iterdir():
        assert "$" not in file.read_text()
    registry = vgx.discover([made / "vgx_swirl.py"])
    part = registry.part(kind, "swirl")
    assert part.__name__ == f"Swirl{kind.capitalize()}"
    check_part(part())
    check_part(part(), image=vgx.ImageSpec(10, channels=1), latent=vgx.LatentSpec((2, 3, 3)))
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", made],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.slow
def test_the_example_packages_install_and_pass_their_own_tests(tmp_path):
    examples = Path(__file__).parents[1] / "docs" / "examples"
    spectra, began, huber = (examples / f"vgx-{name}" for name in ("spectra", "began", "huber"))
    site = tmp_path / "site"
    install(site, spectra, began, huber)
    python = within(site, tmp_path)
    listed = python("vgx", "plugins")
    parts = "loss: focal-frequency\n  discriminator: spectrum\n"
    assert f"spectra  (vgx-spectra 1.0.0)\n  {parts}" in listed
    parts = "decoder: began\n  discriminator: began\n  loss: began\n"
    assert f"began  (vgx-began 1.0.0)\n  {parts}" in listed
    assert "huber  (vgx-huber 1.0.0)\n  loss: huber\n" in listed
    assert "Jiang et al. 2021" in python("vgx", "parts", "loss/focal-frequency")
    assert "spectrum" in python("vgx", "check", str(spectra / "recipe.yaml"))
    tests = [spectra / "test_vgx_spectra.py", began / "test_vgx_began.py"]
    copies = [shutil.copy(file, tmp_path) for file in tests]
    assert "18 passed" in python("pytest", "-q", "-p", "no:cacheprovider", *copies)

    recipe, little = str(began / "recipe.yaml"), ("--set", "dataset.count=32")
    assert "ready to run" in python("vgx", "check", recipe)
    python("vgx", "run", recipe, *little, "--set", "train.steps=2")
    run = vgx.Run(tmp_path / "runs" / "0001-began")
    # It is like the box itself: noted with its version, and copied into no run.
    assert ("vgx-began", "1.0.0") in {
        (plugin["distribution"], plugin["version"]) for plugin in run.environment()["plugins"]
    }
    assert list((run.path / "plugins").iterdir()) == []
    line = run.read_log()[-1]
    assert set(line["losses"]) == {"began.generator", "began.discriminator"}
    saved = load_file(run.path / "checkpoints" / "step-00000002" / "model.safetensors")
    assert line["figures"]["began.k"] == saved["loss began.k"].item() > 0
    assert any((run.path / "samples").glob("prior-*.png"))


def install(site, *packages):
    """Into a folder of its own, without a network: hatchling is among the requirements of tests."""
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([sys.executable, "-m", *pip, *packages], check=True, timeout=240)


def within(site, folder):
    settings = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def python(*arguments):
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return python


@pytest.mark.slow
def test_what_is_made_installs_is_found_and_passes_its_own_tests(vgx_here, tmp_path):
    """All kinds at once: one pip, one list of plugins, one run of their tests."""
    kinds = [kind.kind for kind in KINDS]
    names = [f"vgx-new-{kind}" for kind in kinds]
    for name, kind in zip(names, kinds, strict=True):
        assert vgx_here("new-plugin", name, "--kind", kind)[0] == 0
    site = tmp_path / "site"
    install(site, *(tmp_path / name for name in names))
    python = within(site, tmp_path)
    listed = python("vgx", "plugins")
    for name, kind in zip(names, kinds, strict=True):
        assert f"new-{kind}  ({name} 0.1.0)\n  {kind}: new-{kind}\n" in listed
    tests = [f"{name}/test_vgx_new_{kind}.py" for name, kind in zip(names, kinds, strict=True)]
    assert f"{2 * len(kinds)} passed" in python("pytest", "-q", "-p", "no:cacheprovider", *tests)


@pytest.mark.slow
def test_the_wheel_has_what_a_plugin_begins_from(tmp_path):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=240)
    (wheel,) = tmp_path.glob("*.whl")
    there = set(zipfile.ZipFile(wheel).namelist())
    package = root / "framework"
    templates = [file for file in (package / "vgx" / "templates").rglob("*") if file.is_file()]
    assert {str(template.relative_to(package)) for template in templates} <= there
    assert {f"vgx/templates/{kind.kind}.txt" for kind in KINDS} <= there
    page = (root / "plugins" / "vgx_report" / "page").iterdir()
    assert {"vgx_report/__init__.py", *(f"vgx_report/page/{file.name}" for file in page)} <= there
    plugins = {path.name for path in (root / "plugins").iterdir() if path.is_dir()}
    assert {f"{name}/__init__.py" for name in plugins} <= there
    (points,) = [name for name in there if name.endswith("entry_points.txt")]
    written = zipfile.ZipFile(wheel).read(points).decode()
    assert {f"{name.removeprefix('vgx_')} = {name}" for name in plugins} <= {*written.split("\n")}
