"""Figures of images and latents: what they show is what the run's networks compute."""

from __future__ import annotations

import io
import itertools
import re
import shutil

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from sklearn.decomposition import PCA
from torch.distributions import Normal, kl_divergence

import vgx
from vgx.cli import run_program
from vgx.console import Console
from vgx.data.store import Store
from vgx.training import session
from vgx_figures import grids, latents, plot
from vgx_figures.trained import opened, trained_rows

SMALL = {
    "discriminator": None, "losses": [{"type": "bce"}, {"type": "kl"}], "image.size": 16,
    "dataset.count": 60, "train.steps": 8, "train.draw_every": 100,
}  # fmt: skip
LABELS = {
    "name": "classes", "dataset.label": "hair_style", "image.classes": 6,
    "decoder": {"type": "labelled", "inner": {"type": "conv-transpose", "widths": [16, 8]}},
}  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(autouse=True)
def _its_cache(folder, monkeypatch):
    monkeypatch.setenv("VGX_CACHE", str(folder / "cache"))


def trained(folder, changes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        recipe = vgx.load_recipe("tiny", SMALL | changes)
        return session.run(recipe, folder / "runs", console=Console(io.StringIO()))


@pytest.fixture(scope="module")
def runs(folder):
    """Two runs that differ in their seed."""
    return [trained(folder, {"train.seed": seed}) for seed in (0, 1)]


@pytest.fixture(scope="module")
def labelled(folder):
    return trained(folder, LABELS)


@pytest.fixture
def faces(tmp_path):
    """A folder of three flat images, and their values [3, 3, 16, 16]."""
    values = [(255, 0, 0), (0, 255, 0), (10, 20, 30)]
    place = tmp_path / "faces"
    place.mkdir()
    for number, value in enumerate(values):
        Image.new("RGB", (16, 16), value).save(place / f"{number}.png")
    return place, torch.tensor(values)[:, :, None, None].expand(3, 3, 16, 16) / 255


def pixels(figure):
    """The image that the figure has."""
    (shown,) = figure.axes[0].images
    return np.asarray(shown.get_array())


def tile(figure, row, column, side=16, gap=1):
    y, x = row * (side + gap), column * (side + gap)
    return pixels(figure)[y : y + side, x : x + side]


def channels_last(image):
    return image.permute(1, 2, 0).numpy()


def names(figure):
    return [text.get_text().replace("\n", " ") for text in figure.texts]


# --- grids -------------------------------------------------------------------------------------


def test_samples_are_those_of_vgx_sample(runs):
    drawn = [vgx.sample(run, n=3, seed=5) for run in runs]
    made = plot(runs, "samples", n=3, seed=5, columns=["a", "b", "$c$"])
    assert pixels(made.figure).shape == (2 * 17 - 1, 3 * 17 - 1, 3)
    for row, images in enumerate(drawn):
        for column, image in enumerate(images):
            assert tile(made.figure, row, column) == pytest.approx(channels_last(image), abs=1e-6)
    assert names(made.figure) == ["tiny, seed 0", "tiny, seed 1", "a", "b", r"\$c\$"]
    assert (tile(made.figure, 0, 0).shape, pixels(made.figure)[16].min()) == ((16, 16, 3), 1)


def test_one_run_has_four_rows_and_each_sampler_its_own(runs):
    alone = plot(runs[0], "samples", n=5)
    assert pixels(alone.figure).shape == (4 * 17 - 1, 5 * 17 - 1, 3)
    assert names(alone.figure) == []
    two = plot(runs[0], "samples", n=2, samplers=["prior", "weighted-mix"], rows=["one", "two"])
    assert names(two.figure) == ["one", "two"]
    prior = vgx.sample(runs[0], "prior", n=2)
    assert tile(two.figure, 0, 1) == pytest.approx(channels_last(prior[1]), abs=1e-6)
    with pytest.raises(vgx.RecipeError, match="rows: 1 names for 4 rows"):
        plot(runs[0], "samples", rows=["one"])
    with pytest.raises(vgx.RecipeError, match="columns: 1 names for 8 columns"):
        plot(runs[0], "samples", columns=["one"])


def test_a_sampler_with_rows_keeps_them_and_their_names(runs):
    figure = plot(runs[0], "samples", samplers=["traversal"], width="85mm").figure
    assert all(name.startswith("z") for name in names(figure))
    assert len(names(figure)) > 1
    # They are whole, one below the other, and beside the images.
    draw = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(draw) for text in figure.texts]
    assert all(box.x0 > 0 and box.x1 < figure.axes[0].get_window_extent().x0 for box in boxes)
    assert all(below.y1 <= above.y0 for above, below in itertools.pairwise(boxes))
    assert not any("…" in name for name in names(figure))
    with pytest.warns(vgx.Notice, match="-n: a row of the sampler traversal has 10 images"):
        of_both = plot(runs, "samples", n=3, samplers=["traversal"]).figure
    assert {name.partition(": ")[0] for name in names(of_both)} == {"tiny, seed 0", "tiny, seed 1"}
    assert all(": z" in name for name in names(of_both))


