"""`vgx sweep` and `vgx ablate` as a person starts them, with real trainings of the tiny recipe."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

import vgx
from vgx.runs import reading
from vgx.runs.directory import every

pytest.importorskip("optuna")
pytestmark = pytest.mark.slow
SHORT = ["--set", "train.steps=4", "--set", "eval.metrics=[psnr]", "--set", "eval.every=2"]
SHORT += ["--set", "train.log_every=1", "--set", "train.save_every=2"]


@pytest.fixture
def sweep_here(tmp_path, monkeypatch, capfd):
    """Run a command line in this process: (exit code, out, err)."""
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        code = run_program([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def swept(forkserver, tmp_path_factory):
    """The folder of a sweep that is done: two weights, two seeds; and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    over = ("--over", "losses.1.weight=1,100", "--seeds", "2", "--by", "psnr")
    done = forkserver.run(folder, "sweep", "tiny", *SHORT, *over, COLUMNS="200")
    return folder, done.out.read_text()


def said(child):
    return child.out.read_text() + child.err.read_text()


def cells(out, first):
    """The cells of the line of a table that begins with a word."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"{first} ")]
    return re.split(r"\s{2,}", line)


def copied(swept, tmp_path, monkeypatch):
    folder, _ = swept
    for name in ("runs", "sweeps", "cache"):
        shutil.copytree(folder / name, tmp_path / name)
    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "cache"))


def test_each_run_is_an_ordinary_run_and_the_table_has_their_mean(swept):
    folder, out = swept
    assert "One more worker: vgx sweep --join tiny\n" in out
    runs = every(folder / "runs")
    assert [run.path.name for run in runs] == [f"000{n}-tiny" for n in (1, 2, 3, 4)]
    settings = [
        (recipe["losses"][1]["weight"], recipe["train"]["seed"])
        for recipe in (reading.recipe(run.path) for run in runs)
    ]
    assert settings == [(1, 0), (1, 1), (100, 0), (100, 1)]
    assert {reading.ended(run.path)["how"] for run in runs} == {"done"}
    measured = [reading.measured(run.path, "psnr")[-1]["metrics"]["psnr"] for run in runs]
    for trial, (one, two) in enumerate((measured[:2], measured[2:])):
        mean, spread = (one + two) / 2, abs(one - two) / 2**0.5
        _, state, _, figure, names = cells(out, str(trial))
        assert (state, figure) == ("complete", f"{mean:.4g} ± {spread:.2g}")
        assert names == f"000{2 * trial + 1}-tiny 000{2 * trial + 2}-tiny"
    best = vgx.load_recipe(folder / "sweeps" / "tiny" / "best.yaml")
    first = 0 if sum(measured[:2]) > sum(measured[2:]) else 1
    assert best.losses[1].weight == (1, 100)[first]
    stored = vgx.load_recipe(runs[2 * first].recipe_file)
    assert best.losses == stored.losses
    assert best.train.steps == 4


def test_what_was_run_to_its_end_is_not_run_again(swept, tmp_path, monkeypatch, sweep_here):
    """In another study, whoever made the run: only what is new is trained."""
    copied(swept, tmp_path, monkeypatch)
    before = {run.path.name: run.log_file.read_bytes() for run in every()}
    code, out, err = sweep_here(
        "sweep", "tiny", *SHORT, "--over", "losses.1.weight=100,7", "--by", "psnr",
        "--name", "again",
    )  # fmt: skip
    assert code == 0, err
    after = {run.path.name: run.log_file.read_bytes() for run in every()}
    assert after.keys() - before.keys() == {"0005-tiny"}
    assert {name: after[name] for name in before} == before
    assert cells(out, "0")[-1] == "0003-tiny"
    assert "Trial 0" in out


def test_the_page_has_each_point_with_its_images(swept):
    folder, _ = swept
    text = (folder / "sweeps" / "tiny" / "sweep.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert [point["trial"] for point in data["points"]] in ([0, 1], [1, 0])
    assert len(data["images"]) == 2
    assert all(each["image"]["uri"].startswith("data:image/") for each in data["images"])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_shows_the_study_and_loads_nothing(swept, browser, width, scheme):
    folder, _ = swept
    page = folder / "sweeps" / "tiny" / "sweep.html"
    shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    faults, requested = [], []
    shown.on("console", lambda message: faults.append(message.text))
    shown.on("pageerror", lambda error: faults.append(str(error)))
    shown.on("request", lambda request: requested.append(request.url))
    shown.goto(f"file://{page}")
    # Attached, not visible: the line of a point may be vertical, and its box has no width.
    shown.wait_for_selector("#points .chart svg path", state="attached")
    texts = shown.locator("#points .chart svg text").all_text_contents()
    assert len(texts) == len({*texts}) >= 6, texts  # marks of an axis differ, however near
    assert shown.locator("#slices svg circle").count() == 2
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    title = shown.locator("#points title").first.text_content()
    assert re.match(r"trial \d: losses.1.weight \(l1\) \d+; psnr", title)
    assert faults == []
    assert [url for url in requested if not url.startswith("data:")] == [f"file://{page}"]
    shown.close()


LONG = ["--set", "train.steps=100000", "--set", "train.save_every=50000"]
LONG += ["--set", "train.draw_every=100000", "--set", "eval.metrics=[psnr]", "--by", "psnr"]


def two_workers(forkserver, folder, **environment):
    """Start a study of three long trials with two workers, of which each trains.

    The process that starts them is forked; they are Pythons of their own.
    """
    over = ["--over", "losses.1.weight=1,2,3", "--workers", "2"]
    started = forkserver.start(folder, "sweep", "tiny", *LONG, *over, **environment)
    end = time.monotonic() + 300
    while sum(run.log_file.is_file() for run in every(folder / "runs")) < 2:
        assert time.monotonic() < end, said(started)
        time.sleep(0.2)
    time.sleep(1)
    return started


def at_work(folder):
    """Whether a Python that was started in a folder is left, whoever started it."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            if f"VGX_RUNS={folder / 'runs'}\0".encode() in (process / "environ").read_bytes():
                return True
    return False


