"""The commands: fork, replay, note, rm. Each imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from vgx.cli.options import (
    PATH,
    at_a_terminal,
    common,
    data_option,
    device_option,
    find_trusted,
    set_option,
    trust_option,
)

MAX_NOTE = 4096  # bytes


@click.command()
@click.argument("run", required=False)
@click.option(
    "--at", metavar="STEP", type=click.IntRange(0, 10**12), help="The step of a checkpoint of RUN."
)
@data_option
@set_option
@click.option("--out", metavar="DIR", type=PATH, help="Folder of runs, for the new one.")
@device_option
@trust_option
@common
def fork(
    run: str | None,
    at: int | None,
    data: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    device: str | None,
    trust: bool,
) -> None:
    """Train a new run that goes on from a checkpoint of RUN, perhaps with other settings.

    RUN (the newest by default) is only read. vgx fork 7 --at 5000 --set losses.1.weight=50
    """
    parent = find_trusted(run, trust=trust)  # before anything heavy is imported
    import vgx
    from vgx.cli.sample import save_grid
    from vgx.console import Console
    from vgx.runs import checkpoint
    from vgx.runs.trust import registry_of
    from vgx.training import fork as forking

    if at is None:
        raise click.UsageError(f"Give --at STEP. {parent.path}: {checkpoint.steps_text(parent)}")
    changed = None
    if overrides or data is not None:
        registry = registry_of(parent)
        changed = vgx.load_recipe(parent.recipe_file, overrides, registry, data, moved=True)
    console = Console()
    new = forking.fork(parent, at, changed, out, device, console)
    console.print(f"Picture {save_grid(new, None, {}, 100, 0, None, device)}")
    console.print(f"Draw more with: vgx sample {new.short}")


@click.command()
@click.argument("run", required=False)
@click.option(
    "--step", metavar="N", type=click.IntRange(1, 10**12), required=True,
    help="The step to do once more.",
)  # fmt: skip
@click.option("--data", metavar="PLACE", help="Where its images lie now, if they were moved.")
@click.option("--out", metavar="DIR", type=PATH, help="A folder; by default replays in the run.")
@device_option
@trust_option
@common
def replay(
    run: str | None, step: int, data: str | None, out: Path | None, device: str | None, trust: bool
) -> None:
    """Do step N of RUN once more: its images, losses, gradients, and what the discriminator saw.

    The step is computed from the checkpoint before it. It writes images.png, replay.json and
    tensors.safetensors. vgx replay 7 --step 1234
    """
    trained = find_trusted(run, trust=trust)  # before anything heavy is imported
    import vgx
    from vgx.console import Console
    from vgx.runs.trust import registry_of
    from vgx.training import replay as replaying
    from vgx_runs.replay import write

    console, moved = Console(), None
    name = f"step-{step:08}"
    folder = trained.place("replays", name) if out is None else out
    if data is not None:
        registry = registry_of(trained)
        moved = vgx.load_recipe(trained.recipe_file, (), registry, data, moved=True)
    found = replaying.replay(trained, step, moved, device, console)
    rows = [
        (record.label, f"{record.value:.6g}", f"{record.weight:.4g}",
         *("-" if n is None else f"{n:.3g}" for n in record.norms(found.networks).values()))
        for record in found.terms.values()
    ]  # fmt: skip
    console.table(("term", "value", "weight", *found.networks), rows)
    console.print("The columns of networks have the norms of each term's gradient, unweighted")
    if found.differs:
        why = "another machine, device, version or number of threads may be the reason"
        console.warn(f"not as in the log: {found.differs}; {why}")
    else:
        text = "the log has no line of it" if found.logged is None else "its losses equal the log"
        console.print(f"Step {step:,} from step {found.start:,}; {text}")
    if out is None:
        for file in ("images.png", "replay.json", "tensors.safetensors"):
            trained.place("replays", name, file)
    write(found, folder)
    console.print(f"Replay {folder}")


@click.command()
@click.argument("run")
@click.argument("text", required=False)
@common
def note(run: str, text: str | None) -> None:
    """Note TEXT about RUN, or print what is noted; an empty TEXT ("") removes the note.

    vgx list, vgx report and vgx compare show it.
    """
    from vgx.console import Console
    from vgx.files import storage, write_file
    from vgx.runs import reading
    from vgx.runs.directory import find

    found = find(run)
    if text is None:
        Console().print(reading.note(found.path) or f"{found.path}: no note")
        return
    if len(text.encode(errors="replace")) > MAX_NOTE:
        raise click.UsageError(f"A note may have up to {MAX_NOTE:,} bytes.")
    place = found.place("note.txt")
    if text.strip():
        write_file(place, f"{text.strip()}\n")
    else:
        with storage(place):
            place.unlink(missing_ok=True)


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def rm(runs: tuple[str, ...], yes: bool) -> None:
    """Remove each RUN with its checkpoints; asks first.

    A run that is being trained, a link and what is no run are refused.
    """
    from vgx.console import Console
    from vgx.data.cache import format_bytes
    from vgx.output import short
    from vgx.runs.directory import find
    from vgx.runs.summary import summarize
    from vgx_runs.remove import remove, require_run

    found = {run.path.resolve(): run for run in map(find, runs)}
    for run in found.values():
        require_run(run)
    console, sizes = Console(), dict[Path, int]()
    for path, run in found.items():
        entry = summarize(run)
        sizes[path] = entry.bytes
        steps = f"{entry.step:,} steps, {format_bytes(entry.bytes)}"
        console.print(f"{run.path}: {short(entry.state)}, {steps}")
        if entry.note:
            console.print(f"  note: {short(entry.note)}")
        if others := run.others():
            console.print(f"  with what vgx has not written: {short(', '.join(others))}")
    if not yes:
        if not at_a_terminal():
            raise click.UsageError("Nobody can be asked here; to remove them all: --yes")
        if not click.confirm("Remove this for good?", err=True):
            console.print("Nothing was removed")
            return
    remove(found.values())
    console.print(f"{len(found):,} removed, {format_bytes(sum(sizes.values()))} freed")


COMMANDS = (fork, replay, note, rm)
"""The commands, in the order in which help lists them."""
