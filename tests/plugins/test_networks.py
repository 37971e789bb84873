"""Networks: the sizes that the papers and the anime table give."""

from __future__ import annotations

import json
import struct

import pytest
import timm
import torch
from safetensors.torch import save_file

import vgx
from vgx.errors import RecipeError

IMAGE = vgx.ImageSpec(size=96)
SMALL = vgx.ImageSpec(size=32)
LATENT = vgx.LatentSpec((256,))


def part(kind, name, **settings):
    return vgx.discover().part(kind, name)(**settings)


def weights(network, kind):
    return [m for m in network.modules() if type(m).__name__ == kind]


def test_the_encoder_is_the_tables():
    encoder = part("encoder", "conv").build(IMAGE, LATENT)
    convs = weights(encoder, "Conv2d")
    assert [(c.in_channels, c.out_channels, c.stride) for c in convs] == [
        (3, 32, (2, 2)), (32, 64, (2, 2)), (64, 128, (2, 2)), (128, 256, (2, 2)),
        (256, 512, (2, 2)),
    ]  # fmt: skip
    assert [(m.in_features, m.out_features) for m in weights(encoder, "Linear")] == [
        (4608, 256)
    ] * 2
    assert len(weights(encoder, "BatchNorm2d")) == len(weights(encoder, "LeakyReLU")) == 5
    posterior = encoder(torch.rand(2, 3, 96, 96))
    assert posterior.mu.shape == posterior.logvar.shape == (2, 256)


def test_the_decoder_is_the_tables():
    decoder = part("decoder", "conv-transpose").build(LATENT, IMAGE)
    (linear,) = weights(decoder, "Linear")
    assert (linear.in_features, linear.out_features) == (256, 4608)
    convs = weights(decoder, "ConvTranspose2d")
    assert [c.in_channels for c in convs] + [convs[-1].out_channels] == [512, 256, 128, 64, 32, 3]
    logits = decoder(torch.randn(2, 256) * 10)
    assert logits.shape == (2, 3, 96, 96)
    assert logits.min() < 0  # logits, not pixels


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_the_decoders_norm_by_hand(norm):
    """Two widths, so one norm: over the batch for each channel, over 4 channels of each image."""
    torch.manual_seed(0)
    settings, image = {"widths": (16, 8), "norm": norm}, vgx.ImageSpec(size=16)
    decoder = part("decoder", "conv-transpose", **settings).build(vgx.LatentSpec((5,)), image)
    decoder = decoder.double()
    linear, (first, last) = decoder[0], weights(decoder, "ConvTranspose2d")
    # BatchNorm takes the mean of each channel away, GroupNorm that of four channels together.
    assert (first.bias is None) == (norm == "batch")
    z = torch.randn(3, 5, dtype=torch.float64)
    x = first(linear(z).view(3, 16, 4, 4))  # [3, 8, 8, 8]
    if norm != "none":
        over = (0, 2, 3) if norm == "batch" else (2, 3, 4)
        x = x if norm == "batch" else x.view(3, 2, 4, 8, 8)
        var, mean = torch.var_mean(x, over, correction=0, keepdim=True)
        x = ((x - mean) / (var + 1e-5).sqrt()).reshape(3, 8, 8, 8)
    expected = last(torch.where(x > 0, x, 0.2 * x))
    torch.testing.assert_close(decoder(z), expected)


@pytest.mark.parametrize(("size", "widths"), [(32, (8, 16)), (48, (8, 16, 32, 64)), (64, (8,))])
def test_any_size_that_halves_works(size, widths):
    image, latent = vgx.ImageSpec(size=size, channels=1), vgx.LatentSpec((5,))
    encoder = part("encoder", "conv", widths=widths).build(image, latent)
    decoder = part("decoder", "conv-transpose", widths=widths[::-1]).build(latent, image)
    z = encoder(torch.rand(2, 1, size, size)).mean
    assert z.shape == (2, 5)
    assert decoder(z).shape == (2, 1, size, size)


@pytest.mark.parametrize(("kind", "name"), [("encoder", "conv"), ("decoder", "conv-transpose")])
def test_a_size_that_does_not_halve_is_said(kind, name):
    given = (vgx.ImageSpec(size=50), LATENT)
    with pytest.raises(RecipeError, match="50"):
        part(kind, name).build(*(given if kind == "encoder" else given[::-1]))


def test_flat_networks_refuse_a_spatial_latent():
    with pytest.raises(RecipeError, match=r"\[4, 3, 3\]"):
        part("encoder", "conv").build(IMAGE, vgx.LatentSpec((4, 3, 3)))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_any_backbone_of_timm_encodes(backbone):
    encoder = part("encoder", "timm", backbone=backbone).build(SMALL, LATENT)
    assert encoder(torch.rand(2, 3, 32, 32)).logvar.shape == (2, 256)


def test_resnet50_judges_three_by_three_patches_at_96_pixels():
    discriminator = part("discriminator", "timm-patchgan").build(IMAGE, LATENT).eval()
    with torch.no_grad():
        score = discriminator(torch.rand(1, 3, 96, 96))
    assert score.logits.shape == (1, 1, 3, 3)
    # Shallow first: stride 2 to 32.
    assert [f.shape[-1] for f in score.features] == [48, 24, 12, 6, 3]


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_any_backbone_with_feature_maps_judges(backbone):
    score = part("discriminator", "timm-patchgan", backbone=backbone).build(SMALL, LATENT)(
        torch.rand(2, 3, 32, 32)
    )
    assert score.logits.shape[:2] == (2, 1)
    sides = [feature.shape[-1] for feature in score.features]
    assert sides == sorted(sides, reverse=True)


