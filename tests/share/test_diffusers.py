"""The folder of diffusers: its format by hand, and diffusers itself where there is no vgx."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vgx
from vgx.sampling.model import Model
from vgx_share import diffusers, exporting

ROOT = Path(__file__).parents[2]
PARTS = {"type": "autoencoder-kl", "blocks": 1, "groups": 4}
# The fields of a configuration that diffusers 0.42.1 wrote.
FIELDS = [
    "_class_name",
    "_diffusers_version",
    "act_fn",
    "block_out_channels",
    "down_block_types",
    "force_upcast",
    "in_channels",
    "latent_channels",
    "latents_mean",
    "latents_std",
    "layers_per_block",
    "mid_block_add_attention",
    "norm_num_groups",
    "out_channels",
    "sample_size",
    "scaling_factor",
    "shift_factor",
    "up_block_types",
    "use_post_quant_conv",
    "use_quant_conv",
]
SCALE = {"mean": [1.0, 2.0], "std": [0.5, 4.0], "scaling_factor": 0.25}


def model(encoder=None, decoder=None):
    recipe = vgx.load_recipe(
        ROOT / "recipes" / "tiny.yaml",
        {
            "latent": [2, 8, 8], "sampler": "prior", "losses": ["l1"], "discriminator": None,
            "encoder": {**PARTS, "widths": [8, 16], **(encoder or {})},
            "decoder": {**PARTS, "widths": [16, 8], **(decoder or {})},
        },
    )  # fmt: skip
    torch.manual_seed(0)
    networks = (
        recipe.encoder.build(recipe.image, recipe.latent),
        recipe.decoder.build(recipe.latent, recipe.image),
    )
    return Model(recipe, 0, torch.zeros(0, 2, 8, 8), *(net.eval() for net in networks), None)


def written(folder, **parts):
    made = model(**parts)
    (folder / "vae").mkdir(parents=True)
    for name, data in diffusers.files(made, SCALE).items():
        (folder / name).write_bytes(data)
    return made


def names_of(block, resnets, change):
    """The names of weights of some residual blocks; the first has a shortcut if widths change."""
    for number in range(resnets):
        layers = ["norm1", "conv1", "norm2", "conv2"]
        layers += ["conv_shortcut"] if change and number == 0 else []
        yield from (f"{block}.resnets.{number}.{layer}" for layer in layers)


def test_the_files_are_those_of_diffusers(tmp_path):
    """The names of all weights, written down by the structure of `AutoencoderKL`."""
    written(tmp_path)
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert sorted(config) == FIELDS
    assert config["block_out_channels"] == [8, 16]
    assert config["down_block_types"] == ["DownEncoderBlock2D"] * 2
    assert config["up_block_types"] == ["UpDecoderBlock2D"] * 2
    assert (config["sample_size"], config["latent_channels"]) == (16, 2)
    tensors = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    layers = ["quant_conv", "post_quant_conv"]
    for side in ("encoder", "decoder"):
        layers += [f"{side}.{name}" for name in ("conv_in", "conv_norm_out", "conv_out")]
        layers += names_of(f"{side}.mid_block", 2, change=False)
        attention = f"{side}.mid_block.attentions.0"
        layers += [f"{attention}.{n}" for n in ("group_norm", "to_q", "to_k", "to_v", "to_out.0")]
    layers += names_of("encoder.down_blocks.0", 1, change=False)
    layers += names_of("encoder.down_blocks.1", 1, change=True)
    layers += names_of("decoder.up_blocks.0", 2, change=False)
    layers += names_of("decoder.up_blocks.1", 2, change=True)
    layers += ["encoder.down_blocks.0.downsamplers.0.conv", "decoder.up_blocks.0.upsamplers.0.conv"]
    assert set(tensors) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    header = (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()[:2000]
    assert b'"__metadata__":{"format":"pt"}' in header


def test_both_ways_of_scaling_give_variance_one(tmp_path):
    """z * scaling_factor over all, (z - mean) * scaling_factor / latents_std by channel."""
    written(tmp_path)
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert config["scaling_factor"] == 0.25
    assert config["latents_mean"] == [1.0, 2.0]
    deviation = np.array(SCALE["std"]) * config["scaling_factor"] / np.array(config["latents_std"])
    assert deviation.tolist() == [1.0, 1.0]


def test_it_is_read_as_it_was_written(tmp_path):
    made = written(tmp_path)
    (tmp_path / "vae").rename(tmp_path / "my vae!")
    run = vgx.import_model(tmp_path / "my vae!", ["image.size=32"], out=tmp_path / "runs")
    assert run.path.name == "0001-my-vae"
    loaded = vgx.load(run)
    assert loaded.recipe.latent.shape == (2, 16, 16)  # they follow the size of the images
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(loaded.encode(images), made.encode(images), atol=1e-5)
    z = torch.randn(2, 2, 16, 16)
    assert torch.allclose(loaded.decode(z), made.decode(z), atol=1e-5)
    assert exporting.latent_statistics(loaded) == SCALE
    assert loaded.latent_mean.shape == loaded.latent_std.shape == (2, 1, 1)
    assert loaded.latent_std.flatten().tolist() == SCALE["std"]
    assert vgx.sample(run, n=2).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("shift", [0.0609, 0.0, None])
def test_a_shift_of_the_latents_is_kept(tmp_path, shift):
    written(tmp_path)
    file = tmp_path / "vae" / "config.json"
    given = {**json.loads(file.read_text()), "latents_mean": None, "latents_std": None}
    file.write_text(json.dumps({**given, "shift_factor": shift}))
    run = vgx.import_model(tmp_path, out=tmp_path / "runs")
    folder = vgx.export(run, tmp_path / "out")
    known = json.loads((folder / "vgx.json").read_text())["latents"]
    assert ("Shift factor 0.0609:" in (folder / "README.md").read_text()) == bool(shift)
    config = json.loads((folder / "vae" / "config.json").read_text())
    assert config["scaling_factor"] == known["scaling_factor"] == 0.25
    assert config["shift_factor"] == known.get("shift_factor") == shift
    assert exporting.latent_statistics(vgx.load(folder)) == {
        name: known[name] for name in ("scaling_factor", "shift_factor") if name in known
    }


def test_weights_of_old_names_and_of_half_precision_are_read(tmp_path):
    made = written(tmp_path)
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {
        re.sub(r"to_q|to_k|to_v|to_out\.0", lambda found: new[found[0]], name): tensor.half()
        for name, tensor in load_file(file).items()
    }
    assert any("proj_attn" in name for name in old)
    save_file(old, file)
    loaded = vgx.load(vgx.import_model(tmp_path, out=tmp_path / "runs"))
    weight = loaded.encoder.encoder.mid_block.attentions[0].to_out[0].weight
    wanted = made.encoder.encoder.mid_block.attentions[0].to_out[0].weight
    assert torch.equal(weight, wanted.half().float())


def test_networks_that_are_not_alike_make_no_folder():
    with pytest.warns(vgx.Notice, match="encoder and decoder have other blocks"):
        assert diffusers.files(model(decoder={"blocks": 2}), SCALE) == {}
    with pytest.warns(vgx.Notice, match="the scaling factor for diffusers is not known"):
        assert len(diffusers.files(model(), {})) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_class_name", "AutoencoderTiny"),
        ("act_fn", "relu"),
        ("down_block_types", ["AttnDownEncoderBlock2D"] * 2),
        ("out_channels", 1),
        ("block_out_channels", []),
        ("block_out_channels", [2**40]),
        ("layers_per_block", 10**9),
        ("sample_size", -1),
        ("norm_num_groups", 0),
        ("latent_channels", "4"),
    ],
)
def test_other_networks_are_refused(tmp_path, field, value):
    written(tmp_path)
    file = tmp_path / "vae" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(vgx.StorageError, match=r"config\.json"):
        vgx.import_model(tmp_path, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_weights_that_are_no_weights_are_refused(tmp_path):
    written(tmp_path)
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    save_file({**whole, "lora.weight": torch.zeros(1)}, file)
    with pytest.raises(vgx.StorageError, match=r"lora\.weight is no weight of AutoencoderKL"):
        vgx.import_model(tmp_path, out=tmp_path / "runs")
    whole.pop("quant_conv.bias")
    save_file(whole, file)
    with pytest.raises(vgx.StorageError, match=r"does not fit the encoder"):
        vgx.import_model(tmp_path, out=tmp_path / "runs")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(vgx.StorageError, match="no model"):
        vgx.import_model(tmp_path, out=tmp_path / "runs")


# --- diffusers and onnxruntime, where there is no vgx ---------------------------------------------

ALONE = r"""
import sys

