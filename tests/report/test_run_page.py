"""The page of a run: what it says comes from the run's files, and nothing in them is believed."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
import re
import shutil
import signal
from pathlib import Path
from unittest import mock

import numpy as np
import pydantic
import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import Normal, kl_divergence

import vgx
from vgx.console import Console
from vgx.data.store import Store
from vgx.engine.engine import Engine
from vgx.errors import DivergedError, Stopped, StorageError
from vgx.evaluation.latents import Latents, latent_metrics
from vgx.sampling import model as sampling
from vgx.training import session as training
from vgx_report import curves, diagram, panels, run_data, run_page

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
CPU = torch.device("cpu")


def console():
    return Console(file=io.StringIO(), width=1000)


def tiny(changes=None):
    return vgx.load_recipe(TINY, {"train.steps": 8, "train.log_every": 1} | (changes or {}))


def page_of(run):
    return (run.path / "report.html").read_text(encoding="utf-8")


def data_in(page):
    """What the page carries, read back as its script reads it."""
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page)[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        return training.run(tiny(), folder / "runs", console=console())


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of it to spoil."""
    return vgx.Run(shutil.copytree(whole.path, tmp_path / whole.path.name))


def written(run, store="it is somewhere else"):
    recipe = vgx.load_recipe(run.recipe_file)
    run_page.write(run, recipe, sampling.registry_of(run), store, CPU)
    return data_in(page_of(run))


def lines_of(group):
    return {line["name"]: line["values"] for line in group["lines"]}


def change(run, name, **values):
    file = run.path / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# --- every claim comes from the run's files ----------------------------------------------------


def test_a_finished_run_has_a_page_with_everything_on_it(whole):
    data = data_in(page_of(whole))
    assert data["name"] == "tiny"
    assert data["kicker"] == "Run 0001-tiny, done"
    assert "It ran to its end: 8 steps in " in data["summary"][1]
    assert "on 64 images of the data set drawn-faces at 16 x 16 pixels" in data["summary"][0]
    assert data["warnings"] == []
    assert [frame["step"] for frame in data["progress"]["frames"]] == [1, 2, 5, 8]
    assert all(frame["recon"]["uri"] for frame in data["progress"]["frames"])
    names = [shown["sampler"] for shown in data["samples"]]
    assert names[0] == "weighted-mix"
    assert {"prior", "posterior", "interpolate"} <= set(names)
    assert all(shown["image"]["uri"].startswith("data:image/webp") for shown in data["samples"])
    assert len(data["kl"]["kl"]) == 8
    assert len(data["map"]["points"]) == 64
    assert len(data["neighbours"]["rows"]) == 8
    assert data["recipe"] == whole.recipe_file.read_text()
    assert [row["network"] for row in data["audit"]["rows"]] == [
        "encoder", "decoder", "discriminator",
    ]  # fmt: skip


