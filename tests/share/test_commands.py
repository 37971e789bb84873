"""The three commands, one after the other, as a user types them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from model_hub import ModelHub, serving

OLD = Path(__file__).parents[1] / "data" / "run-of-format-1"
TOKEN = "hf_verysecrettoken"


def vgx(folder, *words, **more):
    command = [sys.executable, "-m", "vgx", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=300, check=False,
        env={**os.environ, **more},
    )  # fmt: skip
    assert TOKEN not in done.stdout + done.stderr
    return done


@pytest.mark.chaos
def test_a_run_goes_to_the_hub_and_comes_back(tmp_path):
    shutil.copytree(OLD, tmp_path / "runs" / "0001-old")
    done = vgx(tmp_path, "export", "1", "faces", "--codes")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {line.split()[-1] for line in lines[:8]} == {
        "README.md", "codes.safetensors", "decoder.onnx", "encoder.onnx", "model.safetensors",
        "recipe.yaml", "samples.webp", "vgx.json",
    }  # fmt: skip
    assert "The card names no licence; to add one: --license ID" in lines
    assert lines[-1] == "Exported faces; to publish it: vgx push faces OWNER/NAME"
    again = vgx(tmp_path, "export", "1", "faces")
    assert (again.returncode, "not an empty folder" in again.stderr) == (5, True)
    hub = ModelHub()
    with serving(hub) as address:
        known = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
        done = vgx(tmp_path, "push", "faces", "o/n", **known)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith('anybody who may read it: vgx.load("o/n")\n')
        done = vgx(tmp_path, "import", "o/n", **known)
        assert done.returncode == 0, done.stderr
        assert "0002-old" in done.stdout
        hub.status = 403
        done = vgx(tmp_path, "push", "faces", "o/n", "--debug", **known)
        assert done.returncode == 8
        assert "log in first: hf auth login" in done.stderr
    resumed = vgx(tmp_path, "resume", "2")
    assert (resumed.returncode, "since it was imported" in resumed.stderr) == (2, True)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in found if TOKEN.encode() in path.read_bytes()] == []
