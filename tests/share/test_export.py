"""An exported folder: which files, what is in them, and what is never in them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load, load_file, save

import vgx
from vgx.cli import run_program
from vgx.errors import StorageError
from vgx.runs import checkpoint, exported, reading
from vgx.runs.directory import Run
from vgx.runs.summary import summarize
from vgx.sampling.model import Model
from vgx_share import card, exporting

OLD = Path(__file__).parents[1] / "data" / "run-of-format-1"  # a VAE-GAN of 8 pixels
ALWAYS = {"README.md", "model.safetensors", "recipe.yaml", "samples.webp", "vgx.json"}


@pytest.fixture(autouse=True)
def _without_onnx(monkeypatch):
    """As without the extra: the files of ONNX are tested in test_onnx.py."""
    monkeypatch.setattr(exporting.onnx, "_LIBRARIES", ("no_such_library",))


@pytest.fixture
def run(tmp_path):
    """A run of somebody in whose paths are names that nobody else should read."""
    path = tmp_path / "home" / "secretuser" / "runs" / "0001-old"
    shutil.copytree(OLD, path)
    environment = json.loads((path / "environment.json").read_text())
    environment["folder"] = str(path.parent)
    environment["plugins"][0]["failure"] = f"{path.parent}/x.py: broken"
    (path / "environment.json").write_text(json.dumps(environment))
    return Run(path)


def export(run, folder, **wishes):
    with pytest.warns(vgx.Notice, match="no ONNX files"):
        return vgx.export(run, folder, **wishes)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def with_recipe(run, *changes):
    text = run.recipe_file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    run.recipe_file.write_text(text)


def test_the_folder_has_these_files_and_gives_the_same_bits(run, tmp_path):
    folder = export(run, tmp_path / "out" / "faces")
    assert files(folder) == ALWAYS
    trained, loaded = vgx.load(run), vgx.load(folder)
    z, images = torch.randn(5, 4), torch.rand(5, 3, 8, 8)
    assert torch.equal(loaded.decode(z), trained.decode(z))
    assert torch.equal(loaded.encode(images), trained.encode(images))
    assert (loaded.step, loaded.discriminator, len(loaded.codes)) == (4, None, 0)
    about = json.loads((folder / "vgx.json").read_text())
    assert about["files"] == {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in sorted(ALWAYS - {"vgx.json"})
    }
    assert about["images"] == {"channels": 3, "height": 8, "width": 8, "range": [0.0, 1.0]}
    assert about["plugins"] == [{"name": "builtin", "version": "0.1.0.dev0"}]
    names = load_file(folder / "model.safetensors")
    assert {name.partition(".")[0] for name in names} == {"encoder", "decoder"}


def test_what_is_asked_for_is_added(run, tmp_path):
    folder = export(run, tmp_path / "out", codes=True, discriminator=True)
    assert files(folder) == ALWAYS | {"codes.safetensors"}
    loaded = vgx.load(folder)
    assert loaded.discriminator is not None
    assert torch.equal(loaded.codes, vgx.load(run).codes)
    assert torch.equal(vgx.sample(folder, n=6), vgx.sample(run, n=6))
    assert "derived from the training images" in " ".join(
        (folder / "README.md").read_text().split()
    )
    without = export(run, tmp_path / "without")
    expected = r"sampler weighted-mix: .*exported without its stored latents \(vgx export --codes\)"
    with pytest.raises(vgx.RecipeError, match=expected):
        vgx.sample(without)
    assert vgx.sample(without, "prior", n=2).shape == (2, 3, 8, 8)
    assert files(without) == ALWAYS  # nothing was written by drawing


@pytest.mark.parametrize(("words", "wish"), [
    ("", {}), ("--codes", {"codes": True}), ("--discriminator", {"discriminator": True}),
    ("--explorer", {"explorer": True}), ("--license mit", {"license": "mit"}),
    ("--base-model a/b", {"base_model": "a/b"}), ("--best", {"best": True}),
])  # fmt: skip
def test_each_option_of_the_command_asks_for_its_own(run, tmp_path, monkeypatch, words, wish):
    def recorded(run, folder, wishes, *, best):
        folder.mkdir()
        asked.append((wishes, best))

    asked = []
    monkeypatch.setattr(exporting, "write_folder", recorded)
    assert run_program(["export", str(run.path), str(tmp_path / "out"), *words.split()]) == 0
    given = {**wish}
    best = given.pop("best", False)
    assert asked == [(exporting.Wishes(**given), best)]


def test_the_page_to_play_with_is_asked_for(run, tmp_path, monkeypatch):
    import vgx_explore

    def page(run, out, best):
        assert vgx.load(run).step == 4
        asked.append(best)
        out.write_text("<!doctype html>")
        return out

    asked = []
    monkeypatch.setattr(vgx_explore, "explore", page)
    folder = export(run, tmp_path / "out", explorer=True)
    exporting._explorer(run, best=True)
    assert asked == [False, True]
    assert files(folder) == ALWAYS | {"explorer/index.html"}
    assert vgx.load(folder).step == 4


def test_the_statistics_of_the_latents(tmp_path):
    """Worked out by numpy: over the places by channel, and over all."""
    codes = torch.randn(6, 2, 3, 3) * torch.tensor([1.0, 4.0]).view(2, 1, 1) + 7
    model = Model(None, 0, codes, None, None, None)
    found = exporting.latent_statistics(Run(tmp_path), model)
    numbers = codes.double().numpy().transpose(1, 0, 2, 3).reshape(2, -1)
    assert found["mean"] == pytest.approx(numbers.mean(1).tolist())
    assert found["std"] == pytest.approx(numbers.std(1).tolist())
    assert found["scaling_factor"] == pytest.approx(1 / numbers.std())


def card_of(folder):
    """The text of the card, and what its code makes."""
    text = (folder / "README.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    names = {}
    exec(code.replace("OWNER/NAME", str(folder)), names)
    return " ".join(text.split()), names


def test_a_strangers_latents_that_no_machine_could_count_are_refused(run, tmp_path):
    folder = export(run, tmp_path / "model")
    about = json.loads((folder / "vgx.json").read_text())
    about["latents"]["shape"] = [9_999_999] * 3
    (folder / "vgx.json").write_text(json.dumps(about))
    with pytest.raises(StorageError, match="vgx.json: latents.shape"):
        exported.load(folder)


def test_the_card_names_every_network(run):
    """As those of several discriminators, and one that takes two inputs."""
    row = {"part": "pair-conv", "shapes": "3x16x16, 8 -> 1", "parameters": 5, "trained": 5}
    rows = [{"network": "discriminator of-pairs", **row}, {"network": "a|b", **row}]
    (run.path / "audit.json").write_text(json.dumps({"rows": rows}))
    text = card._audit(run, vgx.load_recipe(run.path / "recipe.yaml"))
    assert "| discriminator of-pairs | pair-conv | 3x16x16, 8 -> 1 | 5 |" in text
    assert "| ? | pair-conv |" in text  # a stranger's file


def test_a_folder_whose_name_is_no_text_becomes_a_run_that_can_be_read(run, tmp_path):
    folder = export(run, tmp_path / "out").rename(tmp_path / os.fsdecode(b"mod\xe8le"))
    made = vgx.import_model(folder, out=tmp_path / "runs")
    about = reading.environment(made.path)
    assert about["notices"] == ["imported from mod?le"]
    assert summarize(made).state == "done"


def test_the_code_of_the_card_draws_what_the_card_says(run, tmp_path):
    folder = export(run, tmp_path / "out")
    text, made = card_of(folder)
    assert "These images are drawn by the recipe's sampler `weighted-mix`." in text
    assert "sampler `weighted-mix` needs latents that are not in this folder" in text
    codes = vgx.load(run).codes.double().numpy()
    model, noise = made["model"], made["noise"]
    z = model.latent_mean.numpy() + model.latent_std.numpy() * noise.numpy()
    assert np.allclose(model.latent_mean, codes.mean(0), atol=1e-6)
    assert np.allclose(model.latent_std, codes.std(0), atol=1e-6)
    assert torch.equal(made["images"], model.decode(torch.from_numpy(z).float()))
    assert made["images"].shape == made["again"].shape == (16, 3, 8, 8)

    text, made = card_of(export(run, tmp_path / "whole", codes=True))
    assert "The images are drawn by the recipe's sampler `weighted-mix`." in text
    assert torch.equal(made["images"], vgx.sample(run, n=16))
    assert torch.equal(made["model"].latent_mean, vgx.load(run).latent_mean)

    own = "{type: weighted-mix, of: 3, concentration: 1.0, anchors: shared}"
    with_recipe(run, (own, "posterior"))  # whose images are reconstructions of training images
    text, _ = card_of(export(run, tmp_path / "posterior"))
    assert "These images are drawn from the Gaussian with the mean and the deviation" in text

    # A prior that is not trained yet draws nothing.
    with_recipe(run, ("sampler: posterior", "sampler: learned-prior\nprior: rectified-flow"))
    text, made = card_of(export(run, tmp_path / "untrained"))
    assert "sampler `learned-prior` needs a trained prior, which is not in this folder" in text
    assert made["images"].shape == (16, 3, 8, 8)

    again = vgx.import_model(folder, ["sampler=prior"])
    text, made = card_of(export(again, tmp_path / "again"))
    assert "The images are drawn by the recipe's sampler `prior`." in text
    assert np.allclose(made["model"].latent_std, codes.std(0), atol=1e-6)  # it came with them


@pytest.mark.parametrize(
    "scale", [{"mean": "x" * 9}, {"std": [float("inf")]}, {"scaling_factor": [1.0]}]
)
def test_a_scale_that_is_none_is_refused(scale):
    """A stranger's run may say anything."""
    with pytest.raises(StorageError, match="mean and deviation of the latents"):
        exported.scale_of(scale)


