"""A run whose images lie elsewhere now, or that goes on from another folder."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import datasets
import pytest
from PIL import Image

import vgx
from vgx.runs import checkpoint

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
SHORT = ["--set", "train.batch=4", "--set", "train.save_every=2", "--set", "train.draw_every=9"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pages")]


@pytest.fixture
def here(tmp_path, vgx_here, monkeypatch):
    """A run of two steps on the relative folder `faces`, with two classes."""
    for number in range(16):
        file = tmp_path / "faces" / "ab"[number % 2] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((20, 20), 9 * number + 1).convert("RGB").save(file)
    (tmp_path / "elsewhere").mkdir()
    given = ["--set", "image.classes=2", "--set", "dataset.label=folder", *SHORT]
    code, _, err = vgx_here("run", TINY, "--data", "faces", *given, "--set", "train.steps=2")
    assert code == 0, err
    return tmp_path


def run_of(here):
    return vgx.Run(here / "runs" / "0001-tiny")


def dataset_of(run):
    return vgx.load_recipe(run.recipe_file).dataset


MOVES = {
    "renamed": (["run", "--resume", "1", "--set", "dataset.path=renamed"], "renamed"),
    "--data": (["run", "--resume", "1", "--data", "renamed"], "renamed"),
}


@pytest.mark.parametrize("how", MOVES)
def test_a_renamed_folder_is_no_other_experiment(here, vgx_here, how):
    arguments, place = MOVES[how]
    (here / "faces").rename(here / "renamed")
    code, out, err = vgx_here(*arguments, "--set", "train.steps=4")
    assert code == 0, err
    assert "goes on from step 2" in out
    kept = dataset_of(run_of(here))
    assert (kept.path, kept.label) == (Path(place), "folder")
    assert run_of(here).read_log()[-1]["step"] == 4


def test_the_new_place_is_kept_beside_the_names_of_many_classes(here, vgx_here):
    """`environment.json` has more than 1 MiB then."""
    file = here / "runs" / "0001-tiny" / "environment.json"
    made = json.loads(file.read_text())
    made["data"]["classes"] += [{"name": 100 * "x", "count": 1}] * 9_998
    file.write_text(json.dumps(made))
    (here / "faces").rename(here / "renamed")
    code, out, err = vgx_here("resume", "1", "--data", "renamed")
    assert (code, "The new place of its images is kept" in out) == (0, True), err
    assert dataset_of(run_of(here)).path == Path("renamed")


def test_after_a_copy_it_ends_with_the_same_bits(here, vgx_here):
    longer = ["--set", "train.steps=5"]
    shutil.copytree(here / "runs" / "0001-tiny", here / "runs" / "0002-tiny")
    assert vgx_here("run", "--resume", "2", *longer)[0] == 0
    shutil.copytree(here / "faces", here / "copy")  # with other times, so it is decoded again
    shutil.rmtree(here / "faces")
    assert vgx_here("run", "--resume", "1", "--data", here / "copy", *longer)[0] == 0
    one, two = (
        checkpoint.load(vgx.Run(here / "runs" / name))[1] for name in ("0001-tiny", "0002-tiny")
    )
    for group in ("model", "optimizer", "latents"):
        ours, theirs = getattr(one, group), getattr(two, group)
        assert ours.keys() == theirs.keys()
        assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    made = run_of(here).environment()
    assert (
        made["data"]["fingerprint"]
        != vgx.Run(here / "runs" / "0002-tiny").environment()["data"]["fingerprint"]
    )
    shutil.rmtree(here / "cache")


def test_the_same_images_in_another_kind_of_data_set_are_the_same_images(here, vgx_here):
    files = sorted((here / "faces").rglob("*.png"))
    cells = [{"bytes": file.read_bytes(), "path": None} for file in files]
    rows = {"image": cells, "kind": ["ab".index(file.parent.name) for file in files]}
    names = datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features({"image": datasets.Image(), "kind": names})
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(str(here / "faces.parquet"))
    given = ["run", "--resume", "1", "--data", "faces.parquet", "--set", "train.steps=3"]
    code, _, err = vgx_here(*given, "--set", "dataset.label=kind")
    assert code == 0, err
    assert dataset_of(run_of(here)).type == "huggingface"


def test_other_images_are_refused_with_both_counts_the_place_and_what_to_write(here, vgx_here):
    Image.new("RGB", (20, 20)).save(here / "faces" / "a" / "new.png")
    before = run_of(here).recipe_file.read_bytes()
    code, _, err = vgx_here("run", "--resume", "1", "--set", "train.steps=4")
    assert code == 2
    lines = err.strip().splitlines()
    assert f"not those of the run (16 then, 17 now, in {here / 'faces'})" in lines[0]
    assert lines[1] == (
        "If its images lie elsewhere: vgx resume 1 --data PLACE; for other images start a new run"
    )
    (here / "faces" / "a" / "new.png").replace(here / "faces" / "a" / "00.png")
    code, _, err = vgx_here("run", "--resume", "1", "--data", "faces", "--set", "train.steps=4")
    assert "(16 then, 16 now, in " in err
    assert "; some have other content)" in err
    assert run_of(here).recipe_file.read_bytes() == before


@pytest.mark.parametrize("command", [["resume"], ["eval"]])
def test_from_another_folder_the_command_that_works_is_told(here, vgx_here, monkeypatch, command):
    monkeypatch.chdir(here / "elsewhere")
    code, _, err = vgx_here(*command, run_of(here).path)
    assert code == 4
    assert f"faces: there is no such folder or archive: {here / 'elsewhere' / 'faces'}" in err
    assert f"faces is in {here}, where the run was started. From here: vgx run --resume 1" in err
    program, *advised = shlex.split(err.strip().rpartition("From here: ")[2])
    assert program == "vgx"
    code, out, err = vgx_here(*advised)
    assert code == 0, err
    assert "The new place of its images is kept" in out
    assert "nothing is left to do" in out
    assert dataset_of(run_of(here)).path == here / "faces"
    assert run_of(here).environment()["folder"] == str(here / "elsewhere")
    few = ["-n", "8", "--seeds", "1", "--metrics", "psnr"]
    assert vgx_here("eval", run_of(here).path, *few)[0] == 0


def test_a_place_that_is_nowhere_is_only_told(here, vgx_here):
    (here / "faces").rename(here / "gone")
    code, _, err = vgx_here("resume", "1")
    assert code == 4
    where = f"faces: there is no such folder or archive: {here / 'faces'}"
    assert err == f"vgx: dataset image-folder: {where}\n"


def test_resume_takes_the_new_place_and_keeps_the_labels(here, vgx_here):
    (here / "faces").rename(here / "renamed")
    code, out, err = vgx_here("resume", "1", "--data", "renamed")
    assert (code, err) == (0, "")
    assert "nothing is left to do" in out
    assert dataset_of(run_of(here)).label == "folder"


def test_the_images_of_a_sampler_may_move_too(here, vgx_here, monkeypatch):
    (here / "mine").mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(here / "mine" / f"{number}.png")
    given = ["--set", "sampler={type: reconstruct, path: mine}", *SHORT, "--set", "train.steps=2"]
    assert vgx_here("run", TINY, *given)[0] == 0
    (here / "mine").rename(here / "moved")
    code, _, err = vgx_here("run", "--resume", "2", "--set", "sampler.path=moved")
    assert code == 0, err
    (here / "moved").rename(here / "mine")
    assert vgx_here("run", "--resume", "2", "--set", "sampler.path=mine")[0] == 0
    monkeypatch.chdir(here / "elsewhere")
    code, _, err = vgx_here("sample", here / "runs" / "0002-tiny", "-n", "4")
    assert code == 4
    assert f"--set sampler.path={here / 'mine'}" in err


def test_another_recipe_is_still_another_recipe(here, vgx_here):
    code, _, err = vgx_here("run", "--resume", "1", "--data", "faces", "--set", "latent=4")
    assert code == 2
    assert "was made by another recipe" in err


def test_a_fork_from_another_folder_tells_how_to_fork(here, vgx_here, monkeypatch):
    """And not how to train its parent on."""
    at = f"{checkpoint.steps(run_of(here))[-1]}"
    given = ["fork", run_of(here).path, "--at", at, "--set", "train.steps=99"]
    monkeypatch.chdir(here / "elsewhere")
    code, _, err = vgx_here(*given)
    assert code == 4
    assert f"From here: vgx fork {run_of(here).short} --at {at} --set dataset.path=" in err


def test_a_replay_from_another_folder_tells_how_to_replay(here, vgx_here, monkeypatch):
    """And not how to train the run on."""
    monkeypatch.chdir(here / "elsewhere")
    again = f"vgx replay {run_of(here).short} --step 1 --data"
    code, _, err = vgx_here("replay", run_of(here).path, "--step", "1")
    assert code == 4
    advised = err.strip().rpartition("From here: ")[2]
    assert advised == f"{again} {here / 'faces'}"
    code, out, err = vgx_here(*shlex.split(advised)[1:])
    assert code == 0, err
    assert "Replay " in out
    Image.new("RGB", (20, 20)).save(here / "faces" / "a" / "new.png")
    code, _, err = vgx_here("replay", run_of(here).path, "--step", "1", "--data", here / "faces")
    assert code == 2
    assert f"If its images lie elsewhere: {again} PLACE; for other images" in err
