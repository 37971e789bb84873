"""Recipes: what they may say, how layers lie over each other, and what a mistake reads like."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vgx
from vgx.errors import RecipeError
from vgx.recipe.faults import MAX_LINES
from vgx.recipe.load import differences, parse_settings, with_part
from vgx.recipe.schema import recipe_schema
from vgx.recipe.yaml import read
from vgx.runs.directory import runs_dir

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
REGISTRY = vgx.discover()

WHOLE = """\
name: whole
image: {size: 16}
latent: 8
dataset: {type: drawn-faces, count: 64}
encoder: {type: conv, widths: [8, 16]}
decoder: {type: conv-transpose, widths: [16, 8]}
losses:
  - {type: l1, weight: 10}
  - kl
sampler: prior
train:
  steps: 20
  batch: 8
"""


WARM = '''
import vgx


class Warm(vgx.Loss, type="warm"):
    """A loss with fields that `train` has too."""

    epochs: int = 1
    """One."""
    steps: int = 1
    """Other."""


class Cold(vgx.Sampler, type="cold"):
    """A sampler with fields that `train` has too."""

    epochs: int = 1
    """One."""
    steps: int = 1
    """Other."""

    def build(self, latent):
        return None


@vgx.hookimpl
def register_components(register):
    register(Warm)
    register(Cold)
'''


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write files into an empty folder and load the first one from there."""
    monkeypatch.chdir(tmp_path)

    def loaded(text, overrides=(), **others):
        for name, content in {"r": text, **others}.items():
            Path(f"{name}.yaml").write_text(content)
        return vgx.load_recipe("r.yaml", overrides, REGISTRY)

    return loaded


@pytest.fixture
def faults(load):
    """The lines of the one error that loading raises."""

    def lines(text, overrides=(), **others):
        with pytest.raises(RecipeError) as caught:
            load(text, overrides, **others)
        return str(caught.value).splitlines()

    return lines


def plain(recipe):
    return read(vgx.dump_recipe(recipe), "dump")[0].plain()


# --- mistakes ----------------------------------------------------------------------------------


def test_four_mistakes_of_four_kinds_are_one_error_with_four_places(faults):
    lines = faults(
        WHOLE.replace("count: 64", "cuont: 64")  # a misspelt field
        .replace("type: conv,", "type: convv,")  # an unknown part
        .replace("weight: 10", "weight: heavy")  # a wrong type
        .replace("batch: 8", "batch: 8\nlatent: 9")  # a duplicate key
    )
    assert lines == [
        (
            "r.yaml:4:30: dataset.cuont: unknown field; allowed: on_bad, max_bad, count, seed, "
            "label; did you mean 'count'? (here: 64)"
        ),
        (
            "r.yaml:5:17: encoder: no installed encoder is called 'convv'; there are: "
            "autoencoder-kl, autoencoder-tiny, binary-spherical, conv, deterministic, "
            "finite-scalar, labelled, ladder, noisy, residual, residual-quantised, timm, "
            "vector-quantised; did you mean 'conv'?"
        ),
        "r.yaml:8:24: losses.0.weight: Input should be a valid number (here: 'heavy')",
        "r.yaml:14:1: latent: duplicate key, first at 3:1; keep one",
    ]


def test_a_name_with_spaces_around_it_stands_in_quotes(faults):
    (line,) = faults(WHOLE + "' eval ': {}\n")
    assert line.startswith("r.yaml:14:1: ' eval ': unknown field; allowed: ")


@pytest.mark.parametrize(
    ("wrong", "place", "field", "nearest"),
    [
        ("encodr: conv", "14:1", "encodr", "encoder"),
        ("image: {size: 16, chanels: 1}", "2:19", "image.chanels", "channels"),
        ("decoder: {type: conv-transpose, width: [16]}", "6:33", "decoder.width", "widths"),
        ("sampler: priors", "10:10", "sampler", "prior"),
        ("sampler: {type: weighted_mix}", "10:17", "sampler", "weighted-mix"),
        ("dataset: {type: drawn-face}", "4:17", "dataset", "drawn-faces"),
        ("train: {stesp: 3, steps: 3}", "11:9", "train.stesp", "steps"),
        (
            "train: {steps: 3, optimizers: {generator: {beta: 1}}}",
            "11:44",
            "train.optimizers.generator.beta",
            "betas",
        ),
        ("train: {steps: 3, order: generator-frist}", "11:26", "train.order", "generator-first"),
        (
            "losses: [{type: kl, weight: {from: 0, to: 1, step: 5, steps: 5}}]",
            "7:46",
            "losses.0.weight.step",
            "steps",
        ),
    ],
)
def test_a_misspelt_word_names_the_nearest_one(faults, wrong, place, field, nearest):
    (line,) = faults(with_line(wrong))
    assert line.startswith(f"r.yaml:{place}: {field}: ")
    assert f"did you mean '{nearest}'?" in line


