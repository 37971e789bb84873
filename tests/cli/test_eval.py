"""`vgx eval`, pictures held out, measurements while training, and the best checkpoint."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from unittest import mock

import pytest
import safetensors.torch
import torch
from PIL import Image

import vgx
from vgx.console import Console
from vgx.data.batches import Batches, as_images
from vgx.data.split import held_out
from vgx.data.store import open_store
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.evaluation.features import FeatureCache, real_sets
from vgx.evaluation.metrics import measure_training
from vgx.parts.values import ImageSpec
from vgx.runs import checkpoint
from vgx.runs import directory as rundir
from vgx.training import session
from vgx.training.loop import Training

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def quiet():
    return Console(file=io.StringIO())


def recipe(**changes):
    return vgx.load_recipe(TINY, {"train.steps": 6, "train.save_every": 2, **changes})


def test_a_run_is_judged_with_its_spread(tiny_run):
    program, _, run = tiny_run
    chosen = ("--metrics", "psnr, frechet-distance, {type: prdc, k: 3}", "-n", "48", "--seeds", "2")
    done = program("eval", str(run), *chosen)
    assert done.returncode == 0, done.stderr
    said = json.loads((run / "evaluation.json").read_text())
    assert said["step"] == checkpoint.load(rundir.find(run))[1].numbers["step"]
    assert said["seeds"] == [0, 1]
    drawn = said["generation"][0]
    assert drawn["pictures"] == 48
    names = {"frechet-distance", "precision", "recall", "density", "coverage"}
    assert set(drawn["figures"]) == names
    distance = drawn["figures"]["frechet-distance"]
    assert (distance["better"], distance["features"]) == ("lower", "random-conv")
    one, two = distance["values"]
    assert distance["mean"] == pytest.approx((one + two) / 2)
    # Two seeds: half the difference, times the root of two.
    assert distance["spread"] == pytest.approx(abs(one - two) / 2**0.5)
    assert distance["spread"] > 0
    assert said["reconstruction"]["split"] == "trained on"
    psnr = said["reconstruction"]["figures"]["psnr"]
    counts = [5] * 8 + [4] * 2  # 48 images in ten parts, of each the mean
    whole = sum(n * mean for n, mean in zip(counts, psnr["groups"], strict=True)) / 48
    assert psnr["mean"] == pytest.approx(whole)
    assert (psnr["values"], psnr["spread"] > 0) == ([psnr["mean"]], True)
    assert said["latent"]["dimensions"] == len(said["latent"]["kl_by_dimension"])
    assert said["checkpoint"] == "newest"
    assert "prdc of" not in done.stdout
    for text in (
        "frechet-distance of 48 images a side means little by itself: with fewer than 2,048",
        "48 generated images were compared with 48 of 64 real ones; published distances",
        "nothing was held out",
        "untrained network",
        "psnr (more is better)",
        "\nfrechet-distance [random-conv] (less is better)  ",
        "\nprecision [random-conv] (more is better)  ",
        "against 48 of 64 real ones, trained on",
        "±",
    ):
        assert text in done.stdout
    # Each figure is explained: those of a part by the part, those of latents by vgx.
    explained = done.stdout.partition("What the figures mean:")[2]
    of_tables = re.findall(
        r"^([a-z][\w-]*)(?: \[.*?\])?(?: \(.*?\))?  +[-\d]", done.stdout, re.MULTILINE
    )
    assert {"psnr", "coverage", "prior_gap", "mig"} <= set(of_tables)
    assert [name for name in of_tables if f"\n  {name}: " not in explained] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--metrics", "psnt"), "did you mean 'psnr'"),
        (("--metrics", "[psnr]"), "vgx: --metrics: eval.metrics.0: should be the name of"),
        (
            ("--metrics", "{type: psnr, k: 2}"),
            "vgx: --metrics: eval.metrics.0.k: unknown field; allowed: none",
        ),
        (("--metrics", "{type: prdc, k: 99}", "-n", "50"), "metric prdc: k: 99 is too many"),
        (("--metrics", "ms-ssim, psnr"), "metric ms-ssim: scales: 3 needs 44 pixels a side"),
        (
            ("--metrics", "prdc, {type: prdc, features: {type: random-conv, seed: 1}}"),
            "metrics: 'coverage' occurs twice",
        ),
        (("--sampler", "piror"), "did you mean 'prior'"),
        (
            ("--sampler", "{type: prior, of: 3}"),
            "vgx: --sampler: sampler.of: unknown field; allowed: none",
        ),
        (("--against", "nowhere"), "vgx: --against: dataset: no installed dataset is called"),
        (("--against", "{type: image-folder, pth: x}"), "vgx: --against: dataset.pth: unknown"),
        (("--sampler", "prior", "--sampler", "prior"), "Give each --sampler once."),
        (("--metrics", "psnr, psnr"), "metrics: 'psnr' occurs twice"),
        (("--metrics", "psnr #, fid"), "no YAML"),
    ],
)
def test_what_cannot_be_measured_is_said(tiny_run, vgx_here, arguments, said):
    code, out, err = vgx_here("eval", tiny_run[2], *arguments)
    assert code == 2
    assert said in err
    assert "Evaluating" not in out  # nothing was drawn first


def test_a_sampler_of_given_images_is_refused_before_any_is_reconstructed(tiny_run, vgx_here):
    shown = f"{{type: reconstruct, path: {tiny_run[2] / 'samples'}}}"
    code, out, err = vgx_here("eval", tiny_run[2], "--sampler", "prior", "--sampler", shown)
    assert code == 2
    assert "sampler reconstruct: shows images that it is given; choose another" in err
    assert "Evaluating" not in out


def test_images_of_a_folder_are_compared_with(tiny_run, vgx_here, tmp_path):
    """A folder may be named as it is, whatever YAML would make of its name."""
    folder = tmp_path / "faces #2"
    folder.mkdir()
    for number in range(8):
        level = 30 * number
        Image.new("RGB", (16, 16), (level, level, level)).save(folder / f"{number}.png")
    copy = shutil.copytree(tiny_run[2], tmp_path / "copy")
    words = ("--against", "faces #2", "--metrics", "psnr", "-n", 8, "--seeds", 1)
    code, _, err = vgx_here("eval", copy, *words)
    assert code == 0, err
    results = json.loads((copy / "evaluation.json").read_text())
    assert results["data"]["dataset"]["path"] == "faces #2"


def test_labels_that_the_run_does_not_have_are_refused(tiny_run, vgx_here, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "pets" / name / "0.png")
    pets = "{type: image-folder, path: pets, label: folder}"
    code, _, err = vgx_here("eval", tiny_run[2], "--against", pets)
    assert code == 2
    assert err == (
        "vgx: --against: dataset image-folder: label: folder: there are 2 classes (cat, dog), and "
        "image.classes is 0: its networks take other labels, or none; write this data set without "
        "labels\n"
    )


def test_the_figures_are_those_of_the_pictures(tiny_run):
    """PSNR of the run, worked out from what its model gives."""
    program, _, run = tiny_run
    assert program("eval", str(run), "--metrics", "psnr", "-n", "20").returncode == 0
    said = json.loads((run / "evaluation.json").read_text())
    figure = said["reconstruction"]["figures"]["psnr"]["mean"]
    found = rundir.find(run)
    model = vgx.load(found)
    part = model.recipe.dataset
    store = open_store(part.build(model.recipe.image), model.recipe.image)
    chosen = real_sets(store, 0.0, 20).reconstructed
    ((images, _),) = chosen.batches(torch.device("cpu"))
    recon = (model.decode(model.encode(images)) * 255).round() / 255
    errors = (images - recon).square().mean((1, 2, 3)).double()
    assert figure == pytest.approx((-10 * errors.log10()).mean().item(), abs=1e-4)


OLD = TINY.parents[1] / "tests" / "data" / "run-of-format-1"


def test_only_held_out_images_are_reconstructed(vgx_here, tmp_path):
    """L1 over the images of the split, worked out from what the model gives; not of the others."""
    run = shutil.copytree(OLD, tmp_path / "0001-old")
    with (run / "recipe.yaml").open("a") as file:
        file.write("eval: {holdout: 0.25}\n")
    code, _, err = vgx_here("eval", run, "--metrics", "l1", "--seeds", 1)
    assert code == 0, err
    said = json.loads((run / "evaluation.json").read_text())
    model = vgx.load(run, device="cpu")
    store = open_store(model.recipe.dataset.build(model.recipe.image), model.recipe.image)
    held = held_out(store.hashes, 0.25)
    images = as_images(store.images[:], "cpu")  # [N, C, H, W]
    recon = (model.decode(model.encode(images)) * 255).round() / 255
    errors = (images - recon).abs().mean((1, 2, 3)).double()  # [N]
    for part in ("reconstruction", "latent"):
        assert (said[part]["split"], said[part]["pictures"]) == ("held out", held.sum())
    figure = said["reconstruction"]["figures"]["l1"]["mean"]
    assert figure == pytest.approx(errors[held].mean().item(), abs=1e-6)
    assert figure != pytest.approx(errors[~held].mean().item(), abs=1e-4)
    assert figure != pytest.approx(errors.mean().item(), abs=1e-4)


def test_a_training_measures_on_held_out_images_with_averaged_weights():
    """L1 of the reconstructions, by hand from the networks of the engine."""
    asked = recipe(**{"eval.holdout": 0.25, "eval.every": 1, "eval.metrics": ["l1"]})
    store = open_store(asked.dataset.build(asked.image), asked.image)
    engine = Engine(asked, 6, 48)
    minibatches = Batches(store.images, 8, 0, torch.device("cpu"))
    for number in range(2):
        engine.step(number, [minibatches[number]])
    cache = FeatureCache(asked.image, torch.device("cpu"), on_disk=False)
    found = measure_training(engine, store, 2, cache)["l1"]
    images = as_images(store.images[:], "cpu")  # [N, C, H, W]
    held, errors = held_out(store.hashes, 0.25), {}
    for name, networks in (("averaged", engine.ema.module), ("trained", engine.networks)):
        encoder, decoder = networks["encoder"], networks["decoder"]
        with torch.no_grad(), evaluating([encoder, decoder]):
            recon = decoder(encoder(images).mean).sigmoid()
        errors[name] = (images - (recon * 255).round() / 255).abs().mean((1, 2, 3))  # [N]
    assert found == pytest.approx(errors["averaged"][held].mean().item(), abs=1e-6)
    for others in (errors["averaged"][~held], errors["trained"][held]):
        assert found != pytest.approx(others.mean().item(), abs=1e-5)


def test_no_training_sees_what_is_held_out(monkeypatch):
    seen = set()
    step = Training.step

    def watched(self):
        for number in self.numbers:
            seen.update(self.batches.rows(number).tolist())
        return step(self)

    monkeypatch.setattr(Training, "step", watched)
    said = io.StringIO()
    asked = recipe(**{"eval.holdout": 0.25, "train.steps": 40})
    run = session.run(asked, console=Console(file=said, width=200))
    store = open_store(asked.dataset.build(asked.image), asked.image)
    held = held_out(store.hashes, 0.25)
    assert f"{held.sum():,} held out" in said.getvalue()
    assert run.environment()["data"]["held_out"] == held.sum()
    assert seen == set((~held).nonzero()[0].tolist())


def test_measuring_while_training_changes_no_bit_and_keeps_the_best():
    name = "frechet-distance"
    watching = {"eval.metrics": ["psnr", name], "eval.every": 1, "eval.n": 16, "eval.best": name}
    plain = session.run(recipe(**{"train.keep": 2}), console=quiet())
    measured = session.run(recipe(**{"train.keep": 2}, **watching), console=quiet())
    a, b = (checkpoint.load(run)[1] for run in (plain, measured))
    assert all(torch.equal(a.model[name], b.model[name]) for name in a.model)
    found = {line["step"]: line["metrics"] for line in measured.read_log()}
    assert list(found) == [1, 2, 3, 4, 5, 6]
    first = min(found, key=lambda step: (found[step][name], step))
    kept = sorted(int(path.name[5:]) for path in measured.checkpoints.iterdir())
    assert set(kept) >= {first, 6}
    assert len(kept) <= 3
    assert vgx.load(measured, best=True).step == first


def test_the_best_checkpoint_draws_and_is_judged(vgx_here):
    """More of `l1` is worse: the first step is the best of a run that only unlearns."""
    watching = {"eval.metrics": ["l1"], "eval.every": 1, "eval.n": 16, "eval.best": "l1"}
    worse = {"discriminator": None, "losses": [{"type": "l1", "weight": -1}, "kl"]}
    rates = {"train.optimizers.generator.lr": 0.01, "train.ema": None, "train.keep": 2}
    run = session.run(recipe(**worse, **rates, **watching), console=quiet())
    l1 = {line["step"]: line["metrics"]["l1"] for line in run.read_log()}
    first = min(l1, key=lambda step: (l1[step], step))
    assert first < 5  # and so not among the two newest
    code, out, err = vgx_here("sample", run.path, "--sampler", "prior", "--best", "-n", 4)
    assert code == 0, err
    assert f"prior-{first:08}-seed-0.png" in out
    best = vgx.sample(run, "prior", 4, best=True)
    assert not torch.equal(best, vgx.sample(run, "prior", 4))
    asked = ("--metrics", "l1", "-n", 16, "--seeds", 1)
    for more, step in ((("--best",), first), ((), 6)):
        assert vgx_here("eval", run.path, *asked, *more)[0] == 0
        said = json.loads((run.path / "evaluation.json").read_text())
        assert (said["step"], said["checkpoint"]) == (step, "best" if more else "newest")
        assert said["reconstruction"]["figures"]["l1"]["mean"] == pytest.approx(l1[step])
    (run.checkpoints / f"step-{first:08}" / "model.safetensors").write_bytes(b"no")
    assert vgx_here("sample", run.path, "--best")[0] == 5


def test_a_sampler_learns_once_for_all_seeds(vgx_here):
    run = session.run(recipe(), console=quiet())
    part = vgx.discover().part("sampler", "gaussian-mixture")
    mixture = type(part().build(recipe().latent))
    with mock.patch.object(mixture, "fit", autospec=True, side_effect=mixture.fit) as fit:
        asked = (
            "--sampler",
            "{type: gaussian-mixture, components: 2}",
            "--metrics",
            "kernel-distance",
            "-n",
            16,
            "--seeds",
            3,
        )
        code, _, err = vgx_here("eval", run.path, *asked)
    assert (code, fit.call_count) == (0, 1), err
    figures = json.loads((run.path / "evaluation.json").read_text())["generation"][0]["figures"]
    assert len(set(figures["kernel-distance"]["values"])) == 3


def test_a_run_without_a_best_says_so():
    run = session.run(recipe(), console=quiet())
    with pytest.raises(vgx.errors.RecipeError, match=r"has no eval\.best"):
        vgx.load(run, best=True)


def test_what_real_pictures_look_like_is_kept_and_never_mixed_up():
    asked = recipe()
    store = open_store(asked.dataset.build(asked.image), asked.image)
    registry = vgx.discover()
    one, two = (registry.part("features", "random-conv")(seed=seed) for seed in (0, 1))
    few, more = (real_sets(store, 0.0, n).reconstructed for n in (8, 9))
    cache = FeatureCache(asked.image, torch.device("cpu"))
    addresses = {cache.address(part, real) for part in (one, two) for real in (few, more)}
    wider = ImageSpec(32)
    larger = real_sets(open_store(asked.dataset.build(wider), wider), 0.0, 8).reconstructed
    addresses.add(FeatureCache(wider, torch.device("cpu")).address(one, larger))
    newer = FeatureCache(asked.image, torch.device("cpu"), lambda _: "2.0")
    addresses.add(newer.address(one, few))
    assert len(addresses) == 6
    done = []
    first = cache.real_features(one, few, done.append)
    # Another cache reads the file, and builds only the network that the address depends on.
    other = FeatureCache(asked.image, torch.device("cpu"))
    other.features = None
    assert torch.equal(other.real_features(one, few, done.append), first)
    assert done == [8, 8]


def test_damaged_features_are_noticed_and_computed_again(monkeypatch):
    asked = recipe()
    store = open_store(asked.dataset.build(asked.image), asked.image)
    part = vgx.discover().part("features", "random-conv")()
    few, more = (real_sets(store, 0.0, n).reconstructed for n in (8, 9))

    def features(real):
        return FeatureCache(asked.image, torch.device("cpu")).real_features(part, real)

    first = features(few)
    (file,) = (vgx.cache_dir() / "features").iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-7] ^= 1  # the last bit of a number: the file can be read
    features(more)
    (other,) = {*file.parent.iterdir()} - {file}
    plain = safetensors.torch.save({"features": first})  # as earlier versions wrote it
    for data in (bytes(flipped), whole[:-4], other.read_bytes(), plain):
        file.write_bytes(data)
        with pytest.warns(vgx.Notice, match=f"features .* are computed again: .*{file.name}"):
            assert torch.equal(features(few), first)
        assert file.read_bytes() == whole
    shutil.rmtree(file.parent)
    file.parent.write_text("in the way")  # of a folder, as in a cache that cannot be written
    with pytest.warns(vgx.Notice, match="Not a directory"):
        assert torch.equal(features(few), first)


def test_the_weights_of_a_feature_network_are_hashed_once():
    """Not at each measurement while training: those of Inception are 95 MB."""
    asked = recipe()
    store = open_store(asked.dataset.build(asked.image), asked.image)
    part = vgx.discover().part("features", "random-conv")()
    cache = FeatureCache(asked.image, torch.device("cpu"), on_disk=False)
    network = cache.network(part)
    with mock.patch.object(network, "state_dict", wraps=network.state_dict) as hashed:
        for n in (8, 8, 9):
            cache.real_features(part, real_sets(store, 0.0, n).reference)
    assert hashed.call_count == 1


@pytest.mark.parametrize("metrics", ["psnr", "prdc", "psnr, frechet-distance"])
def test_the_progress_ends_at_its_total(tiny_run, vgx_here, metrics):
    """Also without metrics of reconstructions, or without metrics of samples."""
    asked = ("--metrics", metrics, "-n", 20, "--seeds", 2)
    code, out, err = vgx_here("eval", tiny_run[2], *asked)
    assert code == 0, err
    assert re.search(r"^Evaluating ([\d,]+)/\1 images", out, re.MULTILINE)


# --- what the images do not allow ----------------------------------------------------------------


FEW = {"train.batch": 1, "train.steps": 2, "train.save_every": 2, "sampler": {"type": "prior"}}


MANY = {"dataset.count": 64}
SHOWN = {"type": "reconstruct", "path": "."}


def of_few(count):
    return session.run(recipe(**FEW | {"dataset.count": count}), console=quiet())


def test_what_few_images_do_not_allow_is_left_out_before_any_is_drawn(vgx_here):
    """Five images: prdc needs six. All else is computed, and no figure is not a number."""
    run = of_few(5)
    code, out, err = vgx_here("eval", run.path, "-n", 40, "--seeds", 1)
    assert (code, err) == (0, "")
    for left in (
        "Left out: metric prdc: k: 5 is too many for 5 real and 40 generated images",
        "Left out: metric fid: it is computed when --metrics names it",
    ):
        assert left in out.partition("Evaluating")[0]
    said = json.loads((run.path / "evaluation.json").read_text())
    assert {*said["generation"][0]["figures"]} == {
        "frechet-distance", "kernel-distance", "path-length",
    }  # fmt: skip
    assert "NaN" not in (run.path / "evaluation.json").read_text()
    assert {metric["type"] for metric in said["metrics"]} >= {"frechet-distance", "psnr"}


def test_a_single_image_can_be_evaluated(vgx_here):
    run = of_few(1)
    code, out, err = vgx_here("eval", run.path, "-n", 2, "--seeds", 1)
    assert (code, err) == (0, "")
    assert "Left out: metric frechet-distance: it needs two images of each side" in out
    said = json.loads((run.path / "evaluation.json").read_text())
    assert {*said["generation"][0]["figures"]} == {"path-length"}  # it compares nothing
    assert {*said["latent"]["figures"]} == {"kl", "prior_gap"}
    assert "NaN" not in (run.path / "evaluation.json").read_text()


def test_weights_that_cannot_be_had_are_told_before_any_image_is_reconstructed(
    tiny_run, vgx_here, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, out, err = vgx_here("eval", tiny_run[2], "--metrics", "psnr, fid", "-n", 20)
    assert code == 8
    assert "its weights are not cached" in err
    assert "the metrics frechet-distance and kernel-distance need no weights" in err
    assert "Evaluating" not in out


def test_what_few_images_do_not_allow_is_an_error_when_it_was_named(vgx_here):
    run = of_few(5)
    with mock.patch("vgx.evaluation.evaluate.load_model") as loaded:
        code, _, err = vgx_here("eval", run.path, "--metrics", "psnr, prdc", "-n", 40)
    assert (code, loaded.call_count) == (2, 0)
    assert "metric prdc: k: 5 is too many for 5 real and 40 generated images" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"eval.metrics": ["ssim"], "image.size": 8},
            "a window has 11 pixels a side, an image 8",
        ),
        (
            {"eval.metrics": ["prdc"], "eval.n": 5, **MANY},
            "k: 5 is too many for 5 real and 5 generated",
        ),
        ({"eval.metrics": ["prdc"]}, "k: 5 is too many for 4 real and 256 generated images"),
        ({"eval.metrics": ["prdc"], "sampler": SHOWN, **MANY}, "another sampler to evaluate"),
    ],
)
def test_a_training_does_not_begin_with_metrics_that_it_cannot_compute(changes, message):
    """They are not decoded for it: how many there are at most is known before."""
    asked = recipe(**{"train.batch": 1, "dataset.count": 4, "eval.every": 1, **changes})
    with (
        mock.patch("vgx.data.store.decode_all") as decoding,
        pytest.raises(vgx.errors.RecipeError, match=message),
    ):
        session.run(asked, console=quiet())
    assert decoding.call_count == 0
    assert rundir.every() == []
    with pytest.raises(vgx.errors.RecipeError, match=message.replace("256", ".*")):
        session.check(asked, vgx.discover(), None, quiet())


def test_what_the_run_lacks_is_told_before_its_images_are_decoded_again(vgx_here, tmp_path):
    run = of_few(20)
    shutil.rmtree(tmp_path / "cache")
    with mock.patch("vgx.data.store.decode_all") as decoding:
        code, _, err = vgx_here("eval", run.path, "--best", "-n", 16)
    assert (code, decoding.call_count) == (2, 0)
    assert "the recipe has no eval.best" in err


def test_no_sampler_draws_before_all_are_ready(vgx_here):
    run, ready = of_few(20), []

    def prepare(model):
        ready.append(model.recipe.sampler.type)
        if len(ready) == 2:
            raise vgx.errors.RecipeError("the second sampler lacks something")

    with (
        mock.patch("vgx.evaluation.evaluate.prepare", prepare),
        mock.patch("vgx.evaluation.evaluate.draw") as drawing,
    ):
        more = ["--sampler", "prior", "--sampler", "interpolate", "--metrics", "prdc", "-n", 16]
        code, _, err = vgx_here("eval", run.path, *more)
    assert (code, drawing.call_count, ready) == (2, 0, ["prior", "interpolate"])
    assert "the second sampler lacks something" in err


def test_a_resumed_training_is_checked_too():
    """`eval.n` may change on a resume."""
    watching = {"eval.metrics": ["prdc"], "eval.every": 2, "eval.n": 16}
    run = session.run(recipe(**watching), console=quiet())
    longer = recipe(**watching | {"train.steps": 8, "eval.n": 5})
    with pytest.raises(vgx.errors.RecipeError, match="k: 5 is too many for 5 real and 5 generated"):
        session.resume(run, longer, console=quiet())
    assert run.read_log()[-1]["step"] == 6
