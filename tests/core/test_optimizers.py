"""Optimizers by name: that each is the one that timm has under this name, with what is its own."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from vgx.engine.optimizers import make_optimizer, orthogonal
from vgx.errors import RecipeError
from vgx.recipe.model import Optimizer

COEFFICIENTS = (  # of timm's Muon: five iterations of s -> a s + b s**3 + c s**5
    (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012),
)  # fmt: skip


def test_optimizers_take_what_is_theirs():
    parameter = torch.nn.Parameter(torch.zeros(2))
    adam = make_optimizer(Optimizer(), [parameter], "generator")
    assert adam.param_groups[0]["betas"] == (0.5, 0.999)
    assert adam.param_groups[0]["lr"] == 2e-4
    own = {"adamw": (0.5, 0.999), "lion": (0.9, 0.99), "adan": (0.98, 0.92, 0.99)}
    for name, betas in own.items():
        made = make_optimizer(Optimizer(type=name), [parameter], "generator")
        assert made.param_groups[0]["betas"] == betas, name
    sgd = make_optimizer(Optimizer(type="sgd", momentum=0.9), [parameter], "generator")
    assert sgd.param_groups[0]["momentum"] == 0.9
    with pytest.raises(RecipeError, match=r"train\.optimizers\.generator\.betas: sgd has none"):
        make_optimizer(Optimizer(type="sgd", betas=(0.5, 0.9)), [parameter], "generator")
    with pytest.raises(RecipeError, match="timm has no 'adamm'; did you mean 'adam"):
        make_optimizer(Optimizer(type="adamm"), [parameter], "generator")


def moved(make):
    """Return weights after three steps with the optimizer that `make` builds for a layer."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 6)
    optimizer = make([*layer.parameters()])
    images = torch.randn(3, 4, 8)
    for batch in images:
        gradients = torch.autograd.grad(layer(batch).square().mean(), layer.parameters())
        for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])


def ours(**settings):
    settings = Optimizer(lr=0.01, **settings)
    return moved(lambda params: make_optimizer(settings, params, "generator"))


@pytest.mark.parametrize(
    ("name", "plain", "given"),
    [
        ("cadamw", "adamw", {"betas": (0.5, 0.999)}),
        ("clion", "lion", {}),
        ("nesterovw", "sgdp", {"momentum": 0.9}),
        ("nmuon", "muon", {"momentum": 0.95}),
        ("adamuon", "muon", {"momentum": 0.95}),
        ("nadamuon", "adamuon", {"momentum": 0.95}),
    ],
)
def test_a_variant_is_what_timm_makes_of_the_name(name, plain, given, monkeypatch):
    """Bit for bit: these names differ from others in settings alone, or also in the class."""
    from timm.optim import create_optimizer_v2, muon

    in_float32 = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)
    monkeypatch.setattr(muon, "zeropower_via_newtonschulz", in_float32)
    theirs = moved(lambda params: create_optimizer_v2(params, name, 0.01, weight_decay=0, **given))
    assert torch.equal(ours(type=name, **given), theirs)
    assert not torch.equal(ours(type=plain, **given), theirs)


def by_hand(betas, decay, *, decoupled):
    """Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019), with a rate of 0.01."""
    first, second = betas

    class Stepping:
        def __init__(self, parameters):
            self.kept = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
            self.number = 0

        def step(self):
            self.number += 1
            for parameter, mean, square in self.kept:
                gradient = parameter.grad
                if decoupled:
                    parameter.data -= 0.01 * decay * parameter.data
                else:
                    gradient = gradient + decay * parameter.data
                mean.add_((1 - first) * (gradient - mean))
                square.add_((1 - second) * (gradient**2 - square))
                size = (square / (1 - second**self.number)).sqrt() + 1e-8
                parameter.data -= 0.01 * mean / (1 - first**self.number) / size

    return moved(Stepping)


