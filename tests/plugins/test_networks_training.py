"""Networks in the engine: each trains, is audited, averaged, saved, and runs in any precision."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from steps import batches, forward
from torchvision.transforms.functional import to_tensor

import vgx
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
SMALL = {"widths": [4, 8]}
LATENT = {"latent": [4, 4, 4]}
RESIDUAL = {"type": "residual", **SMALL}
SPATIAL = {**LATENT, "encoder": RESIDUAL, "decoder": RESIDUAL}
LABELS = {"image.classes": 3}
POINT = [{"type": "bce-adversarial"}, {"type": "l1"}]
PATCH = {"type": "patchgan", **SMALL}

CASES = {
    "residual encoder": {"encoder": RESIDUAL},
    "residual encoder, spectral": {"encoder": {**RESIDUAL, "spectral": True, "norm": "none"}},
    "residual decoder": {"decoder": {**RESIDUAL, "blocks": 2}},
    "residual decoder, spectral": {"decoder": {**RESIDUAL, "spectral": True, "norm": "group"}},
    "spatial": SPATIAL,
    "deterministic": {"encoder": {"type": "deterministic", "inner": RESIDUAL}, "losses": POINT},
    "vector-quantised": {
        **SPATIAL,
        "encoder": {"type": "vector-quantised", "inner": RESIDUAL, "codes": 16},
        "losses": [*POINT, "vq"],
    },
    "vector-quantised, flat": {
        "encoder": {
            "type": "vector-quantised", "inner": {"type": "conv", **SMALL}, "codes": 16
        },
        "losses": [*POINT, "vq"],
    },
    "moving codebook": {
        **SPATIAL,
        "encoder": {"type": "vector-quantised", "inner": RESIDUAL, "codes": 16, "decay": 0.9},
        "losses": [*POINT, "vq"],
    },
    "residual-quantised": {
        **SPATIAL,
        "encoder": {"type": "residual-quantised", "inner": RESIDUAL, "codes": 8, "levels": 2},
        "losses": [*POINT, "vq"],
    },
    "binary-spherical": {
        **SPATIAL,
        "encoder": {"type": "binary-spherical", "inner": RESIDUAL},
        "losses": [*POINT, "bit-entropy"],
    },
    "dcgan": {"decoder": {"type": "dcgan", **SMALL}, "discriminator": {"type": "dcgan", **SMALL}},
    "dcgan, no norm": {
        "decoder": {"type": "dcgan", "norm": "none", **SMALL},
        "discriminator": {"type": "dcgan", "norm": "none", "spectral": True, **SMALL},
    },
    "residual discriminator": {"discriminator": {"type": "residual", **SMALL}},
    "residual discriminator, plain": {
        "discriminator": {"type": "residual", "spectral": False, **SMALL}
    },
    "patchgan, spectral": {"discriminator": {**PATCH, "norm": "none", "spectral": True}},
    "patchgan, instance": {"discriminator": {**PATCH, "norm": "instance"}},
    "multi-scale": {"discriminator": {"type": "multi-scale", "inner": PATCH}},
    "multi-scale, single logits": {
        "discriminator": {"type": "multi-scale", "inner": {"type": "residual", **SMALL}}
    },
    "labelled": {
        **LABELS, "decoder": {"type": "labelled", "inner": {"type": "conv-transpose", **SMALL}}
    },
    "labelled, spatial": {**SPATIAL, **LABELS, "decoder": {"type": "labelled", "inner": RESIDUAL}},
    "projection": {
        **LABELS, "discriminator": {"type": "projection", "inner": {"type": "residual", **SMALL}}
    },
    "projection, patches": {**LABELS, "discriminator": {"type": "projection", "inner": PATCH}},
}  # fmt: skip

ROUNDED = ("moving codebook", "residual-quantised", "binary-spherical")


def engine_of(case, dtype=torch.float32, **changes):
    recipe = vgx.load_recipe(TINY, {"augment": [], **CASES[case], **changes})
    return Engine(recipe, 20, dtype=dtype)


def random_batch(number, n=2):
    generator = torch.Generator().manual_seed(number)
    return torch.rand(n, 3, 16, 16, generator=generator), torch.arange(n) % 3


def train(engine, number, n=2):
    real, labels = random_batch(number, n)
    return engine.step(number, batches(real, labels=labels))


def tensors(engine):
    return {name: t.clone() for name, t in engine.state({}).model.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_audit_finds_nothing(case):
    """Shapes as the contracts say, and gradients reach every weight that is trained."""
    engine = engine_of(case)
    real, labels = random_batch(0, 4)
    examine(engine, vgx.discover(), Batch(real, labels))


@pytest.mark.parametrize("case", CASES)
def test_a_step_moves_every_trained_weight_and_no_frozen_one(case):
    engine = engine_of(case)
    before = tensors(engine)
    values = train(engine, 0, n=8)
    assert all(value.isfinite() for value in values.values())
    for name, network in engine.networks.items():
        for key, parameter in network.named_parameters():
            moved = not torch.equal(parameter, before[f"{name}.{key}"])
            assert moved == parameter.requires_grad, (name, key)


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_from_its_state_as_if_it_had_not_stopped(case):
    """Also the averaged weights, and the vectors of spectral norm's power iteration."""
    one = engine_of(case)
    for number in range(2):
        train(one, number)
    state = copy.deepcopy(one.state({}))  # as from a file: a state is a view of the engine
    two = engine_of(case)
    two.restore(state)
    for engine in (one, two):
        train(engine, 2)
    ours, theirs = tensors(one), tensors(two)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("case", CASES)
