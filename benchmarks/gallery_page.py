"""The page of the gallery, from the files that `gallery.py` made."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from gallery_entries import ENTRIES, of_recipe
from tables import ROOT, table

PAGE, FOLDER = ROOT / "docs" / "gallery.md", ROOT / "docs" / "gallery"
# Of each figure its name on the page, and the sign of what is better.
NAMES = {
    "psnr": "PSNR of reconstructions, dB (more is better)",
    "codebook_usage": "share of the codebook in use",
    "perplexity": "perplexity of the codebook",
    "frechet-distance": "Frechet distance [random-conv] (less is better)",
    "coverage": "coverage [random-conv] (more is better)",
    "precision": "precision [random-conv] (more is better)",
    "recall": "recall [random-conv] (more is better)",
    "taken-for-real-training": "share of training images taken for real",
    "taken-for-real-held-out": "share of held-out images taken for real",
}


def write() -> None:
    """Write the page anew below its head, which is written by hand."""
    head = PAGE.read_text().partition("\n## ")[0].rstrip()
    results = {}
    for name in ENTRIES:
        file = FOLDER / f"{name}.json"
        if file.is_file():
            results[name] = json.loads(file.read_text())
    recipes = [name for name in results if not ENTRIES[name].recipe]
    PAGE.write_text("\n\n".join([head, *(section(name, results) for name in recipes)]) + "\n")


def section(recipe: str, results: dict[str, Any]) -> str:
    names = of_recipe(recipe, results)
    parts = [f"## [`{recipe}`](../recipes/{recipe}.yaml)", intro(recipe)]
    for name in names:
        parts += shown(name, results[name])
    head, rows = of_figures([(name, results[name]) for name in names])
    parts += [table(head, rows)] if rows else []
    parts += [table(["term", "at the start", "at the end"], terms(results[recipe]))]
    return "\n\n".join(part for part in parts if part)


def intro(recipe: str) -> str:
    """Return what a recipe's comment says of it, without how to train it on other images."""
    text = (ROOT / "recipes" / f"{recipe}.yaml").read_text()
    lines = " ".join(re.findall(r"^# (.*)", text, re.MULTILINE))
    return lines.partition("Other images")[0].strip()


def shown(name: str, results: dict[str, Any]) -> list[str]:
    """Return the images of an entry, and how it was trained."""
    entry, recipe = ENTRIES[name], ENTRIES[name].recipe or name
    parts = [f"{entry.what[:1].upper()}{entry.what[1:]}:" if entry.what else ""]
    parts += [f"![{entry.what or name}](gallery/{name}.png)"]
    if (FOLDER / f"{name}.before.png").is_file():
        text = "Before the second stage, latents are drawn from a Gaussian with the mean and the"
        parts += [f"{text} covariance of those of the images (`aggregate-gaussian`):"]
        parts += [f"![{name} before its second stage](gallery/{name}.before.png)"]
    if results.get("settings"):
        options = " ".join(f"--set {shlex.quote(text)}" for text in results["settings"])
        parts += [f"```sh\nvgx run {recipe} {options}\n```"]
    drawn = f"images drawn by `{results['sampler']}`"
    if results["sampler"] == "posterior":
        drawn = "it draws no new images: above are held-out images, below their reconstructions"
    steps = f"{results['steps']:,}"
    if results.get("of", results["steps"]) != results["steps"]:
        steps += f" of {results['of']:,}"
    trained = f"{steps} steps, {results['images']:,} images, {results['seconds']:,} s"
    why = f" {entry.why}" if entry.why else ""
    parts += [f"{trained}{second(results)}{on(results)}; {drawn}.{why}"]
    return parts


def second(results: dict[str, Any]) -> str:
    if "prior" not in results:
        return ""
    prior = results["prior"]
    first, last = prior["losses"]
    losses = f"its loss went from {first:.3g} to {last:.3g}"
    return f"; then {prior['steps']:,} steps of `{prior['type']}`, {prior['seconds']:,} s, {losses}"


def on(results: dict[str, Any]) -> str:
    return f", on {results['device']}" if "device" in results else ""


def of_figures(entries: list[tuple[str, dict[str, Any]]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table: a column for each entry, and one for real images."""
    measured = [(name, each["figures"]) for name, each in entries if "figures" in each]
    if not measured:
        return [], []
    columns = [ENTRIES[name].what or f"`{name}`" for name, _ in measured]
    rows: list[list[str]] = []
    kinds = dict.fromkeys(kind for _, figures in measured for kind in figures)
    for kind in kinds:
        if kind == "real images":
            continue
        for figure, title in NAMES.items():
            values = [figures.get(kind, {}).get(figure) for _, figures in measured]
            if all(value is None for value in values):
                continue
            real = measured[0][1]["real images"].get(figure) if kind != "reconstruction" else None
            what = title if kind == "reconstruction" else f"`{kind}`: {title}"
            rows.append([what, *map(number, [*values, real])])
    return ["on images that were held out", *columns, "real images"], rows


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def terms(results: dict[str, Any]) -> list[list[str]]:
    return [[f"`{term}`", number(a), number(b)] for term, (a, b) in results["losses"].items()]
