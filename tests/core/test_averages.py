"""Averaged weights are used with BatchNorm statistics of their own."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from steps import batches
from torch import nn

import vgx
from vgx.console import Console
from vgx.data.batches import as_images
from vgx.engine.averages import new_statistics
from vgx.engine.build import evaluating, sigmoid
from vgx.engine.engine import Engine
from vgx.runs import checkpoint
from vgx.training import loop, session
from vgx.training.loop import Training
from vgx.training.verify import verify

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
VAE = {"discriminator": None, "losses": [{"type": "l1", "weight": 100}, {"type": "kl"}]}


def recipe(**train):
    changes = {f"train.{name}": value for name, value in train.items()}
    return vgx.load_recipe(TINY, {**VAE, "train.fakes": [], "augment": [], **changes})


def pictures(seed):
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def averaged(engine):
    return dict(engine.ema.module.named_children())


def test_new_statistics_are_plain_means_over_the_passes():
    """BatchNorm in training gives each pass's mean and unbiased variance; dropout is off."""
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(1)).train()
    network(torch.full((2, 1), 100.0) + torch.tensor([[0.0], [1.0]]))
    with new_statistics([network]):
        network(torch.tensor([[1.0], [3.0]]))  # mean 2, variance 2
        network(torch.tensor([[2.0], [8.0]]))  # mean 5, variance 18
    assert network[1].running_mean.tolist() == [3.5]
    assert network[1].running_var.tolist() == [10.0]
    assert network[1].momentum == 0.1
    assert network.training
    assert network[0].training


