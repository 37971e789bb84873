"""Pictures that stream: the same ones however many, a few alive at a time, whole files or none."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vgx
from vgx import images as pictures
from vgx.check.examine import examine
from vgx.cli import run_program
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import RecipeError, StorageError
from vgx.runs import checkpoint
from vgx.sampling import draw as sampling

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "data" / "run-of-format-1"  # a VAE-GAN of 8 pixels, with averaged weights
CPU = torch.device("cpu")


@pytest.fixture
def model():
    recipe = vgx.load_recipe(ROOT / "recipes" / "tiny.yaml", {"image.size": 32})
    torch.manual_seed(0)
    decoder = recipe.decoder.build(recipe.latent, recipe.image).eval().requires_grad_(False)
    return vgx.Model(recipe, 0, torch.zeros(1, 8), None, decoder, None)


def latents(n):
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(0))


def test_a_run_whose_networks_are_built_differently_now_says_why(tmp_path):
    """As after an update of vgx or of a plugin: here the recipe is changed instead."""
    shutil.copytree(OLD, tmp_path / "0001-old")
    recipe = tmp_path / "0001-old" / "recipe.yaml"
    vgx.load(recipe.parent)
    recipe.write_text(recipe.read_text().replace("type: conv-transpose", "type: dcgan"))
    expected = r"does not fit the decoder .*(?s:.*)another version of vgx .* environment\.json"
    with pytest.raises(StorageError, match=expected):
        vgx.load(recipe.parent)


def test_a_loaded_model_has_the_averaged_weights_and_draws_with_them():
    """As the files of the checkpoint have them: the trained ones give other images."""
    (checkpoint,) = (OLD / "checkpoints").iterdir()
    saved = load_file(checkpoint / "model.safetensors")
    codes = load_file(checkpoint / "latents.safetensors")["codes"]  # [K, 4]

    def under(prefix):
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in saved.items()
            if name.startswith(prefix)
        }

    model = vgx.load(OLD, device="cpu")
    for name in ("encoder", "decoder"):
        averaged, loaded = under(f"average.module.{name}."), model.by_name[name].state_dict()
        assert loaded.keys() == averaged.keys()
        assert all(torch.equal(loaded[key], averaged[key]) for key in averaged), name
    # A mix of one latent is a stored latent itself, so its image is among those of all of them.
    drawn = vgx.sample(OLD, "weighted-mix", 3, settings={"of": 1}, device="cpu")  # [3, 3, 8, 8]
    far = {}
    for prefix in ("average.module.decoder.", "decoder."):
        decoder = model.recipe.decoder.build(model.recipe.latent, model.recipe.image).eval()
        decoder.load_state_dict(under(prefix))
        with torch.no_grad():
            images = decoder(codes).sigmoid()  # [K, 3, 8, 8]
        far[prefix] = torch.cdist(drawn.flatten(1), images.flatten(1), p=torch.inf).amin(1).max()
    assert far["average.module.decoder."] < 1e-6
    assert far["decoder."] > 1e-4


def test_a_checkpoint_that_is_gone_once_it_is_loaded_costs_nothing(tmp_path, monkeypatch):
    """A training that goes on removes older ones at any time."""
    run = vgx.Run(shutil.copytree(ROOT / "tests" / "data" / "run-of-format-1", tmp_path / "run"))
    (folder,) = (run.path / "checkpoints").iterdir()
    sum_of_weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    load = checkpoint.load

    def and_removed(*given):
        path, state = load(*given)
        shutil.rmtree(path)
        return path, state

    monkeypatch.setattr(checkpoint, "load", and_removed)
    assert vgx.load(run.path).sha256 == sum_of_weights


def test_what_comes_from_elsewhere_goes_to_the_device_of_the_model(model):
    """As latents and images of the CPU, for a model on a GPU."""
    recipe = model.recipe
    encoder = recipe.encoder.build(recipe.image, recipe.latent).to("meta")
    moved = replace(
        model, codes=model.codes.to("meta"), encoder=encoder, decoder=model.decoder.to("meta")
    )
    assert moved.decode(latents(3)).device.type == "meta"
    assert moved.encode(torch.rand(3, 3, 32, 32)).device.type == "meta"


@pytest.mark.parametrize("n", [1, 63, 64, 65])
def test_a_picture_does_not_depend_on_how_many_there_are(model, n):
    most = torch.cat([*sampling.decoded(model, latents(130))])
    fewer = torch.cat([*sampling.decoded(model, latents(130)[:n])])
    assert most.shape == (130, 3, 32, 32)
    assert torch.equal(fewer, most[:n])
    assert torch.allclose(fewer, model.decode(latents(130)[:n]), atol=1e-6)


def test_large_pictures_are_decoded_few_at_once(model, monkeypatch):
    monkeypatch.setattr(sampling, "VALUES", 5 * 3 * 32 * 32)
    chunks = [*sampling.decoded(model, latents(12))]
    assert [len(chunk) for chunk in chunks] == [5, 5, 2]
    whole = torch.cat([*sampling.decoded(model, latents(12))])
    assert torch.equal(torch.cat(chunks), whole)


@pytest.mark.parametrize("n", [0, -3])
def test_no_images_cannot_be_drawn(n):
    with pytest.raises(RecipeError, match=f"n: {n}: give a whole number, at least 1"):
        vgx.sample(n=n)


def test_few_chunks_are_alive_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures.os, "cpu_count", lambda: 2)
    alive, most = weakref.WeakSet(), 0

    def make(number):
        nonlocal most
        chunk = torch.full((4, 3, 8, 8), number / 100)
        alive.add(chunk)
        most = max(most, len(alive))
        return chunk

    chunks = pictures.ahead(make, range(100), 2)
    assert sum(pictures.save_separately(chunks, tmp_path)) == 400
    assert most <= 6  # two at work, three waiting, one being written
    assert len(list(tmp_path.iterdir())) == 400
    with Image.open(tmp_path / "000123.png") as picture:
        assert picture.getpixel((0, 0)) == (round(255 * 0.3),) * 3


def test_a_torch_of_many_threads_stays_one():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        inside = [*pictures.ahead(lambda _: torch.get_num_threads(), range(5), 2)]
        assert inside == [1] * 5
        assert torch.get_num_threads() == 3
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [3]
    finally:
        torch.set_num_threads(before)


def test_work_ahead_comes_in_order_and_its_error_is_raised():
    done = []

    def work(number):
        done.append(number)
        return 100 // (7 - number)

    given = pictures.ahead(work, range(1000), 3)
    assert [next(given) for _ in range(7)] == [100 // (7 - number) for number in range(7)]
    with pytest.raises(ZeroDivisionError):
        next(given)
    assert max(done) < 7 + 5  # the rest was not begun


def test_a_file_that_cannot_be_written_is_named_and_ends_it(tmp_path):
    (tmp_path / "000070.png").mkdir()
    chunks = (torch.zeros(64, 3, 8, 8) for _ in range(100))
    with pytest.raises(StorageError, match=r"000070\.png: is a folder; give the name of a file"):
        list(pictures.save_separately(chunks, tmp_path))
    there = sorted(path.name for path in tmp_path.iterdir())
    assert not [name for name in there if name.startswith(".")]
    assert len(there) < 1000  # it did not go on


def test_what_stops_in_the_middle_leaves_whole_files(tmp_path, monkeypatch):
    """As Ctrl-C does: what is being written then is not there under its name."""
    real = pictures.encode_image

    def png(pixels, ending=".png"):
        if pixels.max() == 255:
            raise KeyboardInterrupt
        return real(pixels)

    monkeypatch.setattr(pictures, "encode_image", png)
    chunks = (torch.full((4, 3, 8, 8), float(number == 3)) for number in range(10))
    with pytest.raises(KeyboardInterrupt):
        list(pictures.save_separately(chunks, tmp_path))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:12] == [f"{number:06}.png" for number in range(12)]
    for name in names:
        with Image.open(tmp_path / name) as picture:
            picture.load()


def test_a_grid_replaces_a_file_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    pictures.save_grid(torch.rand(4, 3, 8, 8), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"grid\.png: disk full: No space left"):
        pictures.save_image(torch.rand(3, 8, 8), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_has_the_pixels(tmp_path, channels):
    image = torch.rand(channels, 9, 9, generator=torch.Generator().manual_seed(0))
    pictures.save_image(image, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        got = torch.tensor(list(picture.tobytes())).view(9, 9, channels).permute(2, 0, 1)
    assert torch.equal(got, (image * 255).round().long())


def test_too_few_codes_are_found_before_the_first_step(capfd):
    tiny = str(ROOT / "recipes" / "tiny.yaml")
    told = ["--set", "train.steps=2", "--set", "sampler.of=17"]  # two steps of eight pictures
    assert run_program(["check", tiny, *told]) == 2
    assert "sampler weighted-mix: of: 17: the run has 16 latents" in capfd.readouterr().err
    assert run_program(["check", tiny, "--set", "train.steps=3", *told[2:]]) == 0


def test_a_check_knows_how_many_codes_a_long_run_has():
    recipe = vgx.load_recipe(ROOT / "recipes" / "tiny.yaml", {"sampler.of": 65})
    batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RecipeError, match="the run has 64 latents"):
        examine(Engine(recipe, 20, codes=64), vgx.discover(), Batch(batch))


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_tiny_recipe_imports_only_what_it_needs(command, tmp_path):
    """PyTorch's compiler alone takes longer than all that the check does."""
    tiny = [str(ROOT / "recipes" / "tiny.yaml"), "--set", "train.steps=1"]
    heavy = "torch._dynamo torch._inductor sympy timm torchvision datasets matplotlib sklearn "
    heavy += "scipy kornia torchmetrics pandas pyarrow"
    program = (
        "import sys\n"
        "from vgx.cli import run_program\n"
        f"code = run_program({[command, *tiny]!r})\n"
        f"found = [name for name in {heavy.split()!r} if name in sys.modules]\n"
        "sys.exit(f'imported {found}' if found else code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, env={**os.environ, "VGX_RUNS": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
