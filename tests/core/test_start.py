"""A training starts from the weights of another one; networks are frozen; losses stop."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from steps import batches
from torch import nn
from torch.nn import functional as F

import vgx
from vgx.check.examine import examine
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.engine.losses import terms_of
from vgx.engine.starting import aligned, begin
from vgx.errors import RecipeError, StorageError
from vgx.recipe.model import Start
from vgx.runs import checkpoint, hub
from vgx.runs.weights import read_weights
from vgx.training import session

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipe" / "start.md"
TINY = ROOT / "recipes" / "tiny.yaml"
VAE = {"discriminator": None, "losses": ["bce", "kl"], "train.ema": None}


def quiet():
    return Console(file=io.StringIO())


def pictures(seed=0, n=8, size=16):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def tensors(**shapes):
    return {name.replace("_", "."): torch.zeros(shape) for name, shape in shapes.items()}


# --- which tensors take which place ---------------------------------------------------------------


def test_layers_are_aligned_so_that_most_numbers_fit():
    """By hand: a list with one more layer, whose like layers are found behind it or before it."""
    old = tensors(a_0_w=(2, 3), a_1_w=(4, 2), a_2_w=(4, 4), b_w=(5,), c_w=(1,))
    new = tensors(a_0_w=(2, 3), a_1_w=(2, 2), a_3_w=(4, 2), a_4_w=(4, 4), b_w=(5,), c_w=(2,))
    expected = {"a.0.w": "a.0.w", "a.3.w": "a.1.w", "a.4.w": "a.2.w", "b.w": "b.w"}
    assert aligned(new, old, from_end=False) == expected
    assert aligned(new, old, from_end=True) == expected
    # 12 numbers of layer 1 and not the 10 of layers 0 and 2, which stand in the other order.
    old, new = tensors(l_0=(5,), l_1=(12,), l_2=(5,)), tensors(l_0=(12,), l_1=(7,))
    assert aligned(new, old, from_end=False) == {"l.0": "l.1"}


def test_of_layers_that_are_alike_those_next_to_the_latent_are_taken():
    old, new = tensors(l_0=(3,), l_1=(3,)), tensors(l_0=(3,), l_1=(3,), l_2=(3,))
    assert aligned(new, old, from_end=False) == {"l.0": "l.0", "l.1": "l.1"}
    assert aligned(new, old, from_end=True) == {"l.2": "l.1", "l.1": "l.0"}


def test_counts_alone_make_no_pair_and_kinds_must_agree():
    counts, other = torch.zeros((), dtype=torch.long), torch.zeros(4, dtype=torch.long)
    old = {"l.0.count": counts, "l.0.w": torch.zeros(3), "v": other}
    new = {"l.0.count": counts, "l.0.w": torch.zeros(4), "v": torch.zeros(4)}
    assert aligned(new, old, from_end=False) == {}
    assert aligned({**new, "l.0.w": torch.zeros(3)}, old, from_end=False) == {
        "l.0.count": "l.0.count",
        "l.0.w": "l.0.w",
    }


def test_names_of_a_stranger_are_only_names():
    """Numbers that Python would not read, leaves above others, ten thousand levels."""
    old = tensors(l_0=(3,)) | {f"l.{'9' * 5000}": torch.zeros(3), "l.0.x": torch.zeros(2)}
    old |= {"a" + ".a" * 10_000: torch.zeros(1), "": torch.zeros(1), "..": torch.zeros(1)}
    assert aligned(tensors(l_0=(3,)), old, from_end=False) in ({"l.0": "l.0"}, {})


def part(kind, name, size, latent, **fields):
    made = vgx.discover().part(kind, name)(**fields)
    image, z = vgx.ImageSpec(size=size), vgx.LatentSpec(latent)
    return made.build(image, z) if kind == "encoder" else made.build(z, image)


HALVES = [
    ("encoder", "conv", (8, 16), (8, 8, 16), (4,), {"trunk.1", "trunk.3"}),
    ("encoder", "residual", (8, 16), (8, 8, 16), (4,), {"trunk.1"}),
    ("decoder", "conv-transpose", (16, 8), (16, 8, 8), (4,), {"5", "6"}),
    ("decoder", "residual", (16, 8), (16, 8, 8), (4,), {"4"}),
    ("decoder", "dcgan", (16, 8), (16, 8, 8), (4,), {"7", "8"}),
    ("encoder", "residual", (8, 16), (8, 16), (2, 4, 4), set()),  # any size as it is
    ("decoder", "residual", (16, 8), (16, 8), (2, 4, 4), set()),
]


@pytest.mark.parametrize("case", HALVES, ids=lambda c: f"{c[1]}-{c[0]}-{len(c[3])}")
def test_the_outermost_block_alone_is_new_at_twice_the_size(case):
    kind, name, few, more, latent, new = case
    larger = (latent[0], *(2 * side for side in latent[1:]))
    old = part(kind, name, 16, latent, widths=few)
    network = part(kind, name, 32, larger, widths=more)
    for number, parameter in enumerate(old.parameters()):
        nn.init.constant_(parameter, number)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fit = begin(kind, network, old.state_dict())
    depth = 2 if kind == "encoder" else 1
    assert {".".join(key.split(".")[:depth]) for key in fit.fresh} == new
    assert fit.left == []
    for key, value in network.state_dict().items():
        expected = old.state_dict()[fit.taken[key]] if key in fit.taken else before[key]
        assert torch.equal(value, expected)
    assert fit.numbers == sum(t.numel() for t in old.state_dict().values())


def test_a_network_inside_of_another_one_is_found():
    plain = part("encoder", "residual", 16, (2, 4, 4), widths=(8, 16))
    inner = vgx.discover().part("encoder", "residual")(widths=(8, 16))
    quantised = part("encoder", "vector-quantised", 16, (2, 4, 4), inner=inner)
    fit = begin("encoder", quantised, plain.state_dict())
    assert fit.fresh == ["codebook.weight"]
    assert fit.notes == ["encoder: all of it is inside inner here", "encoder: new: codebook"]
    assert torch.equal(quantised.inner.mu.weight, plain.mu.weight)


def test_what_does_not_fit_is_named_with_both_shapes():
    old = part("encoder", "conv", 16, (4,), widths=(8, 16))
    network = part("encoder", "conv", 16, (5,), widths=(8, 16))
    fit = begin("encoder", network, old.state_dict())
    assert fit.notes == [
        "encoder: new: mu, logvar",
        "encoder: not used: mu, logvar",
    ]
    decoder = part("decoder", "conv-transpose", 16, (5,), widths=(16, 8))
    fit = begin(
        "decoder", decoder, part("decoder", "conv-transpose", 16, (4,), widths=(16, 8)).state_dict()
    )
    assert fit.notes == [
        "decoder: new: 0.weight 256x5 (old 256x4)",
        "decoder: not used: 0.weight",
    ]


def test_nothing_that_fits_and_numbers_that_are_none_are_refused():
    network = part("decoder", "conv-transpose", 16, (4,), widths=(16, 8))
    with pytest.raises(
        RecipeError, match="nothing of the decoder fits: here it has 0.weight 256x4"
    ):
        begin("decoder", network, {"x\x1b[2J": torch.zeros(3)})
    broken = {**network.state_dict(), "2.weight": torch.full((16, 8, 4, 4), torch.nan)}
    before = network.state_dict()["2.weight"].clone()
    with pytest.raises(RecipeError, match=r"decoder\.2\.weight has numbers that are not finite"):
        begin("decoder", network, broken)
    assert torch.equal(network.state_dict()["2.weight"], before)
    large = {"0.bias": torch.full((256,), 1e300, dtype=torch.float64)}
    with pytest.raises(RecipeError, match="not finite"):
        begin("decoder", network, large)


# --- where weights are read from ------------------------------------------------------------------


def test_a_file_has_networks_by_name_or_is_one(tmp_path):
    one, two, three = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])
    file = tmp_path / "all.safetensors"
    save_file({"encoder.w": one, "decoder.w": two, "average.module.decoder.w": three}, file)
    found = read_weights(Start(run=str(file)), ["encoder", "decoder", "discriminator"])
    assert found.networks == {"encoder": {"w": one}, "decoder": {"w": three}}
    assert str(found) == "all.safetensors, averaged weights"
    found = read_weights(Start(run=str(file), networks=("decoder",), averaged=False), ["decoder"])
    assert found.networks == {"decoder": {"w": two}}
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.lineage() == {
        "run": "all.safetensors", "step": 0, "sha256": sha256, "networks": ["decoder"],
        "how": "start",
    }  # fmt: skip
    save_file({"w": one}, tmp_path / "encoder.safetensors")
    start = Start(run=str(tmp_path / "encoder.safetensors"), networks=("encoder",))
    assert read_weights(start, ["encoder"]).networks == {"encoder": {"w": one}}


@pytest.mark.parametrize("name", ["decoder." + "x" * 493, "decoder" + "." * 51])
def test_a_name_that_is_far_too_long_is_refused(tmp_path, name):
    file = tmp_path / "w.safetensors"
    save_file({name[:50]: torch.zeros(1)}, file)
    assert read_weights(Start(run=str(file), networks=("decoder",)), []).networks
    save_file({name: torch.zeros(1)}, file)
    with pytest.raises(StorageError, match="at most 500 characters and 50 dots are read"):
        read_weights(Start(run=str(file), networks=("decoder",)), [])


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    def refusal(name, networks=None):
        with pytest.raises((StorageError, RecipeError)) as error:
            read_weights(Start(run=str(tmp_path / name), networks=networks), ["encoder"])
        assert len(str(error.value)) < 1000
        return str(error.value)

    save_file({"decoder.w": torch.zeros(1)}, tmp_path / "d.safetensors")
    assert "no weights of the encoder; it has: decoder" in refusal("d.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    assert "start.networks: [encoder]" in refusal("w.safetensors")
    (tmp_path / "old.pt").write_bytes(b"\x80\x04.")
    assert "vgx import-weights" in refusal("old.pt")
    (tmp_path / "no.safetensors").write_bytes(b"\x80\x04.")
    assert "no.safetensors" in refusal("no.safetensors")
    (tmp_path / "header.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    assert "a header of" in refusal("header.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "not a regular file" in refusal("pipe.safetensors")
    with (tmp_path / "hole.safetensors").open("wb") as file:
        file.truncate(2**40)
    assert "at most" in refusal("hole.safetensors")
    save_file({"encoder.w": torch.zeros(1)}, tmp_path / "long.safetensors")
    os.truncate(tmp_path / "long.safetensors", 2**28)
    assert "not as it was written" in refusal("long.safetensors")  # its header describes 4 bytes
    many = {f"encoder.{number}": torch.zeros(1) for number in range(20_001)}
    save_file(many, tmp_path / "many.safetensors")
    assert "20,001 tensors" in refusal("many.safetensors")
    assert "no run" in refusal("nothing-here")
    assert "No such file" in refusal("nothing.safetensors")


def exported(folder, tensors, **files):
    """A folder as `vgx export` writes it."""
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "recipe.yaml").write_text("name: faces\n")
    sums = {
        file.name: {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in folder.iterdir()
    }
    about = {"format": 1, "step": 70, "latents": {"shape": [4]}, "files": {**sums, **files}}
    (folder / "vgx.json").write_text(json.dumps(about))
    return sums["model.safetensors"]["sha256"]


def test_an_exported_folder_is_verified(tmp_path, monkeypatch):
    sha256 = exported(tmp_path / "faces", {"decoder.w": torch.tensor([2.0])})
    found = read_weights(Start(run=str(tmp_path / "faces")), ["encoder", "decoder"])
    assert found.networks == {"decoder": {"w": torch.tensor([2.0])}}
    assert (found.name, found.step, found.sha256) == ("faces", 70, sha256)
    asked = []
    monkeypatch.setattr(hub, "model_folder", lambda name: asked.append(name) or tmp_path / "faces")
    found = read_weights(Start(run="owner/faces"), ["decoder"])
    assert (found.name, found.sha256, asked) == ("owner/faces", sha256, ["owner/faces"])
    file = tmp_path / "faces" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(StorageError, match=r"start.run: .*model.safetensors: SHA-256"):
        read_weights(Start(run=str(tmp_path / "faces")), ["decoder"])
    more = {"../x": {"bytes": 1, "sha256": "0" * 64}}
    exported(tmp_path / "bad", {"decoder.w": torch.zeros(1)}, **more)
    with pytest.raises(StorageError, match="no file of a model"):
        read_weights(Start(run=str(tmp_path / "bad")), ["decoder"])


# --- the fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": {"run": 0}}, "start.run"),
        ({"start": {"run": ""}}, "start.run"),
        ({"start": {"run": 1, "networks": []}}, "start.networks"),
        ({"start": {"run": 1, "networks": ["encoder", "encoder"]}}, "'encoder' occurs twice"),
        ({**VAE, "start": {"run": 1, "networks": ["discriminator"]}}, "names the discriminator"),
        ({**VAE, "train.freeze": ["discriminator"]}, "train.freeze names the discriminator"),
        ({"train.freeze": ["encoder", "decoder"]}, "take decoder or encoder out"),
        ({"losses.1": {"type": "l1", "start": 5, "stop": 5}}, "stop: 5 is not after start: 5"),
    ],
)
def test_fields_that_cannot_be(changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        vgx.load_recipe(TINY, changes)


def test_a_term_stops():
    """By hand: from step 2, every second step, until before step 6."""
    fields = {"type": "l1", "start": 2, "stop": 6, "every": 2, "weight": 3}
    recipe = vgx.load_recipe(TINY, {"losses.1": fields, "losses.0": {"type": "hinge", "stop": 1}})
    losses = [(loss, loss.build(recipe.image, recipe.latent)) for loss in recipe.losses]
    (hinge, l1, *_) = terms_of(losses, "generator")
    assert [l1.weight(number) for number in range(9)] == [0, 0, 6, 0, 6, 0, 0, 0, 0]
    assert [hinge.weight(number) for number in range(3)] == [1, 0, 0]
    (hinge,) = terms_of(losses, "discriminator")
    assert [hinge.weight(number) for number in range(3)] == [1, 0, 0]


def test_a_player_whose_terms_have_stopped_is_not_updated():
    changes = {"losses": [{"type": "hinge", "stop": 1}, "l1"], "train.ema": None}
    engine = Engine(vgx.load_recipe(TINY, changes), steps=2)
    engine.step(0, batches(pictures()))
    kept = [p.clone() for p in engine.networks["discriminator"].parameters()]
    assert list(engine.step(1, batches(pictures()))) == ["l1"]
    for before, after in zip(kept, engine.networks["discriminator"].parameters(), strict=True):
        assert torch.equal(before, after)


# --- frozen networks ------------------------------------------------------------------------------


def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def test_the_decoder_steps_as_in_a_plain_loop_beside_a_frozen_encoder():
    """One step of SGD, computed by hand: the encoder in evaluation mode, without a gradient."""
    sgd = {"type": "sgd", "lr": 0.5, "momentum": 0}
    changes = {
        **VAE, "losses": ["l2"], "augment": [], "train.freeze": ["encoder"],
        "train.optimizers.generator": sgd, "train.ema": 0.5, "train.precision": "fp32",
    }  # fmt: skip
    engine = Engine(vgx.load_recipe(TINY, changes), steps=3)
    encoder, decoder = engine.networks["encoder"], engine.networks["decoder"]
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 1, 2)
    engine.ema = engine._build_ema()
    frozen, real = state(encoder), pictures()
    with torch.no_grad():
        posterior = encoder(real)
    z = posterior.sample(engine.streams(0, 0, 0)("posterior"))
    weights = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    for value in weights.values():
        value.requires_grad_()
    twin_state = {**state(decoder), **weights}
    loss = F.mse_loss(torch.func.functional_call(decoder, twin_state, z).sigmoid(), real)
    gradients = torch.autograd.grad(loss, [*weights.values()])
    engine.step(0, batches(real))
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        expected = weight.detach() - 0.5 * gradient
        assert torch.allclose(decoder.get_parameter(name), expected, atol=1e-6)
    engine.step(1, batches(pictures(1)))
    engine.refresh_average(2, batches(pictures(2)))
    assert same(frozen, state(encoder))
    assert same(frozen, state(engine.ema.module["encoder"]))
    assert not encoder.training
    assert not any(name.startswith("encoder") for name in engine.players["generator"].trained)


def test_a_frozen_discriminator_is_no_player():
    changes = {
        "losses": ["l1", "feature-matching"], "train.freeze": ["discriminator"],
        "train.discriminator_steps": 3, "allow": ["fresh:discriminator"],
    }  # fmt: skip
    recipe = vgx.load_recipe(TINY, changes)
    assert recipe.batches_per_step == 1
    engine = Engine(recipe, steps=2)
    before = state(engine.networks["discriminator"])
    examine(engine, vgx.discover(), Batch(pictures()))
    engine.step(0, batches(pictures()))
    assert same(before, state(engine.networks["discriminator"]))
    assert list(engine.players) == ["generator"]


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({**VAE, "train.freeze": ["encoder"], "losses": ["bce"]}, "fresh:encoder: .*it is new"),
        ({**VAE, "train.freeze": ["encoder"]}, "dead:kl: .*nothing that it depends on is trained"),
        ({"train.freeze": ["discriminator"]}, "dead:bce-adversarial.discriminator: train.freeze"),
        (
            {"losses.1": {"type": "l1", "reaches": ["encoder"]}, "train.freeze": ["encoder"]},
            "dead:l1",
        ),
    ],
)
def test_the_audit_knows_frozen_networks(changes, finding):
    engine = Engine(vgx.load_recipe(TINY, changes), steps=2)
    with pytest.raises(RecipeError, match=finding):
        examine(engine, vgx.discover(), Batch(pictures()))


def test_a_dead_term_that_is_allowed_changes_nothing():
    losses = ["bce", {"type": "l1", "reaches": ["encoder"]}]
    changes = {**VAE, "losses": losses, "train.freeze": ["encoder"]}
    engine = Engine(vgx.load_recipe(TINY, changes), steps=2)
    alone = Engine(vgx.load_recipe(TINY, {**changes, "losses": losses[:1]}), steps=2)
    assert engine.step(0, batches(pictures())).keys() == {"bce", "l1"}
    alone.step(0, batches(pictures()))
    assert same(state(alone.networks["decoder"]), state(engine.networks["decoder"]))


def test_a_frozen_network_must_be_taken_whole():
    changes = {**VAE, "train.freeze": ["encoder"], "losses": ["bce"]}
    engine = Engine(vgx.load_recipe(TINY, changes), steps=2)
    weights = state(engine.networks["encoder"])
    engine.start_from({"encoder": weights})
    assert examine(engine, vgx.discover(), Batch(pictures())).rows[0].trained == 0
    engine.start_from({"encoder": {k: v for k, v in weights.items() if not k.startswith("mu")}})
    with pytest.raises(RecipeError, match=r"fresh:encoder: .*2 of its 16 tensors are new"):
        examine(engine, vgx.discover(), Batch(pictures()))


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A run with averaged weights, which others start from."""
    recipe = vgx.load_recipe(TINY, {"train.steps": 6, "train.save_every": 3})
    return session.run(recipe, tmp_path_factory.mktemp("runs"), "cpu", console=quiet())


