"""The second stage: the final encoder encodes all images, and a prior learns their codes.

Everything lies in the folder `prior` of the run: `codes`, the codes of the images, and `held-out`,
those of images that were not trained on; `log.jsonl`, in the form of the run's own log; and
`prior.safetensors`, the newest state. A training that goes on does what it would have done without
a stop, to the bit: random numbers are keyed by the step.

Letters: B images in a minibatch, Z the latent shape.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vgx import rng
from vgx.check.blame import blaming
from vgx.console import Console
from vgx.data.order import Shuffled
from vgx.data.split import held_out
from vgx.data.store import Store
from vgx.distributed.processes import from_first
from vgx.engine.build import use_same_kernels
from vgx.engine.optimizers import unwrapped
from vgx.errors import DivergedError, Stopped, StorageError, noticing
from vgx.files import storage, write_file
from vgx.parts.kinds import Prior
from vgx.parts.registry import Registry
from vgx.parts.values import CodeSpec
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint
from vgx.runs.checkpoint import under
from vgx.runs.directory import Run
from vgx.runs.frames import evenly
from vgx.runs.reading import Line
from vgx.sampling.model import Model, load_model
from vgx.second import kept
from vgx.second.codes import spec_of, write_codes
from vgx.second.folder import Codes, Latents, load_latents, posterior_sample
from vgx.training.loop import train
from vgx.training.signals import signals
from vgx.training.state import TrainedStep, Training

LOG_EVERY, MEASURE_EVERY, SAVE_EVERY = 10, 100, 500  # steps
MEASURED = 256  # images that were held out, at most
WARMUP = 100  # steps in which the learning rate rises
CLIP = 1.0  # the largest norm of the gradient
BETAS = (0.9, 0.99)  # of Adam
WORSE = 0.02  # of the lowest loss of held-out images: so far above it fewer steps are proposed
CODES, HELD_OUT = "codes", "held-out"  # folders
UNSEEN = "held_out"  # the loss of images that were held out, in the log


@dataclass(eq=False)
class Fitting:
    """The training of one prior."""

    run: Run
    part: Prior
    latents: Latents
    unseen: Latents | None  # of images that were held out, if there are some
    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    about: kept.About
    seed: int
    device: torch.device
    done: int = 0  # steps
    saved: int = -1
    seconds: float = 0.0
    stop: int = 0  # the number of the signal that ends it, or 0

    @property
    def finished(self) -> bool:
        """Whether all steps are done and saved."""
        return self.done == self.saved >= self.part.steps

    @property
    def log(self) -> Run:
        """The folder of the prior, whose log is written as that of a run."""
        return Run(self.run.place(kept.FOLDER))


def train_all(training: Training, registry: Registry, console: Console) -> Iterator[TrainedStep]:
    """Train a run's networks to their end or to a signal, then the recipe's prior, if it has one.

    Gives each step of the networks, as `train` does.
    """
    yield from train(training, console)
    run, recipe, device = training.run, training.recipe, training.engine.device
    if recipe.prior is not None:  # is trained by one process
        images, stop = (lambda: training.store), (lambda: training.stop)
        from_first(lambda: fit(run, recipe, images, registry, device, console, stop))


def finished(run: Run, recipe: Recipe) -> bool:
    """Return whether the recipe has no prior, or the run's is trained as it says.

    It must be of the newest checkpoint. A damaged one of these is not finished.
    """
    part = recipe.prior
    if part is None:
        return True
    try:
        state, newest = kept.read(run.path), next(iter(checkpoint.committed(run)), None)
        if state is None or newest is None:
            return False
        about, sha256 = state.about, checkpoint.sums(newest)[checkpoint.MODEL]["sha256"]
    except StorageError:
        return False
    now = (sha256, kept.settings_of(part), part.steps)
    return (about["model_sha256"], about["settings"], about["steps"]) == now


def fit(
    run: Run, recipe: Recipe, images: Callable[[], Store], registry: Registry,
    device: torch.device, console: Console, stop: Callable[[], int] = lambda: 0,
    built: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Train the recipe's prior on the codes of the run's newest checkpoint, or go on with it.

    `images` opens the images of the run; it is called when they must be encoded. `stop` gives the
    number of a signal that came before the prior's first step, or 0. `built` is called when the
    prior could be built, before anything of an earlier one is changed. The caller holds the run.
    Raises `Stopped` after a signal, with everything saved, and `DivergedError`.
    """
    part = recipe.prior
    assert part is not None  # as the callers know
    model = load_model(run, recipe, device, ("encoder",))
    latents, unseen = _codes(run, model, images, stop, console)
    notices: list[str] = []
    with blaming(registry, {"prior": (part, None)}), noticing(notices):
        fitting = _begun(run, model, latents, unseen, device)
        built()
        _restore(fitting, console)
    for notice in notices:
        console.warn(notice)
    working = {"prior": (part, fitting.network)}
    if device.type != "cpu":
        use_same_kernels()
    with (
        signals(fitting, console),
        blaming(registry, working, lambda: f"{run.path}: prior: step {fitting.done + 1}"),
        console.progress("Prior", part.steps, fitting.done, "steps", _batch(fitting)) as advance,
    ):
        fitting.stop = fitting.stop or stop()  # from here on a signal is noted in `fitting`
        _train(fitting, console, advance)
    _require_unstopped(run, fitting.stop, f"at step {fitting.done:,} of {part.steps:,} and saved")
    console.print(_summary(fitting))


