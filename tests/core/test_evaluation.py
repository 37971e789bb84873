"""Metrics of latents, and the images that are held out for them."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

import vgx
from vgx import rng
from vgx.console import Console
from vgx.data.pieces import hash_of
from vgx.data.split import held_out
from vgx.data.store import open_store
from vgx.errors import DataError, RecipeError
from vgx.evaluation import latents
from vgx.evaluation.evaluate import over_images
from vgx.evaluation.features import FeatureCache, real_sets
from vgx.evaluation.latents import Latents
from vgx.evaluation.metrics import check_metric, counts_of, measure_samples

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
CPU = torch.device("cpu")
REGISTRY = vgx.discover()


def console():
    return Console(file=io.StringIO())


def part(kind, name, **fields):
    return REGISTRY.part(kind, name)(**fields)


# --- the split ---------------------------------------------------------------------------------


def test_the_split_is_of_what_is_on_the_pictures():
    """Duplicates are on one side, and a picture stays on its side whatever else there is."""
    hashes = np.array([hash_of(bytes([n // 2, 7])) for n in range(512)], np.uint64)
    held = held_out(hashes, 0.25)
    assert (held[::2] == held[1::2]).all()
    assert held.mean() == pytest.approx(0.25, abs=0.06)
    assert (held_out(hashes[100:], 0.25) == held[100:]).all()
    assert held[held_out(hashes, 0.1)].all()  # a larger share holds out more, and the same ones
    assert not held_out(hashes, 0).any()


def test_a_share_that_leaves_a_side_empty_is_refused():
    hashes = np.array([hash_of(b"one")] * 5, np.uint64)
    with pytest.raises(DataError, match=r"eval.holdout: 0.01: 5 images are too few: all of them"):
        held_out(hashes, 0.01)
    high = np.array([0x9E3779B97F4A7C15] * 2, np.uint64)
    with pytest.raises(DataError, match="none of them would be trained on"):
        held_out(high, 0.5)


# --- latents -----------------------------------------------------------------------------------


def posteriors(n=400, dimensions=5):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(n, dimensions, generator=generator) * torch.tensor([2, 1, 0.5, 0.05, 0])
    logvar = torch.randn(n, dimensions, generator=generator) / 2 - 1
    return vgx.Gaussian(mean, logvar)


def test_kl_is_that_of_the_distributions():
    given = posteriors()
    spread = (given.logvar.double() / 2).exp()
    exact = kl_divergence(Normal(given.mu.double(), spread), Normal(0.0, 1.0)).mean(0)
    by_dimension = latents.kl_by_dimension(Latents.of([given]))
    assert by_dimension == pytest.approx(exact.tolist(), rel=1e-6)
    values = latents.latent_metrics(Latents.of([given]), 0)
    assert values["kl"] == pytest.approx(exact.sum().item(), rel=1e-6)
    assert values["active_units"] == 3  # variances of about 4, 1, 0.25, 0.0025 and 0


def test_the_gap_is_what_a_picture_s_number_cannot_explain():
    """Means of 3 with variance 1 lie 4.5 nats from N(0, 1); of two such pictures ln 2 is theirs."""
    apart = torch.tensor([[3.0], [-3.0]]).double()
    values = latents.latent_metrics(Latents(apart, torch.zeros_like(apart)), 0)
    assert values["kl"] == pytest.approx(4.5)
    assert values["prior_gap"] == pytest.approx(4.5 - math.log(2))
    prior = Latents(torch.zeros_like(apart), torch.zeros_like(apart))
    assert latents.latent_metrics(prior, 0)["prior_gap"] == 0


def test_batches_are_gathered():
    given = posteriors(6)
    one = vgx.Gaussian(given.mu[:2].view(2, 5, 1, 1), given.logvar[:2].view(2, 5, 1, 1))
    two = vgx.Gaussian(given.mu[2:].view(4, 5, 1, 1), given.logvar[2:].view(4, 5, 1, 1))
    gathered = Latents.of([one, two])
    assert torch.equal(gathered.mean, given.mu.double())
    assert torch.equal(gathered.logvar, given.logvar.double())


def test_the_gap_from_the_prior_is_none_for_the_prior():
    """Deterministic latents from N(0, I), from N(2, I) and from N(0, 9 I): 0, 2 and 3.4 nats."""
    z = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)).double()

    def metrics(given):
        return latents.latent_metrics(Latents(given, None), 0)

    assert metrics(z)["marginal_kl"] == pytest.approx(0, abs=0.01)
    assert metrics(z + 2)["marginal_kl"] == pytest.approx(3 * 2, rel=0.05)
    wide = 3 * (9 - 1 - math.log(9)) / 2
    assert metrics(3 * z)["marginal_kl"] == pytest.approx(wide, rel=0.05)
    assert metrics(z)["mmd"] == pytest.approx(0, abs=1e-3)
    assert metrics(z + 2)["mmd"] > 0.1
    assert "kl" not in metrics(z)


def test_mmd_is_the_unbiased_estimate():
    """Over all pairs one by one, with the same draws of the prior."""
    z = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)).double()
    prior = torch.randn(z.shape, generator=rng.generator(3, "evaluation prior")).double()

    def similar(a, b):
        return 8 / (8 + ((a - b) ** 2).sum().item())

    pairs = [(i, j) for i in range(12) for j in range(12)]
    apart = [(i, j) for i, j in pairs if i != j]
    expected = sum(similar(z[i], z[j]) + similar(prior[i], prior[j]) for i, j in apart) / len(apart)
    expected -= 2 * sum(similar(z[i], prior[j]) for i, j in pairs) / len(pairs)
    mmd = latents.latent_metrics(Latents(z, None), 3)["mmd"]
    assert mmd == pytest.approx(expected, rel=1e-9)


def independent(n, width, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).double()


def named(columns):
    return {f"f{index}": column.tolist() for index, column in enumerate(columns.T)}


def test_latents_that_are_the_factors_score_fully():
    z = independent(3000, 4)
    values = latents.factor_metrics(Latents(z, None), named(z * 3 + 1), 0)
    assert values["readout_r2"] == pytest.approx(1, abs=1e-3)
    assert values["disentanglement"] == pytest.approx(1, abs=1e-3)
    assert values["completeness"] == pytest.approx(1, abs=1e-3)
    assert values["mig"] > 0.9


def test_latents_that_mix_the_factors_are_read_but_not_disentangled():
    """A rotation by 45 degrees: each latent serves both factors, each factor needs both latents."""
    z = independent(3000, 2)
    turned = z @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).double() / 2**0.5
    values = latents.factor_metrics(Latents(turned, None), named(z), 0)
    assert values["readout_r2"] == pytest.approx(1, abs=1e-3)
    assert values["disentanglement"] < 0.05
    assert values["completeness"] < 0.05
    assert values["mig"] < 0.1


def test_latents_that_know_nothing_score_nothing():
    values = latents.factor_metrics(
        Latents(independent(3000, 3), None), named(independent(3000, 2, 9)), 0
    )
    assert values["readout_r2"] < 0.01
    assert values["mig"] < 0.02


def test_a_factor_that_never_changes_is_left_out():
    z = independent(500, 2)
    both = torch.cat([z, torch.ones(500, 1)], 1)
    assert latents.factor_metrics(Latents(z, None), named(both), 0) == latents.factor_metrics(
        Latents(z, None), named(z), 0
    )
    assert latents.factor_metrics(Latents(z, None), named(both[:, 2:]), 0) == {}


def test_purity_by_hand():
    """1 - H in base 3: all in one place, in two alike, in three alike, and nothing at all."""
    weights = np.array([[0, 4.0, 0], [1, 1, 0], [2, 2, 2], [0, 0, 0]])
    assert latents.purity(weights) == pytest.approx([1, 1 - math.log(2, 3), 0, 0])


def test_bins_are_equally_wide_and_kinds_keep_theirs():
    """Twenty bins from the smallest number to the largest one, by hand."""
    column = np.array([0.0, 0.049, 0.051, 0.5, 0.94, 0.951, 1.0])
    assert latents.binned(column).tolist() == [0, 0, 1, 10, 18, 19, 19]
    assert latents.as_classes(np.array([2.0, 0, 2, 5])).tolist() == [1, 0, 1, 2]


def test_mig_is_the_gap_over_the_entropy():
    """One factor of four values; one latent tells it all, another half, a third nothing."""
    factor = np.repeat(np.arange(4.0), 25)
    means = np.stack([factor, factor // 2, np.zeros(100)], 1)
    assert latents.mutual_information_gap(means, [factor.astype(int)]) == pytest.approx(
        (math.log(4) - math.log(2)) / math.log(4)
    )


def published_mig(means, factors):
    """MIG as disentanglement_lib computes it, in numpy and scikit-learn alone.

    Its histograms have 20 bins of equal width between the smallest and the largest latent.
    """
    from sklearn.metrics import mutual_info_score

    codes = [np.digitize(row, np.histogram(row, 20)[1][:-1]) for row in means.T]
    gaps = []
    for factor in factors:
        shared = np.sort([mutual_info_score(factor, code) for code in codes])[::-1]
        gaps.append((shared[0] - shared[1]) / mutual_info_score(factor, factor))
    return np.mean(gaps)


def test_mig_is_that_of_another_implementation():
    """On skewed latents, where bins of equal width hold very different numbers."""
    z = independent(700, 3).exp().numpy()
    factors = [(z[:, 0] + z[:, 1] / 3).astype(int) % 5, (2 * z[:, 2]).astype(int) % 7]
    expected = published_mig(z, factors)
    assert expected > 0.05
    assert latents.mutual_information_gap(z, factors) == pytest.approx(expected, rel=1e-9)
    values = metrics_of(torch.from_numpy(z), a=factors[0].tolist(), b=factors[1].tolist())
    assert values["mig"] == pytest.approx(expected, rel=1e-9)


def test_a_quantity_that_is_nearly_always_the_same_is_measured():
    """All its quantiles are equal: bins that hold equally many would be a single one."""
    rare = [0.0] * 970 + [0.1 * (i + 1) for i in range(30)]
    values = metrics_of(torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)), rare=rare)
    assert 0 <= values["mig"] < 0.2


def published_dci(weights):
    """Disentanglement and completeness as disentanglement_lib computes them, with scipy."""
    from scipy.stats import entropy

    of_codes = 1 - entropy(weights.T + 1e-11, base=weights.shape[1])
    of_factors = 1 - entropy(weights + 1e-11, base=weights.shape[0])
    total = weights.sum()
    return (of_codes * weights.sum(1) / total).sum(), (of_factors * weights.sum(0) / total).sum()


def test_disentanglement_is_that_of_another_implementation():
    """With the weights of scikit-learn's lasso of each factor alone."""
    from sklearn.linear_model import Lasso

    z = independent(2000, 4)
    factors = torch.stack([z[:, 0] + z[:, 1] / 3, z[:, 1] - z[:, 2] / 2, z[:, 2]], 1)
    x = ((z - z.mean(0)) / z.std(0, unbiased=False)).numpy()
    y = ((factors - factors.mean(0)) / factors.std(0, unbiased=False)).numpy()
    penalty = (2 * math.log(4) / 2000) ** 0.5
    weights = np.stack([abs(Lasso(penalty).fit(x, column).coef_) for column in y.T], 1)  # [D, K]
    expected = published_dci(weights)
    assert all(0.2 < value < 0.9 for value in expected)
    values = latents.factor_metrics(Latents(z, None), named(factors), 0)
    measured = values["disentanglement"], values["completeness"]
    assert measured == pytest.approx(expected, abs=1e-6)


