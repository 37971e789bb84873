"""Folders of pictures as people have them: torn ones, too few, none, enormous ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
QUICK = ("--set", "train.steps=2", "--set", "train.batch=4", "--set", "dataset.type=image-folder")
SKIP = ("--set", "dataset.on_bad=skip")


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures that are good."""
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    for number in range(12):
        picture = Image.effect_noise((20, 20), 20 * number).convert("RGB")
        picture.save(tmp_path / "pictures" / f"{number:02}.png")
    return tmp_path / "pictures"


def settings(folder, *more):
    return (TINY, *QUICK, "--set", f"dataset.path={folder}", *more)


@pytest.mark.bar("D1")
def test_a_torn_picture_ends_the_run_before_there_is_one(vgx_here, folder, tmp_path):
    (folder / "sub" / "torn.png").write_bytes((folder / "03.png").read_bytes()[:200])
    code, _, err = vgx_here("run", *settings(folder))
    assert code == 4
    message = " ".join(err.split())
    assert "1 of 13 images cannot be read: sub/torn.png: OSError: image file is trun" in message
    assert message.endswith("leave them out: --set dataset.on_bad=skip --set dataset.max_bad=0.077")
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_torn_picture_is_left_out_counted_and_named(vgx_here, folder, tmp_path):
    (folder / "sub" / "torn.png").write_bytes((folder / "03.png").read_bytes()[:200])
    code, out, err = vgx_here("run", *settings(folder, *SKIP, "--set", "dataset.max_bad=0.1"))
    assert code == 0, err
    assert "12 images kept, 1 unreadable (sub/torn.png: OSError: image file is" in out
    (run,) = (tmp_path / "runs").iterdir()
    data = json.loads((run / "environment.json").read_text())["data"]
    assert (data["kept"], data["dropped"]) == (12, {})
    assert data["bad"]["count"] == 1
    assert data["bad"]["named"] == ["sub/torn.png: OSError: image file is truncated"]
    code, _, err = vgx_here("run", "--resume", run, "--set", "train.steps=3")
    assert code == 0, err


@pytest.mark.bar("D1")
def test_more_torn_pictures_than_are_allowed_end_the_run(vgx_here, folder, tmp_path):
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"torn")
    code, _, err = vgx_here("run", *settings(folder, *SKIP))
    assert code == 4
    message = " ".join(err.split())
    assert "2 of 14 images cannot be read, and dataset.max_bad=0.01 allows 0: a.png: not" in message
    assert message.endswith("To leave them out: --set dataset.max_bad=0.15")
    assert not (tmp_path / "runs").exists()


def test_a_share_that_nothing_reads_is_said(vgx_here, folder):
    code, _, err = vgx_here("check", *settings(folder, "--set", "dataset.max_bad=0.5"))
    assert code == 2
    assert "dataset.max_bad" in err
    code, _, err = vgx_here("check", *settings(folder, *SKIP, "--set", "dataset.max_bad=0.5"))
    assert code == 0, err


@pytest.mark.bar("D2")
@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (0, "pictures: no images in it"),
        (1, "1 images don't fill one minibatch of 4; lower train.batch to 1"),
        (3, "3 images don't fill one minibatch of 4; lower train.batch to 3"),
    ],
)
def test_too_few_pictures_are_said(vgx_here, folder, tmp_path, command, kept, message):
    for file in sorted(folder.glob("*.png"))[kept:]:
        file.unlink()
    code, _, err = vgx_here(command, *settings(folder))
    assert code == 4, err
    assert message in " ".join(err.split())
    assert len(err.strip().splitlines()) <= 10
    assert not (tmp_path / "runs").exists()


def test_two_pictures_are_enough_for_a_minibatch_of_two(vgx_here, folder):
    for file in sorted(folder.glob("*.png"))[2:]:
        file.unlink()
    few = ("--set", "train.batch=2", "--set", "sampler=prior")
    for command in ("check", "run"):
        code, _, err = vgx_here(command, *settings(folder, *few))
        assert code == 0, err


def test_one_picture_is_a_data_set(vgx_here, folder, tmp_path):
    for file in sorted(folder.glob("*.png"))[1:]:
        file.unlink()
    few = ("--set", "train.batch=1", "--set", "sampler=prior")
    code, _, err = vgx_here("run", *settings(folder, *few))
    assert code == 0, err
    assert (tmp_path / "runs" / "0001-tiny" / "samples" / "recon-00000002.png").is_file()


@pytest.mark.bar("D2")
def test_large_pictures_are_pictures(vgx_here, folder, tmp_path):
    for number in range(4):
        file = folder / f"{number:02}.png"
        Image.new("RGB", (3000, 3000), (60 * number, 0, 0)).save(file, compress_level=1)
    code, out, err = vgx_here("run", *settings(folder))
    assert code == 0, err
    assert "12 images" in out