class NoVgx:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("vgx"):
            raise ImportError(name)

sys.meta_path.insert(0, NoVgx())
sys.path.append(sys.argv[2])
import numpy as np, onnxruntime, torch
from diffusers import AutoencoderKL

folder, given = sys.argv[1], np.load(sys.argv[3])
vae, about = AutoencoderKL.from_pretrained(folder, subfolder="vae", output_loading_info=True)
assert not any(about.values()), about
x, z = torch.tensor(given["images"]), torch.tensor(given["z"])
with torch.no_grad():
    latents = vae.encode(x * 2 - 1).latent_dist.mode()
    images = (vae.decode(z).sample / 2 + 0.5).clamp(0, 1)
for found, name in ((latents, "latents"), (images, "decoded")):
    print(np.abs(found.numpy() - given[name]).max())
for n in (1, 7):
    for file, name, output in (("encoder", "images", "latents"), ("decoder", "z", "decoded")):
        session = onnxruntime.InferenceSession(f"{folder}/{file}.onnx")
        (found,) = session.run(None, {session.get_inputs()[0].name: given[name][:n]})
        print(np.abs(found - given[output][:n]).max())
torch.manual_seed(1)
AutoencoderKL(
    block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=16,
    mid_block_add_attention=False,
).save_pretrained(sys.argv[4])
theirs = AutoencoderKL.from_pretrained(sys.argv[4])
with torch.no_grad():
    latents = theirs.encode(x * 2 - 1).latent_dist.mode()
    images = (theirs.decode(latents).sample / 2 + 0.5).clamp(0, 1)
