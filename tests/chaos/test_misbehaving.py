"""Parts that change what is not their own, or leave in an odd way: named, exit 3, nothing lost."""

from __future__ import annotations

import json
import random
import time

import pytest

RECIPE = """\
name: x
image: {size: 8}
latent: 4
dataset: {type: drawn-faces, count: 8}
encoder: {type: conv, widths: [4]}
decoder: {type: conv-transpose, widths: [4]}
losses: [l1, kl]
sampler: prior
train: {steps: 12, batch: 8, save_every: 5}
"""
HEAD = """\
import asyncio, os, signal, sys, time, warnings
from pathlib import Path
import torch
import vgx
from torch import nn

HELD = []


def misbehave():
    BODY


def is_time():
    return WHEN
"""
LATE = 'any(Path(START).glob("runs/*/checkpoints/step-00000005"))'
PARTS = {
    "loss": """
class P(vgx.Loss, type="p"):
    \"\"\"A loss that misbehaves sometimes.\"\"\"

    def generator(self, step):
        if is_time():
            misbehave()
        return (step.recon - step.real).abs().mean()
""",
    "encoder": """
class N(nn.Module):
    def __init__(self, pixels):
        super().__init__()
        self.layer = nn.Linear(pixels, 8)

    def forward(self, images):
        if is_time():
            misbehave()
        return vgx.Gaussian(*self.layer(images.flatten(1)).chunk(2, 1))


class P(vgx.Encoder, type="p"):
    \"\"\"An encoder that misbehaves sometimes.\"\"\"

    def build(self, image, latent):
        return N(image.pixel_values)
""",
    "augmentation": """
class P(vgx.Augmentation, type="p"):
    \"\"\"An augmentation that misbehaves sometimes.\"\"\"

    def build(self, image):
        def augment(images, generator):
            if is_time():
                misbehave()
            return images.clone()

        return augment
""",
}
USES = {
    "loss": "losses=[l1, kl, p]",
    "encoder": "encoder=p",
    "augmentation": "augment=[p]",
}
REGISTER = "\n\n@vgx.hookimpl\ndef register_components(register):\n    register(P)\n"
# What a part does, and what the message says.
DEEDS = {
    "torch.set_default_dtype(torch.float64)": "the default dtype from torch.float32 to torch.floa",
    'torch.set_default_device("meta")': "the default device from cpu to meta",
    "torch.set_grad_enabled(not torch.is_grad_enabled())": "whether gradients are computed",
    "HELD.append(torch.inference_mode()); HELD[-1].__enter__()": "whether gradients are computed",
    "torch.set_num_threads(2)": "the number of threads from 1 to 2",
    'torch.set_float32_matmul_precision("medium")': "the precision of float32 products",
    "torch.use_deterministic_algorithms(True)": "deterministic algorithms from False to True",
    'os.chdir("/")': "the working directory from",
    'warnings.simplefilter("error")': "the warnings that are errors",
    "signal.signal(signal.SIGTERM, signal.SIG_DFL)": "the handler of SIGTERM",
    "signal.signal(signal.SIGINT, signal.SIG_IGN)": "the handler of SIGINT",
    "signal.signal(signal.SIGPIPE, signal.SIG_DFL)": "the handler of SIGPIPE",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise GeneratorExit": "GeneratorExit",
    "raise SystemExit(0)": "SystemExit: 0",
    "sys.exit('gone')": "SystemExit: gone",
    "raise asyncio.CancelledError": "CancelledError",
    "raise type('Own', (BaseException,), {})()": "Own",
    "raise StopIteration": "StopIteration",
    "raise RecursionError('deep')": "RecursionError: deep",
    "raise BrokenPipeError(32, 'mine')": "BrokenPipeError",
    "raise ValueError('\\x1b[2J\\x9b31m')": "ValueError: \\x1b[2J\\x9b31m",
}
OF_LOSSES = {
    "return (step.recon - step.real).mean() * 1j": "of torch.complex64, not a floating-point num",
    "return torch.tensor(3)": "of torch.int64, not a floating-point number",
    "with torch.no_grad(): step.real.mul_(0.5)": "it changes step.real in place",
    "step.recon.mul_(2)": "it changes step.recon in place",
    "with torch.no_grad(): step.posterior.mean.zero_()": "it changes step.posterior.mu in pl",
}
FAST = ["torch.set_default_dtype(torch.float64)", "raise KeyboardInterrupt", "raise GeneratorExit"]
FAST += ["step.recon.mul_(2)", "return (step.recon - step.real).mean() * 1j"]


