"""Parts that change with the step, and augmentations that learn from it."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
import torch
from steps import batches
from torch import nn

import vgx
from vgx.check.examine import examine
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.errors import RecipeError
from vgx.notebook.curves import charts
from vgx.runs import checkpoint
from vgx.testing import check_part
from vgx.training import session as training
from vgx.training.fork import fork
from vgx.training.monitors import figures
from vgx.training.replay import replay
from vgx.training.verify import verify
from vgx_figures.curves import logged
from vgx_report import curves

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
STEPS = 8
# So few images that p moves by 0.2 after each minibatch of 8.
ADA = {"type": "ada", "thousands": 0.04, "every": 1}


class Fading(vgx.Decoder, type="fading"):
    """Fades in: its output is multiplied by the progress of the training."""

    fault: str = ""
    """What is wrong."""

    def build(self, latent, image):
        return Fade(latent.shape[0], image.shape, self.fault)


class Fade(nn.Module):
    def __init__(self, size, shape, fault):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(size, math.prod(shape)), nn.Unflatten(1, shape))
        self.inner = Share(fault)

    def forward(self, z):
        return self.inner(self.layer(z))


class Share(nn.Module):
    """A module inside of the network: it is called too."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.register_buffer("share", torch.zeros(()))

    def at(self, number, progress):
        if self.fault == "attribute":
            self.number = number
        if self.fault == "sum":
            self.share += progress
        else:
            self.share.fill_(progress)

    def forward(self, logits):
        return logits * (0.1 + self.share)

    def figures(self):
        if self.fault == "moves":
            self.share += 1
        faulty = {"list": [1.0], "tensor": {"share": self.share}, "not finite": {"share": math.nan}}
        return faulty.get(self.fault, {"share": self.share.item()})


class Tuned(vgx.Loss, type="tuned"):
    """L1 with a number that it keeps."""

    fault: str = ""
    """What is wrong."""

    def build(self, image, latent):
        return Scale(self.fault)


class Scale(Share):
    def generator(self, step):
        return (step.recon - step.real).abs().mean() * (1 + self.share)


class Watching(vgx.Augmentation, type="watching"):
    """Counts what it sees, and changes nothing."""

    fault: str = ""
    """What is wrong."""

    def build(self, image):
        return Watch(self.fault)


class Watch(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.fault, self.steps = fault, []
        self.register_buffer("count", torch.zeros(()))

    def forward(self, images, generator):
        return images + 0 * torch.rand(len(images), 1, 1, 1, generator=generator)

    def observe(self, step):
        if self.fault == "log":
            self.steps.append((step.number, len(step.real), step.real_score.logits.requires_grad))
        self.count += torch.rand(()) if self.fault == "random" else step.real.mean()


def engine_of(changes=None, **parts):
    recipe = vgx.load_recipe(TINY, {"train.steps": STEPS, **(changes or {})})
    return Engine(recipe.model_copy(update=parts), STEPS)


def images(number, n=8):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(number))


def trained(engine, first, last):
    for number in range(first, last):
        engine.step(number, batches(*[images(number)] * engine.recipe.batches_per_step))
    return engine.state({"step": last})


@pytest.mark.parametrize("parts", [{"decoder": Fading()}, {}])
def test_a_training_that_goes_on_is_the_same_to_the_bit(parts):
    changes = {"diff_augment": [ADA], "augment": [], "train.discriminator_steps": 2}
    whole = trained(engine_of(changes, **parts), 0, STEPS)
    half = trained(engine_of(changes, **parts), 0, 3)
    other = engine_of(changes, **parts)
    other.restore(half)
    again = trained(other, 3, STEPS)
    assert again.model.keys() == whole.model.keys()
    assert all(torch.equal(again.model[name], whole.model[name]) for name in whole.model)
    assert whole.model["diff_augment 0 ada.p"] > 0
    if parts:
        assert whole.model["decoder.inner.share"] == (STEPS - 1) / STEPS
        assert whole.model["average.module.decoder.inner.share"] == (STEPS - 1) / STEPS


