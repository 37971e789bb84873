"""An experiment as a diagram: networks, what updates them, which terms reach them, what it costs.

All of it comes from a recipe, as plain data, and from the audit before its first step, which a run
has in `audit.json`. So no part is needed, and nothing of a run is executed. Nothing is computed
here, and nothing imports torch.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

import vgx
from vgx.data.cache import format_bytes
from vgx.output import visible
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.summary import summarize

PLAYERS = ("generator", "discriminator")
WEIGHT: TypeAdapter[float | vgx.Schedule | vgx.Adaptive | vgx.Share] = TypeAdapter(vgx.Weight)
RATE: TypeAdapter[float | vgx.Schedule] = TypeAdapter(vgx.Rate)


@dataclass(frozen=True)
class Box:
    """Something that images or latents pass."""

    name: str
    shapes: str
    about: str
    network: bool = True


@dataclass(frozen=True)
class Term:
    """One player's term of a loss: its weight over the training, and its gradient norms."""

    label: str
    player: str
    weights: tuple[str, str, str]  # at the first step, halfway, at the last step
    reaches: dict[str, float | None]  # gradient norms by network; None where it moves nothing


@dataclass(frozen=True)
class Explanation:
    """What a diagram contains."""

    name: str
    boxes: list[Box]  # in the order in which an image passes them
    terms: list[Term]
    movers: list[str]  # which optimizer updates which networks
    costs: list[str]  # memory and time
    notes: list[str]


def explain(
    recipe: Mapping[str, Any], audit: Mapping[str, Any], steps: int, pace: str = ""
) -> Explanation:
    """Explain a recipe that trains for `steps` steps; `audit` is the content of `audit.json`.

    The recipe is complete, as a run has it in `recipe.yaml`. Raises `vgx.StorageError` when recipe
    or audit are not as a run writes them.
    """
    try:
        plain, measured = _printable(dict(recipe)), _printable(dict(audit))
        return Explanation(
            str(plain["name"]),
            _boxes(plain, {row["network"]: row for row in measured["rows"]}),
            [_term(plain, flow, steps) for flow in measured["flows"]],
            _movers(plain, [row["network"] for row in measured["rows"]], steps),
            [*_memory(plain, measured["need"]), *([pace] if pace else [])],
            [str(note) for note in measured["notes"]],
        )
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        kind = type(error).__name__
        message = f"audit.json or recipe.yaml is not as a run writes it: {kind}: {error}"
        raise vgx.StorageError(message) from error


def _printable(value: Any) -> Any:
    """Return plain data whose texts have nothing that a terminal obeys or that SVG cannot have."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list | tuple) else value


def of_run(run: Run) -> Explanation:
    """Explain a run from its own files; none of its parts need to be installed.

    Raises `vgx.StorageError` when it lacks `recipe.yaml` or `audit.json`, or when they are not as a
    run writes them.
    """
    recipe, audit = reading.recipe(run.path), reading.audit(run.path)
    if audit is None:
        raise vgx.StorageError(f"{run.path / 'audit.json'}: missing")
    line = reading.unless_damaged(reading.last_line, run.path)
    steps = summarize(run).of or recipe["train"].get("steps") or 1
    pace = ""
    if line and line.get("losses"):
        time = duration(line.get("seconds", 0.0))
        pace = f"Time: {time} for the first {line['step']:,} of {steps:,} steps, by its log."
    return explain(recipe, audit, steps, pace)


def _boxes(recipe: dict[str, Any], rows: dict[str, Any]) -> list[Box]:
    latent, size = recipe["latent"], recipe["image"]["size"]
    height, width = size if isinstance(size, list) else (size, size)
    shape = "x".join(map(str, latent if isinstance(latent, list) else [latent]))
    augmentations = ", ".join(_type(part) for part in recipe.get("augment", []))
    images = Box(
        "images",
        f"{recipe['image'].get('channels', 3)}x{height}x{width}",
        _type(recipe["dataset"]) + (f"; augmented by {augmentations}" if augmentations else ""),
        network=False,
    )
    prior = "" if recipe.get("encoder") else "drawn from N(0, I)"
    latents = Box("latent", shape, prior, network=False)
    names = {"recon": "reconstructions", "prior": "decoded N(0, I)"}
    fakes = " and ".join(names[fake] for fake in recipe["train"]["fakes"])
    judges = [name for name in rows if name not in ("encoder", "decoder")]
    order: list[Box | str] = [images, "encoder", latents, "decoder", *judges]
    if not recipe.get("encoder"):
        order = [latents, "decoder", *judges]
    boxes: list[Box] = []
    for box in order:
        if isinstance(box, Box):
            boxes.append(box)
        elif box in rows:
            row = rows[box]
            fixed = row["parameters"] - row["trained"]
            about = f"{row['part']}, {row['parameters']:,} parameters"
            about += f", {fixed:,} of them fixed" if fixed else ""
            about += _scored(row["shapes"], images, fakes) if of_discriminator(box) else ""
            boxes.append(Box(box, row["shapes"], about))
    return boxes


def of_discriminator(network: str) -> bool:
    """Return whether the discriminator's optimizer has a network of the audit."""
    return network.startswith(("discriminator", "loss "))


