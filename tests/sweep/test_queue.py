"""Workers that share a study and are killed: each trial is done once, or failed and tried again.

What most tests train is a stub of a few milliseconds; `work` and the storage are the real ones. The
workers are forked, so that they are there at once.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import vgx
from vgx.console import Console
from vgx.runs import reading
from vgx.runs.directory import Run, every
from vgx_sweep import storage as storing
from vgx_sweep.plan import Plan
from vgx_sweep.results import rows_of
from vgx_sweep.running import planned
from vgx_sweep.training import Machine, Trained, train
from vgx_sweep.work import work

optuna = pytest.importorskip("optuna")
pools_of = pytest.importorskip("sqlalchemy.pool")
REGISTRY = vgx.discover()
TINY = vgx.load_recipe("tiny", (), REGISTRY)
FORK = multiprocessing.get_context("fork")
# Both kinds of server are one code of Optuna's: what does not turn on how several workers lock a
# row is shown on one of them outside the thorough tier.
MOSTLY_SQLITE = pytest.mark.parametrize(
    "server", ["sqlite", pytest.param("postgres", marks=pytest.mark.chaos)], indirect=True
)
LIMIT = 900  # seconds after which workers count as stuck, on a machine with much other work
SOON = {"heartbeat": 1}  # a killed worker is noticed after 4 s


@pytest.fixture
def opened():
    """Open studies, and close them at the end."""
    with ExitStack() as stack:

        def closing(open_study):
            return lambda *given, **more: stack.enter_context(
                contextlib.closing(open_study(*given, **more))
            )

        yield SimpleNamespace(create=closing(storing.create), join=closing(storing.join))


def plan_of(points, seeds=1, **more):
    over = ["losses.1.weight=" + ",".join(str(n) for n in range(1, points + 1))]
    plan = planned(TINY, REGISTRY, over, None, seeds, "psnr", None, None)
    return Plan.model_validate({**dict(plan), **more})


def value_of(recipe):
    return recipe.losses[1].weight + recipe.train.seed / 100


def worker(name, server, done, seconds, heartbeat=SOON["heartbeat"]):
    """Work like `vgx sweep --join`; note each training that was done in a file."""
    study = storing.join(name, server, heartbeat=heartbeat)

    def stub(recipe, report):
        time.sleep(seconds * random.random())
        value = value_of(recipe)
        report(1, value)
        with done.open("a") as lines:  # of less than a page: written whole
            lines.write(f"{recipe.losses[1].weight:g} {recipe.train.seed}\n")
        return Trained(Run(Path("0001-tiny")), value)

    work(study, study.plan.base(REGISTRY), REGISTRY, stub, lambda _: None)


def trainer(name, server, folder, heartbeat):
    """Work like `vgx sweep --join`, for real; what is printed goes to a file of this process."""
    study = storing.join(name, server, heartbeat=heartbeat)
    with (folder / f"worker-{os.getpid()}.txt").open("w") as log, contextlib.redirect_stdout(log):
        machine = Machine(folder / "runs", "cpu", (), REGISTRY, None, Console(log))
        work(
            study, study.plan.base(REGISTRY), REGISTRY,
            lambda recipe, report: train(recipe, "psnr", machine, report),
            machine.console.print,
        )  # fmt: skip


def begin(*arguments, target=worker):
    process = FORK.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def ends(processes, limit=LIMIT):
    end = time.monotonic() + limit
    for process in processes:
        process.join(max(end - time.monotonic(), 0.1))
    assert not [process for process in processes if process.is_alive()]


def killed_at_random(start, workers, kills, between=lambda _: None, pause=0.2):
    """Start workers, kill some of them and start others in their place, wait for the end."""
    generator = random.Random(0)
    processes = [start() for _ in range(workers)]
    killed = 0
    for number in range(kills):
        time.sleep(pause + generator.random())
        between(number)
        alive = [process for process in processes if process.is_alive()]
        if not alive:
            break
        victim = generator.choice(alive)
        os.kill(victim.pid, signal.SIGKILL)
        killed += 1
        processes.append(start())
    ends(processes)
    return killed


def each_once(opened, name, server, points):
    """Each point is complete in one trial; the others of it failed, before."""
    study = opened.join(name, server, **SOON)
    states = {}
    for trial in study.trials():
        states.setdefault(trial.user_attrs["point"], []).append(trial.state.name)
    assert sorted(states) == list(range(points))
    assert Counter(each.count("COMPLETE") for each in states.values()) == {1: points}
    assert {*itertools.chain(*states.values())} <= {"COMPLETE", "FAIL"}
    assert Counter(trial.number for trial in study.trials()).most_common(1)[0][1] == 1
    rows = rows_of(study)
    assert [row.mean for row in rows] == sorted((row.mean for row in rows), reverse=True)
    assert len(rows) == points
    return sum(each.count("FAIL") for each in states.values())


@pytest.mark.slow
def test_trials_are_done_once_by_several_workers(opened, server, study_name, tmp_path):
    study = opened.create(study_name, plan_of(12, 2), server)
    assert [trial.state.name for trial in study.trials()] == ["WAITING"] * 12
    done = tmp_path / "done"
    # Nobody is killed: a disk that lets a worker wait for seconds must not count as one.
    heartbeat = storing.HEARTBEAT
    ends([begin(study_name, server, done, 0.01, heartbeat) for _ in range(3)])
    assert each_once(opened, study_name, server, 12) == 0
    expected = {f"{weight} {seed}": 1 for weight in range(1, 13) for seed in (0, 1)}
    assert Counter(done.read_text().splitlines()) == expected
    best = rows_of(opened.join(study_name, server))[0]
    assert best.figures == {"0": 12.0, "1": 12.01}
    assert best.mean == pytest.approx(12.005)


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_tried_again(opened, server, study_name, tmp_path):
    opened.create(study_name, plan_of(3), server, **SOON)
    done = tmp_path / "done"
    first = begin(study_name, server, done, 1000)
    study = opened.join(study_name, server, **SOON)
    while not study.trials("RUNNING"):
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    ends([begin(study_name, server, done, 0.01)])
    assert each_once(opened, study_name, server, 3) == 1
    (failed,) = study.trials("FAIL")
    (again,) = [t for t in study.trials("COMPLETE") if t.user_attrs["point"] == 0]
    assert again.system_attrs["retry_history"] == [failed.number]  # Optuna's own callback


@pytest.mark.slow
@MOSTLY_SQLITE
def test_a_point_that_was_lost_before_its_retry_is_found(opened, server, study_name, tmp_path):
    """As if the worker that noted the failure had been killed before it queued the trial again."""
    study = opened.create(study_name, plan_of(2), server, **SOON)
    trial = storing.claim(study, lambda _: optuna.samplers.RandomSampler())
    study.optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert storing.lost(study) == [0]
    for _ in range(3):  # workers that find it at the same time: each queues it
        storing.put_again(study, 0)
    ends([begin(study_name, server, tmp_path / "done", 0.01)])
    assert each_once(opened, study_name, server, 2) == 3


@pytest.mark.slow
@MOSTLY_SQLITE
def test_a_trial_that_is_given_back_waits_for_the_next(opened, server, study_name):
    study = opened.create(study_name, plan_of(1), server, heartbeat=1)
    first = storing.claim(study, lambda _: optuna.samplers.RandomSampler())
    assert storing.claim(study, lambda _: optuna.samplers.RandomSampler()) is None
    storing.give_back(study, first)
    time.sleep(5)  # longer than a killed worker is waited for: nobody's trial is not failed
    second = storing.claim(study, lambda _: optuna.samplers.RandomSampler())
    assert (second.number, len(study.trials())) == (first.number, 1)
    # Its heartbeat is new before it runs, so no other worker takes this one for dead.
    assert storing.claim(study, lambda _: optuna.samplers.RandomSampler()) is None
    assert [trial.state.name for trial in study.trials()] == ["RUNNING"]


@pytest.mark.slow
@MOSTLY_SQLITE
def test_a_worker_that_was_taken_for_dead_notes_nothing(opened, server, study_name):
    study = opened.create(study_name, plan_of(1), server, **SOON)
    trial = storing.claim(study, lambda _: optuna.samplers.RandomSampler())
    study.optuna.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    storing.finish(study, trial, "COMPLETE", 1.0)
    storing.give_back(study, trial)
    assert study.trials()[0].state.name == "FAIL"


@pytest.mark.slow
@MOSTLY_SQLITE
def test_fresh_points_of_a_search_are_as_many_as_requested(opened, server, study_name, tmp_path):
    """And random ones are the same whoever draws them."""
    plan = planned(TINY, REGISTRY, ["losses.1.weight=0.1:10:log"], 12, 1, "psnr", "random", None)
    for name, workers in ((study_name, 3), (f"{study_name[:60]}-b", 1)):
        opened.create(name, plan, server, **SOON)
        ends([begin(name, server, tmp_path / name, 0.01) for _ in range(workers)])
        assert each_once(opened, name, server, 12) == 0
    drawn = [
        {trial.user_attrs["point"]: trial.params["losses.1.weight"] for trial in study.trials()}
        for study in (
            opened.join(study_name, server),
            opened.join(f"{study_name[:60]}-b", server),
        )
    ]
    assert drawn[0] == drawn[1]
    assert len({*drawn[0].values()}) == 12
    assert all(0.1 <= weight <= 10 for weight in drawn[0].values())


def test_a_transaction_of_sqlite_has_the_file_alone_from_its_first_statement_on(
    opened, study_name, tmp_path, monkeypatch
):
    """Two workers that both read that a trial waits would both take it."""
    monkeypatch.setenv("VGX_SWEEPS", str(tmp_path))
    study = opened.create(study_name, plan_of(1), None, **SOON)
    file = tmp_path / study_name / "study.db"
    with (
        contextlib.closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other,
        study.rdb.engine.begin() as connection,
    ):
        connection.exec_driver_sql("SELECT state FROM trials").all()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


@pytest.mark.slow
@MOSTLY_SQLITE
def test_a_name_that_is_taken_is_refused(opened, server, study_name, monkeypatch):
    opened.create(study_name, plan_of(1), server)
    connect, made = storing.connect, []

    def connecting(*given, **more):
        made.append(connect(*given, **more))
        return made[-1]

    monkeypatch.setattr(storing, "connect", connecting)
    with pytest.raises(vgx.StorageError, match=f"vgx sweep --join {study_name}"):
        opened.create(study_name, plan_of(2), server)
    with pytest.raises(vgx.StorageError, match="no study other"):
        opened.join("other", server)
    # What was refused keeps no connection.
    assert made
    pools = [each.engine.pool for each in made]  # of PostgreSQL they keep none at all
    counted = [pool for pool in pools if not isinstance(pool, pools_of.NullPool)]
    assert {pool.checkedin() + pool.checkedout() for pool in counted} <= {0}
    assert bool(counted) == (server is None)


@pytest.mark.chaos
def test_eight_workers_that_are_killed_do_200_trials_once(opened, server, study_name, tmp_path):
    opened.create(study_name, plan_of(200), server, **SOON)
    start = partial(begin, study_name, server, tmp_path / "done", 0.3)
    assert killed_at_random(start, workers=8, kills=20) >= 10
    assert each_once(opened, study_name, server, 200) > 0


@pytest.mark.chaos
@pytest.mark.bar("W2")
def test_a_server_that_is_stopped_and_started_meanwhile_loses_nothing(
    opened, postgres, study_name, tmp_path, record_property
):
    opened.create(study_name, plan_of(200), postgres.url, **SOON)
    start = partial(begin, study_name, postgres.url, tmp_path / "done", 0.3)
    killed_at_random(start, workers=8, kills=12, between=restarting(postgres, (3, 8)))
    each_once(opened, study_name, postgres.url, 200)
    record_property("cases", 200)


def restarting(postgres, when):
    """Stop and start the server before some of the kills."""

    def restart(number):
        if number in when:
            postgres.stop()
            time.sleep(6)  # longer than a worker may be silent
            postgres.start()

    return restart


POINTS = 24


def trained_and_killed(opened, study_name, server, folder, between=lambda _: None):
    """Eight workers train 24 points for real, 12 are killed: each point has one run that is done.

    Returns the failed trials.
    """
    short = {"train.steps": 6, "eval.every": 3, "eval.metrics": ["psnr"], "train.save_every": 1}
    recipe = vgx.load_recipe(TINY, {**short, "train.draw_every": 100}, REGISTRY)
    over = ["losses.1.weight=" + ",".join(str(n) for n in range(1, POINTS + 1))]
    plan = planned(recipe, REGISTRY, over, None, 1, "psnr", None, None)
    study = opened.create(study_name, plan, server, heartbeat=3)
    start = partial(begin, study_name, server, folder, 3, target=trainer)
    killed = killed_at_random(start, 8, 12, between, pause=1.5)
    failed = each_once(opened, study_name, server, POINTS)
    runs = {}
    for run in every(folder / "runs"):
        if reading.ended(run.path) and reading.ended(run.path)["how"] == "done":
            weight = reading.recipe(run.path)["losses"][1]["weight"]
            assert runs.setdefault(weight, run) is run, "trained twice"
    assert len(runs) == POINTS
    for row in rows_of(study):
        run = runs[row.parameters["losses.1.weight"]]
        assert {"0": run.path.name} == row.runs
        assert {"0": reading.measured(run.path, "psnr")[-1]["metrics"]["psnr"]} == row.figures
    # A run that was killed comes to the same as one that was not.
    base, twin = plan.base(REGISTRY), folder / "twin"
    machine = Machine(twin, "cpu", (), REGISTRY, None, Console(quiet=True))
    failures = [trial for trial in study.trials("FAIL") if trial.params] or study.trials()
    (again,) = plan.recipes(base, failures[0].params, REGISTRY)
    undisturbed = train(again, "psnr", machine, lambda *_: False)
    assert undisturbed.figure == next(
        row.mean for row in rows_of(study) if row.parameters == failures[0].params
    )
    return killed, failed


@pytest.mark.chaos
@pytest.mark.bar("W1")
def test_real_trainings_of_killed_workers_are_done_once(
    opened, server, study_name, tmp_path, no_pages, record_property
):
    killed, failed = trained_and_killed(opened, study_name, server, tmp_path)
    assert killed >= 6
    assert failed > 0
    record_property("cases", killed)


@pytest.mark.chaos
@pytest.mark.bar("W2")
def test_real_trainings_while_the_server_is_stopped_and_started_are_done_once(
    opened, postgres, study_name, tmp_path, no_pages, record_property
):
    restart = restarting(postgres, (2, 6))
    trained_and_killed(opened, study_name, postgres.url, tmp_path, restart)
    record_property("cases", POINTS)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.bar("W1", control="signs of life are not looked for")
def test_without_signs_of_life_the_trial_of_a_killed_worker_is_never_done(
    opened, study_name, tmp_path, monkeypatch, record_property
):
    monkeypatch.setenv("VGX_SWEEPS", str(tmp_path))
    monkeypatch.setattr(optuna.storages, "fail_stale_trials", lambda _: None)
    study = opened.create(study_name, plan_of(3), None, **SOON)
    first = begin(study_name, None, tmp_path / "done", 1000)
    while not study.trials("RUNNING"):
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    second = begin(study_name, None, tmp_path / "done", 0.01)
    end = time.monotonic() + LIMIT
    while len(study.trials("COMPLETE")) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    second.join(8)  # longer than a killed worker is waited for
    assert second.is_alive()
    second.kill()
    left = len(study.trials("RUNNING"))
    record_property("seen", f"{left} of 3 points never done")
    assert left == 1


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.bar("W2", control="workers that do not wait for the server")
def test_workers_that_do_not_wait_for_the_server_end(
    opened, postgres, study_name, tmp_path, monkeypatch, record_property
):
    monkeypatch.setattr(storing, "WAIT", -1)
    monkeypatch.setattr("vgx_sweep.work.MAX_FAILURES", 1)
    study = opened.create(study_name, plan_of(200), postgres.url, **SOON)
    workers = [begin(study_name, postgres.url, tmp_path / "done", 0.2) for _ in range(2)]
    while not study.trials("COMPLETE"):
        time.sleep(0.05)
    restarting(postgres, (0,))(0)
    ends(workers)
    assert len(study.trials("COMPLETE")) < 200
    failed = sum(worker.exitcode != 0 for worker in workers)
    record_property("seen", f"{failed} of 2 ended")
    assert failed == 2
