"""How much of a codebook is used: in the log, in warnings, on the page of a run, in `vgx eval`."""

from __future__ import annotations

import io
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from steps import batches

import vgx
from vgx.console import Console
from vgx.engine.engine import Engine
from vgx.engine.forward import Forward
from vgx.evaluation.latents import Latents, by_level, codebook_metrics
from vgx.training import monitors, session
from vgx_report import curves

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
RESIDUAL = {"type": "residual", "widths": [4, 8]}
BASE = {
    "latent": [4, 4, 4], "decoder": RESIDUAL, "discriminator": None, "augment": [],
    "sampler": "posterior",
}  # fmt: skip
LEVELS = {
    **BASE,
    "encoder": {"type": "residual-quantised", "codes": 8, "levels": 2, "inner": RESIDUAL},
    "losses": ["l2", "vq"],
}


def by_counting(indices, codes):
    """Usage and perplexity of [N, levels], as means over the levels."""
    counts = [np.bincount(level, minlength=codes) for level in np.asarray(indices).T]
    usage = np.mean([(count > 0).mean() for count in counts])
    return usage, np.mean([np.exp(entropy(count)) for count in counts])


def test_usage_and_perplexity_by_hand():
    """Three of four codes, one of them twice as often: the entropy is 1.5 ln 2."""
    half = torch.tensor([0, 0, 1, 3])
    assert codebook_metrics(half[:, None], 4) == {
        "codebook_usage": 0.75,
        "perplexity": pytest.approx(2**1.5),
    }
    levels = torch.stack([half, torch.zeros_like(half)], 1)
    assert codebook_metrics(levels, 4) == {
        "codebook_usage": (0.75 + 0.25) / 2,
        "perplexity": pytest.approx((2**1.5 + 1) / 2),
    }
    assert codebook_metrics(half[:, None], 2**40)["codebook_usage"] == 3 / 2**40
    many = torch.randint(30, (500, 2), generator=torch.Generator().manual_seed(0))
    usage, perplexity = by_counting(many, 32)
    assert [*codebook_metrics(many, 32).values()] == pytest.approx([usage, perplexity])


def test_levels_are_told_from_places():
    flat, spatial = torch.arange(6), torch.arange(24).view(2, 3, 4)
    assert by_level(flat, 2).tolist() == [[i] for i in range(6)]
    assert by_level(flat.view(3, 2), 2).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert by_level(spatial, 4).shape == (24, 1)
    assert by_level(spatial, 3).shape == (6, 4)


def test_the_log_has_what_the_last_minibatch_used():
    engine, seen = Engine(vgx.load_recipe(TINY, LEVELS), 20, 64), []
    encode = Forward.encode

    def encoding(self, *arguments):
        seen.append(encode(self, *arguments))
        return seen[-1]

    assert monitors.codebook_use(engine) == {}
    with mock.patch.object(Forward, "encode", encoding):
        for number in range(2):
            images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(number))
            engine.step(number, batches(images))
    usage, perplexity = by_counting(seen[-1].indices.flatten(0, -2), 8)
    assert monitors.codebook_use(engine) == {
        "codebook_usage": pytest.approx(usage),
        "perplexity": pytest.approx(perplexity),
    }
    without = Engine(vgx.load_recipe(TINY), 20, 64)
    without.step(0, batches(torch.rand(8, 3, 16, 16)))
    assert monitors.codebook_use(without) == {}


def test_a_codebook_collapses_when_a_fifth_of_what_could_occur_is_used():
    places = torch.arange(200)
    assert monitors.codebook_collapse((places % 41)[:, None], 2**20) == ""  # 200 could occur
    warning = monitors.codebook_collapse((places % 40)[:, None], 2**20)
    assert warning.startswith("codebook collapse: 40 of 1,048,576 codes are used by 200 places")
    assert monitors.codebook_collapse((places % 5)[:, None], 20) == ""
    warning = monitors.codebook_collapse((places % 4)[:, None], 20)
    assert warning.startswith("codebook collapse: 4 of 20 codes")
    assert "decay=0.99" in warning


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run with two levels; the recipe holds out a quarter of its images."""
    folder = tmp_path_factory.mktemp("codebooks")
    settings = {"train.steps": 6, "train.log_every": 1, "eval.holdout": 0.25}
    recipe = vgx.load_recipe(TINY, {**LEVELS, **settings, "name": "levels"})
    console = Console(file=io.StringIO(), width=200)
    return session.run(recipe, out=folder, console=console)


@pytest.mark.slow
def test_a_run_has_them_in_its_log_its_curves_and_its_evaluation(run):
    lines = run.read_log()
    assert [line["codebook"].keys() for line in lines] == [{"codebook_usage", "perplexity"}] * 6
    assert all(0 < line["codebook"]["codebook_usage"] <= 1 for line in lines)
    charts = {chart["title"]: chart for chart in curves.of_run(lines, {})["groups"]}
    for title, name in (
        ("Codebook usage", "codebook_usage"), ("Codebook perplexity", "perplexity"),
    ):  # fmt: skip
        (curve,) = charts[title]["lines"]
        logged = [line["codebook"][name] for line in lines]
        assert curve["values"] == pytest.approx(logged, rel=1e-3)
    kept, gather = [], Latents.joined

    def gathering(*arguments):
        kept.append(gather(*arguments))
        return kept[-1]

    with mock.patch.object(Latents, "joined", gathering):
        results = vgx.evaluate(run.path, n=16, seeds=1, metrics=["psnr"]).results
    (latents,) = [each for each in kept if each.indices is not None]  # the page has others
    assert latents.indices.shape == (16 * 16, 2)
    figures = results["latent"]["figures"]
    for name, value in zip(
        ("codebook_usage", "perplexity"), by_counting(latents.indices, 8), strict=True
    ):
        assert figures[name]["mean"] == pytest.approx(value)
        assert "codes" in figures[name]["meaning"]


def test_posteriors_keep_their_indices():
    encoder = vgx.discover().part("encoder", "binary-spherical")(
        inner=vgx.discover().part("encoder", "residual")(widths=(4, 8))
    )
    network = encoder.build(vgx.ImageSpec(16), vgx.LatentSpec((3, 4, 4))).eval()
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    posteriors = [network(images[:2]), network(images[2:])]
    latents = Latents.of(posteriors, network)
    assert latents.codes == 8
    assert latents.indices.tolist() == [[int(k)] for p in posteriors for k in p.indices.flatten()]
