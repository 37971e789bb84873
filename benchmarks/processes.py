"""What several processes cost: images/s of 2 and 4 processes beside one, and where the time goes.

    python benchmarks/processes.py                           # prints
    python benchmarks/processes.py --out docs/performance.md # its section of the page
    python benchmarks/processes.py vae dcgan --json times.json
    python benchmarks/processes.py --quick                   # only checks that it works
    python benchmarks/processes.py --paper                   # the cost for up to 1,000 processes

Each candidate is a whole training as `vgx run` does it, in processes of its own that have the same
settings from their environment as torchrun's. All of them are started first; then they take turns,
and who has no turn waits for a line on its input, so that changes of the machine's speed affect
all. One process has two threads, each of several has one. Two processes that share nothing are two
trainings with half of the minibatch each: they are the limit for two that share a minibatch.
Values are medians over the rounds, with minimum and maximum.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from performance import replaced
from tables import ROOT, spread, table

THREADS = 2  # of one process
FEW = {"dataset": {"type": "drawn-faces", "count": 640}}  # decoded before the first turn
# By recipe, and what is said of it: what is changed.
RECIPES: dict[str, dict[str, Any]] = {
    "anime_vaegan": FEW,
    "anime_vaegan, 32 pixels": {**FEW, "image.size": 32, "train.batch": 32},
    "vae": {},
    "dcgan": {},
    "quickstart": {},
}
QUICK: dict[str, dict[str, Any]] = {"tiny": {}}
LARGE = ("anime_vaegan",)  # these need 3 GB a process
# By name: the number of processes, and train.batch_norm, or "" when each has a training of its own.
# `--quick` and large recipes leave the last one out.
CANDIDATES = {
    "1 process of 2 threads": (1, "global"),
    "2 processes": (2, "global"),
    "2 processes, `batch_norm: local`": (2, "local"),
    "2 processes that share nothing": (2, ""),
    "4 processes": (4, "global"),
}
# Nothing but steps is measured, and all candidates compute the same.
SETTINGS = {
    "train.precision": "fp32", "train.compile": False, "train.draw_every": 10**9,
    "train.save_every": 10**9, "train.steps": 10**6, "train.epochs": None,
}  # fmt: skip
PHASES = ("all-reduce", "waiting for other processes")


# --- a process of a training -------------------------------------------------------------------


def work(recipe: str, changes: dict[str, Any], folder: Path) -> None:
    """Train, and do what each line of the input says; answer each with a line of JSON."""
    import vgx
    from vgx.console import Console
    from vgx.runs import frames
    from vgx.training import session

    frames.due = lambda *_: False  # the first process alone draws grids, at some early steps
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vgx prints goes to the log
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    loaded = vgx.load_recipe(ROOT / "recipes" / f"{recipe}.yaml", changes)
    steps = session.steps(loaded, folder, "cpu", console=Console(quiet=True))
    for line in sys.stdin:
        what, _, number = line.strip().partition(" ")
        answer = {"time": timed, "sums": counted, "phases": profiled}[what](steps, int(number))
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()
    os._exit(0)  # nothing is kept of this run


def timed(steps: Any, number: int) -> dict[str, float]:
    """Do steps; return the seconds of the processor that they took."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in itertools.islice(steps, number):
        pass
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime}


def counted(steps: Any, number: int) -> dict[str, float]:
    """Return how many sums over processes a step has, and the bytes that each process gives."""
    with counting() as given:
        timed(steps, number)
    return {"sums": len(given) / number, "bytes": sum(given) / number}


@contextmanager
def counting() -> Iterator[list[int]]:
    """Note the bytes of each sum over processes in the block."""
    from vgx.distributed.state import group, join

    before, given = group(), list[int]()

    class Counting:
        """The same group."""

        def __getattr__(self, name: str) -> Any:
            return getattr(before, name)

        def add_up(self, tensor: torch.Tensor) -> None:
            given.append(tensor.nbytes)
            before.add_up(tensor)

    join(cast("Any", Counting()))
    try:
        yield given
    finally:
        join(before)


def profiled(steps: Any, number: int) -> dict[str, float]:
    """Return the share of each phase of a step, as `vgx run --profile` names them."""
    from vgx.training.profiler import phases

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        start = time.perf_counter()
        timed(steps, number)
        seconds = time.perf_counter() - start
    _, rows = phases(recorded.events())
    return {name: float(ms) / 1000 / seconds for name, ms, _ in rows}


# --- a training --------------------------------------------------------------------------------


