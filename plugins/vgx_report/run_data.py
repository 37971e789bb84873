"""What the files of a run contain, as plain data for its page."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import vgx
from vgx.data.classes import summary
from vgx.errors import noticing
from vgx.evaluation.tables import spread_of, tables
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.reading import unless_damaged
from vgx_report import curves
from vgx_report import panels as computing
from vgx_report.curves import Lines
from vgx_report.family import branch, family, origin
from vgx_report.tables import listed, number, time_of

FRAMES = 24  # most grids of training
CLASSES = 100  # most classes that are listed
TERMS = 6  # most terms in the summary
FAR = math.log(100)  # nats between the latents of all images and N(0, I)
SIGNALS = {2: "Ctrl-C (SIGINT)", 15: "SIGTERM"}
PRIOR = (
    "Latents from N(0, I) are what the sampler prior draws. The decoder is trained on the latents "
    "of images; the further these are from N(0, I), the less it makes of such draws."
)
NOT_EVALUATED = (
    "Not evaluated yet. vgx eval {run} measures reconstructions, samples and latents, and writes "
    "this page again, with the figures."
)
OFFLINE = "This page loads nothing from a network."


def gather(
    run: Run,
    recipe: vgx.Recipe,
    panels: dict[str, Any],
    notices: list[str],
    read: computing.Read | None = None,
) -> dict[str, Any]:
    """Return all that the page of a run contains; `panels` are those of `panels.compute`.

    `read` gives the grids of training; by default they are embedded.
    """
    notices = [*notices]
    with noticing(notices):  # a damaged file is left out, and the page says so
        lines = run.read_log()
        environment: reading.Environment = unless_damaged(reading.environment, run.path) or {}
        ended = unless_damaged(reading.ended, run.path)
        audit: reading.Audit = unless_damaged(reading.audit, run.path) or {}
        read = read or computing.embedding(recipe.image.height * recipe.image.width, run)
        frames, count = computing.frames(run, environment, FRAMES, read)
        metrics = _metrics(run)
        drawing = _drawing(run) if audit else None
        prior = curves.of_prior(Run(run.path / "prior").read_log()) if recipe.prior else None
        note = unless_damaged(reading.note, run.path)
        forked = branch(run, environment, lines[-1]["step"] if lines else 0)
    last = frames[-1] if frames else {}
    without_step = [{"step": None, "text": text} for text in dict.fromkeys(notices)]
    all_warnings = _warnings(lines) + without_step
    page = {
        "name": recipe.name,
        "kicker": f"Run {run.path.resolve().name}, {ended['how'] if ended else 'not ended'}",
        "summary": _summary(recipe, environment, lines, ended, audit, panels, all_warnings),
        "facts": [("Note", note)] * bool(note) + _facts(environment, lines, ended, audit, panels),
        "warnings": all_warnings,
        "curves": curves.of_run(lines, audit, forked),
        "prior": prior,
        "progress": {
            "frames": frames,
            "titles": computing.grid_titles([environment.get("grids", recipe.sampler.type)]),
            "notes": _progress(frames, count, recipe),
        },
        "hero": _hero(recipe, panels),
        "samples": panels["samples"],
        "samples_note": f"From the checkpoint of step {panels['step'] or 0:,}. Draw more with ",
        "samples_command": f"vgx sample {run.path.name} --sampler TYPE -n {computing.SAMPLES}",
        "reconstructions": {**last["recon"], "note": _reconstructions(last)}
        if "recon" in last
        else None,
        "kl": panels.get("kl"),
        "map": panels.get("map"),
        "neighbours": panels.get("neighbours"),
        "metrics": metrics,
        "audit": {"rows": [], "losses": {}, "flows": [], "notes": [], **audit} if audit else None,
        "drawing": drawing,
        "family": family(run),
        "made": _made(environment, recipe),
        "recipe": reading.recipe_text(run.path),
        "foot": f"Made by vgx from the files of the run {run.path.resolve().name}. {OFFLINE}",
    }
    scrubbed: dict[str, Any] = without_path(page, run)
    return scrubbed


def _drawing(run: Run) -> dict[str, str] | None:
    try:
        return computing.drawing(run)
    except vgx.StorageError as error:  # an older vgx wrote less
        text = f"There is no diagram of the experiment: {error}"
        warnings.warn(text, vgx.Notice, stacklevel=2)
        return None


def without_path(value: Any, run: Run) -> Any:
    """Return a value of the page in which texts have the name of the run instead of its path.

    The page is sent to others, and messages of a run contain its path.
    """
    if isinstance(value, str):
        for path in (run.path.resolve(), run.path.absolute()):
            value = value.replace(str(path), path.name)
        return value
    if isinstance(value, dict):
        return {name: without_path(inner, run) for name, inner in value.items()}
    return [without_path(v, run) for v in value] if isinstance(value, list | tuple) else value


def _hero(recipe: vgx.Recipe, panels: dict[str, Any]) -> str | None:
    """Return the text below the first image of the page: samples of the recipe's own sampler."""
    if not (panels["samples"] and "image" in panels["samples"][0]):
        return None
    return f"Drawn by the recipe's sampler, {recipe.sampler.type}, at step {panels['step']:,}."


