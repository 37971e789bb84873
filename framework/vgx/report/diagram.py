"""An experiment as a drawing: networks, who moves them, which terms reach them, what it takes.

All of it comes from a recipe and from what was found out before its first step (`audit.json` in a
run): nothing here computes anything, and nothing imports torch.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgx.data.cache import format_bytes
from vgx.errors import StorageError
from vgx.parts.kinds import Loss
from vgx.parts.values import Adaptive, Schedule, at
from vgx.recipe.model import Optimizer, Recipe
from vgx.runs import summary as listing
from vgx.runs.directory import Run

PLAYERS = ("generator", "discriminator")


@dataclass(frozen=True)
class Box:
    """Something that pictures or latents pass, with what a person wants to know of it."""

    name: str
    shapes: str
    about: str
    network: bool = True


@dataclass(frozen=True)
class Term:
    """One player's half of a loss: what it counts over the training, and how strongly it pulls."""

    label: str
    player: str
    weights: tuple[str, str, str]  # at the first step, in the middle, at the last one
    reaches: dict[str, float | None]  # gradient norms by network, where it moves anything


@dataclass(frozen=True)
class Explanation:
    """What a drawing shows."""

    name: str
    boxes: list[Box]  # in the order in which a picture passes them
    terms: list[Term]
    movers: list[str]  # who updates whom, with what
    costs: list[str]  # memory and time
    notes: list[str]


