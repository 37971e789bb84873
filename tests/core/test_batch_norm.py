"""BatchNorm over the rows of all processes is that of PyTorch over all rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vgx.distributed.minibatch import shared
from vgx.distributed.norms import over_all_processes
from vgx.distributed.rows import own_rows
from vgx.distributed.state import group, join
from vgx.testing.processes import in_processes

KINDS = {2: (nn.BatchNorm1d, (8, 5)), 4: (nn.BatchNorm2d, (8, 5, 6, 7)),
         5: (nn.BatchNorm3d, (8, 5, 3, 2, 2))}  # fmt: skip
ROWS = 8


def computed(dims, dtype, *, affine, graph):
    """Return by name what a process computes of its rows, and sums over rows."""
    random = torch.Generator().manual_seed(0)
    kind, shape = KINDS[dims]
    images, wanted = (torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(2))
    layer = kind(5, affine=affine).to(torch.promote_types(dtype, torch.float32))
    for number, parameter in enumerate(layer.parameters()):
        nn.init.uniform_(parameter, 0.5, 1 + number, generator=random)
    over_all_processes(layer)
    with shared(ROWS // group().size):
        x = own_rows((2 * images + 3).to(dtype)).detach().requires_grad_()
        if dims == 4:
            x = x.to(memory_format=torch.channels_last)
        y = layer(x)
        loss = (y.tanh() * own_rows(wanted)).sum()
        inputs = [x, *layer.parameters()]
        first = torch.autograd.grad(loss, inputs, create_graph=graph)
        rows = {"y": y, "x": first[0]}
        sums = {"loss": loss, **{f"parameter {n}": g for n, g in enumerate(first[1:])}}
        if graph:
            penalty = first[0].square().sum()
            second = torch.autograd.grad(penalty, inputs, allow_unused=True)
            rows["second of x"] = second[0]
            sums |= {f"second of {n}": g for n, g in enumerate(second[1:]) if g is not None}
    buffers = {"mean": layer.running_mean, "var": layer.running_var}
    return [{name: v.detach().double() for name, v in d.items()} for d in (rows, sums, buffers)]


def largest_distance(size, *given, **options):
    """Compare one process with several; of the sums over rows those over all processes."""
    with_one = in_processes(1, lambda: computed(*given, **options))[0]
    with_many = in_processes(size, lambda: computed(*given, **options))
    rows, sums, buffers = ([each[place] for each in with_many] for place in range(3))
    found = {name: torch.cat([each[name] for each in rows]) for name in rows[0]}
    found |= {name: torch.stack([each[name] for each in sums]).sum(0) for name in sums[0]}
    assert all(torch.equal(each[name], buffers[0][name]) for each in buffers for name in each)
    found |= buffers[0]
    expected = with_one[0] | with_one[1] | with_one[2]
    assert found.keys() == expected.keys()
    return max((found[name] - expected[name]).abs().max().item() for name in found)


@pytest.mark.parametrize("graph", [False, True], ids=["first", "second derivatives"])
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("dims", KINDS)
def test_all_rows_are_normalised_with_all_derivatives(dims, affine, graph):
    for size in (2, 4):
        assert largest_distance(size, dims, torch.float64, affine=affine, graph=graph) < 1e-12


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_statistics_of_lower_precision_are_computed_in_float32(dtype, most):
    assert largest_distance(2, 4, dtype, affine=True, graph=False) < most


class Counted:
    """Processes with the same rows; notes what is added up."""

    def __init__(self, size):
        self.rank, self.size, self.given = 0, size, []

    def add_up(self, tensor):
        self.given.append((tensor.dtype, tuple(tensor.shape)))
        tensor *= self.size


@pytest.fixture
def counted(request):
    before = group()
    join(same := Counted(request.param))
    yield same
    join(before)


@pytest.mark.parametrize("counted", [2, 64], indirect=True)
def test_a_pass_adds_up_two_numbers_of_each_channel_each_way(counted):
    layer = nn.BatchNorm2d(5)
    over_all_processes(layer)
    with shared(4):
        layer(torch.randn(4, 5, 3, 3, requires_grad=True)).square().sum().backward()
    assert counted.given == [(torch.float64, (2, 5)), (torch.float64, (2, 5))]


@pytest.mark.parametrize("counted", [61], indirect=True)
@pytest.mark.usefixtures("counted")
def test_equal_images_far_from_zero_have_a_variance_of_zero():
    """The difference of the squares may be negative."""
    layer = nn.BatchNorm2d(64)
    over_all_processes(layer)
    with shared(4):
        normalised = layer(1e7 * torch.rand(64)[None, :, None, None].expand(4, -1, 3, 3))
    assert normalised.isfinite().all()