def test_no_file_names_a_path_a_host_or_a_user(run, tmp_path, monkeypatch):
    """All bytes of all files are searched; the recipe stays one that can be read."""
    monkeypatch.setattr(platform, "node", lambda: "secrethost")
    monkeypatch.chdir(run.path.parent)
    (run.path.parent / "my" / "faces").mkdir(parents=True)
    secret, other = run.path.parent / "secretfaces", "{type: huggingface, path: my/faces}"
    with_recipe(
        run,
        ("{type: drawn-faces, count: 64, seed: 0, label: null}",
         f"{{type: huggingface, path: {secret}, fallback: {other}}}"),
        ("sampler: {type: weighted-mix, of: 3, concentration: 1.0, anchors: shared}",
         f"sampler: {{type: reconstruct, path: {secret}}}"),
        ("allow: []", "trackers: [{type: tensorboard}]"),
    )  # fmt: skip
    paths = (
        f"{secret}/w", "secretfaces/w", "[/secretfaces]", "<../secretfaces>", "{~/secretfaces}",
        "a:./secretfaces", "b=secretfaces/", "C:\\secretfaces", "~secretuser",
    )  # fmt: skip
    notes = [f"timm: weights from {path}." for path in paths]
    (run.path / "audit.json").write_text(json.dumps({"notes": [*notes, "A grid of 6x6 patches."]}))
    folder = export(run, tmp_path / "out", codes=True)
    words = ("secret", str(tmp_path), str(Path.home()) + "/", os.sep + "runs", "my/faces")
    for file in files(folder):
        data = (folder / file).read_bytes()
        assert [word for word in words if word.encode() in data] == [], file
    recipe = vgx.load_recipe(folder / "recipe.yaml")
    assert recipe.dataset.path == recipe.dataset.fallback.path == "left-out"
    assert (str(recipe.sampler.path), recipe.trackers) == ("left-out", ())
    card = (folder / "README.md").read_text()
    assert "A grid of 6x6 patches." in card
    assert "datasets:" not in card


