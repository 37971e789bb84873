"""Any number of processes train what one trains: every recipe, and whatever looks across images."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from several import (
    NAMES,
    RECIPES,
    SAME,
    apart,
    as_written,
    distances,
    on,
    same_bits,
    small,
    trained,
)
from torch import nn

import vgx
from vgx.engine import engine, losses
from vgx.parts.registry import Plugin, Registry
from vgx.testing.processes import in_processes

pytestmark = pytest.mark.filterwarnings("ignore::vgx.errors.Notice")

# --- parts that draw or look across images -------------------------------------------------------


class Dropping(nn.Module):
    """A layer with dropout between two convolutions, of which one plane is left out at times."""

    def __init__(self, before, after):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Dropout2d(0.3),
            nn.Conv2d(4, after, 4, 2, 1),
        )  # fmt: skip

    def forward(self, images):
        return vgx.Score(self.layers(images))


class DroppingCritic(vgx.Discriminator, type="dropping"):
    """Two convolutions with dropout between them."""

    def build(self, image, latent):
        return Dropping(image.channels, 1)


class Spread(vgx.Loss, type="spread"):
    """The variance of reconstructions over the minibatch, which says what it looks at."""

    across_batch = True

    def generator(self, step):
        return step.recon.mean((1, 2, 3)).var(correction=0)


class Unanimous(vgx.Loss, type="unanimous"):
    """The variance of a discriminator's logits of fakes over the minibatch."""

    across_batch = True

    def generator(self, step):
        return step.fake_score.logits.mean((1, 2, 3)).var(correction=0)


class Silent(vgx.Loss, type="silent"):
    """The same, and nobody is told."""

    def generator(self, step):
        return step.recon.mean((1, 2, 3)).var(correction=0)


OWN = (DroppingCritic, Spread, Silent, Unanimous)
REGISTRY = Registry((*vgx.discover().plugins, Plugin("mine", "0", "mine", OWN)))


def tiny(*settings):
    """The recipe `tiny` with other settings, and networks of a few features."""
    given = " ".join(settings)
    networks = [name for name in ("encoder", "decoder", "discriminator") if f"{name}=" not in given]
    narrow = [f"{name}.widths=[4,4]" for name in networks]
    return vgx.load_recipe(
        RECIPES / "tiny.yaml", ["train.batch=8", "train.steps=4000", *narrow, *settings], REGISTRY
    )


# --- every recipe --------------------------------------------------------------------------------


# More processes are no other code than two: of four, some recipes are enough outside the thorough
# tier. Each of these has something that processes must agree on: BatchNorm, a codebook, penalties.
OF_FOUR = ("tiny", "vqgan", "r3gan")


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        pytest.param(name, n, marks=() if n == 2 or name in OF_FOUR else pytest.mark.chaos)
        for name in NAMES
        for n in (2, 4)
    ],
)
def test_two_and_four_processes_train_a_recipe_as_one(name, processes):
    recipe = small(name)
    assert apart(trained(recipe), on(processes, recipe)) == {}


# --- every setting -------------------------------------------------------------------------------

