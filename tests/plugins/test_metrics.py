"""Metrics against independent implementations, on the same images and on the same features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.special
import scipy.stats
import torch
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

import vgx

IMAGE = vgx.ImageSpec(48)
REGISTRY = vgx.discover()


def metric(name, **fields):
    return REGISTRY.part("metric", name)(**fields)


def random_images(n=5, side=48):
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(n, 3, side // 4, side // 4, generator=generator)
    real = torch.nn.functional.interpolate(real, scale_factor=4)
    return real, (real + 0.1 * torch.randn(real.shape, generator=generator)).clamp(0, 1)


def measured(part, real, fake, image=IMAGE):
    gauge = part.build(image)
    for pair in zip(real.split(2), fake.split(2), strict=True):
        gauge.update(*pair)
    return gauge.compute()


# --- reconstructions ---------------------------------------------------------------------------


def test_l1_and_psnr_are_means_over_images():
    real, fake = (side.double().numpy() for side in random_images())
    assert measured(metric("l1"), *random_images())["l1"] == pytest.approx(abs(real - fake).mean())
    errors = ((real - fake) ** 2).mean((1, 2, 3))
    expected = np.mean([-10 * math.log10(error) for error in errors])
    assert measured(metric("psnr"), *random_images())["psnr"] == pytest.approx(expected, abs=1e-4)


def test_metrics_of_pairs_know_the_value_of_each_image():
    """Unlike distances of sets, which are no means over images."""
    real, fake = random_images()
    names = ("psnr", "ssim", "ms-ssim", "l1", "detail", "perceptual")
    for name in names:
        state = metric(name).build(IMAGE)
        state.update(real[:2], fake[:2])
        state.update(real[2:], fake[2:])
        assert isinstance(state, vgx.PerImage)
        alone = [measured(metric(name), real[i : i + 1], fake[i : i + 1])[name] for i in range(5)]
        assert state.per_image()[name] == pytest.approx(alone, rel=1e-5)
    assert not isinstance(metric("reconstruction-frechet").build(IMAGE), vgx.PerImage)


def test_psnr_by_hand():
    """A difference of a tenth everywhere is 20 dB; no difference counts 100."""
    grey = torch.full((2, 3, 8, 8), 0.5)
    assert measured(metric("psnr"), grey, grey + 0.1)["psnr"] == pytest.approx(20, abs=1e-4)
    assert measured(metric("psnr"), grey, grey)["psnr"] == 100


def test_detail_is_the_correlation_of_scipys_laplacians():
    real, fake = random_images()
    expected = []
    for pair in zip(real.double().numpy(), fake.double().numpy(), strict=True):
        small = [image.mean(0).reshape(24, 2, 24, 2).mean((1, 3)) for image in pair]
        maps = [scipy.ndimage.laplace(image)[1:-1, 1:-1].ravel() for image in small]
        expected.append(scipy.stats.pearsonr(*maps).statistic)
    value = measured(metric("detail"), real, fake)["detail"]
    assert value == pytest.approx(np.mean(expected), abs=1e-9)
    assert 0.3 < value < 0.99


def test_detail_is_neither_brightness_nor_contrast_nor_a_checkerboard():
    real, _ = random_images()
    board = torch.ones(48, 48)
    board[::2, ::2] = board[1::2, 1::2] = -1
    for fake in (real, 0.5 * real + 0.2, real + 0.3 * board):
        assert measured(metric("detail"), real, fake)["detail"] == pytest.approx(1, abs=1e-6)
    assert measured(metric("detail"), real, 1 - real)["detail"] == pytest.approx(-1, abs=1e-6)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    plain = (0.01 * x + 0.005 * y).expand(5, 3, 48, 48)  # a slope has no fine structure
    assert measured(metric("detail"), real, plain)["detail"] == 0
    assert measured(metric("detail"), plain, plain)["detail"] == 0


def windows(x, side=11, sigma=1.5):
    """Gaussian means over the windows that lie in images [B, C, H, W]."""
    places = np.arange(side) - side // 2
    weights = np.exp(-(places**2) / (2 * sigma**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    return np.einsum(
        "bcxyij,ij->bcxy",
        np.lib.stride_tricks.sliding_window_view(x, (side, side), (2, 3)),
        weights,
    )


def similarities(x, y):
    """The maps of SSIM, and of contrast and structure alone, by the paper's formula."""
    mx, my = windows(x), windows(y)
    vx, vy, cov = (
        windows(x * x) - mx * mx,
        windows(y * y) - my * my,
        windows(x * y) - mx * my,
    )
    contrast = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
    return contrast * (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2), contrast