def test_the_name_of_a_data_set_of_the_hub_stays(run, tmp_path):
    with_recipe(
        run, ("{type: drawn-faces, count: 64, seed: 0, label: null}",
              "{type: huggingface, path: somebody/faces}"),
    )  # fmt: skip
    folder = export(run, tmp_path / "out")
    assert ModelCard.load(folder / "README.md").data.datasets == ["somebody/faces"]
    assert vgx.load_recipe(folder / "recipe.yaml").dataset.path == "somebody/faces"


@pytest.mark.parametrize(("commit", "path"), [("", "left-out"), ("0a1b2c", "my/faces")])
def test_a_folder_that_is_gone_is_not_taken_for_a_name_on_the_hub(run, tmp_path, commit, path):
    """A stream of the hub has a commit, and a stream of a local folder has none."""
    with_recipe(
        run, ("{type: drawn-faces, count: 64, seed: 0, label: null}",
              "{type: huggingface, path: my/faces, stream: true}"),
    )  # fmt: skip
    environment = json.loads((run.path / "environment.json").read_text())
    environment["data"] |= {"streamed": True, "revision": commit}
    (run.path / "environment.json").write_text(json.dumps(environment))
    folder = export(run, tmp_path / "out")
    assert vgx.load_recipe(folder / "recipe.yaml").dataset.path == path
    named = ModelCard.load(folder / "README.md").data.datasets
    assert named == (["my/faces"] if commit else None)


