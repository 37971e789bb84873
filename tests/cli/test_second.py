"""The second stage as a person uses it: Ctrl-C in it, vgx resume, vgx fit, vgx encode."""

from __future__ import annotations

import json
import signal
import time

import pytest
import torch
from PIL import Image

import vgx

RECIPE = """
extends: tiny
name: two
latent: 4
train: {steps: 4, batch: 8, draw_every: 4}
prior: {type: rectified-flow, width: 8, depth: 1, batch: 16, steps: 1000000}
sampler: learned-prior
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, program_in):
    """A run that was stopped by Ctrl-C while its prior was trained."""
    program = program_in(tmp_path_factory.mktemp("second"))
    (program.folder / "two.yaml").write_text(RECIPE)
    child = program.start("run", "two.yaml")
    log = program.folder / "runs" / "0001-two" / "prior" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.kill(signal.SIGINT)
    code = child.wait()
    return program, code, child.out.read_text(), child.err.read_text()


@pytest.mark.slow
def test_ctrl_c_saves_the_prior_and_resume_goes_on_with_it(stopped):
    program, code, out, err = stopped
    run = program.folder / "runs" / "0001-two"
    assert code == 130
    assert "SIGINT: stopping after this step; Ctrl-C" in out
    assert "vgx: SIGINT: the prior is stopped at step " in err
    assert "go on with: vgx fit 1\n" in err
    ended = json.loads((run / "ended.json").read_text())
    assert (ended["how"], ended["step"], ended["of"]) == ("stopped", 4, 4)
    last = json.loads((run / "prior" / "log.jsonl").read_text().splitlines()[-1])["step"]
    drawn = program("sample", "1", "-n", "4", "--set", "steps=3")  # it may be drawn with already
    assert "learned-prior-00000004-seed-0.png" in drawn.stdout

    steps = last + 60
    done = program("run", "--resume", "1", "--set", f"prior.steps={steps}")
    assert "The prior goes on from step " in done.stdout
    assert f"Prior: rectified-flow, {steps:,} steps in " in done.stdout
    assert json.loads((run / "ended.json").read_text())["how"] == "done"
    assert "nothing is left to do" in program("resume", "1").stdout
    again = program("fit", "1", "--set", f"prior.steps={steps + 5}")
    assert f"The prior goes on from step {steps:,}" in again.stdout
    text = program("fit", "1", "--set", "prior=null", code=2).stderr
    assert "sampler learned-prior draws with a prior" in text


@pytest.mark.slow
def test_encode_writes_latents_of_other_images(stopped):
    program, *_ = stopped
    pictures = program.folder / "pictures"
    pictures.mkdir()
    for number in range(5):
        Image.new("RGB", (16, 16), (50 * number, 20, 90)).save(pictures / f"{number}.png")
    done = program("encode", "1", "pictures", "out")
    assert "Latents of 5 images in out" in done.stdout
    latents = vgx.load_latents(program.folder / "out")
    model = vgx.load(program.folder / "runs" / "0001-two")
    colours = torch.tensor([[50 * n / 255, 20 / 255, 90 / 255] for n in range(5)])
    images = colours[:, :, None, None].expand(-1, -1, 16, 16)
    assert torch.allclose(latents[:]["latents"], model.encode(images), atol=1e-5)
    assert {"deviations", "index", "latents"} == {*latents[:]}
    text = program("encode", "1", "pictures", "out", code=5).stderr
    assert "out: there already, and not an empty folder" in text
