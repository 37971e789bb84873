"""Networks of blocks: sizes and values by hand, the papers' forms, what fits and what does not."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vgx
from vgx.errors import RecipeError
from vgx_builtin.modules import normalisation, spectrally_normed
from vgx_builtin.residual import ResidualBlock

IMAGE = vgx.ImageSpec(size=16)
FLAT, SPATIAL = vgx.LatentSpec((5,)), vgx.LatentSpec((3, 4, 4))


def part(kind, name, **settings):
    return vgx.discover().part(kind, name)(**settings)


def count(network):
    return sum(p.numel() for p in network.parameters())


def named(network, kind):
    return [m for m in network.modules() if type(m).__name__.endswith(kind)]


def random_images(n=2, size=16, channels=3):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(n))


# --- the residual block ------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("scale", ["halve", "keep", "double"])
@pytest.mark.parametrize(("before", "after"), [(8, 8), (8, 16)])
def test_a_block_is_the_papers_sum(scale, norm, before, after):
    """In the paper's own order: the shortcut's convolution where there are most places."""
    torch.manual_seed(0)
    block = ResidualBlock(before, after, scale, norm).double()
    x = torch.randn(3, before, 4, 4, dtype=torch.float64)
    convs = [m for m in block.body if isinstance(m, nn.Conv2d)]

    def normed(x):
        if norm == "none":
            return x
        # Statistics by hand: over the batch for each channel, or over 4 channels of each image.
        over = (0, 2, 3) if norm == "batch" else (2, 3, 4)
        shaped = x if norm == "batch" else x.view(len(x), -1, 4, *x.shape[2:])
        var, mean = torch.var_mean(shaped, over, correction=0, keepdim=True)
        return ((shaped - mean) / (var + 1e-5).sqrt()).reshape(x.shape)

    def doubled(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if scale == "double" else x

    def halved(x):
        if scale != "halve":
            return x
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    # The authors' hidden widths: those before in the discriminator, those after in the generator.
    between = {"halve": before, "keep": after, "double": after}[scale]
    assert convs[0].weight.shape == (between, before, 3, 3)
    h = F.conv2d(doubled(normed(x).relu()), convs[0].weight, convs[0].bias, padding=1)
    h = F.conv2d(normed(h).relu(), convs[1].weight, convs[1].bias, padding=1)
    short = doubled(x)
    if before != after or scale != "keep":  # learnable_sc
        (one,) = [m for m in block.shortcut if isinstance(m, nn.Conv2d)]
        short = F.conv2d(short, one.weight, one.bias)
    assert torch.allclose(block(x), halved(h) + halved(short), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", ["halve", "double"])
def test_a_block_starts_from_glorots_weights(scale):
    """Uniform within gain sqrt(6 / (fan in + fan out)): the gain is sqrt 2, on the shortcut 1."""
    torch.manual_seed(0)
    block = ResidualBlock(64, 32, scale)
    (one,) = [m for m in block.shortcut if isinstance(m, nn.Conv2d)]
    first, second = [m for m in block.body if isinstance(m, nn.Conv2d)]
    between = 64 if scale == "halve" else 32
    fans = {first: 9 * (64 + between), second: 9 * (between + 32), one: 64 + 32}
    for layer, fan in fans.items():
        largest = math.sqrt((1 if layer is one else 2) * 6 / fan)
        assert 0.98 * largest < layer.weight.abs().max().item() <= largest
        assert layer.weight.std().item() == pytest.approx(largest / math.sqrt(3), rel=0.05)
        assert not layer.bias.any()


def test_the_first_block_begins_with_its_convolution():
    """An image is in [-1, 1] there: ReLU would take its dark half away."""
    torch.manual_seed(0)
    first = ResidualBlock(3, 4, "halve", first=True)
    assert [m.out_channels for m in first.body if isinstance(m, nn.Conv2d)] == [4, 4]
    assert not torch.equal(first(-torch.ones(1, 3, 4, 4)), first(-torch.ones(1, 3, 4, 4) * 2))
    assert isinstance(first.body[0], nn.Conv2d)
    assert isinstance(ResidualBlock(3, 4, "halve").body[0], nn.ReLU)


def test_group_norm_fits_every_width():
    for width in range(1, 300):
        (norm,) = normalisation("group", width)
        assert width % norm.num_groups == 0
        assert norm.num_groups <= 32
        assert width // norm.num_groups >= min(4, width)  # one channel alone would become nothing
        assert not norm.num_groups > 1 or (width // norm.num_groups) % 4 == 0
    groups = {width: normalisation("group", width)[0].num_groups for width in (512, 128, 96, 64, 6)}
    assert groups == {512: 32, 128: 32, 96: 8, 64: 16, 6: 1}


# --- residual networks -------------------------------------------------------------------------


def conv(before, after, side=3):
    return before * after * side**2 + after


def test_the_residual_encoder_by_hand():
    encoder = part("encoder", "residual", widths=(8, 16), blocks=2, norm="none")
    stem = conv(3, 8)
    first = 2 * (conv(8, 8) + conv(8, 8)) + conv(8, 8, 1)  # a halving block and one more
    second = conv(8, 8) + conv(8, 16) + conv(8, 16, 1) + 2 * conv(16, 16)
    flat = encoder.build(IMAGE, FLAT)
    assert count(flat) == stem + first + second + 2 * (16 * 4 * 4 * 5 + 5)
    spatial = encoder.build(IMAGE, SPATIAL)
    assert count(spatial) == stem + first + second + 2 * conv(16, 3)
    for network, shape in ((flat, (2, 5)), (spatial, (2, 3, 4, 4))):
        posterior = network(random_images())
        assert isinstance(posterior, vgx.Gaussian)
        assert posterior.mu.shape == posterior.logvar.shape == shape


def test_the_residual_decoder_by_hand():
    decoder = part("decoder", "residual", widths=(16, 8), blocks=2, norm="batch")
    # With BatchNorm a block's first convolution has no bias, which the norm would take away.
    same = {width: 2 * conv(width, width) - width + 4 * width for width in (16, 8)}
    down = conv(16, 8) - 8 + conv(8, 8) + 2 * 16 + 2 * 8 + conv(16, 8, 1)
    blocks = same[16] + down + 2 * same[8] + conv(8, 8, 1)  # the last one doubles
    end = 2 * 8 + conv(8, 3)
    flat, spatial = decoder.build(FLAT, IMAGE), decoder.build(SPATIAL, IMAGE)
    assert count(flat) == 5 * 256 + 256 + blocks + end
    assert count(spatial) == conv(3, 16) + blocks + end
    assert flat(torch.randn(2, 5)).shape == spatial(torch.randn(2, 3, 4, 4)).shape == (2, 3, 16, 16)


def test_the_latent_of_96_pixels_is_the_autoencoders_of_latent_diffusion():
    """Three halvings, factor 8: 4 x 12 x 12."""
    image, latent = vgx.ImageSpec(size=96), vgx.LatentSpec((4, 12, 12))
    widths = (4, 4, 4)
    encoder = part("encoder", "residual", widths=widths, norm="group").build(image, latent)
    decoder = part("decoder", "residual", widths=widths, norm="group").build(latent, image)
    z = encoder(random_images(1, 96)).mean
    assert z.shape == (1, 4, 12, 12)
    assert decoder(z).shape == (1, 3, 96, 96)
    default = vgx.discover().part("encoder", "residual").model_fields["widths"].default
    assert 96 / 2 ** len(default) == 12


def test_a_place_of_a_spatial_latent_is_a_place_of_the_image():
    """Convolutions only: what is far away in the image does not matter."""
    image, latent = vgx.ImageSpec(size=64), vgx.LatentSpec((2, 32, 32))
    encoder = part("encoder", "residual", widths=(4,), norm="none").build(image, latent)
    one = random_images(1, 64)
    other = one.clone()
    other[..., -8:, -8:] = 0
    near = (encoder(one).mean != encoder(other).mean).any(1)[0]  # [32, 32]
    assert near[-1, -1]
    assert not near[:20].any()
    assert not near[:, :20].any()


@pytest.mark.parametrize("widths", [(7, 18), (1, 2), (12, 5)])
def test_group_norm_works_in_networks_of_any_width(widths):
    encoder = part("encoder", "residual", widths=widths, norm="group").build(IMAGE, FLAT)
    decoder = part("decoder", "residual", widths=widths[::-1], norm="group").build(FLAT, IMAGE)
    alone = decoder(encoder(random_images()).mean[:1])
    both = decoder(encoder(random_images()).mean)
    assert torch.allclose(alone, both[:1], atol=1e-5)  # nothing looks at the rest of the batch


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [
        (16, (3, 8, 8), r"2 times to 4x4.*\[3, 8, 8\].*latent=\[3,4,4\], or 1 widths"),
        (16, (3, 5, 5), r"try latent=\[3,4,4\]$"),
        (16, (3, 4), r"try latent=\[3,4,4\]$"),
        (16, (3, 4, 8), r"try latent=\[3,4,4\]$"),
        (18, (3, 4, 4), "18 pixels can't be halved 2 times; try image.size=16"),
        (18, (5,), "18 pixels can't be halved 2 times"),
    ],
)
def test_what_does_not_fit_is_said_with_what_does(name, size, shape, expected):
    given = (vgx.ImageSpec(size=size), vgx.LatentSpec(shape))
    with pytest.raises(RecipeError, match=expected) as fault:
        part(name, "residual", widths=(4, 4)).build(*(given if name == "encoder" else given[::-1]))
    assert f"{name} residual" in str(fault.value)


# --- spectral norm -----------------------------------------------------------------------------

SPECTRAL = [
    ("encoder", "residual", {"widths": (4, 6)}, 3 + 2 * 3),  # stem, heads; blocks of three
    ("decoder", "residual", {"widths": (6, 4)}, 2 + 2 * 3),
    ("discriminator", "residual", {"widths": (4, 6)}, 1 + 3 * 2 + 2),
    ("discriminator", "dcgan", {"widths": (4, 6)}, 3),
    ("discriminator", "patchgan", {"widths": (4, 6)}, 3),
]


def build(kind, name, settings):
    given = {"encoder": (IMAGE, FLAT), "decoder": (FLAT, IMAGE), "discriminator": (IMAGE, FLAT)}
    return part(kind, name, **settings).build(*given[kind])


@pytest.mark.parametrize(("kind", "name", "settings", "layers"), SPECTRAL)
def test_spectral_norm_makes_every_largest_singular_value_one(kind, name, settings, layers):
    network = build(kind, name, {**settings, "spectral": True})
    seen = torch.randn(2, 5) if kind == "decoder" else random_images()
    for _ in range(200):  # one power iteration each
        with torch.no_grad():
            network(seen)
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weights) == layers
    for weight in weights:
        largest = torch.linalg.svdvals(weight.detach().double().flatten(1))[0].item()
        assert largest == pytest.approx(1, abs=2e-3)
    plain = build(kind, name, {**settings, "spectral": False})
    assert not any("parametrizations" in name for name in plain.state_dict())


def test_spectral_norm_divides_by_the_largest_singular_value():
    torch.manual_seed(0)
    layer = nn.Linear(7, 4)
    before = layer.weight.detach().clone()
    spectrally_normed(nn.Sequential(layer))
    for _ in range(100):
        layer(torch.zeros(1, 7))
    expected = before / torch.linalg.svdvals(before)[0]
    assert torch.allclose(layer.weight, expected, atol=1e-5)


# --- the discriminator of SNGAN ----------------------------------------------------------------


def test_the_residual_discriminator_by_hand():
    discriminator = part("discriminator", "residual", widths=(4, 6), spectral=False).build(
        IMAGE, vgx.LatentSpec((8,))
    )
    first = conv(3, 4) + conv(4, 4) + conv(3, 4, 1)
    second = conv(4, 4) + conv(4, 6) + conv(4, 6, 1)
    assert count(discriminator) == first + second + 2 * conv(6, 6) + 6 + 1
    score = discriminator(random_images())
    assert score.logits.shape == (2, 1)
    assert [tuple(f.shape[1:]) for f in score.features] == [(4, 8, 8), (6, 4, 4), (6, 4, 4)]
    (linear,) = named(discriminator, "Linear")
    pooled = score.features[-1].relu().sum((2, 3))  # [2, 6]
    assert torch.allclose(score.logits, pooled @ linear.weight.T + linear.bias, atol=1e-5)
    # It sees images in [-1, 1], and each by itself.
    x = 2 * random_images() - 1
    assert torch.equal(discriminator.stages[0](x), score.features[0])
    assert torch.allclose(discriminator(random_images()[:1]).logits, score.logits[:1], atol=1e-5)


def test_the_residual_discriminator_at_96_pixels():
    discriminator = part("discriminator", "residual").build(
        vgx.ImageSpec(size=96), vgx.LatentSpec((8,))
    )
    with torch.no_grad():
        score = discriminator(random_images(1, 96))
    assert [f.shape[-1] for f in score.features] == [48, 24, 12, 6, 6]
    assert len(named(discriminator, "_SpectralNorm")) == 5 * 2 + 4 + 1


# --- DCGAN ---------------------------------------------------------------------------------------


def test_the_dcgan_decoder_is_the_papers_figure():
    decoder = part("decoder", "dcgan").build(vgx.LatentSpec((100,)), vgx.ImageSpec(size=64))
    convs = named(decoder, "ConvTranspose2d")
    assert [c.in_channels for c in convs] == [100, 1024, 512, 256, 128]
    assert convs[-1].out_channels == 3
    assert [c.kernel_size[0] for c in convs] == [4] * 5
    assert len(named(decoder, "BatchNorm2d")) == len(named(decoder, "ReLU")) == 4
    kernels = 16 * (100 * 1024 + 1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
    assert count(decoder) == kernels + 2 * (1024 + 512 + 256 + 128) + 3
    with torch.no_grad():
        assert decoder(torch.randn(2, 100)).shape == (2, 3, 64, 64)


def test_the_dcgan_projection_is_a_linear_layer():
    decoder = part("decoder", "dcgan", widths=(6, 4), norm="none").build(FLAT, IMAGE)
    z = torch.randn(2, 5)
    weight, bias = decoder[1].weight, decoder[1].bias
    expected = (z @ weight.flatten(1)).view(2, 6, 4, 4) + bias.view(1, 6, 1, 1)
    assert torch.allclose(decoder[1](decoder[0](z)), expected, atol=1e-6)


def test_the_dcgan_discriminator_by_hand():
    settings = {"widths": (4, 6), "norm": "batch"}
    discriminator = part("discriminator", "dcgan", **settings).build(IMAGE, vgx.LatentSpec((8,)))
    # The first layer has a bias and no norm, the second BatchNorm, the head is 4x4 on 4x4.
    assert count(discriminator) == 16 * (3 * 4 + 4 * 6 + 6) + 4 + 2 * 6 + 1
    score = discriminator(random_images())
    assert score.logits.shape == (2, 1)
    assert [tuple(f.shape[1:]) for f in score.features] == [(4, 8, 8), (6, 4, 4)]
    head = discriminator.head[0]
    expected = (score.features[-1] * head.weight).sum((1, 2, 3)) + head.bias
    assert torch.allclose(score.logits[:, 0], expected, atol=1e-6)
    assert all(layer.negative_slope == 0.2 for layer in named(discriminator, "LeakyReLU"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("decoder", "dcgan"), ("discriminator", "dcgan"), ("discriminator", "patchgan")],
)
def test_weights_start_from_the_papers_normal(kind, name):
    """Radford et al. 2016, section 4; Isola et al. 2017, section 6.2."""
    torch.manual_seed(0)
    network = build(kind, name, {"widths": (32, 64)})
    for module in [*named(network, "Conv2d"), *named(network, "ConvTranspose2d")]:
        spread = 0.02 / math.sqrt(module.weight.numel())
        assert abs(module.weight.mean().item()) < 5 * spread
        assert module.weight.std().item() == pytest.approx(0.02, abs=5 * spread)
        assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("decoder", "dcgan"), ("discriminator", "dcgan"), ("discriminator", "patchgan")],
)
def test_without_batch_norm_every_image_is_alone(kind, name):
    torch.manual_seed(0)
    network = build(kind, name, {"widths": (4, 6), "norm": "none"})
    assert not named(network, "Norm2d")
    layers = [*named(network, "Conv2d"), *named(network, "ConvTranspose2d")]
    assert all(layer.bias is not None for layer in layers)
    seen = torch.randn(2, 5) if kind == "decoder" else random_images()
    both, alone = network(seen), network(seen[:1])
    if kind == "discriminator":
        both, alone = both.logits, alone.logits
    assert torch.allclose(both[:1], alone, atol=1e-6)


def test_dcgan_halves_what_it_is_given():
    discriminator = part("discriminator", "dcgan", widths=(4, 6)).build(
        vgx.ImageSpec(size=18), vgx.LatentSpec((8,))
    )
    assert discriminator(random_images(2, 18)).logits.shape == (2, 1)
    decoder = part("decoder", "dcgan", widths=(6, 4)).build(FLAT, vgx.ImageSpec(size=24))
    assert decoder(torch.randn(2, 5)).shape == (2, 3, 24, 24)
    with pytest.raises(RecipeError, match="18 pixels can't be halved 2 times"):
        part("decoder", "dcgan", widths=(6, 4)).build(FLAT, vgx.ImageSpec(size=18))
    with pytest.raises(RecipeError, match=r"decoder dcgan wants one number.*\[3, 4, 4\]"):
        part("decoder", "dcgan").build(SPATIAL, IMAGE)


@pytest.mark.parametrize("name", ["dcgan", "residual"])
def test_a_discriminator_with_nothing_left_to_see_says_so(name):
    with pytest.raises(RecipeError, match=f"{name}: nothing is left of 16 pixels.*at most 4 "):
        part("discriminator", name, widths=(1,) * 5).build(IMAGE, vgx.LatentSpec((8,)))
    part("discriminator", name, widths=(1,) * 4, spectral=False).build(IMAGE, vgx.LatentSpec((8,)))


# --- PatchGAN ----------------------------------------------------------------------------------


def test_instance_norm_in_the_patchgan_looks_at_one_image():
    torch.manual_seed(0)
    discriminator = part("discriminator", "patchgan", widths=(4, 6), norm="instance").build(
        IMAGE, vgx.LatentSpec((8,))
    )
    assert count(discriminator) == 16 * (3 * 4 + 4 * 6 + 6) + 4 + 2 * 6 + 1
    both, alone = discriminator(random_images()), discriminator(random_images()[:1])
    assert torch.allclose(both.logits[:1], alone.logits, atol=1e-6)
    conv_, norm, _ = discriminator.stages[1]
    x = conv_(both.features[0])
    var, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    assert torch.allclose(norm(x), (x - mean) / (var + 1e-5).sqrt(), atol=1e-5)