def _require_unstopped(run: Run, number: int, where: str) -> None:
    """Raise `Stopped` unless the number of a signal is 0."""
    if number:
        what = f"{signal.Signals(number).name}: the prior is stopped {where}"
        raise Stopped(f"{what}; go on with: vgx fit {run.short}", number)


# --- the codes -----------------------------------------------------------------------------------


def _codes(
    run: Run, model: Model, images: Callable[[], Store], stop: Callable[[], int], console: Console
) -> tuple[Latents, Latents | None]:
    """Return the codes of the images that are trained on, and of those that were held out, if any.

    They are encoded unless those of this model are there. Raises `Stopped` when `stop` gives the
    number of a signal meanwhile.
    """
    share = model.recipe.eval.holdout
    names = (CODES, HELD_OUT) if share else (CODES,)
    found = {name: _kept(run, model, name, console) for name in names}
    missing = [name for name, latents in found.items() if latents is None]
    if missing:
        store = images()
        held = held_out(store.hashes, share)
        some = evenly(np.flatnonzero(held).tolist(), MEASURED)
        rows = {CODES: np.flatnonzero(~held), HELD_OUT: np.array(some)}
        with console.progress("Encoding", sum(len(rows[name]) for name in missing)) as advance:

            def encoded(more: int) -> None:
                advance(more, ())
                _require_unstopped(run, stop(), "before its first step")

            for name in missing:
                folder = run.place(kept.FOLDER, name)
                write_codes(model, store, rows[name], model.recipe.dataset, folder, encoded)
                found[name] = load_latents(folder)
    codes = found[CODES]
    assert codes is not None
    return codes, found.get(HELD_OUT)


def _kept(run: Run, model: Model, name: str, console: Console) -> Latents | None:
    """Return the codes in a folder of the prior. What is not of this model is removed."""
    folder = run.place(kept.FOLDER, name)
    for left in folder.parent.glob(".unfinished-*"):  # of an encoding that was killed
        shutil.rmtree(left, ignore_errors=True)
    if not folder.exists():
        return None
    try:
        latents = load_latents(folder)
    except StorageError as error:
        console.warn(f"encoded again: {error}")
    else:
        if latents.about["model"]["sha256"] == model.sha256:
            return latents
    with storage(folder):
        shutil.rmtree(folder)
    return None


def learned(part: Prior, codes: Codes, generator: torch.Generator) -> Tensor:
    """[B, ...]  What a prior learns of codes: posterior samples, or indices."""
    return codes["indices"] if part.of == "indices" else posterior_sample(codes, generator)


# --- the beginning -------------------------------------------------------------------------------


def _begun(
    run: Run, model: Model, latents: Latents, unseen: Latents | None, device: torch.device
) -> Fitting:
    """Return the training of a prior before its first step."""
    recipe, part, about = model.recipe, model.recipe.prior, latents.about
    assert part is not None  # checked by `fit`
    shape = about["shape"] if part.of == "latents" else about.get("indices")
    classes = recipe.image.classes if about.get("classes") else 0
    spec = spec_of(part, None if shape is None else tuple(shape), about.get("codes", 0), classes)
    if part.of == "latents":
        channels = about["channels"]
        deviation = tuple(value or 1.0 for value in channels["deviation"])
        spec = dataclasses.replace(spec, mean=tuple(channels["mean"]), deviation=deviation)
    network = kept.build(part, recipe.latent, spec, recipe.train.seed).to(device)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=part.lr, betas=BETAS)
    return Fitting(
        run, part, latents, unseen, network, average, optimizer, _about(model, part, spec),
        recipe.train.seed, device,
    )  # fmt: skip


