"""Which runs a sweep takes for a point without training them: those of its recipe alone."""

from __future__ import annotations

import json
import signal

import pytest
from PIL import Image

import vgx
from vgx.cli import run_program
from vgx.runs.directory import every, find

pytest.importorskip("optuna")

from vgx_sweep.training import Machine, runs_of, train

pytestmark = pytest.mark.slow
REGISTRY = vgx.discover()
SHORT = {
    "train.steps": 4, "train.save_every": 2, "train.log_every": 1, "eval.metrics": ["psnr"],
    "eval.every": 2, "discriminator": None, "diff_augment": [], "losses": ["l1", "kl"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_pages(no_pages):
    return no_pages


def short(**changes):
    given = {name.replace("__", "."): value for name, value in changes.items()}
    return vgx.load_recipe("tiny", SHORT | given)


def found(recipe):
    return [run.path.name for run in runs_of(recipe, Machine(None, None, (), REGISTRY, None))]


def test_a_fork_is_no_run_of_its_recipe():
    vgx.run(short())
    assert run_program(["fork", "1", "--at", "2", "--set", "losses.0.weight=50"]) == 0
    fork = find("2")
    assert run_program(["resume", "2"]) == 0
    assert vgx.load_recipe(fork.recipe_file).losses[0].weight == 50
    assert found(vgx.load_recipe(fork.recipe_file)) == []
    assert found(short()) == ["0001-tiny"]


def test_a_rate_that_was_changed_on_the_way_is_no_run_of_the_last_one():
    vgx.run(short(train__steps=2))
    rate = "train.optimizers.generator.lr=0.01"
    again = ["run", "--resume", "1", "--set", "train.steps=4", "--set", rate]
    assert run_program(again) == 0
    assert found(short(train__optimizers__generator__lr=0.01)) == []
    vgx.run(short(train__optimizers__generator__lr=0.01))
    assert found(short(train__optimizers__generator__lr=0.01)) == ["0002-tiny"]


def test_a_model_that_was_imported_is_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr("vgx_share.exporting._onnx_files", lambda _: {})  # these take long
    vgx.run(short())
    assert run_program(["export", "1", str(tmp_path / "model")]) == 0
    assert run_program(["import", str(tmp_path / "model")]) == 0
    assert [run.path.name for run in every()] == ["0001-tiny", "0002-tiny"]
    assert found(short()) == ["0001-tiny"]


def test_a_run_of_other_images_at_the_same_place_is_not_taken(tmp_path):
    place = tmp_path / "images"
    place.mkdir()

    def draw(shade):
        for number in range(16):
            Image.new("RGB", (16, 16), (shade, 10 * number, 0)).save(place / f"{number}.png")

    draw(10)
    recipe = short(dataset={"type": "image-folder", "path": str(place)})
    machine = Machine(None, "cpu", (), REGISTRY, None)
    first = train(recipe, "psnr", machine, lambda *_: False)
    again = train(recipe, "psnr", machine, lambda *_: False)
    assert again == first
    draw(200)
    other = train(recipe, "psnr", machine, lambda *_: False)
    assert other.run.path.name == "0002-tiny"
    assert train(recipe, "psnr", machine, lambda *_: False) == other


def test_a_study_of_a_stranger_writes_nothing_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [part for name, value in SHORT.items()
             for part in ("--set", f"{name}={json.dumps(value)}")]  # fmt: skip
    swept = ["sweep", "tiny", *given, "--over", "losses.0.weight=1,2", "--by", "psnr"]
    assert run_program(swept) == 0
    (tmp_path / "mine.txt").write_text("mine")
    for name in ("best.yaml", "sweep.html"):
        file = tmp_path / "sweeps" / "tiny" / name
        file.unlink()
        file.symlink_to(tmp_path / "mine.txt")
        assert run_program(["sweep", "--show", "tiny"]) == 5
        assert "link" in capsys.readouterr().err
        file.unlink()
    logs = tmp_path / "sweeps" / "tiny" / "logs"
    logs.rename(tmp_path / "elsewhere")
    logs.symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").iterdir())
    assert run_program(["sweep", "--join", "tiny"]) == 5
    assert sorted((tmp_path / "elsewhere").iterdir()) == before
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_cannot_be_done_is_refused_before_a_study_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    swept = ["sweep", "tiny", "--over", "losses.0.weight=1,2", "--by", "psnr"]
    for given in (swept, ["ablate", "tiny", "--by", "psnr"]):
        assert run_program([*given, "--device", "gpu"]) == 2
        assert "device 'gpu': this machine has cpu" in capsys.readouterr().err
    assert run_program([*swept, "--search", "tpe"]) == 2
    assert "--search tpe needs --trials N" in capsys.readouterr().err
    server = "postgresql://nobody@localhost/none"
    assert run_program(["sweep", "--show", "--storage", server]) == 2
    assert "Which study of the server? Name it: --show STUDY" in capsys.readouterr().err
    assert not (tmp_path / "sweeps").exists()


def test_a_sweep_of_which_nothing_could_be_trained_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [part for name, value in SHORT.items()
             for part in ("--set", f"{name}={json.dumps(value)}")]  # fmt: skip
    over = ["--over", "train.optimizers.generator.lr=1e30,1e31,1e32,1e33", "--by", "psnr"]
    assert run_program(["sweep", "tiny", *given, *over]) == 6
    out, err = capsys.readouterr()
    assert out.count("failed:") == 4 + 3  # each as it ends, and three below the table
    assert str(tmp_path) not in out.partition("Trial 0")[2].partition("Page")[0]
    assert "study tiny: no point of it could be trained" in err


def test_workers_leave_a_sighup_ignored_that_nohup_ignores(tmp_path):
    from vgx_sweep.workers import run_workers

    seen = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_workers(
            ["--version"], {}, [tmp_path / "log"],
            lambda: seen.append(signal.getsignal(signal.SIGHUP)),
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, before)
    assert set(seen) == {signal.SIG_IGN}
