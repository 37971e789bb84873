"""Several processes of one training: one result, stops, faults and errors that are told once.

They are real processes that reach each other over the loopback; the thorough tier starts them by
torchrun and by `vgx --processes` as well.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket

import numpy as np
import pytest
import torch
from launched import (
    AFTER,
    NOTE_ROWS,
    codes,
    lines,
    port,
    rows,
    runs,
    saved,
    steps_done,
    team,
    trained,
    wait_until,
)
from safetensors.torch import load_file

import vgx
from vgx.console import Console
from vgx.distributed.state import Alone, join
from vgx.errors import RecipeError
from vgx.runs import checkpoint
from vgx.training import session
from vgx.training.processes import require_shareable

pytestmark = pytest.mark.slow
SHORT = ("--set", "train.draw_every=1000")
ENDLESS = ("--set", "train.steps=100000", "--set", "train.draw_every=1000000")


def weights(run):
    newest = max((run / "checkpoints").iterdir())
    return load_file(newest / "model.safetensors")


def test_a_run_of_two_goes_on_with_one_and_is_that_of_one(forkserver, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    length = (*SHORT, "--set", "train.steps=6")
    whole = trained(forkserver, one, 1, "run", "tiny", *length, hook=NOTE_ROWS)
    children = team(
        forkserver, two, 2, "run", "tiny", *length, "--set", "train.steps=3", hook=NOTE_ROWS
    )
    ended, said = codes(children)
    assert ended == [0, 0], said
    assert said[1] == children[1].out.read_text() == ""  # the first process speaks for all
    (run,) = runs(two)  # one number for both
    assert [line["step"] for line in lines(run)] == [1, 2, 3]
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    before = rows(two, 2)
    (two / "rows-0.jsonl").unlink()
    child = forkserver.run(two, "run", "--resume", run, "--set", "train.steps=6", hook=NOTE_ROWS)
    assert "processes 2 -> 1" in child.out.read_text()
    of_one = rows(one, 1)
    assert before == {n: of_one[n] for n in before}
    assert {**before, **rows(two, 1)} == of_one
    expected, got = weights(whole), weights(run)
    for name, tensor in expected.items():
        assert torch.allclose(got[name], tensor, rtol=2e-3, atol=2e-5), name
    for a, b in zip(lines(whole), lines(run), strict=True):
        assert np.allclose([*a["losses"].values()], [*b["losses"].values()], rtol=1e-4), a["step"]


@pytest.mark.bar("P1")
@pytest.mark.parametrize(
    ("number", "rank"),
    [
        (signal.SIGTERM, 1),
        pytest.param(signal.SIGUSR1, 0, marks=pytest.mark.chaos),
        (signal.SIGINT, 1),
    ],
)
def test_a_signal_to_one_process_stops_all_at_one_step(forkserver, tmp_path, number, rank):
    children = team(forkserver, tmp_path, 2, "run", "tiny", *ENDLESS)
    wait_until(
        lambda: steps_done(tmp_path, 2), lambda: [child.err.read_text() for child in children]
    )
    for _ in range(1 + (number == signal.SIGINT)):  # a launcher may repeat that of the terminal
        children[rank].kill(number)
    ended, said = codes(children)
    assert ended == [128 + number] * 2, said
    (run,) = runs(tmp_path)
    (step,) = [n for n in saved(run) if n % 5] or saved(run)[-1:]
    assert lines(run)[-1]["step"] == step == saved(run)[-1]
    name = signal.Signals(number).name
    assert f"{name}: stopped at step {step:,} and saved; go on with: vgx resume" in said[0]
    assert said[1] == ""
    ended = json.loads((run / "ended.json").read_text())
    assert (ended["how"], ended["step"], ended["signal"]) == ("stopped", step, number)


@pytest.mark.bar("P2")
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.chaos)])
def test_when_one_is_killed_the_others_end_and_the_checkpoint_is_whole(forkserver, tmp_path, rank):
    children = team(forkserver, tmp_path, 2, "run", "tiny", *ENDLESS)
    wait_until(
        lambda: steps_done(tmp_path, 6), lambda: [child.err.read_text() for child in children]
    )
    children[rank].kill()
    ended, said = codes(children)
    other = 1 - rank
    assert (ended[rank], ended[other]) == (-signal.SIGKILL, 9), said
    assert f"process {other} of 2 does not reach the others any more: another one" in said[other]
    assert "the last good checkpoint is step-0000" in said[other]
    (run,) = runs(tmp_path)
    length = saved(run)[-1] + 2
    forkserver.run(tmp_path, "run", "--resume", run, "--set", f"train.steps={length}")
    assert lines(run)[-1]["step"] == length


SPOIL = "self.engine.players['generator'].parameters[0].data.fill_(float('nan'))"
NAN = AFTER.format(rank=1, step=3, what=f"self.engine.rollbacks or {SPOIL}")
MISSING = AFTER.format(
    rank=1, step=3, what="from vgx.errors import DataError; "
    "self.batches.shared = lambda *_: (_ for _ in ()).throw(DataError('a.png: is gone'))"
)  # fmt: skip
BROKEN = AFTER.format(rank=1, step=3, what="from vgx.errors import PluginError; "
                      "raise PluginError('the part of one failed')")  # fmt: skip


def test_errors_of_one_process_end_all_and_are_told_once(forkserver, tmp_path):
    """Images that one cannot read, and a part that fails in one."""
    children = team(forkserver, tmp_path, 2, "run", "tiny", *SHORT, hook=BROKEN)
    ended, said = codes(children)
    assert ended == [3, 3], said
    assert said[0].startswith("vgx: process 1 of 2: ")
    assert "the part of one failed; there is no checkpoint yet; go on with: vgx res" in said[0]
    assert said[1] == ""
    children = team(forkserver, tmp_path, 2, "run", "tiny", *SHORT, hook=MISSING)
    ended, said = codes(children)
    assert ended == [4, 4], said
    assert "stopped at step 3 and saved" in said[0]
    assert saved(runs(tmp_path)[-1])[-1] == 3


def test_all_roll_back_when_one_has_a_number_that_is_not_finite(forkserver, tmp_path):
    settings = ("--set", "train.on_nonfinite=rollback", "--set", "train.steps=6")
    run = trained(
        forkserver, tmp_path, 2, "run", "tiny", *SHORT, *settings, "--set", "train.save_every=2",
        hook=NAN + NOTE_ROWS,
    )  # fmt: skip
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6]
    (warned,) = [line for line in lines(run) if "warnings" in line]
    assert "rollback 1 of 3" in warned["warnings"][0]
    assert saved(run)[-1] == 6
    rows(tmp_path, 2)  # both have read the same minibatches


def test_what_is_wrong_before_the_start_is_told_once(forkserver, tmp_path):
    children = team(forkserver, tmp_path, 2, "run", "tiny", "--set", "train.batch=7")
    ended, said = codes(children)
    assert ended == [2, 2]
    message = "train.batch: 7 images can't be shared by 2 processes; try train.batch=6 or "
    assert said == [f"vgx: {message}train.batch=8, or 1 process\n", ""]
    assert runs(tmp_path) == []


def test_machines_with_different_images_are_refused(forkserver, tmp_path):
    from PIL import Image

    folders = [tmp_path / "a", tmp_path / "b"]
    for k, folder in enumerate(folders):
        (folder / "pictures").mkdir(parents=True)
        for n in range(16):
            colour = (16 * n, 100, 200 + (k == 1 and n == 3))
            Image.new("RGB", (16, 16), colour).save(folder / "pictures" / f"{n}.png")
    children = team(
        forkserver,
        tmp_path,
        2,
        "run",
        "tiny",
        "--data",
        "pictures",
        folders=folders,
        LOCAL_RANK="0",
    )
    ended, said = codes(children)
    assert ended == [4, 4], said
    assert "the processes have different images" in said[0]
    assert said[1] == ""
    assert runs(folders[0]) == runs(folders[1]) == []


def test_images_are_decoded_once_on_a_machine(forkserver, tmp_path):
    hook = """
