"""Speed on the devices of this machine: a plain loop and vgx in turns, and where the time goes.

    python benchmarks/gpu.py                       # prints; a GPU is used if there is one
    python benchmarks/gpu.py --out docs/performance.md       # its section of the page
    python benchmarks/gpu.py --devices 1,2,4,8     # and on several GPUs, by torchrun
    python benchmarks/gpu.py --quick               # only checks that it works

The candidates take turns on the same images, so that changes of the device's speed affect all of
them; values are medians over the rounds, with minimum and maximum. The plain loop reads its losses
in each step, as notebooks do; vgx reads them in every tenth, as it logs by default.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from performance import replaced
from processes import counting
from reference_loop import Encoder, Notebook, make_decoder
from speed_training import WIDTHS
from tables import ROOT, spread, table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import vgx
from vgx.data.batches import Batch
from vgx.engine.build import use_same_kernels
from vgx.engine.engine import Engine

LOGGED = 10  # vgx reads the losses of every tenth step
PLAIN, VGX, HALF = "plain loop", "vgx, `precision: fp32`", "vgx, `precision: bf16`"
COMPILED = "vgx, `precision: bf16`, `compile: true`"
SMALL = [32, 64, 128]  # widths of vae.yaml
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
Step = Callable[[Tensor], object]


@dataclass
class Candidate:
    """What takes turns with others."""

    name: str
    step: Step
    engine: Engine | None = None
    gigaflop: float = 0.0  # of an image
    memory: float = 0.0  # bytes
    speeds: list[float] = field(default_factory=list)  # images/s


# --- the candidates ----------------------------------------------------------------------------


class PlainVae(nn.Module):
    """The networks of vae.yaml, and a step as a notebook writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(SMALL, 4, 32), make_decoder(SMALL[::-1], 4, 32)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)

    def step(self, real: Tensor) -> dict[str, float]:
        mu, logvar = self.encoder(real)
        logits = self.decoder(mu + torch.exp(logvar / 2) * torch.randn_like(mu))
        bce = F.binary_cross_entropy_with_logits(logits, real)
        kl = -0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp(), 1).mean() / real[0].numel()
        self.optimizer.zero_grad()
        (bce + kl).backward()
        self.optimizer.step()
        return {"bce": bce.item(), "kl": kl.item()}


def plain(recipe: str, options: argparse.Namespace) -> Candidate:
    if recipe == "vae":
        small = PlainVae().to(options.device)
        return Candidate(PLAIN, small.step)
    loop = Notebook(options.size, 256, WIDTHS, options.backbone)
    for network in (loop.encoder, loop.decoder, loop.discriminator):
        network.to(options.device)

    def step(real: Tensor) -> object:
        loop.latents.clear()
        return loop.step(real, torch.randn(len(real), 256, device=real.device))

    return Candidate(PLAIN, step)


def ours(name: str, recipe: str, options: argparse.Namespace, **train: object) -> Candidate:
    changes: dict[str, object] = {"augment": []}
    if recipe == "anime_vaegan":
        changes |= {"image.size": options.size, "discriminator.backbone": options.backbone}
    changes |= {f"train.{key}": value for key, value in train.items()}
    loaded = vgx.load_recipe(ROOT / "recipes" / f"{recipe}.yaml", changes)
    engine = Engine(loaded, 10_000, device=options.device)
    engine.configure(loaded.train)
    return Candidate(name, stepping(engine), engine)


def stepping(engine: Engine) -> Step:
    done = 0

    def step(real: Tensor) -> object:
        nonlocal done
        terms = engine.step(done, [Batch(real)])
        done += 1
        if done % LOGGED:
            return None
        engine.guard.confirm()
        return {name: value.item() for name, value in terms.items()}

    return step


