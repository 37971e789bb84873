"""A step that is not logged waits for no GPU: on the CPU these operations can be counted."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import torch
from several import NAMES, small
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import vgx
import vgx_builtin
from vgx.data.batches import Batch
from vgx.engine.engine import Engine

# Operations for which the host reads a result of the device.
WAITING = {
    "_local_scalar_dense", "_unique2", "bincount", "equal", "histc", "is_nonzero", "masked_select",
    "nonzero", "repeat_interleave", "unique_consecutive", "unique_dim",
}  # fmt: skip
# Tensors that are read in each step, and are on the CPU whatever the device is.
ON_THE_HOST = {
    "engine/forward.py": "torch.equal(before, rng.global_state(self.device))",
    "engine/averages.py": "int(average.n_averaged)",
    "quantisers/codebooks.py": "not self.started",
    # The counts of steps of timm's AdamW. This class of Muon is for the CPU alone.
    "engine/optimizers.py": "muon.Muon.step(self, closure)",
}
MAKERS = {
    torch.arange, torch.as_tensor, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones,
    torch.rand, torch.randint, torch.randn, torch.randperm, torch.scalar_tensor, torch.tensor,
    torch.zeros,
}  # fmt: skip

# Optimizers that `small` replaces, as they are written: SGD is not fused, so the guard would wait.
WRITTEN = {"anime_best": ["train.optimizers.discriminator={type: adam, lr: 1.0e-3}"]}
PACKAGES = [Path(package.__file__).parent for package in (vgx, vgx_builtin)]


def of_vgx():
    """The file and the line of vgx, or of its parts, that called."""
    for frame in reversed(traceback.extract_stack()):
        if any(Path(frame.filename).is_relative_to(package) for package in PACKAGES):
            return frame.filename, frame.line
    return "", ""


class Waits(TorchDispatchMode):
    """Notes operations that wait."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name in {"index", "index_put", "index_put_"} else ()
        masks = any(i is not None and i.dtype == torch.bool for i in indices)
        if name in WAITING or masks:
            file, line = of_vgx()
            if not any(file.endswith(f) and text in line for f, text in ON_THE_HOST.items()):
                self.found.append(f"{file}: {line}: {name}")
        return function(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Notes tensors that are made without a device, or copied to one: the copy would wait."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        options = kwargs or {}
        made = function in MAKERS and options.get("device") is None
        devices = [each for each in (*args, *options.values()) if isinstance(each, torch.device)]
        copied = function is torch.Tensor.to and devices and not options.get("non_blocking")
        if made or copied or function is torch.Tensor.new_tensor:
            file, line = of_vgx()
            if not file.endswith("engine/surroundings.py"):
                self.found.append(f"{file}: {line}")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_no_step_of_a_recipe_waits_for_a_device(name):
    recipe = small(name, "train.batch=4", *WRITTEN.get(name, ()))
    engine = Engine(recipe, 100)
    engine.guard.deferred = True  # as on a GPU
    classes = recipe.image.classes
    labels = torch.arange(4) % classes if classes else None
    images = torch.rand(4, *recipe.image.shape, generator=torch.Generator().manual_seed(0))
    batches = [Batch(images, labels)] * recipe.batches_per_step
    engine.step(0, batches)
    with Waits() as waits, Copies() as copies:
        engine.step(1, batches)
    assert waits.found == []
    assert copies.found == []