def test_the_experiment_is_drawn_as_vgx_explain_draws_it(whole):
    shown = data_in(page_of(whole))["drawing"]
    kind, _, coded = shown["uri"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    explained = diagram.of_run(whole)
    assert base64.b64decode(coded).decode() == diagram.svg(explained)
    assert "3x16x16 -> 8" in shown["alt"]


def test_what_an_older_audit_does_not_say_takes_no_page_away(copy):
    file = copy.path / "audit.json"
    audit = json.loads(file.read_text())
    del audit["need"]
    file.write_text(json.dumps(audit))
    data = written(copy)
    assert data["drawing"] is None
    assert data["warnings"][-1]["text"].startswith(
        "There is no diagram of the experiment: audit.json or recipe.yaml is not"
    )
    assert len(data["audit"]["rows"]) == 3


@pytest.mark.parametrize("name", ["rows", "losses", "flows", "notes"])
def test_an_audit_with_one_of_its_fields_alone_costs_the_others(copy, name):
    """The script of the page reads all four of them: a missing one would leave the page empty."""
    file = copy.path / "audit.json"
    given = json.loads(file.read_text())[name]
    file.write_text(json.dumps({name: given}))
    empty = {"rows": [], "losses": {}, "flows": [], "notes": []}
    assert written(copy)["audit"] == {**empty, name: given}


def test_terms_stand_with_the_player_whom_they_move(whole):
    charts = data_in(page_of(whole))["curves"]["groups"]
    groups = {group["title"]: [*lines_of(group)] for group in charts}
    # In the first 8 steps each spans less than a tenth of what all of them span.
    assert [title for title in groups if title.startswith("Generator's terms: ")] == [
        f"Generator's terms: {name}" for name in ("bce-adversarial.generator", "l1", "bce", "kl")
    ]
    assert groups["Generator's terms: kl"] == ["kl"]
    assert groups["Discriminator's terms"] == ["bce-adversarial.discriminator"]
    assert "Learning rates" not in groups  # they are flat, and said instead
    note = data_in(page_of(whole))["curves"]["note"]
    assert "never changed: generator 0.0003 and discriminator 5e-05." in note


def test_learning_rates_that_change_are_drawn(copy):
    lines = copy.read_log()
    for line in lines:
        line["rates"]["generator"] = 0.001 / line["step"]
    copy.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = written(copy)["curves"]
    groups = {group["title"]: lines_of(group) for group in shown["groups"]}
    wanted = [0.001 / line["step"] for line in lines]
    assert groups["Learning rates"] == {"generator": pytest.approx(wanted, rel=1e-5)}
    assert "never changed: discriminator 5e-05." in shown["note"]


def test_a_discriminators_penalty_is_told_by_what_it_moved():
    line = {"step": 1, "losses": {"l1": 0.1, "r1": 0.2}, "rates": {}}
    norms = {"encoder": None, "decoder": None, "discriminator": 0.5}
    shown = curves.of_run([line], {"flows": [{"label": "r1", "norms": norms}]})
    assert {g["title"]: [*lines_of(g)] for g in shown["groups"]} == {
        "Generator's terms": ["l1"],
        "Discriminator's terms": ["r1"],
    }


def test_the_curves_are_the_log(copy):
    lines = copy.read_log()
    lines[3]["losses"]["l1"] = 0.123456789
    lines[4]["losses"]["l1"] = math.nan
    lines[5]["losses"]["l1"] = "no number"
    del lines[6]["losses"]["l1"]
    copy.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = written(copy)
    axes, shown = data["curves"]["axes"][0], {}
    for group in data["curves"]["groups"]:
        shown |= lines_of(group)
    # A line with what is no finite number is damaged.
    assert axes["step"] == [1, 2, 3, 4, 7, 8]
    assert shown["l1"][3:5] == [0.123457, None]
    del lines[4:6]
    assert axes["images"] == [8 * line["step"] for line in lines]
    assert axes["seconds"] == [line["seconds"] for line in lines]
    assert shown["kl"] == pytest.approx([line["losses"]["kl"] for line in lines], rel=1e-5)
    gradients = [line["grad_norm"]["decoder"] for line in lines]
    assert shown["decoder"] == pytest.approx(gradients, rel=1e-5)
    shares = [line["accuracy"]["real"] for line in lines]
    assert shown["real images"] == pytest.approx(shares, rel=1e-5)
    assert shown["speed"] == [line["images_per_second"] for line in lines]
    (told,) = [each["text"] for each in data["warnings"] if "log.jsonl" in each["text"]]
    assert "passed over: line 5: losses.l1: " in told
    assert "; line 6: losses.l1: " in told


def test_the_summary_says_how_the_terms_went():
    def line(step, l1, kl):
        return {"step": step, "losses": {"l1": l1, "kl": kl}}

    lines = [line(1, 0.5, 1.0)] + [line(n, 0.3, 1.02) for n in range(2, 20)] + [line(20, 0.1, 1.02)]
    # The last tenth of twenty lines are two: (0.3 + 0.1) / 2.
    told = (
        "From step 1 to the last tenth of the log: l1 fell from 0.5 to 0.2 and kl stayed near 1.02."
    )
    assert run_data.trend(lines) == told
    assert run_data.trend(lines[:1]) == ""
    rising = [line(1, 0.5, 0.0), line(2, 0.6, 0.0)]
    told = "From step 1 to the last tenth of the log: l1 rose from 0.5 to 0.6 and kl stayed near 0."
    assert run_data.trend(rising) == told


def test_each_file_of_the_run_is_where_its_claims_come_from(copy):
    before = written(copy)
    data = copy.environment()["data"] | {"kept": 4321, "dropped": {"greyscale": 17}}
    change(copy, "environment.json", data=data, device="an abacus")
    ended = {"how": "stopped", "step": 5, "of": 1000, "signal": 15}
    change(copy, "ended.json", **ended)
    audit = json.loads((copy.path / "audit.json").read_text())
    audit["rows"][0]["parameters"] = 123456789
    change(copy, "audit.json", rows=audit["rows"])
    after = written(copy)
    assert "on 4,321 images" in after["summary"][0]
    assert ["Dropped, greyscale", "17"] in after["made"]
    assert ["Device", "an abacus"] in after["facts"]
    assert after["summary"][1] == "It was stopped by SIGTERM at step 5 of 1,000, and saved there."
    assert ["Parameters, encoder", "123,456,789"] in after["facts"]
    assert before["samples"] == after["samples"]


def test_warnings_stand_with_the_step_at_which_they_arose(copy):
    lines = copy.read_log()
    lines[4]["warnings"] = ["the latents are all alike"]
    notice = lines[0] | {"step": 0, "losses": {}, "notices": ["from the cache"]}
    copy.log_file.write_text("".join(json.dumps(line) + "\n" for line in [notice, *lines]))
    data = written(copy)
    assert data["warnings"][:2] == [
        {"step": 0, "text": "from the cache"},
        {"step": 5, "text": "the latents are all alike"},
    ]
    assert "One warning during training, the first at step 5." in data["summary"]


def test_metrics_are_those_of_the_runs_evaluation(copy):
    (hint,) = written(copy)["metrics"]["notes"]
    assert hint.startswith("Not evaluated yet. vgx eval 0001-tiny measures")
    figure = {"mean": 12.34567, "spread": 0.25, "values": [12.1, 12.6], "better": "lower"}
    drawn = {"sampler": {"type": "prior"}, "pictures": 100, "real": 64, "split": "held out"}
    said = {"step": 8, "seeds": [0, 1], "notices": ["mind the gap"], "reconstruction": None}
    said |= {"latent": None, "generation": [drawn | {"figures": {"fid": figure}}]}
    (copy.path / "evaluation.json").write_text(json.dumps(said))
    metrics = written(copy)["metrics"]
    (table,) = metrics["tables"]
    assert table["header"] == ["figure", "prior"]
    assert table["rows"] == [["fid (less is better)", "12.35 ± 0.25"]]
    assert metrics["notes"][0].startswith("Measured at step 8; ")
    assert metrics["notes"][1] == "mind the gap"
    # A metric that was logged while it trained is a curve.
    lines = copy.read_log()
    lines[3]["metrics"] = {"psnr": 17.5}
    copy.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = written(copy)
    curve = page["curves"]["groups"][-2]  # the last one is the speed
    assert curve["title"] == "Metrics"
    assert curve["lines"] == [{"name": "psnr", "colour": 0, "axes": 1, "values": [17.5]}]
    assert page["curves"]["axes"][1]["step"] == [4]


def test_a_long_log_is_thinned_evenly():
    lines = [{"step": n, "losses": {"l1": n}, "rates": {}} for n in range(1, 5001)]
    shown = curves.of_run(lines, {})
    ((group,), steps) = shown["groups"], shown["axes"][0]["step"]
    assert (len(steps), steps[0], steps[-1]) == (1500, 1, 5000)
    assert lines_of(group) == {"l1": steps}
    assert shown["note"].startswith("1,500 of 5,000 logged steps")
    assert shown["along"] == ["step"]  # an old log: neither images nor seconds


def test_lines_share_a_chart_where_each_can_be_seen():
    """By hand: together they span 0 to 1. One spans 0.12 of that, another 0.08, a third nothing."""

    def charts(**values):
        lines = [
            {"step": step, "losses": dict(zip(values, row, strict=True)), "rates": {}}
            for step, row in enumerate(zip(*values.values(), strict=True), 1)
        ]
        return {g["title"]: [*lines_of(g)] for g in curves.of_run(lines, {})["groups"]}

    together = charts(a=[0.0, 1.0], b=[0.50, 0.62], constant=[0.3, 0.3])
    assert together == {"Generator's terms": ["a", "b", "constant"]}
    alone = charts(a=[0.0, 1.0], b=[0.50, 0.58], c=[0.2, 0.9])
    assert alone == {f"Generator's terms: {name}": [name] for name in "abc"}


def test_a_fork_says_where_it_comes_from_and_shows_the_tree(copy):
    assert written(copy)["family"] == []
    change(copy, "environment.json", parent={"run": "0007-other", "step": 1500, "how": "fork"})
    data = written(copy)
    assert data["summary"][2] == "It is a fork of 0007-other at step 1,500."
    assert [row["run"] for row in data["family"]] == ["0001-tiny"]


def test_a_page_links_to_the_explorer_that_is_beside_it(copy, tmp_path):
    assert written(copy)["explorer"] is None
    (copy.path / "explore.html").write_text("to play with")
    assert written(copy)["explorer"] == "explore.html"
    recipe = vgx.load_recipe(copy.recipe_file)
    out = tmp_path / "mailed.html"
    run_page.write(copy, recipe, sampling.registry_of(copy), "elsewhere", CPU, out)
    assert data_in(out.read_text())["explorer"] is None


# --- however it ended --------------------------------------------------------------------------


def stepping(at, event):
    """Let something happen in the step after `at` steps."""
    step = Engine.step

    def stepped(self, number, *batch):
        if number == at:
            event()
        return step(self, number, *batch)

    return mock.patch.object(Engine, "step", stepped)


@pytest.mark.slow
def test_a_run_that_was_stopped_has_its_page_and_when_it_goes_on_another():
    with (
        stepping(2, lambda: signal.raise_signal(signal.SIGINT)),
        pytest.raises(Stopped),
    ):
        training.run(tiny(), console=console())
    run = training.find()
    data = data_in(page_of(run))
    assert (
        data["summary"][1] == "It was stopped by Ctrl-C (SIGINT) at step 3 of 8, and saved there."
    )
    assert ["Steps", "3 of 8"] in data["facts"]
    assert data["samples_note"].startswith("From the checkpoint of step 3.")
    assert [frame["step"] for frame in data["progress"]["frames"]] == [1, 2, 3]
    training.resume(console=console())
    assert data_in(page_of(run))["summary"][1].startswith("It ran to its end: 8 steps")


def test_a_run_that_diverged_before_its_first_checkpoint_has_its_page():
    def diverge():
        raise DivergedError("l1 is nan")

    with stepping(3, diverge), pytest.raises(DivergedError):
        training.run(tiny({"train.save_every": 100}), console=console())
    data = data_in(page_of(training.find()))
    assert data["kicker"].endswith(", diverged")
    assert data["summary"][1].startswith("It diverged at step 3 of 8: ")
    assert "l1 is nan" in data["summary"][1]
    assert data["samples"] == []
    assert "no checkpoint to load" in data["warnings"][-1]["text"]


@pytest.mark.slow
def test_a_run_that_was_killed_says_so_and_not_how_it_ended_before(copy):
    (copy.path / "ended.json").unlink()
    said = "Its end is not noted: it is still training, or was killed."
    assert written(copy)["summary"][1].startswith(said)

    def killed():
        raise KeyboardInterrupt  # as a second Ctrl-C: nothing is written any more

    with stepping(2, killed), pytest.raises(KeyboardInterrupt):
        training.run(tiny(), console=console())
    run = training.find()
    assert not (run.path / "report.html").exists()
    with stepping(4, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(Stopped):
        training.resume(run, console=console())
    assert json.loads((run.path / "ended.json").read_text())["step"] == 5
    with stepping(6, killed), pytest.raises(KeyboardInterrupt):
        training.resume(run, console=console())
    assert not (run.path / "ended.json").exists()


def test_a_run_of_two_steps_without_an_encoder_has_a_page():
    gan = {"encoder": None, "losses": ["hinge"], "sampler": "prior", "train.steps": 2}
    run = training.run(tiny(gan), console=console())
    data = data_in(page_of(run))
    assert [frame["step"] for frame in data["progress"]["frames"]] == [1, 2]
    assert "recon" not in data["progress"]["frames"][0]
    assert (data["reconstructions"], data["kl"], data["map"]) == (None, None, None)
    assert data["samples"][0]["sampler"] == "prior"
    assert data["neighbours"]["rows"]


def test_a_page_that_cannot_be_written_hides_no_end_of_a_run():
    heard = console()
    failing = mock.patch.object(run_page, "write", side_effect=StorageError("disk full"))
    with failing:
        run = training.run(tiny({"train.steps": 2}), console=heard)
        with (
            stepping(1, lambda: signal.raise_signal(signal.SIGTERM)),
            pytest.raises(Stopped) as stopped,
        ):
            training.run(tiny(), console=heard)
    assert stopped.value.exit_code == 143
    said = heard.rich.file.getvalue()
    assert said.count("NOTICE: plugin report of vgx failed at the end of ") == 2
    assert "StorageError: disk full" in said
    assert not (run.path / "report.html").exists()


# --- hostile and damaged files -----------------------------------------------------------------

HOSTILE = "</script><script>document.title = 'hacked'</script><!-- <img src=x onerror=alert(1)>"


def test_nothing_in_a_runs_files_can_end_the_data_or_begin_a_script(copy):
    lines = copy.read_log()
    lines[0]["notices"] = [HOSTILE]
    lines[0]["losses"][HOSTILE] = 1.0
    copy.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    change(copy, "environment.json", platform=HOSTILE, device=HOSTILE)
    change(copy, "ended.json", how="failed", message=HOSTILE)
    (copy.path / "note.txt").write_text(HOSTILE)
    data = written(copy)
    assert ["Note", HOSTILE] in data["facts"]
    assert {"step": 1, "text": HOSTILE} in data["warnings"]
    assert ["Device", HOSTILE] in data["facts"]
    page = page_of(copy)
    assert len(re.findall("<script", page)) == len(re.findall("</script", page)) == 2
    assert "<img" not in page
    assert "<!--" not in page


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(whole):
    page = page_of(whole)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        inner = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(inner) == 1
        sum_ = base64.b64encode(hashlib.sha256(inner[0].encode()).digest()).decode()
        assert f"{kind} 'sha256-{sum_}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:; connect-src 'none'")
    assert "unsafe" not in policy


def test_a_page_names_no_other_place(whole):
    found = set(re.findall(r"[a-z]+://[^\s\"'`)]*", page_of(whole)))
    assert found == {"http://www.w3.org/2000/svg"}  # a name, not a place


def test_damaged_pictures_and_files_are_left_out_or_told(copy):
    (copy.samples / "step-00000002.png").write_bytes(b"no picture")
    (copy.samples / "recon-00000008.png").unlink()
    (copy.path / "audit.json").write_text("[1, 2")
    change(copy, "environment.json", data=["no", "mapping"])
    data = written(copy)
    assert [frame["step"] for frame in data["progress"]["frames"]] == [1, 5, 8]
    assert (data["reconstructions"], data["audit"], data["drawing"]) == (None, None, None)
    told = [each["text"] for each in data["warnings"] if each["text"].startswith("left out: ")]
    assert [text.split(": ")[1].rpartition("/")[2] for text in told] == [
        "environment.json", "audit.json", "step-00000002.png"
    ]  # fmt: skip


def test_without_the_pictures_of_the_data_what_needs_them_is_left_out(copy):
    data = written(copy, "the hub cannot be reached")
    assert (data["kl"], data["map"], data["neighbours"]) == (None, None, None)
    told = "What needs the images of the data is left out: the hub cannot be reached"
    assert {"step": None, "text": told} in data["warnings"]
    assert data["samples"]


def test_the_pictures_are_those_of_the_run_or_none(copy, whole, monkeypatch):
    monkeypatch.setenv("VGX_CACHE", str(whole.path.parents[1] / "cache"))
    recipe = vgx.load_recipe(copy.recipe_file)
    assert len(run_page.images(copy, recipe, Console()).images) == 64
    data = copy.environment()["data"] | {"content": "other"}
    change(copy, "environment.json", data=data)
    assert run_page.images(copy, recipe, Console()) == (
        "the images of the data set are no longer those of the run"
    )


def test_a_sampler_that_fails_takes_no_page_away(copy):
    prior = vgx.discover().part("sampler", "prior")
    with mock.patch.object(prior, "build", side_effect=ValueError("not today")):
        data = written(copy)
    (failed,) = [shown for shown in data["samples"] if "image" not in shown]
    assert failed == {"sampler": "prior", "note": "Draws nothing here: not today"}


def test_a_sampler_that_refuses_its_defaults_takes_no_page_away(copy):
    """An installed stranger's, which wants one of two fields."""

    class Either(vgx.Sampler, type="either"):
        """It wants one of two fields."""

        low: float | None = None
        """The one."""
        high: float | None = None
        """The other."""

        @pydantic.model_validator(mode="after")
        def one_of_two(self):
            if (self.low is None) == (self.high is None):
                raise ValueError("give low or high")
            return self

        def build(self, latent):
            raise NotImplementedError

    plugin = vgx.Plugin("stranger", "1", "stranger", (Either,))
    registry = vgx.Registry((*sampling.registry_of(copy).plugins, plugin))
    recipe = vgx.load_recipe(copy.recipe_file, (), registry)
    run_page.write(copy, recipe, registry, "it is somewhere else", CPU)
    names = [shown["sampler"] for shown in data_in(page_of(copy))["samples"]]
    assert {"weighted-mix", "prior"} <= set(names)
    assert "either" not in names


def test_the_page_of_a_run_is_drawn_from_the_cache(copy, whole, monkeypatch):
    """The data set is not opened again, and the page is the one that the training wrote."""
    faces = vgx.discover().part("dataset", "drawn-faces")
    opened = mock.Mock(side_effect=AssertionError("the data set was opened"))
    monkeypatch.setattr(faces, "build", opened)
    monkeypatch.setenv("VGX_CACHE", str(whole.path.parents[1] / "cache"))
    run_page.write_page(copy, console())
    ours, theirs = data_in(page_of(copy)), data_in(page_of(whole))
    different = {name for name in ours | theirs if ours.get(name) != theirs.get(name)}
    assert different == set()
    monkeypatch.setenv("VGX_CACHE", str(copy.path / "empty"))
    heard = console()
    run_page.write_page(copy, heard)
    told = f"vgx eval {copy.short} opens the data set drawn-faces count=64 and fills it"
    assert told in heard.rich.file.getvalue()
    assert any(
        told.rsplit(copy.path.name, maxsplit=1)[-1] in w["text"]
        for w in data_in(page_of(copy))["warnings"]
    )


def test_an_evaluation_fills_the_cache_again(copy, monkeypatch, tmp_path, capsys):
    """What the page says would help does."""
    from vgx.cli import run_program

    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "empty"))
    recipe = vgx.load_recipe(copy.recipe_file)
    assert "the cache does not have them" in run_page.images(copy, recipe, Console())
    assert run_program(["eval", str(copy.path), "-n", "8", "--seeds", "1"]) == 0
    assert "Opening the data set drawn-faces count=64\n" in capsys.readouterr().out
    assert len(run_page.images(copy, recipe, Console()).images) == 64


