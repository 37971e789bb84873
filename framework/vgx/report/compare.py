"""Several runs beside each other: what their recipes differ in, and what came of it.

All of it is what their files say, as plain data; `page` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgx.errors import StorageError
from vgx.evaluation import tables as figures
from vgx.evaluation.tables import number, time_of
from vgx.files import write_file
from vgx.report import panels as exhibits
from vgx.report.html import page
from vgx.runs import summary as listing
from vgx.runs.directory import Run
from vgx.runs.frames import drawn, evenly, step_of

LINES = 500  # of each log, in a curve
SHOWN = 12  # places of the slider through the pictures
MARKED = (
    "A figure is marked where it is better than each other one by more than the two spreads "
    "together. ± is the standard deviation over seeds of drawing, not of training: a recipe that "
    "is trained again may differ by more."
)


@dataclass(frozen=True)
class Contender:
    """One of the runs, as its files tell it."""

    run: Run
    name: str
    state: str
    recipe: dict[str, Any]
    about: dict[str, Any]  # environment.json
    audit: dict[str, Any]
    said: dict[str, Any]  # evaluation.json
    log: list[dict[str, Any]]


def read(run: Run) -> Contender:
    """Read what a run's files say.

    Raises `StorageError` when they are not what a run writes.
    """
    entry = listing.summarize(run)
    if entry.state.startswith("broken"):
        raise StorageError(f"{run.path}: {entry.state}")
    about, audit, said = (
        listing.read_json(run, f"{name}.json") for name in ("environment", "audit", "evaluation")
    )
    return Contender(
        run=run,
        name=run.path.resolve().name,
        state=entry.state,
        recipe=listing.read_recipe(run),
        about=about,
        audit=audit,
        said=said,
        log=run.read_log(),
    )


# --- recipes -----------------------------------------------------------------------------------


def differences(recipes: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return each field in which recipes differ, with what each says; nothing is a hyphen.

    Parts of one type are compared field by field, parts of different types as wholes; losses and
    other parts of a list by their names.
    """
    fields = [{key: value for key, value in recipe.items() if key != "name"} for recipe in recipes]
    return _differences("", fields)


def _differences(path: str, values: Sequence[Any]) -> list[tuple[str, ...]]:
    if all(value == values[0] for value in values):
        return []
    if all(_is_list_of_parts(value) for value in values):
        named = [_by_name(value) for value in values]
        rows = []
        if any(list(each) != list(named[0]) for each in named):
            rows.append((path, *(", ".join(each) or "-" for each in named)))
        return rows + _each(path, named)
    types = {value.get("type") for value in values if isinstance(value, dict)}
    if all(isinstance(value, dict) for value in values) and len(types) == 1:
        return _each(path, values)
    return [(path, *(_text(value) for value in values))]


def _each(path: str, values: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    names = dict.fromkeys(name for value in values for name in value)
    inner = [(name, [value.get(name) for value in values]) for name in names]
    start = f"{path}." if path else ""
    return [row for name, each in inner for row in _differences(f"{start}{name}", each)]


def _is_list_of_parts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) and "type" in v for v in value)