@contextmanager
def settings_of(candidate: Candidate) -> Iterator[None]:
    """Set PyTorch's switches as the candidate has them: vgx's, or PyTorch's own."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    torch.set_float32_matmul_precision("highest")
    cudnn.deterministic = False
    cuda.enable_flash_sdp(enabled=True)
    cuda.enable_mem_efficient_sdp(enabled=True)
    if candidate.engine is not None:
        use_same_kernels()
    yield


def images(batch: int, size: int, device: torch.device) -> Tensor:
    """[B, 3, S, S]  Random images."""
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(batch, 3, size, size, generator=generator)
    return real.to(device, memory_format=torch.channels_last)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- speed -------------------------------------------------------------------------------------


def speeds(recipe: str, batch: int, options: argparse.Namespace) -> list[Candidate]:
    """Measure the plain loop and vgx in turns."""
    size = options.size if recipe == "anime_vaegan" else 32
    real = images(batch, size, options.device)
    makers = [
        lambda: plain(recipe, options),
        lambda: ours(VGX, recipe, options, precision="fp32", compile=False),
        lambda: ours(HALF, recipe, options, precision="bf16", compile=False),
    ]
    candidates = [measured_alone(make, real, options) for make in makers]
    take_turns(candidates, real, options)
    return candidates


def measured_alone(
    make: Callable[[], Candidate], real: Tensor, options: argparse.Namespace
) -> Candidate:
    """Build a candidate, count its operations and its memory, and warm it up."""
    cuda = options.device.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    candidate = make()
    with settings_of(candidate):
        for _ in range(options.warm):
            candidate.step(real)
        candidate.memory = torch.cuda.max_memory_allocated() - before if cuda else 0
        with FlopCounterMode(display=False) as counter:
            candidate.step(real)
    candidate.gigaflop = counter.get_total_flops() / len(real) / 1e9
    return candidate


def take_turns(candidates: list[Candidate], real: Tensor, options: argparse.Namespace) -> None:
    for _ in range(options.rounds):
        for candidate in candidates:
            with settings_of(candidate):
                candidate.step(real)
                wait(options.device)
                start = time.perf_counter()
                for _ in range(options.steps):
                    candidate.step(real)
                wait(options.device)
            seconds = time.perf_counter() - start
            candidate.speeds.append(options.steps * len(real) / seconds)


def rows_of(
    recipe: str, batch: int, candidates: list[Candidate], limits: dict[str, float]
) -> list[list[str]]:
    rows = []
    for each in candidates:
        ratios = [a / b for a, b in zip(each.speeds, candidates[0].speeds, strict=True)]
        middle = sorted(each.speeds)[len(each.speeds) // 2]
        rate = middle * each.gigaflop / 1000  # TFLOP/s
        limit = limits["bf16" if "bf16" in each.name else "fp32"]
        rows.append([
            f"`{recipe}`, {batch}", each.name, spread(each.speeds), spread(ratios),
            f"{1000 * batch / middle:.2f}", f"{each.memory / 2**30:.2f}", f"{each.gigaflop:.2f}",
            f"{rate:.3g}", f"{100 * rate / limit:.0f} %",
        ])  # fmt: skip
    return rows


def limits_of(device: torch.device, side: int) -> dict[str, float]:
    """Return the TFLOP/s of large products of matrices, by precision."""
    limits = {}
    torch.set_float32_matmul_precision("high")
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        times = []
        for _ in range(6):
            wait(device)
            start = time.perf_counter()
            a @ b
            wait(device)
            times.append(time.perf_counter() - start)
        limits[name] = 2 * side**3 / min(times) / 1e12
    return limits


# --- where the time goes -----------------------------------------------------------------------


def profiled(candidate: Candidate, real: Tensor, device: torch.device) -> list[list[str]]:
    """Return the parts of a step that is not logged, and how often it waits for the device."""
    engine, steps = candidate.engine, 5
    assert engine is not None
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    wait(device)
    with settings_of(candidate), profile(activities=activities) as recorded:
        start = time.perf_counter()
        for number in range(100, 100 + steps):
            engine.step(number, [Batch(real)])
        host = time.perf_counter() - start
        wait(device)
        whole = time.perf_counter() - start
    events = {event.key: event for event in recorded.key_averages()}

    def count(*names: str) -> str:
        return f"{sum(events[n].count for n in names if n in events) / steps:.3g}"

    rows = [
        ["a step, ms", f"{1000 * whole / steps:.2f}"],
        ["the host is done after, ms", f"{1000 * host / steps:.2f}"],
        ["reads of a value (`aten::_local_scalar_dense`)", count("aten::_local_scalar_dense")],
    ]
    if device.type == "cuda":
        busy = sum(event.self_device_time_total for event in events.values()) / 1e6
        rows += [
            ["the device computes, share of the time", f"{100 * busy / whole:.0f} %"],
            [
                "kernels launched",
                count(*LAUNCHES),
            ],
            ["waits of the host (`cudaStreamSynchronize` and others)", count(*WAITS)],
        ]
    for key, event in sorted(events.items()):
        if key.startswith("vgx: "):
            share = event.cpu_time_total / 1e6 / host
            rows.append([f"{key.removeprefix('vgx: ')}, share of the host's time",
                         f"{100 * share:.0f} %"])  # fmt: skip
    return rows


def waits(recipe: Path, device: torch.device) -> list[str]:
    """Return which operations of a step that is not logged make the host wait for a GPU."""
    changes: dict[str, object] = {"train.batch": 8, "train.precision": "bf16", "start": None}
    loaded = vgx.load_recipe(recipe, changes)
    engine = Engine(loaded, 1000, device=device)
    engine.configure(loaded.train)
    classes = loaded.image.classes
    labels = torch.arange(8, device=device) % classes if classes else None
    real = torch.rand(8, *loaded.image.shape, device=device)
    batches = [Batch(real.to(memory_format=torch.channels_last), labels)] * loaded.batches_per_step
    for number in range(2):
        engine.step(number, batches)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            engine.step(2, batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(each.filename).name}:{each.lineno}" for each in seen
              if "synchroniz" in str(each.message)]  # fmt: skip
    return sorted({*places})


def all_waits(device: torch.device, seconds: float) -> str:
    """Say which recipes have steps that wait for the device."""
    found, tried, end = [], 0, time.monotonic() + seconds
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        if time.monotonic() > end:
            break
        try:
            places = waits(recipe, device)
        except Exception as error:  # noqa: BLE001 - the others are measured all the same
            found.append(f"`{recipe.stem}`: {str(error).splitlines()[0]}")
            continue
        tried += 1
        if places:
            found.append(f"`{recipe.stem}`: {', '.join(places)}")
    said = "; ".join(found) or "none of them waits"
    return f"Waits for the device in a step of {tried} recipes that is not logged: {said}."


# --- several devices ----------------------------------------------------------------------------


def several(options: argparse.Namespace) -> list[list[str]]:
    """Train on more and more devices, with the same number of images on each; return a table."""
    rows, of_one = [], 1.0
    for count in options.devices:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
            own = ["--part", result, "--rounds", options.rounds, "--steps", options.steps]
            own += ["--device", options.device.type] if options.device.type == "cpu" else []
            own += ["--quick"] if options.quick else []
            command = map(str, [sys.executable, *launcher, __file__, *own])
            subprocess.run([*command], check=True)  # noqa: S603
            found = json.loads(result.read_text())
        middle = sorted(found["speeds"])[len(found["speeds"]) // 2]
        of_one = middle / count if count == options.devices[0] else of_one
        moved = found["bytes"] * 2 * (count - 1) / count  # by each process, in a ring
        rows.append([
            f"{count}", spread(found["speeds"]), f"{middle / count / of_one:.2f}",
            f"{found['sums']}", f"{moved / 1e6:.1f}", f"{100 * found['share']:.0f} %",
            f"{moved / found['seconds'] / 1e9:.2f}" if found["seconds"] else "-",
            f"{found['gigaflop']:.2f}", f"{middle * found['gigaflop'] / count / 1000:.3g}",
        ])  # fmt: skip
    return rows


def part(options: argparse.Namespace) -> None:
    """Be one of the processes of `several`; the first one writes the result."""
    from vgx.distributed.processes import begin, end, largest
    from vgx.distributed.state import group

    begin()
    device = options.device if options.device.type == "cpu" else vgx_device()
    recipe, batch = ("vae", 4) if options.quick else ("anime_vaegan", 64)
    options.device = device
    candidate = ours(
        VGX, recipe, options, batch=batch * group().size, precision="fp32", compile=False
    )
    real = images(batch, options.size if recipe == "anime_vaegan" else 32, device)
    speeds = []
    with settings_of(candidate):
        for _ in range(options.warm):
            candidate.step(real)
        for _ in range(options.rounds):
            wait(device)
            largest([0])  # all begin together
            start = time.perf_counter()
            for _ in range(options.steps):
                candidate.step(real)
            wait(device)
            speeds.append(options.steps * batch * group().size / (time.perf_counter() - start))
        with counting() as given, FlopCounterMode(display=False) as counter:
            candidate.step(real)
        seconds, whole = in_sums(candidate, real, device)
    if group().rank == 0:
        results = {"speeds": speeds, "sums": len(given), "bytes": sum(given), "seconds": seconds}
        results |= {"share": seconds / whole}
        results |= {"gigaflop": counter.get_total_flops() / batch / 1e9}
        options.part.write_text(json.dumps(results))
    end()


def in_sums(candidate: Candidate, real: Tensor, device: torch.device) -> tuple[float, float]:
    """Return the seconds of a step in sums over processes, and those of the whole step.

    On a GPU the sums are the kernels of NCCL, which may wait for other devices.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        start = time.perf_counter()
        candidate.step(real)
        wait(device)
        whole = time.perf_counter() - start
    events = recorded.key_averages()
    if device.type == "cuda":
        times = [each.self_device_time_total for each in events if "nccl" in each.key.lower()]
    else:
        times = [each.cpu_time_total for each in events if each.key == "vgx: all-reduce"]
    return sum(times) / 1e6, whole