def with_line(line):
    """The whole recipe with one of its first-level entries written otherwise, on one line."""
    key = line.partition(":")[0]
    lines = WHOLE.splitlines()
    starts = [i for i, text in enumerate(lines) if text.startswith(f"{key}:")]
    if not starts:
        return "\n".join([*lines, line])
    (start,) = starts
    end = next((i for i in range(start + 1, len(lines)) if lines[i][0] != " "), len(lines))
    padding = ["#"] * (end - start - 1)  # so that what follows keeps its line
    return "\n".join([*lines[:start], line, *padding, *lines[end:]])


def test_a_word_that_is_near_to_nothing_gets_no_advice(faults):
    (line,) = faults(WHOLE + "qqqq: 1\n")
    assert "did you mean" not in line
    assert "allowed: name, image, latent" in line


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ('latent: "8"', "latent"),
        ("latent: 8.0", "latent"),
        ("latent: true", "latent"),
        ("latent: 0", "latent"),
        ("latent: [4, 4]", "latent"),
        ("latent: [4, 0, 4]", "latent"),
        ('image: {size: "16"}', "image.size"),
        ("image: {size: 16.0}", "image.size"),
        ("image: {size: 16, channels: 0}", "image.channels"),
        ("image: 16", "image"),
        ("name: 5", "name"),
        ("name: a/b", "name"),
        ("name: ..", "name"),
        ("losses: l1", "losses"),
        ("losses: [5]", "losses.0"),
        ("losses: [{weight: 5}]", "losses.0"),
        ("losses: [{type: l1, weight: '5'}]", "losses.0.weight"),
        ("losses: [{type: l1, weight: true}]", "losses.0.weight"),
        ("losses: [{type: l1, weight: .inf}]", "losses.0.weight"),
        ("losses: [{type: l1, weight: {share: 1, afer: 2}}]", "losses.0.weight.afer"),
        ("losses: [{type: l1, start: -1}]", "losses.0.start"),
        ("losses: [{type: l1, name: a b}]", "losses.0.name"),
        ("train: {steps: 1e3}", "train.steps"),
        ("train: {steps: 3, batch: yes}", "train.batch"),
        ("train: {steps: 3, optimizers: {generator: {lr: 0}}}", "train.optimizers.generator.lr"),
        ("train: {steps: 3, ema: 1}", "train.ema"),
        ("train: {steps: 3, keep: 1}", "train.keep"),
        ("train: {steps: 3, fakes: recon}", "train.fakes"),
        ("train: 3", "train"),
        ("encoder: {type: conv, widths: 8}", "encoder.widths"),
        ("encoder: [conv]", "encoder"),
    ],
)
def test_nothing_is_turned_into_something_else(faults, wrong, field):
    (line,) = faults(with_line(wrong))
    assert f": {field}: " in line
    assert line.startswith("r.yaml:")


def test_a_mistake_in_a_part_inside_a_part_has_its_place(faults):
    text = """\
extends: base.yaml
dataset:
  type: huggingface
  path: x
  fallback:
    type: drawn-faces
    count: none
    sede: 1
"""
    lines = faults(text, base=WHOLE)
    assert [line.split(": ")[:2] for line in lines] == [
        ["r.yaml:7:12", "dataset.fallback.count"],
        ["r.yaml:8:5", "dataset.fallback.sede"],
    ]
    assert "did you mean 'seed'?" in lines[1]


def test_a_file_that_is_no_yaml_is_one_message(faults):
    (line,) = faults("train: {batch: 4\nname: x\n")
    assert line.startswith("r.yaml:2:")


def test_a_missing_field_is_named(faults):
    lines = faults("name: x\ntrain: {steps: 1}\nlosses: [l1]\nimage: {}\n")
    assert lines == [
        "r.yaml:1:1: latent: Field required",
        "r.yaml:1:1: dataset: Field required",
        "r.yaml:1:1: decoder: Field required",
        "r.yaml:1:1: sampler: Field required",
        "r.yaml:4:8: image.size: Field required",
    ]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("train: {batch: 8}", "give either 'epochs' or 'steps'"),
        ("train: {steps: 3, epochs: 3}", "give either 'epochs' or 'steps'"),
        ("train: {steps: 3, batch: 8, accumulate: 3}", "accumulate: 3 does not divide batch: 8"),
        ("train: {steps: 3, fakes: [recon, recon]}", "fakes: 'recon' occurs twice; keep one"),
        (
            "losses: [l1, {type: kl, weight: {against: [l1, l1]}}]",
            "the weight of 'kl': against: 'l1' occurs twice",
        ),
        ("eval: {metrics: [psnr, psnr]}", "metrics: 'psnr' occurs twice"),
        ("eval: {metrics: [prdc, {type: prdc, k: 3}]}", "metrics: 'coverage' occurs twice"),
        ("losses: []", "an experiment without a loss learns nothing"),
        ("losses: [l1, {type: l1, weight: 2}]", "two losses are called 'l1'"),
    ],
)
def test_what_contradicts_itself_is_refused(faults, wrong, says):
    (line,) = faults(with_line(wrong))
    assert says in line


def test_two_losses_of_one_type_are_told_apart_by_name(load):
    recipe = load(with_line("losses: [l1, {type: l1, name: twice}]"))
    assert [loss.label for loss in recipe.losses] == ["l1", "twice"]


