"""A run from beginning to end: check the recipe, build, train; and how a stopped run continues."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from vgx.check import trials
from vgx.check.audit import parts_of
from vgx.check.blame import blaming, working
from vgx.check.examine import Findings, examine
from vgx.console import Console
from vgx.data.batches import as_batch
from vgx.data.classes import classes_of, summary
from vgx.data.store import beside, exists, files_left_out, require_room
from vgx.distributed.group import is_first
from vgx.distributed.processes import begin, from_first, wait_for_first
from vgx.distributed.state import group
from vgx.engine import memory
from vgx.engine.build import pick_device, untrained, unused_gpu
from vgx.engine.engine import Engine
from vgx.errors import LostError, PluginError, RecipeError, Stopped, StorageError, noticing
from vgx.files import require_writable, write_file
from vgx.parts.base import noting_reads
from vgx.parts.registry import Registry, discover
from vgx.recipe.lengths import with_length
from vgx.recipe.load import dump_recipe, load_recipe
from vgx.recipe.model import Recipe
from vgx.runs import checkpoint, frames
from vgx.runs.checkpoint import State, last_good
from vgx.runs.directory import Run, create, find, runs_dir
from vgx.runs.moved import Command, keep_place, looking_back, other_images
from vgx.runs.trust import registry_of, remember
from vgx.runs.weights import Weights
from vgx.second import fitting
from vgx.training import environment, resuming
from vgx.training.ending import closing
from vgx.training.preparing import (
    CHECKED,
    batches_of,
    build,
    configure,
    length_of,
    open_images,
    read_images,
    require_parts,
    trained_images,
    try_recipe,
    weights_for,
)
from vgx.training.processes import (
    begun_before,
    held,
    launch_of,
    require_same_images,
    require_shareable,
    state_from_first,
    where,
)
from vgx.training.profiler import profiled
from vgx.training.signals import signals
from vgx.training.state import TrainedStep, Training
from vgx.training.trackers import require_libraries

T = TypeVar("T")
P = ParamSpec("P")


def finished(steps: Generator[TrainedStep, None, T]) -> T:
    """Train to the end; return what the generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def steps(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    device: str | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    registry: Registry | None = None,
    console: Console | None = None,
    folder: Path | None = None,
    *,
    profile: bool = False,
) -> Generator[TrainedStep, None, Run]:
    """Check the recipe and train it in a new run directory; give each step that is done.

    `recipe` may also be what `load_recipe` takes: a file, or a name such as "quickstart".
    `plugins` are files with parts. They, and the files of `registry`, are copied into the run,
    which needs no others when it is opened again, and this user trusts them from now on. `folder`
    is where the recipe is, whose git commit is noted. With `profile` a few steps are profiled.
    Raises a `VgxError`: `Stopped` after a signal, with everything saved.
    """
    begin()
    console = console or Console(quiet=not is_first())
    chosen, registry = pick_device(device), registry or discover(plugins)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, (), registry)
    launch = launch_of(recipe)
    if (begun := begun_before(launch, out)) is not None:
        return (yield from further_steps(begun, None, device, console)) or begun
    require_shareable(recipe)
    refuse_lost_parts(recipe, registry)
    if is_first():
        require_writable(runs_dir(out))
    weights = weights_for(recipe, out, console)
    with blaming(registry):
        require_parts(recipe)
        with noting_reads() as reads:
            recipe, source, notices = open_images(recipe, [recipe.sampler], console)
            # Decoding takes long, so it is the last thing that may fail. Several processes have it
            # behind them before they check together: another machine may have to decode first.
            early = group().size > 1 or exists(source, recipe.image)
            store = read_images(recipe, source, console) if early else None
            attempt = partial(try_recipe, recipe, registry, source)
            engine, findings = attempt(store, reads, chosen, notices, console, weights)
        store = store or read_images(recipe, source, console)
        notices += store.look.notices(store.image, len(store.images))
        batches, first = batches_of(recipe, store, chosen), as_batch(store, CHECKED, chosen)
        if (length := length_of(recipe, batches.per_epoch)) != engine.length:  # fewer are usable
            engine.set_length(*length)
            findings = examine(engine, registry, first, reads)
        if with_length(recipe, length[0]) != engine.recipe:  # its schedules end earlier
            engine, findings = attempt(store, reads, chosen, notices, console, weights)
    findings.show(console)

    advice = findings.need.advice(recipe.train.batch, recipe.train.accumulate)
    with blaming(registry, working(engine), advice=advice):
        recipe, reason = trials.choose(engine, first)
    if reason:
        console.print(reason)
    recipe = recipe.model_copy(update={"image": store.image})  # with numbers for `range: auto`
    configure(engine, batches, recipe)

    require_same_images(store)
    new = Run(Path(from_first(lambda: str(create(recipe.name, out).path))))
    training = Training(recipe, new, engine, batches, store, notices)
    with held(new), signals(training, console):
        if is_first():
            _write_beginning(training, registry, findings, folder, weights, launch)
        console.print(f"Run {new.path} on {where(engine.device)}")
        if device is None and (text := unused_gpu(engine.device)):
            console.print(text)
        yield from _train(training, registry, console, advice, profile=profile)
    return new


