"""The numbers of logs as charts: those of one run, and of several runs in the same charts.

A chart is {title, unit, lines}; a line is {name, colour, axes, values}. `axes` is the index of the
positions of its values: steps, images seen and seconds. A line that is a `branch` is what the
parent of a fork did after the fork.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from vgx.runs import reading
from vgx.runs.frames import evenly
from vgx_report import diagram
from vgx_report.family import Branch
from vgx_report.tables import listed, number

LINES = 1500  # most log lines of a run in a curve
SEVERAL = 500  # of each of several runs
FLAT = 0.1  # a line that spans a smaller share of the chart is given a chart of its own
HOW = (
    "Point at a chart to read it, drag to zoom, double-click to see all of it again; click a name "
    "to hide its line."
)
TERM, NORM = "unweighted value", "norm of the gradient"  # titles of axes
SHARE, SPEED = "share of logits on the right side", "images per second"
USAGE, CODES = "share of the codes", "codes"
RATE, METRIC, FIGURE = "learning rate", "value", "figure"
AXES: tuple[Literal["step", "images", "seconds"], ...] = ("step", "images", "seconds")
Lines = list[reading.Line]
Values = Mapping[str, float]


def _field(
    name: Literal["losses", "rates", "grad_norm", "figures", "metrics"],
) -> Callable[[reading.Line], Values]:
    return lambda line: line.get(name, {})


def _accuracy(line: reading.Line) -> Values:
    shares = line.get("accuracy", {}).items()  # those of latents and pairs say what they are of
    return {
        kind if kind.endswith((" latents", " pairs")) else f"{kind} images": share
        for kind, share in shares
    }


def _usage(line: reading.Line) -> Values:
    return {n: v for n, v in line.get("codebook", {}).items() if n == "codebook_usage"}


def _perplexity(line: reading.Line) -> Values:
    return {n: v for n, v in line.get("codebook", {}).items() if n == "perplexity"}


def _speed(line: reading.Line) -> Values:
    return {"speed": line["images_per_second"]} if "images_per_second" in line else {}


# By the title of an axis, so that no chart has values of another kind.
READERS: dict[str, Callable[[reading.Line], Values]] = {
    TERM: _field("losses"), NORM: _field("grad_norm"), SHARE: _accuracy, USAGE: _usage,
    CODES: _perplexity, RATE: _field("rates"), METRIC: _field("metrics"),
    FIGURE: _field("figures"), SPEED: _speed,
}  # fmt: skip


def of_run(
    lines: Lines, audit: reading.Audit, branch: Branch | None = None
) -> dict[str, Any] | None:
    """Return the numbers of a log as charts: terms by player, gradients, learning rates, metrics.

    The audit says which networks a term moves, and so whose it is. The log of a fork has the lines
    of its parent up to the fork; `branch` has those after it. None for a log without numbers.
    """
    logged = [line for line in lines if line.get("losses")]
    measured = [line for line in lines if line.get("metrics")]
    norms = {flow["label"]: flow["norms"] for flow in audit.get("flows", [])}

    def of_discriminator(name: str) -> bool:
        moved = {network for network, norm in norms.get(name, {}).items() if norm is not None}
        own = bool(moved) and all(map(diagram.of_discriminator, moved))
        return own or name.endswith(".discriminator")

    # Rates that never change are named in the note, not drawn.
    rates: dict[str, set[float]] = {}
    for line in logged:
        for name, rate in line.get("rates", {}).items():
            rates.setdefault(name, set()).add(rate)
    steady = [f"{name} {min(values):g}" for name, values in rates.items() if len(values) == 1]
    chosen, also = evenly(logged, LINES), evenly(measured, LINES)
    groups = [
        _group("Generator's terms", TERM, 0, chosen, lambda n: not of_discriminator(n)),
        _group("Discriminator's terms", TERM, 0, chosen, of_discriminator),
        _group("Gradient norms", NORM, 0, chosen),
        _group("Discriminator's accuracy", SHARE, 0, chosen),
        _group("Codebook usage", USAGE, 0, chosen),
        _group("Codebook perplexity", CODES, 0, chosen),
        _group("Figures of parts", FIGURE, 0, chosen),
        _group("Learning rates", RATE, 0, chosen, lambda n: len(rates[n]) > 1),
        _group("Metrics", METRIC, 1, also),
        _group("Training speed", SPEED, 0, chosen),
    ]
    charts = [chart for group in groups for chart in readable(group)]
    if not charts:
        return None
    note = f"{len(logged):,} logged steps; losses are unweighted."
    if len(logged) > LINES:
        note = f"{LINES:,} of {note}"
    if steady:
        note += f" Learning rates that never changed: {listed(steady)}."
    if branch is None:
        return _page([chosen, also], charts, f"{note} {HOW}")
    axes = [chosen, also, *_branches(charts, branch)]
    return _page(axes, charts, f"{note} {_forked(branch)} {HOW}") | _mark(lines, branch)


def of_prior(lines: Lines) -> dict[str, Any] | None:
    """Return the numbers of the log of a prior as charts; None for a log without numbers."""
    chosen = evenly([line for line in lines if line.get("losses")], LINES)
    if not chosen:
        return None
    title = f"Loss of {listed(list(chosen[-1]['losses']))}"
    charts = [_group(title, TERM, 0, chosen), *readable(_group("Gradient norm", NORM, 0, chosen))]
    note = (
        f"Trained for {chosen[-1]['step']:,} steps after the networks, on the codes of the images."
    )
    also = evenly([line for line in lines if line.get("metrics")], LINES)
    if not also:
        return _page([chosen], charts, f"{note} {HOW}")
    for line in _group("", METRIC, 1, also)["lines"]:
        name, colour = line["name"].replace("_", " "), len(charts[0]["lines"])
        charts[0]["lines"].append({**line, "name": name, "colour": colour})
    note += " The loss of held-out images is that of the averaged weights, which draw."
    return _page([chosen, also], charts, f"{note} {HOW}")


def _branches(charts: Sequence[dict[str, Any]], branch: Branch) -> list[Lines]:
    """Add to each line of the charts what the parent of the fork did; return the lines of its log.

    They are those with losses, which have the axes 2, and those with metrics, which have 3.
    """
    shown = [
        evenly([line for line in branch.lines if line.get("losses")], LINES),
        evenly([line for line in branch.lines if line.get("metrics")], LINES),
    ]
    for chart in charts:
        own = {line["name"]: line for line in chart["lines"]}
        measured = chart["unit"] == METRIC
        group = _group("", chart["unit"], 2 + measured, shown[measured], own.__contains__)
        for line in group["lines"]:
            name, colour = f"{line['name']}, {branch.run}", own[line["name"]]["colour"]
            chart["lines"].append({**line, "name": name, "colour": colour, "branch": True})
    return shown


def _forked(branch: Branch) -> str:
    text = f"Up to step {branch.step:,} the lines are those of {branch.run}"
    return f"{text}; what it did after that is dotted." if branch.lines else f"{text}."


def _mark(lines: Lines, branch: Branch) -> dict[str, Any]:
    """Return the place of the fork on each axis."""
    before = [line for line in lines if line["step"] <= branch.step] or lines[:1]
    places = {axis: before[-1].get(axis, 0) for axis in AXES} | {"step": branch.step}
    return {"mark": {"text": "fork", **places}}


def _group(
    title: str,
    unit: str,
    axes: int,
    lines: Lines,
    belongs: Callable[[str], bool] = lambda _: True,
) -> dict[str, Any]:
    """Return one chart: the numbers of each line of the log whose names belong."""
    each = [READERS[unit](line) for line in lines]
    names = dict.fromkeys(name for values in each for name in values if belongs(name))
    values = {name: [number(numbers.get(name)) for numbers in each] for name in names}
    known = {name: row for name, row in values.items() if any(v is not None for v in row)}
    curves = [
        {"name": name, "colour": colour, "axes": axes, "values": row}
        for colour, (name, row) in enumerate(known.items())
    ]
    return {"title": title, "unit": unit, "lines": curves}


def readable(chart: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a chart, or one for each line where a line would be flat beside the others.

    A line is flat when it changes, but spans less than a tenth of what all lines together span.
    Shares stay together: they have one scale.
    """
    known = [[v for v in line["values"] if v is not None] for line in chart["lines"]]
    if not known:
        return []
    spans = [max(values) - min(values) for values in known]
    whole = max(map(max, known)) - min(map(min, known))
    flat = chart["unit"] != SHARE and any(0 < span < FLAT * whole for span in spans)
    if len(known) == 1 or not flat:
        return [chart]
    return [
        {**chart, "title": f"{chart['title']}: {line['name']}", "lines": [line]}
        for line in chart["lines"]
    ]


