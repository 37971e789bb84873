"""Several runs side by side: where their recipes differ, and what came of it.

All of it is read from the files of the runs, as plain data; `html` makes a page of it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import vgx
from vgx.data.classes import listed
from vgx.errors import noticing
from vgx.files import write_file
from vgx.output import short
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.frames import drawn, evenly, pixels_of, step_of
from vgx.runs.reading import unless_damaged
from vgx.runs.summary import summarize
from vgx_report import curves
from vgx_report.family import origin
from vgx_report.html import page
from vgx_report.panels import embedding, frame, grid_titles
from vgx_report.run_data import OFFLINE
from vgx_report.tables import Table, side_by_side, time_of

PLACES = 12  # most places of the slider through the grids
MARKED = (
    "A figure is marked where it is better than every other one by more than the sum of the two "
    "spreads. ± is the standard deviation over seeds of drawing. For reconstructions ± is the "
    "standard error over images; they are of the same images, so the mark says that the difference "
    "is more than two of its standard errors. None of this is the spread of training: a recipe "
    "that is trained again may differ by more."
)


@dataclass(frozen=True)
class RunData:
    """The contents of a run's files."""

    run: Run
    name: str
    state: str
    recipe: dict[str, Any]
    environment: reading.Environment
    audit: reading.Audit
    evaluation: dict[str, Any]  # empty if there is none
    log: list[reading.Line]
    notices: list[str] = field(default_factory=list)  # about damaged files, which are left out
    step: int = 0  # steps that are done; the last ones may not be in the log


def read(run: Run) -> RunData:
    """Read the files of a run. A damaged file is left out, but the recipe is needed.

    Raises `vgx.StorageError` for a run whose recipe cannot be read.
    """
    recipe, notices = reading.recipe(run.path), list[str]()
    with noticing(notices):
        now = summarize(run)
        return RunData(
            run=run,
            name=run.path.resolve().name,
            state=short(now.state),
            recipe=recipe,
            environment=unless_damaged(reading.environment, run.path) or {},
            audit=unless_damaged(reading.audit, run.path) or {},
            evaluation=_evaluation(run),
            log=unless_damaged(_log, run.path) or [],
            notices=notices,
            step=now.step,
        )


def _log(run: Path) -> list[reading.Line]:
    return Run(run).read_log()


def _evaluation(run: Run) -> dict[str, Any]:
    """Return the evaluation of a run, if there is one from which a table can be made."""
    results = {**(unless_damaged(reading.evaluation, run.path) or {})}
    try:
        if results:
            side_by_side([results])
            results["step"]
    except (LookupError, TypeError) as error:
        text = f"left out: {run.path / 'evaluation.json'}: {type(error).__name__}: {error}"
        warnings.warn(text, vgx.Notice, stacklevel=2)
        return {}
    return results


# --- recipes -----------------------------------------------------------------------------------