import os, time
from vgx.data import store
from vgx.training import preparing
build, opened = store._build, preparing.store_of
def noting(*given):
    open("built", "a").write(os.environ["RANK"])
    return build(*given)
def late(*given, **options):
    time.sleep(2 * (os.environ["RANK"] == "0"))  # the other one would have begun
    return opened(*given, **options)
preparing.store_of = late
store._build = noting
"""
    children = team(
        forkserver, tmp_path, 2, "run", "tiny", *SHORT, "--set", "train.steps=1", hook=hook
    )
    ended, said = codes(children)
    assert ended == [0, 0], said
    assert (tmp_path / "built").read_text() == "0"
    assert "Another run" not in children[0].out.read_text()


def test_settings_that_cannot_work_are_said(forkserver, tmp_path):
    used = port()
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", used))
        sock.listen()
        child = forkserver.start(
            tmp_path, "run", "tiny", WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(used),
        )  # fmt: skip
        assert child.wait() == 9
    said = child.err.read_text()
    assert f"another program uses port {used} of 127.0.0.1; set another MASTER_PORT" in said
    hook = "from vgx.distributed import processes; processes.TIMEOUT = 1.0"
    child = forkserver.start(
        tmp_path, "run", "tiny", hook=hook, WORLD_SIZE="3", RANK="0", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port()),
    )  # fmt: skip
    assert child.wait() == 9
    assert "at the beginning: 1 of 3 processes came within 1 seconds" in child.err.read_text()
    child = forkserver.start(tmp_path, "run", "tiny", WORLD_SIZE="3", RANK="0", VGX_TIMEOUT="soon")
    assert child.wait() == 2
    assert "MASTER_ADDR, MASTER_PORT not set: start vgx with torchrun" in child.err.read_text()
    child = forkserver.start(
        tmp_path, "run", "tiny", WORLD_SIZE="3", RANK="0", MASTER_ADDR="x", MASTER_PORT="1",
        VGX_TIMEOUT="soon",
    )  # fmt: skip
    assert child.wait() == 2
    assert child.err.read_text().startswith("vgx: VGX_TIMEOUT: 'soon' is no number of seconds")
    child = forkserver.start(tmp_path, "run", "tiny", "--processes", 2, WORLD_SIZE="3", RANK="0")
    assert child.wait() == 2
    assert "leave out --processes" in child.err.read_text()


PIECES = " in 2 pieces each (train.accumulate)"


@pytest.mark.parametrize(
    ("size", "batch", "accumulate", "advice"),
    [
        (3, 8, 1, "by 3 processes; try train.batch=6 or train.batch=9, or 2 processes"),
        (4, 2, 1, "by 4 processes; try train.batch=4, or 2 processes"),
        (2, 6, 2, f"by 2 processes{PIECES}; try train.batch=4 or train.batch=8, or 1 process"),
    ],
)  # fmt: skip
def test_a_minibatch_that_cannot_be_shared_is_refused_with_numbers_that_can(
    size, batch, accumulate, advice
):
    recipe = vgx.load_recipe("tiny", {"train.batch": batch, "train.accumulate": accumulate})
    join(Alone(size=size))
    try:
        with pytest.raises(RecipeError) as error:
            require_shareable(recipe)
    finally:
        join(Alone())
    said = f"train.batch: {batch} images can't be shared {advice}"
    assert str(error.value) == said


def test_leaving_the_loop_in_one_process_ends_all(forkserver, tmp_path):
    hook = """