def test_a_page_opens_no_images_of_a_sampler(copy):
    """Its recipe may be a stranger's, and name any folder of this machine."""
    recipe = vgx.load_recipe(copy.recipe_file, {"sampler": {"type": "reconstruct", "path": "mine"}})
    with mock.patch.object(type(recipe.sampler), "pictures", side_effect=AssertionError("opened")):
        run_page.write(copy, recipe, vgx.discover(), "no images", CPU)
    first = data_in(page_of(copy))["samples"][0]
    assert first == {"sampler": "reconstruct", "note": panels.OWN_IMAGES}


# --- what is computed --------------------------------------------------------------------------


def test_kl_is_that_of_torchs_distributions_and_dimensions_are_counted():
    chance = torch.Generator().manual_seed(0)
    mu = torch.randn(50, 4, generator=chance, dtype=torch.float64) * torch.tensor([1, 0.01, 2, 0.0])
    logvar = torch.randn(50, 4, generator=chance, dtype=torch.float64) / 3
    shown = panels.kl_panel(Latents(mu, logvar))
    told = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).mean(0)
    order = told.argsort(descending=True)
    assert shown["order"] == order.tolist()
    assert shown["kl"] == pytest.approx(told[order].tolist(), rel=1e-3)
    # Variances of the means are near 1, 0.0001, 4 and 0.
    assert [d for d, used in zip(shown["order"], shown["active"], strict=True) if used] == [2, 0]
    assert shown["note"].startswith("2 of 4 dimensions are active")


