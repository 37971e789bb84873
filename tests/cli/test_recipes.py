"""Recipes that come with vgx: found by name, from any folder, in an installed wheel too."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vgx
from vgx.errors import RecipeError
from vgx.recipe.library import about, find_recipe, recipes

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes").glob("*.yaml"))
REGISTRY = vgx.discover()


@pytest.fixture
def empty(tmp_path, monkeypatch):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.usefixtures("empty")
def test_each_recipe_is_found_by_its_name(file):
    recipe = vgx.load_recipe(file, (), REGISTRY)
    for name in (file.stem, file.stem.replace("_", "-")):
        assert vgx.load_recipe(name, (), REGISTRY) == recipe


def test_a_file_comes_before_a_name(empty):
    (empty / "tiny").write_text("extends: vae\nname: mine\n")
    (empty / "vae.yaml").write_text("name: not-taken\n")
    assert vgx.load_recipe("tiny").name == "mine"
    assert vgx.load_recipe("tiny").losses == vgx.load_recipe(ROOT / "recipes/vae.yaml").losses
    assert find_recipe("dcgan") == ROOT / "recipes" / "dcgan.yaml"


def test_a_file_extends_a_recipe_by_name_or_its_neighbour(empty):
    (empty / "one.yaml").write_text("extends: tiny\nname: one\n")
    (empty / "sub").mkdir()
    (empty / "sub" / "two.yaml").write_text("extends: ../one.yaml\ntrain: {batch: 4}\n")
    assert vgx.load_recipe("one.yaml").train.batch == 8
    assert vgx.load_recipe("sub/two.yaml").train.batch == 4


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("quikstart", "'quickstart'"),
        ("recipes/quickstart.yaml", "'quickstart'"),
        ("minne.yaml", "'mine.yaml'"),
        ("mine", "'mine.yaml'"),
        ("tinny.yaml", "'tinny-2.yaml' or 'tiny'"),
        ("aea", "'aae'"),
    ],
)
def test_a_missing_recipe_suggests_what_is_near(empty, word, nearest):
    (empty / "mine.yaml").write_text("extends: tiny\n")
    (empty / "tinny-2.yaml").write_text("extends: tiny\n")
    with pytest.raises(RecipeError) as fault:
        vgx.load_recipe(word)
    assert str(fault.value) == f"{word}: No such file or directory; did you mean {nearest}?"


def test_a_base_that_is_missing_suggests_what_is_near(empty):
    (empty / "mine.yaml").write_text("extends: tinny\nname: mine\n")
    with pytest.raises(
        RecipeError, match="extends: tinny: there is no such file; did you mean 'ti"
    ):
        vgx.load_recipe("mine.yaml")


def test_the_list_has_one_line_for_each(vgx_here):
    code, out, err = vgx_here("recipes")
    assert (code, err) == (0, "")
    lines = out.splitlines()[1:-1]
    assert [line.split()[0] for line in lines] == [file.stem for file in FILES]
    assert "dcgan                  DCGAN (Radford et al. 2016)." in lines
    assert all(about(file).endswith(".") for file in recipes().values())


def test_a_copy_of_a_recipe_works_anywhere(vgx_here, tmp_path):
    _, out, _ = vgx_here("recipes", "beta-vae")
    assert out == (ROOT / "recipes" / "beta_vae.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(out)
    assert vgx.load_recipe("mine.yaml") == vgx.load_recipe("beta_vae")
    code, _, err = vgx_here("recipes", "beta-vea")
    assert code == 2
    assert "did you mean 'beta_vae'?" in err


@pytest.mark.slow
@pytest.mark.usefixtures("empty")
def test_python_trains_a_recipe_by_its_name():
    run = vgx.run("tiny", device="cpu")
    assert run.read_log()[-1]["step"] == 20


@pytest.mark.slow
def test_a_wheel_trains_a_recipe_from_an_empty_folder(empty):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", empty.parent]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = empty.parent.glob("*.whl")
    site = empty.parent / "installed"
    zipfile.ZipFile(wheel).extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def call(*words):
        done = subprocess.run(
            [sys.executable, *words],
            env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    program = "import vgx, vgx.recipe.library as l; print(vgx.__file__, l.find_recipe('tiny'))"
    assert call("-c", program).split() == [
        str(site / "vgx" / "__init__.py"), str(site / "vgx" / "recipes" / "tiny.yaml"),
    ]  # fmt: skip
    Path("mine.yaml").write_text(call("-m", "vgx", "recipes", "r3gan"))
    # One process for both, which imports PyTorch once.
    both = (["run", "tiny", "--set", "train.steps=1"], ["check", "mine.yaml"])
    program = f"from vgx.cli import run_program as run\nassert [*map(run, {both})] == [0, 0]"
    said = call("-c", program)
    assert "Trained 1 step in " in said
    assert "mine.yaml: ready to run" in said