def _about(model: Model, part: Prior, spec: CodeSpec) -> kept.About:
    return {
        "format": kept.FORMAT,
        "model_step": model.step,
        "model_sha256": model.sha256,
        "settings": kept.settings_of(part),
        "shape": [*spec.shape],
        "codes": spec.codes,
        "classes": spec.classes,
        "steps": 0,
        "seconds": 0.0,
    }


def _restore(fitting: Fitting, console: Console) -> None:
    """Set a training to the state in the run, if there is one of the same prior and model.

    One that has done more steps than the prior has is not taken up.
    """
    try:
        state = kept.read(fitting.run.path)
        same = state and {**state.about, "steps": 0, "seconds": 0.0} == fitting.about
        if state and same and state.about["steps"] <= fitting.part.steps:
            _load(fitting, state)
            console.print(f"The prior goes on from step {fitting.done:,}")
    except StorageError as error:
        console.warn(f"the prior begins again: {error}")
    fitting.log.rewind_log(fitting.done or -1)


def _load(fitting: Fitting, state: kept.Kept) -> None:
    """Load a state. Raises `StorageError` when it does not fit; then nothing of it is loaded."""
    saved = under(state.tensors, "optimizer")
    if not saved:
        raise StorageError(f"{kept.FILE}: has no state of an optimizer, since it was imported")
    groups = unwrapped(fitting.optimizer.state_dict)()
    for number in range(len(groups["param_groups"][0]["params"])):
        groups["state"][number] = under(saved, str(number))
    networks = copy.deepcopy(fitting.network), copy.deepcopy(fitting.average)
    try:
        for network, name in zip(networks, ("network", "average"), strict=True):
            network.load_state_dict(under(state.tensors, name))
        unwrapped(fitting.optimizer.load_state_dict)(groups)
    except (RuntimeError, ValueError, KeyError) as error:
        raise StorageError(f"{kept.FILE}: does not fit the prior: {error}") from error
    fitting.network.load_state_dict(networks[0].state_dict())
    fitting.average.load_state_dict(networks[1].state_dict())
    fitting.done = fitting.saved = state.about["steps"]
    fitting.seconds = state.about["seconds"]


# --- the steps -----------------------------------------------------------------------------------


def _train(fitting: Fitting, console: Console, advance: Callable[[int, list[str]], None]) -> None:
    """Train to the end or to a signal; log, measure and save on the way."""
    for line in fitting.log.read_log():  # of the time before it was stopped
        console.logged(line)
    part = fitting.part
    order = Shuffled(np.arange(len(fitting.latents)))
    start = time.perf_counter() - fitting.seconds
    ending = fitting.done >= part.steps
    while not ending:
        loss, norm = _step(fitting, order)
        fitting.done += 1
        fitting.seconds = time.perf_counter() - start
        last = fitting.done == part.steps
        ending = last or fitting.stop > 0  # read once: after a later signal one more step is done
        values: list[str] = []
        if fitting.done % LOG_EVERY == 0 or fitting.done == 1 or last:
            measured = _measured(fitting) if fitting.done % MEASURE_EVERY == 0 or last else {}
            line = _line(fitting, loss.item(), norm.item(), measured)
            fitting.log.log(line)
            console.logged(line)
            values = [f"{part.type} {loss.item():.4g}"]
        if fitting.done % SAVE_EVERY == 0 or ending:
            _save(fitting)
        advance(1, values)


def _batch(fitting: Fitting) -> int:
    """Return the number of images in a minibatch."""
    return min(fitting.part.batch, len(fitting.latents))


