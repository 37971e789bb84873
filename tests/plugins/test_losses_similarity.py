"""Losses on structure and on features: other implementations, frozen networks, numbers by hand."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from steps import batches
from torch import nn
from torch.nn import functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _LPIPS

import vgx
from vgx import rng
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import RecipeError

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
WIDE = torch.float64


def loss(name, **settings):
    return vgx.discover().part("loss", name)(**settings)


def step(**given):
    absent = {field.name: None for field in fields(vgx.Step) if field.default is MISSING}
    return vgx.Step(**{**absent, "number": 0, "progress": 0.0, "real": None, **given})


def random_images(side, seed=0, n=2, channels=3, dtype=WIDE):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, channels, side // 4, side // 4, generator=generator, dtype=dtype)
    return F.interpolate(noise, size=side, mode="bilinear")


# --- ssim --------------------------------------------------------------------------------------


def similarities(x, y):
    """SSIM, and contrast and structure alone, at each pixel of two planes (Wang et al. 2004)."""

    def blur(plane):
        return gaussian_filter(plane, 1.5, mode="mirror", truncate=3.5)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    contrast = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
    return contrast * (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2), contrast


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_another_implementation(channels):
    x, y = random_images(16, channels=channels), random_images(16, seed=1, channels=channels)
    planes = zip(x.flatten(0, 1).numpy(), y.flatten(0, 1).numpy(), strict=True)
    by_scipy = np.mean([similarities(*pair)[0].mean() for pair in planes])
    assert loss("ssim").generator(step(real=x, recon=y)).item() == pytest.approx(1 - by_scipy)


@pytest.mark.parametrize(("scales", "side"), [(1, 16), (2, 24), (3, 64)])
def test_ms_ssim_is_that_of_another_implementation(scales, side):
    """Factors v are (1 + v) / 2, the loss is doubled; contrasts leave out windows on the border."""
    x, y = random_images(side), random_images(side, seed=1)
    exponents = np.array([0.0448, 0.2856, 0.3001][:scales])
    exponents /= exponents.sum()
    values = []
    for a, b in zip(x, y, strict=True):
        product = 1.0
        for scale, exponent in enumerate(exponents):
            maps = [similarities(*pair) for pair in zip(a.numpy(), b.numpy(), strict=True)]
            if scale == scales - 1:  # the coarsest has its luminance too
                factor = np.mean([whole for whole, _ in maps])
            else:
                factor = np.mean([contrast[5:-5, 5:-5] for _, contrast in maps])
            product *= ((1 + factor) / 2) ** exponent
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)  # noqa: PLW2901
        values.append(product)
    ours = loss("ms-ssim", scales=scales).generator(step(real=x, recon=y)).item()
    assert ours == pytest.approx(2 * (1 - np.mean(values)), rel=1e-6)


@pytest.mark.parametrize("noise", [0.005, 0.05])
def test_ms_ssim_of_similar_images_is_the_papers(noise):
    """Value and gradient of 1 - MS-SSIM without (1 + v) / 2: published weights transfer."""
    x = random_images(64)
    generator = torch.Generator().manual_seed(2)
    y = x + noise * torch.randn(x.shape, generator=generator, dtype=WIDE)
    y.requires_grad_()
    betas = tuple(exponent / 0.6305 for exponent in (0.0448, 0.2856, 0.3001))
    papers = 1 - multiscale_structural_similarity_index_measure(
        y, x, data_range=1.0, betas=betas, normalize=None
    )
    ours = loss("ms-ssim").generator(step(real=x, recon=y))
    assert ours.item() == pytest.approx(papers.item(), rel=0.03)
    slopes = [torch.autograd.grad(value, y)[0].norm().item() for value in (ours, papers)]
    assert slopes[0] == pytest.approx(slopes[1], rel=0.03)


@pytest.mark.parametrize("name", ["ssim", "ms-ssim"])
def test_similarity_is_whole_only_to_itself(name):
    x = random_images(64)
    assert loss(name).generator(step(real=x, recon=x)).item() == pytest.approx(0, abs=1e-9)
    noise = 0.1 * torch.rand(x.shape, generator=rng.generator(0, "noise"), dtype=WIDE)
    near, far = (loss(name).generator(step(real=x, recon=x + s * noise)) for s in (1, 3))
    assert 0 < near < far < 2


@pytest.mark.parametrize("name", ["ssim", "ms-ssim"])
def test_there_is_a_way_back_where_images_are_opposites(name):
    """Negative factors: their powers would be no numbers, and cut off at 0 they would not move."""
    x = random_images(64, dtype=torch.float32)
    opposite = (1 - x).requires_grad_()
    value = loss(name).generator(step(real=x, recon=opposite))
    (slope,) = torch.autograd.grad(value, opposite)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0


@pytest.mark.parametrize(("name", "side"), [("ssim", 11), ("ms-ssim", 12)])
def test_the_slope_is_the_values(name, side):
    settings = {"scales": 1} if name == "ms-ssim" else {}
    x, y = (random_images(side, n=1, channels=1, seed=seed) for seed in (0, 1))
    part = loss(name, **settings)
    assert torch.autograd.gradcheck(
        lambda recon: part.generator(step(real=x, recon=recon)), y.requires_grad_()
    )


@pytest.mark.parametrize(
    ("name", "settings", "side", "expected"),
    [
        ("ssim", {}, 8, "images of 8 pixels are smaller than a window of 11"),
        ("ms-ssim", {}, 32, "scales: 3: needs images of 44 pixels, not 32; scales: 2 fits"),
        ("ms-ssim", {"scales": 5}, 96, "images of 176 pixels, not 96; scales: 3 fits"),
        ("ms-ssim", {"scales": 1}, 8, "images of 11 pixels, not 8; not even one scale fits"),
    ],
)
def test_images_that_are_too_small_are_told(name, settings, side, expected):
    x = random_images(side)
    with pytest.raises(RecipeError, match=expected):
        loss(name, **settings).generator(step(real=x, recon=x))


@pytest.mark.parametrize(("scales", "side"), [(1, 11), (2, 22), (3, 44), (4, 99), (5, 176)])
def test_the_least_sides_are_what_fits(scales, side):
    x, y = torch.zeros(1, 1, side, side), torch.ones(1, 1, side, side)
    value = loss("ms-ssim", scales=scales).generator(step(real=x, recon=y))
    assert 0 < value < 2


# --- perceptual --------------------------------------------------------------------------------

SMALL = {"backbone": "test_resnet", "layers": (0, 2)}


def built(part, seed=0):
    with rng.ambient(seed, "weights"):
        return part.build(vgx.ImageSpec(16), vgx.LatentSpec((8,)))


def test_perceptual_is_the_cosine_distance_of_feature_maps():
    """|a - b|^2 of vectors of length 1 is 2 - 2 cos."""
    with rng.ambient(0, "weights"):
        backbone = timm.create_model("test_resnet", features_only=True, out_indices=(0, 2)).eval()
    x, y = (random_images(32, seed=seed, dtype=torch.float32) for seed in (0, 1))
    config = timm.get_pretrained_cfg("test_resnet")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    maps = [backbone((images - mean) / std) for images in (y, x)]
    by_hand = sum(
        (2 - 2 * F.cosine_similarity(a.double(), b.double())).mean().item()
        for a, b in zip(*maps, strict=True)
    )
    value = built(loss("perceptual", **SMALL)).generator(step(real=x, recon=y))
    assert by_hand > 1e-3
    assert value.item() == pytest.approx(by_hand, rel=1e-3)


def test_the_default_layers_are_those_of_lpips():
    """VGG16 until the last activation before each pooling."""
    term = built(loss("perceptual"))
    names = [name for name, _ in term.backbone.named_children()]
    assert names[-1] == "features_29"
    assert term.backbone.feature_info.module_name() == [
        f"features.{number}" for number in (3, 8, 15, 22, 29)
    ]
    x = random_images(32, dtype=torch.float32).requires_grad_()
    value = term.generator(step(real=x.detach(), recon=x))
    assert value.item() == 0
    assert torch.autograd.grad(value, x)[0].isfinite().all()


@pytest.mark.slow
def test_perceptual_is_lpips_without_its_learned_factors():
    """The network of torchmetrics with the same weights of VGG16, and factors of 1."""
    reference = _LPIPS(pretrained=False, net="vgg", pnet_rand=True, use_dropout=False).double()
    term = built(loss("perceptual")).double()
    convolutions = [
        [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        for network in (reference.net, term.backbone)
    ]
    for theirs, ours in zip(*convolutions, strict=True):
        theirs.load_state_dict(ours.state_dict())
    for layer in reference.lins:
        for weight in layer.parameters():
            nn.init.ones_(weight)
    x, y = random_images(64), random_images(64, seed=1)
    expected = reference(y, x, normalize=True).mean().item()
    assert expected > 0.01
    assert term.generator(step(real=x, recon=y)).item() == pytest.approx(expected, rel=1e-5)


def test_perceptual_takes_greyscale_images():
    grey = [random_images(32, seed=seed, channels=1, dtype=torch.float32) for seed in (0, 1)]
    term = built(loss("perceptual", **SMALL))
    as_colour = [images.expand(-1, 3, -1, -1) for images in grey]
    values = [term.generator(step(real=x, recon=y)).item() for x, y in (grey, as_colour)]
    assert values[0] == pytest.approx(values[1])


def test_the_backbone_is_frozen_whatever_the_training_does():
    changes = {"losses": ["l1", {"type": "perceptual", "backbone": "test_resnet", "layers": [0]}]}
    engine = Engine(vgx.load_recipe(TINY, {**changes, "discriminator": None}), steps=2)
    term = engine.networks["loss perceptual"]
    term.train()
    assert not any(module.training for module in term.backbone.modules())
    assert not any(parameter.requires_grad for parameter in term.parameters())
    before = {name: tensor.clone() for name, tensor in term.state_dict().items()}
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flows = {flow.label: flow.norms for flow in examine(engine, vgx.discover(), Batch(real)).flows}
    assert flows["perceptual"]["encoder"] > 0
    assert flows["perceptual"]["decoder"] > 0
    engine.step(0, batches(real))
    assert all(torch.equal(tensor, before[name]) for name, tensor in term.state_dict().items())
    # It is in the checkpoint, so that a resume needs no outside weights.
    assert any(name.startswith("loss perceptual.backbone.") for name in engine.state({}).model)


def test_perceptual_compares_with_the_weights_of_a_file(tmp_path):
    with rng.ambient(1, "others"):
        whole = timm.create_model("test_resnet")
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    part = loss("perceptual", **SMALL, weights=tmp_path / "weights.safetensors")
    ours = built(part).backbone.state_dict()
    theirs = whole.state_dict()
    assert torch.equal(ours["conv1.0.weight"], theirs["conv1.0.weight"])
    assert part.note(vgx.ImageSpec(size=32)) == ""
    bare = part.untrained()
    assert bare.weights is None
    assert not torch.equal(
        built(bare).backbone.state_dict()["conv1.0.weight"], theirs["conv1.0.weight"]
    )


def test_a_random_backbone_is_told():
    part = vgx.discover().part("loss", "perceptual")
    note = part(name="look").note(vgx.ImageSpec(size=32))
    assert note.startswith("The loss look compares images with a random vgg16")
    assert loss("perceptual", pretrained=True).note(vgx.ImageSpec(size=32)) == ""
    assert loss("perceptual", pretrained=True).untrained().pretrained is False


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"backbone": "test_vit", "layers": (0,)}, "test_vit takes images of one size only"),
        ({"backbone": "vgg1"}, "timm has no model 'vgg1'; did you mean 'vgg1"),
        ({"backbone": "test_resnet", "layers": (9,)}, "backbone test_resnet: "),
    ],
)
def test_a_backbone_that_does_not_serve_is_told(settings, expected):
    with pytest.raises(RecipeError, match=expected):
        built(loss("perceptual", **settings))


# --- feature matching --------------------------------------------------------------------------


def matched(real, fake):
    """A step with one or two features for each image, given by stage."""
    real_score, fake_score = (
        vgx.Score(torch.zeros(len(stages[0]), 1), tuple(map(torch.tensor, stages)))
        for stages in (real, fake)
    )
    return step(real_score=real_score, fake_score=fake_score, recon=torch.zeros(2, 1, 1, 1))


SHALLOW = [[[1.0], [1.0]]], [[[1.0], [4.0]]]
DEEP = [[[0.0, 2.0], [2.0, 0.0]]], [[[0.0, 0.0], [2.0, 4.0]]]


def test_feature_matching_by_hand():
    at = matched(SHALLOW[0] + DEEP[0], SHALLOW[1] + DEEP[1])
    # Pairs: 0, 4, 0, 16. Means: (1, 1) and (1, 2).
    for statistic, last, shallow in (("pairs", 5.0, 4.5), ("mean", 0.5, 2.25)):
        value = loss("feature-matching", statistic=statistic).generator(at)
        assert value.item() == pytest.approx(last)
        value = loss("feature-matching", statistic=statistic, layers="all").generator(at)
        assert value.item() == pytest.approx((last + shallow) / 2)


def test_feature_matching_pairs_reconstructions_and_means_all_fakes():
    """Two reconstructions, then two images decoded from noise."""
    fakes = [[[0.0, 0.0], [2.0, 4.0], [8.0, 8.0], [2.0, 0.0]]]
    at = matched(DEEP[0], fakes)
    assert loss("feature-matching").generator(at).item() == pytest.approx(5.0)
    # In the other order the last two are the reconstructions.
    turned = at.but(fakes=("prior", "recon"))
    assert loss("feature-matching").generator(turned).item() != pytest.approx(5.0)
    swapped = matched(DEEP[0], [[*fakes[0][2:], *fakes[0][:2]]])
    swapped = swapped.but(fakes=("prior", "recon"))
    assert loss("feature-matching").generator(swapped).item() == pytest.approx(5.0)
    # Means (1, 1) and (3, 3).
    assert loss("feature-matching", statistic="mean").generator(at).item() == pytest.approx(4.0)


@pytest.mark.parametrize("statistic", ["pairs", "mean"])
def test_feature_matching_moves_the_fakes_to_the_real_images(statistic):
    real, fake = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    scores = {
        "real_score": vgx.Score(torch.zeros(2, 1), (real,)),
        "fake_score": vgx.Score(torch.zeros(2, 1), (fake,)),
    }
    value = loss("feature-matching", statistic=statistic).generator(
        step(**scores, recon=torch.zeros(2, 1, 1, 1))
    )
    toward, pull = torch.autograd.grad(value, [real, fake], allow_unused=True)
    assert toward is None
    assert (pull > 0).all()


def test_feature_matching_in_half_precision_is_summed_in_float32():
    real, fake = torch.zeros(2, 300, dtype=torch.bfloat16), torch.ones(2, 300, dtype=torch.bfloat16)
    real[0, 0] = 1
    scores = {
        "real_score": vgx.Score(torch.zeros(2, 1), (real,)),
        "fake_score": vgx.Score(torch.zeros(2, 1), (fake,)),
    }
    value = loss("feature-matching").generator(step(**scores, recon=fake))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(599 / 600)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train.fakes": ["prior"]}, "statistic: pairs needs 'recon' in train.fakes"),
        ({"encoder": None, "train.fakes": ["prior"]}, "step.recon: the recipe needs"),
    ],
)
def test_feature_matching_does_not_pair_what_is_no_pair(changes, expected):
    """Images decoded from noise have no image that they should be."""
    losses = ["hinge", "feature-matching"]
    engine = Engine(vgx.load_recipe(TINY, {"losses": losses, **changes}), steps=2)
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RecipeError, match=expected):
        examine(engine, vgx.discover(), Batch(real))


@pytest.mark.parametrize("judges", ["latents", "pairs"])
def test_feature_matching_pairs_images_alone(judges):
    """A judge of latents or of images with latents has no pair of an image and its own."""
    score = vgx.Score(torch.zeros(2, 1), (torch.ones(2, 3),))
    given = {"real_score": score, "fake_score": score, "judges": judges}
    at = step(**given, recon=torch.zeros(2, 1, 1, 1))
    with pytest.raises(RecipeError, match=f"judges {judges}, not images; write statistic: mean"):
        loss("feature-matching").generator(at)
    assert loss("feature-matching", statistic="mean").generator(at) == 0


def test_a_discriminator_without_features_is_told():
    bare = vgx.Score(torch.zeros(2, 1))
    with pytest.raises(RecipeError, match="gives no features"):
        loss("feature-matching").generator(step(real_score=bare, fake_score=bare))


@pytest.mark.parametrize("statistic", ["pairs", "mean"])
def test_the_audit_finds_nothing_wrong_with_feature_matching(statistic):
    match = {"type": "feature-matching", "statistic": statistic, "layers": "all"}
    recipe = vgx.load_recipe(TINY, {"losses": ["hinge", "kl", match]})
    engine = Engine(recipe, steps=2)
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flows = {flow.label: flow.norms for flow in examine(engine, vgx.discover(), Batch(real)).flows}
    assert flows["feature-matching"]["encoder"] > 0
    assert flows["feature-matching"]["decoder"] > 0
