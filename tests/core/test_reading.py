"""The readers of a run's files: what is read, what is refused, and what a damaged log keeps."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import warnings
from pathlib import Path

import pytest
from memory import grows_by_less_than
from PIL import Image
from steps import TIMES

import vgx
from vgx.console import Console
from vgx.errors import Notice, StorageError
from vgx.runs import checkpoint, frames, reading
from vgx.runs.best import Measured, Measurement, best_of, measured_until
from vgx.runs.directory import Run, create
from vgx.training import session

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
READERS = {
    "environment.json": reading.environment,
    "audit.json": reading.audit,
    "ended.json": reading.ended,
    "evaluation.json": reading.evaluation,
}


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file_is_none_and_a_damaged_one_names_itself(tmp_path, name):
    assert READERS[name](tmp_path) is None
    for damage in (b"", b"[]", b"\xff", b"{", b"[" * 100_000, b'{"step": NaN}', b"\0" * 100):
        (tmp_path / name).write_bytes(damage)
        if damage == b'{"step": NaN}' and name in ("environment.json", "audit.json"):
            assert READERS[name](tmp_path) == {}  # a field that they do not have
            continue
        with pytest.raises(StorageError, match=name):
            READERS[name](tmp_path)


@pytest.mark.bar("S10")
@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("ended.json", '{"how": "done", "step": 1, "of": Infinity}', "of"),
        ("ended.json", '{"how": "\\u001b[2J", "step": 1, "of": 1}', "how"),
        ("ended.json", '{"how": "done", "step": -1, "of": 1}', "step"),
        ("environment.json", '{"packages": []}', "packages"),
        ("environment.json", '{"data": [1]}', "data"),
        ("environment.json", '{"data": {"content": "x", "kept": Infinity}}', "data.kept"),
        ("environment.json", '{"parent": {"run": "a", "step": -1, "how": "fork"}}', "parent.step"),
        ("environment.json", '{"parent": {"run": "a", "step": 1, "how": "x"}}', "parent.how"),
        ("environment.json", '{"parent": {"step": 1, "how": "start"}}', "parent.run"),
        ("audit.json", '{"need": {"fixed": Infinity, "each": 1, "there": 1}}', "need.fixed"),
        ("audit.json", '{"need": {"fixed": 1, "each": 1e308, "there": 1}}', "need.each"),
        (
            "audit.json",
            f'{{"need": {{"fixed": {"9" * 400}, "each": 1, "there": 1}}}}',
            "need.fixed",
        ),
        ("audit.json", '{"losses": {"l1": NaN}}', "losses.l1"),
        ("audit.json", '{"rows": [{"network": "encoder"}]}', "rows.0.part"),
        ("audit.json", '{"notes": ["\\ud800"]}', "Invalid JSON"),
        ("evaluation.json", '{"generation": [{"figures": {"x": {"mean": "x"}}}]}', "mean"),
    ],
)
def test_the_field_is_named(tmp_path, name, content, field):
    (tmp_path / name).write_text(content)
    with pytest.raises(StorageError, match=rf"{name}: .*{field}"):
        READERS[name](tmp_path)


@pytest.mark.bar("S10")
@pytest.mark.parametrize("name", [*READERS, "lock", "log.jsonl", "note.txt", "recipe.yaml"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "/dev/zero", "sparse"])
def test_what_is_no_file_of_a_run_is_not_waited_for(tmp_path, name, kind):
    file = tmp_path / name
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "sparse":
        file.touch()
        os.truncate(file, 3 * 10**9)
    else:
        file.symlink_to(kind)
    readers = {"lock": reading.lock, "log.jsonl": reading.log, "recipe.yaml": reading.recipe}
    readers["note.txt"] = reading.note
    with pytest.raises(StorageError, match=name):
        (readers | READERS)[name](tmp_path)


# --- the log -------------------------------------------------------------------------------------


def logged(*lines):
    run = create("x")
    run.log_file.write_bytes(b"".join(line + b"\n" for line in lines))
    return run


def line(step, **more):
    return json.dumps({"step": step, **more}).encode()


BAD = {
    "torn": b'{"step": 2, "lo',
    "no JSON": b"nothing",
    "NaN": b'{"step": NaN}',
    "text": b'{"step": "2"}',
    "NUL": b'{"step": 2\0}',
    "a list": b"[2]",
    "images": b'{"step": 2, "images": []}',
    "seconds": b'{"step": 2, "seconds": Infinity}',
    "no UTF-8": b'{"step": 2, "losses": {"\xff": 1.0}}',
    "deep": b"[" * 100_000,
    "long": b"x" * (3 * 2**20),
    "out of order": b'{"step": 83}',
    "again": b'{"step": 1}',
}


@pytest.mark.bar("R11")
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_line_is_passed_over_and_kept_aside(bad):
    run = logged(line(1), bad, line(3), line(4), line(5))
    with pytest.warns(Notice, match=r"log\.jsonl: passed over: line [12]: "):
        assert [each["step"] for each in run.read_log()] == [1, 3, 4, 5]
    with pytest.warns(Notice, match=r"; now in log\.jsonl\.damaged$"):
        run.rewind_log(4)
    assert run.log_file.read_bytes() == b'{"step": 1}\n{"step": 3}\n{"step": 4}\n'
    aside = (run.path / "log.jsonl.damaged").read_bytes()
    assert aside[:1000] in (bad[:1000] + b"\n", bad[:1000])
    assert [each["step"] for each in run.read_log()] == [1, 3, 4]  # without a notice


def test_the_end_of_a_killed_writer_is_normal_and_nothing_is_glued_to_it():
    run = logged(line(1))
    with run.log_file.open("ab") as file:
        file.write(b'{"step": 2, "lo')
    assert [each["step"] for each in run.read_log()] == [1]  # without a notice
    run.log({"step": 3})
    assert run.log_file.read_bytes() == b'{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n'


def test_a_log_that_was_moved_aside_does_not_lead_out_of_the_run(tmp_path):
    run = logged(line(1), b"bad", line(3))
    theirs = tmp_path / "thesis.txt"
    theirs.write_text("mine")
    (run.path / "log.jsonl.damaged").symlink_to(theirs)
    with pytest.raises(StorageError):
        run.rewind_log(3)
    assert theirs.read_text() == "mine"
    assert run.log_file.read_bytes() == b'{"step": 1}\nbad\n{"step": 3}\n'


def test_a_log_that_the_system_does_not_let_be_read_is_an_error_of_the_storage():
    run = logged()
    run.log_file.unlink(missing_ok=True)
    run.log_file.symlink_to("/proc/self/mem")  # a regular file that cannot be read at any place
    with pytest.raises(StorageError, match=r"log\.jsonl: "):
        reading.last_line(run.path)


def test_a_very_long_log_is_thinned_but_begins_and_ends_as_it_is(monkeypatch):
    monkeypatch.setattr(reading, "LINES", 10)
    run = logged(*map(line, range(1, 24)))
    steps = [each["step"] for each in run.read_log()]
    assert (steps[0], steps[-1]) == (1, 23)
    assert len(steps) <= 11
    assert {after - before for before, after in itertools.pairwise(steps)} <= {1, 2, 3, 4}
    run.rewind_log(22)  # of the file itself nothing is left out
    assert [each.line["step"] for each in reading.entries(run.path)] == [*range(1, 23)]


def test_the_best_measurement_stands_in_the_checkpoint():
    run = logged()
    noted = {"step": 8, "measured": {"psnr": {"last": 7.0, "value": 9.5, "step": 4}}}
    best = {"psnr": Measured(7.0, Measurement(9.5, 4))}
    assert measured_until(run, noted, {"psnr": "higher"}) == best
    assert measured_until(run, noted, {}) == {}
    old = logged(*(line(n, metrics={"psnr": v}) for n, v in enumerate((7.0, 9.5, 8.0, 99.0), 1)))
    before = {"step": 3}  # a checkpoint of an earlier version: the log is read, as far as it goes
    best = {"psnr": Measured(8.0, Measurement(9.5, 2))}
    assert measured_until(old, before, {"psnr": "higher"}) == best


def test_a_metric_that_gave_no_number_costs_neither_its_line_nor_its_checkpoint(tmp_path):
    """Python writes it as NaN or Infinity, which are no JSON, and so do logs and checkpoints."""
    nan = float("nan")
    run = logged(line(1, metrics={"psnr": nan}), line(2, metrics={"psnr": 9.0}))
    assert [each["step"] for each in run.read_log()] == [1, 2]
    assert best_of(run.read_log(), "psnr", "higher") == (9.0, 2)
    state = {"format": 1, "step": 3, "measured": {"psnr": {"last": nan, "value": 9.0, "step": 2}}}
    numbers = reading.parsed(json.dumps(state).encode(), tmp_path / "state.json", reading.NUMBERS)
    assert str(measured_until(run, numbers, {"psnr": "higher"})["psnr"].last) == "nan"
    figure = {"mean": nan, "spread": nan, "values": [nan, float("inf")]}
    part = {"pictures": 2, "split": "all", "figures": {"fid": figure}}
    (run.path / "evaluation.json").write_text(json.dumps({"generation": [part]}))
    assert str(reading.evaluation(run.path)["generation"][0]["figures"]["fid"]["mean"]) == "nan"


# --- grids ---------------------------------------------------------------------------------------


def test_a_grid_has_no_more_pixels_than_a_run_draws(tmp_path):
    file = tmp_path / "step-00000001.png"
    with pytest.raises(StorageError, match="missing"):
        reading.grid(file, 16 * 16)
    Image.new("RGB", (4096, 4096)).save(file)
    assert reading.grid(file, 16 * 16).size == (4096, 4096)
    Image.new("L", (4200, 4200)).save(file)
    with pytest.raises(StorageError, match="4,200 x 4,200 pixels of L; no grid of this run"):
        reading.grid(file, 16 * 16)
    assert reading.grid(file, 512 * 512).size == (4200, 4200)
    for image in (Image.new("RGBA", (8, 8)), Image.new("I;16", (8, 8))):
        image.save(file)
        with pytest.raises(StorageError, match="no grid of this run"):
            reading.grid(file, 16 * 16)
    Image.new("RGB", (8, 8)).save(file, "GIF")
    with pytest.raises(StorageError, match="UnidentifiedImageError"):
        reading.grid(file, 16 * 16)


def test_a_timelapse_is_made_without_a_damaged_grid():
    run = create("x")
    for step in (1, 2, 5, 10):
        Image.new("RGB", (8, 8), (step, 0, 0)).save(run.samples / f"step-{step:08}.png")
    torn = run.samples / "step-00000002.png"
    torn.write_bytes(torn.read_bytes()[:40])
    os.mkfifo(run.samples / "step-00000003.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames.timelapse(run, 8 * 8)
    assert len(caught) == 2
    assert all(w.category is Notice and "left out: " in str(w.message) for w in caught)
    with Image.open(run.samples / "timelapse.webp") as made:
        assert made.n_frames == 3


# --- a damaged log, and then a resume ------------------------------------------------------------

SETTINGS = {
    "train.steps": 12, "train.save_every": 4, "train.keep": 2, "train.log_every": 1,
    "eval.every": 2, "eval.n": 8, "eval.metrics": ["l1"], "eval.best": "l1",
    "train.optimizers.generator.lr": 0.5,  # it only unlearns: the first measurement is the best
    "train.ema": None,
}  # fmt: skip


def resumed(run, steps):
    recipe = vgx.load_recipe(TINY, {**SETTINGS, "train.steps": steps})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        session.resume(run, recipe, console=Console(file=io.StringIO()))


def left(run):
    """What a resume leaves: log lines without times, checkpoints, and the newest weights."""
    lines = [{**each, **dict.fromkeys(TIMES, 0)} for each in run.read_log()]
    kept = sorted(path.name for path in run.checkpoints.iterdir())
    return lines, kept, checkpoint.load(run)[1].model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 12 steps, and what a resume to 16 steps leaves of it."""

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        recipe = vgx.load_recipe(TINY, SETTINGS)
        run = session.run(recipe, out=folder / "runs", console=Console(file=io.StringIO()))
        whole = Run(Path(shutil.copytree(run.path, folder / "whole" / run.path.name)))
        resumed(whole, 16)
    return run, left(whole)


