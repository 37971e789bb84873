"""Classes with names, from a folder of images to grids of one class: the program as a whole."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import vgx

COLOURS = {"2": (250, 0, 0), "10": (0, 250, 0), "blue one": (0, 0, 250)}
RECIPE = """
name: colours
image: {size: 8, classes: 3}
latent: 2
dataset: {type: image-folder, path: pictures, label: folder}
encoder: {type: conv, widths: [8]}
decoder: {type: labelled, inner: {type: conv-transpose, widths: [8]}}
losses: [l1, {type: kl, weight: 0.1}]
sampler: prior
train: {steps: 150, batch: 8, optimizers: {generator: {lr: 0.01}}}
"""


def save(folder):
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range({"10": 6}.get(name, 8)):
            varied = [max(value - number, 0) for value in colour]
            Image.new("RGB", (8, 8), tuple(varied)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A conditional run on red, green and blue images."""
    folder = tmp_path_factory.mktemp("classes")
    save(folder / "pictures")
    (folder / "r.yaml").write_text(RECIPE.replace("path: pictures", f"path: {folder}/pictures"))
    return vgx.run(folder / "r.yaml", out=folder / "runs", device="cpu").path


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs" / "0001-colours")


def colour_of(file):
    """The channel that is brightest."""
    with Image.open(file) as image:
        return ["red", "green", "blue"][np.asarray(image).mean((0, 1)).argmax()]


@pytest.mark.slow
def test_the_run_keeps_the_names_and_the_counts(run):
    data = json.loads((run / "environment.json").read_text())["data"]
    assert data["classes"] == [
        {"name": "2", "count": 8}, {"name": "10", "count": 6}, {"name": "blue one", "count": 8},
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "colour", "file"),
    [
        ("blue one", "blue", "label-2"),
        ("2", "red", "class-2"),
        ("10", "green", "class-10"),
        ("1", "green", "class-10"),  # no class is called so: a number
        ("BLUE ONE", "blue", "label-2"),
    ],
)
def test_sample_draws_one_class_by_its_name(vgx_here, run, wanted, colour, file):
    code, out, err = vgx_here("sample", run, "--class", wanted, "-n", 9)
    assert code == 0, err
    (made,) = (run / "samples").glob(f"prior-*-seed-0-{file}.png")
    assert str(made.name) in out.replace("\n", "")
    assert colour_of(made) == colour
    mine = vgx.sample(vgx.Run(run), n=4, label=wanted)
    assert mine.mean((0, 2, 3)).argmax() == ["red", "green", "blue"].index(colour)


