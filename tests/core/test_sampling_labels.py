"""Labels after training: a latent is decoded with the label of the images it comes from.

The decoder shows both: its red channel is the label, its green one the first number of the latent.
"""

from __future__ import annotations

import dataclasses
import io
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from shows import Shows, ShowsLabels, shown
from steps import batches
from torch.distributions import Normal, kl_divergence

import vgx
from vgx.console import Console
from vgx.data.batches import Batches
from vgx.data.store import open_source, open_store
from vgx.engine.engine import Engine
from vgx.engine.stored_latents import StoredLatents
from vgx.errors import RecipeError
from vgx.evaluation.features import RealImages, RealSets
from vgx.recipe.model import Eval
from vgx.runs import checkpoint
from vgx.sampling import draw as sampling
from vgx.training import session as training
from vgx.training.verify import verify

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
CPU = torch.device("cpu")


class Oldest(vgx.Sampler, type="oldest"):
    """A stranger's sampler, which knows nothing of labels: the oldest latents, again and again."""

    def build(self, latent):
        return self

    def draw(self, n, codes, generator):
        return codes[torch.arange(n) % len(codes)]


# 40 latents: 24 of label 0 around 0, 12 of label 1 around 10, 4 of label 3 around 30; none of 2.
LABELS = torch.tensor([0, 1, 0, 3, 0, 1, 0, 0, 1, 0] * 4)
CODES = (10 * LABELS + torch.linspace(-2, 2, 40))[:, None].expand(-1, 8).clone()


def model(sampler, labels=LABELS, **settings):
    recipe = vgx.load_recipe(TINY, {"image.classes": 4, "sampler": {"type": "prior"}})
    part = Oldest() if sampler == "oldest" else vgx.discover().part("sampler", sampler)(**settings)
    recipe = recipe.model_copy(update={"decoder": ShowsLabels(), "sampler": part})
    return vgx.Model(recipe, 0, CODES, None, Shows(), None, labels)


def drawn(sampler, n, seed=0, counts=None, **settings):
    made = model(sampler, **settings)
    chunks = sampling.draw(made, sampling.prepare(made), n, seed, counts)
    return shown(torch.cat(list(chunks)))


DRAWING = ["posterior", "weighted-mix", "interpolate", "traversal", "neighbours", "oldest"]


@pytest.mark.parametrize("sampler", DRAWING)
def test_a_latent_is_decoded_with_the_label_that_it_comes_from(sampler):
    settings = {"dimensions": (1,)} if sampler == "traversal" else {}
    for seed in range(3):
        labels, z = drawn(sampler, 60, seed, **settings)
        assert ((z - 10 * labels).abs() <= 2.01).all()


def test_the_posterior_gives_reconstructions():
    """Each of its images is what the decoder makes of a stored latent and of its own label."""
    labels, z = drawn("posterior", 200)
    stored = torch.stack([LABELS, CODES[:, 0]], 1)
    distance = (torch.stack([labels, z], 1)[:, None] - stored).norm(dim=2)  # [200, 40]
    assert distance.min(1).values.max() < 1e-3
    assert len(distance.argmin(1).unique()) > 30


def test_a_row_has_one_label_and_rows_differ():
    labels, _ = drawn("interpolate", 60, steps=6)
    assert all(len(row.unique()) == 1 for row in labels.split(6))
    assert len(labels.unique()) > 1


@pytest.mark.parametrize("sampler", ["traversal", "neighbours"])
def test_one_label_holds_for_all_images_and_the_seed_chooses_it(sampler):
    each = [drawn(sampler, 30, seed)[0].unique().tolist() for seed in range(12)]
    assert all(len(labels) == 1 for labels in each)
    assert len({labels[0] for labels in each}) > 1


@pytest.mark.parametrize("sampler", [*DRAWING, "prior", "aggregate-gaussian"])
def test_an_image_does_not_depend_on_how_many_there_are(sampler):
    many, few = drawn(sampler, 40), drawn(sampler, 23)
    for more, less in zip(many, few, strict=True):
        assert torch.equal(more[:23], less)


def test_labels_have_the_shares_of_the_stored_latents_or_of_the_data():
    """In 4,000 draws a share of 0.6 has a standard deviation of 0.008."""
    stored = drawn("prior", 4000)[0].bincount(minlength=4) / 4000
    assert stored.tolist() == pytest.approx([0.6, 0.3, 0.0, 0.1], abs=0.03)
    told = drawn("prior", 4000, counts=np.array([100, 0, 100, 200]))[0].bincount(minlength=4) / 4000
    assert told.tolist() == pytest.approx([0.25, 0.0, 0.25, 0.5], abs=0.03)


def test_a_label_with_too_few_latents_is_left_out_and_named():
    with pytest.warns(vgx.Notice, match="weighted-mix needs 5 stored latents of a label; there"):
        labels, _ = drawn("weighted-mix", 100, of=5)
    assert labels.unique().tolist() == [0, 1]
    with pytest.raises(RecipeError, match="there are fewer of label 0, 1, 3"):
        drawn("weighted-mix", 1, of=25)


