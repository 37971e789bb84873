"""Discriminators of several feature levels, and of pixels: formulas and programs written anew."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from steps import batches
from torch.nn import functional as F

import vgx
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx_builtin.discriminators.projected_layers import Mixing, head

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
IMAGE, LATENT = vgx.ImageSpec(size=32), vgx.LatentSpec((8,))
PROJECTED = {"type": "projected", "backbone": "test_resnet", "size": 64, "width": 8}
VIT = {"type": "projected-vit", "backbone": "test_vit", "size": 64, "blocks": [1, 4]}


def discriminator(image=IMAGE, **fields):
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return vgx.discover().part("discriminator", fields.pop("type"))(**fields).build(image, LATENT)


def images(n, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- projected -----------------------------------------------------------------------------------


def convolved(x, conv):
    """[F, h, w] -> [F', h, w]: an odd convolution with zeros around, place by place."""
    weight, bias = conv.weight.double().numpy(), conv.bias.double().numpy()
    reach = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    out = np.empty((len(weight), *x.shape[1:]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            patch = padded[:, i : i + 2 * reach + 1, j : j + 2 * reach + 1]
            out[:, i, j] = (weight * patch).sum((1, 2, 3)) + bias
    return out


def doubled(x):
    """[F, h, w] -> [F, 2h, 2w]: bilinear, corners on corners, place by place."""
    _, height, width = x.shape
    out = np.empty((len(x), 2 * height, 2 * width))
    for i in range(2 * height):
        for j in range(2 * width):
            y, z = i * (height - 1) / (2 * height - 1), j * (width - 1) / (2 * width - 1)
            up, left = int(y), int(z)
            down, right = min(up + 1, height - 1), min(left + 1, width - 1)
            above = (1 - z + left) * x[:, up, left] + (z - left) * x[:, up, right]
            below = (1 - z + left) * x[:, down, left] + (z - left) * x[:, down, right]
            out[:, i, j] = (1 - y + up) * above + (y - up) * below
    return out


def test_levels_are_mixed_from_the_deepest_up():
    torch.manual_seed(0)
    levels = [(2, (4, 8)), (3, (2, 4)), (1, (1, 2))]
    mixing = Mixing(levels, width=2).double()
    for conv in (*mixing.across_channels, *mixing.across_scales):
        conv.bias.normal_()
    maps = [torch.randn(1, features, *sides).double() for features, sides in levels]
    one, two, three = (
        convolved(each[0].numpy(), conv)
        for each, conv in zip(maps, mixing.across_channels, strict=True)
    )
    first, second, third = mixing.across_scales
    deep = convolved(doubled(three), third)
    middle = convolved(doubled(two + deep), second)
    shallow = convolved(doubled(one + middle), first)
    assert [each.shape for each in (shallow, middle, deep)] == [(2, 8, 16), (2, 4, 8), (4, 2, 4)]
    for given, wanted in zip(mixing(maps), (shallow, middle, deep), strict=True):
        assert np.allclose(given[0].numpy(), wanted, atol=1e-12)
    weights = torch.cat(
        [conv.weight.flatten() for conv in Mixing([(64, (2, 2))], 64).across_scales]
    )
    assert weights.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)  # He et al.


def test_a_level_has_the_layers_of_the_authors_program():
    """`SingleDisc` with the sizes that it counts at 224 pixels: 128, 64, 32, 16; and with 256."""
    wide = {8: 512, 16: 256, 32: 128, 64: 64, 128: 64}
    sizes = ((256, 64, 224), (128, 64, 112), (64, 64, 56), (32, 128, 28), (16, 256, 14))
    for counted, features, side in sizes:
        wanted, start = [], counted
        while start > 8:
            wanted.append((features if start == counted else wide[start], wide[start // 2], 4, 4))
            start //= 2
        network = head(features, (side, side), 64).eval()
        convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        shapes = [(m.in_channels, m.out_channels, *m.kernel_size) for m in convs]
        assert shapes == [*wanted, (512, 1, 4, 4)]
        with torch.no_grad():
            assert network(torch.zeros(1, features, side, side)).shape == (1, 1, 4, 4)


def test_logits_of_all_levels_stand_side_by_side():
    """Images of 32 pixels at 64, as PyTorch resizes them, in the pretraining's units."""
    network = discriminator(**PROJECTED).eval()
    seen = F.interpolate(images(2), 64, mode="bilinear", align_corners=False)
    config = network.backbone.backbone.pretrained_cfg
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        score, maps = network(images(2)), network.backbone.backbone((seen - mean) / std)
        mixed = network.mixing(maps[-4:])  # of 5
        separate = [head(map_) for head, map_ in zip(network.heads, mixed, strict=True)]
    assert [tuple(each.shape[2:]) for each in separate] == [(5, 5), (5, 5), (5, 5), (1, 1)]
    assert score.logits.shape == (2, 1, 1, 76)
    assert torch.allclose(
        score.logits[:, 0, 0], torch.cat([each.flatten(1) for each in separate], 1), atol=1e-5
    )
    assert [feature.shape[1] for feature in score.features] == [64, 64, 16, 32]
    assert largest_singular_values(network.heads) == pytest.approx([1] * 7, abs=0.1)


def largest_singular_values(network):
    """Of each convolution's and linear layer's weight."""
    kinds = torch.nn.Conv2d | torch.nn.Linear
    weights = [module.weight for module in network.modules() if isinstance(module, kinds)]
    return [torch.linalg.matrix_norm(weight.flatten(1), 2).item() for weight in weights]


# --- projected-vit -------------------------------------------------------------------------------


def authors_head(x, state):
    """`DiscHead` of the authors' program of StyleGAN-T: tokens [B, F, N] -> logits [B, N]."""

    def block(x, name, kernel):
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        x = F.pad(x, (kernel // 2, kernel // 2), mode="circular") if kernel > 1 else x
        x = F.conv1d(x, weight[:, :, 0], bias)
        groups = x.view(math.ceil(len(x) / 8), -1, *x.shape[1:])
        mean = groups.mean([1, 3], keepdim=True)
        var = groups.var([1, 3], keepdim=True, unbiased=False)
        x = ((groups - mean) / torch.sqrt(var + 1e-5)).view(x.shape)
        x = x * state[f"{name}.1.weight"][:, None] + state[f"{name}.1.bias"][:, None]
        return F.leaky_relu(x, 0.2)

    h = block(x, "1", 1)
    h = (block(h, "2.inner", 9) + h) / math.sqrt(2)
    return F.conv1d(h, state["3.weight"][:, :, 0], state["3.bias"])[:, 0]


def test_a_head_of_tokens_is_that_of_the_authors_program():
    network = discriminator(vgx.ImageSpec(size=64), **VIT).eval()
    vit = timm.create_model("test_vit", img_size=64)
    vit.load_state_dict(network.backbone.backbone.model.state_dict(), strict=False)
    x = network.backbone.standardise(images(16, 64))
    with torch.no_grad():
        tokens = vit.eval().forward_intermediates(
            x, indices=[1, 4], output_fmt="NLC", intermediates_only=True
        )
        wanted = []
        for head_, each in zip(network.heads, tokens, strict=True):
            state = {name: tensor.clone() for name, tensor in head_.state_dict().items()}
            for name, module in head_.named_modules():
                if isinstance(module, torch.nn.Conv2d):  # the weight with spectral norm
                    state[f"{name}.weight"] = module.weight
            wanted.append(authors_head(each.mT, state))
        score = network(images(16, 64))
        few = network(images(16, 64)[:10]).logits
        alone = [network(images(16, 64)[part]).logits for part in (slice(8), slice(8, 10))]
    assert score.logits.shape == (16, 1, 1, 2 * 16)
    assert torch.allclose(score.logits[:, 0, 0], torch.cat(wanted, 1), atol=1e-4)
    assert torch.allclose(few, torch.cat(alone), atol=1e-5)  # groups of 8, and what is left


# --- both ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[PROJECTED, VIT], ids=lambda fields: fields["type"])
def engine(request):
    """A GAN before its first step."""
    changes = {"image.size": 32, "discriminator": request.param, "losses": ["hinge"]}
    changes |= {"encoder": None, "sampler": "prior"}
    return Engine(vgx.load_recipe(TINY, changes), steps=4)


def frozen(engine):
    """Everything behind the heads: parameters, and statistics of BatchNorm."""
    state = engine.networks["discriminator"].state_dict()
    return {name: value.clone() for name, value in state.items() if not name.startswith("heads.")}


@pytest.mark.slow
def test_what_is_frozen_gets_no_gradient_and_stays_over_training_and_resume(engine):
    network, before = engine.networks["discriminator"], frozen(engine)
    assert {name.partition(".")[0] for name in before} <= {"backbone", "mixing"}
    assert any("norm" in name or ".bn" in name for name in before)
    examined = examine(engine, vgx.discover(), Batch(images(8)))
    (note,) = [note for note in examined.notes if "is not trained" in note]
    assert f"a random {engine.recipe.discriminator.backbone}" in note
    real = images(8).requires_grad_()
    network(real).logits.sum().backward()
    assert (real.grad.abs().sum((1, 2, 3)) > 0).all()
    trained = {name for name, p in network.named_parameters() if p.grad is not None}
    assert {name.partition(".")[0] for name in trained} == {"heads"}
    network.zero_grad()
    heads = [p.clone() for p in network.heads.parameters()]
    for number in range(2):
        engine.step(number, batches(images(8, seed=number)))
    assert all((a != b).any() for a, b in zip(heads, network.heads.parameters(), strict=True))
    again = Engine(engine.recipe, steps=4)
    again.restore(copy.deepcopy(engine.state({})))
    for each in (engine, again):
        each.step(2, batches(images(8, seed=2)))
    state, other = (each.networks["discriminator"].state_dict() for each in (engine, again))
    assert all(torch.equal(value, other[name]) for name, value in state.items())
    after = frozen(engine)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_seed_draws_what_is_frozen():
    recipe = vgx.load_recipe(TINY, {"image.size": 32, "discriminator": PROJECTED})
    other = vgx.load_recipe(recipe, {"train.seed": recipe.train.seed + 1})
    name = "mixing.across_scales.0.weight"
    one, same, different = (
        Engine(each, steps=1).networks["discriminator"].state_dict()[name]
        for each in (recipe, recipe, other)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, different)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**PROJECTED, "backbone": "resnet5"}, "no model 'resnet5'; did you mean 'resnet"),
        ({**PROJECTED, "backbone": "test_vit", "levels": 2}, "maps of one size.*projected-vit"),
        ({**PROJECTED, "levels": 9}, "test_resnet has 5 feature maps; use levels: 5 or fewer"),
        ({**PROJECTED, "backbone": "test_mambaout"}, r"another shape than \[B, F"),
        ({**VIT, "blocks": [2, 22]}, r"index 22 is out of range \(0 to 5\); blocks is \[2, 22\]"),
        ({**VIT, "size": 60}, "takes no images of 60 pixels"),
        ({**VIT, "backbone": "vgg"}, "no model 'vgg'; did you mean 'vgg"),
    ],
)
def test_a_backbone_that_does_not_suit_is_said(fields, message):
    with pytest.raises(RecipeError, match=message):
        discriminator(**fields)


@pytest.mark.parametrize("fields", [PROJECTED, VIT], ids=lambda fields: fields["type"])
def test_a_frozen_backbone_has_the_weights_of_a_file(fields, tmp_path):
    torch.manual_seed(1)
    donor = timm.create_model(fields["backbone"]).state_dict()
    file = tmp_path / "donor.safetensors"
    save_file(donor, file)
    own = {"backbone": fields["backbone"], "weights": file, "size": 160}  # that of test_vit
    own |= {"blocks": (1,)} if fields is VIT else {}
    made = vgx.discover().part("discriminator", fields["type"])(**own)
    assert made.note(IMAGE) == ""
    assert made.untrained().weights is None
    assert "is not trained" in made.untrained().note(IMAGE)
    for name, tensor in made.build(IMAGE, LATENT).backbone.backbone.state_dict().items():
        assert torch.equal(tensor, donor[name.removeprefix("model.")]), name


# --- unet ----------------------------------------------------------------------------------------


def convolution(x, state, name):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[2] // 2)


def authors_unet(x, s):
    """The authors' `Unet_Discriminator` with three halvings, without attention and classes."""
    x = 2 * x - 1
    h = F.relu(convolution(x, s, "down.0.body.0"))
    h = F.avg_pool2d(convolution(h, s, "down.0.body.2"), 2)
    one = h + convolution(F.avg_pool2d(x, 2), s, "down.0.shortcut.1")

    def down(x, name):
        h = convolution(F.relu(x), s, f"{name}.body.1")
        h = convolution(F.relu(h), s, f"{name}.body.3")
        return F.avg_pool2d(h, 2) + convolution(F.avg_pool2d(x, 2), s, f"{name}.shortcut.1")

    def up(x, name):
        repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        h = convolution(F.relu(repeated), s, f"{name}.body.2")
        h = convolution(F.relu(h), s, f"{name}.body.4")
        return h + convolution(repeated, s, f"{name}.shortcut.0")

    two = down(one, "down.1")
    three = down(two, "down.2")
    middle = F.linear(F.relu(three).sum((2, 3)), s["image.2.weight"], s["image.2.bias"])
    h = up(three, "up.0")
    h = up(torch.cat([h, two], 1), "up.1")
    h = up(torch.cat([h, one], 1), "up.2")
    return middle, convolution(h, s, "pixels")


def test_the_unet_is_that_of_the_authors_program():
    image = vgx.ImageSpec(size=(8, 16))
    network = discriminator(image, type="unet", widths=[3, 3, 5], spectral=False)
    x = torch.rand(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        score, (middle, pixels) = network(x), authors_unet(x, network.state_dict())
    assert score.logits.shape == (2, 1, 16, 16)
    assert torch.allclose(score.logits[:, :, 8:], pixels, atol=1e-5)
    assert torch.allclose(score.logits[:, :, :8], middle[:, :, None, None], atol=1e-5)
    # The mean over all logits is half the sum of the mean of the image's and of the pixels'.
    hinge = (1 - score.logits).relu().mean()
    parts = (1 - middle).relu().mean() + (1 - pixels).relu().mean()
    assert hinge.item() == pytest.approx(parts.item() / 2, rel=1e-5)
    sizes = [tuple(feature.shape[1:]) for feature in score.features]
    assert sizes == [(3, 4, 8), (3, 2, 4), (5, 1, 2), (3, 2, 4), (3, 4, 8), (3, 8, 16)]
    spectral = discriminator(image, type="unet", widths=[3, 3, 5])
    assert largest_singular_values(spectral) == pytest.approx([1] * 20, abs=0.1)


def test_a_size_that_a_unet_does_not_halve_is_said():
    with pytest.raises(RecipeError, match=r"discriminator unet: 36 pixels can't be halved 3 times"):
        discriminator(vgx.ImageSpec(size=36), type="unet", widths=[4, 4, 4])