def test_other_buffers_stay_as_they_are():
    """Such as a codebook that moves in every forward pass of a training."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            if self.training:
                self.count += 1
            return x

    network = nn.Sequential(Counts(), nn.BatchNorm1d(2))
    with new_statistics([network]):
        network(torch.randn(4, 2))
    assert network[0].count == 0
    assert network[1].num_batches_tracked == 1


def test_refreshing_changes_only_the_averaged_networks_and_always_gives_the_same():
    engine = Engine(recipe(ema=0.9), 10)
    for number in range(3):
        engine.step(number, batches(pictures(number)))
    before = {name: tensor.clone() for name, tensor in engine.state({}).model.items()}
    random = torch.get_rng_state()
    engine.refresh_average(3, batches(pictures(7)))
    once = {name: tensor.clone() for name, tensor in engine.state({}).model.items()}
    engine.refresh_average(3, batches(pictures(7)))
    twice = engine.state({}).model
    assert torch.equal(torch.get_rng_state(), random)
    changed = {name for name in before if not torch.equal(before[name], once[name])}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert {name.rpartition(".")[2] for name in changed} == statistics
    assert all(name.startswith("average.module.") for name in changed)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_the_statistics_are_those_of_the_averaged_weights():
    """The first BatchNorm of the encoder, computed from the images by the averaged layer before."""
    engine = Engine(recipe(ema=0.9), 10)
    for number in range(3):
        engine.step(number, batches(pictures(number)))
    real = pictures(7)
    engine.refresh_average(3, batches(real))
    encoder = averaged(engine)["encoder"]
    index, layer = next(
        (i, m) for i, m in enumerate(encoder.trunk) if isinstance(m, nn.BatchNorm2d)
    )
    with torch.no_grad():
        inputs = encoder.trunk[:index](real)
    torch.testing.assert_close(layer.running_mean, inputs.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, inputs.var((0, 2, 3)))


def test_without_averages_there_is_nothing_to_refresh():
    engine = Engine(recipe(ema=None), 10)
    before = {name: tensor.clone() for name, tensor in engine.state({}).model.items()}
    engine.refresh_average(0, batches(pictures(0)))
    assert all(torch.equal(before[n], t) for n, t in engine.state({}).model.items())


@pytest.mark.parametrize(("per_epoch", "passes"), [(100, 22), (5, 5)])
def test_statistics_are_of_512_images_of_the_next_minibatches_or_of_an_epoch(per_epoch, passes):
    """21 minibatches of 24 images are 504 of them. After a step they are taken once."""
    asked = []
    training = SimpleNamespace(
        recipe=recipe(batch=24),
        engine=SimpleNamespace(
            rollbacks=0, refresh_average=lambda number, each: asked.append((number, [*each]))
        ),
        batches=SimpleNamespace(per_epoch=per_epoch, shared=lambda number, _: number),
        done=7,
        numbers=range(14, 16),
        refreshed=(6, 0),
    )
    for _ in range(2):
        Training.refresh_average(training)
    assert asked == [(7, [*range(14, 14 + passes)])]


def test_what_is_drawn_measured_and_saved_has_the_new_statistics(tmp_path, monkeypatch):
    """Each at steps of its own, for a step gives the averages those of the trained networks."""
    new = {}  # whether they were, by what was done and the step

    def note(what, step, model):
        key = next(key for key in model if key.endswith("running_mean") and "average" in key)
        new[what, step] = not torch.equal(model[key], model[key.removeprefix("average.module.")])

    def drawing(engine, store, run, step, draw=loop.draw):
        note("drawn", step, engine.state({}).model)
        return draw(engine, store, run, step)

    def measuring(engine, store, step, cache, measure=loop.measure_training):
        note("measured", step, engine.state({}).model)
        return measure(engine, store, step, cache)

    def saving(run, state, *kept, save=checkpoint.save):
        note("saved", state.numbers["step"], state.model)
        return save(run, state, *kept)

    monkeypatch.setattr(loop, "draw", drawing)
    monkeypatch.setattr(loop, "measure_training", measuring)
    monkeypatch.setattr(checkpoint, "save", saving)
    often = {"eval.every": 3, "eval.metrics": ["l1"]}
    asked = vgx.load_recipe(TINY, {**VAE, "train.fakes": [], **often, "train.steps": 5,
                                   "train.save_every": 4, "train.draw_every": 100})  # fmt: skip
    session.run(asked, tmp_path / "a", console=Console(file=io.StringIO()))
    steps = {"drawn": (1, 2, 5), "measured": (3, 5), "saved": (4, 5)}
    assert new == {(what, step): True for what, each in steps.items() for step in each}


@pytest.mark.slow
def test_a_run_saves_the_new_statistics_and_repeats(tmp_path):
    """Also after a resume, whose images and checkpoint are those of a run without a stop."""
    quiet = Console(file=io.StringIO())
    changes = {"ema": 0.9, "save_every": 4, "draw_every": 4}
    whole = session.run(recipe(steps=12, **changes), tmp_path / "a", console=quiet)
    parts = session.run(recipe(steps=8, **changes), tmp_path / "b", console=quiet)
    session.resume(parts, recipe(steps=12, **changes), console=quiet)
    one, two = checkpoint.load(whole)[1].model, checkpoint.load(parts)[1].model
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [{p.name: p.read_bytes() for p in run.samples.iterdir()} for run in (whole, parts)]
    assert len(drawn[0]) >= 7
    assert drawn[0] == drawn[1]
    name = next(n for n in one if n.startswith("average.module.encoder") and "running_mean" in n)
    assert not torch.equal(one[name], one[name.removeprefix("average.module.")])
    assert verify(whole, console=quiet) == (9, 12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ema", "lr", "steps", "seed"),
    [
        (0.99, 1e-3, 400, 0),
        pytest.param(0.98, 3e-4, 500, 0, marks=pytest.mark.chaos),
        pytest.param(0.99, 1e-3, 400, 1, marks=pytest.mark.chaos),
        pytest.param(0.999, 1e-3, 500, 0, marks=pytest.mark.chaos),
    ],
)
def test_averaged_weights_reconstruct_better_with_their_own_statistics(ema, lr, steps, seed):
    """L1 of 512 images at 16 pixels; `pytest -rP` prints the table."""
    changes = {"batch": 16, "steps": steps, "ema": ema, "seed": seed}
    vae = vgx.load_recipe(
        TINY,
        {
            **VAE,
            "losses": [{"type": "l1", "weight": 100}, {"type": "bce"}, {"type": "kl"}],
            "dataset.count": 1000,
            "train.optimizers.generator.lr": lr,
            **{f"train.{name}": value for name, value in changes.items()},
        },
    )
    quiet = Console(file=io.StringIO())
    _, source, notices = session.open_images(vae, [], quiet)
    engine = session.build(vae, len(source), torch.device("cpu"), notices, quiet)
    store = session.read_images(vae, source, quiet)
    minibatches = session.batches_of(vae, store, torch.device("cpu"))
    training = Training(vae, None, engine, minibatches, store, notices)
    for _ in range(steps):
        training.step()
    real = as_images(store.images[:512], "cpu")  # [512, 3, 16, 16]

    @torch.no_grad()
    def l1(networks):
        with evaluating(networks.values()):
            recon = sigmoid(networks["decoder"](networks["encoder"](real).mean))
        return (recon - real).abs().mean().item()

    copied = l1(averaged(engine))
    training.refresh_average()
    fresh, live = l1(averaged(engine)), l1(engine.networks)
    print(f"ema {ema}, lr {lr}: copied {copied:.4f}, anew {fresh:.4f}, live {live:.4f}")  # noqa: T201
    assert fresh < copied
    if ema == 0.99:
        assert fresh < 0.93 * copied