def mutated(data, generator):
    """Return a log of which some bytes are others, are lost, or were written twice."""
    data = bytearray(data)
    for _ in range(generator.randrange(1, 6)):
        place = generator.randrange(len(data) or 1)
        kind = generator.randrange(6)
        if kind == 0:
            data[place : place + 1] = bytes([generator.randrange(256)])
        elif kind == 1:
            del data[place : place + generator.randrange(1, 200)]
        elif kind == 2:
            data[place : place + 50] = bytes(50)
        elif kind == 3:
            data[place:place] = bytes(generator.randrange(256) for _ in range(20))
        elif kind == 4:
            data[place:place] = data[place : place + 300]
        else:
            del data[generator.choice([0, place, len(data) - 5]) :]
    return bytes(data)


def lost_by(trained, folder, generator):
    """Damage the log of a run, resume it, and return what differs from a whole one."""

    run, (lines, kept, weights) = trained
    copy = Run(Path(shutil.copytree(run.path, folder / "0001-tiny")))
    before = copy.log_file.read_bytes()
    copy.log_file.write_bytes(mutated(before, generator))
    readable = {*copy.log_file.read_bytes().split(b"\n")} & {*before.split(b"\n")} - {b""}
    resumed(copy, 16)
    own_lines, own_kept, own_weights = left(copy)
    wrong = []
    if own_kept != kept:
        wrong.append(f"checkpoints: {own_kept}, not {kept}")
    if own_weights.keys() != weights.keys() or any(
        not own_weights[name].equal(tensor) for name, tensor in weights.items()
    ):
        wrong.append("weights")
    wanted = [{**json.loads(text), **dict.fromkeys(TIMES, 0)} for text in readable] + lines[-4:]
    wrong += [f"line {each['step']}" for each in wanted if each not in own_lines]
    shutil.rmtree(copy.path)
    return wrong


