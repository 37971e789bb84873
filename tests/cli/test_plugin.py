"""A stranger's loss as a file; as an installed package it is in tests/test_kit.py."""

from __future__ import annotations

import json
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
