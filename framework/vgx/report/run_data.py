"""What a run's files say: the account of it that a report shows, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vgx.errors import StorageError
from vgx.evaluation import tables as figures
from vgx.evaluation.tables import number, time_of
from vgx.recipe.model import Recipe
from vgx.report import panels as exhibits
from vgx.runs.directory import Run
from vgx.runs.frames import evenly
from vgx.runs.summary import read_json

LINES = 1500  # of the log, in a curve
FRAMES = 24  # pictures of training
TOLD = 6  # terms that the summary speaks of
NAMED = {2: "Ctrl-C (SIGINT)", 15: "SIGTERM"}


def gather(run: Run, recipe: Recipe, shown: dict[str, Any], notices: list[str]) -> dict[str, Any]:
    """Return all that the page shows, as plain data."""
    lines, about = run.read_log(), read_json(run, "environment.json")
    ended, audit = read_json(run, "ended.json"), read_json(run, "audit.json")
    frames, count = exhibits.frames(run, FRAMES)
    last = frames[-1] if frames else {}
    curves = _curves(lines, audit)
    drawing = None
    if audit:
        try:
            drawing = exhibits.drawing(run, recipe)
        except StorageError as error:  # of an older vgx, which noted less
            notices = [*notices, f"The experiment is not drawn: {error}"]
    warnings = _warnings(lines) + [{"step": None, "text": text} for text in notices]
    return {
        "name": recipe.name,
        "kicker": f"Run {run.path.resolve().name}, {ended.get('how', 'not ended')}",
        "summary": _summary(recipe, about, lines, ended, audit, shown, warnings),
        "facts": _facts(about, lines, ended, audit, shown),
        "warnings": warnings,
        "curves": curves,
        "progress": {"frames": frames, "note": _progress(len(frames), count)},
        "samples": shown["samples"],
        "samples_note": f"Of the checkpoint of step {shown['step'] or 0:,}. More of them: ",
        "samples_command": f"vgx sample {run.path.name} --sampler TYPE -n {exhibits.DRAWN}",
        "reconstructions": {**last["recon"], "note": _reconstructions(last)}
        if "recon" in last
        else None,
        "kl": shown.get("kl"),
        "map": shown.get("map"),
        "neighbours": shown.get("neighbours"),
        "metrics": _metrics(run),
        "audit": audit or None,
        "drawing": drawing,
        "made": _made(about, recipe),
        "recipe": run.recipe_file.read_text(encoding="utf-8"),
        "foot": f"Made by vgx from the files in {run.path}. This page asks no network for more.",
    }


def _summary(
    recipe: Recipe,
    about: dict[str, Any],
    lines: list[dict[str, Any]],
    ended: dict[str, Any],
    audit: dict[str, Any],
    shown: dict[str, Any],
    warnings: list[dict[str, Any]],
) -> list[str]:
    parts = (recipe.encoder, recipe.decoder, recipe.discriminator)
    named = [f"{part.kind} {part.type}" for part in parts if part is not None]
    weights = sum(row["parameters"] for row in audit.get("rows", []))
    size = f", {_short(weights)} weights in all" if weights else ""
    kept = about.get("data", {}).get("kept")
    data = f"{kept:,} pictures" if isinstance(kept, int) else "pictures"
    pixels = recipe.image.size
    what = (
        f"Trained {_listed(named)}{size}, on {data} of the data set {recipe.dataset.type} at "
        f"{pixels} x {pixels} pixels."
    )
    said = [what, _ending(ended, lines)]
    if trend := _trend(lines):
        said.append(trend)
    if "kl" in shown:
        used, total = sum(shown["kl"]["active"]), len(shown["kl"]["active"])
        said.append(f"{used:,} of {total:,} latent dimensions are in use.{_gap(shown['kl'])}")
    if "neighbours" in shown:
        near = shown["neighbours"]
        said.append(
            f"The sample most like a copy is {near['rows'][0]['ratio']:.2f} times as far from its "
            f"nearest training picture as from its nearest {near['around']} on average."
        )
    counted = [warning for warning in warnings if warning["step"]]
    if counted:
        first = counted[0]["step"]
        many = f"{len(counted):,} warnings" if len(counted) > 1 else "One warning"
        said.append(f"{many} while it trained, the first at step {first:,}.")
    return said


def _gap(kl: dict[str, Any]) -> str:
    """Say why pictures of the prior are what they are, when its latents are none of the data's."""
    if kl["gap"] < 1:
        return ""
    return (
        f" A posterior lies {kl['total']:.4g} nats from N(0, I) on average, and all of them "
        f"together at least {kl['gap']:.4g}: the decoder learned on other latents than the sampler "
        f"prior draws."
    )