@pytest.mark.slow
@pytest.mark.bar("R11")
@pytest.mark.parametrize("n", [4, pytest.param(60, marks=pytest.mark.chaos)])
def test_a_damaged_log_costs_only_its_damaged_lines(trained, tmp_path, n, record_property):
    generator = random.Random(n)
    assert [wrong for _ in range(n) if (wrong := lost_by(trained, tmp_path, generator))] == []
    record_property("cases", n)


def until_the_first_bad_line(run, _=None):
    for entry in list(reading._lines(run)):
        if entry.line is None:
            return
        yield entry


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.bar("R11", control="a reader that stops at the first bad line: its loss is noticed")
def test_a_reader_that_stops_would_be_seen(trained, tmp_path, monkeypatch, record_property):
    monkeypatch.setattr(reading, "entries", until_the_first_bad_line)
    generator = random.Random(4)
    noticed = sum(bool(lost_by(trained, tmp_path, generator)) for _ in range(4))
    assert noticed >= 2
    record_property("seen", f"{noticed} of 4 damaged logs lost lines")


# --- checkpoints and the log on the disk ---------------------------------------------------------


def test_the_log_is_on_the_disk_before_the_checkpoint_is_committed(tmp_path, monkeypatch):
    """A power cut may then lose lines that no checkpoint counts on, and no others."""
    order, sync, rename = [], os.fsync, os.rename

    def syncing(descriptor):
        order.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        sync(descriptor)

    def renaming(source, target, **more):
        order.append(("rename", Path(target).name))
        rename(source, target, **more)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "rename", renaming)
    recipe = vgx.load_recipe(TINY, {"train.steps": 2, "train.save_every": 1})
    session.run(recipe, tmp_path / "runs", console=Console(file=io.StringIO()))
    for step in (1, 2):
        commit = order.index(("rename", f"step-{step:08}"))
        before = order[:commit]
        assert ("sync", "log.jsonl") in before[-20:]
        order = order[commit + 1 :]