def test_reconstructions_can_be_no_fakes_without_an_encoder(faults):
    text = with_line("train: {steps: 3, fakes: [recon]}").replace("encoder:", "# encoder:")
    (line,) = faults(text)
    assert "train.fakes names 'recon', but there is no encoder" in line


def test_a_message_stays_short(faults):
    lines = faults(WHOLE + "".join(f"x{i}: 1\n" for i in range(30)))
    assert len(lines) == MAX_LINES == 10
    assert lines[-1] == "... and 21 more"  # 9 of 30 are shown


def test_braces_in_a_message_are_as_they_were(faults):
    (line,) = faults(with_line("name: a b"))
    assert "{0,63}$" in line
    assert "{{" not in line
    (line,) = faults(with_line("losses: [{type: l1, '{x}': 3}]"))
    assert "losses.0.{x}: unknown field" in line


def test_mistakes_of_file_and_command_line_come_together(faults):
    lines = faults(WHOLE + "trian: 1\n", ["train:batch=3", "latent=x"])
    assert [line.split(": ")[0] for line in lines] == [
        "--set latent",
        "--set train:batch",
        "r.yaml:14:1",
    ]


def test_a_file_that_cannot_be_read_is_said_so(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff")
    for name, reason in [
        ("none.yaml", "No such file or directory"),
        ("", f"not a regular file; images are given with: --data {tmp_path}"),
        ("/dev/null", "not a regular file$"),
        ("bytes.yaml", "no UTF-8 text"),
    ]:
        with pytest.raises(RecipeError, match=reason):
            vgx.load_recipe(tmp_path / name)


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "# only a comment\n"])
def test_a_recipe_is_a_mapping(faults, text):
    (line,) = faults(text)
    assert line == "r.yaml:1:1: a recipe is a mapping: 'name: ...' and so on"


# --- layers ------------------------------------------------------------------------------------


def test_mappings_merge_and_lists_and_scalars_replace(load):
    over = """\
extends: base.yaml
image: {channels: 1}
latent: 4
encoder: {widths: [4]}
losses: [l2]
train: {batch: 2}
"""
    recipe = load(over, base=WHOLE)
    assert recipe.name == "whole"
    assert recipe.image == vgx.ImageSpec(16, 1)
    assert recipe.latent.shape == (4,)
    assert (recipe.encoder.type, recipe.encoder.widths) == ("conv", (4,))
    assert [loss.type for loss in recipe.losses] == ["l2"]
    assert (recipe.train.steps, recipe.train.batch) == (20, 2)


def test_null_removes(load):
    over = "extends: base.yaml\nencoder: null\ntrain: {batch: ~}\n"
    recipe = load(over, base=WHOLE)
    assert recipe.encoder is None
    assert recipe.train.batch == 64  # the default, no longer 8


def test_what_null_removes_can_be_missed(faults):
    (line,) = faults("extends: base.yaml\nlatent: null\n", base=WHOLE)
    assert line == "r.yaml:1:1: latent: Field required"


def test_a_part_of_another_type_starts_afresh(load):
    base = with_line("sampler: {type: weighted-mix, of: 5, concentration: 2}")
    same = load("extends: base.yaml\nsampler: {type: weighted-mix, of: 2}\n", base=base)
    assert (same.sampler.of, same.sampler.concentration) == (2, 2.0)
    other = load("extends: base.yaml\nsampler: {type: prior}\n", base=base)
    assert other.sampler.model_dump() == {"type": "prior"}


def test_fields_may_be_laid_on_a_part_that_was_only_named(load):
    base = with_line("decoder: conv-transpose")
    recipe = load("extends: base.yaml\ndecoder: {widths: [16, 8]}\n", base=base)
    assert recipe.decoder == load(WHOLE).decoder


def test_a_name_alone_replaces_all_fields(load):
    recipe = load("extends: base.yaml\nencoder: conv\n", base=WHOLE)
    assert recipe.encoder == load(with_line("encoder: {type: conv}")).encoder
    assert recipe.encoder.widths != (8, 16)


def test_steps_take_the_place_of_inherited_epochs(load):
    epochs = with_line("train: {epochs: 3, batch: 8}")
    recipe = load("extends: base.yaml\ntrain: {steps: 7}\n", base=epochs)
    assert (recipe.train.epochs, recipe.train.steps) == (None, 7)
    recipe = load("extends: base.yaml\ntrain: {epochs: 2}\n", base=WHOLE)
    assert (recipe.train.epochs, recipe.train.steps) == (2, None)
    recipe = load(WHOLE, ["train.epochs=2"])
    assert (recipe.train.epochs, recipe.train.steps) == (2, None)


def test_steps_and_epochs_of_a_part_are_its_own(tmp_path):
    """Only `train` takes either of them; a part may have both."""
    (tmp_path / "warm.py").write_text(WARM)
    registry = vgx.discover([tmp_path / "warm.py"])
    text = WHOLE.replace("{type: l1, weight: 10}", "{type: warm, epochs: 7}")
    (tmp_path / "base.yaml").write_text(
        text.replace("sampler: prior", "sampler: {type: cold, epochs: 7}")
    )
    (tmp_path / "r.yaml").write_text("extends: base.yaml\nsampler: {steps: 4}\n")
    recipe = vgx.load_recipe(tmp_path / "r.yaml", ["losses.0.steps=4"], registry)
    assert (recipe.losses[0].epochs, recipe.losses[0].steps) == (7, 4)
    assert (recipe.sampler.epochs, recipe.sampler.steps) == (7, 4)