# --- the section -------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that it works")
    parser.add_argument("--device", type=torch.device, help="by default a GPU, if there is one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps in one turn of a candidate")
    parser.add_argument("--compile", action="store_true", help="measure `compile: true` too")
    parser.add_argument("--devices", type=numbers, default=(), help="such as 1,2,4,8: by torchrun")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="a page whose section is replaced")
    options = parser.parse_args()
    options.device = options.device or vgx_device()
    options.size, options.backbone = (32, "test_resnet") if options.quick else (96, "resnet50")
    options.warm = 1 if options.quick else 5
    if options.quick:
        options.rounds = options.steps = 1
    if options.part:
        part(options)
        return
    text = section(options)
    if options.out:
        options.out.write_text(replaced(options.out, "On a GPU", text))


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def vgx_device() -> torch.device:
    from vgx.engine.build import pick_device

    return pick_device(None)


def section(options: argparse.Namespace) -> str:
    """Measure everything; print each part as soon as it is there, and return the section."""
    device, parts = options.device, ["## On a GPU"]

    def add(text: str) -> None:
        parts.append(text)
        print(text, end="\n\n", flush=True)

    limits = limits_of(device, 512 if options.quick else 8192)
    cases = [("vae", 4), ("anime_vaegan", 4)] if options.quick else CASES
    rows, last = [], None
    for recipe, batch in cases:
        candidates = speeds(recipe, batch, options)
        rows += rows_of(recipe, batch, candidates, limits)
        last = candidates[-1]
        if (recipe, batch) == cases[-1]:
            continue
        del candidates
    add(ABOUT.format(fp32=limits["fp32"], bf16=limits["bf16"]))
    add(table(HEAD, rows))
    assert last is not None
    recipe, batch = cases[-1]
    real = images(batch, options.size, device)
    add(f"A step of `{recipe}` with {batch} images and `precision: bf16` that is not logged:")
    add(table(["what", "value"], profiled(last, real, device)))
    if device.type == "cuda":
        add(all_waits(device, 25))
    if options.compile:
        start = time.perf_counter()
        compiled = ours(COMPILED, recipe, options, precision="bf16", compile=True)
        compiled.step(real)
        wait(device)
        seconds = time.perf_counter() - start
        last.speeds.clear()
        take_turns([last, compiled], real, options)
        ratios = [b / a for a, b in zip(last.speeds, compiled.speeds, strict=True)]
        add(f"`compile: true` beside that, after {seconds:.0f} s of compiling: {spread(ratios)}.")
    if options.devices:
        add(SEVERAL.format(recipe="vae" if options.quick else recipe, device=device.type))
        add(table(SEVERAL_HEAD, several(options)))
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    add(f"*{options.rounds} rounds of {options.steps} steps on {gpu}; Python "
        f"{platform.python_version()}, torch {torch.__version__}.*")  # fmt: skip
    return "\n\n".join(parts)


CASES = [("vae", 64), ("anime_vaegan", 256), ("anime_vaegan", 64)]
ABOUT = """The networks of a recipe without augmentation, on images that are on the device. The
plain loop is `benchmarks/reference_loop.py` in float32, with its losses read in each step. The last
column compares with large products of matrices: {fp32:.3g} TFLOP/s in float32 (on a GPU in TF32),
{bf16:.3g} in bfloat16."""
HEAD = [
    "recipe, batch", "what", "images/s", "relative to the loop", "ms a step", "memory, GiB",
    "GFLOP for an image", "TFLOP/s", "of the products",
]  # fmt: skip
SEVERAL = """`{recipe}` on several devices ({device}), in float32, one process for each, with as
many images on each. The scaling is the speed of a device beside that of one device alone. The MB
are those that each process sends in a step if the sums go around a ring."""
SEVERAL_HEAD = [
    "devices", "images/s", "scaling", "sums a step", "MB a step", "time in sums", "GB/s in sums",
    "GFLOP for an image", "TFLOP/s of a device",
]  # fmt: skip


if __name__ == "__main__":
    main()
