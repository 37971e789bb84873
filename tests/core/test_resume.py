"""The resume matrix: wherever a run stops, it ends to the bit as one that did not."""

from __future__ import annotations

import copy
import dataclasses
import io
import shutil
import signal
from pathlib import Path
from unittest import mock

import pytest
import torch

import vgx
from vgx.console import Console
from vgx.engine.engine import Engine
from vgx.errors import Stopped, StorageError
from vgx.runs import checkpoint
from vgx.runs.directory import find
from vgx.second import fitting
from vgx.training import environment, session
from vgx.training.loop import Training

pytestmark = pytest.mark.usefixtures("no_pages")

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
# 64 pictures in minibatches of 8: an epoch is eight steps.
STOPS = {"before the first": 0, "first": 1, "mid-epoch": 3, "last of an epoch": 7, "epoch end": 8}
STEPS = 12
SCHEDULE = {"from": 1e-3, "to": 1e-5, "steps": 9, "shape": "cosine"}
FAMILIES = {
    "vaegan": {},
    "gan": {
        "encoder": None,
        "losses": ["hinge", {"type": "r1", "every": 5}],  # logged in the steps between, too
        "sampler": "prior",
    },
    "wgan-gp": {
        "encoder": None,
        "losses": ["wasserstein", "gradient-penalty"],
        "sampler": "prior",
        "train.discriminator_steps": 3,
    },
    "vae": {"discriminator": None, "losses": ["bce", "kl"], "train.ema": None},
    "ladder": {
        "latent": 20,
        "discriminator": None,
        "losses": ["bce", "kl"],
        "sampler": "prior",
        "encoder": {"type": "ladder", "widths": [8, 8, 8], "top": 4},
        "decoder": {"type": "ladder", "widths": [8, 8, 8], "top": 4},
    },
    "vamp-prior": {
        "discriminator": None,
        "sampler": "vamp-prior",
        "losses": ["bce", {"type": "vamp-prior", "components": 5}],
    },
    "schedules": {
        "train.optimizers.generator": {"type": "adam", "lr": SCHEDULE, "warmup": 5},
        "train.optimizers.discriminator": {"type": "adamw", "lr": SCHEDULE, "weight_decay": 0.1},
        "train.ema_warmup": True,
    },
    "muon": {"train.optimizers.generator": {"type": "nadamuon", "lr": SCHEDULE}},
    "everything": {
        "train.order": "discriminator-first",
        "train.fakes": ["recon", "prior"],
        "train.accumulate": 2,
        "train.clip": 0.5,
        "diff_augment": ["translation"],
        "losses.3": {"type": "kl", "weight": {"from": 0, "to": 1, "steps": 5}, "start": 2},
    },
}
ORDINARY = [*(("vaegan", stop) for stop in STOPS), ("wgan-gp", "mid-epoch")]
CASES = [
    pytest.param(
        family,
        stop,
        id=f"{family}-{stop}",
        marks=[] if (family, stop) in ORDINARY else pytest.mark.chaos,
    )
    for family in FAMILIES
    for stop in STOPS
]


def quiet():
    return Console(file=io.StringIO())


