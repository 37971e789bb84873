"""What is varied, what a study's storage may contain, and what is made of figures."""

from __future__ import annotations

import itertools
import json
import math
import sys

import pytest

import vgx
from vgx_sweep import ablation, results, sweep_page
from vgx_sweep.plan import VARIANT, WHOLE, Plan, fitted, read_plan, with_metric
from vgx_sweep.results import Row
from vgx_sweep.running import planned
from vgx_sweep.space import Range, Values, grid, parsed

pytest.importorskip("optuna")
REGISTRY = vgx.discover()
TINY = vgx.load_recipe("tiny", (), REGISTRY)
MEASURED = vgx.load_recipe(TINY, ["eval.metrics=[psnr]"], REGISTRY)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("losses.1.weight=1,10,100", (1, 10, 100)),
        ("losses[1].weight=1e-3, 0.5", (0.001, 0.5)),
        ("encoder.widths=[[16,32],[32,64]]", ([16, 32], [32, 64])),
        ("encoder.widths=[16,32],[32,64]", ([16, 32], [32, 64])),
        ("sampler=prior,{type: weighted-mix, of: 2}", ("prior", {"type": "weighted-mix", "of": 2})),
        ("train.ema=null,0.9", (None, 0.9)),
        ("train.compile=true,false", (True, False)),
        ("dataset.path=a:b", ("a:b",)),
    ],
)
def test_a_list_is_yaml(text, values):
    found = parsed(text)
    assert isinstance(found, Values)
    assert found.values == values
    assert [type(value) for value in found.values] == [type(value) for value in values]
    assert found.field in ("losses.1.weight", text.partition("=")[0])
    # As parameters of a trial no two are equal, and each leads back to its value.
    assert [found.value(choice) for choice in found.choices] == list(values)
    assert len({*found.choices}) == len(values)


def test_equal_numbers_of_other_kinds_are_kept_apart():
    found = parsed("x=1,true")
    assert [found.value(choice) for choice in found.choices] == [1, True]
    assert found.value(found.choices[1]) is True


@pytest.mark.parametrize(
    ("text", "low", "high", "log", "whole"),
    [
        ("a=0.1:10:log", 0.1, 10, True, False),
        ("a=8:64", 8, 64, False, True),
        ("a=-1:1e-1", -1, 0.1, False, False),
    ],
)
def test_a_range_has_two_ends(text, low, high, log, whole):
    assert parsed(text) == Range(field="a", low=low, high=high, log=log, whole=whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("losses.1.weight", "write it as FIELD=a,b,c or FIELD=low:high"),
        ("a=", "write it as"),
        ("a=3:1", "the first number must be less"),
        ("a=3:3", "the first number must be less"),
        ("a=0:1:log", "begins above 0"),
        ("a=1,2,1", "occurs twice"),
        ("a=1,2,1.0", "occurs twice"),
        ("a=[1,", "no"),
        ("a=" + ",".join(map(str, range(1001))), "more than 1,000 values"),
    ],
)
def test_what_is_no_list_and_no_range_is_told(text, message):
    with pytest.raises(vgx.RecipeError, match=message):
        parsed(text)


def test_a_grid_has_each_combination_once():
    axes = [parsed("a=1,2,3"), parsed("b=[x],[y]")]
    points = grid(axes)
    assert [tuple(point.values()) for point in points] == [
        *itertools.product([1, 2, 3], ['["x"]', '["y"]'])
    ]
    wide = [parsed(f"{name}=" + ",".join(map(str, range(30)))) for name in "abc"]
    with pytest.raises(vgx.RecipeError, match="27,000 points, more than 10,000.*--trials"):
        grid(wide)
    hundred, *_ = full = [parsed(f"{name}=" + ",".join(map(str, range(100)))) for name in "ab"]
    assert len(grid(full)) == 10_000  # just as many as are allowed
    with pytest.raises(vgx.RecipeError, match="10,100 points"):
        grid([hundred, parsed("b=" + ",".join(map(str, range(101))))])


def test_whole_ends_are_whole_numbers_only_for_fields_that_take_no_others():
    ranges = [parsed("losses.1.weight=1:9"), parsed("train.batch=4:8")]
    weight, batch = fitted(ranges, TINY, REGISTRY)
    assert (weight.whole, batch.whole) == (False, True)
    with pytest.raises(vgx.RecipeError, match="^--over losses.1.wait: "):
        fitted([parsed("losses.1.wait=1:9")], TINY, REGISTRY)
    # Both ends are tried, and what lies between whole numbers: 1.5 is no probability, 0.5 is one.
    (probability,) = fitted([parsed("augment.0.p=0:1")], TINY, REGISTRY)
    assert not probability.whole
    with pytest.raises(vgx.RecipeError, match="^--over augment.0.p: "):
        fitted([parsed("augment.0.p=0:2")], TINY, REGISTRY)


