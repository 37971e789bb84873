"""Encoder and decoder as ONNX files: what onnxruntime computes is what PyTorch computes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import vgx
from vgx_builtin.quantisers.encoder import QuantisedEncoder
from vgx_share import onnx

ROOT = Path(__file__).parents[2]


def untrained(**overrides):
    """A model of the recipe `tiny` whose weights are as they are drawn."""
    recipe = vgx.load_recipe(ROOT / "recipes" / "tiny.yaml", overrides)
    torch.manual_seed(0)
    encoder = recipe.encoder.build(recipe.image, recipe.latent).eval()
    decoder = recipe.decoder.build(recipe.latent, recipe.image).eval()
    codes = torch.randn(3, *recipe.latent.shape)
    return vgx.Model(recipe, 0, codes, encoder, decoder, None)


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return output


def names(data):
    """Every text in a file that looks like a path."""
    return set(re.findall(rb"(?:/[\w.~-]+){2,}", data))


@pytest.mark.slow
def test_a_decoder_of_labels_ends_in_the_image(tmp_path):
    labelled = {"type": "labelled", "inner": {"type": "conv-transpose", "widths": [16, 8]}}
    model = untrained(**{"decoder": labelled, "image.classes": 3})
    path = tmp_path / "decoder.onnx"
    onnx.write_decoder(model, path)
    for n in (1, 7):
        z, labels = torch.randn(n, 8), torch.arange(n) % 3
        wanted = torch.sigmoid(model.decoder(z, labels)).detach()
        assert np.abs(run(path, latents=z, labels=labels) - wanted.numpy()).max() < 1e-5
    # The exporter puts the lines of the source into the file.
    assert names(path.read_bytes()) == set()
    assert str(Path(sys.prefix)).encode() not in path.read_bytes()


@pytest.mark.slow
def test_an_encoder_of_labels_takes_them_in_its_file(tmp_path):
    labelled = {"type": "labelled", "inner": {"type": "conv", "widths": [8, 16]}}
    model = untrained(**{"encoder": labelled, "image.classes": 3})
    path = tmp_path / "encoder.onnx"
    onnx.write_encoder(model, path)
    for n in (1, 7):
        images, labels = torch.rand(n, 3, 16, 16), torch.arange(n) % 3
        wanted = model.encoder(images, labels).mean.detach().numpy()
        assert np.abs(run(path, images=images, labels=labels) - wanted).max() < 1e-5


@pytest.mark.slow
def test_spatial_networks_take_images_of_any_size(tmp_path):
    residual = {"type": "residual", "widths": [8, 8], "norm": "group"}
    quantised = {"type": "vector-quantised", "codes": 8, "inner": residual}
    parts = {"encoder": quantised, "decoder": residual, "losses": [{"type": "l1"}]}
    model = untrained(**{**parts, "latent": [4, 4, 4], "sampler": {"type": "prior"}})
    assert isinstance(model.encoder, QuantisedEncoder)
    onnx.write_encoder(model, tmp_path / "encoder.onnx")
    onnx.write_decoder(model, tmp_path / "decoder.onnx")
    for n, height, width in ((1, 16, 16), (7, 16, 16), (2, 24, 8)):
        images = torch.rand(n, 3, height, width)
        z = model.encoder(images).mean.detach()
        assert z.shape == (n, 4, height // 4, width // 4)
        assert np.abs(run(tmp_path / "encoder.onnx", images=images) - z.numpy()).max() < 1e-5
        wanted = torch.sigmoid(model.decoder(z)).detach()
        assert np.abs(run(tmp_path / "decoder.onnx", latents=z) - wanted.numpy()).max() < 1e-5


@pytest.mark.slow
def test_a_file_that_gives_other_images_is_not_written(tmp_path, monkeypatch):
    model = untrained()
    exported = onnx._exported

    def brighter(module, *args, **keywords):
        with torch.no_grad():
            [*module.parameters()][-1].add_(1e-3)
        data = exported(module, *args, **keywords)
        with torch.no_grad():
            [*module.parameters()][-1].sub_(1e-3)
        return data

    monkeypatch.setattr(onnx, "_exported", brighter)
    with pytest.raises(vgx.PluginError, match=r"differ from PyTorch's by 2\.\de-04"):
        onnx.write_decoder(model, tmp_path / "decoder.onnx")
    assert not [*tmp_path.iterdir()]


def test_without_the_libraries_the_message_says_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "_LIBRARIES", ("onnx", "no_such_library"))
    expected = r"ONNX files need no_such_library: pip install 'vgx\[onnx\]'"
    with pytest.raises(vgx.RecipeError, match=expected):
        onnx.write_decoder(untrained(), tmp_path / "decoder.onnx")


def test_a_model_without_an_encoder_has_no_encoder_to_write(tmp_path):
    model = untrained()
    without = vgx.Model(model.recipe, 0, model.codes, None, model.decoder, None)
    with pytest.raises(vgx.RecipeError, match="tiny has no encoder"):
        onnx.write_encoder(without, tmp_path / "encoder.onnx")