CHILD = {
    "train.steps": 4, "train.save_every": 2, "train.freeze": ["encoder"],
    "losses": ["l1", {"type": "hinge", "stop": 3}],
}  # fmt: skip


@pytest.mark.slow
def test_a_run_starts_from_another_and_needs_it_no_more(parent, tmp_path):
    """Its frozen encoder is the parent's averaged one; stopped and resumed it ends to the bit."""
    root = tmp_path / "moved"
    shutil.copytree(parent.path, root / parent.path.name)
    out = io.StringIO()
    recipe = vgx.load_recipe(TINY, {**CHILD, "start.run": 1})
    run = session.run(recipe, root, "cpu", console=Console(file=out))
    assert "Start: 0001-tiny, step 6, averaged weights" in out.getvalue()
    file = checkpoint.committed(parent)[0] / "model.safetensors"
    assert run.environment()["parent"] == {
        "run": "0001-tiny", "step": 6, "how": "start",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "networks": ["encoder", "decoder", "discriminator"],
    }  # fmt: skip
    old, new = (checkpoint.load(each)[1] for each in (parent, run))
    averaged = checkpoint.under(old.model, "average.module.encoder")
    assert same(averaged, checkpoint.under(new.model, "encoder"))
    assert same(averaged, checkpoint.under(new.model, "average.module.encoder"))
    assert not same(averaged, checkpoint.under(old.model, "encoder"))
    assert not [key for key in new.optimizer if "/encoder." in key]
    logged = [sorted(line["losses"]) for line in run.read_log() if line["losses"]]
    assert logged[2] == ["hinge.discriminator", "hinge.generator", "l1"]
    assert logged[3] == ["l1"]

    shutil.rmtree(root / parent.path.name)
    shutil.rmtree(run.checkpoints / "step-00000004")
    session.resume(run, console=quiet())
    again = checkpoint.load(run)[1]
    assert again.model.keys() == new.model.keys()
    for kind in ("model", "optimizer", "latents"):
        assert same(getattr(new, kind), getattr(again, kind))