def differences(recipes: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return each field in which recipes differ, with its value in each; "-" where it is absent.

    Parts of one type are compared field by field, and parts of different types as wholes. Losses
    and other parts of a list are compared by name.
    """
    fields = [{key: value for key, value in recipe.items() if key != "name"} for recipe in recipes]
    return _differences("", fields)


def _differences(path: str, values: Sequence[Any]) -> list[tuple[str, ...]]:
    if all(value == values[0] for value in values):
        return []
    if all(_is_list_of_parts(value) for value in values):
        named = [_by_name(value) for value in values]
        # Only images go through the parts of a list in their order.
        names = [[*each] if path.endswith("augment") else sorted(each) for each in named]
        differ = any(each != names[0] for each in names)
        rows = [(path, *(", ".join(each) or "-" for each in named))] * differ
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
    """Return parts by name or type; the second part of a type is called "type 2"."""
    named: dict[str, Any] = {}
    for part in parts:
        name = first = _text(part.get("name") or part["type"])
        count = 1
        while name in named:
            count += 1
            name = f"{first} {count}"
        named[name] = part
    return named


def _text(value: Any) -> str:
    """Return a value as YAML on one line, without fields that are null."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        fields = [f"{name}: {_text(v)}" for name, v in value.items() if v is not None]
        return "{" + ", ".join(fields) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_text(v) for v in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


# --- all together ------------------------------------------------------------------------------


def facts(runs: Sequence[RunData]) -> list[tuple[str, ...]]:
    """Return rows of a title and a cell for each run: state, time, sizes, versions."""
    last = [next((each for each in reversed(run.log) if each.get("losses")), None) for run in runs]
    parameters = [sum(row["parameters"] for row in run.audit.get("rows", [])) for run in runs]

    done = [
        max(run.step, line["step"] if line else 0) for run, line in zip(runs, last, strict=True)
    ]
    images = [
        line.get("images", 0) * step // max(line["step"], 1) if line else 0
        for line, step in zip(last, done, strict=True)
    ]
    origins = [origin(run.environment.get("parent")) for run in runs]
    rows = [
        ("state", [run.state for run in runs]),
        *([("comes from", [text or "-" for text in origins])] if any(origins) else []),
        ("steps", [f"{step:,}" if step else "-" for step in done]),
        ("images seen", [f"{count:,}" if count else "-" for count in images]),
        ("time in training", [time_of(line.get("seconds", 0.0)) if line else "-" for line in last]),
        ("parameters", [f"{count:,}" if count else "-" for count in parameters]),
        ("images in the data", [_kept(run) for run in runs]),
        *([("note", notes)] if any(notes := [_note(run) for run in runs]) else []),
        *([("classes", classes)] if any(classes := [_classes(run) for run in runs]) else []),
        ("device", [str(run.environment.get("device", "-")) for run in runs]),
        ("torch", [str(run.environment.get("packages", {}).get("torch", "-")) for run in runs]),
        ("evaluated at step", [_evaluated_at(run) for run in runs]),
    ]
    return [(name, *cells) for name, cells in rows]


def _note(run: RunData) -> str:
    return unless_damaged(reading.note, run.run.path) or ""


def _kept(run: RunData) -> str:
    kept = run.environment.get("data", {}).get("kept")
    return "-" if kept is None else f"{kept:,}"


def _classes(run: RunData) -> str:
    names = [each["name"] for each in run.environment.get("data", {}).get("classes", [])]
    return f"{len(names):,}: {listed(names, 5)}" if names else ""


def _evaluated_at(run: RunData) -> str:
    return f"{run.evaluation['step']:,}" if run.evaluation else "not evaluated"


def notices(runs: Sequence[RunData]) -> list[str]:
    """Return what makes these runs hard to compare."""
    texts = []
    if len({run.environment.get("data", {}).get("content") for run in runs}) > 1:
        texts.append("They were not trained on the same images.")
    if rows := differences([{"image": run.recipe.get("image")} for run in runs]):
        fields = ", ".join(row[0] for row in rows)
        texts.append(f"Their images differ in {fields}: their figures cannot be compared.")
    missing = [run.name for run in runs if not run.evaluation]
    texts += [f"{name} was not evaluated: vgx eval {name}" for name in missing]
    texts += [text for run in runs if (text := _behind(run))]
    return texts + [text for run in runs for text in run.notices]


def _behind(run: RunData) -> str:
    """Return a notice when a run was evaluated at another step than its last one."""
    steps = [run.step, *(line["step"] for line in run.log[-1:])]  # a stop logs no line
    if not (run.evaluation and run.log) or run.evaluation["step"] == max(steps):
        return ""
    chosen = {"best": "its best checkpoint", "step": "the chosen one"}
    why = chosen.get(run.evaluation.get("checkpoint", ""), "and was trained further since")
    return f"{run.name} was evaluated at step {run.evaluation['step']:,}, {why}."


def evaluation_tables(runs: Sequence[RunData]) -> list[Table]:
    """Return the evaluations of the runs side by side."""
    return side_by_side([run.evaluation for run in runs])


def write(runs: Sequence[RunData], out: Path) -> None:
    """Write the page of several runs."""
    write_file(out, page(gather(runs), "compare"))


def gather(runs: Sequence[RunData]) -> dict[str, Any]:
    """Return all that the page contains, as plain data."""
    rows = differences([run.recipe for run in runs])
    tables = evaluation_tables(runs)
    names = [run.name for run in runs]
    return {
        "kicker": f"{len(runs)} runs compared",
        "name": ", ".join(names[:-1]) + f" and {names[-1]}",
        "runs": names,
        "summary": _summary(runs, rows, tables),
        "notices": notices(runs),
        "facts": facts(runs),
        "differences": rows,
        "metrics": {"note": MARKED, "tables": [asdict(table) for table in tables]},
        "curves": curves.of_runs(names, [run.log for run in runs]),
        "progress": _progress(runs),
        "foot": f"Made by vgx from the files of these runs. {OFFLINE}",
    }


def _summary(
    runs: Sequence[RunData], rows: list[tuple[str, ...]], tables: list[Table]
) -> list[str]:
    where = {0: "in nothing but their names", 1: "in one field"}.get(
        len(rows), f"in {len(rows):,} fields"
    )
    summary = [f"Their recipes differ {where}."]
    for table in tables:
        best: dict[int, list[str]] = {}
        for row in table.rows:
            if row.best is not None:
                best.setdefault(row.best, []).append(row.name.partition(" (")[0])
        texts = [f"{runs[i].name} in {', '.join(names)}" for i, names in sorted(best.items())]
        if texts:
            summary.append(f"Clearly better, {table.title}: {'; '.join(texts)}.")
    return summary


def _progress(runs: Sequence[RunData]) -> dict[str, Any]:
    """Return grids of training: at each place of the slider the newest that each run has."""
    grids = [drawn(run.run) for run in runs]
    places = evenly(sorted({step_of(file) for files in grids for file in files}), PLACES)
    frames = []
    for run, files in zip(runs, grids, strict=True):
        newest = {
            max((file for file in files if step_of(file) <= place), key=step_of, default=None)
            for place in places
        }
        embed = embedding(pixels_of(run.recipe))
        with noticing(run.notices):
            read = [frame(file, run.environment, embed) for file in files if file in newest]
        frames.append([each for each in read if each is not None])
    titles = grid_titles(_sampler(run) for run in runs)
    return {"places": places, "runs": frames, "titles": titles, "notes": _grid_notes(runs)}


def _sampler(run: RunData) -> str:
    sampler = run.recipe.get("sampler")
    return str(sampler.get("type") if isinstance(sampler, dict) else sampler)


def _grid_notes(runs: Sequence[RunData]) -> dict[str, str]:
    """Say whether the grids are of the same latents, and of the same real images."""
    latents = {(str(run.recipe.get("latent")), run.recipe["train"].get("seed")) for run in runs}
    samplers = {str(run.recipe.get("sampler")) for run in runs}
    samples = "Drawn by the sampler of each recipe, with the same random numbers at each step" + (
        " and in each run." if len(latents) == len(samplers) == 1 else "."
    )
    prior = (
        "The same latents at the same places of each grid. Networks that were trained separately "
        "decode them differently."
        if len(latents) == 1
        else "Not the same latents: their shapes or seeds differ."
    )
    contents = {run.environment.get("data", {}).get("content") for run in runs}
    recon = (
        "The same real images, each row above its reconstructions."
        if len(contents) == 1
        else "Not the same real images: the data differ."
    )
    return {"samples": samples, "prior": prior, "recon": recon}