def test_ssim_is_the_papers_formula():
    """Over the windows that lie in the image, in float64."""
    real, fake = (side.double() for side in random_images())
    value = measured(metric("ssim"), real, fake)["ssim"]
    ssim, _ = similarities(real.numpy(), fake.numpy())
    assert value == pytest.approx(ssim.mean(), abs=1e-6)
    assert measured(metric("ssim"), real, real)["ssim"] == pytest.approx(1)


# scikit-image 0.26.0: skimage.metrics.structural_similarity(real, fake, channel_axis=2,
# gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)
SCIKIT_IMAGE = {
    (48, 3, 0): 0.9433996111941392,
    (48, 3, 2): 0.9440389555704657,
    (33, 1, 1): 0.9420711692520986,
    (11, 3, 0): 0.9444646155963364,
}


@pytest.mark.parametrize(("side", "channels", "shift"), SCIKIT_IMAGE)
def test_ssim_is_that_of_scikit_image(side, channels, shift):
    y, x, c = np.mgrid[0:side, 0:side, 0:channels].astype(float)
    real = ((7 * x + 13 * y * (c + 1) + x * y) % 97) / 96
    fake = np.clip(0.8 * real + 0.1 + 0.1 * np.sin(x * 0.9 + y * 0.4 + c + shift), 0, 1)
    pair = (torch.from_numpy(image.transpose(2, 0, 1))[None] for image in (real, fake))
    value = measured(metric("ssim"), *pair, vgx.ImageSpec(side, channels))["ssim"]
    assert value == pytest.approx(SCIKIT_IMAGE[side, channels, shift], abs=1e-8)


def mirrored(x):
    """Images whose every pixel has a window, which are mirrored at their border."""
    return np.pad(x, ((0, 0), (0, 0), (5, 5), (5, 5)), "reflect")


def test_ms_ssim_is_the_product_of_its_scales():
    """Windows in the image for the finer scale, those over its border too for the coarsest one."""
    real, fake = (side.double() for side in random_images())
    value = measured(metric("ms-ssim", scales=2), real, fake)["ms-ssim"]
    x, y = real.numpy(), fake.numpy()
    _, fine = similarities(x, y)
    half = [s.reshape(5, 3, 24, 2, 24, 2).mean((3, 5)) for s in (x, y)]
    coarse, _ = similarities(*map(mirrored, half))
    share = 0.0448 / (0.0448 + 0.2856)
    expected = [
        max(f.mean(), 0) ** share * max(c.mean(), 0) ** (1 - share)
        for f, c in zip(fine, coarse, strict=True)
    ]
    assert value == pytest.approx(np.mean(expected), abs=1e-6)


def test_perceptual_is_the_distance_of_windows():
    """Nine windows of half an image, features scaled to length 1."""
    part = metric("perceptual")
    real, fake = random_images(4)
    network = part.features.build(vgx.ImageSpec(24))
    distances = []
    for top in (0, 12, 24):
        for left in (0, 12, 24):
            one, two = (
                network(x[:, :, top : top + 24, left : left + 24]).double().numpy()
                for x in (real, fake)
            )
            one, two = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (one, two))
            distances.append(((one - two) ** 2).sum(1))
    value = measured(part, real, fake)["perceptual"]
    assert value == pytest.approx(np.mean(distances), rel=1e-5)
    assert measured(part, real, real)["perceptual"] == 0
    assert measured(part, real, fake.mean(0, keepdim=True).expand_as(real))["perceptual"] > value


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("ssim", 10, "a window has 11 pixels a side, an image 10"),
        ("detail", 5, "it needs 6 pixels a side, an image has 5"),
        ("ms-ssim", 43, "scales: 3 needs 44 pixels a side, an image has 43"),
    ],
)
def test_images_that_are_too_small_are_refused(name, side, expected):
    """Before any is drawn, and not when they are a pixel larger."""
    assert metric(name).why_not(vgx.ImageSpec(side), 9, 9) == expected
    assert metric(name).why_not(vgx.ImageSpec(side + 1), 1, 1) == ""
    real, fake = random_images(2, 44)
    measured(metric(name), real[:, :, : side + 1, : side + 1], fake[:, :, : side + 1, : side + 1])