@dataclass
class Candidate:
    """A training that takes turns with others."""

    name: str
    processes: list[subprocess.Popen[str]]
    log: Path
    speeds: list[float] = field(default_factory=list)  # images/s
    cpu: list[float] = field(default_factory=list)  # seconds for an image, of all processes

    def ask(self, line: str) -> list[dict[str, float]]:
        """Let all processes do something; return their answers."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        answers = [process.stdout.readline() for process in self.processes if process.stdout]
        if not all(answers):
            raise SystemExit(f"{self.name} failed:\n{self.log.read_text()[-3000:]}")
        return [json.loads(answer) for answer in answers]


def start(name: str, recipe: str, settings: dict[str, Any], batch: int, folder: Path) -> Candidate:
    """Start the processes of a candidate, which have `batch` images in a step."""
    count, batch_norm = CANDIDATES[name]
    shares = {"train.batch_norm": batch_norm} if batch_norm else {"train.batch": batch // count}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = folder / f"{count} {batch_norm}"
    own.mkdir()
    changed = json.dumps({**settings, **shares})
    command = [sys.executable, __file__, recipe, "--worker", changed, str(own)]
    processes = []
    with (own / "log").open("w") as log:
        for rank in range(count):
            threads = THREADS if count == 1 else 1
            several = {
                "WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }  # fmt: skip
            together = count > 1 and batch_norm
            given = {"OMP_NUM_THREADS": threads, **(several if together else {})}
            environment = {**os.environ, **{key: str(value) for key, value in given.items()}}
            processes.append(subprocess.Popen(  # noqa: S603
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, start_new_session=True,
            ))  # fmt: skip
    return Candidate(name, processes, own / "log")


def measure(label: str, changes: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Let the candidates take turns; return what was measured, by candidate."""
    import vgx

    recipe, settings = label.partition(",")[0], {**changes, **SETTINGS}
    loaded = vgx.load_recipe(ROOT / "recipes" / f"{recipe}.yaml", settings)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VGX_CACHE"] = f"{folder}/cache"
        candidates: list[Candidate] = []
        try:
            for name in [*CANDIDATES][: -1 if options.quick or label in LARGE else None]:
                candidates.append(start(name, recipe, settings, loaded.train.batch, Path(folder)))
                candidates[-1].ask(f"time {options.warm}")
            images = options.steps * loaded.images_per_step
            for _ in range(options.rounds):
                for each in candidates:
                    begun = time.perf_counter()
                    answers = each.ask(f"time {options.steps}")
                    each.speeds.append(images / (time.perf_counter() - begun))
                    each.cpu.append(sum(answer["cpu"] for answer in answers) / images)
            results = {each.name: result(each, options) for each in candidates}
        finally:
            for process in itertools.chain(*(each.processes for each in candidates)):
                process.kill()
                process.wait()
    return {"batch": loaded.train.batch, "candidates": results}


def result(candidate: Candidate, options: argparse.Namespace) -> dict[str, Any]:
    sums, phases = candidate.ask("sums 1")[0], candidate.ask(f"phases {options.steps}")
    shares = {phase: sum(each.get(phase, 0.0) for each in phases) / len(phases) for phase in PHASES}
    return {"images/s": candidate.speeds, "cpu": candidate.cpu, **sums, "shares": shares}


# --- on paper ----------------------------------------------------------------------------------


class Same:
    """A group of processes that all give the same; notes the bytes that are added up."""

    def __init__(self, size: int) -> None:
        self.rank, self.size, self.given = 0, size, list[int]()

    def add_up(self, tensor: torch.Tensor) -> None:
        self.given.append(tensor.nbytes)
        tensor *= self.size


@contextmanager
def among(size: int) -> Iterator[Same]:
    """Compute in the block as one of so many processes."""
    from vgx.distributed.state import group, join

    before = group()
    join(same := Same(size))
    try:
        yield same
    finally:
        join(before)


def sums_of(recipe: str, batch_norm: str) -> list[int]:
    """Return the bytes of each sum over processes in a step of a recipe."""
    import vgx
    from vgx.data.batches import Batch
    from vgx.engine.engine import Engine

    changes = {"augment": [], "train.batch_norm": batch_norm, "train.batch": 4}
    loaded = vgx.load_recipe(ROOT / "recipes" / f"{recipe}.yaml", changes)
    with among(2) as same:
        engine = Engine(loaded, 10)
        engine.step(0, [Batch(torch.rand(2, *loaded.image.shape))])
    return same.given


def seconds_of(sums: Sequence[int], size: int, bandwidth: float, latency: float) -> float:
    """Return the time of sums over processes, in a ring or, if that is faster, in a tree.

    Each process has a bandwidth in bytes/s, and each message a latency in seconds.
    """
    around, across = 2 * (size - 1), 2 * math.ceil(math.log2(size))  # messages one after the other
    ring, tree = ((around, around / size), (across, across))
    return sum(
        min(messages * latency + share * each / bandwidth for messages, share in (ring, tree))
        for each in sums
    )