def _scored(shapes: str, images: Box, fakes: str) -> str:
    """Return what a discriminator should tell apart, which its shapes show."""
    judged = shapes.partition(" -> ")[0]
    if ", " in judged:
        return "; real: images with latents, fake: decoded N(0, I) with these draws"
    if judged == images.shapes:
        return f"; real: images, fake: {fakes}"
    return "; real: N(0, I), fake: latents" if judged else ""


def label_of(loss: Mapping[str, Any]) -> str:
    """Return the name of a loss of a recipe in logs."""
    about = loss.get("discriminator")
    return str(loss.get("name") or _type(loss) + (f"-{about}" if about else ""))


def _type(part: Mapping[str, Any]) -> str:
    """Return the type of a part, which a recipe may name with its plugin: "plugin:type"."""
    return str(part["type"]).rpartition(":")[2]


def _term(recipe: dict[str, Any], flow: dict[str, Any], steps: int) -> Term:
    label, norms = flow["label"], dict(flow["norms"])
    name, _, player = label.rpartition(".")
    losses = {label_of(loss): loss for loss in recipe["losses"]}
    # "hinge.generator" is one of two terms of a loss; other labels are those of the losses.
    of_both = player in PLAYERS and name in losses
    if not of_both:
        moved = {network for network, norm in norms.items() if norm is not None}
        name, player = label, PLAYERS[bool(moved) and all(map(of_discriminator, moved))]
    own = of_both and player == "discriminator"
    first, middle, last = (
        _weight(losses[name], step, unweighted=own) for step in (0, steps // 2, max(steps - 1, 0))
    )
    return Term(label, player, (first, middle, last), norms)


def _weight(loss: dict[str, Any], step: int, *, unweighted: bool) -> str:
    """Return the weight of a term at a step as text.

    A term that is computed every few steps counts accordingly more then, so `every` does not change
    the weight here.
    """
    weight = WEIGHT.validate_json(json.dumps(loss.get("weight", 1.0)))
    counts = loss.get("start", 0) <= step < (loss.get("stop") or math.inf)
    if not counts or (isinstance(weight, vgx.Adaptive | vgx.Share) and step < weight.after):
        return "0"
    if unweighted:
        return "1"
    if isinstance(weight, vgx.Adaptive):
        factor = f"{weight.factor:g} x " if weight.factor != 1 else ""
        return f"{factor}level with {', '.join(weight.against)}"
    if isinstance(weight, vgx.Share):
        return f"share {weight.share:g}"
    return f"{vgx.at(weight, step):.4g}"


def _movers(recipe: dict[str, Any], rows: Sequence[str], steps: int) -> list[str]:
    train = recipe["train"]
    frozen = train.get("freeze", [])
    trained = [name for name in ("encoder", "decoder") if recipe.get(name) and name not in frozen]
    networks = " and ".join(trained)
    moves = [f"The generator's optimizer updates {networks}: {_optimizer(train, 'generator')}."]
    moves += [f"The {name} is frozen: nothing updates it." for name in frozen]
    judges = [name for name in rows if of_discriminator(name)]
    if "discriminator" in frozen:
        judges = [name for name in judges if not name.startswith("discriminator")]
    if judges:
        each = train.get("discriminator_steps", 1)
        times = f", {each} times a step" if each > 1 else ""
        moves.append(
            f"The discriminator's optimizer updates the {' and the '.join(judges)}: "
            f"{_optimizer(train, 'discriminator')}{times}."
        )
        first = train["order"].partition("-")[0]
        moves.append(f"In each of the {steps:,} steps the {first} is updated first.")
    if train.get("ema") is not None:
        moves.append(f"Sampling uses averaged weights, decay {train['ema']:g}.")
    return moves


def _optimizer(train: dict[str, Any], player: str) -> str:
    settings = train["optimizers"][player]
    rate = RATE.validate_json(json.dumps(settings["lr"]))
    if isinstance(rate, vgx.Schedule):
        text = f"{rate.start:g} to {rate.to:g} over {rate.steps:,} steps, {rate.shape}"
    else:
        text = f"{rate:g}"
    warmup = f", warm-up {settings['warmup']:,} steps" if settings.get("warmup") else ""
    return f"{settings['type']}, learning rate {text}{warmup}"


def _memory(recipe: dict[str, Any], need: dict[str, Any]) -> list[str]:
    piece = recipe["train"]["batch"] // recipe["train"].get("accumulate", 1)
    whole = need["fixed"] + piece * need["each"]
    total, available, fixed = (format_bytes(int(n)) for n in (whole, need["there"], need["fixed"]))
    parts = (
        f"{fixed} for weights, gradients and optimizers, {format_bytes(int(need['each']))} for each"
    )
    return [f"Memory: at least {total} of {available}: {parts} of {piece:,} images at once."]


def duration(seconds: float) -> str:
    """Return a time in one unit: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


# --- as text -----------------------------------------------------------------------------------


def chain(explanation: Explanation) -> list[str]:
    """Return the boxes as lines, from top to bottom."""
    names = max(len(box.name) for box in explanation.boxes)
    shapes = max(len(box.shapes) for box in explanation.boxes)
    lines: list[str] = []
    for box in explanation.boxes:
        lines += ["  |"] if lines else []
        lines.append(f"{box.name:<{names}}  {box.shapes:<{shapes}}  {box.about}".rstrip())
    return lines


def table(explanation: Explanation) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return header and rows: the weight and the gradient norms of each term."""
    networks = [box.name for box in explanation.boxes if box.network]
    header = ("term", "of", "weight", "halfway", "at the end", *networks)
    rows = [
        (term.label, term.player, *term.weights, *(_norm(term.reaches.get(n)) for n in networks))
        for term in explanation.terms
    ]
    return header, [*rows]


def _norm(norm: float | None) -> str:
    return "-" if norm is None else f"{norm:.3g}"


# --- as SVG ------------------------------------------------------------------------------------

WIDE, LEFT, ROW, GAP = 1100, 240, 26, 16
STYLE = """
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:#1c1d1f}
.name{font-weight:650;font-size:14px}.soft{fill:#5a5e63;font-size:12px}
.end{text-anchor:end}.middle{text-anchor:middle}
.ground{fill:#fcfcfb}.box{fill:#f4f3f0;stroke:#0a6375}.latent{fill:none;stroke:#8b8f94}
.arrow{stroke:#5a5e63;fill:none}.row{stroke:#dddad4}.g{fill:#0a6375}.d{fill:#b8540c}
@media (prefers-color-scheme:dark){text{fill:#e7e6e3}.soft{fill:#a4a8ad}.ground{fill:#16181a}
.box{fill:#202326;stroke:#6cc5d8}.latent{stroke:#a4a8ad}.arrow{stroke:#a4a8ad}.row{stroke:#373b40}
.g{fill:#6cc5d8}.d{fill:#f0a35e}}
"""


def svg(explanation: Explanation) -> str:
    """Return the diagram as SVG: the boxes in a row, and below each the terms that move it."""
    width = (WIDE - LEFT - GAP) / len(explanation.boxes)
    middles = [LEFT + (i + 0.5) * width for i in range(len(explanation.boxes))]
    parts = [_text(GAP, 40, explanation.name, "name")]
    for i, (box, x) in enumerate(zip(explanation.boxes, middles, strict=True)):
        half = width / 2 - 14
        arrow = f'<path class="arrow" d="M{x - half - 27:.1f} 46h22l-5 -4m5 4l-5 4"/>'
        parts += [arrow] if i and _follows(explanation, i) else []
        parts.append(f'<rect class="{"box" if box.network else "latent"}" x="{x - half:.1f}" '
                     f'y="18" width="{2 * half:.1f}" height="56" rx="4"/>')  # fmt: skip
        # A letter of a name takes about 8.5 pixels.
        parts += _in_box(box, x, int(2 * half / 8.5))
        about = box.about.partition(";")[0].split(", ")
        parts += [_text(x, 92 + 16 * n, line, "soft middle") for n, line in enumerate(about)]
    y = 170
    parts.append(_text(GAP, y - 8, "Term, and its weight", "soft"))
    parts.append(_text(LEFT + width / 2, y - 8, "A dot where it moves a network; beside it the "
                       "norm of its gradient before the first step", "soft"))  # fmt: skip
    for term in explanation.terms:
        parts.append(f'<path class="row" d="M{GAP} {y}H{WIDE - GAP}"/>')
        first, _, last = term.weights
        weight = first if first == last else f"{first} to {last}"
        parts.append(_text(GAP, y + 18, term.label.removesuffix(f".{term.player}")))
        parts.append(_text(LEFT + 20, y + 18, weight, "soft end"))
        for box, x in zip(explanation.boxes, middles, strict=True):
            if term.reaches.get(box.name) is not None:
                parts.append(f'<circle class="{term.player[0]}" cx="{x - 24:.1f}" cy="{y + 13}" '
                             'r="5"/>')  # fmt: skip
                parts.append(_text(x - 12, y + 18, _norm(term.reaches[box.name]), "soft"))
        y += ROW
    y += 10
    parts += [f'<circle class="g" cx="{GAP + 5}" cy="{y + 13}" r="5"/>',
              _text(GAP + 18, y + 18, "of the generator", "soft"),
              f'<circle class="d" cx="{GAP + 145}" cy="{y + 13}" r="5"/>',
              _text(GAP + 158, y + 18, "of the discriminator", "soft")]  # fmt: skip
    y += 46
    for line in (*explanation.movers, *explanation.costs, *explanation.notes):
        for piece in _folded(line):
            parts.append(_text(GAP, y, piece, "soft"))
            y += 18
    title = f"<title>{html.escape(explanation.name)}: networks and the terms that move them</title>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {y}" width="{WIDE}" '
        f'height="{y}" role="img">{title}<style>{STYLE}</style>'
        f'<rect class="ground" width="{WIDE}" height="{y}"/>{"".join(parts)}</svg>\n'
    )