def test_a_sparse_file_of_tensors_is_refused_before_it_is_in_memory():
    recipe = vgx.load_recipe(TINY, {"train.steps": 1})
    run = session.run(recipe, console=Console(file=io.StringIO()))
    (folder,) = run.checkpoints.iterdir()
    os.truncate(folder / "model.safetensors", 10**9)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model.safetensors"]["bytes"] = 10**9
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    refused = pytest.raises(StorageError, match=r"model\.safetensors: SHA-256 is ")
    with grows_by_less_than(100_000_000), refused:
        checkpoint.load(run)


@pytest.mark.parametrize(
    ("key", "value", "refused"), [("betas", None, False), ("betas", ["x"], True), ("lr", [], True)]
)
def test_settings_of_an_optimizer_that_nobody_wrote(key, value, refused):
    """A setting may be absent, as in another version of PyTorch; another kind of value may not."""

    recipe = vgx.load_recipe(TINY, {"train.steps": 1})
    run = session.run(recipe, console=Console(file=io.StringIO()))
    (folder,) = run.checkpoints.iterdir()
    state = json.loads((folder / "state.json").read_text())
    (group,) = state["optimizers"]["generator"]["groups"]
    del group[key]
    if value is not None:
        group[key] = value
    data = json.dumps(state, indent=1).encode()
    (folder / "state.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["state.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    longer = vgx.load_recipe(TINY, {"train.steps": 2})
    if refused:
        with pytest.raises(StorageError, match=f"{key} of an optimizer is "):
            session.resume(run, longer, console=Console(file=io.StringIO()))
    else:
        session.resume(run, longer, console=Console(file=io.StringIO()))
        assert checkpoint.load(run)[1].numbers["step"] == 2