def test_a_checkpoint_of_an_earlier_vgx_begins_with_new_buffers():
    state = trained(engine_of({"diff_augment": [ADA]}), 0, 3)
    without = {k: v for k, v in state.model.items() if not k.startswith("diff_augment")}
    assert len(without) == len(state.model) - 3
    engine = engine_of({"diff_augment": [ADA]})
    engine.restore(checkpoint.State(without, state.optimizer, state.latents, state.numbers))
    assert engine.state({}).model["diff_augment 0 ada.p"] == 0


def test_images_are_augmented_in_full_precision():
    """The discriminator sees the same real images, whatever precision it computes in."""
    seen = []
    for precision in ("fp32", "bf16"):
        scaled = {"diff_augment": [{**ADA, "changes": ["scale"]}], "train.precision": precision}
        engine = engine_of({**scaled, "augment": []})
        engine.forward.diff_augment[0].p.fill_(1)
        judge, given = engine.networks["discriminator"], []
        hook = judge.register_forward_pre_hook(lambda module, inputs, to=given: to.append(*inputs))
        values = engine.step(0, batches(images(0, 4)))
        hook.remove()
        assert all(value.isfinite() for value in values.values())
        seen.append(given[0])
    assert seen[0].dtype == seen[1].dtype == torch.float32
    assert torch.equal(*seen)
    assert not torch.allclose(seen[0], images(0, 4), atol=0.01)