@pytest.mark.parametrize("sampler", ["posterior", "{type: weighted-mix, of: 1}", "interpolate"])
def test_the_images_are_drawn_and_are_no_training_images(run, tmp_path, sampler, monkeypatch):
    """A stored latent, decoded, is the reconstruction of a training image."""
    own = "{type: weighted-mix, of: 3, concentration: 1.0, anchors: shared}"
    with_recipe(run, (own, sampler))
    drawn, decoded = [], exporting.decoded

    def spy(model, z, *others):
        drawn.append(z)
        return decoded(model, z, *others)

    monkeypatch.setattr(exporting, "decoded", spy)
    folder = export(run, tmp_path / "out")
    (z,) = drawn
    codes = vgx.load(run).codes
    assert z.shape == (64, 4)
    assert torch.cdist(z, codes).min() > 0.05 * torch.cdist(codes, codes).median() / 2
    with Image.open(folder / "samples.webp") as image:
        assert image.format == "WEBP"
        assert min(image.size) >= 64


def test_a_sampler_that_cannot_draw_does_not_stop_an_export(run, tmp_path, monkeypatch):
    def refusing(*_):
        raise vgx.RecipeError("fewer stored latents than dimensions")

    drawn = exporting._samples(vgx.load(run, "cpu"), {})[0]
    monkeypatch.setattr(exporting, "prepare", refusing)
    folder = export(run, tmp_path / "out")
    with Image.open(folder / "samples.webp") as image, Image.open(io.BytesIO(drawn)) as mixed:
        assert image.size == mixed.size
        assert image.tobytes() != mixed.tobytes()


def test_a_file_of_labels_is_left_out_like_a_path(run):
    (run.path.parent / "secret.csv").touch()
    data = {"type": "image-folder", "path": "faces", "labels": {"file": "secret.csv"}}
    recipe = vgx.load_recipe(run.recipe_file, {"dataset": data, "image.classes": 2})
    assert recipe.dataset.labels.file == "secret.csv"
    assert exporting.without_paths(recipe, run).dataset.labels.file == "left-out"
    data["labels"] = {"file": "in/secret.csv"}  # in the folder of the images
    recipe = vgx.load_recipe(run.recipe_file, {"dataset": data, "image.classes": 2})
    assert exporting.without_paths(recipe, run).dataset.labels.file == "left-out"


@pytest.mark.parametrize(
    ("path", "hub"),
    [
        ("somebody/faces", True),
        ("https://huggingface.co/datasets/somebody/faces", True),
        ("huggingface.co/datasets/somebody/faces", True),
        ("hf://datasets/somebody/faces", True),
        ("secret/somebody/faces", False),
        ("somebody/faces/", False),
    ],
)
def test_only_what_can_be_a_name_on_the_hub_stays(run, path, hub):
    """Whether the folder is still there or not."""
    recipe = vgx.load_recipe(run.recipe_file, {"dataset": {"type": "huggingface", "path": path}})
    assert exporting.without_paths(recipe, run).dataset.path == (path if hub else "left-out")