np.savez(sys.argv[4] + ".npz", latents=latents, images=images)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Diffusers in a folder of its own; of a package index, or already there."""
    place = tmp_path_factory.mktemp("library")
    wanted = ["diffusers>=0.30", "requests", "importlib_metadata", "regex", "zipp"]
    wanted += ["charset_normalizer", "urllib3", "idna", "certifi"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place)]
    done = subprocess.run(
        [*command, "--no-deps", *wanted], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        pytest.skip(f"diffusers can't be installed here: {done.stderr.strip()[-200:]}")
    return place


@pytest.mark.slow
def test_diffusers_and_onnxruntime_give_the_same_without_vgx(tmp_path, library):
    recipe = tmp_path / "kl.yaml"
    recipe.write_text(
        "extends: tiny\nname: kl\nlatent: [4, 8, 8]\ndiscriminator: null\nsampler: posterior\n"
        "encoder: {type: autoencoder-kl, widths: [8, 16], blocks: 1, groups: 4}\n"
        "decoder: {type: autoencoder-kl, widths: [16, 8], blocks: 1, groups: 4}\n"
        "losses: [l1, {type: kl, weight: 1.0e-4}]\ntrain: {steps: 10, draw_every: 100}\n"
    )
    folder = vgx.export(vgx.run(vgx.load_recipe(recipe)), tmp_path / "out")
    model = vgx.load(folder)
    images, z = torch.rand(7, 3, 16, 16), 2 * torch.randn(7, 4, 8, 8)
    given, theirs = tmp_path / "given.npz", tmp_path / "theirs"
    np.savez(given, images=images, z=z, latents=model.encode(images), decoded=model.decode(z))
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, str(script), str(folder), str(library), str(given), str(theirs)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    differences = [float(number) for number in done.stdout.split()]
    assert len(differences) == 6
    assert max(differences) < 1e-5
    # And what diffusers wrote, in vgx.
    found, wanted = vgx.load(vgx.import_model(theirs)), np.load(f"{theirs}.npz")
    latents = found.encode(images)
    assert np.abs(latents.numpy() - wanted["latents"]).max() < 1e-5
    assert np.abs(found.decode(latents).numpy() - wanted["images"]).max() < 1e-5