# --- the head of the page ----------------------------------------------------------------------


def _summary(
    recipe: vgx.Recipe,
    environment: reading.Environment,
    lines: Lines,
    ended: reading.Ended | None,
    audit: reading.Audit,
    panels: dict[str, Any],
    warnings: list[dict[str, Any]],
) -> list[str | list[str]]:
    """Return the sentences of the head: a text, or a verdict and the figures that decide it."""
    names = [f"{name} {part.type}" for name, part in recipe.networks.items()]
    parameters = sum(row["parameters"] for row in audit.get("rows", []))
    many = f"{parameters / 1e6:,.1f} million" if parameters >= 1e6 else f"{parameters:,}"
    size = f", {many} parameters in all" if parameters else ""
    kept = environment.get("data", {}).get("kept")
    data = "images" if kept is None else f"{kept:,} images"
    trained = (
        f"Trained {listed(names)}{size}, on {data} of the data set {recipe.dataset.type} at "
        f"{recipe.image.height} x {recipe.image.width} pixels."
    )
    summary: list[str | list[str]] = [trained, _ending(ended, lines)]
    if text := origin(environment.get("parent")):
        summary.append(f"It is {text}.")
    if text := trend(lines):
        summary.append(text)
    if "kl" in panels:
        active, total = sum(panels["kl"]["active"]), len(panels["kl"]["active"])
        summary.append(f"{active:,} of {total:,} latent dimensions are active.")
    if "from_prior" in panels and (verdict := on_prior(panels["from_prior"], recipe)):
        summary.append(verdict)
    if "neighbours" in panels:
        summary.append(on_copies(panels["neighbours"]))
    steps = [warning["step"] for warning in warnings if warning["step"]]
    if steps:
        count = f"{len(steps):,} warnings" if len(steps) > 1 else "One warning"
        summary.append(f"{count} during training, the first at step {steps[0]:,}.")
    return summary


def on_prior(nats: float, recipe: vgx.Recipe) -> list[str]:
    """Return a verdict on the sampler `prior` and its figures, when the latents are too far off.

    If latents are n nats away, about one draw from N(0, I) in exp(n) lies among them (Chatterjee
    and Diaconis 2018); `FAR` is one in a hundred.
    """
    if nats < FAR or recipe.decodes_prior:  # then the decoder was trained on N(0, I) too
        return []
    own = recipe.sampler.type if recipe.sampler.least_codes else "aggregate-gaussian"
    has_kl = any(loss.type == "kl" for loss in recipe.losses)
    advice = ", or raise the weight of kl" if has_kl else ""
    draws = f"{math.exp(nats):,.0f}" if nats < 14 else f"10^{nats / math.log(10):.0f}"
    figures = (
        f"Over all images the latents are at least {nats:.3g} nats of KL away from N(0, I), from "
        f"which prior draws: about one draw in {draws} lies where the decoder was trained."
    )
    return [f"The sampler prior draws poor images here; use {own}{advice}.", figures]


def on_copies(near: dict[str, Any]) -> list[str]:
    """Return a verdict on whether samples are copies of training images, and its figures."""
    count, of = near["copies"], near["samples"]
    verdict = f"None of {of:,} samples looks like a copy of a training image."
    if count:
        verdict = f"{count:,} of {of:,} samples may be copies of training images: look below."
    figures = (
        f"The one most like a copy is {near['ratio']:.2f} times as far from its nearest training "
        f"image as from its nearest {near['around']} on average; below {computing.COPY:g} it may "
        f"be a copy."
    )
    return [verdict, figures]


def _ending(ended: reading.Ended | None, lines: Lines) -> str:
    last = lines[-1]["step"] if lines else 0
    if not ended:
        return (
            f"Its end is not noted: it is still training, or was killed. The last line of its log "
            f"is of step {last:,}."
        )
    step, of = ended["step"], ended["of"]
    if ended["how"] == "done":
        time = f" in {time_of(lines[-1].get('seconds', 0.0))}" if lines else ""
        if step < of:
            return f"It ended early at step {step:,} of {of:,}{time}: {ended.get('message', '')}."
        return f"It ran to its end: {step:,} steps{time}."
    if ended["how"] == "stopped":
        number = ended.get("signal") or 0
        signal = SIGNALS.get(number, f"signal {number}")
        return f"It was stopped by {signal} at step {step:,} of {of:,}, and saved there."
    how = "It diverged" if ended["how"] == "diverged" else "It failed"
    return f"{how} at step {step:,} of {of:,}: {ended.get('message', '')}"