def _ending(ended: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    last = lines[-1]["step"] if lines else 0
    if not ended:
        return (
            f"No end is noted: it is still training, or was killed. The last line of its log is "
            f"of step {last:,}."
        )
    step, of = ended["step"], ended["of"]
    if ended["how"] == "done":
        spent = f" in {time_of(lines[-1]['seconds'])}" if lines else ""
        return f"It ran to its end: {step:,} steps{spent}."
    if ended["how"] == "stopped":
        by = NAMED.get(ended["signal"], f"signal {ended['signal']}")
        return f"It was stopped by {by} at step {step:,} of {of:,}, and saved there."
    word = "It diverged" if ended["how"] == "diverged" else "It failed"
    return f"{word} at step {step:,} of {of:,}: {ended['message']}"


def _trend(lines: list[dict[str, Any]]) -> str:
    """Say of each term where it began, and where it was in the last tenth of the log."""
    logged = [line for line in lines if line.get("losses")]
    if len(logged) < 2:
        return ""
    tail = logged[-max(len(logged) // 10, 1) :]
    told = []
    for name in list(logged[0]["losses"])[:TOLD]:
        values = [number(line["losses"].get(name)) for line in (logged[0], *tail)]
        known = [value for value in values if value is not None]
        if len(known) != len(values):
            continue
        first, last = known[0], sum(known[1:]) / len(tail)
        step = "stayed near" if abs(last - first) <= 0.05 * abs(first) else "fell from"
        if step == "stayed near":
            told.append(f"{name} stayed near {last:.3g}")
        else:
            told.append(
                f"{name} {'fell' if last < first else 'rose'} from {first:.3g} to {last:.3g}"
            )
    when = f"From step {logged[0]['step']:,} to the last {len(tail):,} logged"
    return f"{when}: {_listed(told)}." if told else ""


def _facts(
    about: dict[str, Any],
    lines: list[dict[str, Any]],
    ended: dict[str, Any],
    audit: dict[str, Any],
    shown: dict[str, Any],
) -> list[tuple[str, str]]:
    facts = []
    if lines:
        line = lines[-1]
        done = max(line["step"], ended.get("step") or 0)
        facts.append(("Steps", f"{done:,} of {ended['of']:,}" if ended else f"{done:,}"))
        facts.append(("Epochs", f"{line['epoch']:,.1f}"))
        facts.append(("Pictures seen", f"{line['images']:,}"))
        facts.append(("Time in training", time_of(line["seconds"])))
        if line["seconds"]:
            facts.append(("Pictures a second", f"{line['images'] / line['seconds']:,.1f}"))
    if isinstance(kept := about.get("data", {}).get("kept"), int):
        facts.append(("Pictures in the data", f"{kept:,}"))
    facts += [
        (f"Weights, {row['network']}", f"{row['parameters']:,}") for row in audit.get("rows", [])
    ]
    if shown["step"] is not None:
        facts.append(("Checkpoint shown", f"step {shown['step']:,}"))
    facts.append(("Device", str(about.get("device", "unknown"))))
    return facts


def _curves(lines: list[dict[str, Any]], audit: dict[str, Any]) -> dict[str, Any] | None:
    """Return the logged numbers in groups: generator, discriminator, rates, metrics."""
    logged = [line for line in lines if line.get("losses")]
    norms = {flow["label"]: flow["norms"] for flow in audit.get("flows", [])}

    def player(name: str) -> str:
        moved = {network for network, norm in norms.get(name, {}).items() if norm is not None}
        of_it = moved == {"discriminator"} or name.endswith(".discriminator")
        return "discriminator" if of_it else "generator"

    # A line that is flat from end to end shows nothing: it is said instead.
    rates: dict[str, set[float]] = {}
    for line in logged:
        for name, rate in line.get("rates", {}).items():
            rates.setdefault(name, set()).add(rate)
    steady = [f"{name} {min(values):g}" for name, values in rates.items() if len(values) == 1]
    groups = [
        _group("Generator's terms", logged, "losses", lambda name: player(name) == "generator"),
        _group("Discriminator's terms", logged, "losses", lambda n: player(n) == "discriminator"),
        _group("Learning rates", logged, "rates", lambda name: len(rates[name]) > 1),
        _group(
            "Metrics", [line for line in lines if line.get("metrics")], "metrics", lambda _: True
        ),
    ]
    shown = [group for group in groups if group["lines"]]
    if not shown:
        return None
    note = f"{len(logged):,} logged steps; losses are unweighted."
    if len(logged) > LINES:
        note = f"{LINES:,} of {note}"
    if steady:
        note += f" Learning rates that never changed: {_listed(steady)}."
    return {"groups": shown, "note": note + " Point at a chart to read its values at a step."}


def _group(
    title: str, lines: list[dict[str, Any]], field: str, mine: Callable[[str], bool]
) -> dict[str, Any]:
    chosen = evenly(lines, LINES)
    names = dict.fromkeys(name for line in chosen for name in line.get(field, {}) if mine(name))
    values = {name: [number(line.get(field, {}).get(name)) for line in chosen] for name in names}
    known = {name: row for name, row in values.items() if any(v is not None for v in row)}
    return {"title": title, "steps": [line["step"] for line in chosen], "lines": known}


def _warnings(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the log's notices and warnings, each with the step at which it arose."""
    return [
        {"step": line["step"], "text": str(text)}
        for line in lines
        for text in (*line.get("notices", []), *line.get("warnings", []))
    ]


def _metrics(run: Run) -> dict[str, Any] | None:
    """Return the tables of the run's evaluation, when there was one."""
    said = read_json(run, "evaluation.json")
    if not said:
        return None
    seeds = len(said["seeds"])
    note = f"Measured at step {said['step']:,}; ± is the standard deviation over {seeds} seeds."
    shown = [
        {"title": title, "header": header, "rows": rows}
        for title, header, rows in figures.tables(said)
    ]
    return {"notes": [note, *said["notices"]], "tables": shown}


def _made(about: dict[str, Any], recipe: Recipe) -> list[tuple[str, str]]:
    data = about.get("data", {})
    made = [("Data set", str(data.get("dataset", recipe.dataset.type)))]
    if isinstance(data.get("kept"), int):
        made.append(("Pictures kept", f"{data['kept']:,}"))
    made += [(f"Dropped, {why}", f"{n:,}") for why, n in data.get("dropped", {}).items()]
    if count := data.get("bad", {}).get("count"):
        made.append(("Unreadable", f"{count:,}"))
    made += [
        (name, str(about[key]))
        for name, key in (
            ("Started", "started"), ("Device", "device"), ("Threads", "threads"),
            ("Platform", "platform"), ("vgx", "vgx"), ("Python", "python"), ("Commit", "git"),
        )
        if about.get(key) is not None
    ]  # fmt: skip
    made += [(name, str(version)) for name, version in about.get("packages", {}).items()]
    plugins = [
        f"{plugin['distribution']} {plugin['version']}" for plugin in about.get("plugins", [])
    ]
    made.append(("Plugins", ", ".join(dict.fromkeys(plugins))))
    if data.get("content"):
        made.append(("Pictures' SHA-256", str(data["content"])[:16]))
    return made


# --- how it is said ----------------------------------------------------------------------------


def _progress(shown: int, count: int) -> str:
    chosen = f"{shown:,} of {count:,} pictures, evenly chosen. " if count > shown else ""
    return f"{chosen}The same latents, and the same pictures, at each step."


def _reconstructions(last: dict[str, Any]) -> str:
    step = f"{last['step']:,}"
    return f"The first pictures of the data, each row above its reconstructions, at step {step}."


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _short(count: int) -> str:
    return f"{count / 1e6:,.1f} million" if count >= 1e6 else f"{count:,}"
