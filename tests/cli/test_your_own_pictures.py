"""docs/your-own-pictures.md: each row of its table, with such pictures."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-pictures.md").read_text()
ROWS = dict(re.findall(r"^\| (.+?) \| (.*`.*`.*) \|$", PAGE.split("\n## ")[0], re.MULTILINE))
SMALL = """
name: small
image: {size: 32}
latent: 4
dataset: {type: image-folder}
encoder: {type: conv, widths: [4, 8]}
decoder: {type: conv-transpose, widths: [8, 4]}
losses: [l1, kl]
sampler: prior
train: {steps: 2, batch: 4, log_every: 1}
eval: {holdout: 0}
"""
# For each row of the table: what stands in the output of `vgx check` with its settings.
EXPECTED = {
    "a folder, with folders in it": "Data: 8 images before filtering",
    "a folder for each class": "Labels: 3 classes: cat (3), dog (3), img10 (2)",
    "names and labels in a table (CSV, TSV, JSON Lines, `dataset.json`)": (
        "Labels: 2 classes: cat (4), dog (4)"
    ),
    "a zip or tar file, as Kaggle or stylegan3 hands it out": "Data: 8 images before filtering",
    "one folder of that archive": "Data: 6 images before filtering",
    "wide or high pictures": "3x32x64",
    "pictures of many proportions": "Data: 8 images before filtering",
    "sprites, icons or logos with transparency": "Data: 8 images before filtering",
    "greyscale pictures, or digits": "1x32x32",
    "pictures of 16 bits, or floats": "image.range: [0.0, 1023.0]",
    "some broken files": "Data: 20 images before filtering",
    "that with several configurations, splits or columns": "Data: 6 images before filtering",
    "parquet files, or a folder of `save_to_disk`": "Data: 8 images before filtering",
}
# Rows that other tests hold, since they take an optional library, the hub, or a training.
ELSEWHERE = {
    "pictures of a phone (HEIC), JPEG XL, TIFF of all kinds",
    "a data set of the Hugging Face hub",
    "more pictures than the disk holds",
    "a run whose pictures lie elsewhere now",
}


def picture(number, width=40, height=40, mode="RGB"):
    values = np.random.default_rng(number).integers(0, 256, (height, width, 4), np.uint8)
    return Image.fromarray(values, "RGBA").convert(mode)


def write(folder, names, **kind):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number, **kind).save(folder / name)


def cell(number):
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def rows(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [cell(n) for n in range(count)]}), path)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with all the places of the table."""
    root = tmp_path_factory.mktemp("places")
    (root / "small.yaml").write_text(SMALL)
    eight = [f"{n}.png" for n in range(8)]
    write(root / "faces", [*eight[:4], *(f"more/{name}" for name in eight[4:])])
    write(root / "animals", [f"{('cat', 'dog', 'img10')[n % 3]}/{n}.png" for n in range(8)])
    write(root / "photos", eight)
    table = "".join(f"{n}.png,{'dog' if n % 2 else 'cat'}\n" for n in range(8))
    (root / "photos" / "labels.csv").write_text(f"file,species\n{table}")
    with zipfile.ZipFile(root / "faces.zip", "w") as archive:
        for number in range(8):
            folder = "train" if number < 6 else "test"
            archive.writestr(f"{folder}/{number}.png", cell(number)["bytes"])
    write(root / "wide", eight, width=80)
    for number, (width, height) in enumerate([(40, 40), (80, 40), (40, 80), (60, 40)] * 2):
        write(root / "mixed", [f"{number}.png"], width=width, height=height)
    write(root / "sprites", eight, mode="RGBA")
    write(root / "digits", eight, mode="L")
    (root / "deep").mkdir()
    for number in range(8):
        values = np.full((40, 40), 100 * number + 300, np.uint16)
        Image.fromarray(values).save(root / "deep" / f"{number}.tif")
    write(root / "broken", [f"{n:02}.png" for n in range(20)])
    (root / "broken" / "19.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    rows(root / "hub" / "small" / "test.parquet", 6)
    rows(root / "hub" / "large" / "train.parquet", 8)
    (root / "hub" / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: small\n  data_files:\n  - {split: test, path: small/test.parquet}\n"
        "- config_name: large\n  data_files:\n  - {split: train, path: large/train.parquet}\n---\n"
    )
    rows(root / "shards" / "data" / "train-00000-of-00001.parquet", 8)
    return root


def test_every_row_of_the_table_is_held():
    assert set(ROWS) == {*EXPECTED, *ELSEWHERE}


@pytest.mark.parametrize("row", EXPECTED)
def test_what_a_row_says_works(row, places, vgx_here, monkeypatch):
    monkeypatch.chdir(places)
    given = shlex.split(re.search(r"`(--data.*?)`", ROWS[row])[1])
    code, out, err = vgx_here("check", "small.yaml", *given)
    assert (code, "ready to run" in out) == (0, True), out + err
    assert EXPECTED[row] in out


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_an_archive_of_another_kind_has_the_same_images(ending, places, tmp_path, vgx_here):
    with tarfile.open(tmp_path / f"faces.{ending}", "w:gz" if "gz" in ending else "w") as archive:
        archive.add(places / "faces", "faces")
    code, out, _ = vgx_here("check", places / "small.yaml", "--data", f"faces.{ending}")
    assert (code, "Data: 8 images before filtering" in out) == (0, True)


def test_transparency_is_trained_with_four_channels(places, vgx_here, monkeypatch):
    monkeypatch.chdir(places)
    given = ["--data", "sprites", "--set", "image.channels=4"]
    code, out, err = vgx_here("check", "small.yaml", *given)
    assert (code, "4x32x32" in out) == (0, True), out + err


def test_packed_images_are_streamed(places, tmp_path, vgx_here, monkeypatch):
    monkeypatch.chdir(places)
    packed = str(tmp_path / "packed")
    assert vgx_here("pack", "faces", packed)[0] == 0
    given = ["--data", packed, "--set", "dataset.stream=true"]
    code, out, err = vgx_here("check", "small.yaml", *given)
    assert (code, "Data: 8 images before filtering" in out) == (0, True), out + err