# --- sets: the same features, another implementation -------------------------------------------


def features(n=300, m=260, wide=24):
    """Two sets of correlated features that are neither alike nor far apart."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(wide, wide, generator=generator) / wide**0.5
    real = torch.randn(n, wide, generator=generator) @ mix + 1
    return real, (torch.randn(m, wide, generator=generator) @ mix) * 1.2 + 1.1


def test_fid_is_the_frechet_distance():
    """scipy's square root of a matrix, numpy's covariances, float64: to 1e-6."""
    x, y = (side.double().numpy() for side in features())
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected += np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert metric("frechet-distance").compare(*features())["frechet-distance"] == pytest.approx(
        expected, rel=1e-6
    )


def test_fid_of_gaussians_is_known():
    """Features whose moments are exactly N(0, I) and N(m, 4 I): |m|^2 + F."""
    white, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 9)))
    white -= white.mean(0)
    white = np.linalg.svd(white, full_matrices=False)[0][:, :8] * 63**0.5
    white -= white.mean(0)
    x = torch.from_numpy(white)
    moment = np.cov(white.T)
    y = 2 * x + 3
    shift = 8 * 9.0
    value = metric("frechet-distance").compare(x, y)["frechet-distance"]
    assert value == pytest.approx(shift + np.trace(moment), rel=1e-9)


def test_kid_is_the_unbiased_mmd():
    """Sums over pairs in numpy, float64, all images in one subset: to 1e-6."""
    real, fake = features(80, 80)
    x, y = real.double().numpy(), fake.double().numpy()

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, off = len(x), 1 - np.eye(len(x))
    expected = ((kernel(x, x) + kernel(y, y)) * off).sum() / (n * (n - 1))
    expected -= 2 * kernel(x, y).mean()
    assert metric("kernel-distance", subsets=1).compare(real, fake)[
        "kernel-distance"
    ] == pytest.approx(expected, rel=1e-6)


def test_kid_of_subsets_is_the_mean_of_theirs():
    """Subsets are drawn from the part's seed; their mean tends to the whole's."""
    real, fake = features(300, 300)
    part = metric("kernel-distance", subsets=200, size=100)
    assert part.compare(real, fake) == part.compare(real, fake)
    assert part.compare(real, fake) != metric(
        "kernel-distance", subsets=200, size=100, seed=1
    ).compare(real, fake)
    whole = metric("kernel-distance", subsets=1, size=300).compare(real, fake)["kernel-distance"]
    assert part.compare(real, fake)["kernel-distance"] == pytest.approx(whole, rel=0.1)


def independent_prdc(real, fake, k):
    """The balls of the papers with scikit-learn's neighbours, float64."""

    def reach(x):
        return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, -1]

    between = pairwise_distances(real, fake)
    in_real = between < reach(real)[:, None]
    return {
        "precision": in_real.any(0).mean(),
        "recall": (between < reach(fake)[None]).any(1).mean(),
        "density": in_real.sum() / (k * len(fake)),
        "coverage": (between.min(1) < reach(real)).mean(),
    }


@pytest.mark.parametrize("k", [1, 5])
def test_prdc_are_the_papers_balls(k, monkeypatch):
    """With k = 3 for precision and recall; also when distances are taken in pieces; to 1e-6."""
    from vgx_builtin.metrics import prdc

    real, fake = features()
    expected = independent_prdc(real.double().numpy(), fake.double().numpy(), k)
    of_balls = independent_prdc(real.double().numpy(), fake.double().numpy(), 3)
    expected |= {name: of_balls[name] for name in ("precision", "recall")}
    assert metric("prdc", k=k).compare(real, fake) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(prdc, "ROWS", 7)
    assert metric("prdc", k=k).compare(real, fake) == pytest.approx(expected, abs=1e-6)
    assert all(0 < value < 2 for value in expected.values())
    assert len({round(value, 3) for value in expected.values()}) == 4