def test_active_dimensions_are_counted_as_in_an_evaluation():
    """The unbiased variance of 18 means is above 0.01 here, the biased one is not."""
    means = torch.linspace(-1, 1, 18, dtype=torch.float64)[:, None].repeat(1, 5)
    means *= (0.0103 / means.var(0)).sqrt()
    assert (means.var(0, correction=0) < 0.01).all()
    latents = Latents(means, torch.zeros_like(means))
    assert sum(panels.kl_panel(latents)["active"]) == 5
    assert latent_metrics(latents, 0)["active_units"] == 5


def test_the_gap_is_that_of_posteriors_far_apart():
    """Four narrow posteriors that never meet: their mixture's own KL, by drawing from it."""
    mu = torch.tensor([[6.0, 6], [6, -6], [-6, 6], [-6, -6]], dtype=torch.float64)
    logvar = torch.full_like(mu, -1.0)
    each = Normal(mu, (logvar / 2).exp())
    torch.manual_seed(0)
    z = each.sample((20_000,))  # [S, 4, 2]
    of_each = each.log_prob(z[:, :, None]).sum(-1)  # [S, 4, 4]
    mixture = of_each.logsumexp(-1) - math.log(4)
    drawn = (mixture - Normal(0.0, 1.0).log_prob(z).sum(-1)).mean().item()
    latents = Latents(mu, logvar)
    assert latent_metrics(latents, 0)["prior_gap"] == pytest.approx(drawn, rel=0.01)
    # The Gaussian with their mean and variance is nearer to N(0, I) than the mixture itself.
    variance = 36 + math.exp(-1)
    far = panels.distance_from_prior(latents)
    bias = 2 * (36 / variance + (36 / variance) ** 2) / (2 * 4)  # of two dimensions, four images
    assert far == pytest.approx(variance - 1 - math.log(variance) - bias)
    assert far < drawn
    assert panels.distance_from_prior(Latents(mu * 0, logvar * 0)) == 0.0  # the prior itself
    without = panels.distance_from_prior(Latents(mu, None))
    assert without == pytest.approx(36 - 1 - math.log(36) - 2 * (1 + 1) / (2 * 4))