def test_the_metric_is_added_where_the_recipe_has_it_not():
    recipe = with_metric(TINY, "psnr", REGISTRY)
    assert recipe.eval.better == {"psnr": "higher"}
    assert recipe.eval.every == TINY.train.steps
    assert with_metric(recipe, "psnr", REGISTRY) == recipe
    both = with_metric(recipe, "l1", REGISTRY)
    assert both.eval.better == {"psnr": "higher", "l1": "lower"}
    with pytest.raises(vgx.RecipeError, match="did you mean 'psnr'"):
        with_metric(TINY, "psn", REGISTRY)
    with pytest.raises(vgx.RecipeError, match=r"--set eval.every=500"):
        with_metric(TINY, "psnr", REGISTRY, often=True)


def a_plan(over=("losses.1.weight=1,10",), trials=None, seeds=1, recipe=TINY, **more):
    given = {"by": "psnr", "search": None, "prune": None, **more}
    return planned(recipe, REGISTRY, over, trials, seeds, **given)


@pytest.mark.parametrize(
    ("over", "more", "message"),
    [
        ([], {}, "--over FIELD"),
        (["losses.1.weight=1:9"], {}, "--trials 20"),
        (["losses.1.weight=1,9"], {"search": "random"}, "without it a grid is tried"),
        (["train.seed=1,2"], {}, "--seeds N"),
        (["losses.1.weight=1,9", "losses[1].weight=3,4"], {}, "occurs twice"),
        (["losses.1.weight=1,-"], {}, "losses.1.weight"),
        (["losses.1.weight=1,2", "train.batch=8,0"], {}, "^--over train.batch: "),
        (["losses.1.weight=1,2"], {"by": None}, "Give --by METRIC: bits-per-dim, "),
        (["losses.1.weight=1,2"], {"by": None, "recipe": MEASURED}, "Give --by METRIC: psnr$"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_is_trained(over, more, message):
    with pytest.raises(vgx.RecipeError, match=message):
        a_plan(over, **more)


def test_the_recipe_of_a_point_is_that_of_vgx_run_with_the_same_settings():
    plan = a_plan(["losses.1.weight=1,10", "encoder.widths=[[8,16],[4,8]]"], seeds=3)
    recipes = plan.recipes(plan.base(REGISTRY), plan.grid[3], REGISTRY)
    settings = [
        "losses.1.weight=10",
        "encoder.widths=[4, 8]",
        "eval.metrics=[psnr]",
        "eval.every=20",
    ]
    assert recipes == [
        vgx.load_recipe("tiny", [*settings, f"train.seed={seed}"], REGISTRY) for seed in (0, 1, 2)
    ]


# --- a storage may be a stranger's ---------------------------------------------------------------


def test_a_plan_comes_back_from_its_storage():
    for plan in (a_plan(["losses.1.weight=0.1:9:log"], 7, 2), a_plan(["sampler=prior,[1]"[:13]])):
        assert read_plan(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"points": 10**9}, "points"),
        ({"points": 3}, "number of points"),
        ({"seeds": 10**6}, "seeds"),
        ({"seeds": "3"}, "seeds"),
        ({"over": []}, "over"),
        ({"over": [{"field": "a", "values": [1]}] * 2, "points": 1}, "occurs twice"),
        ({"over": [{"field": "a", "values": [1], "code": "x"}]}, "over"),
        ({"search": "cmaes"}, "search"),
        ({"better": "faster"}, "better"),
        ({"run": "rm -rf"}, "run"),
        ({"recipe": 5}, "recipe"),
    ],
)
def test_a_plan_of_a_stranger_is_validated(changed, message):
    good = json.loads(a_plan().model_dump_json())
    with pytest.raises(vgx.StorageError, match=message):
        read_plan(json.dumps({**good, **changed}))


@pytest.mark.parametrize("value", ["", "{", "[]", None, 3, "x" * 100])
def test_what_is_no_plan_is_refused(value):
    with pytest.raises(vgx.StorageError, match="not made by vgx sweep"):
        read_plan(value)


@pytest.mark.parametrize(
    "recipe",
    [
        "extends: tiny",
        "- 1",
        "a: &x 1\nb: *x",
        "name: !!python/object x",
        "name: [",
        "name: 7",
    ],
)
def test_the_recipe_of_a_strangers_study_is_read_like_any_recipe(recipe):
    plan = a_plan().model_copy(update={"recipe": recipe})
    with pytest.raises(vgx.RecipeError):
        plan.base(REGISTRY)


@pytest.mark.parametrize(
    "parameters", [{}, {"losses.1.weight": 5}, {"losses.1.weight": [1]}, {"other": 1}]
)
def test_parameters_that_are_not_those_of_the_plan_are_refused(parameters):
    with pytest.raises(vgx.StorageError, match="other parameters"):
        a_plan().settings(parameters)