@pytest.mark.parametrize("sampler", DRAWING)
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_drawn_alone_and_from_its_own_latents(sampler, label):
    settings = {"dimensions": (1,)} if sampler == "traversal" else {}
    made = model(sampler, **settings)
    prepared = dataclasses.replace(sampling.prepare(made), label=label)
    labels, z = shown(torch.cat(list(sampling.draw(made, prepared, 30, 0))))
    assert labels.unique().tolist() == [label]
    assert ((z - 10 * label).abs() <= 2.01).all()


def test_a_class_without_latents_is_named():
    made = model("posterior")
    names = ("cat", "dog", "fish", "frog")
    prepared = dataclasses.replace(sampling.prepare(made), label=2, names=names)
    with pytest.raises(RecipeError, match="posterior needs .*; there are fewer of label fish"):
        sampling.draw_latents(prepared, 4, 0)


def test_rows_of_one_class_are_captioned_with_its_name():
    made = model("interpolate", steps=6)
    plain = sampling.prepare(made)
    assert sampling.draw_latents(plain, 12, 0).captions == ()
    names = ("cat", "dog", "fish", "frog")
    latents = sampling.draw_latents(dataclasses.replace(plain, names=names), 12, 0)
    assert latents.captions == tuple(names[label] for label in latents.labels[::6].tolist())
    made = model("traversal", dimensions=(1, 2), steps=3)
    prepared = dataclasses.replace(sampling.prepare(made), names=names, label=1)
    captions = sampling.draw_latents(prepared, 6, 0).captions
    assert len(captions) == 2
    assert all(caption.startswith("dog: ") for caption in captions)
    assert (
        sampling.draw_latents(
            dataclasses.replace(sampling.prepare(model("posterior")), names=names), 6, 0
        ).captions
        == ()
    )


def test_latents_of_an_earlier_vgx_have_no_labels_and_that_is_said():
    with pytest.warns(vgx.Notice, match="the run's stored latents have no labels"):
        labels, _ = drawn("interpolate", 200, labels=None, steps=5)
    assert all(len(row.unique()) == 1 for row in labels.split(5))
    assert labels.unique().tolist() == [0, 1, 2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn("prior", 5, labels=None)  # it draws from no stored latents


# --- in the engine -------------------------------------------------------------------------------


def step_of(first, count, labels=None, mu=None, logvar=None):
    z = torch.arange(first, first + count).float()[:, None].expand(-1, 2)
    posterior = None if mu is None else vgx.Gaussian(mu, logvar)
    given = {"number": 0, "progress": 0.0, "real": torch.zeros(count, 1, 4, 4)}
    return vgx.Step(**given, z=z, labels=labels, posterior=posterior)


def test_labels_stay_beside_their_latents_when_the_ring_is_full():
    ring = StoredLatents(5, (2,), CPU, labelled=True)
    for first in (0, 3, 6):
        ring.add(step_of(first, 3, torch.tensor([first, first + 1, first + 2]) % 4))
    state = ring.state()
    assert state["codes"][:, 0].tolist() == [4, 5, 6, 7, 8]
    assert state["labels"].tolist() == [0, 1, 2, 3, 0]
    assert state["labels"].dtype == torch.int64
    again = StoredLatents(5, (2,), CPU, labelled=True)
    again.load(state)
    for each in (ring, again):
        each.add(step_of(9, 2, torch.tensor([1, 2])))
    assert {k: v.tolist() for k, v in ring.state().items()} == {
        k: v.tolist() for k, v in again.state().items()
    }


def test_a_checkpoint_without_labels_is_taken_up_and_its_latents_stay_unknown():
    ring = StoredLatents(4, (2,), CPU, labelled=True)
    ring.load({"codes": torch.zeros(3, 2)})
    ring.add(step_of(0, 2, torch.tensor([2, 1])))
    assert ring.state()["labels"].tolist() == [-1, -1, 2, 1]
    assert "labels" not in StoredLatents(4, (2,), CPU).state()


def test_the_kl_of_each_dimension_is_the_mean_of_an_epoch():
    """Of six images in a ring of eight: the plain mean. Then each batch of two counts a quarter."""
    generator = torch.Generator().manual_seed(0)
    mu, logvar = (torch.randn(8, 2, generator=generator) for _ in range(2))
    true = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))  # [8, 2]
    ring = StoredLatents(8, (2,), CPU)
    for start in (0, 2, 4, 6):
        part = slice(start, start + 2)
        ring.add(step_of(start, 2, mu=mu[part], logvar=logvar[part]))
    assert torch.allclose(ring.kl, true.mean(0), atol=1e-6)
    ring.add(step_of(8, 2, mu=mu[:2], logvar=logvar[:2]))
    assert torch.allclose(ring.kl, 0.75 * true.mean(0) + 0.25 * true[:2].mean(0), atol=1e-6)
    again = StoredLatents(8, (2,), CPU)
    again.load(ring.state())
    for each in (ring, again):
        each.add(step_of(10, 2, mu=mu[2:4], logvar=logvar[2:4]))
    assert torch.equal(ring.kl, again.kl)