def test_frozen_stages_get_no_gradient():
    discriminator = part("discriminator", "timm-patchgan", backbone="resnet10t", freeze=2).build(
        SMALL, LATENT
    )
    score = discriminator(torch.rand(2, 3, 32, 32))
    score.logits.sum().backward()
    moved = {
        name.split(".")[1] for name, p in discriminator.named_parameters() if p.grad is not None
    }
    assert moved == {"layer2", "layer3", "layer4", "weight", "bias"}  # the head's are the last
    with pytest.raises(RecipeError, match="freeze: 9"):
        part("discriminator", "timm-patchgan", backbone="resnet10t", freeze=9).build(SMALL, LATENT)


@pytest.mark.parametrize(("mode", "moves"), [("train", True), ("frozen", False)])
def test_batch_norm_frozen_keeps_its_statistics(mode, moves):
    discriminator = part(
        "discriminator", "timm-patchgan", backbone="test_resnet", batch_norm=mode
    ).build(SMALL, LATENT).train()  # fmt: skip
    before = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
    discriminator(torch.rand(4, 3, 32, 32))
    changed = [n for n, b in discriminator.named_buffers() if not torch.equal(b, before[n])]
    assert bool(changed) == moves


def test_weights_come_from_a_local_safetensors_file(tmp_path):
    torch.manual_seed(1)
    donor = timm.create_model("test_resnet", pretrained=False)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    settings = {"backbone": "test_resnet", "weights": tmp_path / "donor.safetensors"}
    discriminator = part("discriminator", "timm-patchgan", **settings).build(SMALL, LATENT)
    ours = list(discriminator.backbone.state_dict().values())
    theirs = list(donor.state_dict().values())
    assert len(ours) == len(theirs) - 2  # all but the classifier's weight and bias
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs[:-2], strict=True))


def test_a_file_that_lacks_weights_is_refused(tmp_path):
    """timm would draw the missing ones at random and say nothing."""
    donor = timm.create_model("test_resnet", pretrained=False).state_dict()
    lost = next(name for name in donor if name.endswith("conv2.weight"))
    del donor[lost]
    save_file(donor, tmp_path / "part.safetensors")
    settings = {"backbone": "test_resnet", "weights": tmp_path / "part.safetensors"}
    with pytest.raises(RecipeError, match=f"1 tensors are missing in it, such as {lost}"):
        part("discriminator", "timm-patchgan", **settings).build(SMALL, LATENT)


def test_a_file_of_strange_tensors_is_refused_at_once_and_in_silence(tmp_path, capfd):
    """timm would print the names of all, as they are, and needs minutes for many."""
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    settings = {"backbone": "test_resnet", "weights": tmp_path / "odd.safetensors"}
    for names, message in (
        (map(str, range(20_000)), r"a header of 1,\d+,\d+ bytes; at most 1,048,576 are read"),
        (["a\x1b[31m"], "names of tensors that can't be printed"),
        (["harmless"], r"\d+ tensors are missing"),
    ):
        header = json.dumps(dict.fromkeys(names, empty)).encode()
        (tmp_path / "odd.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(RecipeError, match=message):
            part("discriminator", "timm-patchgan", **settings).build(SMALL, LATENT)
    assert capfd.readouterr() == ("", "")


def test_freezing_more_stages_than_there_are_names_them():
    with pytest.raises(RecipeError, match=r"freeze: 9: test_resnet has \d stages .*layer"):
        part("discriminator", "timm-patchgan", backbone="test_resnet", freeze=9).build(
            SMALL, LATENT
        )


@pytest.mark.parametrize(
    ("name", "expected"), [("absent.safetensors", "no such file"), ("w.pth", "never pickles")]
)
def test_other_files_are_refused(tmp_path, name, expected):
    (tmp_path / "w.pth").write_bytes(b"")
    settings = {"backbone": "test_resnet", "weights": tmp_path / name}
    with pytest.raises(RecipeError, match=expected):
        part("discriminator", "timm-patchgan", **settings).build(SMALL, LATENT)


def test_a_misspelt_backbone_names_near_ones():
    with pytest.raises(RecipeError, match="no model 'resnet5'; did you mean 'resnet"):
        part("discriminator", "timm-patchgan", backbone="resnet5").build(SMALL, LATENT)


def test_the_plain_patchgan_is_isolas():
    discriminator = part("discriminator", "patchgan").build(
        vgx.ImageSpec(size=256), vgx.LatentSpec((8,))
    )
    # Isola et al. 2017: 256 pixels, 70x70 patches, a 30x30 grid.
    with torch.no_grad():
        score = discriminator(torch.rand(1, 3, 256, 256))
    assert score.logits.shape == (1, 1, 30, 30)
    assert [f.shape[1] for f in score.features] == [64, 128, 256, 512]
    convs = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1)
    biases, norms = 64 + 1, 2 * (128 + 256 + 512)
    assert sum(p.numel() for p in discriminator.parameters()) == convs + biases + norms
    with pytest.raises(RecipeError, match="leave no patch"):
        part("discriminator", "patchgan").build(vgx.ImageSpec(size=16), vgx.LatentSpec((8,)))
