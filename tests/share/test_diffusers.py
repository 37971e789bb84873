"""The folder of diffusers: its format by hand, and diffusers itself where there is no vgx."""

from __future__ import annotations

import dataclasses
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
from vgx.console import Console
from vgx.recipe.model import Start
from vgx.runs import diffusers as reading
from vgx.runs.weights import read_weights
from vgx.sampling.model import Model
from vgx.testing import full_step
from vgx.training.preparing import weights_for
from vgx_builtin.losses import L1, Kl
from vgx_share import card, diffusers, exporting

pytestmark = pytest.mark.usefixtures("no_pages")

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


def part(fields, widths):
    """The fields of a part: of the type autoencoder-kl unless they say another."""
    fields = fields or {}
    return fields if "type" in fields else {**PARTS, "widths": widths, **fields}


def model(encoder=None, decoder=None):
    recipe = vgx.load_recipe(
        ROOT / "recipes" / "tiny.yaml",
        {
            "latent": [2, 8, 8], "sampler": "prior", "losses": ["l1"], "discriminator": None,
            "encoder": part(encoder, [8, 16]),
            "decoder": part(decoder, [16, 8]),
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
    assert exporting.latent_statistics(run, loaded) == SCALE
    assert loaded.latent_mean.shape == loaded.latent_std.shape == (2, 1, 1)
    assert loaded.latent_std.flatten().tolist() == SCALE["std"]
    assert vgx.sample(run, n=2).shape == (2, 3, 32, 32)


@pytest.fixture
def no_onnx(monkeypatch):
    """ONNX files take seconds to write, and are not what is looked at."""
    monkeypatch.setattr(exporting, "_onnx_files", lambda _: {})


def test_weights_of_a_false_size_are_refused_before_they_are_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({"encoder.w": torch.zeros(3)}, file)
    os.truncate(file, 2**28)
    with pytest.raises(vgx.StorageError, match=f"{file.name}: not as it was written"):
        reading.read(tmp_path)


@pytest.mark.usefixtures("no_onnx")
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
    assert exporting.latent_statistics(vgx.Run(folder), vgx.load(folder)) == {
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
        ("_class_name", "AutoencoderDC"),
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


def test_a_training_starts_from_a_folder_of_diffusers_whose_networks_it_has(tmp_path):
    """And says what to write when it has others, also where no shape of a weight shows it."""
    plain = {"quant_conv": False}
    made = written(tmp_path / "theirs", encoder=plain, decoder=plain)
    same = {"start": {"run": str(tmp_path / "theirs")}, "train.steps": 1, "train.ema": None}
    recipe = made.recipe.with_(same)
    weights = weights_for(recipe, None, Console(quiet=True))
    assert weights.networks.keys() == {"encoder", "decoder"}
    for name, network in (("encoder", made.encoder), ("decoder", made.decoder)):
        tensors = network.state_dict()
        assert tensors.keys() == weights.networks[name].keys()
        assert all(torch.equal(weights.networks[name][key], tensors[key]) for key in tensors)
    file = tmp_path / "theirs" / "vae" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "norm_num_groups": 2, "latent_channels": 16}))
    with pytest.raises(vgx.StorageError) as caught:
        weights_for(recipe, None, Console(quiet=True))
    text = (ROOT / "docs" / "recipe" / "start.md").read_text()
    (shown,) = re.findall(r"<!-- unlike -->\n```text\nvgx: (.*?)\n```", text, re.DOTALL)
    assert str(caught.value) == shown
    # A part inside of another one is compared too.
    inner = recipe.model_dump(mode="json")["encoder"]
    wrapped = recipe.with_({"encoder": {"type": "deterministic", "inner": inner}})
    with pytest.raises(vgx.StorageError, match="encoder: groups"):
        weights_for(wrapped, None, Console(quiet=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diffusion_pytorch_model.bin", "a pickle file, which is not read"),
        ("diffusion_pytorch_model.safetensors.index.json", "in several files"),
        ("other.safetensors", r"no diffusion_pytorch_model\.safetensors"),
    ],
)
def test_weights_in_other_files_are_refused(tmp_path, name, message):
    written(tmp_path)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "vae" / name)
    with pytest.raises(vgx.StorageError, match=message):
        vgx.import_model(tmp_path, out=tmp_path / "runs")
    with pytest.raises(vgx.StorageError, match=rf"start\.run: .*{message}"):
        read_weights(Start(run=str(tmp_path)), ["encoder"])


