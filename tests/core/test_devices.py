"""Which device a run takes, and what is refused: other devices, and several processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import vgx
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.distributed.processes import begin
from vgx.distributed.state import group
from vgx.engine.build import devices, pick_device, unused_gpu
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.training import environment

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Make this machine one with some GPUs of a kind, on which nothing is computed."""

    def make(kind, count=0):
        given = None if kind is None else torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: given)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        first = {"cpu": "cpu", "cuda": "cuda:0", "mps": "mps:0"}
        made = lambda _, device: SimpleNamespace(device=torch.device(first.get(device, device)))  # noqa: E731
        monkeypatch.setattr(torch, "zeros", made)

    return make


def test_without_a_gpu_there_is_the_cpu(machine):
    machine(None)
    assert devices() == ["cpu"]
    assert pick_device(None) == pick_device("cpu") == pick_device(CPU) == CPU
    assert unused_gpu(CPU) == ""


def test_a_gpu_with_cuda_is_the_default(machine):
    machine("cuda", 2)
    assert devices() == ["cpu", "cuda", "cuda:0", "cuda:1"]
    assert pick_device(None) == torch.device("cuda:0")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    assert unused_gpu(CPU) == ""
    with pytest.raises(RecipeError, match="device 'cuda:2': this machine has cpu, cuda, cuda:0, "):
        pick_device("cuda:2")


def test_another_gpu_is_taken_when_asked_for_and_a_word_says_so(machine):
    machine("mps", 1)
    assert pick_device(None) == CPU
    assert pick_device("mps") == torch.device("mps:0")
    said = "The GPU of this machine is not used, because vgx is not tested on it; "
    assert unused_gpu(CPU) == f"{said}to try it: --device mps"
    assert unused_gpu(torch.device("mps:0")) == ""


@pytest.mark.parametrize("name", ["gpu", "0", "auto", "mps", "cpu:1", "meta", "CPU", "", "cuda:0x"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(machine, name):
    machine(None)
    message = f"^device '{name}': this machine has cpu; by default vgx takes cuda if there is one"
    with pytest.raises(RecipeError, match=message):
        pick_device(name)


def test_a_device_that_does_not_work_is_said_in_one_line(machine, monkeypatch):
    def broken(_, device):
        raise RuntimeError(f"the driver of {device} is too old\nand forty lines more")

    machine("cuda", 1)
    monkeypatch.setattr(torch, "zeros", broken)
    with pytest.raises(RecipeError, match=r"^device 'cuda': the driver of cuda is too old$"):
        pick_device(None)


def test_python_and_the_commands_refuse_it_alike(tmp_path, monkeypatch, capfd):
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="device 'meta'"):
        vgx.run("tiny", device="meta")
    for command in ("run", "check", "explain"):
        assert run_program([command, "tiny", "--device", "meta"]) == 2
        assert capfd.readouterr().err.startswith("vgx: device 'meta': this machine has cpu")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_trained_run_refuses_it_too(tmp_path, monkeypatch, capfd):
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    vgx.run(vgx.load_recipe("tiny", {"train.steps": 1}), device="cpu")
    for function in (vgx.sample, vgx.load):
        with pytest.raises(RecipeError, match="device 'meta'"):
            function(1, device="meta")
    capfd.readouterr()
    for command in ("sample", "resume", "eval", "report"):
        assert run_program([command, "1", "--device", "meta"]) == 2, command
        assert capfd.readouterr().err.startswith("vgx: device 'meta': this machine has cpu")
    # The default of Python is the CPU; None is what the commands take.
    assert vgx.sample(1, n=2).device == CPU
    assert vgx.sample(1, n=2, device=None).device == pick_device(None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_program(["eval", "1"]) == 2
    assert "WORLD_SIZE is 2" in capfd.readouterr().err


# --- several processes -----------------------------------------------------------------------


@pytest.mark.parametrize("size", ["2", "16"])
def test_commands_of_one_process_are_refused_in_several(tmp_path, monkeypatch, capfd, size):
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", size)  # as torchrun and other launchers set it
    assert run_program(["check", "tiny"]) == 2
    err = capfd.readouterr().err
    assert f"WORLD_SIZE is {size}" in err
    assert "without torchrun" in err


@pytest.mark.parametrize("size", ["2", "16"])
def test_a_launcher_that_says_too_little_is_refused(tmp_path, monkeypatch, capfd, size):
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", size)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    message = f"WORLD_SIZE is {size}, and RANK, MASTER_ADDR, MASTER_PORT not set: start vgx with"
    for words in (["run", "tiny"], ["resume"]):
        assert run_program(words) == 2, words
        assert message in capfd.readouterr().err
    for call in (lambda: vgx.run("tiny"), lambda: vgx.run(vgx.load_recipe("tiny"))):
        with pytest.raises(RecipeError, match=message):
            call()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("size", [None, "", "0", "1", "many"])
def test_one_process_is_one_process(monkeypatch, size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    environment.one_process("vgx check")
    begin()
    assert group().size == 1


def test_a_check_compares_networks_without_tf32(monkeypatch):
    """With it, another number of images changes the third digit, which a codebook rounds."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        engine = Engine(vgx.load_recipe("tiny"), 1)
        seen = []

        def note(module, inputs, output):
            setting = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
            seen.append((module.training, *setting))

        engine.networks["encoder"].register_forward_hook(note)
        examine(engine, vgx.discover(), Batch(torch.rand(4, 3, 16, 16)))
        assert set(seen) == {(True, "high", True), (False, "highest", False)}
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
