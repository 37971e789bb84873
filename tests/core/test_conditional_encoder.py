"""Labels that the encoder takes too: they go wherever an image is encoded.

The networks of the first tests show what they got: the latent is the label of the image, and the
red channel of an image is the label that it was decoded with.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shows import Shows, ShowsLabels, shown
from torch import nn

import vgx
from vgx.check.examine import examine
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.data.classes import as_labels_of
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.evaluation.features import RealImages
from vgx.evaluation.metrics import measure_reconstructions
from vgx.notebook.given import labels_for
from vgx.runs import exported
from vgx.sampling import draw as sampling
from vgx.second import running
from vgx.training import session as training

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
NAMES = ("bob", "long", "twin tails", "side tail", "short", "buns")
LABELLED = {
    "image.classes": 6, "dataset.label": "hair_style", "train.steps": 4, "discriminator": None,
    "losses": ["l1", "kl"],
    "encoder": {"type": "labelled", "inner": {"type": "conv", "widths": [8, 16]}},
    "decoder": {"type": "labelled", "inner": {"type": "conv-transpose", "widths": [16, 8]}},
}  # fmt: skip


class Tells(nn.Module):
    """Its mean is the label of each image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images, labels):
        mean = self.weight * labels[:, None].float().expand(-1, 8) + 0 * images.mean()
        return vgx.Gaussian(mean, torch.zeros_like(mean))


class TellsLabels(vgx.Encoder, type="tells-labels"):
    """Gives the label of an image as its latent."""

    conditional = True

    def build(self, image, latent):
        return Tells()


def model(**changes):
    recipe = vgx.load_recipe(TINY, {"image.classes": 6, "sampler": "posterior"})
    parts = {"encoder": TellsLabels(), "decoder": ShowsLabels(), **changes}
    recipe = recipe.model_copy(update=parts)
    return vgx.Model(recipe, 0, torch.zeros(0, 8), Tells(), Shows(), None)


class Given:
    """Images of one grey each with labels, as a sampler's own images."""

    fingerprint = "given"
    classes = NAMES

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return Image.new("RGB", (16, 16), (index, 0, 0))

    def label(self, index):
        return (4, 0, 4, 2, 0)[index]


def drawn(source, n=7, label=None):
    part = vgx.discover().part("sampler", "reconstruct")(path=Path("unused"))
    made = model(sampler=part)
    prepared = sampling.prepare(made, source=source, label=label)
    images = torch.cat(list(sampling.draw(made, prepared, n, 0)))
    return tuple(each.round().int().tolist() for each in shown(images))


def test_a_model_never_invents_the_labels_of_images():
    images, labels = torch.rand(3, 3, 16, 16), torch.tensor([5, 0, 3])
    assert model().encode(images, labels)[:, 0].tolist() == [5, 0, 3]
    with pytest.raises(RecipeError, match=r"encoder tells-labels takes labels; give those"):
        model().encode(images)


def test_own_images_are_decoded_with_their_own_labels_in_their_order():
    assert drawn(Given()) == ([4, 0, 4, 2, 0, 4, 0],) * 2


def test_own_images_without_labels_need_a_class():
    class_less = type("ClassLess", (), {k: v for k, v in vars(Given).items() if k != "label"})()
    class_less.fingerprint = "class-less"
    with pytest.raises(RecipeError, match="own images are not known; give one class .*--class"):
        drawn(class_less)
    assert drawn(class_less, 4, label=3) == ([3] * 4,) * 2


def test_one_class_of_own_images_is_chosen_among_them():
    assert drawn(Given(), 3, label=4) == ([4] * 3,) * 2
    with pytest.raises(RecipeError, match="there are fewer of label 5"):
        drawn(Given(), 3, label=5)


class OfOneClass(vgx.Sampler, type="of-one-class"):
    """Its latents of a class are too short."""

    def build(self, latent):
        return self

    def draw(self, n, codes, generator):
        return codes[[0] * n]

    def draw_class(self, label, n, codes, generator):
        assert (label, len(codes)) == (0, 1)  # as few as it needs
        return codes[[0] * n, :3]


def test_a_check_draws_of_a_class_where_the_decoder_takes_labels():
    labelled = {"image.classes": 6, "decoder": LABELLED["decoder"]}
    registry = vgx.Registry((vgx.Plugin("here", "0", "here", (OfOneClass,)),))
    labels = torch.arange(4)

    def examined(changes):
        recipe = vgx.load_recipe(TINY, changes).model_copy(update={"sampler": OfOneClass()})
        batch = Batch(torch.rand(4, 3, 16, 16), labels if recipe.image.classes else None)
        return examine(Engine(recipe, 20), registry, batch)

    with pytest.raises(vgx.PluginError, match=r"latents of a class: shape \(2, 3\), not \(2, 8\)"):
        examined(labelled)
    examined({})  # nothing draws of a class


