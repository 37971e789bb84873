"""The networks that are diffusers' `AutoencoderTiny`, by formulas, and published sizes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import vgx
from vgx.engine.memory import saved_for_backward
from vgx_builtin.decoders import AutoencoderKLDecoder, AutoencoderTinyDecoder
from vgx_builtin.encoders import AutoencoderKLEncoder, AutoencoderTinyEncoder

IMAGE, LATENT = vgx.ImageSpec(16), vgx.LatentSpec((4, 4, 4))
BLOCKS = (1, 2, 1)


def test_taesd_has_its_published_size():
    """2,445,063 parameters, by hand: ten blocks and three changes of size on each side."""
    image, latent = vgx.ImageSpec(64), vgx.LatentSpec((4, 8, 8))
    with torch.device("meta"):
        encoder = AutoencoderTinyEncoder().build(image, latent)
        decoder = AutoencoderTinyDecoder().build(latent, image)
    sizes = [sum(each.numel() for each in net.parameters()) for net in (encoder, decoder)]
    inner = 10 * 3 * (64 * 64 * 9 + 64) + 3 * 64 * 64 * 9
    ends = [64 * 3 * 9 + 64 + 4 * 64 * 9 + 4, 64 * 4 * 9 + 64 + 3 * 64 * 9 + 3]
    assert sizes == [inner + ends[0], inner + ends[1]]
    assert sum(sizes) == 2_445_063


def block(x, weights, at):
    """A residual block whose weights begin with layers.`at`."""
    out = x
    for number in (0, 2, 4):
        name = f"layers.{at}.conv.{number}"
        out = F.conv2d(out, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
        out = out.clamp(min=0) if number < 4 else out
    return (out + x).clamp(min=0)


def by_formula(x, weights, plan):
    """Layers by letters: c a convolution, r with ReLU, s one that halves, u doubles, b a block."""
    for at, letter in plan:
        if letter == "b":
            x = block(x, weights, at)
            continue
        if letter == "u":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        bias, stride = weights.get(f"layers.{at}.bias"), 2 if letter == "s" else 1
        x = F.conv2d(x, weights[f"layers.{at}.weight"], bias, stride, 1)
        x = x.clamp(min=0) if letter == "r" else x
    return x


# The layers of diffusers' class for these blocks; ReLU and Upsample have numbers too.
DOWN = list(enumerate("cbsbbsbc"))
UP = [(0, "r"), (2, "b"), (4, "u"), (5, "b"), (6, "b"), (8, "u"), (9, "b"), (10, "c")]


def test_both_networks_are_their_formula_and_so_are_their_gradients():
    torch.manual_seed(0)
    encoder = AutoencoderTinyEncoder(width=6, blocks=BLOCKS).build(IMAGE, LATENT).double()
    decoder = AutoencoderTinyDecoder(width=6, blocks=BLOCKS).build(LATENT, IMAGE).double()
    with torch.no_grad():
        decoder.decoder.layers[-1].bias.fill_(0.5)  # so that nothing is cut off
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    z = encoder(images).mean
    made = decoder(2 * z).sigmoid()
    weights = {
        side: {name.removeprefix(f"{side}."): each for name, each in net.named_parameters()}
        for side, net in (("encoder", encoder), ("decoder", decoder))
    }
    latents = by_formula(images, weights["encoder"], DOWN)
    bounded = 3 * (2 * latents / 3).tanh()
    wanted = by_formula(bounded, weights["decoder"], UP)
    assert torch.allclose(z, latents, atol=1e-12)
    assert 0 < wanted.min() < wanted.max() < 1
    assert torch.allclose(made, wanted, atol=1e-12)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    found, right = (
        torch.autograd.grad((y - images).square().sum(), parameters) for y in (made, wanted)
    )
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, right, strict=True))


KL = {"blocks": 1, "groups": 2}
PAIRS = {
    "kl": (
        lambda **more: AutoencoderKLEncoder(widths=(4, 4, 8), **KL, **more),
        lambda **more: AutoencoderKLDecoder(widths=(8, 4, 4), **KL, **more),
    ),
    "tiny": (
        lambda **more: AutoencoderTinyEncoder(width=6, blocks=BLOCKS, **more),
        lambda **more: AutoencoderTinyDecoder(width=6, blocks=BLOCKS, **more),
    ),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=list(PAIRS))
def test_activations_computed_again_take_less_memory_and_give_the_same_bits(pair):
    """Both players' gradients come from one graph, so each is computed from kept inputs."""
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    gradients, kept = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        encoder = pair[0](recompute=recompute).build(IMAGE, LATENT).double()
        decoder = pair[1](recompute=recompute).build(LATENT, IMAGE).double()
        with saved_for_backward([encoder, decoder]) as saved:
            made = decoder(encoder(images).mean).sigmoid()
        kept.append(sum(saved.values()))
        weights = [*encoder.parameters(), *decoder.parameters()]
        losses = ((made - images).abs().sum(), made.square().sum())
        gradients.append([torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses])
    for plain, again in zip(*gradients, strict=True):
        assert all(map(torch.equal, plain, again))
    assert kept[1] < kept[0] * 2 / 3