def recipe_of(family, **changes):
    changes = {"train.steps": STEPS, "train.save_every": 1000, "train.draw_every": 5, **changes}
    return vgx.load_recipe(TINY, {**FAMILIES[family], **changes})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Runs that nobody stopped, by family: each is made once."""
    made = {}

    def of(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family] = end_of(session.run(recipe_of(family), folder, console=quiet()))
        return made[family]

    return of


def end_of(run):
    _, state = checkpoint.load(run)
    log = [(line["step"], line["losses"], line["rates"]) for line in run.read_log()]
    return state, log


def differing(one, two):
    """Names of the tensors that two ends do not share to the bit."""
    names = []
    for kind in ("model", "optimizer", "latents"):
        a, b = getattr(one, kind), getattr(two, kind)
        assert a.keys() == b.keys()
        names += [name for name in a if not torch.equal(a[name], b[name])]
    return names


def stopped_at(step, start):
    """Begin or resume, and have SIGTERM come when so many steps are done."""
    does, room = Training.step, environment.room

    def stepping(self):
        values = does(self)
        if self.done == step:
            signal.raise_signal(signal.SIGTERM)
        return values

    def before(*given):
        if step == 0:
            signal.raise_signal(signal.SIGTERM)
        return room(*given)

    with (
        mock.patch.object(Training, "step", stepping),
        mock.patch.object(environment, "room", before),
        pytest.raises(Stopped, match=f"stopped at step {step} and saved"),
    ):
        start()


@pytest.mark.bar("R7")
@pytest.mark.parametrize(("family", "stop"), CASES)
def test_a_run_that_stopped_anywhere_ends_alike(straight, family, stop):
    step = STOPS[stop]
    stopped_at(step, lambda: session.run(recipe_of(family), console=quiet()))
    run = find()
    assert checkpoint.load(run)[1].numbers["step"] == step
    session.resume(run, console=quiet())
    state, log = end_of(run)
    wanted, wanted_log = straight(family)
    assert differing(state, wanted) == []
    assert log == wanted_log


@pytest.mark.bar("R7")
@pytest.mark.parametrize("family", ["vaegan", "wgan-gp"])
def test_a_run_that_stops_after_every_step_ends_alike(straight, family):
    stopped_at(0, lambda: session.run(recipe_of(family), console=quiet()))
    run = find()
    for step in range(1, 7):
        stopped_at(step, lambda: session.resume(run, console=quiet()))
    # The last step is the end; a signal in it changes nothing.
    stopped_at(STEPS, lambda: session.resume(run, console=quiet()))
    session.resume(run, console=quiet())
    state, log = end_of(run)
    wanted, wanted_log = straight(family)
    assert differing(state, wanted) == []
    assert log == wanted_log


def test_a_learning_rate_that_changes_at_a_resume_holds_from_there_on_and_is_noted():
    """As if a schedule had changed it there; also when the first resume is killed at once."""
    before, after = 2.0**-10, 2.0**-13  # so that the schedule has no rounding
    name = "train.optimizers.generator.lr"
    schedule = {"from": before, "to": after, "steps": 1, "after": 3}
    changes = {"train.steps": 6, "train.save_every": 2}
    wanted, wanted_log = end_of(
        session.run(recipe_of("vaegan", **changes, **{name: schedule}), console=quiet())
    )
    stopped_at(
        4,
        lambda: session.run(recipe_of("vaegan", **changes, **{name: before}), console=quiet()),
    )
    run, gone = find(), StorageError("the disk is gone")
    changed = vgx.load_recipe(run.recipe_file, {name: after})
    with mock.patch.object(fitting, "train", side_effect=gone), pytest.raises(StorageError):
        session.resume(run, changed, console=quiet())
    session.resume(run, console=quiet())
    state, log = end_of(run)
    assert differing(state, wanted) == []
    assert log == wanted_log
    text = f"{name}: {before} until step 4, then {after}"
    assert {line["step"]: line["warnings"] for line in run.read_log() if "warnings" in line} == {
        5: [text]
    }
    assert checkpoint.load(run)[1].numbers["warnings"] == []
    with pytest.raises(vgx.VgxError, match=r"betas.*\n.*betas"):
        session.resume(
            run, vgx.load_recipe(run.recipe_file, {"train.optimizers.generator.betas": [0, 0.9]})
        )


# --- the negative control: what if one thing of the state were forgotten? ----------------------

# Where it lies, and which names it has. What is forgotten is as it was at the very beginning.
KEYS = {
    "encoder": ("model", lambda name: name.startswith("encoder.")),
    "decoder": ("model", lambda name: name.startswith("decoder.")),
    "discriminator": ("model", lambda name: name.startswith("discriminator.")),
    "averaged weights": ("model", lambda name: name.startswith("average.module.")),
    "count of the average": ("model", lambda name: name == "average.n_averaged"),
    "running statistics": ("model", lambda name: "running_" in name),
    "count of the statistics": ("model", lambda name: "num_batches" in name),
    "first moments of the generator": ("optimizer", lambda name: moment(name, "gen", "exp_avg")),
    "second moments of the generator": ("optimizer", lambda name: moment(name, "gen", "_sq")),
    "steps of the generator": ("optimizer", lambda name: moment(name, "gen", "step")),
    "first moments of the discriminator": ("optimizer", lambda name: moment(name, "dis", "avg")),
    "second moments of the discriminator": ("optimizer", lambda name: moment(name, "dis", "_sq")),
    "steps of the discriminator": ("optimizer", lambda name: moment(name, "dis", "step")),
    "codes": ("latents", lambda name: name == "codes"),
}


FEW = ("averaged weights", "steps of the generator", "running statistics", "codes")


def moment(name, player, ending):
    return name.startswith(player) and name.endswith(ending)


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A run that stopped after three of eight steps, the state there, and its proper end."""
    folder = tmp_path_factory.mktemp("halfway")
    eight = recipe_of("vaegan", **{"train.steps": 8})
    wanted, _ = end_of(session.run(eight, folder, console=quiet()))
    stopped_at(3, lambda: session.run(eight, folder, console=quiet()))
    run = find(None, folder)
    _, state = checkpoint.load(run)
    return run, state, wanted