def trend(lines: Lines) -> str:
    """Return the first value of each term, and its mean over the last tenth of the log."""
    logged = [line for line in lines if line.get("losses")]
    if len(logged) < 2:
        return ""
    tail = logged[-max(len(logged) // 10, 1) :]
    texts = []
    for name in list(logged[0]["losses"])[:TERMS]:
        values = [number(line["losses"].get(name)) for line in (logged[0], *tail)]
        known = [value for value in values if value is not None]
        if len(known) != len(values):
            continue
        first, last = known[0], sum(known[1:]) / len(tail)
        if abs(last - first) <= 0.05 * abs(first):
            texts.append(f"{name} stayed near {last:.3g}")
        else:
            moved = "fell" if last < first else "rose"
            texts.append(f"{name} {moved} from {first:.3g} to {last:.3g}")
    when = f"From step {logged[0]['step']:,} to the last tenth of the log"
    return f"{when}: {listed(texts)}." if texts else ""


def _facts(
    environment: reading.Environment,
    lines: Lines,
    ended: reading.Ended | None,
    audit: reading.Audit,
    panels: dict[str, Any],
) -> list[tuple[str, str]]:
    facts = []
    if lines:
        line = lines[-1]
        done = max(line["step"], ended["step"] if ended else 0)
        images, seconds = line.get("images", 0), line.get("seconds", 0.0)
        facts.append(("Steps", f"{done:,} of {ended['of']:,}" if ended else f"{done:,}"))
        facts.append(("Epochs", f"{line.get('epoch', 0.0):,.1f}"))
        facts.append(("Images seen", f"{images:,}"))
        facts.append(("Time in training", time_of(seconds)))
        if seconds:
            facts.append(("Images per second", f"{images / seconds:,.1f}"))
    if (kept := environment.get("data", {}).get("kept")) is not None:
        facts.append(("Images in the data", f"{kept:,}"))
    if classes := environment.get("data", {}).get("classes"):
        facts.append(("Classes", f"{len(classes):,}"))
    facts += [
        (f"Parameters, {row['network']}", f"{row['parameters']:,}") for row in audit.get("rows", [])
    ]
    if panels["step"] is not None:
        facts.append(("Checkpoint", f"step {panels['step']:,}"))
    facts.append(("Device", str(environment.get("device", "unknown"))))
    return facts


def _warnings(lines: Lines) -> list[dict[str, Any]]:
    """Return the notices and warnings of the log, each with its step."""
    return [
        {"step": line["step"], "text": text}
        for line in lines
        for text in (*line.get("notices", []), *line.get("warnings", []))
    ]


# --- tables ---------------------------------------------------------------------------------------


def _metrics(run: Run) -> dict[str, Any] | None:
    """Return the tables of the run's evaluation, or how to make one; None for a damaged one."""
    results = unless_damaged(reading.evaluation, run.path)
    if not results:
        there = os.path.lexists(run.path / "evaluation.json")
        return None if there else {"notes": [NOT_EVALUATED.format(run=run.path.name)], "tables": []}
    try:
        rows = [
            {"title": title, "header": header, "rows": rows}
            for title, header, rows in tables(results)
        ]
        seeds, step = len(results["seeds"]), results["step"]
    except LookupError as error:
        text = f"left out: {run.path / 'evaluation.json'}: {error}: missing"
        warnings.warn(text, vgx.Notice, stacklevel=2)
        return None
    note = f"Measured at step {step:,}; {spread_of(seeds)}."
    return {"notes": [note, *results.get("notices", [])], "tables": rows}


def _made(environment: reading.Environment, recipe: vgx.Recipe) -> list[tuple[str, str]]:
    """Return what the run was made with: data, device, versions."""
    data: Mapping[str, Any] = environment.get("data", {})
    made = [("Data set", data.get("dataset", recipe.dataset.type))]
    if "kept" in data:
        made.append(("Images kept", f"{data['kept']:,}"))
    if classes := [(each["name"], each["count"]) for each in data.get("classes", [])]:
        made.append(("Labels", summary(classes, CLASSES)))
    made += [(f"Dropped, {why}", f"{n:,}") for why, n in data.get("dropped", {}).items()]
    if count := data.get("bad", {}).get("count"):
        made.append(("Unreadable", f"{count:,}"))
    made += [
        (name, str(environment.get(key)))
        for name, key in (
            ("Started", "started"), ("Device", "device"), ("Threads", "threads"),
            ("Platform", "platform"), ("vgx", "vgx"), ("Python", "python"), ("Commit", "git"),
        )
        if environment.get(key) is not None
    ]  # fmt: skip
    made += [(name, str(version)) for name, version in environment.get("packages", {}).items()]
    plugins = [
        f"{plugin.get('distribution', plugin['name'])} {plugin['version']}"
        for plugin in environment.get("plugins", [])
    ]
    made.append(("Plugins", ", ".join(dict.fromkeys(plugins))))
    if data.get("content"):
        made.append(("SHA-256 of the images", data["content"][:16]))
    return made


# --- texts -------------------------------------------------------------------------------------


def _progress(frames: list[dict[str, Any]], count: int, recipe: vgx.Recipe) -> list[str]:
    """Return notes on the grids of training."""
    some = f"{len(frames):,} of {count:,} steps, evenly chosen. " if count > len(frames) else ""
    notes = [f"{some}The same random numbers and the same real images at each step."]
    if any("prior" in frame for frame in frames) and not recipe.decodes_prior:
        notes.append(PRIOR)
    return notes


def _reconstructions(last: dict[str, Any]) -> str:
    step = f"{last['step']:,}"
    return f"The first images of the data, each row above its reconstructions, at step {step}."