@pytest.mark.parametrize(("name", "decoupled"), [("adam", False), ("adamw", True)])
def test_adam_has_the_averages_and_the_decay_of_the_recipe(name, decoupled):
    """Three steps by hand; each of the settings counts."""
    given = {"betas": (0.8, 0.9), "weight_decay": 0.3}
    others = ({}, {"betas": (0.8, 0.9)}, {"weight_decay": 0.3})
    for settings in (given, *others):
        expected = by_hand(
            settings.get("betas", (0.5, 0.999)),
            settings.get("weight_decay", 0),
            decoupled=decoupled,
        )
        torch.testing.assert_close(ours(type=name, **settings), expected, rtol=0, atol=1e-5)
    assert all((ours(type=name, **given) - ours(type=name, **each)).abs().max() > 1e-3
               for each in others)  # fmt: skip


def test_nesterov_needs_a_momentum():
    """timm's `sgd` has Nesterov's momentum; without any it is the plain method, step by step."""
    assert torch.equal(ours(type="sgd"), moved(lambda params: torch.optim.SGD(params, 0.01)))
    for name, nesterov in (("sgd", True), ("nesterov", True), ("momentum", False)):
        theirs = {"lr": 0.01, "momentum": 0.9, "nesterov": nesterov}
        reference = moved(lambda params, theirs=theirs: torch.optim.SGD(params, **theirs))
        assert torch.equal(ours(type=name, momentum=0.9), reference), name


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_muon_multiplies_in_the_precision_of_the_weights_on_a_cpu(dtype, error):
    """A gradient whose singular values are all alike keeps its directions: by hand.

    Each iteration acts on the singular values alone. Here all four begin as 1/2, since the matrix
    is divided by its Frobenius norm; bfloat16 would be off by 1e-3.
    """
    from timm.optim import muon

    before = muon.zeropower_via_newtonschulz
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(9, 4, dtype=dtype))[0].T  # [4, 9]  orthonormal rows
    parameter = torch.nn.Parameter(torch.zeros(4, 9, dtype=dtype))
    optimizer = make_optimizer(Optimizer(type="muon", lr=0.1, momentum=0), [parameter], "generator")
    parameter.grad = 5 * directions
    optimizer.step()
    value = 0.5
    for a, b, c in COEFFICIENTS:
        value = a * value + b * value**3 + c * value**5
    # The rate counts 0.2 sqrt(longer side) times.
    expected = -0.1 * 0.2 * 9**0.5 * value * directions
    torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=error)
    assert muon.zeropower_via_newtonschulz is before  # for who uses timm beside vgx


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (3, 8, 16), (8, 15), (8, 8)])
@pytest.mark.parametrize("steps", [1, 5, 7])
def test_muon_has_timms_result_with_fewer_products(shape, steps, dtype, error):
    """Also of gradients with singular values that differ by a thousand times."""
    from timm.optim.muon import zeropower_via_newtonschulz

    torch.manual_seed(0)
    scales = torch.logspace(0, -3, min(shape[-2:]), dtype=dtype)
    matrix = torch.randn(shape, dtype=dtype)
    matrix = matrix * (scales if shape[-1] == len(scales) else scales[:, None])
    theirs = partial(zeropower_via_newtonschulz, dtype=dtype)
    for options in ({}, {"safety_factor": 1.01, "eps": 1e-3}, {"scale_eps": True, "eps": 1e-3}):
        expected = theirs(matrix.clone(), steps, list(COEFFICIENTS), **options)
        ours = orthogonal(theirs, matrix, steps, list(COEFFICIENTS), **options)
        torch.testing.assert_close(ours, expected, rtol=0, atol=error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
def test_every_optimizer_that_timm_offers_moves_weights_or_says_what_it_lacks():
    """On a CPU: those that want CUDA, a library of their own or second derivatives say so."""
    from timm.optim import list_optimizers

    refused = {}
    for name in list_optimizers():
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 3)
        before = layer.weight.detach().clone()
        try:
            made = make_optimizer(
                Optimizer(type=name, lr=0.01), list(layer.parameters()), "generator"
            )
        except RecipeError as error:
            refused[name] = str(error)
            continue
        for _ in range(2):
            gradients = torch.autograd.grad(
                layer(torch.ones(2, 4)).square().mean(), layer.parameters()
            )
            for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
                parameter.grad = gradient
            made.step()
        made.load_state_dict(made.state_dict())
        assert layer.weight.isfinite().all()
        assert not torch.equal(layer.weight, before), name
    assert "adahessian" in refused
    assert all(name.startswith(("adahessian", "bnb", "fused")) for name in refused), refused
    assert all("train.optimizers.generator" in said for said in refused.values())