def states(folder):
    """The states of the trials, in their order."""
    with contextlib.closing(sqlite3.connect(folder / "sweeps/tiny/study.db")) as study:
        return [state for (state,) in study.execute("SELECT state FROM trials ORDER BY number")]


def stopped(run):
    """Whether a run was stopped and saved, and nobody trains it."""
    ended = reading.ended(run.path)
    saved = ended is not None and ended["how"] == "stopped" and not run.holder()
    return saved and any(run.checkpoints.glob("step-*"))


@pytest.mark.bar("W3")
def test_ctrl_c_ends_all_workers_with_their_runs_saved_and_others_join(forkserver, tmp_path):
    started, runs = two_workers(forkserver, tmp_path), tmp_path / "runs"
    started.kill(signal.SIGINT)
    assert started.wait() == 130, said(started)
    assert "go on with: vgx sweep --join tiny" in started.err.read_text()
    for run in every(runs):
        assert stopped(run)
        # Each of two workers has one of two threads.
        assert reading.environment(run.path)["threads"] == 1
    # Nothing is failed: the trials wait, and whoever joins goes on with these runs.
    assert states(tmp_path) == ["WAITING"] * 3
    steps_before = {run.path.name: reading.ended(run.path)["step"] for run in every(runs)}
    joined = forkserver.start(tmp_path, "sweep", "--join", "tiny")
    end = time.monotonic() + 300
    while all(reading.ended(run.path) for run in every(runs)):
        assert time.monotonic() < end, said(joined)
        time.sleep(0.2)
    joined.kill(signal.SIGTERM)
    assert joined.wait() == 143, said(joined)
    assert {run.path.name for run in every(runs)} == steps_before.keys()
    ends = {run.path.name: reading.ended(run.path)["step"] for run in every(runs)}
    assert sum(ends[name] > before for name, before in steps_before.items()) == 1


