"""A stranger's loss, as a file and as an installed package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"
PACKAGE = ROOT / "docs" / "examples" / "vgx-huber"
LOSSES = "losses=[{type: bce-adversarial}, {type: huber, delta: 0.5, weight: 100}, {type: kl}]"


@pytest.mark.slow
def test_a_plugin_file_trains_and_its_run_stands_alone(vgx_program):
    file = vgx_program.folder / "vgx_huber.py"
    file.write_text((PACKAGE / "vgx_huber.py").read_text())
    vgx_program("run", TINY, "--plugin", file, "--set", LOSSES, "--set", "train.steps=4")
    run = vgx_program.folder / "runs" / "0001-tiny"
    assert (run / "plugins" / "vgx_huber.py").read_text() == file.read_text()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["losses"]["huber"] > 0

    file.unlink()
    vgx_program("run", "--resume", run, "--set", "train.steps=6")
    assert (run / "checkpoints" / "step-00000006").is_dir()
    vgx_program("sample", run, "-n", "4")
    done = vgx_program("run", run / "recipe.yaml", code=2)
    assert "no installed loss is called 'huber'" in done.stderr
    again = ("run", run / "recipe.yaml", "--plugin", run / "plugins" / "vgx_huber.py")
    vgx_program(*again, "--set", "train.steps=1")


@pytest.mark.slow
def test_an_installed_package_is_like_the_box_itself(fresh_program):
    site = fresh_program.folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site]
    subprocess.run([*install, PACKAGE], check=True, timeout=240)
    fresh_program.settings["PYTHONPATH"] = str(site)
    out = fresh_program("plugins").stdout
    assert "huber  (vgx-huber " in out
    assert "  loss: huber" in out
    assert "Huber 1964" in fresh_program("parts", "loss/huber").stdout
    fresh_program("run", TINY, "--set", LOSSES, "--set", "train.steps=2")
    run = fresh_program.folder / "runs" / "0001-tiny"
    plugins = json.loads((run / "environment.json").read_text())["plugins"]
    assert "vgx-huber" in {plugin["distribution"] for plugin in plugins}
    assert list((run / "plugins").iterdir()) == []
