"""A profile of a few training steps, made by PyTorch's profiler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.profiler import ProfilerActivity, profile, schedule

from vgx.console import Console
from vgx.files import replacing
from vgx.training.state import Training

WARM, PROFILED = 3, 5  # steps before the profile, and steps in it
SHOWN = 10  # operations in the table
_PHASE, _STEP = "vgx: ", "ProfilerStep"


@contextmanager
def profiled(training: Training, console: Console) -> Iterator[None]:
    """Profile a few steps of the training in the block; write the trace and print the times.

    The steps compute what they would without it.
    """
    path = training.run.place("profile.json")

    def show(profiler: profile) -> None:
        with replacing(path, sync=False) as file:
            profiler.export_chrome_trace(file.name)
        steps, rows = phases(profiler.events())  # type: ignore[no-untyped-call]
        console.table(("phase", "ms a step", "share"), rows)
        console.table(("operation", "calls", "ms a step", "share"), operations(profiler, steps))
        console.print(f"Profile of {steps} steps: {path} (open it in chrome://tracing or Perfetto)")

    activities = [ProfilerActivity.CPU]
    if training.engine.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    # The profiler starts in the step before the profiled ones, which takes a while.
    when = schedule(wait=WARM - 1, warmup=1, active=PROFILED, repeat=1)
    with profile(activities=activities, schedule=when, on_trace_ready=show) as profiler:
        training.profiler = profiler
        try:
            yield
        finally:
            training.profiler = None
    if not path.exists():
        console.warn(f"nothing to profile: a profile begins after {WARM} steps")


def phases(events: Any) -> tuple[int, list[tuple[str, str, str]]]:
    """Return the number of steps, and a row for each phase with its own time, longest first.

    The time of a phase inside another one counts for the inner phase only; `other` is the time
    outside of all phases.
    """
    own, steps = defaultdict[str, float](float), list[float]()
    for event in events:
        if event.name.startswith(_STEP):
            steps.append(event.cpu_time_total)
        if not event.name.startswith(_PHASE):
            continue
        own[event.name.removeprefix(_PHASE)] += event.cpu_time_total
        around = event.cpu_parent
        while around is not None and not around.name.startswith(_PHASE):
            around = around.cpu_parent
        if around is not None:
            own[around.name.removeprefix(_PHASE)] -= event.cpu_time_total
    whole = sum(steps) or 1.0
    own["other"] = whole - sum(own.values())
    longest = sorted(own.items(), key=lambda pair: -pair[1])
    return len(steps), [_row((name,), time, whole, len(steps) or 1) for name, time in longest]


def operations(profiler: profile, steps: int) -> list[tuple[str, ...]]:
    """Return a row for each of the operations with the longest own time, on a GPU if it is used."""
    on_device = ProfilerActivity.CUDA in profiler.activities
    times = [
        (each.self_device_time_total if on_device else each.self_cpu_time_total, each)
        for each in profiler.key_averages()
        if not each.key.startswith((_PHASE, _STEP))
    ]
    whole = sum(time for time, _ in times) or 1.0
    times.sort(key=lambda pair: -pair[0])
    return [
        _row((each.key, f"{each.count:,}"), time, whole, steps or 1) for time, each in times[:SHOWN]
    ]


def _row(names: tuple[str, ...], time: float, whole: float, steps: int) -> Any:
    """Return a row: names, milliseconds a step, and share; times are in microseconds."""
    return (*names, f"{time / steps / 1000:.2f}", f"{100 * time / whole:.1f} %")
