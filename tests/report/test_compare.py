"""Runs beside each other: what their recipes differ in, and what their files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import vgx
from vgx.errors import StorageError
from vgx.runs import frames
from vgx_report import compare

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def recipe(**changes):
    base = {
        "name": "a",
        "latent": 8,
        "encoder": {"type": "conv", "widths": [8, 16]},
        "losses": [{"type": "l1", "weight": 100.0}, {"type": "kl", "weight": 1.0}],
        "train": {"steps": 20, "batch": 8},
    }
    return base | changes


def test_recipes_that_differ_in_nothing_but_their_names():
    assert compare.differences([recipe(), recipe(name="b")]) == []


def test_a_field_that_differs_stands_by_its_path():
    other = recipe(train={"steps": 20, "batch": 16}, latent=[8, 4, 4])
    rows = compare.differences([recipe(), other, recipe()])
    assert rows == [("latent", "8", "[8, 4, 4]", "8"), ("train.batch", "8", "16", "8")]


def test_parts_of_one_type_differ_by_field_and_others_as_wholes():
    wider = recipe(encoder={"type": "conv", "widths": [8, 32]})
    assert compare.differences([recipe(), wider]) == [("encoder.widths", "[8, 16]", "[8, 32]")]
    other = recipe(encoder={"type": "residual", "norm": None, "deep": True})
    assert compare.differences([recipe(), other, recipe(encoder=None)]) == [
        ("encoder", "{type: conv, widths: [8, 16]}", "{type: residual, deep: true}", "-")
    ]


def test_losses_are_held_together_by_their_names():
    """In whatever order they stand, and whatever stands between them."""
    mine = [
        {"type": "kl", "weight": {"from": 0, "to": 2}},
        {"type": "bce", "weight": 1},
        {"type": "l1", "weight": 100.0},
        {"type": "l1", "weight": 3.0},
        {"type": "l1", "weight": 4.0, "name": "near"},
    ]
    assert compare.differences([recipe(), recipe(losses=mine)]) == [
        ("losses", "l1, kl", "kl, bce, l1, l1 2, near"),
        ("losses.kl.weight", "1.0", "{from: 0, to: 2}"),
        ("losses.bce", "-", "{type: bce, weight: 1}"),
        ("losses.l1 2", "-", "{type: l1, weight: 3.0}"),
        ("losses.near", "-", "{type: l1, weight: 4.0, name: near}"),
    ]
    swapped = recipe(losses=recipe()["losses"][::-1])
    assert compare.differences([recipe(), swapped]) == []
    changes = [{"type": "rotation"}, {"type": "horizontal-flip"}]
    assert compare.differences([recipe(augment=changes), recipe(augment=changes[::-1])]) == [
        ("augment", "rotation, horizontal-flip", "horizontal-flip, rotation")
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of the tiny recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(tmp_path_factory.mktemp("cache")))
        return vgx.run(vgx.load_recipe(TINY), out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def runs(made, tmp_path):
    """Two copies of a run, the second of another seed and three times as slow."""
    found = [vgx.Run(shutil.copytree(made.path, tmp_path / n)) for n in ("0001-a", "0002-b")]
    text = found[1].recipe_file.read_text()
    assert "seed: 0" in text
    found[1].recipe_file.write_text(text.replace("seed: 0", "seed: 4"))
    lines = [line | {"seconds": 3 * line["seconds"]} for line in found[1].read_log()]
    found[1].log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return found


def read(runs):
    return [compare.read(run) for run in runs]


def change(run, file, **changes):
    path = run.path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_page_s_curves_are_the_logs(runs):
    data = compare.gather(read(runs))
    shown = {group["title"]: group["lines"] for group in data["curves"]["groups"]}
    for i, run in enumerate(runs):
        log = run.read_log()
        for name in log[0]["losses"]:
            line = next(line for line in shown[name] if line["run"] == i)
            axes = data["curves"]["axes"][line["axes"]]
            assert axes["step"] == [each["step"] for each in log]
            assert axes["images"] == [each["images"] for each in log]
            assert axes["seconds"] == [each["seconds"] for each in log]
            assert line["values"] == pytest.approx([e["losses"][name] for e in log], rel=1e-5)
    assert json.loads(json.dumps(data)) is not None


def test_a_curve_of_one_run_alone_comes_after_those_of_both(runs):
    lines = [line | {"losses": {"own": 1.0, **line["losses"]}} for line in runs[0].read_log()]
    runs[0].log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = compare.gather(read(runs))["curves"]["groups"]
    titles = [group["title"] for group in groups]
    assert {"Gradient norm: decoder", "Discriminator's accuracy: real images"} < set(titles)
    assert "Training speed" in titles
    assert [len(group["lines"]) for group in groups] == [2] * (len(groups) - 1) + [1]
    assert groups[-1]["title"] == "own"


def test_each_run_s_pictures_are_there_as_far_as_it_went(runs):
    for name in ("step-00000010.png", "step-00000020.png"):
        (runs[1].samples / name).unlink()
    data = compare.gather(read(runs))["progress"]
    assert data["places"] == [1, 2, 5, 10, 20]
    steps = [[frame["step"] for frame in frames] for frames in data["runs"]]
    assert steps == [[1, 2, 5, 10, 20], [1, 2, 5]]


def test_whether_latents_and_pictures_are_the_same_is_said(runs):
    notes = compare.gather(read(runs))["progress"]["notes"]
    same = "Drawn by the sampler of each recipe, with the same random numbers at each step"
    assert notes["samples"] == f"{same}."  # the seeds differ
    assert notes["prior"].startswith("Not the same latents")
    assert notes["recon"].startswith("The same real images")
    shutil.copy(runs[0].recipe_file, runs[1].recipe_file)
    change(runs[1], "environment.json", data={"content": "other", "kept": 1})
    notes = compare.gather(read(runs))["progress"]["notes"]
    assert notes["samples"] == f"{same} and in each run."
    assert notes["prior"].startswith("The same latents at the same places of each grid")
    titles = compare.gather(read(runs))["progress"]["titles"]
    assert titles["samples"] == "Sampler weighted-mix"
    assert notes["recon"].startswith("Not the same real images")
    assert compare.notices(read(runs))[0] == "They were not trained on the same images."


def test_the_summary_says_which_run_is_clearly_better_in_what(runs):
    two = read(runs)
    for run, psnr, ssim in zip(two, (20.0, 20.1), (0.5, 0.9), strict=True):
        figures = {
            name: {"mean": mean, "spread": 0.1, "values": [mean - 0.1, mean + 0.1]}
            | {"better": "higher"}
            for name, mean in (("psnr", psnr), ("ssim", ssim))
        }
        part = {"pictures": 10, "split": "held out", "figures": figures}
        run.evaluation.update(
            {"step": 20, "format": 3, "data": {"content": "x"}, "metrics": [], "features": []},
            reconstruction=part,
        )
    summary = compare.gather(two)["summary"]
    assert summary[1:] == ["Clearly better, reconstruction: 0002-b in ssim."]


def test_a_run_that_went_on_after_it_was_judged_is_named(runs):
    (runs[0].path / "evaluation.json").write_text(json.dumps({"step": 10}))
    assert compare.notices(read(runs)) == [
        "0002-b was not evaluated: vgx eval 0002-b",
        "0001-a was evaluated at step 10, and was trained further since.",
    ]


def test_the_facts_are_those_of_the_files(runs):
    facts = {name: cells for name, *cells in compare.facts(read(runs))}
    last = runs[0].read_log()[-1]
    assert facts["state"] == ["done", "done"]
    assert facts["steps"] == [f"{last['step']:,}"] * 2
    assert facts["images seen"] == [f"{last['images']:,}"] * 2
    assert "comes from" not in facts
    weights = json.loads((runs[0].path / "audit.json").read_text())["rows"]
    assert facts["parameters"] == [f"{sum(row['parameters'] for row in weights):,}"] * 2
    assert facts["evaluated at step"] == ["not evaluated"] * 2
    assert "note" not in facts
    (runs[1].path / "note.txt").write_text("less KL")
    assert {name: cells for name, *cells in compare.facts(read(runs))}["note"] == ["", "less KL"]


def test_the_steps_of_a_run_that_was_stopped_are_all_counted(runs):
    """The last ones may not be in its log: 13 steps of 8 images."""
    lines = [line for line in runs[1].read_log() if line["step"] <= 10]
    runs[1].log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    change(runs[1], "ended.json", how="stopped", step=13)
    change(runs[1], "environment.json", parent={"run": "0001-a", "step": 5, "how": "fork"})
    facts = {name: cells for name, *cells in compare.facts(read(runs))}
    assert facts["steps"] == ["20", "13"]
    assert facts["images seen"] == ["160", "104"]
    assert facts["comes from"] == ["-", "a fork of 0001-a at step 5"]
    (runs[1].path / "evaluation.json").write_text(json.dumps({"step": 13}))
    texts = compare.notices(read(runs))
    assert not any("trained further" in text for text in texts)
    (runs[1].path / "evaluation.json").write_text(json.dumps({"step": 10}))
    texts = compare.notices(read(runs))
    assert "0002-b was evaluated at step 10, and was trained further since." in texts


def test_images_that_were_made_in_another_way_are_not_compared(runs):
    text = runs[1].recipe_file.read_text()
    assert "fit: squash" in text
    runs[1].recipe_file.write_text(text.replace("fit: squash", "fit: crop"))
    texts = compare.notices(read(runs))
    assert "Their images differ in image.fit: their figures cannot be compared." in texts


def test_a_metric_and_a_loss_of_one_name_have_two_charts(runs):
    for run in runs:
        lines = [line | {"metrics": {"l1": 10.0}} for line in run.read_log()]
        run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = compare.gather(read(runs))["curves"]["groups"]
    charts = {group["title"]: group for group in groups}
    assert [line["values"][-1] for line in charts["metrics/l1"]["lines"]] == [10.0, 10.0]
    assert [len(charts[name]["lines"]) for name in ("l1", "metrics/l1")] == [2, 2]
    assert all(line["values"][-1] < 1 for line in charts["l1"]["lines"])


def test_a_metric_of_the_first_run_and_a_loss_of_the_second_have_two_charts(runs):
    lines = [line | {"losses": {"kl": 1.0}, "metrics": {"l1": 10.0}} for line in runs[0].read_log()]
    runs[0].log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = compare.gather(read(runs))["curves"]["groups"]
    titles = [group["title"] for group in groups]
    assert {"l1", "metrics/l1"} < {*titles}
    assert len({*titles}) == len(titles)


def test_a_run_without_a_log_is_compared_as_far_as_it_goes(runs):
    runs[1].log_file.unlink()
    (runs[1].path / "ended.json").unlink()
    shutil.rmtree(runs[1].samples)
    data = compare.gather(read(runs))
    assert {name: two for name, _, two in data["facts"]}["steps"] == "-"
    assert data["progress"]["runs"][1] == []


TORN = '{"step": 1, "reconstruction": {"figures": {"psnr": {"mean": 1}}}}'


@pytest.mark.parametrize("content", ["[]", '{"step": 1, "generation": 7}', "nothing", TORN])
def test_a_damaged_evaluation_costs_itself(runs, content):
    (runs[0].path / "evaluation.json").write_text(content)
    data = compare.gather(read(runs))
    (told,) = [text for text in data["notices"] if "left out" in text]
    assert str(runs[0].path / "evaluation.json") in told
    assert {name: cells for name, *cells in data["facts"]}["evaluated at step"] == [
        "not evaluated"
    ] * 2


@pytest.mark.parametrize("name", ["environment.json", "audit.json", "ended.json", "log.jsonl"])
def test_a_file_that_cannot_be_read_costs_itself(runs, name):
    (runs[0].path / name).unlink()
    (runs[0].path / name).mkdir()
    data = compare.gather(read(runs))
    told = [*data["notices"], *data["facts"][0]]  # the first of the facts is the state
    assert [text for text in told if f"{name}: not a regular file" in text]


def test_a_run_without_a_recipe_is_refused(runs):
    runs[1].recipe_file.write_text("[")
    with pytest.raises(StorageError, match=r"0002-b/recipe\.yaml:1:2: "):
        read(runs)


@pytest.mark.parametrize(
    ("size", "pixels"),
    [(64, 4096), ([48, 96], 4608), ([9999, 2], 8192), ("64", 0), ([48], 0), ([8, 8, 8], 0)],
)
def test_how_large_a_grid_may_be_follows_from_height_and_width(size, pixels):
    """Of at most 4096 pixels a side, whatever a stranger's recipe says; 0 if it is none."""
    assert frames.pixels_of({"image": {"size": size}}) == pixels