def test_a_chain_is_laid_from_the_bottom_up(load):
    recipe = load(
        "extends: middle.yaml\ntrain: {batch: 2}\n",
        middle="extends: base.yaml\nname: middle\nlatent: 4\ntrain: {batch: 4, seed: 5}\n",
        base=WHOLE,
    )
    assert (recipe.name, recipe.latent.shape, recipe.image.size) == ("middle", (4,), 16)
    assert (recipe.train.batch, recipe.train.seed, recipe.train.steps) == (2, 5, 20)


def test_extends_is_found_from_the_file_that_says_it(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.yaml").write_text(WHOLE)
    (tmp_path / "deep" / "r.yaml").write_text("extends: ../base.yaml\n")
    assert vgx.load_recipe(tmp_path / "deep" / "r.yaml", (), REGISTRY).name == "whole"


@pytest.mark.parametrize(
    ("text", "others", "place", "says"),
    [
        ("extends: r.yaml\n", {}, "r.yaml:1:10", "this goes round in a circle"),
        ("extends: ./r.yaml\n", {}, "r.yaml:1:10", "this goes round in a circle"),
        (
            "extends: a.yaml\n",
            {"a": "extends: b.yaml\n", "b": "\nextends: a.yaml\n"},
            "b.yaml:2:10",
            "this goes round in a circle",
        ),
        ("extends: none.yaml\n", {}, "r.yaml:1:10", "there is no such file"),
        ("extends: .\n", {}, "r.yaml:1:10", "there is no such file"),
        ("extends: [a.yaml]\n", {}, "r.yaml:1:10", "should be the path or name of another recipe"),
        ("extends: 5\n", {}, "r.yaml:1:10", "should be the path or name of another recipe"),
        ('extends: "a\\0b"\n', {}, "r.yaml:1:10", "should be the path or name of another recipe"),
    ],
)
def test_a_base_that_cannot_be(faults, text, others, place, says):
    lines = faults(text + WHOLE, **others)
    assert len(lines) == 1
    assert lines[0].startswith(f"{place}: extends: ")
    assert lines[0].endswith(says)


def test_a_mistake_in_a_base_is_reported_there(faults):
    base = WHOLE.replace("batch: 8", "bach: 8")
    lines = faults("extends: base.yaml\ntrain: {sede: 5}\nlatent: x\n", base=base)
    assert [line.split(": ")[:2] for line in lines] == [
        ["base.yaml:13:3", "train.bach"],
        ["r.yaml:2:9", "train.sede"],
        ["r.yaml:3:9", "latent"],
    ]


# --- --set -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["losses.0.weight", "losses[0].weight"])
def test_a_list_is_indexed(load, key):
    recipe = load(WHOLE, [f"{key}=3"])
    assert [loss.weight for loss in recipe.losses] == [3.0, 1.0]
    assert load(WHOLE, {key: 3}) == recipe


def test_an_item_of_a_list_is_replaced(load):
    assert [loss.type for loss in load(WHOLE, ["losses.1=l2"]).losses] == ["l1", "l2"]
    assert load(WHOLE, ["encoder.widths.1=32"]).encoder.widths == (8, 32)
    # In a loss that is only named:
    assert load(WHOLE, ["losses.1.unit=sample"]).losses[1].unit == "sample"


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("train.clip=1e-1", "train.clip", 0.1),
        ("name='1'", "name", "1"),
        ("latent=[4, 2, 2]", "latent", [4, 2, 2]),
        ("train.clip=", "train.clip", None),
        ("train={epochs: 3}", "train.epochs", 3),
        ("image={size: 32}", "image.size", 32),
        ("sampler={type: weighted-mix, of: 2}", "sampler.of", 2),
        ("sampler.type=weighted-mix", "sampler.of", 3),
        ("train.optimizers.generator.lr=1.0e-3", "train.optimizers.generator.lr", 0.001),
        ("train.optimizers.generator.type=a=b", "train.optimizers.generator.type", "a=b"),
    ],
)
def test_a_value_is_yaml(load, override, field, value):
    data = plain(load(WHOLE, [override]))
    for key in field.split("."):
        data = data[key]
    assert data == value


def test_of_two_settings_the_last_counts(load):
    assert load(WHOLE, ["train.batch=2", "train.batch=4"]).train.batch == 4
    assert load(WHOLE, ["train.epochs=2", "train.steps=4"]).train.steps == 4
    assert load(WHOLE, ["train.epochs=2", "train.steps=4"]).train.epochs is None