def test_a_conditional_decoder_has_a_row_for_each_class(labelled):
    figure = plot(labelled, "samples", n=2).figure
    assert names(figure)[0] == "bob"
    assert len(names(figure)) == 6
    second = vgx.sample(labelled, n=2, label=names(figure)[1])
    assert tile(figure, 1, 0) == pytest.approx(channels_last(second[0]), abs=1e-6)


def test_labels_of_the_encoder_alone_are_no_rows(folder):
    """Its decoder draws the same for each class."""
    encoder = {"type": "labelled", "inner": {"type": "conv", "widths": [8, 16]}}
    changes = {name: LABELS[name] for name in ("dataset.label", "image.classes")}
    run = trained(folder, {**changes, "name": "encodes", "encoder": encoder})
    figure = plot(run, "samples", n=2).figure
    assert pixels(figure).shape == (4 * 17 - 1, 2 * 17 - 1, 3)
    assert names(figure) == []


def test_a_difference_is_that_of_image_and_reconstruction(runs, faces):
    place, real = faces
    figure = plot(runs[0], "recon", n=3, data=str(place)).figure
    assert names(figure) == ["image", "reconstruction", "difference"]
    model = vgx.load(runs[0])
    recon = model.decode(model.encode(real))
    tiles = [tile(figure, 0, column) for column in range(3)]
    known = [channels_last(image) for image in real]
    order = [next(i for i in range(3) if np.allclose(each, known[i])) for each in tiles]
    assert sorted(order) == [0, 1, 2]
    difference = (recon - real).abs().mean(1)  # [3, 16, 16]
    top = float(difference.max())
    assert figure.axes[1].get_xlim() == pytest.approx((0, top))
    for column, i in enumerate(order):
        assert tile(figure, 1, column) == pytest.approx(channels_last(recon[i]), abs=1e-5)
        # The map of colours is black, then lighter with each value.
        light = tile(figure, 2, column).sum(-1).flatten()
        values = difference[i].flatten().numpy()
        assert np.corrcoef(light, values)[0, 1] > 0.9
    brightest = np.unravel_index(int(difference.argmax()), difference.shape)
    at = tile(figure, 2, order.index(brightest[0]))[brightest[1], brightest[2]]
    assert at == pytest.approx([0.988, 0.998, 0.645], abs=0.01)  # the end of matplotlib's inferno


@pytest.mark.parametrize(("share", "what", "values"), [
    (0.5, "Held-out", [0, 2]), (0.0, "Training", [0, 1, 2, 3]),
])  # fmt: skip
def test_reconstructions_are_of_held_out_images_if_there_are_any(
    runs, tmp_path, monkeypatch, share, what, values
):
    run = vgx.Run(shutil.copytree(runs[0].path, tmp_path / "0001-a"))
    recipe = vgx.load_recipe(run.recipe_file, {"eval.holdout": share})
    run.recipe_file.write_text(vgx.dump_recipe(recipe))
    greys = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    held = np.uint64(0x9E3779B97F4A7C15)  # the lowest hash, as `held_out` mixes them
    store = Store(greys, np.array([held, ~held] * 2), None, recipe.image, "", "", {})
    monkeypatch.setattr(grids, "images_for", lambda *_: store)
    made = plot(run, "recon", n=4)
    assert made.caption.startswith(f"{what} images, their reconstructions")
    shown = sorted(round(tile(made.figure, 0, i).mean() * 255) for i in range(len(values)))
    assert shown == values
    trained = opened(run, "cpu")
    assert trained_rows(trained, store, None).tolist() == ([1, 3] if share else [0, 1, 2, 3])
    assert trained_rows(trained, store, "elsewhere").tolist() == [0, 1, 2, 3]


def test_runs_of_other_images_share_no_row(runs, labelled, folder):
    other = trained(folder, {"name": "other", "dataset.seed": 9})
    with pytest.raises(vgx.RecipeError, match="images are not those of .*--data PLACE"):
        plot([runs[0], other], "recon")
    together = plot(runs, "recon", n=2).figure
    assert names(together)[1:3] == ["tiny, seed 0: reconstruction", "difference"]


def test_runs_with_images_of_other_sizes_are_refused(runs, folder):
    smaller = trained(folder, {"name": "smaller", "image.size": 8, "train.steps": 1})
    with pytest.raises(vgx.RecipeError, match="16 x 16 and 8 x 8 pixels; give runs of one size"):
        plot([runs[0], smaller], "samples", n=2)


def test_without_its_images_a_run_says_what_to_do(runs, faces, tmp_path, monkeypatch):
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "empty"))
    for kind in ("recon", "kl", "latents"):
        with pytest.raises(vgx.StorageError, match=r"(?s)its images are not here.*vgx eval.*data="):
            plot(runs[0], kind)
    assert plot(runs[0], "kl", data=str(faces[0]))


# --- latents -----------------------------------------------------------------------------------


def posteriors(run, images):
    with torch.no_grad():
        return vgx.load(run).encoder(images)


