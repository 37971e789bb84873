"""What several processes compute together, with numbers by hand and those of one process."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

import vgx
from vgx import rng
from vgx.distributed import draws
from vgx.distributed.group import averaged, stacked, sum_over_processes
from vgx.distributed.minibatch import shared, whole
from vgx.distributed.norms import batch_norm, over_all_processes
from vgx.distributed.rows import as_computed, shares
from vgx.distributed.state import group
from vgx.errors import RecipeError
from vgx.parts.contract import with_tensors
from vgx.testing import full_step
from vgx.testing.processes import in_processes

# --- sums and rows -------------------------------------------------------------------------------


def each(processes, function, images=2):
    """What a function gives in each process, which has so many images of a minibatch."""

    def work():
        with shared(images):
            return function(group().rank)

    return in_processes(processes, work)


def test_a_sum_and_its_derivatives():
    """x_p = 2, 3 and s = 5; each process minimises p s^2, so what all of them sum is 1 s^2."""

    def work():
        rank = group().rank
        x = torch.tensor(2.0 + rank, requires_grad=True)
        total = sum_over_processes(x)
        (slope,) = torch.autograd.grad(rank * total**2, x, create_graph=True)
        (curve,) = torch.autograd.grad(rank * slope, x)
        return total.item(), slope.item(), curve.item()

    assert in_processes(2, work) == [(5, 10, 2)] * 2


def test_tensors_side_by_side_and_means():
    def work():
        rank = group().rank
        own = torch.full((2,), float(rank))
        means = averaged({"a": own, "b": own.double() * 4, "c": torch.tensor(rank / 2)})
        return stacked(own).tolist(), {k: (v.tolist(), v.dtype) for k, v in means.items()}

    side = [[0, 0], [1, 1], [2, 2]]
    means = {
        "a": ([1, 1], torch.float32), "b": ([4, 4], torch.float64), "c": (0.5, torch.float32),
    }  # fmt: skip
    assert in_processes(3, work) == [(side, means)] * 3


def test_rows_are_gathered_in_the_order_of_the_minibatch():
    """Process 0 has images 0 and 1, process 1 has 2 and 3; of the second kind they are 10 to 13."""

    def work(rank):
        own = torch.tensor([0.0, 1.0, 10.0, 11.0]) + 2 * rank
        every = vgx.gather(own)
        return vgx.gather(own[:2]).tolist(), every.tolist(), vgx.own_rows(every).tolist()

    every = [0, 1, 2, 3, 10, 11, 12, 13]
    assert each(2, work) == [(every[:4], every, [0, 1, 10, 11]), (every[:4], every, [2, 3, 12, 13])]


def test_rows_that_processes_cannot_share_are_refused():
    with pytest.raises(ValueError, match="5 rows cannot be shared by 2 processes"):
        each(2, lambda _: vgx.own_rows(torch.zeros(5)))


def test_the_gradient_of_gathered_rows_is_that_of_the_mean_of_all_losses():
    """The loss of each process is sum_i i x_i^2 over all rows, so its mean is that: 2 i x_i.

    A process gives what all losses contribute by its rows: P = 2 times as much, before the mean.
    """

    def work(rank):
        own = torch.tensor([1.0, 2.0]) + 2 * rank
        own.requires_grad_()
        every = vgx.gather(own)
        (slope,) = torch.autograd.grad((every**2 * torch.arange(4)).sum(), own)
        return slope.tolist()

    assert each(2, work) == [[0, 2 * 2 * 2], [2 * 2 * 2 * 3, 2 * 2 * 3 * 4]]


def test_a_mean_over_processes_is_that_of_all_rows_with_its_gradient():
    def work(rank):
        own = (torch.tensor([1.0, 2.0]) + 2 * rank).requires_grad_()
        mean = vgx.mean_over_processes(own.mean())  # (1 + 2 + 3 + 4) / 4
        (slope,) = torch.autograd.grad(mean**2, own)
        return mean.item(), slope.tolist()

    # d (mean^2) / d x_i = 2 * 2.5 / 4; the mean over processes halves what each of them gives.
    assert each(2, work) == [(2.5, [2.5, 2.5])] * 2


def test_in_replicated_nothing_is_shared():
    def work(rank):
        own = torch.tensor([1.0 + rank])
        with vgx.replicated():
            drawn = torch.rand(3, generator=torch.Generator().manual_seed(1)).tolist()
            alike = vgx.gather(own), vgx.own_rows(own), vgx.mean_over_processes(own)
            computed = as_computed(own).tolist()
            return shares(), drawn, [t.item() for t in alike], computed, as_computed(own).tolist()

    drawn = torch.rand(3, generator=torch.Generator().manual_seed(1)).tolist()
    assert each(2, work, 1) == [(False, drawn, [1 + r] * 3, [1, 2], [1, 2]) for r in range(2)]


def test_in_a_program_on_its_own_the_functions_change_nothing():
    own = torch.arange(3.0)
    with shared(3):
        for function in (vgx.gather, vgx.own_rows, vgx.mean_over_processes, as_computed):
            assert function(own) is own
        assert not shares() or group().size == 1


# --- random numbers ------------------------------------------------------------------------------

ROWS = 6  # of a process: three kinds of two images
LAYOUTS = {
    "plain": lambda n: torch.ones(n, 3, 4, 5),
    "channels last": lambda n: torch.ones(n, 3, 4, 5).to(memory_format=torch.channels_last),
    "one channel": lambda n: torch.ones(n, 1, 4, 5).to(memory_format=torch.channels_last),
    "vectors": lambda n: torch.ones(n, 3),
    "numbers": torch.ones,
    "float64": lambda n: torch.ones(n, 3, dtype=torch.float64),
    "images last": lambda n: torch.ones(3, n).T,
    "frames": lambda n: torch.ones(n, 2, 3, 4, 5).to(memory_format=torch.channels_last_3d),
}
DRAWS = {
    "bernoulli_": lambda x, g: x.bernoulli_(0.3, generator=g),
    "cauchy_": lambda x, g: x.cauchy_(generator=g),
    "exponential_": lambda x, g: x.exponential_(2.0, generator=g),
    "geometric_": lambda x, g: x.geometric_(0.5, generator=g),
    "log_normal_": lambda x, g: x.log_normal_(generator=g),
    "normal_": lambda x, g: x.normal_(1, 2, generator=g),
    "random_": lambda x, g: x.random_(0, 9, generator=g),
    "uniform_": lambda x, g: x.uniform_(-1, 1, generator=g),
    "rand_like": lambda x, g: torch.rand_like(x),
    "randn_like": lambda x, g: torch.randn_like(x),
    "randint_like": lambda x, g: torch.randint_like(x, 3, 9),
    "rand": lambda x, g: torch.rand(x.shape, generator=g),
    "rand of numbers": lambda x, g: torch.rand(*x.shape, generator=g, dtype=x.dtype),
    "randn": lambda x, g: torch.randn(size=x.shape, generator=g),
    "randint": lambda x, g: torch.randint(9, x.shape, generator=g),
    "randint of limits": lambda x, g: torch.randint(3, 9, size=x.shape, generator=g),
    "randint by name": lambda x, g: torch.randint(low=3, high=9, size=tuple(x.shape), generator=g),
    "F.dropout": lambda x, g: F.dropout(x, 0.4),
    "F.dropout in place": lambda x, g: F.dropout(x, 0.4, inplace=True),
    "torch.dropout": lambda x, g: torch.dropout(x, 0.4, True),
}
PLANES = {
    "F.dropout1d": (lambda x: F.dropout1d(x, 0.4), (3, 4)),
    "F.dropout2d": (lambda x: F.dropout2d(x, 0.4), (3, 4, 5)),
    "F.dropout3d": (lambda x: F.dropout3d(x, 0.4), (3, 2, 4, 5)),
    "torch.feature_dropout": (lambda x: torch.feature_dropout(x, 0.4, True), (3, 4, 5)),
}


def drawn(function, make, rows):
    with rng.ambient(3, "test"):
        return function(make(rows), torch.Generator().manual_seed(7))


def same_as_one_process(function, make, processes):
    one = drawn(function, make, processes * ROWS)
    parts = each(processes, lambda _: drawn(function, make, ROWS))
    by_kind = one.unflatten(0, (3, processes, 2))  # [F, P, b, ...]
    for rank, part in enumerate(parts):
        assert torch.equal(part, by_kind[:, rank].flatten(0, 1))
    return one, parts


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_those_of_one_process_cut(name, layout):
    one, parts = same_as_one_process(DRAWS[name], LAYOUTS[layout], 2)
    assert not torch.equal(parts[0], parts[1])
    assert parts[0].dtype == one.dtype
    if "rand" not in name and layout != "one channel":  # whose strides mean the same in any order
        own = LAYOUTS[layout](ROWS)
        assert parts[0].stride() == own.stride()


@pytest.mark.parametrize("name", PLANES)
def test_planes_are_left_out_as_in_one_process(name):
    function, shape = PLANES[name]
    same_as_one_process(lambda x, _: function(x), lambda n: torch.ones(n, *shape), 4)


def test_of_one_image_each_in_any_layout():
    for name, make in LAYOUTS.items():
        if name == "images last":  # of one image nobody can tell
            continue
        one = drawn(DRAWS["normal_"], make, 4)
        parts = each(4, lambda _, make=make: drawn(DRAWS["normal_"], make, 1), images=1)
        assert torch.equal(torch.cat(parts), one)


def test_a_number_for_all_images_has_no_dimensions():
    def work(_):
        g = torch.Generator().manual_seed(7)
        scalar = torch.empty(())
        numbers = [
            scalar.uniform_(generator=g), torch.rand((), generator=g), torch.randn((), generator=g),
            torch.randint(9, (), generator=g), torch.rand_like(scalar),
        ]  # fmt: skip
        return [number.item() for number in numbers]

    with rng.ambient(0, "test"):
        alone, (first, second) = work(0), each(2, work)
    assert first == second
    assert first[:4] == alone[:4]


def test_dropout_that_does_nothing_is_not_computed():
    x = torch.ones(2, 3)

    def work(_):
        return [F.dropout(x, 0.5, training=False) is x, F.dropout(x, 0.0) is x]

    assert each(2, work) == [[True, True]] * 2


UNKNOWN = {
    "bernoulli": lambda: torch.bernoulli(torch.ones(2)),
    "bernoulli_": lambda: torch.ones(2).bernoulli_(torch.ones(2)),
    "multinomial": lambda: torch.ones(2, 3).multinomial(1),
    "normal": lambda: torch.normal(torch.ones(2), torch.ones(2)),
    "poisson": lambda: torch.poisson(torch.ones(2)),
    "randperm": lambda: torch.randperm(4),
    "alpha_dropout": lambda: F.alpha_dropout(torch.ones(2), 0.5, True),
    "gumbel_softmax": lambda: F.gumbel_softmax(torch.ones(2, 3)),
    "rrelu": lambda: nn.RReLU()(torch.ones(2, 3)),
    "binomial": lambda: torch.distributions.Binomial(5, torch.full((2,), 0.5)).sample(),
    "_standard_gamma": lambda: torch.distributions.Gamma(torch.ones(2), torch.ones(2)).sample(),
    "_sample_dirichlet": lambda: torch.distributions.Beta(torch.ones(2), torch.ones(2)).rsample(),
    "dropout_": lambda: torch.dropout_(torch.ones(2, 3), 0.5, True),
    "fractional_max_pool2d": lambda: nn.FractionalMaxPool2d(2, 3)(MAPS[0]),
    "fractional_max_pool3d_with_indices": lambda: nn.FractionalMaxPool3d(2, 2, return_indices=True)(
        MAPS
    )[0],
}
MAPS = torch.rand(2, 2, 9, 9, 9, generator=torch.Generator().manual_seed(0))
HEADS = nn.MultiheadAttention(4, 2, dropout=0.5)
TOKENS = torch.ones(2, 3, 4)
ATTENTION = {
    "scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(
        TOKENS, TOKENS, TOKENS, dropout_p=0.5
    ),
    "multi_head_attention_forward": lambda: HEADS(TOKENS, TOKENS, TOKENS),
    "lstm": lambda: recurrent(nn.LSTM, 0.5, TOKENS),
    "gru": lambda: recurrent(nn.GRU, 0.5, nn.utils.rnn.pack_sequence([*TOKENS])),
    "rnn_tanh": lambda: recurrent(nn.RNN, 0.5, TOKENS),
}


def recurrent(kind, dropout, tokens):
    with rng.ambient(0, "weights"):
        layers = kind(4, 3, num_layers=2, dropout=dropout)
    return layers(tokens)[0]


@pytest.mark.parametrize("name", UNKNOWN)
def test_draws_that_cannot_be_cut_are_refused_with_what_to_write_instead(name):
    with pytest.raises(RecipeError, match=rf"^{name} draws .*uniform_.*with vgx\.replicated\(\):"):
        each(2, lambda _: UNKNOWN[name]())

    def alike(_):
        with vgx.replicated(), rng.ambient(0, "test"):
            return UNKNOWN[name]()

    first, second = each(2, alike)
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ATTENTION)
def test_dropout_inside_of_attention_and_of_recurrent_layers_is_refused(name):
    advice = "inside of attention and of recurrent layers use no dropout"
    with pytest.raises(RecipeError, match=f"^{name} draws .* {advice}"):
        each(2, lambda _: ATTENTION[name]())


def test_what_draws_nothing_is_computed_as_ever():
    x, still = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), HEADS.train(False)
    calls = [
        lambda: F.alpha_dropout(x, 0.5), lambda: nn.RReLU().eval()(x), lambda: F.rrelu(x),
        lambda: still(TOKENS, TOKENS, TOKENS)[0],
        lambda: F.scaled_dot_product_attention(TOKENS, TOKENS, TOKENS, is_causal=True),
        lambda: F.scaled_dot_product_attention(x, x, x, torch.eye(2), 0.0, scale=1.0),
        lambda: recurrent(nn.LSTM, 0.0, TOKENS), lambda: recurrent(nn.GRU, 0.0, TOKENS),
    ]  # fmt: skip
    try:
        for call in calls:
            assert torch.equal(each(2, lambda _, call=call: call())[1], call())
    finally:
        HEADS.train()


def test_every_handler_is_tried_above():
    """A function that is added needs a test."""
    tried = {*DRAWS, *PLANES, *UNKNOWN, *ATTENTION}
    names = {function.__name__ for function in draws.HANDLERS}
    tried = {name.split(".")[-1].split(" ")[0] for name in tried}
    alike = {name.rstrip("_") for name in tried} | {"rnn_relu", "native_dropout"}
    alike |= {f"fractional_max_pool{n}d{end}" for n in (2, 3) for end in ("", "_with_indices")}
    alike |= {f"feature_{name}" for name in tried}
    assert {name.rstrip("_") for name in names} <= alike


def test_every_function_of_pytorch_that_draws_is_known():
    """Those that PyTorch marks, under each name that a part may call them by.

    Names that begin with `_` are what these call, but for two that are what a distribution calls.
    """
    known = {"_sample_dirichlet", "_standard_gamma"}
    kernels = {"miopen_rnn"}  # what an LSTM calls on a GPU of AMD
    marked, missing = set(), set()
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        if space != "aten" or (name[0] == "_" and name not in known) or name in kernels:
            continue
        packet = getattr(torch.ops.aten, name, None)
        overload = getattr(packet, schema.overload_name or "default", None)
        if torch.Tag.nondeterministic_seeded in getattr(overload, "tags", ()):
            marked.add(name)
            faces = [getattr(place, name, None) for place in (torch, torch.Tensor, F)]
            missing |= {name for face in faces if callable(face) and face not in draws.HANDLERS}
    assert len(marked) > 40
    assert known <= marked
    assert missing == set()


# --- BatchNorm -----------------------------------------------------------------------------------

SHAPES = {"maps": (8, 3, 4, 5), "vectors": (8, 3), "rows": (8, 3, 6), "frames": (8, 3, 2, 2, 2)}


def with_derivatives(function, x, weight, bias, g):
    """What a norm gives, the derivatives by all inputs, and those of a penalty on the first."""
    inputs = [each for each in (x, weight, bias) if each is not None]
    y = function(x, weight, bias)
    first = torch.autograd.grad(y, inputs, g, create_graph=True)
    second = torch.autograd.grad((first[0] ** 3).sum(), inputs, allow_unused=True)
    second = [torch.zeros_like(i) if d is None else d for i, d in zip(inputs, second, strict=True)]
    return y.detach(), [[d.detach() for d in found] for found in (first, second)]


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("affine", ["weight and bias", "weight", "bias", "neither"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_batchnorm_is_that_of_one_process_with_two_derivatives(shape, affine, processes):
    draw = torch.Generator().manual_seed(0)
    x, g = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    x = x * 3 + 5
    if len(shape) == 4:
        x, g = (each.to(memory_format=torch.channels_last) for each in (x, g))
    weight = torch.rand(3, generator=draw, dtype=torch.float64) if "weight" in affine else None
    bias = torch.rand(3, generator=draw, dtype=torch.float64) if affine in (
        "weight and bias", "bias",
    ) else None  # fmt: skip

    def leaf(tensor):
        return None if tensor is None else tensor.clone().requires_grad_()

    def statistics():
        return torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)

    def of_torch(x, weight, bias):
        return F.batch_norm(x, *kept, weight, bias, True, 0.3, 1e-3)

    kept = statistics()
    y, derivatives = with_derivatives(of_torch, leaf(x), leaf(weight), leaf(bias), g)

    def work(rank):
        own = statistics()
        rows = slice(rank * 8 // processes, (rank + 1) * 8 // processes)

        def norm(x, weight, bias):
            return batch_norm(x, *own, weight, bias, True, 0.3, 1e-3)

        return own, *with_derivatives(norm, leaf(x[rows]), leaf(weight), leaf(bias), g[rows])

    parts = each(processes, work, images=8 // processes)
    close = {"rtol": 1e-9, "atol": 1e-10}
    for own, _, _ in parts:
        torch.testing.assert_close(own, kept, **close)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), y, **close)
    for order in (0, 1):
        for index, derivative in enumerate(derivatives[order]):
            own = [part[2][order][index] for part in parts]
            every = torch.cat(own) if index == 0 else sum(own)
            torch.testing.assert_close(every, derivative, **close)


def test_batchnorm_in_evaluation_and_in_sixteen_bits():
    draw = torch.Generator().manual_seed(0)
    x, mean, var = (torch.rand(8, 3, 2, 2, generator=draw) * 9, torch.rand(3), torch.rand(3))
    kept = mean.clone(), var.clone()
    evaluated = each(2, lambda r: batch_norm(x[4 * r : 4 * r + 4], mean, var), images=4)
    assert torch.equal(torch.cat(evaluated), F.batch_norm(x, mean, var))
    assert torch.equal(mean, kept[0])

    few = x.bfloat16()
    weight, bias = torch.rand(3), torch.rand(3)

    def trained(rank):
        own = few[4 * rank : 4 * rank + 4].clone().requires_grad_()
        statistics = torch.zeros(3), torch.ones(3)
        y = batch_norm(own, *statistics, weight, bias, True)
        (slope,) = torch.autograd.grad(y.float().square().sum(), own)
        return y.detach(), slope, statistics

    parts = each(2, trained, images=4)
    one = few.clone().requires_grad_()
    statistics = torch.zeros(3), torch.ones(3)
    y = F.batch_norm(one, *statistics, weight, bias, True)
    (slope,) = torch.autograd.grad(y.float().square().sum(), one)
    assert parts[0][0].dtype == parts[0][1].dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), y, rtol=0.02, atol=0.02)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), slope, rtol=0.05, atol=0.05)
    for part in parts:
        torch.testing.assert_close(part[2], statistics)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm2d(3, momentum=None), lambda: nn.BatchNorm2d(3, affine=False),
        lambda: nn.BatchNorm2d(3, track_running_stats=False), lambda: BatchNormAct2d(3),
        lambda: nn.BatchNorm2d(3, eps=0.1),
    ],
    ids=["plain average", "no weight", "no statistics", "of timm", "eps"],
)  # fmt: skip
def test_layers_of_batchnorm_see_all_images(make):
    x = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 + 1
    layer = make()
    twice = [layer(x), layer(2 * x)][1]  # the statistics of two minibatches

    def work(rank):
        own = make()
        over_all_processes(own)
        rows = x[4 * rank : 4 * rank + 4]
        return [own(rows), own(2 * rows)][1].detach(), own.state_dict(), own.eval()(rows).detach()

    parts = each(2, work, images=4)
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), twice.detach())
    still = layer.eval()(x).detach()
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), still)
    for part in parts:
        torch.testing.assert_close(part[1], layer.state_dict())


def test_in_replicated_batchnorm_takes_its_images_for_all_there_are():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    layer = nn.BatchNorm1d(3)
    expected = layer(x).detach()

    def work(_):
        own = nn.BatchNorm1d(3)
        over_all_processes(own)
        with vgx.replicated():
            return own(x).detach()

    assert all(torch.equal(found, expected) for found in each(2, work))


# --- the step of the whole minibatch -------------------------------------------------------------


def test_the_step_of_the_whole_minibatch_is_gathered_when_it_is_read():
    step = full_step(vgx.ImageSpec(8, classes=3))

    def cut(tensor, rank):
        if tensor.dim() == 0 or len(tensor) % 8:
            return tensor
        return tensor.unflatten(0, (-1, 2, 4))[:, rank].flatten(0, 1)

    def work(rank):
        own = with_tensors(step, lambda tensor: cut(tensor, rank))
        assert len(own.real) == 4
        every = whole(own)
        assert isinstance(every, vgx.Step)
        assert isinstance(every.posterior, vgx.Gaussian)
        assert vars(every)["real"] is own.real  # not gathered yet
        generator = torch.Generator().manual_seed(0)
        with vgx.replicated():
            assert every.real is every.real
            found = {
                "real": every.real, "fake": every.fake, "labels": every.labels,
                "judged": every.judged_fake[0], "kl": every.posterior.kl(),
                "sample": every.posterior.sample(generator), "mean": every.posterior.mean,
                "logits": every.fake_score.logits, "features": every.real_score.features[1],
                "decoded": every.decode(every.z), "of fakes": every.fake_score.features[0],
            }  # fmt: skip
        assert every.number == 5
        assert every.has("recon")
        assert not every.but(prior=None).has("prior")
        return found

    generator = torch.Generator().manual_seed(0)
    expected = {
        "real": step.real, "fake": step.fake, "labels": step.labels, "judged": step.fake,
        "kl": step.posterior.kl(), "sample": step.posterior.sample(generator),
        "mean": step.posterior.mean, "logits": step.fake_score.logits,
        "features": step.real_score.features[1], "decoded": step.decode(step.z),
        "of fakes": step.fake_score.features[0],
    }  # fmt: skip
    for found in each(2, work, images=4):
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)
    assert whole(step) is step


def test_the_whole_step_of_one_of_several_discriminators_is_gathered_too():
    """An augmentation that observes a step asks for it; what is replaced is whole already."""
    step = full_step(vgx.ImageSpec(8))
    scores = {name: vgx.Score(torch.randn(8, 1)) for name in ("fine", "coarse")}

    def work(rank):
        def own(tensor):
            return tensor.chunk(2)[rank] if tensor.dim() and len(tensor) == 8 else tensor

        mine = with_tensors(step, own)
        views = tuple(
            (name, {"real_score": vgx.Score(own(score.logits)), "judges": "images"})
            for name, score in scores.items()
        )
        every = whole(mine.but(views=views))
        with vgx.replicated():
            found = {name: every.about(name).real_score.logits for name in scores}
            other = every.but(real=1 - every.real)
            return {**found, "real": other.real, "z": other.z}

    expected = {name: score.logits for name, score in scores.items()}
    expected |= {"real": 1 - step.real, "z": step.z}
    for found in each(2, work, images=4):
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_absent_values_stay_absent_in_the_whole_step():
    def work(_):
        own = full_step().but(prior=None)
        with pytest.raises(vgx.AbsentError, match="'prior' in train.fakes"):
            _ = whole(own).prior

    each(2, work, images=4)