@pytest.mark.parametrize(("images", "dimensions"), [(50, 256), (600, 4096), (600, 64)])
def test_few_images_of_many_dimensions_are_no_distance(images, dimensions):
    """Latents from N(0, I) itself: means and posteriors of deviation 0.1 make a variance of 1."""
    generator = torch.Generator().manual_seed(0)
    means = 0.99**0.5 * torch.randn(images, dimensions, generator=generator, dtype=torch.float64)
    logvar = torch.full_like(means, math.log(0.01))
    assert panels.distance_from_prior(Latents(means, logvar)) < 0.4
    # A shift of 0.1 in each dimension is a KL of 0.1^2 / 2 in each.
    shifted = panels.distance_from_prior(Latents(means + 0.1, logvar))
    assert shifted == pytest.approx(0.005 * dimensions, abs=0.12 * dimensions**0.5)


def test_a_verdict_on_the_prior_is_given_from_one_draw_in_a_hundred_on():
    mix, plain = tiny(), tiny({"sampler": "prior", "losses": ["l1"]})
    trained_on_it = tiny({"sampler": "prior", "train.fakes": ["recon", "prior"]})
    assert run_data.on_prior(40.8, trained_on_it) == []
    assert run_data.on_prior(4.6, mix) == []
    verdict, figures = run_data.on_prior(4.61, mix)
    assert verdict == (
        "The sampler prior draws poor images here; use weighted-mix, or raise the weight of kl."
    )
    assert "at least 4.61 nats of KL away from N(0, I)" in figures
    assert "about one draw in 100 lies where" in figures
    verdict, figures = run_data.on_prior(40.8, plain)
    assert verdict == "The sampler prior draws poor images here; use aggregate-gaussian."
    assert "about one draw in 10^18 lies" in figures