def test_the_kl_is_that_of_pytorch_sorted(runs, faces):
    place, real = faces
    posterior = posteriors(runs[0], real)
    q = Normal(posterior.mu.double(), (posterior.logvar.double() / 2).exp())
    kl = kl_divergence(q, Normal(0.0, 1.0)).mean(0).sort(descending=True).values.numpy()
    figure = plot(runs[0], "kl", data=str(place)).figure
    heights = sum(patch.get_data().values for patch in figure.axes[0].patches)
    assert heights == pytest.approx(kl, rel=1e-4)
    active = int((posterior.mu.var(0) > 0.01).sum())
    made = plot(runs, "kl", data=str(place))
    assert f"{active} of 8, " in made.caption
    (line,) = made.figure.axes[0].lines
    other = posteriors(runs[1], real)
    q = Normal(other.mu.double(), (other.logvar.double() / 2).exp())
    second = kl_divergence(q, Normal(0.0, 1.0)).mean(0).sort(descending=True).values.numpy()
    assert line.get_ydata() == pytest.approx((kl + second) / 2, rel=1e-4)


def test_a_map_is_a_pca_of_the_means(runs, faces):
    place, real = faces
    figure = plot(runs[0], "latents", data=str(place)).figure
    (points,) = figure.axes[0].collections
    wanted = PCA(2).fit_transform(posteriors(runs[0], real).mu.double())
    shown = np.asarray(points.get_offsets())
    # Both in the order of the files, up to the signs of the axes.
    assert np.abs(shown) == pytest.approx(np.abs(wanted), rel=1e-3, abs=1e-6)
    assert len(figure.axes[0].images) >= 1
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert (shown[:, 0] > left).all()
    assert (shown[:, 0] < right).all()
    assert (top - bottom) / (right - left) == pytest.approx(0.75)
    assert figure.axes[0].get_aspect() == 1  # one scale for both axes


def test_classes_are_colours_on_a_map(labelled, runs):
    figure = plot(labelled, "latents").figure
    assert not figure.axes[0].images
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    assert shown <= {"bob", "long", "twin tails", "side tail", "short", "buns"}
    count = sum(len(each.get_offsets()) for each in figure.axes[0].collections)
    assert count == 60


def test_a_class_has_one_colour_on_all_maps(labelled, tmp_path, monkeypatch):
    """The second map lacks the first class, and has one that the first lacks."""
    drawn = iter([(0, 1, 2), (1, 2, 3)])
    real = latents._classes

    def some(panel, points, labels, names, colours):
        shown = np.array(next(drawn))[np.arange(len(labels)) % 3]
        return real(panel, points, shown, names, colours)

    monkeypatch.setattr(latents, "_classes", some)
    other = vgx.Run(shutil.copytree(labelled.path, tmp_path / "0009-other"))
    figure = plot([labelled, other], "latents").figure
    colours = []
    for panel in figure.axes:
        points = [each for each in panel.collections if len(each.get_offsets())]
        colours.append([tuple(each.get_facecolor()[0][:3]) for each in points])
    assert colours[0][1:] == colours[1][:2]
    assert len({*colours[0], *colours[1]}) == 4


# --- files and commands ------------------------------------------------------------------------


def test_images_keep_their_pixels_in_a_pdf(runs, tmp_path):
    data = plot(runs[0], "samples", width="85mm").save(tmp_path / "x.pdf").read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ ([\d. ]+) \]", data)
    assert float(box.split()[2]) == pytest.approx(85 / 25.4 * 72, abs=0.01)
    image = re.search(rb"<< /Type /XObject /Subtype /Image[^>]*>>", data)[0]
    # 8 images of 16 pixels in a row, and lines of one pixel between them.
    assert re.search(rb"/Width 135\s/Height 67\s", image)


def test_the_same_bytes_again(runs):
    for kind in ("recon", "latents"):
        assert plot(runs[0], kind).encode(".pdf") == plot(runs[0], kind).encode(".pdf")


def test_the_command_draws_images(runs, tmp_path, capfd):
    out = tmp_path / "x.svg"
    options = ["--what", "recon", "-n", 4, "--column", "a", "--column", "b", "--column", "c"]
    command = ["figure", runs[0].path, *options, "--column", "d", "--out", out]
    assert run_program(list(map(str, command))) == 0
    assert "Training images, their reconstructions" in " ".join(capfd.readouterr().out.split())
    assert ">reconstruction</text>" in out.read_text()
    assert run_program(["figure", str(runs[0].path), "--what", "kl", "-n", "4"]) == 2
    assert "the figure kl has no option 'n'; it has log, data, device" in capfd.readouterr().err


def test_a_program_in_a_run_is_not_executed(runs, tmp_path, capfd):
    copy = vgx.Run(shutil.copytree(runs[0].path, tmp_path / "runs" / "0001-tiny"))
    mark = tmp_path / "executed"
    (copy.path / "plugins").mkdir(exist_ok=True)
    (copy.path / "plugins" / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    for kind in ("samples", "recon", "kl", "latents"):
        assert run_program(["figure", str(copy.path), "--what", kind]) == 3
        with pytest.raises(vgx.PluginError, match="you have not trusted"):
            plot(copy, kind)
    plot(copy, "curves")  # needs no part
    assert not mark.exists()