def test_reconstructions_are_measured_with_the_labels_of_the_images():
    pixels = np.zeros((6, 16, 16, 3), np.uint8)
    labels = np.array([1, 5, 2, 0, 3, 4])
    pixels[..., 0] = ((labels / 10 + 0.05) * 255).round()[:, None, None]
    pixels[..., 1] = ((labels / 100 + 0.5) * 255).round()[:, None, None]
    pixels[..., 2] = 128
    real = RealImages(pixels, np.arange(6), labels, "", "trained on", 6)
    metric = vgx.discover().part("metric", "l1")()
    assert measure_reconstructions(model(), real, [metric])["l1"] < 1e-3


def test_labels_of_another_data_set_are_those_of_classes_of_the_same_names():
    given = as_labels_of([0, 1, 2, 0], ["buns", "bob", "short"], NAMES)
    assert given.tolist() == [5, 0, 4, 5]
    assert as_labels_of([3, 1], (), NAMES).tolist() == [3, 1]
    with pytest.raises(RecipeError, match="no class 'bald'; the 6 classes are bob"):
        as_labels_of([0], ["bald"], NAMES)


def test_labels_that_people_give():
    recipe = model().recipe
    assert labels_for("buns", [None] * 3, recipe, NAMES).tolist() == [5, 5, 5]
    assert labels_for(["buns", 1], [None] * 2, recipe, NAMES).tolist() == [5, 1]
    assert labels_for(None, ["short", "bob"], recipe, NAMES).tolist() == [4, 0]
    with pytest.raises(RecipeError, match=r"class of image 1 is not known: give labels='bob'"):
        labels_for(None, ["short", None], recipe, NAMES)
    with pytest.raises(RecipeError, match="1 for 2 images"):
        labels_for(["bob"], [None] * 2, recipe, NAMES)
    plain = vgx.load_recipe(TINY)
    assert labels_for(None, [None], plain, ()) is None
    with pytest.raises(RecipeError, match="take no labels"):
        labels_for("bob", [None], plain, ())


def test_the_engine_gives_labels_to_the_encoder():
    recipe = vgx.load_recipe(TINY, LABELLED)
    examine(Engine(recipe, 2), vgx.discover(), Batch(torch.rand(4, 3, 16, 16), torch.arange(4)))
    recipe = recipe.model_copy(update={"encoder": TellsLabels()})
    engine = Engine(recipe, 2)
    labels = torch.tensor([0, 1, 2, 3])
    step = engine.forward(Batch(torch.rand(4, 3, 16, 16), labels), 0, engine.streams())
    assert step.posterior.mu[:, 0].tolist() == labels.tolist()


def test_an_encoder_that_takes_labels_needs_some():
    with pytest.raises(RecipeError, match="encoder labelled takes labels: give .*image.classes"):
        vgx.load_recipe(TINY, {"encoder": LABELLED["encoder"]})
    for outer in ("labelled", "deterministic", "vector-quantised"):
        twice = {"type": outer, "inner": LABELLED["encoder"]}
        recipe = vgx.load_recipe(TINY, {**LABELLED, "encoder": twice})
        with pytest.raises(RecipeError, match="inner: 'labelled' takes labels itself"):
            Engine(recipe, 1)


# --- a run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = vgx.load_recipe(TINY, LABELLED)
    folder = tmp_path_factory.mktemp("runs")
    made = training.run(recipe, out=folder / "labelled", console=Console(file=io.StringIO()))
    return vgx.Run(made.path)


@pytest.fixture(scope="module")
def folders(run, tmp_path_factory):
    """Six images of the run's data, each in a folder with the name of its class."""
    root = tmp_path_factory.mktemp("own")
    images = vgx.peek(run.recipe, 40)
    for name in NAMES:
        place = images.classes.index(name)
        (root / name).mkdir()
        Image.fromarray(images.numpy()[place]).save(root / name / "0.png")
    return root


def images_in(folders):
    """[6, 3, 16, 16], [6]  The images in the order of their names, and the run's labels of them."""
    order = sorted(NAMES)
    images = [np.array(Image.open(folders / name / "0.png")) for name in order]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return pixels / 255, torch.tensor([NAMES.index(name) for name in order])


@pytest.mark.slow
def test_a_run_reconstructs_with_the_labels_of_the_data_or_those_that_are_given(run):
    images, net = vgx.peek(run.recipe, 9), run.model()
    labels = torch.tensor([NAMES.index(name) for name in images.classes])
    mean = net.encoder(images.tensor, labels).mean
    wanted = torch.sigmoid(net.decoder(mean, labels))
    for made in (run.reconstruct(images), run.reconstruct(images.tensor, labels=images.classes)):
        torch.testing.assert_close(made.tensor, wanted, atol=1e-5, rtol=1e-5)
    other = run.reconstruct(images, labels="buns").tensor
    assert not torch.allclose(other, wanted, atol=1e-3)
    for given in (labels, labels.numpy()):
        made = run.reconstruct(images.tensor, labels=given).tensor
        torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    buns = np.int64(NAMES.index("buns"))
    assert torch.equal(run.reconstruct(images, labels=buns).tensor, other)
    with pytest.raises(RecipeError, match="class of image 0 is not known"):
        run.reconstruct(images.tensor)