FOUR = {
    "_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu", "in_channels": 3,
    "out_channels": 3, "sample_size": 1024, "force_upcast": True,
}  # fmt: skip
SDXL = {**FOUR, "latent_channels": 4, "scaling_factor": 0.13025}
FLUX = {
    **FOUR, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159,
    "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": True,
}  # fmt: skip
TAESD = {
    "_class_name": "AutoencoderTiny", "act_fn": "relu", "upsample_fn": "nearest",
    "encoder_block_out_channels": [64] * 4, "decoder_block_out_channels": [64] * 4,
    "num_encoder_blocks": [1, 3, 3, 3], "num_decoder_blocks": [3, 3, 3, 1], "latent_channels": 4,
    "upsampling_scaling_factor": 2, "latent_magnitude": 3, "latent_shift": 0.5,
    "scaling_factor": 1.0, "shift_factor": 0.0, "force_upcast": False,
}  # fmt: skip


def test_the_published_configurations_are_known():
    """And the parts write what they read, but for the sizes and the scale."""
    shared = {"blocks": 2, "groups": 32, "attention": True}
    wide = {"widths": [128, 256, 512, 512], **shared}
    assert AutoencoderKLEncoder.from_config(SDXL) == {**wide, "quant_conv": True}
    assert AutoencoderKLEncoder.from_config(FLUX) == {**wide, "quant_conv": False}
    reverse = {"widths": [512, 512, 256, 128], **shared}
    assert AutoencoderKLDecoder.from_config(FLUX) == {**reverse, "quant_conv": False}
    assert AutoencoderTinyEncoder.from_config(TAESD) == {"width": 64, "blocks": [1, 3, 3, 3]}
    assert AutoencoderTinyDecoder.from_config(TAESD) == {"width": 64, "blocks": [3, 3, 3, 1]}
    assert AutoencoderTinyEncoder.from_config(FLUX) is None
    assert AutoencoderKLDecoder.from_config(TAESD) is None
    image = vgx.ImageSpec(512)
    for pair, channels, published in (
        ((AutoencoderKLEncoder, AutoencoderKLDecoder), 16, FLUX),
        ((AutoencoderTinyEncoder, AutoencoderTinyDecoder), 4, TAESD),
    ):
        latent = vgx.LatentSpec((channels, 64, 64))
        made = {}
        for part in pair:
            fields = {key: tuple(value) if isinstance(value, list) else value
                      for key, value in part.from_config(published).items()}  # fmt: skip
            made |= part(**fields).config(image, latent)
        scale = {"sample_size", "scaling_factor", "shift_factor"}
        assert {key: made[key] for key in published if key not in scale} == {
            key: value for key, value in published.items() if key not in scale
        }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("act_fn", "gelu"),
        ("upsample_fn", "bilinear"),
        ("upsampling_scaling_factor", 3),
        ("encoder_block_out_channels", [64, 64, 64, 32]),
        ("num_decoder_blocks", [3] * 50),
        ("num_encoder_blocks", [10**9]),
        ("out_channels", 4),
        ("latent_channels", 2.5),
    ],
)
def test_other_tiny_autoencoders_are_refused(field, value):
    with pytest.raises(vgx.StorageError, match=rf"^{field}\b"):
        AutoencoderTinyEncoder.from_config({**TAESD, field: value})