def cases(seed=14):
    """Each deed in the check and in a step, by a part of any of the kinds."""
    generator = random.Random(seed)
    for deed, said in {**DEEDS, **OF_LOSSES}.items():
        for late in (False, True):
            fast = deed in FAST
            part = "loss" if fast or deed in OF_LOSSES else generator.choice([*PARTS])
            yield pytest.param(part, late, deed, said, marks=() if fast else pytest.mark.chaos)


BLIND = """
from contextlib import nullcontext
import vgx.engine.losses as losses, vgx.check.attempt as attempt
losses.untouched = attempt.untouched = lambda *_: nullcontext()
"""


def written(folder, part, deed, late):
    """Write the recipe and the plugin; return the words of the command line."""
    (folder / "x.yaml").write_text(RECIPE)
    when = LATE.replace("START", repr(str(folder))) if late else "True"
    source, lines = PARTS[part], deed
    if deed in OF_LOSSES:  # it knows the step
        source, lines = source.replace("misbehave()", deed), "pass"
    text = HEAD.replace("BODY", lines).replace("WHEN", when) + source + REGISTER
    (folder / "mine.py").write_text(text)
    return "run", "x.yaml", "--plugin", "mine.py", "--set", USES[part]


@pytest.mark.bar("X4")
@pytest.mark.parametrize(("part", "late", "deed", "said"), [*cases()])
def test_a_part_that_misbehaves_is_named(forkserver, tmp_path, part, late, deed, said):
    child = forkserver.start(tmp_path, *written(tmp_path, part, deed, late))
    code, message = child.wait(), child.err.read_text()
    assert code == 3, message
    assert "Traceback" not in message
    assert f"{part} 'p' of mine.py" in message
    assert said in message
    assert "\x1b" not in message
    if not late:
        assert not (tmp_path / "runs").exists()
        return
    (run,) = (tmp_path / "runs").iterdir()
    assert "step 6: " in message
    ended = json.loads((run / "ended.json").read_text())
    assert (ended["how"], ended["step"]) == ("failed", 5)
    assert (run / "checkpoints" / "step-00000005" / "manifest.json").is_file()
    if part != "encoder":  # the page needs it, and it misbehaves there too
        assert (run / "report.html").is_file()


@pytest.mark.bar("X4")
@pytest.mark.parametrize("late", [False, True])
def test_a_real_ctrl_c_is_none_of_them(forkserver, tmp_path, late):
    deed = 'Path("begun").touch(); time.sleep(30)'
    child = forkserver.start(tmp_path, *written(tmp_path, "loss", deed, late))
    child.wait_for(tmp_path / "begun")
    child.kill(2)
    if late:  # the first one waits for the step
        time.sleep(0.3)
        child.kill(2)
    assert child.wait() == 130
    assert child.err.read_text() == "vgx: stopped\n"


@pytest.mark.chaos
@pytest.mark.bar("X4", control="settings that nobody compares")
def test_without_the_comparison_the_part_is_not_named(forkserver, tmp_path, record_property):
    """The negative control."""
    words = written(tmp_path, "loss", "torch.set_num_threads(2)", late=True)
    child = forkserver.start(tmp_path, *words, hook=BLIND)
    code = child.wait()
    assert code == 0, child.err.read_text()
    record_property("seen", "two threads instead of one: exit 0")