@pytest.mark.slow
def test_a_run_that_begins_again_needs_the_same_parent(parent, tmp_path):
    """One that ended before its first checkpoint."""
    shutil.copytree(parent.path, tmp_path / parent.path.name)
    recipe = vgx.load_recipe(TINY, {**CHILD, "start.run": 1})
    run = session.run(recipe, tmp_path, "cpu", console=quiet())
    first = checkpoint.load(run)[1]
    shutil.rmtree(run.checkpoints)
    run.checkpoints.mkdir()
    for name in ("log.jsonl", "ended.json"):
        (run.path / name).unlink()
    session.resume(run, console=quiet())
    assert same(first.model, checkpoint.load(run)[1].model)
    shutil.rmtree(run.checkpoints)
    run.checkpoints.mkdir()
    for name in ("log.jsonl", "ended.json"):
        (run.path / name).unlink()
    shutil.rmtree(tmp_path / parent.path.name / "checkpoints" / "step-00000006")
    with pytest.raises(StorageError, match="0001-tiny, step 3, averaged weights has changed since"):
        session.resume(run, console=quiet())


@pytest.mark.slow
def test_the_page_shows_what_a_check_prints(tmp_path, capsys, monkeypatch):
    from vgx.cli import run_program

    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "runs"))
    text = PAGE.read_text()
    (command,) = re.findall(r"^vgx run (vae .*--set train.steps=20)$", text, re.MULTILINE)
    small = ["--set", "train.batch=8", "--device", "cpu"]
    assert run_program(["run", *command.replace("'", "").split(), *small]) == 0
    (stage,) = re.findall(r"<!-- stage -->\n```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "next.yaml").write_text(stage)
    capsys.readouterr()
    assert run_program(["check", str(tmp_path / "next.yaml"), *small]) == 0
    (shown,) = re.findall(r"<!-- start -->\n```text\n(.*?)```", text, re.DOTALL)
    assert shown in capsys.readouterr().out
    parent = json.loads((tmp_path / "runs" / "0001-faces-32" / "environment.json").read_text())
    assert "parent" not in parent