def ended_from(run, state, monkeypatch, tmp_path):
    """Go on from this state, whatever the checkpoint says."""
    run = vgx.Run(shutil.copytree(run.path, tmp_path / "copy"))
    loaded = run.checkpoints / "step-00000003", copy.deepcopy(state)  # a training changes it
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "load", lambda _: loaded)
        session.resume(run, console=quiet())
    return end_of(run)[0]


def test_with_all_of_it_nothing_differs(halfway, monkeypatch, tmp_path):
    run, state, wanted = halfway
    assert differing(ended_from(run, state, monkeypatch, tmp_path), wanted) == []


@pytest.mark.bar("R7", control="each of 14 pieces of the state is left out in turn")
@pytest.mark.parametrize(
    "key", [pytest.param(k, marks=() if k in FEW else pytest.mark.chaos) for k in KEYS]
)
def test_what_is_forgotten_is_missed(halfway, monkeypatch, tmp_path, key):
    run, state, wanted = halfway
    place, chosen = KEYS[key]
    recipe = vgx.load_recipe(run.recipe_file)
    fresh = Engine(recipe, 8, 64).state({})
    kept = dict(getattr(state, place))
    names = [name for name in kept if chosen(name)]
    assert names
    for name in names:
        begun = getattr(fresh, place).get(name)
        kept[name] = torch.zeros_like(kept[name]) if begun is None else begun
    forgetful = dataclasses.replace(state, **{place: kept})
    assert differing(ended_from(run, forgetful, monkeypatch, tmp_path), wanted)


@pytest.mark.bar("R7")
@pytest.mark.parametrize(
    ("place", "ending"),
    [
        ("model", "weight"),
        ("model", "running_mean"),
        # PyTorch would make this one up.
        ("model", "num_batches_tracked"),
        ("model", "n_averaged"),
        ("optimizer", ""),
        ("latents", ""),
    ],
)
def test_what_is_not_there_at_all_is_refused(halfway, monkeypatch, tmp_path, place, ending):
    run, state, _ = halfway
    some = min(name for name in getattr(state, place) if name.endswith(ending))
    kept = {name: tensor for name, tensor in getattr(state, place).items() if name != some}
    if place == "optimizer":
        kept["generator/nobody/exp_avg"] = torch.zeros(1)
    broken = dataclasses.replace(state, **{place: kept})
    with pytest.raises(StorageError, match="the checkpoint does not fit the recipe"):
        ended_from(run, broken, monkeypatch, tmp_path)


def test_the_step_that_is_forgotten_is_missed(halfway, monkeypatch, tmp_path):
    run, state, wanted = halfway
    earlier = dataclasses.replace(state, numbers={**state.numbers, "step": 2})
    assert differing(ended_from(run, earlier, monkeypatch, tmp_path), wanted)