def explain(recipe: Recipe, audit: dict[str, Any], steps: int, pace: str = "") -> Explanation:
    """Lay out a recipe of so many steps; `audit` is what a run's `audit.json` says.

    Raises `StorageError` when that is not as a run writes it.
    """
    try:
        return Explanation(
            recipe.name,
            _boxes(recipe, {row["network"]: row for row in audit["rows"]}),
            [_term(recipe, flow, steps) for flow in audit["flows"]],
            _movers(recipe, steps),
            [*_memory(recipe, audit["need"]), *([pace] if pace else [])],
            [str(note) for note in audit["notes"]],
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"audit.json is not as a run writes it: {type(error).__name__}: {error}"
        raise StorageError(message) from error


def of_run(run: Run, recipe: Recipe) -> Explanation:
    """Lay out what a run is of, from its own files.

    Raises `StorageError` when it has no `audit.json`, or one that is not as a run writes it.
    """
    file = run.path / "audit.json"
    try:
        audit = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{file}: {error}") from None
    lines = [line for line in run.read_log() if line.get("losses")]
    steps = listing.summarize(run).of or recipe.train.steps or 1
    pace = ""
    if lines:
        line = lines[-1]
        pace = (
            f"Time: {in_time(line['seconds'])} for the first {line['step']:,} of {steps:,} steps, "
            f"as its log says."
        )
    return explain(recipe, audit, steps, pace)


def _boxes(recipe: Recipe, rows: dict[str, Any]) -> list[Box]:
    size, latent = recipe.image.size, "x".join(map(str, recipe.latent.shape))
    changes = ", ".join(part.type for part in recipe.augment)
    pictures = Box(
        "pictures",
        f"{recipe.image.channels}x{size}x{size}",
        recipe.dataset.type + (f"; augmented by {changes}" if changes else ""),
        network=False,
    )
    latents = Box("latent", latent, "" if recipe.encoder else "drawn from a normal", network=False)
    told = {"recon": "reconstructions", "prior": "decoded N(0, I)"}
    fakes = " and ".join(told[fake] for fake in recipe.train.fakes)
    judged = f"; real: pictures, fake: {fakes}" if recipe.discriminator else ""
    between = [pictures, "encoder", latents, "decoder", "discriminator"]
    if recipe.encoder is None:
        between = [latents, "decoder", "discriminator"]
    found: list[Box] = []
    for box in between:
        if isinstance(box, Box):
            found.append(box)
        elif box in rows:
            row = rows[box]
            still = row["parameters"] - row["trained"]
            about = f"{row['part']}, {row['parameters']:,} parameters"
            about += f", {still:,} of them fixed" if still else ""
            about += judged if box == "discriminator" else ""
            found.append(Box(box, row["shapes"], about))
    return found


def _term(recipe: Recipe, flow: dict[str, Any], steps: int) -> Term:
    label, norms = flow["label"], dict(flow["norms"])
    name, _, half = label.rpartition(".")
    both = half in PLAYERS and name in [loss.label for loss in recipe.losses]
    moved = {network for network, norm in norms.items() if norm is not None}
    player = half if both else PLAYERS[moved == {"discriminator"}]
    loss = next(each for each in recipe.losses if each.label == (name if both else label))
    counts_one = both and player == "discriminator"
    first, middle, last = (
        _weight(loss, n, counts_one=counts_one) for n in (0, steps // 2, max(steps - 1, 0))
    )
    return Term(label, player, (first, middle, last), norms)


def _weight(loss: Loss, number: int, *, counts_one: bool) -> str:
    """Return what a term counts at a step, as one says it.

    That it is asked only every few steps changes nothing here: it then counts as much more.
    """
    weight = loss.weight
    if number < loss.start or (isinstance(weight, Adaptive) and number < weight.after):
        return "0"
    if counts_one:
        return "1"
    if isinstance(weight, Adaptive):
        times = f"{weight.factor:g} x " if weight.factor != 1 else ""
        return f"{times}level with {', '.join(weight.against)}"
    return f"{at(weight, number):.4g}"


def _movers(recipe: Recipe, steps: int) -> list[str]:
    networks = " and ".join(name for name in ("encoder", "decoder") if getattr(recipe, name))
    optimizers = recipe.train.optimizers
    moves = [f"The generator's optimizer moves {networks}: {_optimizer(optimizers.generator)}."]
    if recipe.discriminator:
        each = recipe.train.discriminator_steps
        times = f", {each} times a step" if each > 1 else ""
        moves.append(
            "The discriminator's optimizer moves the discriminator: "
            f"{_optimizer(optimizers.discriminator)}{times}."
        )
        first = recipe.train.order.partition("-")[0]
        moves.append(f"In each of the {steps:,} steps the {first} moves first.")
    if recipe.train.ema is not None:
        moves.append(f"Sampling uses averaged weights, decay {recipe.train.ema:g}.")
    return moves


def _optimizer(asked: Optimizer) -> str:
    rate = asked.lr
    if isinstance(rate, Schedule):
        said = f"{rate.start:g} to {rate.to:g} over {rate.steps:,} steps, {rate.shape}"
    else:
        said = f"{rate:g}"
    warm = f", warm-up {asked.warmup:,} steps" if asked.warmup else ""
    return f"{asked.type}, learning rate {said}{warm}"


def _memory(recipe: Recipe, need: dict[str, Any]) -> list[str]:
    piece = recipe.train.batch // recipe.train.accumulate
    whole = need["fixed"] + piece * need["each"]
    total, there, fixed = (format_bytes(int(n)) for n in (whole, need["there"], need["fixed"]))
    parts = (
        f"{fixed} for weights, gradients and optimizers, {format_bytes(int(need['each']))} for each"
    )
    return [f"Memory: at least {total} of {there}: {parts} of {piece:,} pictures at once."]


def in_time(seconds: float) -> str:
    """Return how long something takes as one says it."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


# --- as text -----------------------------------------------------------------------------------


def chain(shown: Explanation) -> list[str]:
    """Return what a picture passes, a line each, from top to bottom."""
    names = max(len(box.name) for box in shown.boxes)
    shapes = max(len(box.shapes) for box in shown.boxes)
    lines: list[str] = []
    for box in shown.boxes:
        lines += ["  |"] if lines else []
        lines.append(f"{box.name:<{names}}  {box.shapes:<{shapes}}  {box.about}".rstrip())
    return lines


def table(shown: Explanation) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return header and rows: each term, what it counts, and how strongly it pulls each network."""
    networks = [box.name for box in shown.boxes if box.network]
    header = ("term", "of", "weight", "halfway", "at the end", *networks)
    rows = [
        (term.label, term.player, *term.weights, *(_norm(term.reaches.get(n)) for n in networks))
        for term in shown.terms
    ]
    return header, [*rows]


def _norm(norm: float | None) -> str:
    return "-" if norm is None else f"{norm:.3g}"


# --- as a picture ------------------------------------------------------------------------------

WIDE, LEFT, ROW, GAP = 1100, 240, 26, 16
STYLE = """
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:#1c1d1f}
.name{font-weight:650;font-size:14px}.soft{fill:#5a5e63;font-size:12px}
.end{text-anchor:end}.middle{text-anchor:middle}
.paper{fill:#fcfcfb}.box{fill:#f4f3f0;stroke:#0a6375}.thing{fill:none;stroke:#8b8f94}
.way{stroke:#5a5e63;fill:none}.row{stroke:#dddad4}.g{fill:#0a6375}.d{fill:#b8540c}
@media (prefers-color-scheme:dark){text{fill:#e7e6e3}.soft{fill:#a4a8ad}.paper{fill:#16181a}
.box{fill:#202326;stroke:#6cc5d8}.thing{stroke:#a4a8ad}.way{stroke:#a4a8ad}.row{stroke:#373b40}
.g{fill:#6cc5d8}.d{fill:#f0a35e}}
"""


def svg(shown: Explanation) -> str:
    """Return the drawing as SVG: boxes in a row, below each the terms that move it."""
    width = (WIDE - LEFT - GAP) / len(shown.boxes)
    middles = [LEFT + (i + 0.5) * width for i in range(len(shown.boxes))]
    parts = [_text(GAP, 40, shown.name, "name")]
    for i, (box, x) in enumerate(zip(shown.boxes, middles, strict=True)):
        kind = "box" if box.network else "thing"
        half = width / 2 - 14
        if i:
            parts.append(f'<path class="way" d="M{x - width / 2 - 13:.1f} 46h22l-5 -4m5 4l-5 4"/>')
        parts.append(
            f'<rect class="{kind}" x="{x - half:.1f}" y="18" width="{2 * half:.1f}" height="56" '
            f'rx="4"/>'
        )
        parts.append(_text(x, 41, box.name, "name middle"))
        parts.append(_text(x, 61, box.shapes, "soft middle"))
        about = box.about.partition(";")[0].split(", ")
        parts += [_text(x, 92 + 16 * n, line, "soft middle") for n, line in enumerate(about)]
    y = 170
    parts.append(_text(GAP, y - 8, "Term, and what it counts", "soft"))
    parts.append(_text(LEFT + width / 2, y - 8, "A dot where it moves a network; beside it the "
                       "norm of its gradient before the first step", "soft"))  # fmt: skip
    for term in shown.terms:
        parts.append(f'<path class="row" d="M{GAP} {y}H{WIDE - GAP}"/>')
        first, _, last = term.weights
        counts = first if first == last else f"{first} to {last}"
        parts.append(_text(GAP, y + 18, term.label.removesuffix(f".{term.player}")))
        parts.append(_text(LEFT + 20, y + 18, counts, "soft end"))
        for box, x in zip(shown.boxes, middles, strict=True):
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
    for line in (*shown.movers, *shown.costs, *shown.notes):
        for piece in _folded(line):
            parts.append(_text(GAP, y, piece, "soft"))
            y += 18
    title = f"<title>{html.escape(shown.name)}: networks and the terms that move them</title>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {y}" width="{WIDE}" '
        f'height="{y}" role="img">{title}<style>{STYLE}</style>'
        f'<rect class="paper" width="{WIDE}" height="{y}"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{named}>{html.escape(text)}</text>'


def _folded(line: str) -> list[str]:
    """Cut a line where it would leave the drawing."""
    pieces, length = [""], 160
    for word in line.split():
        if len(pieces[-1]) + len(word) >= length:
            pieces.append("")
        pieces[-1] = f"{pieces[-1]} {word}".strip()
    return pieces