def _follows(explanation: Explanation, place: int) -> bool:
    """Return whether a box takes what the box before it gives.

    Discriminators stand side by side, and only one that takes images follows the decoder.
    """
    before, box = explanation.boxes[place - 1], explanation.boxes[place]
    images = before.shapes.rpartition(" ")[2]
    first = before.name == "decoder" and box.shapes.startswith(images)
    return first or not of_discriminator(box.name)


def _in_box(box: Box, x: float, letters: int) -> list[str]:
    """Return the texts in a box: what it is, its own name if it has one, and its shapes."""
    kind, _, own = box.name.partition(" ")
    if not own:
        return [_text(x, 41, kind, "name middle"), _text(x, 61, box.shapes, "soft middle")]
    shown = own if len(own) <= letters else f"{own[: letters - 1]}\u2026"
    lines = ((34, kind, "soft middle"), (50, shown, "name middle"), (66, box.shapes, "soft middle"))
    return [_text(x, y, text, style) for y, text, style in lines]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{named}>{html.escape(text)}</text>'


def _folded(line: str) -> list[str]:
    """Cut a line into pieces that fit into the width of the diagram."""
    pieces, length = [""], 160
    for word in line.split():
        if len(pieces[-1]) + len(word) >= length:
            pieces.append("")
        pieces[-1] = f"{pieces[-1]} {word}".strip()
    return pieces