import os, vgx
for step in vgx.train("tiny", {"train.steps": 100000, "train.draw_every": 100000}):
    open(f"steps-{os.environ['RANK']}", "a").write(f"{step.number} ")
    if os.environ["RANK"] == "1" and step.number == 4:
        break
else:
    open("ended", "w").write(step.run.state)
raise SystemExit(0)
"""
    children = team(forkserver, tmp_path, 2, hook=hook)
    ended, said = codes(children)
    assert ended == [0, 0], said
    assert children[1].out.read_text() == ""
    assert (tmp_path / "steps-0").read_text() == (tmp_path / "steps-1").read_text() == "1 2 3 4 "
    assert (tmp_path / "ended").read_text() == "stopped"
    assert saved(*runs(tmp_path))[-1] == 4


def test_after_a_restart_each_training_of_a_script_finds_its_own_run(monkeypatch, no_pages):
    """One process of a launch is enough to see it: two recipes, then both again, and a third."""
    del no_pages
    settings = {"train.draw_every": 1000, "train.steps": 2}
    one, two, three = (
        vgx.load_recipe("tiny", settings | {"train.seed": seed}) for seed in (1, 2, 3)
    )
    quiet = {"device": "cpu", "console": Console(quiet=True)}
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    first, second = (session.run(recipe, **quiet) for recipe in (one, two))
    assert first.environment()["launch"].startswith("7 ")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert session.run(one, **quiet) == first
    shutil.rmtree(second.checkpoints / "step-00000002")
    (second.path / "ended.json").unlink()
    assert session.run(two, **quiet) == second  # it was killed, so it is trained to its end
    assert [*checkpoint.steps(second)] == [2]
    assert session.run(three, **quiet).path.name == "0003-tiny"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "8")
    assert session.run(one, **quiet).path.name == "0004-tiny"


def test_compiled_networks_are_refused_by_several_processes():
    recipe = vgx.load_recipe("tiny", {"train.compile": True})
    require_shareable(recipe)  # one process
    join(Alone(size=2))
    try:
        with pytest.raises(RecipeError, match=r"^train\.compile: .*; leave it out"):
            require_shareable(recipe)
    finally:
        join(Alone())


@pytest.mark.parametrize(("processes", "first"), [(1, "checked"), (2, "decoded")])
def test_several_processes_check_when_all_of_them_have_the_images(
    tmp_path, monkeypatch, processes, first
):
    """Their check is shared, so nobody may begin it while another machine has yet to decode."""

    def reach(name):
        def reached(*_, **__):
            raise LookupError(name)

        return reached

    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(session, "group", lambda: Alone(size=processes))
    monkeypatch.setattr(session, "read_images", reach("decoded"))
    monkeypatch.setattr(session, "try_recipe", reach("checked"))
    with pytest.raises(LookupError, match=first):
        session.run(vgx.load_recipe("tiny"), tmp_path, "cpu", console=Console(quiet=True))
