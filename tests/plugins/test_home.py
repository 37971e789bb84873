"""`~` in every field of a part that is the path of a file or a folder."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from PIL import Image

import vgx

NAMES = {"path", "weights", "file", "folder"}
FIELDS = [
    (part, name, "Path" in str(field.annotation))
    for plugin in vgx.discover().plugins
    for part in plugin.parts
    for name, field in part.model_fields.items()
    if "Path" in str(field.annotation) or name in NAMES
]
NEEDED = {
    "timm": {"backbone": "test_resnet"},
    "timm-patchgan": {"backbone": "test_resnet"},
    "path-length": {"lpips": "vgg"},
}
AS_PATHS = [(part, name) for part, name, typed in FIELDS if typed]


def test_these_fields_are_known():
    assert {f"{part.type}.{name}" for part, name, typed in FIELDS if not typed} == {
        "huggingface.path"  # it may also be a name of the hub
    }
    assert {"image-folder.path", "timm-patchgan.weights", "reconstruct.path"} <= {
        f"{part.type}.{name}" for part, name in AS_PATHS
    }


@pytest.mark.parametrize(
    ("part", "name"), AS_PATHS, ids=[f"{part.type}.{name}" for part, name in AS_PATHS]
)
def test_a_path_begins_at_home(part, name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = part.model_validate({**NEEDED.get(part.type, {}), name: Path("~/x")})
    assert getattr(made, name) == tmp_path / "x"


def test_so_does_a_local_data_set_of_the_hub(tmp_path, monkeypatch):
    rows = {"image": [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(3)]}
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("one.parquet", "folder/train.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        table.to_parquet(str(tmp_path / name))
    for place in ("~/one.parquet", "~/folder"):
        recipe = vgx.load_recipe("tiny", {"dataset": {"type": "huggingface", "path": place}})
        assert len(recipe.dataset.build(recipe.image)) == 3
        assert recipe.dataset.asks() == ""
        assert len(vgx.load_recipe("tiny", data=place).dataset.build(recipe.image)) == 3