def on_paper(recipe: str = "anime_vaegan") -> str:
    """Return tables of what sums and draws cost, for more processes than there are here."""
    rows = []
    for batch_norm in ("global", "local"):
        sums = sums_of(recipe, batch_norm)
        for name, (bandwidth, latency) in NETWORKS.items():
            times = [1000 * seconds_of(sums, size, bandwidth, latency) for size in SIZES]
            about = [f"`{batch_norm}`", f"{len(sums)}", f"{sum(sums) / 1e6:.1f}", name]
            rows.append([*about, *(f"{ms:,.1f}" for ms in times)])
    head = ["`batch_norm`", "sums", "MB", "network", *(f"{size:,} processes" for size in SIZES)]
    intro = f"A step of `{recipe}`: milliseconds in sums over processes, on paper."
    return f"{intro}\n\n{table(head, rows)}\n\n{drawn()}"


def drawn(images: int = 64) -> str:
    """Return a table of the time that draws for all images take each process."""
    from vgx.distributed.minibatch import shared

    rows = []
    for size in (1, 8, 64):
        with among(size), shared(images):
            times = [fastest(lambda shape=shape: torch.randn(images, *shape)) for shape in DRAWN]
        rows.append([f"{size:,}", f"{size * images:,}", *(f"{1000 * t:.2f}" for t in times)])
    head = ["processes", "images of a minibatch", *(f"ms for {[*shape]}" for shape in DRAWN)]
    about = f"{torch.get_num_threads()} thread of {platform.machine()}"
    intro = f"Normal random numbers for all images, drawn by each process on {about}, and cut:"
    return f"{intro}\n\n{table(head, rows)}"


def fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


# By name: bytes/s of a process, and seconds of a message.
NETWORKS = {
    "10 Gbit Ethernet": (1.25e9, 50e-6),
    "200 Gbit InfiniBand": (25e9, 5e-6),
    "NVLink": (300e9, 3e-6),
}
SIZES = (2, 8, 64, 1000)
DRAWN = ((256,), (3, 96, 96))  # of an image: its latents, and noise on its values


# --- the section -------------------------------------------------------------------------------


ABOUT = """## Several processes

`python benchmarks/processes.py` trains each recipe with one process of two threads, with two and
four processes of one thread over gloo, and with `train.batch_norm: local`, in turns on the same
machine. The bar for two processes is 0.9 of the images/s of one; on two cores none of these
recipes reaches it with BatchNorm over all processes. Two processes that share nothing, each a
training of its own with half of the minibatch, show what is possible. Four processes share the
cores, so that they show what more processes cost, and no gain. The CPU time is that of all
processes."""
SHOWN = """Where the time goes: the sums over processes in a step and what one process gives to
them, and the shares of a step in these sums and in waiting for the others before it begins. A
process is in a sum until the slowest has come, so that its share counts unequal speed, too."""


def section(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the section and the values."""
    every = QUICK if options.quick else RECIPES
    chosen = options.recipes or list(every)
    measured = {name: measure(name, every.get(name, {}), options) for name in chosen}
    speeds, shares = [], []
    for what, values in measured.items():
        of_one: dict[str, Any] = next(iter(values["candidates"].values()))
        for name, each in values["candidates"].items():
            recipe, comma, said = what.partition(",")
            label = f"`{recipe}`{comma}{said}, {values['batch']}"
            ratios, cpu = (
                [a / b for a, b in zip(each[key], of_one[key], strict=True)]
                for key in ("images/s", "cpu")
            )
            speeds.append([label, name, spread(each["images/s"]), spread(ratios), spread(cpu)])
            if each["sums"]:
                parts = [f"{100 * each['shares'][phase]:.1f} %" for phase in PHASES]
                size = f"{each['bytes'] / 1e6:.3f}"
                shares.append([label, name, f"{each['sums']:.0f}", size, *parts])
    head = ["recipe, batch", "what", "images/s", "relative to one process"]
    first = table([*head, "CPU time for an image, relative"], speeds)
    second = table([*head[:2], "sums", "MB", *PHASES], shares)
    rounds = f"{options.rounds} rounds of {options.steps} steps"
    where = f"{platform.machine()}, {os.cpu_count()} cores"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    about = f"*{rounds} on {where}; {versions}.*"
    return f"{ABOUT}\n\n{first}\n\n{SHOWN}\n\n{second}\n\n{about}", measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", help=f"by default {', '.join(RECIPES)}")
    parser.add_argument("--quick", action="store_true", help="only checks that it works")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps in one turn of a candidate")
    parser.add_argument("--paper", action="store_true", help="what more processes would cost")
    parser.add_argument("--json", type=Path, help="a file for the values of all rounds")
    parser.add_argument("--out", type=Path, help="a page whose section is replaced")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.recipes[0], json.loads(options.worker[0]), Path(options.worker[1]))
        return
    if options.paper:
        print(on_paper())
        return
    options.warm = 1 if options.quick else 3
    if options.quick:
        options.rounds = options.steps = 1
    text, measured = section(options)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
    if options.out:
        options.out.write_text(replaced(options.out, "Several processes", text))


if __name__ == "__main__":
    main()