def test_the_card_is_read_by_the_hubs_library(run, tmp_path):
    figure = {"mean": 21.5, "features": None, "better": "higher"}
    odd = {"mean": float("nan"), "better": None}
    evaluation = {
        "format": 3, "step": 4, "seeds": [0, 1, 2],
        "reconstruction": {"pictures": 32, "split": "held out", "figures": {"psnr": figure}},
        "generation": [{
            "sampler": {"type": "weighted-mix"}, "pictures": 64, "real": 60, "split": "trained on",
            "figures": {"frechet-distance": {"mean": 3.0, "features": "random-conv"}, "x y": odd},
        }],
    }  # fmt: skip
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    audit = {"notes": ["The KL's effective beta is 0.0099: weight 1."]}
    (run.path / "audit.json").write_text(json.dumps(audit))
    folder = export(run, tmp_path / "out", license="cc-by-4.0", base_model="a/b")
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "vgx"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert (card.data.license, card.data.base_model) == ("cc-by-4.0", "a/b")
    psnr, frechet = card.data.eval_results
    assert (psnr.metric_type, psnr.metric_value) == ("psnr", 21.5)
    assert psnr.metric_name == "psnr, reconstruction, held out, 32 images"
    assert frechet.metric_name == (
        "frechet-distance [random-conv], generation, weighted-mix, trained on, "
        "64 drawn against 60 real images, mean of 3 seeds"
    )
    assert "effective beta is 0.0099" in card.text
    assert 'vgx.load("OWNER/NAME")' in card.text
    for part in (evaluation["reconstruction"], *evaluation["generation"]):
        part["split"] = "of another data set"  # vgx eval --against
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    against = ModelCard.load(export(run, tmp_path / "against") / "README.md")
    assert against.data.eval_results is None
    assert "| reconstruction | psnr | - | 21.5 | of another data set: 32 images |" in against.text
    evaluation["step"] = 2  # of another checkpoint
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    other = ModelCard.load(export(run, tmp_path / "other") / "README.md")
    assert (other.data.license, other.data.eval_results) == (None, None)


def test_what_a_card_cannot_name_is_refused(run, tmp_path):
    for wish in ({"license": "mit\nfoo: bar"}, {"base_model": "../x"}):
        with pytest.raises(vgx.RecipeError, match="give a"):
            vgx.export(run, tmp_path / "out", **wish)