def test_latents_that_are_not_used_change_nothing():
    """29 of them, of variance 1e-18 as an encoder leaves them, beside three; 400 images."""
    z = independent(400, 3)
    factors = named(torch.stack([z[:, 0] + z[:, 1] / 3, z[:, 1] - z[:, 2] / 2, z[:, 2]], 1))
    unused = torch.cat([z, 1e-9 * independent(400, 29, 5)], 1)
    few, many = (
        latents.factor_metrics(Latents(each, torch.zeros_like(each)), factors, 0)
        for each in (z, unused)
    )
    for name in ("disentanglement", "completeness"):
        assert many[name] == pytest.approx(few[name], abs=1e-9)


def test_latents_that_have_nothing_to_do_with_a_factor_have_no_weight():
    """29 of them that are in use, each correlated with the factors by about 1 / sqrt(400)."""
    z = independent(400, 32)
    factors = named(z[:, :3] + independent(400, 3, 9))
    values = latents.factor_metrics(Latents(z, None), factors, 0)
    assert values["disentanglement"] == pytest.approx(1, abs=0.02)
    assert values["completeness"] == pytest.approx(1, abs=0.02)


def test_what_cannot_be_mixed_is_not_called_disentangled():
    """A single factor, a single latent, too few images: figures that mean nothing are left out."""
    z, other = independent(500, 2), independent(500, 2, 9)
    one = latents.factor_metrics(Latents(z, None), named(other[:, :1]), 0)
    assert {*one} == {"completeness", "mig", "readout_r2"}
    alone = latents.factor_metrics(Latents(z[:, :1], None), named(other), 0)
    assert {*alone} == {"disentanglement", "readout_r2"}
    assert latents.factor_metrics(Latents(z[:9], None), named(other[:9]), 0) == {}
    single = latents.latent_metrics(Latents(z[:1], torch.zeros(1, 2).double()), 0)
    assert {*single} == {"kl", "prior_gap"}