def test_a_verdict_on_copies_stands_before_its_figures(whole):
    near = {"copies": 0, "samples": 40, "ratio": 0.36, "around": 50}
    verdict, figures = run_data.on_copies(near)
    assert verdict == "None of 40 samples looks like a copy of a training image."
    assert "is 0.36 times as far from its nearest training image as from its nearest 50" in figures
    near |= {"copies": 2, "ratio": 0.1}
    assert run_data.on_copies(near)[0].startswith("2 of 40 samples may be copies")
    summary = data_in(page_of(whole))["summary"]
    assert any(isinstance(line, list) and "copy" in line[0] for line in summary)
    assert any(" of 8 latent dimensions are active." in line for line in summary)


def test_noisy_copies_are_below_the_bound_of_copies_and_new_images_are_not():
    """On drawn faces: those that no training image shows, and training images with noise."""
    source = vgx.discover().part("dataset", "drawn-faces")(count=400).build(vgx.ImageSpec(size=16))
    faces = np.stack([np.asarray(source[i].convert("RGB").resize((16, 16))) for i in range(400)])
    noise = np.random.default_rng(0).normal(0, 0.05, (20, 3, 16, 16))
    images = torch.tensor(faces).permute(0, 3, 1, 2) / 255  # [N, C, H, W]
    store = store_of(faces[40:])
    new = panels.neighbours(images[:40], store, np.arange(360))
    copied = (images[40:60] + torch.tensor(noise).float()).clamp(0, 1)
    copies = panels.neighbours(copied, store, np.arange(360))
    assert (new["copies"], new["samples"]) == (0, 40)
    assert (copies["copies"], copies["samples"]) == (20, 20)
    assert new["ratio"] > panels.COPY > copies["ratio"]


