"""Parquet files of a hub that are streamed: ranges, a busy hub, a branch that moves."""

from __future__ import annotations

import io
import json
import signal
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub, serving
from PIL import Image

import vgx
from vgx.data.stream import StreamedImages
from vgx_builtin.datasets.huggingface import HuggingFace
from vgx_builtin.rows import ranges

SPEC = vgx.ImageSpec(size=8)


def png(row):
    noise = np.random.default_rng(row).integers(0, 256, (8, 8, 3), np.uint8)
    noise[0, 0] = row % 256, row // 256, 0
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def shard(rows, rows_per_group=20):
    file = io.BytesIO()
    table = pa.table({
        "image": [{"bytes": png(row), "path": None} for row in rows],
        "kind": [row % 3 for row in rows],
    })  # fmt: skip
    pq.write_table(table, file, row_group_size=rows_per_group, compression="none")
    return file.getvalue()


def files(*parts):
    count = len(parts)
    return {f"data/train-{i:05}-of-{count:05}.parquet": shard(p) for i, p in enumerate(parts)}


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    hub = Hub({"c" * 40: files(range(600), range(600, 700))}, "c" * 40)
    with serving(hub) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(ranges, "WAITS", (0.01, 0.02, 0.03, 0.04, 0.05))
        monkeypatch.setattr("vgx_builtin.hub.reachable", lambda: True)
        yield hub


def opened(image=SPEC, **fields):
    return HuggingFace(path="o/n", stream=True, **fields).build(image)


def numbers(images):
    return [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in images]


def test_only_the_groups_that_are_needed_are_fetched(hub):
    source = opened()
    assert (len(source), len(source.groups), source.revision) == (700, 35, "c" * 40)
    whole = sum(map(len, hub.commits["c" * 40].values()))
    hub.requests.clear()
    hub.sent = 0
    images = StreamedImages(source, SPEC)
    assert numbers(images[np.array([601, 5, 619])]) == [601, 5, 619]
    assert len(hub.requests) == 2  # one for each row group
    assert hub.sent < whole / 10
    assert source.group(30).encoded(1) == png(601)


def test_all_images_come_once_through_all_ranges(hub):
    assert numbers(StreamedImages(opened(), SPEC)[np.arange(700)]) == list(range(700))


def test_labels_and_slices_are_those_of_the_rows(hub):
    source = opened(vgx.ImageSpec(size=8, classes=3), label="kind", split="train[10:50]")
    assert [source.label(row) for row in range(40)] == [(row + 10) % 3 for row in range(40)]


def test_the_hub_and_a_copy_on_this_machine_are_the_same_data(hub, tmp_path):
    for name, data in hub.commits["c" * 40].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    local = HuggingFace(path=str(tmp_path), stream=True).build(SPEC)
    assert opened().fingerprint == local.fingerprint
    assert local.revision == ""


@pytest.mark.parametrize("trouble", ["busy", "torn"])
def test_a_busy_hub_and_answers_that_break_off_are_asked_again(hub, trouble):
    source = opened()
    if trouble == "busy":
        hub.busy = [429, 503, 429]
    else:
        hub.torn = 3
    assert numbers(StreamedImages(source, SPEC)[np.arange(5)]) == [0, 1, 2, 3, 4]
    assert (hub.busy, hub.torn) == ([], 0)


def test_a_hub_that_stays_busy_is_given_up(hub):
    source = opened()
    hub.down = True
    hub.requests.clear()
    message = r"o/n/data/train-00000-of-00002.parquet: .*the hub answers 503, in 6 tries"
    with pytest.raises(vgx.HubError, match=message):
        source.group(0)
    assert len(hub.requests) == 6


def test_what_will_not_change_is_not_asked_again(hub):
    source = opened()
    hub.requests.clear()
    hub.ranges = False
    with pytest.raises(vgx.HubError, match="serves no ranges"):
        source.group(0)
    del hub.commits["c" * 40]["data/train-00000-of-00002.parquet"]
    with pytest.raises(vgx.HubError, match="the hub answers 404"):
        source.group(0)


def test_a_tail_is_not_a_whole_file(hub):
    """Opening reads the ends of the files, and their first four bytes."""
    opened()
    assert len(hub.requests) == 2 * 2 + 2  # footers, beginnings; and the footers once more


def test_data_sets_of_other_files_are_refused_with_advice(hub):
    hub.commits["c" * 40] = {"data.csv": b"a,b\n1,2\n"}
    with pytest.raises(vgx.DataError, match=r"dataset.revision=refs/convert/parquet"):
        opened()