def test_overrides_as_values_are_not_parsed(load, faults):
    assert load(WHOLE, {"name": "1", "train.batch": 4}).name == "1"
    (line,) = faults(WHOLE, {"train.batch": "4"})
    assert line == "--set train.batch: train.batch: Input should be a valid integer (here: '4')"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.batch", "--set train.batch: write it as KEY=VALUE"),
        ("=4", "--set =4: write it as KEY=VALUE"),
        ("losses.2.weight=1", "--set losses.2.weight: there are items 0 to 1, not '2'"),
        (
            "losses.2=l2",
            "--set losses.2: there are items 0 to 1, not '2'; to add one, set the whole",
        ),
        ("losses.-1.weight=1", "--set losses.-1.weight: there are items 0 to 1, not '-1'"),
        ("losses.l1.weight=1", "--set losses.l1.weight: there are items 0 to 1, not 'l1'"),
        ("losses.0=", "--set losses.0: losses.0: should be the name of an installed loss"),
        ("trian.batch=1", "--set trian.batch: trian: unknown field"),
        ("train.bach=1", "--set train.bach: train.bach: unknown field"),
        ("train.=1", "--set train.: train.: unknown field"),
        ("train.batch.x=1", "--set train.batch.x: train.batch: Input should be a valid integer"),
        ("latent.x=1", "--set latent.x: latent: should be a positive whole number"),
        ("train.batch=[1", "--set train.batch: no YAML: "),
        ("train.batch=!!int 4", "--set train.batch: a tag ("),
        ("train.batch={a: 1, a: 2}", "--set train.batch: a: duplicate key"),
        ("extends=x.yaml", "--set extends: extends: unknown field"),
        ("encoder.type=con", "--set encoder.type: encoder: no installed encoder"),
    ],
)
def test_a_bad_setting_is_named_as_it_was_typed(faults, override, says):
    lines = faults(WHOLE, [override])
    assert lines[0].startswith(says)


def test_settings_of_a_part_are_read_as_those_of_a_recipe(load):
    settings = parse_settings(["of=4", "names=[a, b]", "of=5"])
    assert {key: node.plain() for key, node in settings.items()} == {"of": 5, "names": ["a", "b"]}
    with pytest.raises(RecipeError) as caught:
        parse_settings(["of", "x=1", "=1"])
    first, second = str(caught.value).splitlines()
    assert first == "--set of: write it as KEY=VALUE"
    assert second == "--set =1: write it as KEY=VALUE"
    # Whether a text may be no YAML depends on the part, so that is said with its other mistakes.
    fields = {"type": "weighted-mix", **parse_settings(["of=[1", "x=1"])}
    with pytest.raises(RecipeError) as caught:
        with_part(load(WHOLE), "sampler", fields, REGISTRY)
    first, second = str(caught.value).splitlines()
    assert first.startswith("--set of: no YAML: ")
    assert second.startswith("--set x: sampler.x: unknown field")


# Texts that YAML would cut, retype, or not read.
ODD = [
    "faces #2", "#2", "2024", "007", "1e3", "true", "a: b", "a: b: c", "[2024] faces", "x, y",
    " x ", "@faces", "*", "--- faces", "...", "{x}", "'a' #b", "0x10", ".nan", "- x",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_a_path_or_a_text_is_taken_as_it_stands(load, text):
    settings = [f"dataset.path={text}", "dataset.type=image-folder"]
    assert str(load(WHOLE, settings).dataset.path) == text
    assert load(WHOLE, ["allow=[]", "dataset={type: huggingface, path: a}",
                        f"dataset.path={text}"]).dataset.path == text  # fmt: skip
    settings = {"type": "reconstruct", **parse_settings([f"path={text}"])}
    assert str(with_part(load(WHOLE), "sampler", settings, REGISTRY).sampler.path) == text


def test_a_name_of_digits_is_a_name(load):
    assert load(WHOLE, ["name=2024"]).name == "2024"
    assert load(WHOLE, ["name=007"]).name == "007"
    assert load(WHOLE, ["name='007'"]).name == "007"  # quotes are YAML's, as ever
    assert load(WHOLE, ["losses.0.name=1"]).losses[0].label == "1"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("train.steps=10 #11", "--set train.steps: no value: in YAML '#11' is a comment"),
        ("train.steps=#11", "--set train.steps: no value: in YAML '#11' is a comment"),
        ("losses=[l1, kl] # two", "--set losses: no value: in YAML '# two' is a comment"),
        ("train={steps: 3} #", "--set train: no value: in YAML '#' is a comment"),
        ("sampler='prior' #x", "--set sampler: no value: in YAML '#x' is a comment"),
        ("train.steps=--- 10", "--set train.steps: no value: YAML reads only a part of it, 10"),
        ("train.steps=...", "--set train.steps: no YAML: "),
        ("encoder=conv #x", "--set encoder: no value: in YAML '#x' is a comment"),
        ("sampler= prior", "--set sampler: sampler: no installed sampler is called ' prior'"),
        ("train.batch=4: 5", "--set train.batch: train.batch: Input should be a valid integer"),
    ],
)
def test_a_value_is_the_whole_text_or_an_error(faults, setting, says):
    (line,) = faults(WHOLE, [setting])
    assert line.startswith(says)


def test_a_mark_of_a_comment_inside_a_value_is_none(load):
    text = "losses=[{type: l1, name: 'a-b'}, {type: kl, weight: 2}]"
    assert load(WHOLE, [text]).losses[0].label == "a-b"
    folder = load(WHOLE, ["dataset={type: image-folder, path: 'faces #2'}"]).dataset.path
    assert str(folder) == "faces #2"
    assert str(load(WHOLE, ["dataset={type: image-folder, path: a#b}"]).dataset.path) == "a#b"