@pytest.mark.parametrize("value", [0.5, 10, "2", True, None])
def test_values_outside_of_a_range_are_refused(value):
    with pytest.raises(vgx.StorageError, match="other parameters"):
        a_plan(["losses.1.weight=1:9"], 3).settings({"losses.1.weight": value})


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_importance_of_a_field_that_does_nothing_is_small():
    plan = a_plan(["losses.1.weight=1,2,3,4,5,6", "train.batch=8,16,24,32"], seeds=3)
    rows = [
        Row(i, i, "complete", point, {
            str(s): point["losses.1.weight"] + 0.01 * math.sin(7 * i + s) for s in range(3)
        })
        for i, point in enumerate(plan.grid)
    ]  # fmt: skip
    first, second = results.importances(plan, rows)
    assert (first.field, second.field) == ("losses.1.weight", "train.batch")
    assert first.mean > 0.95
    assert 0 <= second.mean < 0.05
    assert 0 < first.spread < 0.05
    # Figures without any pattern: the spread says that nothing is known.
    noise = [
        Row(i, i, "complete", point, {str(s): math.sin(1e4 * (i + 31 * s)) for s in range(3)})
        for i, point in enumerate(plan.grid)
    ]
    assert all(each.spread > 0.1 for each in results.importances(plan, noise))
    assert results.importances(plan, rows[:3]) == []


def test_differences_are_paired_seed_by_seed():
    """Worked by hand: differences 1, 2, 3; mean 2, deviation 1, interval 4.303 / sqrt(3)."""
    changes = {WHOLE: {}, "loss kl": {"losses": []}, "loss bce": {}}
    plan = Plan(
        recipe="", over=(Values(field=VARIANT, values=tuple(changes)),), changes=changes, points=3,
        seeds=3, by="psnr", better="higher",
    )  # fmt: skip
    whole = {"0": 10.0, "1": 20.0, "2": 30.0}
    figures = {
        WHOLE: whole,
        "loss kl": {"0": 11.0, "1": 22.0, "2": 33.0},
        "loss bce": {"0": 2.0, "1": 12.1, "2": 22.0},
    }
    rows = [
        Row(i, i, "complete", {VARIANT: name}, each)
        for i, (name, each) in enumerate(figures.items())
    ]
    bce, kl = ablation.differences(plan, rows)  # what matters most first
    assert (kl.name, kl.mean, kl.difference, kl.paired) == ("loss kl", 22.0, 2.0, 1.0)
    assert kl.interval == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert kl.unpaired == pytest.approx(math.hypot(10, 11))
    assert kl.reading == "no difference seen"
    assert bce.difference == pytest.approx(-23.9 / 3)
    assert bce.reading == "worse without it"
    assert ablation.differences(plan, rows[1:]) == []  # nothing to compare with
    lower = plan.model_copy(update={"better": "lower"})
    by_loss = ablation.differences(lower, rows)
    assert by_loss[-1].reading == "better without it"
    assert sweep_page._summary(lower, rows, [], by_loss) == [
        "Better without: loss bce.", "No difference is seen without: loss kl."
    ]  # fmt: skip
    alone = [Row(r.point, r.trial, r.state, r.parameters, {"0": r.figures["0"]}) for r in rows]
    assert {d.reading for d in ablation.differences(plan, alone)} == {"unknown with one seed"}


def test_each_term_augmentation_and_the_average_is_left_out_once():
    recipe = vgx.load_recipe(
        "tiny", {"diff_augment": ["horizontal-flip", "horizontal-flip"]}, REGISTRY
    )
    found = ablation.variants(recipe)
    assert list(found) == [
        "loss bce-adversarial", "loss l1", "loss bce", "loss kl",
        "augment horizontal-flip", "augment rotation",
        "diff_augment horizontal-flip", "diff_augment horizontal-flip 2", "averaged weights",
    ]  # fmt: skip
    changed = vgx.load_recipe(recipe, found["loss l1"], REGISTRY)
    assert [loss.label for loss in changed.losses] == ["bce-adversarial", "bce", "kl"]
    assert vgx.load_recipe(recipe, found["averaged weights"], REGISTRY).train.ema is None
    one = vgx.load_recipe("vae", {"augment": [], "losses": ["bce"]}, REGISTRY)
    assert ablation.variants(one) == {}


def test_a_variant_that_trains_nothing_is_refused_or_loses_the_discriminator():
    gan = vgx.load_recipe("tiny", {"losses": ["bce-adversarial", "l1"]}, REGISTRY)
    variants = {name: ablation.variants(gan)[name] for name in ("loss bce-adversarial", "loss l1")}
    allowed, refused = ablation.possible(gan, variants, REGISTRY, "cpu")
    title = "loss bce-adversarial with the discriminator"
    assert allowed.keys() == {title, "loss l1"}
    assert refused == {}
    assert vgx.load_recipe(gan, allowed[title], REGISTRY).discriminator is None
    vae = {"discriminator": None, "losses": ["l1", "kl"]}
    vae = vgx.load_recipe("tiny", vae, REGISTRY)
    variants = {"loss l1": ablation.variants(vae)["loss l1"]}
    allowed, refused = ablation.possible(vae, variants, REGISTRY, "cpu")
    assert allowed == {}
    assert "decoder" in refused["loss l1"]


@pytest.mark.parametrize("command", ["sweep", "ablate"])
def test_without_optuna_it_is_said_what_to_install(command, monkeypatch, capsys):
    from vgx.cli import run_program

    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run_program([command, "tiny", "--by", "psnr"]) == 2
    assert "pip install 'vgx[sweep]'" in capsys.readouterr().err