# --- the grids of training -----------------------------------------------------------------------


def test_the_page_begins_with_samples_and_shows_the_prior_beside_them(whole):
    data = data_in(page_of(whole))
    assert data["hero"] == "Drawn by the recipe's sampler, weighted-mix, at step 8."
    assert data["samples"][0]["note"] == "The recipe's sampler."
    assert all({"samples", "prior", "recon"} <= set(f) for f in data["progress"]["frames"])
    assert data["progress"]["titles"]["samples"] == "Sampler weighted-mix"
    assert data["progress"]["notes"][1].startswith("Latents from N(0, I) are what the sampler")


def test_grids_of_an_earlier_vgx_are_called_what_they_are(copy):
    """It drew latents from N(0, I) into the files that now show the recipe's sampler."""
    environment = json.loads((copy.path / "environment.json").read_text())
    del environment["grids"]
    (copy.path / "environment.json").write_text(json.dumps(environment))
    steps = (1, 2, 5)
    for step in steps:
        (copy.samples / f"prior-{step:08}.png").unlink()
    frames = written(copy)["progress"]["frames"]
    names = [sorted(set(frame) - {"step"}) for frame in frames]
    # It was taken up by this vgx before step 8.
    assert names == [["prior", "recon"]] * 3 + [["prior", "recon", "samples"]]


def test_a_page_names_no_folder_of_this_machine(copy):
    lines = copy.read_log()
    lines[3]["warnings"] = [f"{copy.path}: step 4 is not finite; see {copy.path.resolve()}/x"]
    copy.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    change(copy, "ended.json", how="failed", message=f"{copy.path}: disk full")
    data = written(copy)
    page = page_of(copy)
    assert str(copy.path) not in page
    assert str(copy.path.resolve()) not in page
    assert data["foot"].startswith("Made by vgx from the files of the run 0001-tiny. ")
    assert data["warnings"][0]["text"] == "0001-tiny: step 4 is not finite; see 0001-tiny/x"


def store_of(images):
    spec = vgx.ImageSpec(images.shape[1])
    return Store(images, np.zeros(len(images), np.uint64), None, spec, "", "", {})


def test_the_map_is_that_of_principal_components():
    chance = np.random.default_rng(0)
    means = chance.normal(size=(80, 5)) * [3, 1, 2, 0.5, 0.1] + 7
    store = store_of(chance.integers(0, 256, (80, 16, 16, 3), dtype=np.uint8))
    shown = panels.latent_map(torch.tensor(means), np.arange(80), store)
    fitted = PCA(2).fit(means)
    theirs, ours = fitted.transform(means), np.array(shown["points"])
    for axis in (0, 1):  # the sign of an axis is anybody's
        sign = np.sign(theirs[0, axis] * ours[0, axis])
        assert ours[:, axis] * sign == pytest.approx(theirs[:, axis], abs=1e-3)
    first, second = (f"{share:.0%}" for share in fitted.explained_variance_ratio_)
    assert f"which hold {first} and {second} of the variance" in shown["note"]
    indices = [index for index, _ in shown["images"]]
    assert len(indices) == len(set(indices)) > 30


