"""Recipes: layers over layers, and every fault at once with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

import vgx
from vgx.errors import RecipeError

RECIPES = Path(__file__).parents[2] / "recipes"
BASE = """\
name: base
image: {size: 16}
latent: 8
dataset: {type: drawn-faces, count: 8}
augment: [{type: horizontal-flip, p: 0.25}]
encoder: {type: conv, widths: [4, 8]}
decoder: {type: conv-transpose, widths: [8, 4]}
discriminator: {type: patchgan, widths: [4, 8]}
losses: [{type: l1, weight: 100}, kl]
sampler: prior
train: {epochs: 2, batch: 4, optimizers: {generator: {lr: 1e-3}}}
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)

    def make(text, name="recipe.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return make


def faults(path, overrides=()):
    with pytest.raises(RecipeError) as caught:
        vgx.load_recipe(path, overrides)
    return str(caught.value).splitlines()


def test_mappings_merge_lists_and_scalars_replace_and_null_removes(write):
    recipe = vgx.load_recipe(
        write(
            "extends: base.yaml\nlatent: [2, 4, 4]\ndiscriminator: null\n"
            "losses: [l2]\ntrain: {batch: 2}\n"
        )
    )
    assert recipe.name == "base"
    assert recipe.latent.shape == (2, 4, 4)
    assert recipe.discriminator is None
    assert [loss.type for loss in recipe.losses] == ["l2"]
    assert (recipe.train.batch, recipe.train.epochs) == (2, 2)
    assert recipe.encoder.widths == (4, 8)


def test_another_type_of_part_starts_afresh_and_the_same_merges(write):
    write("extends: base.yaml\n")
    assert vgx.load_recipe(
        write("extends: base.yaml\nencoder: {type: timm, backbone: test_vit}\n")
    ).encoder.model_dump() == {
        "type": "timm", "backbone": "test_vit", "pretrained": False, "weights": None,
    }  # fmt: skip
    part = vgx.load_recipe(write("extends: base.yaml\ndataset: {seed: 5}\n")).dataset
    assert (part.count, part.seed) == (8, 5)


def test_files_extend_files_that_extend_files(write):
    write("extends: base.yaml\ntrain: {seed: 1, batch: 2}\n", "middle.yaml")
    recipe = vgx.load_recipe(write("extends: middle.yaml\ntrain: {seed: 2}\n"))
    assert (recipe.train.seed, recipe.train.batch, recipe.train.epochs) == (2, 2, 2)


def test_a_circle_and_a_missing_file_are_said(write):
    write("extends: recipe.yaml\n", "other.yaml")
    (line,) = [f for f in faults(write("extends: other.yaml\n")) if "circle" in f]
    assert "other.yaml:1:10: extends: recipe.yaml" in line
    assert "nowhere.yaml" in faults(write("extends: nowhere.yaml\n"))[0]


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("train.batch=2", "train.batch", 2),
        ("losses.0.weight=7.5", "losses.0.weight", 7.5),
        ("losses[1].weight=3", "losses.1.weight", 3.0),
        ("losses.1.unit=sample", "losses.1.unit", "sample"),
        ("train.optimizers.generator.betas=[0.9, 0.99]", "train.optimizers.generator.betas",
         (0.9, 0.99)),
        ("encoder.widths=[8]", "encoder.widths", (8,)),
        ("train.steps=9", "train.epochs", None),
        ("discriminator=null", "discriminator", None),
        ("train.optimizers.generator.type=adamw", "train.optimizers.generator.lr", 1e-3),
    ],
)  # fmt: skip
def test_a_value_is_set_from_the_command_line(write, override, field, value):
    recipe = vgx.load_recipe(write("extends: base.yaml\n"), [override])
    for name in field.split("."):
        recipe = recipe[int(name)] if name.isdigit() else getattr(recipe, name)
    assert recipe == value


def test_python_sets_values_without_yaml(write):
    recipe = vgx.load_recipe(write("extends: base.yaml\n"), {"train.steps": 3, "name": "other"})
    assert (recipe.train.steps, recipe.train.epochs, recipe.name) == (3, None, "other")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trian: {}", "recipe.yaml:2:1: trian: unknown field"),
        ("trian: {}", "did you mean 'train'?"),
        ("train: {batch: '5'}", "train.batch: "),
        ("train: {batch: 0}", "recipe.yaml:2:16: train.batch: "),
        ("train: {batch: 1.5}", "train.batch: "),
        ("latent: no", "latent: "),
        ("image: {size: 16, chanels: 1}", "did you mean 'channels'?"),
        ("sampler: weighted-mx", "did you mean 'weighted-mix'?"),
        ("sampler: {of: 3, type: 7}", "sampler"),
        ("losses: [{weight: 3}]", "add 'type: ...'"),
        ("losses: [{type: kl, unit: pixels}]", "did you mean 'pixel'?"),
        ("losses: [{type: l1, weight: {from: 0, to: 1}}]", "losses.0.weight.steps"),
        ("losses: [{type: l1, name: a/b}]", "losses.0.name: "),
        ("train: {steps: 2, epochs: 3}", "epochs"),
        ("train: {ema: 1}", "train.ema: "),
    ],
)
def test_a_fault_has_its_place_and_what_instead(write, text, said):
    lines = faults(write(f"extends: base.yaml\n{text}\n"))
    assert said in "\n".join(lines)


def test_a_fault_inside_a_part_inside_a_part_has_its_place(write):
    text = "extends: base.yaml\ndataset:\n  type: huggingface\n  path: x\n  fallback:\n"
    (line,) = faults(write(text + "    type: drawn-faces\n    count: none\n"))
    assert "recipe.yaml:7:12: dataset.fallback.count: " in line


def test_a_long_list_of_faults_is_cut_at_ten_lines(write):
    many = "".join(f"wrong{i}: 1\n" for i in range(30))
    lines = faults(write("extends: base.yaml\n" + many))
    assert len(lines) == 10
    assert lines[-1] == "... and 21 more"


def test_a_file_that_is_no_yaml_is_said_once(write):
    (line,) = faults(write("train: {batch: 4\nname: x\n"))
    assert "recipe.yaml:2:" in line


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.name)
def test_what_is_dumped_loads_as_the_same(path, tmp_path):
    overrides = {"train.seed": 7, "losses.0.weight": {"from": 0.0, "to": 1.0, "steps": 10}}
    for given in ({}, overrides):
        recipe = vgx.load_recipe(path, given)
        (tmp_path / "dumped.yaml").write_text(vgx.dump_recipe(recipe))
        assert vgx.load_recipe(tmp_path / "dumped.yaml") == recipe


def test_a_recipe_is_frozen(write):
    recipe = vgx.load_recipe(write("extends: base.yaml\n"))
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.batch = 3


def test_fakes_are_written_out_by_what_there_is(write):
    path = write("extends: base.yaml\n")
    assert vgx.load_recipe(path).train.fakes == ("recon",)
    gan = vgx.load_recipe(path, ["encoder=null", "losses=[bce-adversarial]"])
    assert gan.train.fakes == ("prior",)
