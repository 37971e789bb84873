"""What can't fit is refused before it is made, with the number that would."""

from __future__ import annotations

import contextlib
import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from vgx.cli import run_program
from vgx.distributed.state import Alone
from vgx.engine import memory
from vgx.engine.memory import Need, needed, saved_for_backward
from vgx.errors import RecipeError

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def test_what_is_kept_for_gradients_is_counted_once_and_without_weights():
    first, second = nn.Linear(10, 20), nn.Linear(20, 30)
    x = torch.rand(4, 10)  # [B, 10]
    with saved_for_backward([first, second]) as saved:
        y = first(x).relu()  # [B, 20]  kept by relu and by the second layer
        second(y).sigmoid().sum()  # [B, 30]
    # The first layer keeps x, the second one y, the sigmoid what it gave.
    assert sum(saved.values()) == 4 * 4 * (10 + 20 + 30)


def test_what_is_counted_is_freed():
    """A sigmoid keeps its own result; a graph that keeps itself would never be freed."""
    network = nn.Sequential(nn.Linear(10, 20), nn.Sigmoid())
    weight = weakref.ref(network[0].weight)
    with saved_for_backward([network]):
        y = network(torch.rand(4, 10))  # [B, 20]
    del network, y
    gc.collect()
    assert weight() is None


def test_counting_changes_no_gradient_and_no_gradient_of_gradients():
    network, x = nn.Sequential(nn.Linear(10, 20), nn.Sigmoid()), torch.rand(4, 10)  # [B, 10]
    x.requires_grad_()
    found = []
    for counted in (saved_for_backward([network]), contextlib.nullcontext()):
        with counted:
            y = network(x).square().sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        found.append((slope, *torch.autograd.grad(slope.square().sum(), x)))
    assert all(map(torch.equal, *found))
    assert found[0][1].abs().sum() > 0


def test_what_is_needed_grows_with_the_pictures():
    network = nn.Linear(10, 20)  # 220 weights of 4 bytes
    need = needed([network], saved=4_000, images=4, device=torch.device("cpu"))
    # Weights, gradients and two averages.
    assert (need.fixed, need.each) == (220 * 4 * 4, 1_000)


def refused(need, batch, accumulate):
    with pytest.raises(RecipeError) as told:
        need.check(batch, accumulate)
    return str(told.value)


def test_the_number_that_fits():
    need = Need(fixed=2_000_000_000, each=50_000_000, there=8_000_000_000)
    assert need.fits() == 120
    need.check(120, 1)
    need.check(480, 4)
    # 240 at once: 2 + 240 * 0.05 GB. Four fifths of 120 are 96, two pieces 192; 480 in fives
    # are 96.
    assert refused(need, 480, 2) == (
        "train.batch: 240 images at once take more than 14.0 GB, and there are 8.0 GB; "
        "about 96 at once should fit: train.batch=192 or train.accumulate=5"
    )


def test_of_several_processes_each_has_its_share(monkeypatch):
    need = Need(fixed=2_000_000_000, each=50_000_000, there=8_000_000_000)  # for 120 images
    monkeypatch.setattr(memory, "group", lambda: Alone(size=4))
    need.check(480, 1)
    need.check(960, 2)
    # 1,440 by four in two pieces: 180 at once, 2 + 180 * 0.05 GB. 4 * 2 * 96 are 768; the 360 of a
    # process in fours are 90.
    assert refused(need, 1440, 2) == (
        "train.batch: 180 images at once take more than 11.0 GB, and there are 8.0 GB; "
        "about 96 at once should fit: train.batch=768 or train.accumulate=4"
    )


def test_what_ran_out_although_it_was_reckoned_to_fit_is_advised_less():
    need = Need(fixed=0, each=1.0, there=1000)
    assert need.advice(64, 1) == "about 51 at once should fit: train.batch=51 or train.accumulate=2"


def test_networks_that_leave_no_room_are_said_to():
    with pytest.raises(RecipeError, match="lower image.size or the widths"):
        Need(fixed=9, each=1.0, there=8).check(4, 1)


def test_a_minibatch_that_cannot_fit_is_refused_before_the_first_step(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(memory, "CONTAINER", tmp_path / "memory.max")
    memory.CONTAINER.write_text("100000000\n")
    asked = ("--set", "dataset.count=20000", "--set", "train.batch=10000")
    assert run_program(["check", str(TINY), *asked]) == 2
    said = capsys.readouterr().err
    assert "train.batch: 10,000 images at once take more than" in said
    assert "should fit: train.batch=" in said


def test_a_container_may_have_less_than_the_machine(monkeypatch, tmp_path):
    allowed = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTAINER", allowed)
    whole = memory.total_memory(torch.device("cpu"))
    allowed.write_text("1000000\n")
    assert memory.total_memory(torch.device("cpu")) == 1_000_000
    allowed.write_text("max\n")
    assert memory.total_memory(torch.device("cpu")) == whole
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # of torchrun: this process has a quarter
    assert memory.total_memory(torch.device("cpu")) == whole // 4