def test_nothing_is_written_over(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "link").symlink_to(tmp_path / "full")
    for name in ("full", "link"):
        with pytest.raises(vgx.StorageError, match="not an empty folder"):
            vgx.export(run, tmp_path / name)
    with_recipe(run, ("type: conv-transpose", "type: dcgan"))  # other weights than the run has
    before = sorted(tmp_path.iterdir())
    with pytest.raises(vgx.StorageError, match="does not fit"):
        vgx.export(run, tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == before


# --- strangers' folders --------------------------------------------------------------------------


@pytest.fixture
def folder(run, tmp_path):
    return export(run, tmp_path / "out", codes=True)


def change(folder, edit):
    about = json.loads((folder / "vgx.json").read_text())
    edit(about)
    (folder / "vgx.json").write_text(json.dumps(about))


def replace(folder, name, data):
    """Put other bytes in place of a file, with the right sum."""
    (folder / name).write_bytes(data)
    sums = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    change(folder, lambda about: about["files"].update({name: sums}))


def large(about):
    about["files"]["model.safetensors"]["bytes"] = 2**50


EDITS = {
    "names a file outside": lambda about: about["files"].update(
        {"../evil": {"bytes": 1, "sha256": ""}}
    ),
    "names a program": lambda about: about["files"].update(
        {"plugins/x.py": {"bytes": 1, "sha256": ""}}
    ),
    "claims a petabyte": large,
    "is newer": lambda about: about.update(format=9),
    "has no model": lambda about: about["files"].pop("model.safetensors"),
    "has latents of another shape": lambda about: about["latents"].update(shape=[0]),
    "has numbers for lists": lambda about: about.update(files=1),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=list(EDITS))
def test_a_list_of_files_that_is_not_as_written_is_refused(folder, edit):
    change(folder, edit)
    with pytest.raises(vgx.StorageError, match=r"vgx\.json|at most"):
        vgx.load(folder)
    with pytest.raises(vgx.StorageError, match=r"vgx\.json|at most"):
        vgx.import_model(folder)
    assert not Path(os.environ["VGX_RUNS"]).exists()


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.yaml", "codes.safetensors"])
@pytest.mark.parametrize("how", ["a byte", "a pipe", "nothing"])
def test_a_file_that_is_not_as_written_is_refused(folder, name, how):
    file = folder / name
    data = bytearray(file.read_bytes())
    file.unlink()
    if how == "a byte":
        data[6] ^= 1  # the recipe stays one: it has another name
        file.write_bytes(data)
    elif how == "a pipe":
        os.mkfifo(file)
    with pytest.raises(vgx.StorageError, match=str(folder)):
        vgx.load(folder)


def test_a_tensor_beside_the_latents_is_left_out(folder):
    stored = (folder / "codes.safetensors").read_bytes()
    codes = load(stored)
    replace(folder, "codes.safetensors", save({**codes, "other": torch.zeros(1)}))
    assert torch.equal(vgx.load(folder).codes, codes["codes"])


def test_a_pickle_is_never_read(folder):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(folder / "executed"),)

    file = io.BytesIO()
    torch.save({"decoder.weight": Evil()}, file)
    replace(folder, "model.safetensors", file.getvalue())
    with pytest.raises(vgx.StorageError, match=r"model\.safetensors"):
        vgx.load(folder)
    assert not (folder / "executed").exists()


def test_programs_beside_a_model_are_not_executed(folder):
    """Such as a run may have: they are refused before anything is loaded."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "x.py").write_text(f"open({str(folder / 'executed')!r}, 'w')")
    (folder / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(vgx.PluginError, match="not trusted"):
        vgx.load(folder)
    assert not (folder / "executed").exists()


# --- back into a run -----------------------------------------------------------------------------


def test_an_exported_folder_becomes_a_run(folder, run, tmp_path):
    again = vgx.import_model(folder, data=None, out=tmp_path / "runs")
    assert again.path == tmp_path / "runs" / "0001-old"
    trained, loaded = vgx.load(run), vgx.load(again)
    assert torch.equal(vgx.sample(again, n=4), vgx.sample(run, n=4))
    for name in ("encoder", "decoder"):
        ours, theirs = getattr(loaded, name).state_dict(), getattr(trained, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    (path,) = checkpoint.committed(again)
    assert path.name == "step-00000004"
    from vgx.training.session import resume

    for model in (again, folder):
        with pytest.raises(
            vgx.RecipeError, match=r"begin a new run from its weights \(start\.run\)"
        ):
            resume(model)


def test_the_scale_of_the_latents_survives_the_way_through_a_run(run, tmp_path):
    without = export(run, tmp_path / "without")
    scale = exported.about(without)["latents"]
    assert len(scale["mean"]) == 4
    again = export(vgx.import_model(without, out=tmp_path / "runs"), tmp_path / "again")
    assert exported.about(again)["latents"] == scale
    assert exported.about(export(without, tmp_path / "third"))["latents"] == scale


def test_weights_that_do_not_fit_make_no_run(folder, tmp_path):
    data = (folder / "recipe.yaml").read_text().replace("widths: [8, 4]", "widths: [8, 6]")
    replace(folder, "recipe.yaml", data.encode())
    with pytest.raises(vgx.StorageError, match="does not fit the decoder"):
        vgx.import_model(folder, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(vgx.StorageError, match=r"no model: it has neither vgx\.json"):
        vgx.import_model(tmp_path)
