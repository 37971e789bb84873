"""Every part in the box keeps the contract that authors of plugins hold theirs to."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import vgx
from vgx.parts.base import validate
from vgx.testing import check_part, full_step, small_model

REGISTRY = vgx.discover()
SMALL = {"widths": [4, 8]}
# Fields of the parts that want some here, as a recipe gives them; the others are tried as they are.
FIELDS = {
    "encoder/autoencoder-kl": {**SMALL, "groups": 2},
    "encoder/autoencoder-tiny": {"channels": 4, "blocks": [1, 1]},
    "encoder/binary-spherical": {"inner": {"type": "conv", **SMALL}},
    "encoder/conv": SMALL,
    "encoder/deterministic": {"inner": {"type": "conv", **SMALL}},
    "encoder/noisy": {"inner": {"type": "conv", **SMALL}},
    "encoder/finite-scalar": {"inner": {"type": "conv", **SMALL}, "levels": [3] * 8},
    "encoder/ladder": {"widths": [4, 8, 8], "top": 4},
    "encoder/labelled": {"inner": {"type": "conv", **SMALL}},
    "encoder/residual": SMALL,
    "encoder/residual-quantised": {"inner": {"type": "conv", **SMALL}, "codes": 4, "levels": 2},
    "encoder/timm": {"backbone": "test_resnet"},
    "encoder/vector-quantised": {"inner": {"type": "conv", **SMALL}},
    "decoder/autoencoder-kl": {**SMALL, "groups": 2},
    "decoder/autoencoder-tiny": {"channels": 4, "blocks": [1, 1], "recompute": True},
    "decoder/biggan": {"widths": [4, 8, 8], "attention": 8, "embedding": 4},
    "decoder/conv-transpose": SMALL,
    "decoder/dcgan": SMALL,
    "decoder/ladder": {"widths": [8, 8, 4], "top": 4},
    "decoder/categorical": {"sizes": (3,), "inner": {"type": "conv-transpose", **SMALL}},
    "decoder/labelled": {"inner": {"type": "conv-transpose", **SMALL}},
    "decoder/residual": SMALL,
    "decoder/style": {**SMALL, "styles": 6, "mapping": 2},
    "discriminator/biggan": {**SMALL, "attention": 8},
    "discriminator/dcgan": SMALL,
    "discriminator/latent-mlp": SMALL,
    "discriminator/multi-scale": {"inner": {"type": "patchgan", **SMALL}},
    "discriminator/pair-conv": {**SMALL, "joint": 8},
    "discriminator/patchgan": SMALL,
    "discriminator/projected": {"backbone": "test_resnet", "size": 32, "width": 8},
    "discriminator/projected-vit": {"backbone": "test_vit", "size": 32, "blocks": [2, 5]},
    "discriminator/projection": {"inner": {"type": "patchgan", **SMALL}},
    "discriminator/residual": SMALL,
    "discriminator/style": SMALL,
    "discriminator/timm-patchgan": {"backbone": "test_resnet"},
    "discriminator/unet": SMALL,
    "loss/alignment": {"backbone": "test_resnet", "pretrained": False},
    "loss/equivariance": {"smallest": 1.0},
    "loss/lpips": {"pretrained": False},
    "loss/density-ratio-tc": SMALL,
    "loss/path-length": {"shrink": 1},  # half of the few images is too few for a mean
    "loss/perceptual": {"backbone": "test_resnet"},
}
# The image size of those that want more than 16 pixels.
SIZES = {
    "encoder/timm": 32,
    "discriminator/timm-patchgan": 32,
    "loss/perceptual": 32,
    "loss/ms-ssim": 64,
    "metric/ms-ssim": 64,
}
# The latents of those that want no flat ones.
LATENTS = {
    f"{kind}/{part}": (4, 8, 8)
    for kind in ("encoder", "decoder")
    for part in ("autoencoder-kl", "autoencoder-tiny")
}
LATENTS |= {"loss/alignment": (4, 2, 2), "loss/equivariance": (4, 8, 8)}
LATENTS |= {"encoder/ladder": (4 + 4 * 4,), "decoder/ladder": (4 + 4 * 4,)}
# These want a file of weights: tests/plugins/test_features.py makes some.
OUTSIDE = ("features/inception", "features/timm", "metric/fid", "metric/kid", "metric/lpips")
OUTSIDE += ("metric/inception-score", "metric/rfid")
# And these a service, which tests/plugins/test_trackers.py starts.
OUTSIDE += ("tracker/mlflow", "tracker/wandb")


@pytest.fixture
def fields(tmp_path):
    """Fields that name files of this test."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (20, 16), colour).save(folder / f"{number}.png")
    files = sorted(folder.iterdir())
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": cells}), tmp_path / "train.parquet")
    return {
        **FIELDS,
        "dataset/image-folder": {"path": str(folder)},
        "dataset/huggingface": {"path": str(tmp_path / "train.parquet")},
        "sampler/reconstruct": {"path": str(folder)},
    }