def of_runs(names: Sequence[str], logs: Sequence[Lines]) -> dict[str, Any]:
    """Return each logged number of all runs as a chart in which each line is that of a run.

    Numbers that several runs have come first: those can be compared. A run is hidden on all charts.
    """
    charts: dict[tuple[str, str], dict[str, Any]] = {}  # by unit and name
    axes: list[Lines] = []
    fields: tuple[tuple[str, str, str], ...] = (
        ("losses", "{}", TERM),
        ("metrics", "{}", METRIC),
        ("losses", "Gradient norm: {}", NORM),
        ("losses", "Discriminator's accuracy: {}", SHARE),
        ("losses", "Codebook usage", USAGE),
        ("losses", "Codebook perplexity", CODES),
        ("losses", "{}", FIGURE),
        ("losses", "Training {}", SPEED),
    )
    for run, log in enumerate(logs):
        numbers: dict[str, int] = {}  # the axes of the lines that have a field
        for having, form, unit in fields:
            lines = evenly([line for line in log if line.get(having)], SEVERAL)
            if lines and having not in numbers:
                numbers[having] = len(axes)
                axes.append(lines)
            for line in _group("", unit, numbers.get(having, 0), lines)["lines"]:
                name = form.format(line["name"])
                chart = charts.setdefault((unit, name), {"title": name, "unit": unit, "lines": []})
                own = {"name": names[run], "key": f"run {run}", "run": run, "colour": run}
                chart["lines"].append({**line, **own})
    for (unit, name), chart in charts.items():
        if unit == METRIC and (TERM, name) in charts:
            chart["title"] = f"metrics/{name}"
    note = f"Each run has one colour on all charts. Losses are unweighted. {HOW}"
    return _page(axes, sorted(charts.values(), key=lambda chart: -len(chart["lines"])), note)


def _page(lines: Sequence[Lines], charts: list[dict[str, Any]], note: str) -> dict[str, Any]:
    """Return charts with the positions of their values, and the axes along which they differ."""
    axes = [
        {"step": [each["step"] for each in some]}
        | {"images": [each.get("images", 0) for each in some]}
        | {"seconds": [each.get("seconds", 0.0) for each in some]}
        for some in lines
    ]
    along = [axis for axis in AXES if axis == "step" or any(any(each[axis]) for each in axes)]
    return {"groups": charts, "axes": axes, "along": along, "note": note}