def further_steps(
    run: Run | str | Path | int | None = None,
    recipe: Recipe | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> Generator[TrainedStep, None, Run | None]:
    """Continue a run from its newest checkpoint, as if it had never stopped; give each step.

    A recipe may be given to train longer, at other learning rates, to log, draw and save at other
    times, or because the images lie elsewhere now; any other difference is a `RecipeError`, and so
    are other images, and fewer steps than are done. When a run is done, that is printed, nothing
    but the place of the images changes, and the result is None.
    """
    begin()
    console = console or Console(quiet=not is_first())
    stopped = find(run)
    resuming.require_begun(stopped)
    registry = registry_of(stopped)
    stored = trials.settled(load_recipe(stopped.recipe_file, (), registry))  # old runs have `auto`
    recipe = trials.as_before(recipe or stored, stored)
    require_shareable(recipe)
    refuse_lost_parts(recipe, registry)
    changed = resuming.changes(stopped, stored, recipe)
    require_libraries(recipe.trackers)
    with held(stopped):
        state, notices = last_state(stopped, stored)
        for notice in notices:
            console.warn(notice)
        with blaming(registry):
            training = rebuild(stopped, recipe, state, device, console)
        places = {"dataset": recipe.dataset, "sampler": recipe.sampler}
        moved = any(getattr(stored, field) != part for field, part in places.items())
        if message := resuming.nothing_left(training):
            if moved and is_first():
                keep_place(stopped, stored.model_copy(update=places), training.store)
                console.print("The new place of its images is kept")
            console.print(message)
            return None
        now = environment.machine(registry, training.engine.device)
        changes = environment.changes(stopped, now)
        for notice in changes:
            console.warn(notice)
        continues = training.done < training.engine.steps
        if is_first():
            for notice in resuming.rewound(stopped, training.done or -1):
                console.warn(notice)
            if continues and not frames.due(training.done, stored.train.draw_every):
                frames.forget(stopped, training.done - 1)  # drawn only since it was stopped there
            if moved:
                keep_place(stopped, recipe, training.store)
            elif changed:
                write_file(stopped.place("recipe.yaml"), dump_recipe(recipe))
            resuming.note_rates(training, stored, state, console)
        wait_for_first()
        what = "goes on from" if continues else "ends at"
        console.print(f"Run {stopped.path} {what} step {training.done:,}")
        with signals(training, console):
            yield from _train(training, registry, console)
    return stopped


def _to_the_end(steps: Callable[P, Generator[TrainedStep, None, T]]) -> Callable[P, T]:
    """Return a function that trains as `steps` does, to the end, and returns what it returns."""

    def trained(*args: P.args, **options: P.kwargs) -> T:
        return finished(steps(*args, **options))

    return trained


run = _to_the_end(steps)
resume = _to_the_end(further_steps)


def _write_beginning(
    training: Training,
    registry: Registry,
    findings: Findings,
    folder: Path | None,
    weights: Weights | None,
    launch: str,
) -> None:
    """Write what a run begins with; its recipe comes last, as it can be resumed from then on."""
    run, recipe, device = training.run, training.recipe, training.engine.device
    remember(registry.files)
    about = environment.describe(
        recipe, registry, device, training.store, training.notices, folder, weights
    )
    about |= {"launch": launch} if launch else {}
    environment.write(run, registry, about, findings)
    write_file(run.place("recipe.yaml"), dump_recipe(recipe))


def check(
    recipe: Recipe, registry: Registry, device: str | None, console: Console
) -> tuple[Engine, Findings]:
    """Check everything that can be known before the first step, on a few images; write nothing.

    Returns the engine that was checked, which cannot be trained: only its images were opened.
    """
    environment.one_process("vgx check")
    chosen = pick_device(device)
    weights = weights_for(recipe, None, console)
    with blaming(registry):
        require_parts(recipe)
        with noting_reads() as reads:
            recipe, source, notices = open_images(recipe, [recipe.sampler], console)
            left_out = beside(files_left_out(source))
            console.print(f"Data: {len(source):,} images before filtering{left_out}")
            if classes := classes_of(source, recipe.image):
                console.print(f"Labels: {summary(classes)}")
            engine, findings = try_recipe(
                recipe, registry, source, None, reads, chosen, notices, console, weights,
                all_follow=False,
            )  # fmt: skip
    return engine, findings


def refuse_lost_parts(recipe: Recipe, registry: Registry) -> None:
    """Raise `PluginError` for a part that no later command could find, so that the run is lost."""
    for place, part in parts_of(recipe):
        if not registry.keeps(part):
            name = type(part).__name__
            raise PluginError(
                f"{place}: {name}, the {part.kind} '{part.type}', is in no plugin file and in no "
                "installed plugin, so nothing could open this run again. Write the class to a "
                "file, such as mine.py, with register_components, import it from there (from mine "
                f'import {name}), and pass the file: vgx.run(recipe, plugins=["mine.py"])'
            )


def _train(
    training: Training,
    registry: Registry,
    console: Console,
    advice: str = memory.ADVICE,
    *,
    profile: bool = False,
) -> Iterator[TrainedStep]:
    """Train to the end; an error names its part, and the end is noted whatever happens.

    A caller that leaves its loop gets no error.
    """
    attribution = blaming(registry, working(training.engine), lambda: training.when, advice)
    profiler = profiled(training, console) if profile and is_first() else nullcontext()
    try:
        with closing(training, registry, console), attribution, profiler:
            yield from fitting.train_all(training, registry, console)
    except Stopped:
        if not training.left:
            raise
    except LostError as error:
        advice = f"{last_good(training.run)}; go on with: vgx resume {training.run.short}"
        raise LostError(f"{error}; {advice}", error.exit_code) from error


def last_state(run: Run, stored: Recipe) -> tuple[State | None, list[str]]:
    """Return the state that a run continues from, and notices about it.

    None is the very beginning, for a run that ended before its first checkpoint. `stored` is the
    run's own recipe. Raises `StorageError` when its checkpoints are lost.
    """
    notices: list[str] = []
    with noticing(notices):
        if from_first(lambda: resuming.never_saved(run, stored)):
            return None, [f"{run.path}: ended before its first checkpoint; begins again"]
        state = state_from_first(lambda: checkpoint.load(run)[1])
    if state.numbers.get("imported"):
        raise RecipeError(f"{run.path}: {resuming.NO_OPTIMIZER}, since it was imported")
    return state, notices


def rebuild(
    run: Run,
    recipe: Recipe,
    state: State | None,
    device: str | None,
    console: Console,
    verify: Console | None = None,
    again: Command | None = None,
) -> Training:
    """Build the training of a run again, as it was at a state; arguments as in `with_its_images`.

    Raises `RecipeError` when the images are not those of the run.
    """
    # A state has all weights, so none are downloaded, and no other run is read.
    to_build = untrained(recipe) if state else recipe
    weights = weights_for(to_build, run.path.parent, console)
    if weights and weights.sha256 != run.environment().get("parent", {}).get("sha256"):
        raise StorageError(f"{run.path}: {weights} has changed since; start a new run")
    training = with_its_images(run, recipe, to_build, device, console, weights, verify, again)
    configure(training.engine, training.batches, training.recipe)
    if state:
        set_to(training, state)
    return training


def with_its_images(
    run: Run,
    recipe: Recipe,
    to_build: Recipe,
    device: str | None,
    console: Console,
    weights: Weights | None = None,
    verify: Console | None = None,
    again: Command | None = None,
) -> Training:
    """Return a training on the images of a run, with networks that are built by `to_build`.

    `weights` are as in `build`, `verify` as in `read_images`, and `again` as in `looking_back`.
    Raises `RecipeError` when the images are not those of the run.
    """
    chosen = pick_device(device)
    # A background that the run did not settle is black: no image was transparent, or it is old.
    background = recipe.image.background.replace("auto", "black")
    image = {"image": dataclasses.replace(recipe.image, background=background)}
    recipe, to_build = recipe.model_copy(update=image), to_build.model_copy(update=image)
    with looking_back(run, recipe, again):
        _, source, notices = open_images(recipe, [recipe.sampler], console)
        require_room(source, recipe.image)
    count = trained_images(recipe, source, None)
    engine = build(to_build, count, chosen, notices, console, weights)
    store = read_images(recipe, source, console, verify)
    before = run.environment()["data"]
    if store.content != before["content"]:
        message = other_images(run, recipe.dataset, before, store, again)
        if recipe.image.classes and "classes" not in before:  # a run of an earlier version
            message += "\nClasses are now numbered with 2 before 10, and a limit takes all classes."
        raise RecipeError(message)
    batches = batches_of(recipe, store, chosen)
    engine.set_length(*length_of(recipe, batches.per_epoch))
    return Training(recipe, run, engine, batches, store, notices)


def set_to(training: Training, state: State) -> None:
    """Set a training to the state of a checkpoint."""
    training.restore(state)
    training.saved = training.done
    training.seconds = state.numbers["seconds"]
    training.set_rollbacks(state.numbers.get("rollbacks", 0))
