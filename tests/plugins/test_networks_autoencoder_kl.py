"""The networks that are diffusers' `AutoencoderKL`, by formulas and published sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vgx
from vgx_builtin.autoencoder_blocks import Attention, Down
from vgx_builtin.autoencoder_ends import EDGE
from vgx_builtin.autoencoder_kl import KLDecoder
from vgx_builtin.decoders import AutoencoderKLDecoder
from vgx_builtin.encoders import AutoencoderKLEncoder


def test_stable_diffusions_autoencoder_has_its_published_size():
    """83,653,863 parameters: widths 128, 256, 512, 512 and 4 latent channels."""
    image, latent = vgx.ImageSpec(512), vgx.LatentSpec((4, 64, 64))
    with torch.device("meta"):
        encoder = AutoencoderKLEncoder(widths=(128, 256, 512, 512)).build(image, latent)
        decoder = AutoencoderKLDecoder(widths=(512, 512, 256, 128)).build(latent, image)
    sizes = [sum(each.numel() for each in net.parameters()) for net in (encoder, decoder)]
    assert sizes == [34_163_664, 49_490_199]
    assert sum(sizes) == 83_653_863


def test_the_encoder_centres_the_images_and_gives_mean_and_logvar():
    image, latent = vgx.ImageSpec(16), vgx.LatentSpec((2, 8, 8))
    encoder = AutoencoderKLEncoder(widths=(4, 8), blocks=1, groups=2).build(image, latent)
    images = torch.rand(3, 3, 16, 16)
    seen = []
    encoder.encoder.conv_in.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    posterior = encoder(images)
    assert torch.equal(seen[0], images * 2 - 1)
    moments = encoder.quant_conv(encoder.encoder(images * 2 - 1))  # [3, 4, 8, 8]
    assert torch.equal(posterior.mu, moments[:, :2])
    assert torch.equal(posterior.logvar, moments[:, 2:])


def test_a_halving_begins_at_the_first_pixel():
    """Its border is below and right of the image: by hand for an image of 4 pixels."""
    down = Down(1)
    nn.init.zeros_(down.conv.bias)
    with torch.no_grad():
        down.conv.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0], image[0, 0, 3, 3] = 1, 1
    # The first pixel has weight 0, in the corner; the last one is in the middle of the last place.
    assert down(image).tolist() == [[[[0.0, 0.0], [0.0, 4.0]]]]


def test_attention_is_that_of_all_places():
    torch.manual_seed(0)
    layer = Attention(4, 2)
    x = torch.randn(2, 4, 3, 3)
    normed = F.group_norm(x, 2, layer.group_norm.weight, layer.group_norm.bias, 1e-6)
    for image in range(2):
        rows = normed[image].reshape(4, 9).T  # a row for each place
        query, key, value = (
            rows @ each.weight.T + each.bias for each in (layer.to_q, layer.to_k, layer.to_v)
        )
        mixed = (query @ key.T / math.sqrt(4)).softmax(1) @ value
        out = (mixed @ layer.to_out[0].weight.T + layer.to_out[0].bias).T.reshape(4, 3, 3)
        assert torch.allclose(layer(x)[image], x[image] + out, atol=1e-6)


class Named:
    """`AutoencoderKL` by the names of its weights: two blocks of 2 groups at each of 2 widths."""

    def __init__(self, network):
        self.weights = dict(network.named_parameters())

    def conv(self, x, name, **more):
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **more)

    def norm(self, x, name):
        groups = x.unflatten(1, (2, -1))
        mean, variance = groups.mean((2, 3, 4), True), groups.var((2, 3, 4), False, keepdim=True)
        normed = ((groups - mean) / (variance + 1e-6).sqrt()).flatten(1, 2)
        scale, shift = (self.weights[f"{name}.{kind}"] for kind in ("weight", "bias"))
        return normed * scale[:, None, None] + shift[:, None, None]

    def activated(self, x, name):
        normed = self.norm(x, name)
        return normed * normed.sigmoid()

    def block(self, x, name):
        out = self.conv(self.activated(x, f"{name}.norm1"), f"{name}.conv1", padding=1)
        out = self.conv(self.activated(out, f"{name}.norm2"), f"{name}.conv2", padding=1)
        shortcut = f"{name}.conv_shortcut"
        return out + (self.conv(x, shortcut) if f"{shortcut}.weight" in self.weights else x)

    def middle(self, x, name):
        x = self.block(x, f"{name}.resnets.0")
        rows = self.norm(x, f"{name}.attentions.0.group_norm").flatten(2).mT
        query, key, value = (self.linear(rows, f"{name}.attentions.0.to_{k}") for k in "qkv")
        mixed = (query @ key.mT / math.sqrt(rows.shape[2])).softmax(2) @ value
        out = self.linear(mixed, f"{name}.attentions.0.to_out.0")
        return self.block(x + out.mT.reshape(x.shape), f"{name}.resnets.1")

    def linear(self, rows, name):
        return rows @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def ends(self, x, side):
        out = self.activated(x, f"{side}.conv_norm_out")
        return self.conv(out, f"{side}.conv_out", padding=1)

    def encoder(self, images):
        x = self.conv(2 * images - 1, "encoder.conv_in", padding=1)
        for level in range(2):
            for number in range(2):
                x = self.block(x, f"encoder.down_blocks.{level}.resnets.{number}")
            if level == 0:
                name = "encoder.down_blocks.0.downsamplers.0.conv"
                x = self.conv(F.pad(x, (0, 1, 0, 1)), name, stride=2)
        return self.conv(self.ends(self.middle(x, "encoder.mid_block"), "encoder"), "quant_conv")

    def decoder(self, z):
        x = self.conv(self.conv(z, "post_quant_conv"), "decoder.conv_in", padding=1)
        x = self.middle(x, "decoder.mid_block")
        for level in range(2):
            for number in range(3):
                x = self.block(x, f"decoder.up_blocks.{level}.resnets.{number}")
            if level == 0:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv(x, "decoder.up_blocks.0.upsamplers.0.conv", padding=1)
        return (self.ends(x, "decoder") + 1) / 2


def test_both_networks_are_their_formula_and_so_are_their_gradients():
    torch.manual_seed(0)
    image, latent = vgx.ImageSpec(8), vgx.LatentSpec((2, 4, 4))
    encoder = AutoencoderKLEncoder(widths=(4, 6), groups=2).build(image, latent).double()
    decoder = AutoencoderKLDecoder(widths=(6, 4), groups=2).build(latent, image).double()
    with torch.no_grad():
        decoder.decoder.conv_out.weight.mul_(0.3)  # so that nothing is cut off
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    posterior = encoder(images)
    made = decoder(posterior.mu).sigmoid()
    mu, logvar = Named(encoder).encoder(images).chunk(2, 1)
    wanted = Named(decoder).decoder(mu)
    assert 0 < wanted.min() < wanted.max() < 1
    for found, right in ((posterior.mu, mu), (posterior.logvar, logvar), (made, wanted)):
        assert torch.allclose(found, right, atol=1e-12)
    kl = (mu**2 + logvar.exp() - 1 - logvar).sum() / 2
    parameters = [*encoder.parameters(), *decoder.parameters()]
    gradients = (
        torch.autograd.grad((y - images).abs().sum() + divergence, parameters)
        for y, divergence in ((made, posterior.kl().sum()), (wanted, kl))
    )
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*gradients, strict=True))


class Given(nn.Module):
    """A decoder that gives what it gets."""

    def forward(self, x):
        return x


def test_the_images_are_cut_off_and_the_gradient_is_not():
    decoder = KLDecoder(Given(), 3, quant_conv=False)
    y = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]).view(1, 1, 1, 7).requires_grad_()
    images = decoder(y).sigmoid()
    wanted = torch.tensor([0, 0, 0.25, 0.5, 0.75, 1, 1]).view(1, 1, 1, 7)
    assert (images - wanted).abs().max() < 2 * EDGE
    images.sum().backward()
    assert torch.allclose(y.grad, torch.full_like(y, 0.5), rtol=1e-6)
    assert decoder(y.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("far", [65.0, 1e3, 1e6, 1e30])
def test_images_far_out_of_the_range_have_finite_logits_and_gradients(far):
    """Their logits and slopes are those of the edge, and the slope is one over the sigmoid's."""
    decoder = KLDecoder(Given(), 3, quant_conv=False)
    between = torch.linspace(-0.9, 0.9, 7)
    y = torch.cat([torch.tensor([-far, far]), between]).view(1, 1, 1, 9).requires_grad_()
    logits = decoder(y)
    p = ((y.detach() + 1) / 2).clamp(EDGE, 1 - EDGE)
    assert torch.equal(logits, p.logit())
    logits.sum().backward()
    rounded = p.logit().sigmoid()
    assert torch.allclose(y.grad, 0.5 / (rounded * (1 - rounded)))


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"widths": (8, 12)}, (4, 8, 8), "groups: 32 does not divide the width 8; 4 divides all"),
        ({"widths": (4, 8), "groups": 2}, (4, 4, 4), r"16 pixels 1 times to 8x8.*\[4,8,8\]"),
        ({"widths": (4, 8), "groups": 2}, (7,), r"the shape \[7\] .* try latent=\[4,8,8\]"),
    ],
)
def test_what_does_not_fit_says_what_would(fields, shape, message):
    image, latent = vgx.ImageSpec(16), vgx.LatentSpec(shape)
    with pytest.raises(vgx.RecipeError, match=f"encoder autoencoder-kl.*{message}"):
        AutoencoderKLEncoder(**fields).build(image, latent)
    with pytest.raises(vgx.RecipeError, match=f"decoder autoencoder-kl.*{message}"):
        AutoencoderKLDecoder(**fields).build(latent, image)