@pytest.mark.slow
def test_separate_images_say_their_classes_beside_them(vgx_here, run, tmp_path):
    code, _, err = vgx_here("sample", run, "-n", 12, "--separate", "single")
    assert code == 0, err
    with (tmp_path / "single" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{number:06}.png" for number in range(12)]
    colours = {"2": "red", "10": "green", "blue one": "blue"}
    drawn = [colour_of(tmp_path / "single" / row["file"]) for row in rows]
    assert drawn == [colours[row["label"]] for row in rows]
    assert len(set(drawn)) > 1
    # They are a data set with labels, and may be drawn anew.
    part = vgx.discover().part("dataset", "image-folder")
    fields = {"path": tmp_path / "single", "labels": {"file": "labels.csv"}}
    source = part(**fields).build(vgx.ImageSpec(size=8, classes=len(set(drawn))))
    assert [source.classes[source.label(i)] for i in range(12)] == [row["label"] for row in rows]
    code, _, err = vgx_here("sample", run, "-n", 12, "--class", "2", "--separate", "single")
    assert code == 0, err
    assert {colour_of(file) for file in (tmp_path / "single").glob("*.png")} == {"red"}


@pytest.mark.slow
def test_a_class_that_cannot_be_drawn_is_said(vgx_here, run, tiny_run):
    code, _, err = vgx_here("sample", run, "--class", "blue")
    assert (code, err) == (
        2, "vgx: no class 'blue'; the 3 classes are 2, 10, blue one; did you mean 'blue one'?\n",
    )  # fmt: skip
    code, _, err = vgx_here("sample", tiny_run[2], "--class", "2")
    assert code == 2
    assert "the decoder conv-transpose takes no labels, so it draws no single class" in err
    assert "train a recipe as cvae is" in err


@pytest.mark.slow
def test_a_run_of_an_earlier_version_has_numbers_for_names(vgx_here, run):
    about = json.loads((run / "environment.json").read_text())
    del about["data"]["classes"]
    (run / "environment.json").write_text(json.dumps(about))
    code, _, err = vgx_here("sample", run, "--class", "2", "-n", 4, "--out", "two.png")
    assert code == 0, err
    assert colour_of(run.parents[1] / "two.png") == "blue"
    assert vgx_here("sample", run, "--class", "3")[0] == 2


@pytest.mark.slow
def test_a_run_whose_folders_had_other_numbers_says_why_it_cannot_go_on(vgx_here, run):
    about = json.loads((run / "environment.json").read_text())
    del about["data"]["classes"]
    (run / "environment.json").write_text(json.dumps(about))
    code, out, err = vgx_here("resume", run)  # its folders have the numbers of today
    assert code == 0, err
    assert "nothing is left to do" in out
    about["data"]["content"] = "that of 10, 2, blue one"
    (run / "environment.json").write_text(json.dumps(about))
    code, _, err = vgx_here("resume", run)
    assert code == 2
    assert "for other images start a new run\nClasses are now numbered with 2 before 10" in err


@pytest.mark.slow
def test_a_class_without_images_is_drawn_with_a_notice(run):
    about = json.loads((run / "environment.json").read_text())
    about["data"]["classes"][1]["count"] = 0
    (run / "environment.json").write_text(json.dumps(about))
    with pytest.warns(vgx.Notice, match="no image of class 10 was there to train on"):
        vgx.sample(vgx.Run(run), n=1, label="10")


@pytest.mark.slow
def test_check_and_run_print_the_classes(vgx_here, tmp_path):
    save(tmp_path / "pictures")
    (tmp_path / "r.yaml").write_text(RECIPE)
    line = "Labels: 3 classes: 2 (8), 10 (6), blue one (8)"
    code, out, err = vgx_here("check", "r.yaml")
    assert code == 0, err
    assert line in out
    settings = ["--set", "train.steps=1", "--set", "dataset.limit=8"]
    code, out, err = vgx_here("run", "r.yaml", "--device", "cpu", *settings)
    assert code == 0, err
    assert "Data: 8 images" in out
    assert "Labels: 3 classes: 2 (3), 10 (3), blue one (2)" in out
    code, _, err = vgx_here("check", "r.yaml", "--set", "image.classes=2")
    assert code == 2
    assert "there are 3 classes (2, 10, blue one), and image.classes is 2; set image.cl" in err


@pytest.mark.slow
def test_an_image_without_a_label_is_left_out_and_counted_by_every_command(vgx_here, tmp_path):
    save(tmp_path / "pictures")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pictures" / "preview.png")
    (tmp_path / "r.yaml").write_text(RECIPE)
    code, out, err = vgx_here("check", "r.yaml")
    assert code == 0, err
    assert "Data: 23 images before filtering" in out
    assert "Labels: 3 classes: 2 (8), 10 (6), blue one (8)" in out
    code, out, err = vgx_here("run", "r.yaml", "--device", "cpu", "--set", "train.steps=1")
    assert code == 0, err
    assert "Data: 22 images kept, 1 dropped (1 without a label)" in out


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["labels.csv", "dataset.json"])
def test_an_archive_has_its_labels_in_it(vgx_here, tmp_path, labels):
    save(tmp_path / "pictures")
    files = [file.relative_to(tmp_path / "pictures") for file in tmp_path.rglob("*.png")]
    classes = {"2": "red", "10": "green", "blue one": "blue"}
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for file in files:
            archive.write(tmp_path / "pictures" / file, file)
        rows = [[str(file), classes[file.parts[0]]] for file in files]
        table = "\n".join(",".join(row) for row in rows)
        archive.writestr(labels, table if labels == "labels.csv" else json.dumps({"labels": rows}))
    (tmp_path / "r.yaml").write_text(RECIPE)
    fields = f"dataset={{type: image-folder, path: pictures.zip, label: null, labels: {labels}}}"
    code, out, err = vgx_here("check", "r.yaml", "--set", fields)
    assert code == 0, err
    assert "Labels: 3 classes: blue (8), green (6), red (8)" in out
    code, _, err = vgx_here("check", "r.yaml", "--set", fields.replace(labels, "none.csv"))
    assert code == 4
    assert "none.csv" in err
    assert "the name is relative to dataset.path" in err


@pytest.mark.slow
def test_the_page_and_the_comparison_name_the_classes(vgx_here, run):
    assert vgx_here("report", run, "--device", "cpu")[0] == 0
    page = (run / "report.html").read_text()
    assert '["Labels","3 classes: 2 (8), 10 (6), blue one (8)"]' in page
    assert '["Classes","3"]' in page
    other = shutil.copytree(run, run.parent / "0002-other")
    code, out, _ = vgx_here("compare", run, other)
    assert code == 0
    assert "3: 2, 10, blue one" in out