BATCH = "discriminator={type: patchgan, widths: [4, 4]}"
PLAIN = "discriminator={type: patchgan, widths: [4, 4], norm: none}"
BOTH = "train.fakes=[recon,prior]"
NO_JUDGE = "discriminator=null"
SETTINGS = {
    "pieces": ["train.accumulate=2"],
    "pieces of two images": ["train.accumulate=4"],
    "several steps of the discriminator": ["train.discriminator_steps=2"],
    "all of it": ["train.discriminator_steps=2", "train.accumulate=2", BOTH],
    "discriminator first": ["train.order=discriminator-first", "train.discriminator_steps=2"],
    "clipped gradients": ["train.clip=0.001"],
    "both kinds of fakes": [BOTH],
    "adaptive weight": ["losses=[l1, kl, {type: hinge, weight: {against: [l1]}}]", BOTH],
    "share": ["losses=[l1, kl, {type: hinge, weight: {share: 0.3}}]", BOTH],
    "share of what it reaches": [
        "losses=[l1, kl, {type: hinge, weight: {share: 0.3}, reaches: [decoder]}]"
    ],
    "dropout": ["discriminator=dropping", BOTH],
    "pausing discriminator": ["losses=[l1, kl, {type: hinge, every: 2}]", BATCH],
    "pausing discriminator, its features are read": [
        "losses=[l1, kl, feature-matching, {type: hinge, every: 2}]", BATCH, BOTH,
    ],
    "pausing discriminator, a loss looks across": [
        "losses=[l1, unanimous, {type: hinge, every: 2}]", BATCH,
    ],
    "dropout and penalty": ["discriminator=dropping", "losses=[l1, kl, hinge, r1]"],
    "labels": [
        "image.classes=3", "dataset={type: drawn-faces, label: hair_style}", BOTH,
        "discriminator={type: projection, inner: {type: patchgan, widths: [4, 4]}}",
        "decoder={type: labelled, inner: {type: conv-transpose, widths: [4]}}",
    ],
    "several discriminators": [
        NO_JUDGE, "discriminators={a: {type: patchgan, widths: [4, 4]}, b: {type: latent-mlp}}",
        "losses=[l1, {type: hinge, discriminator: a}, {type: hinge, discriminator: b}]",
    ],
    "two sizes": ["discriminator={type: multi-scale, inner: {type: patchgan, widths: [4, 4]}}"],
    "augmented for the discriminator": [
        "diff_augment=[{type: ada, thousands: 1}, translation, cutout, color-jitter]", BOTH,
    ],
    "lecam": ["losses=[l1, kl, hinge, lecam]", BOTH],
    "free bits": ["losses=[l1, {type: kl, free_bits: 0.05}]", NO_JUDGE],
    "capacity": ["losses=[l1, {type: kl, capacity: 3}]", NO_JUDGE],
    "feature matching": ["losses=[l1, kl, hinge, {type: feature-matching, statistic: mean}]", BOTH],
    "minibatch deviation": ["discriminator={type: style, widths: [4, 4]}", BOTH],
    "relativistic": ["losses=[l1, kl, relativistic]", BOTH],
    "relativistic average": ["losses=[l1, kl, {type: relativistic, pairing: average}]", BOTH],
    "moving codebook": [
        "encoder={type: vector-quantised, codes: 8, decay: 0.9, inner: {type: conv, widths: [4]}}",
        "losses=[l1, vq]", NO_JUDGE,
    ],
    "bits": [
        "encoder={type: binary-spherical, inner: {type: conv, widths: [4]}}",
        "losses=[l1, bit-entropy]", NO_JUDGE,
    ],
    "discrepancy": ["losses=[l1, mmd, total-correlation, dip-vae]", NO_JUDGE],
    "a loss that looks across": ["losses=[l1, kl, spread]", NO_JUDGE],
    "and has an adaptive weight": [
        "losses=[l1, kl, {type: spread, weight: {against: [l1]}}]", NO_JUDGE,
    ],
    "and a share": ["losses=[l1, kl, {type: spread, weight: {share: 0.3}}]", NO_JUDGE],
    "styles of two latents": [
        "decoder={type: style, widths: [4, 4], styles: 4, mapping: 2, mixing: 0.9}",
        "losses=[hinge, {type: path-length, shrink: 2}]", "encoder=null", "train.fakes=[prior]",
    ],
    "fewer latents than processes can share": [
        "decoder={type: style, widths: [4, 4], styles: 4, mapping: 2, mixing: 0.9}",
        "losses=[hinge, {type: path-length, shrink: 3}]", "encoder=null", "train.fakes=[prior]",
    ],
}  # fmt: skip
SETTINGS |= {
    f"{penalty} {norm}": [f"losses=[l1, kl, wasserstein, {penalty}]", judge, BOTH]
    for penalty in ("r1", "r2", "gradient-penalty", "dragan")
    for norm, judge in (("with BatchNorm", BATCH), ("without", PLAIN))
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_two_processes_train_with_any_setting_as_one(settings):
    recipe = tiny(*settings)
    assert apart(trained(recipe), on(2, recipe)) == {}


# --- what it would be otherwise: each control must be seen ----------------------------------------

ADAPTIVE = "losses=[l1, kl, {type: hinge, weight: {against: [l1]}}]"


def seen(recipe):
    """What is apart between one process and the first of two, and how far at most."""
    first, _ = in_processes(2, lambda: trained(recipe))
    found = apart(trained(recipe), first)
    return {name.partition(".")[0] for name in found}, max(found.values(), default=0)


@pytest.mark.bar("P4", control="gradients of the decoder not averaged")
def test_gradients_of_one_network_that_are_not_averaged_are_seen(monkeypatch, record_property):
    averaged = engine.over_processes

    def but_for_the_decoder(terms, gradients):
        means, averages = averaged(terms, gradients)
        for player, named in gradients.items():
            own = {name: each for name, each in named.items() if name.startswith("decoder")}
            averages[player] |= own
        return means, averages

    recipe = tiny()
    monkeypatch.setattr(engine, "over_processes", but_for_the_decoder)
    distance = seen(recipe)[1]
    assert distance > 1e6 * SAME
    record_property("seen", f"{distance:.0e}")
    with pytest.raises(AssertionError):  # the replicas are different networks then
        on(2, recipe)


@pytest.mark.bar("P4", control="BatchNorm of each process alone")
def test_batchnorm_of_each_process_alone_is_seen(record_property):
    names, distance = seen(tiny("train.batch_norm=local", BATCH))
    assert names >= {"encoder", "decoder", "discriminator"}
    assert distance > 1e6 * SAME
    record_property("seen", f"{distance:.0e}")


@pytest.mark.bar("P4", control="an adaptive weight of each process alone")
def test_an_adaptive_weight_of_each_process_alone_is_seen(monkeypatch, record_property):
    assert seen(tiny(ADAPTIVE)) == (set(), 0)
    monkeypatch.setattr(losses, "mean_over_processes", lambda gradient: gradient)
    distance = seen(tiny(ADAPTIVE))[1]
    assert distance > 1e6 * SAME
    record_property("seen", f"{distance:.0e}")


@pytest.mark.bar("P4", control="a loss across images that does not say so")
def test_a_loss_that_looks_across_images_and_does_not_say_so_is_seen(record_property):
    silent = "losses=[l1, kl, silent]"
    names, distance = seen(tiny(silent, NO_JUDGE))
    assert names >= {"encoder", "decoder"}
    assert distance > 1e3 * SAME
    record_property("seen", f"{distance:.0e}")


# --- real processes ------------------------------------------------------------------------------


def launched(folder, processes, form, steps, *names):
    """Train recipes in real processes; what came of each, by recipe and process."""
    script = RECIPES.parent / "tests" / "several.py"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={processes}", script, folder, form, str(steps), *names,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=1800,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {
        name: [load_file(folder / f"{name}-{rank}.safetensors") for rank in range(processes)]
        for name in names
    }


def test_real_processes_train_three_recipes_as_one(tmp_path):
    names = ("tiny", "vqgan", "r3gan")
    for name, found in launched(tmp_path, 2, "small", 2, *names).items():
        same_bits(*found)
        assert apart(trained(small(name)), found[0]) == {}


@pytest.mark.chaos
@pytest.mark.bar("P4")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("names", [NAMES[k::20] for k in range(20)], ids=" ".join)
def test_real_processes_train_every_recipe_for_twenty_steps(tmp_path, names, record_property):
    ones = {name: trained(as_written(name), 0, 20) for name in names}
    equal = []
    for processes in (2, 4):
        found = launched(tmp_path, processes, "written", 20, *names)
        for name, one in ones.items():
            for other in found[name][1:]:
                same_bits(found[name][0], other)
            assert apart(one, found[name][0]) == {}, name
            every = distances(one, found[name][0])
            furthest = max(n for key, n in every.items() if not key.startswith("stored "))
            equal.append([name, processes, furthest])
    record_property("equal", equal)
    record_property("cases", len(equal))