@pytest.mark.parametrize(
    "settings",
    [
        ["dataset.label=hair_style", "dataset.type=drawn-faces", "image.classes=5"],
        ["dataset.label=hair_style", "dataset=drawn-faces", "image.classes=5"],
    ],
)
def test_the_order_of_settings_does_not_matter(load, settings):
    base = with_line("dataset: {type: image-folder, path: x}")
    wanted = load(base, settings[1:2] + settings[:1] + settings[2:])
    assert wanted.dataset.label == "hair_style"
    assert load(base, settings) == wanted
    pairs = [setting.split("=") for setting in settings]
    assert load(base, {key: int(v) if v == "5" else v for key, v in pairs}) == wanted


def test_a_whole_list_comes_before_its_items(load):
    settings = ["losses[0].weight=3", "losses=[l2, kl]"]
    assert [loss.weight for loss in load(WHOLE, settings).losses] == [3.0, 1.0]


def test_values_of_python_may_be_paths_numbers_of_numpy_and_parts(load, tmp_path):
    recipe = load(
        WHOLE,
        {
            "dataset": {"type": "image-folder", "path": tmp_path},
            "train.batch": np.int64(4),
            "losses.0.weight": np.float32(0.5),
            "encoder.widths": np.array([4, 8]),
            "train.ema_warmup": np.True_,
            "sampler": load(WHOLE, ["sampler={type: weighted-mix, of: 2}"]).sampler,
        },
    )
    assert recipe.dataset.path == tmp_path
    assert (recipe.train.batch, recipe.losses[0].weight) == (4, 0.5)
    assert (recipe.encoder.widths, recipe.train.ema_warmup) == ((4, 8), True)
    assert recipe.sampler.of == 2
    assert again(recipe, tmp_path) == recipe
    with pytest.raises(RecipeError, match="--set train.batch: a recipe has no values of type obj"):
        load(WHOLE, {"train.batch": object()})


HOMELY = '''
from pathlib import Path

import vgx


class Homely(vgx.Loss, type="homely"):
    """A loss with paths."""

    file: Path | None = None
    """One."""
    files: tuple[Path, ...] = ()
    """Several."""
    named: dict[str, Path] = {}
    """Several with names."""
    word: str = ""
    """No path."""


@vgx.hookimpl
def register_components(register):
    register(Homely)
'''