def test_weights_that_are_no_weights_are_refused(tmp_path):
    written(tmp_path)
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    save_file({**whole, "lora.weight": torch.zeros(1)}, file)
    with pytest.raises(vgx.StorageError, match=r"lora\.weight is no weight of an encoder"):
        vgx.import_model(tmp_path, out=tmp_path / "runs")
    whole.pop("quant_conv.bias")
    save_file(whole, file)
    with pytest.raises(vgx.StorageError, match=r"does not fit the encoder"):
        vgx.import_model(tmp_path, out=tmp_path / "runs")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(vgx.StorageError, match=r"safetensors: not a regular file"):
        vgx.import_model(tmp_path, out=tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.usefixtures("no_onnx")
def test_a_decoder_alone_is_trained_and_the_scale_of_the_latents_is_kept(tmp_path):
    made = written(tmp_path / "theirs")
    recipe = made.recipe.with_({
        "start": {"run": str(tmp_path / "theirs")}, "train.freeze": ["encoder"], "train.steps": 5,
        "train.ema": None, "encoder.recompute": True, "decoder.recompute": True,
    })  # fmt: skip
    run = vgx.run(recipe, out=tmp_path / "runs")
    first, last = (run.read_log()[at]["losses"]["l1"] for at in (0, -1))
    assert last < first
    folder = vgx.export(run, tmp_path / "out")
    places = [each / "vae" for each in (tmp_path / "theirs", folder)]
    before, after = (load_file(each / diffusers.WEIGHTS) for each in places)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        kept = name.startswith(("encoder.", "quant_conv."))
        assert torch.equal(tensor, after[name]) == kept, name
    theirs, known = (json.loads((each / "config.json").read_text()) for each in places)
    assert known == theirs
    # Another start from what was exported keeps it too; one with a trained encoder does not.
    for changes, kept in (({"start.run": str(folder)}, True), ({"train.freeze": []}, False)):
        other = vgx.run(recipe.with_({**changes, "train.steps": 1}), out=tmp_path / "runs")
        assert (exporting.latent_statistics(other, vgx.load(other)) == SCALE) == kept


# --- diffusers and onnxruntime, where there is no vgx ---------------------------------------------

ALONE = r"""
import json, re, sys

class NoVgx:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("vgx"):
            raise ImportError(name)

sys.meta_path.insert(0, NoVgx())
import logging
import numpy as np, onnxruntime, torch, diffusers

warned = []
logging.getLogger("diffusers").handlers = [logging.Handler()]
logging.getLogger("diffusers").handlers[0].emit = lambda record: warned.append(record.getMessage())
folder, given, place = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
x, eps = torch.tensor(given["images"]), torch.tensor(given["eps"])

def encoded(vae):
    if isinstance(vae, diffusers.AutoencoderTiny):
        latents = vae.encode(x * 2 - 1).latents
        return latents, latents, torch.zeros(len(x))
    posterior = vae.encode(x * 2 - 1).latent_dist
    noise = eps[:, : posterior.mean.shape[1]]
    return posterior.mean, posterior.mean + posterior.std * noise, posterior.kl()

def written(vae, name):
    mean, z, kl = encoded(vae)
    images = vae.decode(z).sample / 2 + 0.5
    images = images + (images.clamp(1e-6, 1 - 1e-6) - images).detach()
    loss = (images - x).abs().mean() + 0.01 * kl.mean()
    loss.backward()
    values = {"mean": mean, "images": images, "kl": kl, "loss": loss}
    values |= {f"grad {key}": weight.grad for key, weight in vae.named_parameters()}
    np.savez(f"{place}/{name}.npz", **{key: value.detach() for key, value in values.items()})

# What vgx exported.
vae, about = diffusers.AutoencoderKL.from_pretrained(
    folder, subfolder="vae", output_loading_info=True
)
assert not any(about.values()), about
with torch.no_grad():
    latents = encoded(vae)[0]
    images = (vae.decode(torch.tensor(given["z"])).sample / 2 + 0.5).clamp(0, 1)
for found, name in ((latents, "latents"), (images, "decoded")):
    print(np.abs(found.numpy() - given[name]).max())
for n in (1, 7):
    for file, name, output in (("encoder", "images", "latents"), ("decoder", "z", "decoded")):
        session = onnxruntime.InferenceSession(f"{folder}/{file}.onnx")
        (found,) = session.run(None, {session.get_inputs()[0].name: given[name][:n]})
        print(np.abs(found - given[output][:n]).max())
for name in ("kl", "tiny"):
    kind = diffusers.AutoencoderTiny if name == "tiny" else diffusers.AutoencoderKL
    vae, about = kind.from_pretrained(f"{place}/{name}/vae", output_loading_info=True)
    assert not any(about.values()), about
    written(vae, name)
    vae.save_pretrained(f"{place}/{name}-again")
# What diffusers makes itself.
for name, fields in json.loads(sys.argv[4]).items():
    torch.manual_seed(1)
    vae = getattr(diffusers, fields.pop("class"))(**fields)
    vae.save_pretrained(f"{place}/{name}")
    written(type(vae).from_pretrained(f"{place}/{name}"), name)
# It also says this of a folder that it wrote itself.
own = re.compile(r"The config attributes {'block_out_channels': [^}]*\]} were passed to")
warned = [text for text in warned if "`accelerate`" not in text and not own.match(text)]
assert not warned, warned
"""

BLOCKS = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
SMALL = {"class": "AutoencoderKL", "block_out_channels": [8, 16], "norm_num_groups": 4, **BLOCKS}
# Small ones of the forms that are published.
THEIRS = {
    "sd-1": {**SMALL, "layers_per_block": 2, "sample_size": 16, "scaling_factor": 0.18215},
    "sd-3": {
        **SMALL, "layers_per_block": 2, "sample_size": 16, "latent_channels": 16,
        "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
    },
    "plain": {**SMALL, "sample_size": 16, "mid_block_add_attention": False},
    "taesd": {
        "class": "AutoencoderTiny", "encoder_block_out_channels": [8] * 3,
        "decoder_block_out_channels": [8] * 3, "num_encoder_blocks": [1, 2, 1],
        "num_decoder_blocks": [2, 1, 1],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "kind", "latents"),
    [("autoencoder-kl", "KL", "latent_dist.mode()"), ("autoencoder-tiny", "Tiny", "latents")],
)
def test_the_card_has_the_class_and_the_latents_of_diffusers(part, kind, latents):
    """As the program above calls them."""
    networks = {"encoder": part, "decoder": part, "latent": [4, 8, 8], "image.size": 16}
    recipe = vgx.load_recipe("tiny", {**networks, "discriminator": None, "losses": ["l1"]})
    files = {"vae/config.json": json.dumps({"_class_name": f"Autoencoder{kind}"}).encode()}
    text = card._use(recipe, {"plugins": [], "latents": {}}, files)
    assert f"from diffusers import Autoencoder{kind}\n" in text
    assert f"Autoencoder{kind}.from_pretrained(" in text
    assert f"latents = vae.encode(images * 2 - 1).{latents}\n" in text


def test_diffusers_and_onnxruntime_give_the_same_without_vgx(tmp_path):
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
    eps = torch.randn(7, 16, 8, 8)
    given, place = tmp_path / "given.npz", tmp_path / "theirs"
    np.savez(
        given, images=images, z=z, eps=eps, latents=model.encode(images), decoded=model.decode(z)
    )
    tiny = {"type": "autoencoder-tiny", "channels": 8, "blocks": [1, 2]}
    ours = {
        "kl": written(place / "kl"),
        "tiny": written(place / "tiny", encoder=tiny, decoder={**tiny, "blocks": [2, 1]}),
    }
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, str(script), str(folder), str(given), str(place)]
    done = subprocess.run(
        [*command, json.dumps(THEIRS)],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    differences = [float(number) for number in done.stdout.split()]
    assert len(differences) == 6
    assert max(differences) < 1e-5
    for name, made in ours.items():
        agrees(made, images, eps, np.load(place / f"{name}.npz"))
        mine, again = (
            json.loads((place / each / "config.json").read_text())
            for each in (f"{name}/vae", f"{name}-again")
        )
        assert {*again} - {"_name_or_path"} == {*mine}
    # And what diffusers wrote, in vgx.
    for name in THEIRS:
        fields = ["image.size=16"]
        found = vgx.load(vgx.import_model(place / name, fields, out=tmp_path / "runs"))
        agrees(found, images, eps, np.load(place / f"{name}.npz"))


def agrees(model, images, eps, wanted):
    """Latents, images, losses and the gradient of each weight are those of diffusers."""
    encoder, decoder = (net.requires_grad_() for net in (model.encoder, model.decoder))
    posterior = encoder(images)
    shape = posterior.mean.shape
    step = full_step(model.recipe.image, model.recipe.latent)
    variational = isinstance(posterior, vgx.Gaussian)
    noise = eps[:, : shape[1]]
    z = posterior.mu + (posterior.logvar / 2).exp() * noise if variational else posterior.mean
    recon = decoder(z).sigmoid()
    step = dataclasses.replace(step, real=images, posterior=posterior, z=z, recon=recon)
    loss = L1().generator(step)
    if variational:
        kl = posterior.kl().flatten(1).sum(1)
        assert torch.allclose(kl, torch.tensor(wanted["kl"]), rtol=1e-5)
        loss = loss + 0.01 * Kl(unit="sample").generator(step)
    for found, name in ((posterior.mean, "mean"), (recon, "images"), (loss, "loss")):
        assert np.abs(found.detach().numpy() - wanted[name]).max() < 1e-5, name
    weights = {**dict(encoder.named_parameters()), **dict(decoder.named_parameters())}
    gradients = torch.autograd.grad(loss, [*weights.values()])
    assert {f"grad {name}" for name in weights} == {n for n in wanted if n.startswith("grad")}
    for name, gradient in zip(weights, gradients, strict=True):
        right = wanted[f"grad {name}"]
        away = np.abs(gradient.numpy() - right).max()
        # The gradient of a key's bias is 0 but for rounding: softmax does not change with it.
        assert away < 1e-5 * max(np.abs(right).max(), 1e-3), name