def test_a_branch_may_move_and_the_commit_stays(hub):
    hub.commits["d" * 40] = files(range(300))
    before = opened().fingerprint
    hub.head = "d" * 40
    assert opened().revision == "d" * 40
    assert opened(revision="c" * 40).fingerprint == before != opened().fingerprint


# --- whole runs ----------------------------------------------------------------------------------

RECIPE = """
name: t
image: {size: 8}
latent: 4
encoder: {type: conv, widths: [8]}
decoder: {type: conv-transpose, widths: [8]}
losses: [l1, kl]
sampler: prior
dataset: {type: huggingface, path: o/n, stream: true}
train: {steps: 40, batch: 20, save_every: 10, log_every: 1, precision: fp32}
"""
IMPATIENT = "from vgx_builtin.rows import ranges; ranges.WAITS = (0.05,) * 5"


@pytest.fixture(scope="module")
def start(forkserver):
    def started(address, folder, *words):
        (folder / "r.yaml").write_text(RECIPE)
        hub = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "hf"), "COLUMNS": "300"}
        return forkserver.start(folder, *words, hook=IMPATIENT, pages=False, **hub)

    return started


def ended(child, code):
    ending = child.wait()
    text = child.out.read_text() + child.err.read_text()
    assert ending == code, text
    return text


def weights(run):
    last = max(run.glob("checkpoints/step-*"))
    return last.name, (last / "model.safetensors").read_bytes()


def started(start, address, tmp_path, lines):
    """Start a run, and wait until it has logged so many lines."""
    child = start(address, tmp_path, "run", "r.yaml", "--out", tmp_path / "runs")
    until = time.monotonic() + 100
    while True:
        logs = [*(tmp_path / "runs").glob("0*/log.jsonl")]
        if logs and len(logs[0].read_text().splitlines()) >= lines:
            return child, logs[0].parent
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def data():
    return files(range(600), range(600, 700))


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory, data):
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with serving(Hub({"c" * 40: dict(data)}, "c" * 40)) as address:
        text = ended(start(address, folder, "run", "r.yaml", "--out", folder / "runs"), 0)
    (run,) = (folder / "runs").iterdir()
    return run, text


@pytest.mark.slow
def test_a_hub_that_breaks_off_ends_the_run_with_everything_saved(start, tmp_path, data, whole):
    hub = Hub({"c" * 40: dict(data)}, "c" * 40)
    with serving(hub) as address:
        child, run = started(start, address, tmp_path, 12)
        hub.down = True
        text = ended(child, 8)
        name, _ = weights(run)
        assert "the hub answers 503, in 6 tries; stopped at step" in text
        assert f"saved; go on with: vgx resume {run.name[:4].lstrip('0')}" in text
        assert 12 <= int(name[5:]) < 40
        assert json.loads((run / "ended.json").read_text())["how"] == "failed"
        hub.down = False
        ended(start(address, tmp_path, "resume", run), 0)
    assert weights(run) == weights(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.chaos)]
)
def test_a_signal_while_a_group_loads_saves_the_run(start, tmp_path, data, whole, number):
    hub = Hub({"c" * 40: dict(data)}, "c" * 40)
    with serving(hub) as address:
        child, run = started(start, address, tmp_path, 5)
        hub.slow = 1.0
        requests = len(hub.requests)
        while len(hub.requests) == requests and child.kill(0):
            time.sleep(0.01)
        child.kill(number)
        text = ended(child, 128 + number)
        assert "stopped at step" in text
        hub.slow = 0.0
        ended(start(address, tmp_path, "resume", run), 0)
    assert weights(run) == weights(whole[0])


@pytest.mark.slow
def test_a_branch_that_moved_is_told_with_what_to_write(start, tmp_path, data, whole):
    hub = Hub({"c" * 40: dict(data), "d" * 40: files(range(300))}, "c" * 40)
    with serving(hub) as address:
        short = ["--set", "train.steps=20"]
        ended(start(address, tmp_path, "run", "r.yaml", "--out", tmp_path / "runs", *short), 0)
        (run,) = (tmp_path / "runs").iterdir()
        assert json.loads((run / "environment.json").read_text())["data"]["revision"] == "c" * 40
        hub.head = "d" * 40
        longer = ["--set", "train.steps=40"]
        text = ended(start(address, tmp_path, "run", "--resume", run, *longer), 2)
        assert "700 then, 300 now" in text
        assert "c" * 40 in text
        assert "d" * 40 in text
        advice = f"--set dataset.revision={'c' * 40}"
        assert advice in text
        ended(start(address, tmp_path, "run", "--resume", run, *longer, *advice.split()), 0)
    assert weights(run) == weights(whole[0])