def test_latents_of_one_dimension_have_no_map():
    store = store_of(np.zeros((9, 16, 16, 3), np.uint8))
    assert panels.latent_map(torch.randn(9, 1), np.arange(9), store) is None
    assert panels.latent_map(torch.zeros(9, 3), np.arange(9), store) is None


def test_latents_and_copies_are_of_images_that_were_trained_on(whole, monkeypatch):
    store = store_of(np.zeros((6, 16, 16, 3), np.uint8))
    held = np.uint64(0x9E3779B97F4A7C15)  # the lowest hash, as `held_out` mixes them
    store = dataclasses.replace(store, hashes=np.array([held, ~held] * 3))
    monkeypatch.setattr(panels, "_samples", lambda *_: ([], torch.zeros(1, 3, 16, 16)))
    monkeypatch.setattr(panels, "_latents", lambda model, store, rows: {"map": rows.tolist()})
    monkeypatch.setattr(panels, "neighbours", lambda samples, store, rows: rows.tolist())
    recipe = vgx.load_recipe(whole.recipe_file, {"eval.holdout": 0.5})
    shown = panels.compute(whole, recipe, sampling.registry_of(whole), store, CPU)
    assert (shown["map"], shown["neighbours"]) == ([1, 3, 5], [1, 3, 5])


def test_a_copy_is_found_among_what_is_new_mirrored_or_not():
    chance = np.random.default_rng(0)
    real = chance.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    new = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    copied = torch.tensor(real[[70, 150]]).permute(0, 3, 1, 2) / 255  # [2, C, H, W]
    samples = torch.cat([new, copied[:1], copied[1:].flip(-1)])
    shown = panels.neighbours(samples, store_of(real), np.arange(200))
    rows = shown["rows"]
    assert [row["ratio"] for row in rows[:2]] == pytest.approx([0, 0], abs=1e-6)
    assert all(row["ratio"] > 0.9 for row in rows[2:])
    picture = panels.data_uri(panels.to_image(copied[0], 96))
    assert picture in [row["near"][0][0] for row in rows[:2]]
    # By hand: distances of a new one to all 200 and to all their mirror images.
    flat = real.astype(np.float64) / 255
    both = [flat, flat[:, :, ::-1]]
    sample = new[0].permute(1, 2, 0).numpy()
    far = np.minimum(*(np.sqrt(((side - sample) ** 2).mean((1, 2, 3))) for side in both))
    near = np.sort(far)
    row = min(rows, key=lambda row: abs(row["ratio"] - near[0] / near[:50].mean()))
    assert row["ratio"] == pytest.approx(near[0] / near[:50].mean(), rel=1e-5)
    assert [distance for _, distance in row["near"]] == pytest.approx(near[:4].tolist(), rel=1e-5)


def test_samples_on_the_page_are_those_of_the_sample_command(whole):
    shown = next(s for s in data_in(page_of(whole))["samples"] if s["sampler"] == "prior")
    drawn = vgx.sample(whole, "prior", panels.SAMPLES)
    recipe = vgx.load_recipe(whole.recipe_file)
    model = sampling.load_model(whole, recipe, CPU, ("decoder",))
    prior = vgx.discover().part("sampler", "prior")()
    ours, _ = panels.draw_samples(whole, model, prior)
    assert torch.allclose(ours, drawn, atol=1e-5)
    assert (shown["image"]["width"], shown["image"]["height"]) == (10 * 18 + 2, 4 * 18 + 2)


def test_captions_of_rows_are_text_below_the_picture(whole):
    """In the picture they would be a few pixels high."""
    shown = next(s for s in data_in(page_of(whole))["samples"] if s["sampler"] == "traversal")
    rows = shown["note"].removeprefix("Rows from the top: ").removesuffix(".").split("; ")
    assert len(rows) == 4
    assert all(re.fullmatch(r"z\d+, KL [\d.e-]+ nats, -?[\d.]+ to -?[\d.]+", row) for row in rows)
    assert shown["image"]["width"] == 10 * 18 + 2


# --- how it looks ------------------------------------------------------------------------------


def luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, two):
    low, high = sorted([luminance(one), luminance(two)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(scheme):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    style = (Path(panels.__file__).parent / "page" / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    tokens = dict(re.findall(r"--([\w-]+): (#\w{6});", light if scheme == "light" else dark))
    for name in ("foreground", "soft", "accent"):
        for ground in ("background", "raised"):
            assert contrast(tokens[name], tokens[ground]) >= 4.5, (name, ground)
    assert contrast(tokens["alarm"], tokens["alarm-background"]) >= 4.5
    assert contrast(tokens["foreground"], tokens["alarm-background"]) >= 4.5
    for number in range(1, 7):
        assert contrast(tokens[f"line-{number}"], tokens["background"]) >= 3