def _step(fitting: Fitting, order: Shuffled) -> tuple[Tensor, Tensor]:
    """Do one step; return the loss, and the norm of its gradient."""
    part, number, batch = fitting.part, fitting.done, _batch(fitting)
    epoch, place = divmod(number, len(order) // batch)
    seed = rng.key(fitting.seed, "prior")
    rows = torch.from_numpy(order.rows(seed, epoch, place * batch, (place + 1) * batch))
    fitting.network.train()
    with rng.ambient(seed, "dropout", number):
        streams = rng.Streams(seed, (number,), fitting.device)
        loss = _loss(fitting, fitting.network, fitting.latents[rows], streams)
    weights = fitting.optimizer.param_groups[0]["params"]
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    norm = nn.utils.clip_grad_norm_(weights, CLIP)
    _require_finite(fitting, loss, norm)
    fitting.optimizer.param_groups[0]["lr"] = part.lr * min((number + 1) / WARMUP, 1.0)
    unwrapped(fitting.optimizer.step)()
    _average(fitting)
    return loss.detach(), norm


def _loss(fitting: Fitting, network: nn.Module, codes: Codes, streams: rng.Streams) -> Tensor:
    """Return the loss of codes, a scalar."""
    codes = {name: values.to(fitting.device) for name, values in codes.items()}
    given = (codes.get("labels"),) if fitting.part.conditional else ()
    learned_codes = learned(fitting.part, codes, streams("posterior"))
    loss: Tensor = network.loss(learned_codes, *given, streams("loss"))  # type: ignore[operator]
    return loss


@torch.no_grad()
def _measured(fitting: Fitting) -> dict[str, float]:
    """Return the loss of images that were held out, with the averaged weights, if it is finite.

    Its random numbers are the same at every step.
    """
    unseen, batch = fitting.unseen, _batch(fitting)
    if unseen is None:
        return {}
    seed, total = rng.key(fitting.seed, "prior of held-out images"), 0.0
    for start in range(0, len(unseen), batch):
        codes = unseen[start : start + batch]
        streams = rng.Streams(seed, (start,), fitting.device)
        with rng.ambient(seed, "dropout", start):
            total += len(codes["index"]) * _loss(fitting, fitting.average, codes, streams).item()
    return {UNSEEN: total / len(unseen)} if math.isfinite(total) else {}


@torch.no_grad()
def _average(fitting: Fitting) -> None:
    """Move the averaged weights towards those of now; buffers are copied."""
    decay = min(fitting.part.ema, (1 + fitting.done) / (10 + fitting.done))
    pairs = zip(fitting.average.parameters(), fitting.network.parameters(), strict=True)
    for averaged, weight in pairs:
        averaged.lerp_(weight, 1 - decay)
    for copied, buffer in zip(fitting.average.buffers(), fitting.network.buffers(), strict=True):
        copied.copy_(buffer)


def _require_finite(fitting: Fitting, loss: Tensor, norm: Tensor) -> None:
    """Raise `DivergedError` when a step would make weights that are not finite."""
    for name, value in (("loss", loss), ("gradient", norm)):
        if not math.isfinite(value.item()):
            what = f"prior: step {fitting.done + 1:,}: the {name} is not finite"
            raise DivergedError(f"{fitting.run.path}: {what}; try less: --set prior.lr=1e-4")


def _line(fitting: Fitting, loss: float, norm: float, measured: dict[str, float]) -> Line:
    """Return the line of the log for the last step."""
    name = fitting.part.type
    line: Line = {
        "step": fitting.done,
        "images": fitting.done * _batch(fitting),
        "seconds": round(fitting.seconds, 3),
        "losses": {name: loss},
        "rates": {name: fitting.optimizer.param_groups[0]["lr"]},
        "grad_norm": {name: norm},
    }
    if measured:
        line["metrics"] = measured
    return line


def _save(fitting: Fitting) -> None:
    """Write the state. Raises `StorageError`; the old file stays then."""
    tensors: dict[str, Tensor] = {}
    for name, network in (("network", fitting.network), ("average", fitting.average)):
        tensors |= {f"{name}.{key}": tensor for key, tensor in network.state_dict().items()}
    for number, state in unwrapped(fitting.optimizer.state_dict)()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": tensor for key, tensor in state.items()}
    seconds = round(fitting.seconds, 3)
    about: kept.About = {**fitting.about, "steps": fitting.done, "seconds": seconds}
    file = fitting.run.place(kept.FOLDER, kept.FILE)
    write_file(file, kept.packed(kept.Kept(about, tensors)))
    fitting.saved = fitting.done


def _summary(fitting: Fitting) -> str:
    lines, name = fitting.log.read_log(), fitting.part.type
    ends = [line["losses"][name] for line in (lines[0], lines[-1])] if lines else []
    losses = f", loss {ends[0]:.3g} -> {ends[1]:.3g}" if ends else ""
    on = f"on {len(fitting.latents):,} images{losses}{_unseen(fitting, lines)}"
    return f"Prior: {name}, {fitting.done:,} steps in {fitting.seconds:,.0f} s, {on}"


def _unseen(fitting: Fitting, lines: list[Line]) -> str:
    """Return the loss of held-out images at the end, and what would have been lower."""
    values = {line["step"]: line["metrics"][UNSEEN] for line in lines if line.get("metrics")}
    if not values:
        return ""
    last, best = values[max(values)], min(values, key=lambda step: values[step])
    lowest, text = values[best], f", of held-out images {last:.3g}"
    if last - lowest <= WORSE * abs(lowest):  # that of a prior with a density may be below 0
        return text
    again = f"vgx fit {fitting.run.short} --set prior.steps={best}"
    return f"{text}, and {lowest:.3g} at step {best:,}; to end there: {again}"
