"""Images of one's own: `--data`; a path that is written by hand is never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import vgx
from vgx.errors import DataError, RecipeError
from vgx.recipe.places import dataset_at

RECIPES = sorted(file.stem for file in (Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with images, a data set in the hub's layout, and an empty folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("mine/a", "mine/b", "empty", "hub/data"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(4):
        image = Image.new("RGB", (20 + number, 18), (60 * number, 0, 0))
        image.save(f"mine/{'ab'[number % 2]}/{number}.png")
    datasets = pytest.importorskip("datasets")
    rows = {"image": [Image.new("RGB", (16, 16), (number, 0, 0)) for number in range(3)]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).to_parquet("hub/data/train.parquet")
    return tmp_path


def opened(place):
    """Return the data set of the tiny recipe with `--data`, and its number of images."""
    dataset = vgx.load_recipe("tiny", data=place).dataset
    return dataset, len(dataset.build(vgx.ImageSpec(size=16)))


@pytest.mark.usefixtures("here")
def test_each_place_is_opened_by_its_data_set():
    folder, count = opened("mine")
    assert (folder.type, folder.path, count) == ("image-folder", Path("mine"), 4)
    for place in ("hub", "hub/data/train.parquet"):
        rows, count = opened(place)
        assert (rows.type, rows.path, count) == ("huggingface", place, 3)
    hub = vgx.load_recipe("tiny", data="someone/faces").dataset
    assert (hub.type, hub.path, hub.fallback) == ("huggingface", "someone/faces", None)


@pytest.mark.usefixtures("here")
def test_a_home_is_written_out(monkeypatch, here):
    monkeypatch.setenv("HOME", str(here))
    assert vgx.load_recipe("tiny", data="~/mine").dataset.path == here / "mine"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.usefixtures("here")
def test_the_whole_data_set_of_any_recipe_is_replaced(recipe):
    dataset = vgx.load_recipe(recipe, data="mine").dataset
    assert dataset.model_dump(exclude_defaults=True) == {
        "type": "image-folder",
        "path": Path("mine"),
    }


@pytest.mark.usefixtures("here")
def test_no_field_of_a_data_set_of_the_same_type_is_kept(here):
    text = "extends: tiny\ndataset: {type: image-folder, limit: 1, label: folder}\n"
    (here / "r.yaml").write_text(text)
    assert vgx.load_recipe("r.yaml", data="mine").dataset.limit is None
    labelled = vgx.load_recipe("r.yaml", ["dataset.label=folder"], data="mine").dataset
    assert (labelled.label, labelled.path) == ("folder", Path("mine"))


def test_check_takes_it_and_says_how_many_images_there_are(here, vgx_here):
    code, out, err = vgx_here("check", "tiny", "--data", "mine", "--set", "train.batch=2")
    assert (code, err) == (0, "")
    assert "Data: 4 images before filtering" in out


@pytest.mark.usefixtures("here")
def test_a_place_that_is_not_there_is_an_error_of_the_data(vgx_here, here):
    code, _, err = vgx_here("run", "tiny", "--data", "mien")
    assert code == 4
    hub = "data sets of the hub are called OWNER/NAME"
    place = f"{here / 'mien'}; {hub}"
    assert err == f"vgx: --data mien: there is no such folder or file: {place}\n"
    assert not (here / "runs").exists()


@pytest.mark.usefixtures("here")
def test_a_folder_without_images_is_an_error_of_the_data():
    with pytest.raises(DataError, match="^--data empty: no images in it$"):
        vgx.load_recipe("tiny", data="empty")


@pytest.mark.usefixtures("here")
def test_a_place_that_two_data_sets_open_is_left_to_the_user(install):
    install(
        "other",
        "import vgx\n"
        "class Other(vgx.Dataset, type='other'):\n"
        "    'Another data set that opens every folder.'\n"
        "    @classmethod\n"
        "    def fields_for(cls, place):\n"
        "        return {}\n"
        "    def build(self, image):\n"
        "        return []\n"
        "@vgx.hookimpl\n"
        "def register_components(register):\n"
        "    register(Other)\n",
    )
    with pytest.raises(RecipeError, match="--data mine: image-folder and other open it; choose"):
        dataset_at("mine", vgx.discover())


@pytest.mark.parametrize(
    "arguments", [["--data", "my/facess"], ["--set", "dataset.path=my/facess"]]
)
def test_a_mistyped_folder_never_becomes_drawn_faces(here, vgx_here, arguments, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = vgx_here("check", "anime_vaegan", *arguments)
    assert code == 8
    assert "drawn-faces" not in err.partition("(")[0]
    assert f"nor is there a folder {here / 'my/facess'}" in err


@pytest.mark.usefixtures("here")
def test_a_fallback_belongs_to_the_path_beside_it(here):
    hub = vgx.load_recipe("anime_vaegan").dataset
    assert hub.fallback is not None
    assert vgx.load_recipe("anime_vaegan", ["dataset.split=test"]).dataset.fallback is not None
    assert vgx.load_recipe("anime_vaegan", ["dataset.path=a/b"]).dataset.fallback is None
    (here / "r.yaml").write_text("extends: anime_vaegan\ndataset: {path: a/b}\n")
    assert vgx.load_recipe("r.yaml").dataset.fallback is None
    both = ["dataset.path=a/b", "dataset.fallback=drawn-faces"]
    for settings in (both, both[::-1]):
        assert vgx.load_recipe("anime_vaegan", settings).dataset.fallback.type == "drawn-faces"
    assert vgx.load_recipe("dcgan", ["dataset.path=null"]).dataset.fallback is not None


def test_a_recipe_with_drawn_faces_says_what_to_write_instead(vgx_here):
    code, _, err = vgx_here("check", "quickstart", "--set", "dataset.path=mine")
    assert code == 2
    assert "for images of your own: --data PATH" in err


def test_a_fallback_of_drawn_faces_is_a_notice(vgx_here):
    code, out, err = vgx_here("check", "dcgan")
    assert (code, err) == (0, "")
    assert "NOTICE: dataset image-folder: no folder is given; using the fallback" in out


def test_an_empty_place_is_not_the_current_folder(vgx_here):
    code, _, err = vgx_here("check", "tiny", "--data", "")
    assert (code, err) == (2, "vgx: --data: no place is given\n")