def test_the_home_directory_has_its_sign_in_every_path(tmp_path, monkeypatch):
    """In files, settings and Python, for parts of everybody; a text stays as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "homely.py").write_text(HOMELY)
    registry = vgx.discover([tmp_path / "homely.py"])
    (tmp_path / "base.yaml").write_text(
        WHOLE.replace("{type: l1, weight: 10}", "{type: homely, files: [~/a, b], word: ~/w}")
    )
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "r.yaml").write_text("extends: ~/base.yaml\n")
    settings = ["losses.0.file=~/f", "losses.0.named={x: ~/n}", "dataset={type: image-folder}"]
    recipe = vgx.load_recipe("~/deep/r.yaml", [*settings, "dataset.path=~/faces"], registry)
    loss = recipe.losses[0]
    assert loss.file == tmp_path / "f"
    assert loss.files == (tmp_path / "a", Path("b"))
    assert loss.named == {"x": tmp_path / "n"}
    assert loss.word == "~/w"
    assert recipe.dataset.path == tmp_path / "faces"
    assert type(recipe.dataset)(path=Path("~/x")).path == tmp_path / "x"
    assert type(recipe.dataset)(path=Path("~nobody-here/x")).path == Path("~nobody-here/x")
    monkeypatch.setenv("VGX_RUNS", "~/my runs")
    monkeypatch.setenv("VGX_CACHE", "~/my cache")
    assert runs_dir() == tmp_path / "my runs"
    assert runs_dir("~/others") == tmp_path / "others"
    assert vgx.cache_dir() == tmp_path / "my cache"


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("train.lr=1", "did you mean 'train.optimizers.generator.lr'?"),
        ("lr=1", "did you mean 'train.optimizers.generator.lr'?"),
        ("train.optimizers.lr=1", "did you mean 'train.optimizers.generator.lr'?"),
        ("batch_size=4", "did you mean 'train.batch'?"),
        ("size=32", "did you mean 'image.size'?"),
        ("Train.batch=4", "did you mean 'train'?"),
        ("train.Batch=4", "did you mean 'batch'?"),
        ("weight=4", "did you mean 'losses.0.weight'?"),
        ("losses.kl.weight=1", "did you mean 'losses.1.weight'?"),
        ("losses.L1=l2", "did you mean 'losses.0'?"),
        ("eval.metrics=[FID]", "did you mean 'fid'?"),
        ("eval.metrics=[ms_ssim]", "did you mean 'ms-ssim'?"),
        ("sampler=WeightedMix", "did you mean 'weighted-mix'?"),
        ("train.precision=BF16", "did you mean 'bf16'?"),
        ("dataset.path=x", "those with dataset.type huggingface or image-folder have it"),
        ("encoder.backbone=x", "those with encoder.type timm have it"),
        ("losses.1.backbone=x", "those with losses.1.type alignment or perceptual have it"),
    ],
)
def test_near_names_are_looked_for_in_the_whole_recipe(faults, setting, hint):
    (line,) = faults(WHOLE, [setting])
    assert hint in line


def test_near_names_know_no_case_and_no_punctuation():
    names = ["resnet18", "resnet50", "test_resnet", "fid", "ms-ssim"]
    near = {name: vgx.near(name, names) for name in ("resnet_18", "ResNet50", "FID", "MS SSIM")}
    assert near == {
        "resnet_18": "resnet18", "ResNet50": "resnet50", "FID": "fid", "MS SSIM": "ms-ssim",
    }  # fmt: skip
    assert vgx.near("qqqq", names) == ""
    assert vgx.near("--", names) == ""


# --- whole recipes -----------------------------------------------------------------------------


def test_a_part_may_be_just_its_name(load):
    assert load(with_line("encoder: conv")) == load(with_line("encoder: {type: conv}"))


def test_a_spatial_latent_is_three_numbers(load):
    recipe = load(with_line("latent: [4, 2, 2]"))
    assert recipe.latent.shape == (4, 2, 2)
    assert plain(recipe)["latent"] == [4, 2, 2]


def test_fakes_follow_from_the_networks_and_are_written_out(load):
    assert plain(load(WHOLE))["train"]["fakes"] == ["recon"]
    assert plain(load(WHOLE, ["encoder=null"]))["train"]["fakes"] == ["prior"]
    both = load(WHOLE, ["train.fakes=[prior, recon]"])
    assert both.train.fakes == ("prior", "recon")


def test_a_step_takes_a_minibatch_for_each_update_of_the_discriminator(load):
    gan = ["discriminator=patchgan", "losses=[hinge, l1]", "train.discriminator_steps=3"]
    assert load(WHOLE, gan).batches_per_step == 3
    assert load(WHOLE, ["train.discriminator_steps=3"]).batches_per_step == 1


def test_a_recipe_is_frozen(load):
    recipe = load(WHOLE)
    for change in (
        lambda: setattr(recipe, "name", "other"),
        lambda: setattr(recipe.train, "batch", 4),
        lambda: setattr(recipe.losses[0], "weight", 4.0),
    ):
        with pytest.raises((RecipeError, ValueError), match="frozen"):
            change()
    with pytest.raises(RecipeError, match=r'recipe\.with_\(\{"train\.steps": 10\}\)'):
        recipe.train.steps = 4


def again(recipe, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(vgx.dump_recipe(recipe))
    return vgx.load_recipe(path, (), REGISTRY)


OVERRIDES = {
    "as-it-is": [],
    "gan": [
        "encoder=null",
        "prior=null",
        "sampler=prior",
        "discriminators=null",
        "discriminator=null",
        "train.fakes=[prior]",
        "latent=[4, 2, 2]",
        "losses=[l1]",
    ],
    "vae": ["discriminator=null", "train.steps=3", "train.ema=null", "train.clip=0.5"],
    "schedule": [
        "losses=[{type: l1, name: no, weight: {from: 0, to: 1e-9, steps: 5, shape: cyclical}}]"
    ],
    "sgd": ["train.optimizers.generator={type: sgd, lr: 1e-30, momentum: 0.9}", "name='0x10'"],
    "large": ["train.optimizers.discriminator.betas=[0, 0.99]", "train.seed=9223372036854775807"],
}


@pytest.mark.parametrize(
    ("path", "overrides"),
    [
        pytest.param(
            path, given, id=f"{name}-{path.stem}",
            marks=() if not given or path.stem in ("tiny", "anime_vaegan") else pytest.mark.chaos,
        )
        for path in RECIPES
        for name, given in OVERRIDES.items()
    ],
)  # fmt: skip
def test_what_is_dumped_loads_as_the_same_recipe(path, overrides, tmp_path):
    recipe = vgx.load_recipe(path, overrides, REGISTRY)
    assert again(recipe, tmp_path) == recipe


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
        "latent": st.integers(1, 999) | st.tuples(*[st.integers(1, 99)] * 3).map(list),
        "losses.1.weight": st.floats(allow_nan=False, allow_infinity=False),
        "losses.1.start": st.integers(0, 10**9),
        "train.batch": st.integers(1, 10**6),
        "train.seed": st.integers(0, 2**63 - 1),
        "train.ema": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
        "train.optimizers.generator.lr": st.floats(0, exclude_min=True, allow_infinity=False),
    },
)


@given(FIELDS)
def test_any_numbers_survive_the_dump(tmp_path_factory, changes):
    recipe = vgx.load_recipe(TINY, changes, REGISTRY)
    assert again(recipe, tmp_path_factory.getbasetemp()) == recipe


def test_differences_are_named_by_their_dotted_fields(load):
    one = load(WHOLE)
    other = load(WHOLE, ["losses.0.weight=3", "encoder.widths=[8]", "train.batch=4"])
    assert differences(one, one) == {}
    assert differences(one, other) == {
        "encoder.widths.1": (16, None),
        "losses.0.weight": (10.0, 3.0),
        "train.batch": (8, 4),
    }


# --- schedules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        # From 2 to 4 in 8 steps: a quarter of the way is 2.5, and after the end it stays.
        ("linear", {0: 2, 1: 2.25, 2: 2.5, 4: 3, 8: 4, 9: 4, 1000: 4}),
        # 2 + 2 * (1 - cos(pi * n / 8)) / 2; cos(pi / 4) = sqrt(1 / 2)
        ("cosine", {0: 2, 2: 3 - 0.5**0.5, 4: 3, 6: 3 + 0.5**0.5, 8: 4, 9: 4}),
        # Cycles of 8: up during 4 steps, held during 4, and from the start again.
        ("cyclical", {0: 2, 1: 2.5, 2: 3, 4: 4, 7: 4, 8: 2, 9: 2.5, 12: 4, 16: 2}),
    ],
)
def test_a_schedule_goes_its_way(load, shape, values):
    line = f"losses: [{{type: l1, weight: {{from: 2, to: 4, steps: 8, shape: {shape}}}}}]"
    weight = load(with_line(line)).losses[0].weight
    for number, value in values.items():
        assert weight.at(number) == pytest.approx(value, abs=1e-12), number


def test_a_schedule_may_fall(load):
    weight = load(with_line("losses: [{type: l1, weight: {from: 1, to: 0, steps: 4}}]")).losses[0]
    assert [weight.weight.at(n) for n in (0, 1, 4, 5)] == [1, 0.75, 0, 0]


# --- the schema for editors --------------------------------------------------------------------

SCHEMA = recipe_schema(REGISTRY)


def schema_faults(text):
    data = read(text, "r.yaml")[0].plain()
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(data)]


def test_the_schema_is_a_schema():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_schema_accepts_every_recipe(path):
    assert schema_faults(path.read_text()) == []


def test_the_schema_accepts_what_is_dumped(load):
    weight = "losses.0.weight={from: 0, to: 1, steps: 5}"
    for overrides in ([], [weight], ["latent=[4, 2, 2]", "encoder=null"]):
        assert schema_faults(vgx.dump_recipe(load(WHOLE, overrides))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "trian: {steps: 3}",
        "train: {stesp: 3}",
        "encoder: {type: conv, width: [8]}",
        "encoder: {type: convv}",
        "encoder: convv",
        "decoder: conv",  # an encoder
        "losses: [{type: l1, weigth: 3}]",
        "losses: [{weight: 3}]",
        'latent: "8"',
        "image: {sise: 16}",
        "train: {steps: 3, optimizers: {generator: {lr: fast}}}",
    ],
)
def test_the_schema_refuses_a_mistake(wrong):
    assert schema_faults(WHOLE) == []
    assert schema_faults(with_line(wrong)) != []


def test_the_schema_lets_only_an_extension_leave_things_out():
    assert schema_faults("name: x\n") != []
    assert schema_faults("extends: base.yaml\nname: x\n") == []
    assert schema_faults("extends: base.yaml\nnam: x\n") != []
    for part in ("encoder: {widths: [8]}", "image: {channels: 1}", "dataset: {non_rgb: skip}"):
        assert schema_faults(f"extends: base.yaml\n{part}\n") == []
        assert schema_faults(with_line(part)) != []
    assert schema_faults("extends: base.yaml\nencoder: {width: [8]}\n") != []
    assert schema_faults("extends: base.yaml\nlosses: [{weight: 8}]\n") != []  # never merged


def test_the_first_experiment_differs_from_its_recipe_in_what_is_said():
    """Nearest pixels and black corners, no averaged weights, and the default rate of Adam."""
    ours, first = (
        vgx.load_recipe(TINY.with_name(f"{name}.yaml"), (), REGISTRY)
        for name in ("anime_vaegan", "anime_vaegan_seed")
    )
    assert differences(ours, first) == {
        "name": ("anime-vaegan", "anime-vaegan-seed"),
        "augment.1.interpolation": ("bilinear", "nearest"),
        "augment.1.fill": ("edge", 0.0),
        "train.ema": (0.98, None),
        "train.optimizers.generator.lr": (3e-4, 2e-4),
        "train.optimizers.discriminator.lr": (5e-5, 2e-4),
    }


def test_an_optimizer_of_another_type_takes_no_rate_from_an_adam_without_a_type(tmp_path):
    other = {"train.optimizers.generator.type": "lion"}
    written = tmp_path / "recipe.yaml"
    written.write_text(vgx.dump_recipe(vgx.load_recipe("anime_vaegan")))
    for recipe in ("anime_vaegan", written):
        assert vgx.load_recipe(recipe, other).train.optimizers.generator.lr == 2e-4
    same = vgx.load_recipe("anime_vaegan", {"train.optimizers.generator.type": "adam"})
    assert same.train.optimizers.generator.lr == 3e-4


def test_the_seed_of_the_training_is_meant_more_often_than_another():
    with pytest.raises(RecipeError, match=r"did you mean 'train\.seed'"):
        vgx.load_recipe("tiny", ["seed=7"])


def test_one_setting_may_be_given_as_a_text():
    assert vgx.load_recipe("tiny", "train.batch=4").train.batch == 4
