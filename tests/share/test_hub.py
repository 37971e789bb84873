"""Models on the hub: uploaded with the library's own protocol, fetched once, verified."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from model_hub import ModelHub, asked, serving

import vgx
from vgx.cli import run_program
from vgx.recipe.model import Start
from vgx.runs import exported, hub
from vgx.runs.weights import read_weights
from vgx_share import exporting

# A habit of huggingface_hub that its own HTTP library warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
OLD = Path(__file__).parents[1] / "data" / "run-of-format-1"
TOKEN = "hf_verysecrettoken"
NEEDED = ["codes.safetensors", "model.safetensors", "recipe.yaml", "vgx.json"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting.onnx, "_LIBRARIES", ("no_such_library",))
        with pytest.warns(vgx.Notice, match="no ONNX files"):
            return vgx.export(OLD, place / "faces", codes=True)


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "faces"))


@pytest.fixture
def online(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", os.devnull)
    monkeypatch.setattr(hub, "WAITS", (0.01, 0.01))
    model = ModelHub()
    with asked(model, monkeypatch):
        yield model


def fetched(online):
    return [each for each in online.requests if "/resolve/" in each]


def files_with(text, root):
    return [path for path in root.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_what_is_pushed_is_what_is_loaded(online, folder, tmp_path):
    (folder / "diary.txt").write_text("mine")
    (folder / "plugins").mkdir()
    (folder / "plugins" / "x.py").write_text("raise SystemExit")
    address = vgx.push(folder, "o/n", private=True)
    assert address.endswith("/o/n")
    assert online.visibility == "private"
    there = online.commits[online.head]
    about = json.loads((folder / "vgx.json").read_text())
    assert set(there) == {*about["files"], "vgx.json"}
    assert b'vgx.load("o/n")' in there["README.md"]
    shutil.rmtree(folder / "plugins")
    loaded, local = vgx.load("o/n"), vgx.load(folder)
    z = torch.randn(3, 4)
    assert torch.equal(loaded.decode(z), local.decode(z))
    assert torch.equal(loaded.codes, local.codes)
    assert online.tokens == {f"Bearer {TOKEN}"}
    assert files_with(TOKEN.encode(), tmp_path) == []


@pytest.mark.parametrize(("words", "visibility"), [([], None), (["--private"], "private")])
def test_the_command_makes_a_model_private_when_that_is_asked(online, folder, words, visibility):
    assert run_program(["push", str(folder), "o/n", *words]) == 0
    assert set(online.commits[online.head]) >= {"vgx.json", "model.safetensors"}
    assert online.visibility == visibility


def test_it_is_downloaded_once(online, folder):
    vgx.push(folder, "o/n")
    assert online.visibility is None  # as the hub does it
    for _ in range(2):
        vgx.load("o/n")
    vgx.load("https://huggingface.co/o/n")
    assert sorted(each.rpartition("/")[2] for each in fetched(online)) == NEEDED
    assert vgx.sample("o/n", n=2).shape == (2, 3, 8, 8)
    assert vgx.import_model("o/n").path.name == "0001-old"
    assert len(fetched(online)) == 4
    first = online.head
    (folder / "codes.safetensors").unlink()
    about = json.loads((folder / "vgx.json").read_text())
    del about["files"]["codes.safetensors"]
    (folder / "vgx.json").write_text(json.dumps(about))
    vgx.push(folder, "o/n")
    assert "codes.safetensors" not in online.commits[online.head]  # removed there
    assert len(vgx.load("o/n").codes) == 0
    assert len(vgx.load(f"o/n@{first}").codes) == 32


def test_a_prior_comes_with_its_model(online, tmp_path, no_pages, monkeypatch):
    monkeypatch.setattr(exporting.onnx, "_LIBRARIES", ("no_such_library",))
    settings = {
        "image.size": 8, "latent": [4, 4, 4], "encoder.inner": {"type": "residual", "widths": [8]},
        "encoder.codes": 8, "decoder": {"type": "residual", "widths": [8]}, "train.steps": 1,
        "prior": {"type": "transformer", "width": 16, "depth": 1, "steps": 1},
        "dataset": {"type": "drawn-faces", "count": 64},
    }  # fmt: skip
    run = vgx.run(vgx.load_recipe("vqvae", settings))
    with pytest.warns(vgx.Notice, match="no ONNX files"):
        folder = vgx.export(run, tmp_path / "faces")
    vgx.push(folder, "o/n")
    images = vgx.sample(folder, n=2)
    assert torch.equal(vgx.sample("o/n", n=2), images)
    assert torch.equal(vgx.sample(vgx.import_model("o/n"), n=2), images)
    cached = hub.model_folder("o/n") / "prior.safetensors"
    cached.write_bytes(cached.read_bytes()[:-1] + b"?")
    assert torch.equal(vgx.sample("o/n", n=2), images)  # fetched again


def test_a_damaged_prior_makes_no_run(tmp_path, monkeypatch):
    folder = tmp_path / "faces"
    monkeypatch.setattr(exporting.onnx, "_LIBRARIES", ("no_such_library",))
    with pytest.warns(vgx.Notice, match="no ONNX files"):
        vgx.export(OLD, folder)
    about = json.loads((folder / "vgx.json").read_text())
    about["files"]["prior.safetensors"] = {"bytes": 1, "sha256": "0" * 64}
    (folder / "vgx.json").write_text(json.dumps(about))
    with pytest.raises(vgx.StorageError, match="prior.safetensors"):
        vgx.import_model(folder)
    assert not (tmp_path / "runs").exists()


def test_without_a_network_what_was_fetched_is_used(online, folder):
    vgx.push(folder, "o/n")
    before = vgx.load("o/n")
    online.status = 503
    with pytest.warns(vgx.Notice, match="fetched before, are used"):
        again = vgx.load("o/n")
    assert torch.equal(again.decode(torch.ones(1, 4)), before.decode(torch.ones(1, 4)))
    with pytest.raises(vgx.HubError, match="other/one"):
        vgx.load("other/one")


@pytest.mark.parametrize("resets", [2, 3])
def test_a_connection_that_fails_is_tried_three_times(online, folder, resets):
    vgx.push(folder, "o/n")
    online.resets = resets
    if resets == 2:
        assert len(vgx.load("o/n").codes) == 32
    else:
        with pytest.raises(vgx.HubError, match=r"vgx\.json: .*, in 3 tries"):
            vgx.load("o/n")
    assert [each.rpartition("/")[2] for each in fetched(online)][:3] == ["vgx.json"] * 3
    assert len(fetched(online)) == (6 if resets == 2 else 3)


def as_another_step(file):
    """Valid, and not what was exported."""
    file.write_text(file.read_text().replace('"step": 4', '"step": 5'))


def with_another_sum(file):
    """A sum that no model on the hub has: what is fetched would never fit it."""
    about = json.loads(file.read_text())
    about["files"]["model.safetensors"]["sha256"] = "0" * 64
    file.write_text(json.dumps(about))


def as_a_folder(file):
    file.unlink()
    (file / "inner").mkdir(parents=True)


def as_a_pipe(file):
    file.unlink()
    os.mkfifo(file)


def as_a_link(file):
    file.rename(file.with_name("elsewhere"))
    file.with_name("elsewhere").write_bytes(b"mine")
    file.symlink_to("elsewhere")


DAMAGES = {
    "vgx.json": [as_another_step, with_another_sum, as_a_folder, lambda file: file.write_text("x")],
    "model.safetensors": [as_a_pipe, as_a_link, lambda file: file.write_bytes(b"x"), Path.unlink],
    "../main.txt": [as_a_folder, lambda file: file.write_text("x" * 999)],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_is_damaged_in_the_cache_is_fetched_again(online, folder, name):
    vgx.push(folder, "o/n")
    file = hub.model_folder("o/n") / name
    whole, step = file.read_bytes(), vgx.load(folder).step
    for damage in DAMAGES[name]:
        before = len(fetched(online))
        damage(file)
        assert vgx.load("o/n").step == step
        assert len(fetched(online)) == before + 1  # of the four files
        assert file.is_file()  # and no pipe, which would be waited for
        assert not file.is_symlink()
        assert file.read_bytes() == whole
        if damage is as_a_link:
            assert file.with_name("elsewhere").read_bytes() == b"mine"


def test_a_damaged_list_of_files_is_not_used_without_a_network(online, folder):
    vgx.push(folder, "o/n")
    file = hub.model_folder("o/n") / "vgx.json"
    whole = file.read_text()
    as_another_step(file)
    assert file.read_text() != whole
    online.status = 503
    with pytest.raises(vgx.HubError, match="what was fetched before is damaged"):
        vgx.load("o/n")
    online.status = 0
    assert vgx.load("o/n").step == json.loads(whole)["step"]


def large(files):
    about = json.loads(files["vgx.json"])
    about["files"]["model.safetensors"]["bytes"] = 2**50
    files["vgx.json"] = json.dumps(about).encode()


CHANGES = {
    "another model": lambda files: files.update({"model.safetensors": b"x" * 10}),
    "more bytes than it says": lambda files: files.update(
        {"model.safetensors": files["model.safetensors"] + b"x" * 2**20}
    ),
    "a petabyte": large,
    "no list of files": lambda files: files.pop("vgx.json"),
    "a list that is no JSON": lambda files: files.update({"vgx.json": b"{"}),
    "an endless list": lambda files: files.update({"vgx.json": b" " * (exported.MAX_ABOUT + 1)}),
    "a recipe with a program": lambda files: files.update({"recipe.yaml": b"!!python/x {}"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_is_not_as_it_was_exported_is_not_loaded(online, folder, change, tmp_path):
    files = {name: (folder / name).read_bytes() for name in exported.about(folder)["files"]}
    files["vgx.json"] = (folder / "vgx.json").read_bytes()
    files["modeling.py"] = files["plugins/x.py"] = b"raise SystemExit"
    online.add(files)
    change(files)
    with pytest.raises((vgx.HubError, vgx.StorageError)):
        vgx.load("o/n")
    names = {each.rpartition("/")[2] for each in fetched(online)}
    assert names <= {*NEEDED}
    assert len(fetched(online)) <= 5
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert "vgx.json" not in kept  # so the next call fetches it again


def test_the_token_goes_to_the_hub_alone(online, folder, tmp_path):
    vgx.push(folder, "o/n")
    other = ModelHub()
    other.commits = online.commits
    with serving(other) as address:
        online.elsewhere = address
        vgx.load("o/n")
    assert len(fetched(other)) == 4
    assert other.tokens == set()


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses_gets_no_token_into_a_message(online, folder, status, capfd, tmp_path):
    """The answer repeats the token, as a careless proxy may."""
    online.status = status
    for use in (lambda: vgx.push(folder, "o/n"), lambda: vgx.load("o/n")):
        with pytest.raises(vgx.HubError) as caught:
            use()
        assert caught.value.exit_code == 8
        assert TOKEN not in str(caught.value)
    assert TOKEN not in "".join(capfd.readouterr())
    assert files_with(TOKEN.encode(), tmp_path) == []
    assert len(online.requests) < 20


def test_without_a_token_nothing_is_asked(online, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(vgx.HubError, match=r"log in first: hf auth login"):
        vgx.push(folder, "o/n")
    assert online.requests == []


def test_only_an_exported_folder_that_is_whole_is_pushed(online, folder, tmp_path):
    with pytest.raises(vgx.StorageError, match="first: vgx export RUN FOLDER"):
        vgx.push(OLD, "o/n")
    for name in ("o", "o/n/m", "../n", "o/n\nx"):
        with pytest.raises(vgx.RecipeError, match="owner/name"):
            vgx.push(folder, name)
    (folder / "README.md").write_text("another one")
    with pytest.raises(vgx.StorageError, match=r"README\.md"):
        vgx.push(folder, "o/n")
    assert online.requests == []


def test_a_path_of_this_machine_is_no_name_of_the_hub(online, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(vgx.StorageError, match="no run 'runs/7'"):
        vgx.load("runs/7")
    assert online.requests == []
    assert hub.is_name("o/n@v1.0")
    assert not any(map(hub.is_name, ("/o/n", "o", "./o", "o/n/m", "7", 7, None, "o/..")))


# --- autoencoders of diffusers --------------------------------------------------------------------

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def theirs():
    """The two files of a small `AutoencoderTiny`, as diffusers has them."""
    from safetensors.torch import save

    from vgx_builtin.decoders import AutoencoderTinyDecoder
    from vgx_builtin.encoders import AutoencoderTinyEncoder

    image, latent = vgx.ImageSpec(16), vgx.LatentSpec((2, 8, 8))
    encoder = AutoencoderTinyEncoder(channels=4, blocks=(1, 1)).build(image, latent)
    decoder = AutoencoderTinyDecoder(channels=4, blocks=(1, 1)).build(latent, image)
    config = {
        "_class_name": "AutoencoderTiny", "encoder_block_out_channels": [4, 4],
        "decoder_block_out_channels": [4, 4], "num_encoder_blocks": [1, 1],
        "num_decoder_blocks": [1, 1], "latent_channels": 2,
    }  # fmt: skip
    tensors = save({**encoder.state_dict(), **decoder.state_dict()})
    return {"config.json": json.dumps(config).encode(), WEIGHTS: tensors}


@pytest.mark.parametrize("inside", ["", "vae/"])
def test_an_autoencoder_of_diffusers_is_fetched_once_and_verified(online, theirs, inside, tmp_path):
    files = {inside + name: data for name, data in theirs.items()}
    commit = online.add({**files, "pipeline.py": b"raise SystemExit", "unet/config.json": b"{}"})
    for _ in range(2):
        run = vgx.import_model("o/n", ["image.size=16"], out=tmp_path / "runs")
    assert run.path.name == "0002-n"
    assert vgx.load(run).recipe.encoder.type == "autoencoder-tiny"
    start = read_weights(Start(run="o/n"), ["encoder", "decoder"])
    assert start.config == json.loads(theirs["config.json"])
    asked = [each.partition(commit)[2].removeprefix("/") for each in fetched(online)]
    assert asked == [inside + name for name in theirs]
    with pytest.raises(vgx.StorageError, match=r"no recipe; .*: vgx import o/n"):
        vgx.load("o/n")
    # Without a network; and a byte of it has changed on the disk.
    online.status = 503
    with pytest.warns(vgx.Notice, match="fetched before, are used"):
        folder = hub.model_folder("o/n")
    file = folder / inside / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(vgx.HubError):
        hub.model_folder("o/n")
    online.status = 0
    assert (hub.model_folder("o/n") / inside / WEIGHTS).read_bytes() == theirs[WEIGHTS]


def huge(files):
    files["config.json"] = b" " * (2**20 + 1)


HOSTILE = {
    "a huge config": (huge, r"config\.json: its size is 1048577; at most 1,048,576 bytes"),
    "a pickle": (
        lambda files: files.update({"diffusion_pytorch_model.bin": files.pop(WEIGHTS)}),
        "a pickle file, which is not read",
    ),
    "several files": (
        lambda files: files.update({f"{WEIGHTS}.index.json": files.pop(WEIGHTS)}),
        "in several files",
    ),
    "no weights": (lambda files: files.pop(WEIGHTS), "has config.json and no"),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=list(HOSTILE))
def test_an_autoencoder_that_is_none_is_not_fetched(online, theirs, change, message):
    files = dict(theirs)
    change(files)
    online.add(files)
    with pytest.raises(vgx.StorageError, match=message):
        hub.model_folder("o/n")
    assert len(fetched(online)) <= 1


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_what_is_not_as_the_hub_lists_it_is_not_kept(online, theirs, name, tmp_path):
    """Of as many bytes, so that the sum alone tells."""
    commit = online.add(dict(theirs))
    whole = theirs[name]
    online.served[commit] = {**theirs, name: whole[:-1] + bytes([whole[-1] ^ 1])}
    with pytest.raises(vgx.StorageError, match=f"{name}: not as the hub lists it"):
        hub.model_folder("o/n")
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert name not in kept
    assert hub.FETCHED not in kept
