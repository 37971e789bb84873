"""Trackers in the box, read back by their own readers."""

from __future__ import annotations

import csv
import io
import math
import struct

import pytest
import torch
from PIL import Image

import vgx
from vgx.parts.base import validate

REGISTRY = vgx.discover()
GRID = torch.linspace(0, 1, 3 * 6 * 9).reshape(3, 6, 9)  # [C, H, W]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "0001-a"
    folder.mkdir()
    return folder


def opened(name, run, **fields):
    return validate(REGISTRY.part("tracker", name), fields, REGISTRY).build(run)


# --- csv ---------------------------------------------------------------------------------------


def rows(run):
    with (run / "trackers" / "values.csv").open(newline="") as file:
        return [
            {k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)
        ]


def test_a_table_reads_back(run):
    table = opened("csv", run)
    table.log(1, {"losses/l1": 0.1, "losses/k,l": 1e-9})
    table.log(2, {"losses/l1": 1 / 3, "losses/k,l": 2.0})
    table.log(4, {"losses/l1": 0.5, "metrics/psnr": 20.0})
    table.images(4, "samples", GRID)
    table.close()
    new = {"metrics/psnr": None}
    assert rows(run) == [
        {"step": 1, "losses/l1": 0.1, "losses/k,l": 1e-9, **new},
        {"step": 2, "losses/l1": 1 / 3, "losses/k,l": 2.0, **new},
        {"step": 4, "losses/l1": 0.5, "losses/k,l": None, "metrics/psnr": 20.0},
    ]
    assert [file.name for file in (run / "trackers").iterdir()] == ["values.csv"]


def test_a_table_goes_on_where_a_step_comes_again(run):
    table = opened("csv", run)
    for step in (1, 2, 3, 4):
        table.log(step, {"l1": step / 10})
    again = opened("csv", run)  # a resume from step 2
    again.log(3, {"l1": 9.0})
    again.log(5, {"l1": 8.0})
    again.log(2, {"l1": 7.0})  # a rollback
    assert rows(run) == [{"step": 1, "l1": 0.1}, {"step": 2, "l1": 7.0}]


def test_a_torn_row_is_none(run):
    table = opened("csv", run)
    table.log(1, {"l1": 0.5})
    table.log(2, {"l1": 0.25})
    file = run / "trackers" / "values.csv"
    file.write_text(file.read_text()[:-3])
    opened("csv", run).log(3, {"l1": 0.125})
    assert rows(run) == [{"step": 1, "l1": 0.5}, {"step": 3, "l1": 0.125}]


# --- tensorboard -------------------------------------------------------------------------------


def events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run / "trackers" / "tensorboard"), size_guidance={"images": 0})
    return read.Reload()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_values_and_images(run):
    pytest.importorskip("tensorboard", reason="vgx[tensorboard] is not installed")
    board = opened("tensorboard", run)
    board.log(1, {"losses/l1": 0.5, "metrics/psnr": 20.0})
    board.images(1, "samples", GRID)
    board.log(2, {"losses/l1": 0.25})
    board.close()
    read = events(run)
    assert read.Tags()["scalars"] == ["losses/l1", "metrics/psnr"]
    assert [(e.step, e.value) for e in read.Scalars("losses/l1")] == [(1, 0.5), (2, 0.25)]
    (image,) = read.Images("samples")
    assert (image.step, image.width, image.height) == (1, 9, 6)
    pixels = torch.tensor(list(Image.open(io.BytesIO(image.encoded_image_string)).tobytes()))
    assert torch.equal(pixels.view(6, 9, 3).permute(2, 0, 1), (GRID * 255).to(torch.uint8).long())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_forgets_steps_that_come_again(run, monkeypatch):
    pytest.importorskip("tensorboard", reason="vgx[tensorboard] is not installed")
    from tensorboard.summary.writer import event_file_writer

    # It numbers the files of a process: 9, 10 and 11 are sorted as texts.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    board = opened("tensorboard", run)
    for step in (1, 2, 3, 4):
        board.log(step, {"l1": step / 4})
    board.close()
    again = opened("tensorboard", run)  # a resume from step 2
    again.log(3, {"l1": 9.0})
    again.log(5, {"l1": 8.0})
    again.log(4, {"l1": 7.0})  # a rollback
    again.close()
    values = [(event.step, event.value) for event in events(run).Scalars("l1")]
    assert values == [(1, 0.25), (2, 0.5), (3, 9.0), (4, 7.0)]


# --- those with a server -----------------------------------------------------------------------


def records(data):
    """What a log as LevelDB writes it holds: blocks of 32 KiB, pieces with a header of 7 bytes."""
    at, whole = 7, b""
    while at + 7 < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of it, or the last piece
            yield whole
            whole = b""


@pytest.mark.filterwarnings("ignore")
def test_wandb_works_offline_and_goes_on_with_the_same_run(run, monkeypatch):
    pytest.importorskip("wandb", reason="vgx[wandb] is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_CACHE_DIR", str(run / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(run / "config"))
    for step in (3, 4):
        journal = opened("wandb", run)
        journal.log(step, {"losses/l1": 0.5 / step})
        journal.images(step, "samples", GRID)
        journal.close()
    files = sorted((run / "trackers" / "wandb" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1  # one run
    values = []
    for file in files:
        for data in records(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            items = {(i.key or "/".join(i.nested_key)): i.value_json for i in record.history.item}
            if "losses/l1" in items:
                values.append((float(items["step"]), float(items["losses/l1"])))
    assert sorted(values) == [(3, 0.5 / 3), (4, 0.5 / 4)]
    files = (run / "trackers" / "wandb").rglob("media/images/samples_*.png")
    assert {Image.open(file).size for file in files} == {(9, 6)}


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_values_and_images_in_one_run(run, monkeypatch):
    pytest.importorskip("mlflow", reason="vgx[mlflow] is not installed")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (run.parent / "store").as_uri()
    for step in (3, 4):
        journal = opened("mlflow", run, uri=uri, experiment="faces")
        journal.log(step, {"losses/l1": 0.5 / step})
        journal.images(step, "samples", GRID)
        journal.close()
    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'faces'")
    (mlflow_run,) = client.search_runs([experiment.experiment_id])
    assert (mlflow_run.info.run_name, mlflow_run.info.status) == ("0001-a", "FINISHED")
    history = client.get_metric_history(mlflow_run.info.run_id, "losses/l1")
    assert [(m.step, m.value) for m in history] == [(3, 0.5 / 3), (4, 0.5 / 4)]
    kept = [file.path for file in client.list_artifacts(mlflow_run.info.run_id, "samples")]
    assert kept == ["samples/00000003.png", "samples/00000004.png"]
    assert math.isclose(mlflow_run.data.metrics["losses/l1"], 0.125)