def test_averaged_weights_are_averages(case):
    engine = engine_of(case)
    train(engine, 0)
    first = {name: p.clone() for name, p in engine.networks["decoder"].named_parameters()}
    train(engine, 1)
    averaged = dict(engine.network_for_sampling("decoder").named_parameters())
    for name, now in engine.networks["decoder"].named_parameters():
        expected = 0.9 * first[name] + 0.1 * now
        assert torch.allclose(averaged[name], expected, atol=1e-6), name
    z = torch.zeros(2, *engine.recipe.latent.shape)
    label_inputs = (torch.tensor([0, 2]),) if engine.recipe.decoder.conditional else ()
    assert engine.network_for_sampling("decoder").eval()(z, *label_inputs).isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_double_precision_all_through(case):
    engine = engine_of(case, torch.float64)
    real, labels = random_batch(0)
    step = forward(engine, 0, real, labels=labels)
    given = [step.posterior.mean, step.z, step.recon_logits, step.real_score.logits]
    assert {tensor.dtype for tensor in given} == {torch.float64}
    assert {t.dtype for name in ("encoder", "decoder", "discriminator")
            for t in engine.networks[name].state_dict().values() if t.is_floating_point()} == {
        torch.float64
    }  # fmt: skip
    train(engine, 0)


@pytest.mark.parametrize("case", CASES)
def test_half_precision_where_it_is_asked_for(case):
    engine = engine_of(case, **{"train.precision": "bf16"})
    real, labels = random_batch(0)
    wide = forward(engine_of(case), 0, real, labels=labels)
    step = forward(engine, 0, real, labels=labels)
    # Near the border between two vectors, both are right.
    name = "encoded" if case in ROUNDED else "mean"
    for ours, theirs in ((getattr(step.posterior, name), getattr(wide.posterior, name)),
                         (step.real_score.logits, wide.real_score.logits)):  # fmt: skip
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, theirs, rtol=0.2, atol=0.2)
    assert step.z.dtype == torch.float32
    values = train(engine, 0)
    assert all(value.isfinite() for value in values.values())


@pytest.mark.parametrize(("normalised", "least", "most"), [(False, 5, 60), (True, 120, 256)])
def test_what_the_documentation_says_of_codebooks(normalised, least, most):
    """Few plain vectors are used; stored latents are not vectors of the trained codebook."""
    faces = vgx.discover().part("dataset", "drawn-faces")(count=256).build(vgx.ImageSpec(16))
    pixels = [to_tensor(faces[n].convert("RGB").resize((16, 16))) for n in range(256)]
    real = torch.stack(pixels)  # [256, 3, 16, 16]
    inner = {"type": "residual", "widths": [16, 32]}
    encoder = {"type": "vector-quantised", "codes": 256, "normalised": normalised, "inner": inner}
    decoder = {"type": "residual", "widths": [32, 16]}
    changes = {"image.size": 16, "latent": [8, 4, 4], "encoder": encoder, "decoder": decoder}
    engine = Engine(vgx.load_recipe(TINY.with_name("vqvae.yaml"), changes), 60)
    for number in range(60):
        rows = torch.randint(256, (32,), generator=torch.Generator().manual_seed(number))
        engine.step(number, batches(real[rows]))
    network = engine.networks["encoder"].eval()
    with torch.no_grad():
        posterior = network(real)
    assert least <= len(posterior.indices.unique()) <= most
    book = network.codebook.weight.detach()
    book = torch.nn.functional.normalize(book, dim=1) if normalised else book

    def in_the_codebook(z):
        vectors = z.movedim(1, 3).reshape(-1, 8)
        return (torch.cdist(vectors.double(), book.double()).min(1).values < 1e-5).double().mean()

    assert in_the_codebook(engine.latents.state()["codes"]) < 0.01
    assert in_the_codebook(posterior.codes) == 1


def test_each_label_moves_its_own_row():
    """Labels 0 and 1 of three are seen: only their vectors learn, where none has spectral norm."""
    sgd = {"type": "sgd", "lr": 0.1}
    optimizers = {"train.optimizers": {"generator": sgd, "discriminator": sgd}}
    changes = {"augment": [], **CASES["labelled"], **CASES["projection, patches"], **optimizers}
    engine = Engine(vgx.load_recipe(TINY, changes), 20)
    before = tensors(engine)
    real, _ = random_batch(0, 8)
    engine.step(0, batches(real, labels=torch.arange(8) % 2))
    for name in ("decoder", "discriminator"):
        rows = engine.networks[name].embedding.weight != before[f"{name}.embedding.weight"]
        assert rows.any(1).tolist() == [True, True, False]