def test_prdc_by_hand():
    """Four real points on a line, k = 1: balls of radius 1, 1, 2 and 4 around 0, 1, 3 and 7."""
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    fake = torch.tensor([[0.5], [0.6], [20.0]])
    # 0.5 and 0.6 are in the balls of 0 and 1; 20 in none. Their own balls have radius 0.1 and 19.4.
    assert metric("prdc", k=1, k_precision=1).compare(real, fake) == pytest.approx(
        {"precision": 2 / 3, "recall": 3 / 4, "density": 4 / 3, "coverage": 2 / 4}, abs=1e-9
    )


def test_what_is_generated_perfectly_scores_so():
    real, _ = features()
    assert abs(metric("frechet-distance").compare(real, real)["frechet-distance"]) < 1e-9
    assert (
        metric("kernel-distance", subsets=3).compare(real, real)["kernel-distance"] < 0
    )  # unbiased
    seen = metric("prdc").compare(real, real)
    assert (seen["precision"], seen["recall"], seen["coverage"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("name", "least"), [("frechet-distance", 2), ("kernel-distance", 2), ("prdc", 6)]
)
def test_too_few_images_are_refused(name, least):
    """Of either side, before any is drawn; the smallest number that is not refused is measured."""
    part = metric(name)
    assert part.why_not(IMAGE, 99, least - 1)
    assert part.why_not(IMAGE, least - 1, 99)
    assert part.why_not(IMAGE, least, least) == ""
    values = part.compare(torch.rand(least, 4), torch.rand(least, 4))
    assert all(math.isfinite(value) for value in values.values())


@pytest.mark.parametrize(("n", "m"), [(40, 64), (300, 20), (64, 300)])
def test_the_frechet_distance_of_fewer_images_than_features(n, m):
    """256 features, so no covariance has full rank; torchmetrics takes the eigenvalues of S S."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Features(torch.nn.Module):
        num_features = 256

        def forward(self, features):
            return features

    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(256, 256, generator=generator) / 16
    real = torch.randn(n, 256, generator=generator) @ mix
    fake = 1.2 * torch.randn(m, 256, generator=generator) @ mix + 0.1
    other = FrechetInceptionDistance(Features())
    for side, features in ((True, real), (False, fake)):
        other.update(features.double(), real=side)
    value = metric("frechet-distance").compare(real, fake)["frechet-distance"]
    assert value == pytest.approx(other.compute().item(), rel=1e-6)


def test_a_set_has_no_distance_from_itself():
    """With far fewer images than features, where an eigenvalue of 0 is easily a small number."""
    features = torch.randn(300, 1024, generator=torch.Generator().manual_seed(0)) * 10
    value = metric("frechet-distance").compare(features, features)["frechet-distance"]
    assert abs(value) < 1e-8  # where the two traces are about 10^5 each


@pytest.mark.parametrize(
    "name", ["frechet-distance", "kernel-distance", "prdc", "reconstruction-frechet"]
)
def test_images_are_compared_in_the_features_of_the_part(name):
    """The gauge of images gives what `compare` gives for their features."""
    real, fake = random_images(12, 16)
    part = metric(name)
    network = part.features.build(vgx.ImageSpec(16))
    expected = part.compare(network(real), network(fake))
    assert measured(part, real, fake, vgx.ImageSpec(16)) == pytest.approx(expected, rel=1e-3)
    assert isinstance(part, vgx.Comparison)


@pytest.mark.parametrize(
    ("name", "other"),
    [("fid", "frechet-distance"), ("kid", "kernel-distance"), ("rfid", "reconstruction-frechet")],
)
def test_what_is_called_after_inception_is_in_its_features(name, other):
    """Also by default; in other features it has another name, and gives the same number."""
    part = metric(name)
    assert part.features.type == "inception"
    real, fake = features()
    assert {*part.compare(real, fake)} == {name}
    assert part.compare(real, fake)[name] == metric(other).compare(real, fake)[other]
    of_other = REGISTRY.part("features", "random-conv")()
    with pytest.raises(ValueError, match=f"Inception's features alone; .* write 'type: {other}'"):
        metric(name, features=of_other)


def test_each_metric_says_what_it_compares_and_what_is_better():
    expected = {p.type: (p.pairs, p.better) for _, p in REGISTRY.offers("metric")}
    assert expected == {
        "bits-per-dim": (True, "lower"),
        "detail": (True, "higher"),
        "path-length": (False, "lower"),
        "fid": (False, "lower"),
        "frechet-distance": (False, "lower"),
        "kernel-distance": (False, "lower"),
        "inception-score": (False, "higher"),
        "kid": (False, "lower"),
        "l1": (True, "lower"),
        "lpips": (True, "lower"),
        "memorisation": (False, "higher"),
        "ms-ssim": (True, "higher"),
        "perceptual": (True, "lower"),
        "prdc": (False, "higher"),
        "psnr": (True, "higher"),
        "reconstruction-frechet": (True, "lower"),
        "rfid": (True, "lower"),
        "ssim": (True, "higher"),
    }


# --- inception score ---------------------------------------------------------------------------


def test_the_inception_score_is_that_of_scipy():
    """The mean over sets, which get every fourth image: some of each class, as these are sorted."""
    from vgx_builtin.metrics.inception_score import inception_score

    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 7, generator=generator, dtype=torch.float64)
    classifier = torch.randn(12, 7, generator=generator, dtype=torch.float64)
    scores = []
    for split in range(4):
        classes = scipy.special.softmax((features[split::4] @ classifier.T).numpy(), 1)
        apart = scipy.stats.entropy(classes, classes.mean(0, keepdims=True), axis=1)
        scores.append(np.exp(apart.mean()))
    assert inception_score(features, classifier, 4) == pytest.approx(np.mean(scores))
    # Three classes, which are certain, make a score of 3.
    certain = torch.eye(3, dtype=torch.float64).repeat_interleave(20, 0) * 100
    assert inception_score(certain, torch.eye(3), 4) == pytest.approx(3)
    assert metric("inception-score").why_not(IMAGE, 5, 19)
    assert not metric("inception-score").why_not(IMAGE, 5, 20)


# --- memorisation ------------------------------------------------------------------------------


def faces(count, seed):
    """Points of a distribution of three clusters in 12 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    middles = 3 * torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    which = torch.randint(3, (count,), generator=generator)
    return middles[which] + torch.randn(count, 12, generator=generator), middles[which]


def test_a_memoriser_is_caught_and_a_blurred_model_is_not():
    trained, (held, _) = faces(600, 1)[0], faces(60, 2)
    generator = torch.Generator().manual_seed(3)
    few = trained[-1 - torch.randint(150, (300,), generator=generator)]  # of a quarter of them
    copies = few + 0.1 * torch.randn(300, 12, generator=generator)
    true, middles = faces(300, 4)
    blurred = middles + 0.2 * (true - middles)  # nearer to the images than these are to each other
    part = metric("memorisation")
    assert part.compare(trained, copies, held)["memorisation_p"] < 0.01
    assert part.compare(trained, copies, held)["novelty"] < 0.1
    for innocent in (true, blurred):
        values = part.compare(trained, innocent, held)
        assert values["memorisation_p"] > 0.05
        assert values["novelty"] > 0.4


def test_the_p_value_is_that_of_all_choices_of_the_held_out_images():
    """Six real images, of which two are held out: 15 choices, counted by hand."""
    from itertools import combinations

    from vgx_builtin.metrics.memorisation import held_out_part

    counts = [5, 3, 0, 4, 1, 1]
    sums = [counts[a] + counts[b] for a, b in combinations(range(6), 2)]
    values = held_out_part(torch.tensor(counts), 2)
    exact = sum(value <= 2 for value in sums) / 15  # the true part is 1 + 1
    assert values["memorisation_p"] == pytest.approx(exact, abs=0.015)
    assert values["novelty"] == pytest.approx(2 / (14 * 2 / 6))


def test_the_p_value_is_below_a_level_as_seldom_as_it_says():
    """Of models that copy nothing, 200 times: about a tenth are below 0.1, whatever they draw."""
    from vgx_builtin.metrics.memorisation import held_out_part

    generator = torch.Generator().manual_seed(0)
    below = 0
    for _ in range(200):
        real = torch.randn(80, 2, generator=generator)
        near = torch.cdist(0.3 * torch.randn(400, 2, generator=generator), real).argmin(1)
        below += held_out_part(torch.bincount(near, minlength=80), 20)["memorisation_p"] < 0.1
    assert below / 200 <= 0.1 + 3 * (0.09 / 200) ** 0.5