@pytest.mark.chaos
@pytest.mark.bar("W3")
def test_workers_end_with_their_runs_saved_when_the_process_that_started_them_is_killed(
    forkserver, tmp_path
):
    started = two_workers(forkserver, tmp_path)
    started.kill()
    started.wait()
    end, runs = time.monotonic() + 120, every(tmp_path / "runs")
    while not all(stopped(run) for run in runs):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert len(runs) == 2
    while at_work(tmp_path):  # one that went on would begin with the third trial
        assert time.monotonic() < end
        time.sleep(0.2)
    assert every(tmp_path / "runs") == runs
    assert states(tmp_path) == ["WAITING"] * 3


# A worker imports it when it begins.
ORPHANED = "import vgx_sweep.workers\nvgx_sweep.workers.end_with_parent = lambda: None\n"


@pytest.mark.chaos
@pytest.mark.bar("W3", control="the end of the process that started them is not noticed")
def test_workers_that_do_not_notice_it_train_on(forkserver, tmp_path, record_property):
    (tmp_path / "sitecustomize.py").write_text(ORPHANED)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    started = two_workers(forkserver, tmp_path, PYTHONPATH=path)
    started.kill()
    started.wait()
    time.sleep(5)
    holders = [run.holder() for run in every(tmp_path / "runs")]
    assert at_work(tmp_path)
    for holder in filter(None, holders):
        os.kill(int(re.search(r"\d+", holder)[0]), signal.SIGKILL)
    record_property("seen", f"{sum(map(bool, holders))} of 2 train on")
    assert all(holders)


@pytest.mark.chaos
@pytest.mark.bar("W2")
def test_a_command_with_several_workers_waits_for_its_server_as_they_do(
    forkserver, tmp_path, postgres
):
    over = ["--over", "losses.1.weight=1,2,3,4,5,6,7,8", "--by", "psnr", "--name"]
    where = ["--storage", postgres.url, "--workers", "2"]
    name = f"study-{time.monotonic_ns()}"
    started = forkserver.start(
        tmp_path, "sweep", "tiny", *SHORT, *over, name, *where, COLUMNS="200"
    )
    end = time.monotonic() + 300
    while not any(reading.ended(run.path) for run in every(tmp_path / "runs")):
        assert time.monotonic() < end, said(started)
        time.sleep(0.1)
    postgres.stop()
    time.sleep(5)  # in which the command looks for what is done
    postgres.start()
    assert started.wait() == 0, said(started)
    assert started.out.read_text().count("complete") == 8
    assert {reading.ended(run.path)["how"] for run in every(tmp_path / "runs")} == {"done"}


USELESS = "losses=[{type: l1, weight: 100}, {type: bce, weight: 1e-9}, {type: kl, weight: 1e-9}]"


@pytest.mark.usefixtures("no_pages")
def test_a_planted_useless_term_is_found_useless_and_a_vital_one_vital(sweep_here):
    code, out, err = sweep_here(
        "ablate", "tiny", "--set", USELESS, "--set", "discriminator=null", "--set", "augment=[]",
        "--set", "train.ema=null", "--set", "train.steps=30", "--set",
        "train.optimizers.generator.lr=3e-3", "--by", "psnr", "--seeds", "3",
        "--set", "train.draw_every=1000", "--set", "train.save_every=1000",
    )  # fmt: skip
    assert code == 0, err
    readings = {name: cells(out, name)[-1] for name in ("loss l1", "loss bce", "loss kl")}
    assert readings["loss l1"] == "worse without it"
    assert readings["loss bce"] == readings["loss kl"] == "no difference seen"
    # Pairs of runs with the same seed differ less than runs with unlike seeds.
    for name in ("loss bce", "loss kl"):
        paired, unpaired = (float(text) for text in cells(out, name)[4:6])
        assert paired < unpaired