def _by_name(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return parts by their names or types; a second one of a type is that with its number."""
    named: dict[str, Any] = {}
    for part in parts:
        name = first = part.get("name") or part["type"]
        count = 1
        while name in named:
            count += 1
            name = f"{first} {count}"
        named[name] = part
    return named


def _text(value: Any) -> str:
    """Return a value as a recipe would say it on one line, without what it does not say."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        said = [f"{name}: {_text(v)}" for name, v in value.items() if v is not None]
        return "{" + ", ".join(said) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_text(v) for v in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


# --- all together ------------------------------------------------------------------------------


def facts(runs: Sequence[Contender]) -> list[tuple[str, ...]]:
    """Return what each run is and took, a row each."""
    last: list[dict[str, Any]] = [
        next((line for line in reversed(run.log) if line.get("losses")), {}) for run in runs
    ]
    weights = [sum(row["parameters"] for row in run.audit.get("rows", [])) for run in runs]

    def counted(key: str) -> list[str]:
        return [f"{line[key]:,}" if key in line else "-" for line in last]

    rows = [
        ("state", [run.state for run in runs]),
        ("steps", counted("step")),
        ("pictures seen", counted("images")),
        ("time in training", [time_of(line["seconds"]) if line else "-" for line in last]),
        ("weights", [f"{count:,}" if count else "-" for count in weights]),
        ("pictures in the data", [_kept(run) for run in runs]),
        ("device", [str(run.about.get("device", "-")) for run in runs]),
        ("torch", [str(run.about.get("packages", {}).get("torch", "-")) for run in runs]),
        ("judged at step", [f"{run.said['step']:,}" if run.said else "not judged" for run in runs]),
    ]
    return [(name, *cells) for name, cells in rows]


def _kept(run: Contender) -> str:
    kept = run.about.get("data", {}).get("kept")
    return f"{kept:,}" if isinstance(kept, int) else "-"


def notices(runs: Sequence[Contender]) -> list[str]:
    """Say what makes these runs hard to hold against each other."""
    said = []
    if len({run.about.get("data", {}).get("content") for run in runs}) > 1:
        said.append("They were not trained on the same pictures.")
    if len({str(run.recipe.get("image")) for run in runs}) > 1:
        said.append("Their pictures differ in size: no figure of one says anything of another.")
    missing = [run.name for run in runs if not run.said]
    said += [f"{name} was not judged: vgx eval {name}" for name in missing]
    return said + [text for run in runs if (text := _behind(run))]


def _behind(run: Contender) -> str:
    """Say it when a run's figures are not those of where it stands."""
    if not (run.said and run.log) or run.said["step"] == run.log[-1]["step"]:
        return ""
    best = run.said.get("checkpoint") == "best"
    why = "its best checkpoint" if best else "and has gone on since"
    return f"{run.name} was judged at step {run.said['step']:,}, {why}."


def sides(runs: Sequence[Contender]) -> list[figures.Side]:
    """Return the figures of the runs' evaluations beside each other.

    Raises `StorageError` when an evaluation is not as `vgx eval` writes it.
    """
    try:
        return figures.side_by_side([run.said for run in runs])
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        message = "an evaluation.json is not as vgx eval writes it"
        raise StorageError(f"{message}: {type(error).__name__}: {error}") from error


def write(runs: Sequence[Contender], out: Path) -> None:
    """Write the page of several runs.

    Raises `StorageError` when the runs' files are not what a run writes.
    """
    try:
        data = gather(runs)
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        message = f"a run's files are not as a run writes them: {type(error).__name__}: {error}"
        raise StorageError(message) from error
    write_file(out, page(data, "compare"))


def gather(runs: Sequence[Contender]) -> dict[str, Any]:
    """Return all that the page shows, as plain data."""
    rows = differences([run.recipe for run in runs])
    judged = sides(runs)
    names = [run.name for run in runs]
    return {
        "kicker": f"{len(runs)} runs compared",
        "name": ", ".join(names[:-1]) + f" and {names[-1]}",
        "runs": names,
        "summary": _summary(runs, rows, judged),
        "notices": notices(runs),
        "facts": facts(runs),
        "differences": rows,
        "metrics": {"note": MARKED, "tables": [asdict(side) for side in judged]},
        "curves": _curves(runs),
        "progress": _progress(runs),
        "foot": "Made by vgx from the files of these runs. This page asks no network for more.",
    }


def _summary(
    runs: Sequence[Contender], rows: list[tuple[str, ...]], judged: list[figures.Side]
) -> list[str]:
    many = {0: "in nothing but their names", 1: "in one field"}.get(
        len(rows), f"in {len(rows):,} fields"
    )
    said = [f"Their recipes differ {many}."]
    for side in judged:
        won: dict[int, list[str]] = {}
        for row in side.rows:
            if row.best is not None:
                won.setdefault(row.best, []).append(row.name.partition(" (")[0])
        better = [f"{runs[i].name} in {', '.join(names)}" for i, names in sorted(won.items())]
        if better:
            said.append(f"Better beyond the spread, {side.title}: {'; '.join(better)}.")
    return said


def _curves(runs: Sequence[Contender]) -> dict[str, Any]:
    """Return each logged number of several runs, and where its values are on each axis."""
    groups: dict[str, list[dict[str, Any]]] = {}
    axes: list[dict[str, list[float]]] = []
    for i, run in enumerate(runs):
        for field in ("losses", "metrics"):
            lines = evenly([line for line in run.log if line.get(field)], LINES)
            if not lines:
                continue
            axes.append({k: [line[k] for line in lines] for k in ("step", "images", "seconds")})
            for name in dict.fromkeys(name for line in lines for name in line[field]):
                values = [number(line[field].get(name)) for line in lines]
                if any(value is not None for value in values):
                    groups.setdefault(name, []).append(
                        {"run": i, "axes": len(axes) - 1, "values": values}
                    )
    # What several runs have comes first: it is what they are compared by.
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return {"groups": [{"title": n, "lines": lines} for n, lines in ordered], "axes": axes}


def _progress(runs: Sequence[Contender]) -> dict[str, Any]:
    """Return pictures of training: at each place of the slider the newest that each run has."""
    grids = [drawn(run.run) for run in runs]
    places = evenly(sorted({step_of(file) for files in grids for file in files}), SHOWN)
    shown = []
    for files in grids:
        wanted = {
            max((file for file in files if step_of(file) <= place), key=step_of, default=None)
            for place in places
        }
        read = [exhibits.frame(file) for file in files if file in wanted]
        shown.append([frame for frame in read if frame is not None])
    return {"places": places, "runs": shown, "notes": _same(runs)}


def _same(runs: Sequence[Contender]) -> dict[str, str]:
    """Say whether pictures at the same place are of the same latents, and of the same pictures."""
    latents = {(str(run.recipe.get("latent")), run.recipe["train"].get("seed")) for run in runs}
    samples = (
        "At the same place in each grid the same latent was decoded; networks that were trained "
        "apart make different things of it."
        if len(latents) == 1
        else "Not the same latents: their shapes or seeds differ."
    )
    pictures = {run.about.get("data", {}).get("content") for run in runs}
    recon = (
        "The same real pictures, each row above its reconstructions."
        if len(pictures) == 1
        else "Not the same real pictures: the data differ."
    )
    return {"samples": samples, "recon": recon}