def test_of_several_discriminators_ada_follows_those_that_judge_images():
    judge = {"type": "patchgan", "widths": [4, 6]}
    judges = {"latent": {"type": "latent-mlp"}, "fine": judge, "coarse": judge}
    losses = [{"type": "hinge", "discriminator": name} for name in judges]
    changes = {"discriminator": None, "discriminators": judges, "losses": ["l1", *losses]}
    engine = engine_of({**changes, "augment": [], "diff_augment": [{**ADA, "every": 2}]})
    examine(engine, vgx.discover(), Batch(images(0, 4)))
    trained(engine, 0, 1)
    means = [engine.forward.logits[f"discriminator {name}"][0].sign().mean() for name in judges]
    (ada,) = engine.forward.diff_augment
    assert ada.signs.item() == pytest.approx(sum(means[1:]).item() / 2)
    assert means[0] != ada.signs
    assert ada.seen.tolist() == [1, 8]


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
@pytest.mark.parametrize(("several", "pieces"), [(1, 1), (2, 1), (1, 2)])
def test_each_minibatch_is_seen_once(order, several, pieces):
    settings = {"order": order, "discriminator_steps": several, "accumulate": pieces}
    changes = {f"train.{name}": value for name, value in settings.items()}
    engine = engine_of(changes, diff_augment=(Watching(fault="log"),))
    trained(engine, 0, 2)
    (watch,) = engine.forward.diff_augment
    one = [(8 // pieces, True)] * pieces * several
    assert watch.steps == [(number, *each) for number in (0, 1) for each in one]


def test_a_pass_for_statistics_is_not_seen():
    engine = engine_of({"diff_augment": [ADA]}, augment=(Watching(fault="log"),), decoder=Fading())
    state = trained(engine, 0, 4)
    engine.refresh_average(4, batches(images(0), images(1)))
    after = engine.state({}).model
    for name in ("augment 0 watching.count", "average.module.decoder.inner.share"):
        assert torch.equal(after[name], state.model[name])
    assert len(engine.forward.augment[0].steps) == 4


def checked(**parts):
    examine(engine_of(**parts), vgx.discover(), Batch(images(0, 4)))


def test_the_check_finds_what_no_checkpoint_would_hold():
    checked(decoder=Fading(), augment=(Watching(),))
    engine = engine_of(decoder=Fading())
    examine(engine, vgx.discover(), Batch(images(0, 4)))
    assert engine.networks["decoder"].inner.share == 0
    for parts, message in (
        ({"decoder": Fading(fault="attribute")}, r"contract:decoder: at\(.*changes an attribute"),
        ({"decoder": Fading(fault="sum")}, r"contract:decoder: at\(.*depends on earlier calls"),
        ({"augment": (Watching(fault="log"),)}, r"contract:augment.0: observe\(.*an attribute"),
        ({"diff_augment": (Watching(fault="random"),)}, r"observe\(step\) gives something else"),
        ({"decoder": Fading(fault="list")}, r"decoder: figures\(\) gives a list, not a dict"),
        ({"losses": (Tuned(fault="tensor"),)}, r"figures\(\) gives 'share'.* use .item\(\)"),
    ):
        with pytest.raises(RecipeError, match=message):
            checked(**parts)


def test_the_kit_finds_it_too():
    check_part(Fading())
    for part, message in (
        (Fading(fault="attribute"), "changes an attribute: make it a buffer"),
        (Fading(fault="sum"), "depends on earlier calls"),
        (Watching(fault="log"), r"observe\(step\) changes an attribute"),
        (Watching(fault="random"), "gives something else"),
        (Fading(fault="tensor"), r"figures\(\) gives 'share'.* use .item\(\)"),
        (Tuned(fault="moves"), r"figures\(\) changes what the part has learned or kept"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_part(part)


def test_figures_have_the_names_of_their_parts():
    losses = Tuned(), Tuned(fault="not finite", name="b")
    engine = engine_of({"diff_augment": [ADA, ADA]}, losses=losses)
    engine.forward.diff_augment[1].p.fill_(0.25)
    ada = {"diff_augment 0 ada.p": 0.0, "diff_augment 1 ada.p": 0.25}
    assert figures(engine) == {"tuned.share": 0.0, **ada}
    engine = engine_of({"diff_augment": [ADA]}, decoder=Fading())
    trained(engine, 0, 3)  # the last step is number 2
    p = engine.state({}).model["diff_augment 0 ada.p"].item()
    assert figures(engine) == {"decoder.inner.share": 2 / STEPS, "ada.p": p}
    assert p > 0


@pytest.mark.slow
def test_a_run_is_replayed_verified_and_forked_with_what_it_learned(tmp_path):
    quiet = {"console": Console(file=io.StringIO())}
    changes = {"diff_augment": [ADA], "train.steps": STEPS, "train.save_every": 3, "train.keep": 9}
    changes |= {"train.log_every": 1, "trackers": ["csv"]}
    run = training.run(vgx.load_recipe(TINY, changes), **quiet)
    saved = {step: checkpoint.load_step(run, step)[1] for step in (3, 6, 8)}
    lines = {line["step"]: line for line in run.read_log() if line["losses"]}
    for step, state in saved.items():  # where everybody looks for it
        p = pytest.approx(state.model["diff_augment 0 ada.p"].item(), rel=1e-3)
        assert lines[step]["figures"] == {"ada.p": p}
    log = [*lines.values()]
    shown = pytest.approx([line["figures"]["ada.p"] for line in log], rel=1e-3)
    with (run.path / "trackers" / "values.csv").open() as table:
        assert [float(row["figures/ada.p"]) for row in csv.DictReader(table)] == shown
    for page, title in (
        (curves.of_run(log, {}), "Figures of parts"),
        (curves.of_runs(["a"], [log]), "ada.p"),
    ):
        (chart,) = [chart for chart in page["groups"] if chart["title"] == title]
        assert chart["lines"][0]["values"] == shown
    assert ">ada.p</text>" in charts(log)
    assert [*logged(run, "step", everything=True)["figures/ada.p"]] == [*lines]
    moved = [saved[step].model["diff_augment 0 ada.p"].item() for step in saved]
    assert len({*moved}) > 1
    assert verify(run, **quiet) == (7, 8)
    for step in (5, 8):
        again = replay(run, step, **quiet)
        assert again.differs == ""
        assert again.start < step
    forked = checkpoint.load(fork(run, at=3, **quiet))[1].model  # it does what its parent did
    assert forked.keys() == saved[8].model.keys()
    assert all(torch.equal(forked[name], saved[8].model[name]) for name in forked)