def name_of(part):
    return f"{part.kind}/{part.type}"


def in_the_box():
    (plugin,) = [plugin for plugin in REGISTRY.plugins if plugin.name == "builtin"]
    return [part for part in plugin.parts if name_of(part) not in OUTSIDE]


@pytest.mark.parametrize("part", in_the_box(), ids=name_of)
def test_a_part_keeps_the_contract_of_its_kind(part, fields):
    name = name_of(part)
    image = vgx.ImageSpec(SIZES[name]) if name in SIZES else None
    step = step_for(name)
    latent = vgx.LatentSpec(LATENTS[name]) if name in LATENTS else None
    made = validate(part, fields.get(name, {}), REGISTRY)
    check_part(made, image=image, latent=latent, step=step, **beside(name, image, latent))


def beside(name, image, latent):
    """What is beside a part: the decoder that an encoder uses, and losses in a sampler's model."""
    if name == "encoder/ladder":
        ladder = REGISTRY.part("decoder", "ladder")
        return {"decoder": validate(ladder, FIELDS["decoder/ladder"], REGISTRY)}
    if name != "sampler/vamp-prior":
        return {}
    model = small_model(image, latent)
    term = REGISTRY.part("loss", "vamp-prior")(components=3).build(model.recipe.image, latent)
    return {"model": replace(model, open_losses=lambda: {"vamp-prior": term.requires_grad_(False)})}


# Their images are files of 3 channels.
OF_FILES = {"dataset/image-folder", "dataset/huggingface", "sampler/reconstruct"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "channels"),
    [
        pytest.param(
            part,
            channels,
            id=f"{name_of(part)}-{channels}",
            marks=() if channels == 1 or name_of(part) in OF_FILES else pytest.mark.chaos,
        )
        for part in in_the_box()
        for channels in (1, 4, 5)
    ],
)
def test_it_does_so_for_images_that_are_high_and_of_any_channels(part, channels, fields):
    name = name_of(part)
    if name in ("loss/alignment", "loss/lpips", "loss/perceptual") and channels > 1:
        pytest.skip("its backbone takes RGB and grey images")
    side = SIZES.get(name, 16)
    classes = 3 if getattr(part, "conditional", False) else 0
    image = vgx.ImageSpec((2 * side, side), channels, classes)
    step = step_for(name)
    refuses = channels == 5 and name in OF_FILES
    refusal = pytest.raises(AssertionError, match="write --set image.channels=3")
    latent = None
    if name in LATENTS and len(LATENTS[name]) == 1:  # the lower level is twice as high
        latent = vgx.LatentSpec((4 + 8 * 4,))
    elif name in LATENTS:  # of the smaller side, and twice as high
        features, _, width = LATENTS[name]
        latent = vgx.LatentSpec((features, 2 * width, width))
    made = validate(part, fields.get(name, {}), REGISTRY)
    with refusal if refuses else nullcontext():
        check_part(made, image=image, latent=latent, step=step, **beside(name, image, latent))


# The encoders of losses on quantised latents.
QUANTISERS = {"loss/vq": "vector-quantised", "loss/bit-entropy": "binary-spherical"}


def step_for(name):
    """A step for losses that want another one than `full_step()`, else None."""
    if name == "loss/cutmix-consistency":
        step = full_step()
        return dataclasses.replace(
            step,
            real_score=pixelwise(step.real * step.recon.detach()),
            fake_score=pixelwise(step.fake),
            discriminator=pixelwise,
        )
    return quantised_step(QUANTISERS[name]) if name in QUANTISERS else None


def pixelwise(images):
    """A discriminator of pixels without weights: the image's logit above those of its pixels."""
    pixels = images.tanh().mean(1, keepdim=True)
    whole = images.mean((1, 2, 3), keepdim=True).expand_as(pixels)
    return vgx.Score(torch.cat([whole, pixels], 2))


def quantised_step(name):
    step = full_step()
    part = validate(REGISTRY.part("encoder", name), FIELDS[f"encoder/{name}"], REGISTRY)
    encoder = part.build(vgx.ImageSpec(16), vgx.LatentSpec((8,)))
    return dataclasses.replace(step, posterior=encoder(step.real))