@pytest.mark.slow
def test_an_imported_model_has_the_names_of_the_classes(run, tmp_path, monkeypatch):
    monkeypatch.setattr("vgx_share.exporting._onnx_files", lambda _: {})  # these take long
    # Of some classes too few latents are stored for the images on the card.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vgx.Notice)
        folder = vgx.export(run, tmp_path / "model")
        again = vgx.import_model(folder, out=tmp_path / "runs")
        twice = vgx.export(again, tmp_path / "again")
    named = vgx.sample(again.path, n=2, sampler="prior", label="buns")
    assert torch.equal(named, vgx.sample(folder, n=2, sampler="prior", label="buns"))
    assert [each["name"] for each in exported.about(twice)["classes"]] == [*NAMES]


@pytest.mark.slow
def test_a_mixture_has_the_class_of_its_largest_part(run):
    images, net = vgx.peek(run.recipe, 2).tensor, run.model()
    labels = torch.tensor([1, 5])
    z = net.encoder(images, labels).mean
    wanted = torch.sigmoid(net.decoder(0.3 * z[:1] + 0.7 * z[1:], labels[1:]))
    made = run.mix(images[0], images[1], weights=[0.3, 0.7], labels=["long", "buns"])
    torch.testing.assert_close(made.tensor, wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(RecipeError, match="class of image 0 is not known"):
        run.mix(images[0], images[1])


@pytest.mark.slow
def test_images_of_another_place_are_encoded_with_the_labels_of_the_run(run, folders, tmp_path):
    images, labels = images_in(folders)
    wanted, console = run.model().encoder(images, labels).mean, Console(quiet=True)
    described = f"{{type: image-folder, path: {folders}, label: folder}}"
    assert running.encode(run, described, tmp_path / "out", "cpu", console, best=False) == 6
    latents = vgx.load_latents(tmp_path / "out")
    torch.testing.assert_close(latents[:]["latents"], wanted, atol=1e-5, rtol=1e-5)
    assert latents[:]["labels"].tolist() == labels.tolist()
    assert latents.about["classes"] == [{"name": name, "count": 1} for name in NAMES]
    with pytest.raises(vgx.DataError, match="the data set gives its images no labels"):
        running.encode(run, str(folders), tmp_path / "none", "cpu", console, best=False)
    with pytest.raises(RecipeError, match="DATA: .*no YAML"):
        running.encode(run, described[:-1], tmp_path / "none", "cpu", console, best=False)


@pytest.mark.slow
def test_an_encoder_without_labels_encodes_images_without_labels(folders, tmp_path):
    """Also dark drawings on nothing: the background is that of a training with these images."""
    given = {**LABELLED, "encoder": LABELLED["encoder"]["inner"], "train.steps": 1}
    made = training.run(
        vgx.load_recipe(TINY, given), tmp_path / "runs", console=Console(quiet=True)
    )
    (tmp_path / "drawings").mkdir()
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[4:9, 4:9] = (10, 20, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "drawings" / "0.png")
    place, console = str(tmp_path / "drawings"), Console(quiet=True)
    assert running.encode(made, place, tmp_path / "out", "cpu", console, best=False) == 1
    image = torch.ones(1, 3, 16, 16)
    image[:, :, 4:9, 4:9] = torch.tensor([10, 20, 30]).view(1, 3, 1, 1) / 255
    latents = vgx.load_latents(tmp_path / "out")
    wanted = vgx.load(made).encode(image)
    torch.testing.assert_close(latents[:]["latents"], wanted, atol=1e-5, rtol=1e-5)
    assert {*latents[:]} == {"index", "latents", "deviations"}


@pytest.mark.slow
def test_folders_of_classes_are_sampled_and_evaluated_with_their_labels(run, folders, tmp_path):
    """In the order of their names the classes are others than those of the run."""
    images, labels = images_in(folders)
    net = run.model()
    wanted = torch.sigmoid(net.decoder(net.encoder(images, labels).mean, labels))
    settings = {"path": str(folders), "label": "folder"}
    made = vgx.sample(run, "reconstruct", 6, settings=settings)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    against = vgx.discover().part("dataset", "image-folder")(path=folders, label="folder")
    error = vgx.evaluate(run, ["l1"], against=against, seeds=1, quiet=True)["l1"]
    rounded = (wanted * 255).round() / 255
    assert error == pytest.approx((rounded - images).abs().mean().item(), abs=1e-4)
    plain = vgx.discover().part("dataset", "image-folder")(path=folders)
    with pytest.raises(RecipeError, match="metric l1: the networks take labels, and these images"):
        vgx.evaluate(run, ["l1"], against=plain, seeds=1, quiet=True)