def test_an_engine_stores_the_labels_of_its_minibatches():
    recipe = vgx.load_recipe(TINY, {"image.classes": 3, "train.accumulate": 2})
    engine = Engine(recipe, 2, codes=16)
    for number, labels in enumerate(([0, 1, 2, 0, 1, 2, 2, 2], [1, 1, 0, 0, 2, 0, 1, 0])):
        engine.step(number, batches(torch.rand(8, 3, 16, 16), labels=torch.tensor(labels)))
    state = engine.state({"step": 2})
    assert state.latents["labels"].tolist() == [0, 1, 2, 0, 1, 2, 2, 2, 1, 1, 0, 0, 2, 0, 1, 0]
    assert state.latents["kl"].shape == (8,)
    other = Engine(recipe, 2, codes=16)
    other.restore(state)
    assert torch.equal(other.state({"step": 2}).latents["labels"], state.latents["labels"])


def test_real_images_count_their_labels():
    labels = np.array([0, 2, 2, 1, 2])
    images = np.zeros((5, 4, 4, 3), np.uint8)
    real = RealImages(images, np.array([1, 2, 3]), labels, "", "trained on", 5)
    assert real.label_counts(vgx.ImageSpec(size=4, classes=4)).tolist() == [0, 1, 2, 0]
    without = RealImages(images, np.array([1]), None, "", "trained on", 5)
    assert without.label_counts(vgx.ImageSpec(size=4, classes=4)) is None


@pytest.mark.parametrize("measuring", ["vgx eval", "a training"])
def test_what_is_measured_has_the_labels_of_the_real_images_in_their_shares(measuring, monkeypatch):
    from vgx.evaluation import evaluate, metrics

    seen = []

    def measured(samples, *_, **__):
        seen.append(shown(torch.cat(list(samples)))[0])
        return {"x": 0.0}

    made, metric = model("prior"), vgx.discover().part("metric", "prdc")()
    labels = np.array([1] * 30 + [3] * 10)
    pixels = np.zeros((40, 16, 16, 3), np.uint8)
    real = RealImages(pixels, np.arange(40), labels, "", "trained on", 5)
    if measuring == "vgx eval":
        monkeypatch.setattr(evaluate, "measure_samples", measured)
        monkeypatch.setattr(evaluate, "feature_parts", lambda _: {})
        settings = evaluate.Settings((metric,), True, (made.recipe.sampler,), n=2000, seeds=1)
        evaluate.measure_generation(made, real, settings, None, lambda _: None)
    else:
        recipe = made.recipe.model_copy(update={"eval": Eval(n=2000, metrics=(metric,))})
        monkeypatch.setattr(metrics, "measure_samples", measured)
        monkeypatch.setattr(metrics, "current_model", lambda *_: made)
        monkeypatch.setattr(metrics, "real_sets", lambda *_: RealSets(real, real))
        metrics.measure_training(SimpleNamespace(recipe=recipe), None, 1, None)
    shares = seen[0].bincount(minlength=4) / 2000
    assert shares.tolist() == pytest.approx([0, 0.75, 0, 0.25], abs=4 * math.sqrt(0.19 / 2000))


# --- a run ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_conditional_run_repeats_and_one_without_labels_still_works(tmp_path):
    changes = {
        "image.classes": 6, "dataset.label": "hair_style", "train.steps": 12, "train.keep": 2,
        "decoder": {"type": "labelled", "inner": {"type": "conv-transpose", "widths": [16, 8]}},
    }  # fmt: skip
    run = training.run(vgx.load_recipe(TINY, changes), console=Console(file=io.StringIO()))
    model = vgx.load(run)
    stored = run_labels(run)
    assert torch.equal(model.labels, stored)
    assert verify(run, console=Console(file=io.StringIO())) == (11, 12)
    # As an earlier vgx left it: neither labels nor KL beside the latents.
    states = [checkpoint.load(run)[1]]
    states.insert(0, checkpoint.load(run, before=12)[1])
    for state in states:
        bare = dataclasses.replace(state, latents={"codes": state.latents["codes"]})
        checkpoint.save(run, bare, 2)
    assert vgx.load(run).labels is None
    assert verify(run, console=Console(file=io.StringIO())) == (11, 12)
    with pytest.warns(vgx.Notice, match="the run's stored latents have no labels"):
        assert vgx.sample(run, "posterior", n=4).shape == (4, 3, 16, 16)


def run_labels(run):
    """The labels of the images of the run's last epoch of 8 minibatches, from the data alone."""
    recipe = vgx.load_recipe(run.recipe_file)
    source, _ = open_source(recipe.dataset, recipe.image)
    store = open_store(source, recipe.image)
    batches_of_run = Batches(store.images, 8, 0, CPU, store.labels)
    return torch.cat([batches_of_run[number].labels for number in range(4, 12)])