# --- factors that are classes ------------------------------------------------------------------


def metrics_of(z, **factors):
    return latents.factor_metrics(
        Latents(z, None), {name: list(column) for name, column in factors.items()}, 0
    )


def drawn(n, shares, seed=3):
    """n ints from 0 on, drawn with the given shares."""
    return np.random.default_rng(seed).choice(len(shares), n, p=shares).tolist()


def split(n):
    """The images that readouts are trained on, and the test images."""
    order = torch.randperm(n, generator=rng.generator(0, "evaluation split")).tolist()
    return order[: n * 4 // 5], order[n * 4 // 5 :]


def test_an_int_is_a_class_and_anything_else_a_quantity():
    """Of a quantity some numbers may be ints, as `max(0, x)` gives them."""
    quantities, classes = latents.split_factors({
        "quantity": [0.5, 1.5, 0.5], "clipped": [0, 0.25, 0], "class": [7, -2, 7],
        "yes": [True, False, True], "always": [4, 4, 4], "constant": [0.1, 0.1, 0.1],
    })  # fmt: skip
    assert [column.tolist() for column in quantities] == [[0.5, 1.5, 0.5], [0, 0.25, 0]]
    assert [column.tolist() for column in classes] == [[1, 0, 1], [1, 0, 1]]


def test_each_figure_is_of_its_kind_of_factor():
    z = independent(500, 2)
    quantity, kind = z[:, 0].tolist(), (z[:, 1] > 0).int().tolist()
    both = metrics_of(z, quantity=quantity, kind=kind)
    apart = metrics_of(z, quantity=quantity), metrics_of(z, kind=kind)
    assert "readout_accuracy" not in apart[0]
    assert "readout_r2" not in apart[1]
    assert both["readout_r2"] == apart[0]["readout_r2"]
    assert both["readout_accuracy"] == apart[1]["readout_accuracy"]
    assert both["mig"] == pytest.approx((apart[0]["mig"] + apart[1]["mig"]) / 2)
    assert metrics_of(z, quantity=quantity, always=[3] * 500) == apart[0]
    assert metrics_of(z, always=[3] * 500) == {}


def test_what_number_a_class_has_says_nothing():
    kinds = drawn(900, [0.3, 0.2, 0.4, 0.1])
    other = [{0: 9, 1: -4, 2: 3, 3: 1000}[kind] for kind in kinds]
    noise = independent(900, 3)
    z = noise + torch.tensor([[2.0, 0, 0], [0, 2, 0], [-2, 0, 0], [1, 1, 1]]).double()[kinds]
    quantity = (noise[:, 0] + noise[:, 2]).tolist()
    one, two = metrics_of(z, q=quantity, kind=kinds), metrics_of(z, q=quantity, kind=other)
    assert one == pytest.approx(two, rel=1e-3)
    assert 0.5 < one["readout_accuracy"] < 1


def test_accuracy_is_that_of_another_implementation():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    kinds = np.array(drawn(800, [0.7, 0.2, 0.1]))
    z = independent(800, 2) + torch.tensor([[0.0, 0], [2, 0], [0, 3]]).double()[kinds]
    x = ((z - z.mean(0)) / z.std(0, unbiased=False)).numpy()
    train, test = split(800)
    answers = LogisticRegression().fit(x[train], kinds[train]).predict(x[test])
    expected = balanced_accuracy_score(kinds[test], answers)
    assert expected < (answers == kinds[test]).mean() - 0.05  # so the two are not mixed up
    assert metrics_of(z, kind=kinds.tolist())["readout_accuracy"] == pytest.approx(expected)


def test_classes_in_no_order_are_told_and_the_common_one_alone_is_no_success():
    """In the plane, three kinds a third of a turn apart; then latents that know nothing."""
    kinds = drawn(600, [0.9, 0.05, 0.05])
    corners = torch.tensor([[0, 9], [8, -4], [-8, -4]]).double()
    z = independent(600, 2)
    assert metrics_of(z + corners[kinds], kind=kinds)["readout_accuracy"] == 1
    of_numpy = [*np.array(kinds)]  # as a data set's own arrays have them
    assert metrics_of(z + corners[kinds], kind=of_numpy)["readout_accuracy"] == 1
    assert metrics_of(z, kind=kinds)["readout_accuracy"] == pytest.approx(1 / 3)


def test_a_class_that_was_not_learned_is_not_told():
    """Two classes of three that are told, one of two, and one of one with nothing to learn."""
    z, (_, test) = independent(200, 2), split(200)
    sides = z + torch.where(z > 0, 5, -5)
    kinds = (sides[:, 0] > 0).int().tolist()
    kinds[test[0]] = 2
    assert metrics_of(sides, kind=kinds)["readout_accuracy"] == pytest.approx(2 / 3)
    alone = [int(row == test[3]) for row in range(200)]
    assert metrics_of(sides, kind=alone)["readout_accuracy"] == 0.5
    gone = [int(row in test) for row in range(200)]
    assert metrics_of(sides, kind=gone)["readout_accuracy"] == 0


def test_a_factor_of_many_classes_is_one_factor():
    """A latent each: were its columns factors of their own, its latent would serve them all."""
    many, few = [n % 30 for n in range(900)], [n // 30 % 3 for n in range(900)]
    quantity = [float(n // 90) for n in range(900)]
    z = torch.tensor([many, few, quantity]).T.double()
    values = metrics_of(z, many=many, few=few, quantity=quantity)
    assert values["disentanglement"] == pytest.approx(1)
    assert values["completeness"] == pytest.approx(1)


def test_the_importance_of_a_factor_is_the_mean_over_its_columns():
    """So one of two classes needs what it would need as a quantity of two values."""
    noise = independent(800, 2)
    z = noise @ torch.tensor([[1.0, 0.3], [-0.5, 1.0]]).double()
    kinds = (noise[:, 0] > 0.4).int().tolist()
    quantity = (noise[:, 0] + 2 * noise[:, 1]).tolist()
    one = metrics_of(z, q=quantity, kind=kinds)
    two = metrics_of(z, q=quantity, kind=[float(kind) for kind in kinds])
    for name in ("disentanglement", "completeness"):
        assert 0.01 < one[name] < 0.9
        assert one[name] == pytest.approx(two[name], rel=1e-6)


def test_classes_are_never_binned_by_their_order():
    """Of 40 classes one latent tells odd from even: neighbours in one bin would hide that."""
    kinds = [n % 40 for n in range(800)]
    z = torch.tensor([[n % 2, n // 400] for n in range(800)]).double()
    assert metrics_of(z, kind=kinds)["mig"] == pytest.approx(math.log(2) / math.log(40))
    assert metrics_of(z, kind=[float(kind) for kind in kinds])["mig"] == pytest.approx(0, abs=1e-9)


# --- metrics of sets that compare no features ----------------------------------------------------


class Counting(vgx.Metric, type="counting"):
    """Counts the images of each side in each batch."""

    def build(self, image):
        return Counts()


class Counts:
    def __init__(self):
        self.sides = []

    def update(self, real, fake):
        self.sides.append((len(real), len(fake)))

    def compute(self):
        return {f"{index} {side}": n for index, pair in enumerate(self.sides)
                for side, n in zip(("real", "fake"), pair, strict=True)}  # fmt: skip


@pytest.mark.parametrize("size", [2, 3, 64])
def test_a_metric_of_sets_gets_as_many_images_of_each_side(size):
    """Whatever the size of a batch: large images are drawn a few at a time."""
    recipe = vgx.load_recipe(TINY)
    store = open_store(recipe.dataset.build(recipe.image), recipe.image)
    real = real_sets(store, 0.0, 8).reference
    samples = torch.rand(10, 3, 16, 16).split(size)
    cache = FeatureCache(recipe.image, CPU)
    counts = measure_samples(iter(samples), real, [Counting()], cache)
    for side in ("real", "fake"):
        assert sum(n for name, n in counts.items() if name.endswith(side)) == 8


def test_features_of_streamed_images_that_are_cut_in_another_way_are_others():
    """Of a stream only the source is hashed, which is the same."""
    recipe = vgx.load_recipe(TINY, {"eval.metrics": ["kernel-distance"]})
    real = SimpleNamespace(content="the source", rows=np.arange(3))
    specs = [
        replace(recipe.image, **changed)
        for changed in ({}, {"fit": "crop"}, {"background": "black"}, {"range": (0.0, 1.0)})
    ]
    part = recipe.eval.metrics[0].features
    addresses = [FeatureCache(spec, CPU).address(part, real) for spec in specs]
    assert len({*addresses}) == 4
    assert FeatureCache(recipe.image, CPU).address(part, real) == addresses[0]


def test_the_weights_of_a_feature_network_are_hashed_once(monkeypatch):
    """Those of Inception have 95 MB, and a training measures again and again."""
    recipe = vgx.load_recipe(TINY, {"eval.metrics": ["kernel-distance"]})
    store = open_store(recipe.dataset.build(recipe.image), recipe.image)
    real = real_sets(store, 0.0, 8).reference
    cache = FeatureCache(recipe.image, CPU, on_disk=False)
    part = recipe.eval.metrics[0].features
    asked, network = [], cache.network(part)
    state = type(network).state_dict
    monkeypatch.setattr(type(network), "state_dict", lambda self: asked.append(self) or state(self))
    first, second = (cache.real_features(part, real) for _ in range(2))
    assert torch.equal(first, second)
    assert len(asked) == 1


def test_a_mean_over_images_has_a_standard_error_and_the_means_of_ten_parts():
    """By hand: 0 to 24; each part has every tenth value, the first five parts one more."""
    found = over_images([float(value) for value in range(25)])
    assert found["groups"] == [10, 11, 12, 13, 14, 10, 11, 12, 13, 14]
    # The variance of n numbers in a row is n (n + 1) / 12, and of their mean a 25th of it.
    assert found["spread"] == pytest.approx((25 * 26 / 12 / 25) ** 0.5)
    assert over_images([2.0, 4.0]) == {"spread": 1.0, "groups": [2.0, 4.0]}
    assert over_images([2.0]) == {"spread": 0.0, "groups": [2.0]}


# --- metrics with held-out images ----------------------------------------------------------------


def test_samples_that_are_training_images_are_told_by_the_held_out_ones():
    """The metric gets the images that the split held out; without these it is refused."""
    recipe = vgx.load_recipe(TINY, {"dataset.count": 120})
    store = open_store(recipe.dataset.build(recipe.image), recipe.image)
    sets = real_sets(store, 0.2, 200)
    trained, held = sets.reference, sets.held_out
    assert held is not None
    part = vgx.discover().part("metric", "memorisation")()
    generator = torch.Generator().manual_seed(0)

    def p_value(samples):
        cache = FeatureCache(recipe.image, CPU)
        noisy = (samples + 0.02 * torch.randn(samples.shape, generator=generator)).clamp(0, 1)
        return measure_samples(iter(noisy.split(50)), trained, [part], cache, held=held)

    copies = p_value(trained.batch(0, 200, CPU))
    assert copies["memorisation_p"] < 0.01
    assert copies["novelty"] < 0.1
    fresh = vgx.load_recipe(TINY, {"dataset.count": 220}).dataset.build(recipe.image)
    others = torch.stack([torch.from_numpy(np.array(fresh[n])) for n in range(120, 220)])
    new = others.permute(0, 3, 1, 2) / 255
    blurred = torch.nn.functional.avg_pool2d(new, 5, 1, 2, count_include_pad=False)
    for innocent in (new, blurred):
        assert p_value(innocent)["memorisation_p"] > 0.01
    without = real_sets(store, 0.0, 200)
    assert without.held_out is None
    with pytest.raises(RecipeError, match=r"metric memorisation: .* --set eval.holdout=0.1"):
        check_metric(part, recipe.image, counts_of(without, 50))


def test_the_weights_of_features_are_summed_in_any_type():
    class Half(vgx.Features, type="half"):
        """The bytes of weights in bfloat16, and one number."""

        def build(self, image):
            module = torch.nn.Linear(2, 2, bias=False).bfloat16()
            module.register_buffer("count", torch.tensor(7))
            torch.nn.init.constant_(module.weight, 1)
            return module

    cache = FeatureCache(vgx.ImageSpec(8), torch.device("cpu"), on_disk=False)
    number = (7).to_bytes(8, "little")
    expected = hashlib.sha256(b"count" + number + b"weight" + b"\x80\x3f" * 4)
    assert cache.digest(Half()) == expected.hexdigest()
