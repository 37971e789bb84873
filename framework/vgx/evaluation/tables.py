"""The results of `vgx eval` as tables; nothing here imports torch."""

from __future__ import annotations

from typing import Any

KINDS = ("reconstruction", "latent")
Figure = dict[str, Any]  # mean, spread, values, better


def tables(results: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Return the tables of an evaluation: a title, a header and rows each."""
    tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []
    for kind in KINDS:
        if (part := results[kind]) is not None:
            title = f"{kind}: {part['pictures']:,} images, {part['split']}"
            tables.append((title, ("figure", "value"), _rows([part])))
    if samplers := results["generation"]:
        title = "generation: {pictures:,} images of each sampler against {real:,}, {split}"
        header = ("figure", *(part["sampler"]["type"] for part in samplers))
        tables.append((title.format(**samplers[0]), header, _rows(samplers)))
    return tables


def _rows(parts: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for name, first in parts[0]["figures"].items():
        cells = [value_and_spread(part["figures"][name]) for part in parts]
        rows.append((with_direction(name, first["better"]), *cells))
    return rows


def with_direction(name: str, better: str | None) -> str:
    """Return the name of a figure with the direction that is better, if there is one."""
    return name + {"higher": " (more is better)", "lower": " (less is better)", None: ""}[better]


def value_and_spread(figure: Figure) -> str:
    """Return a mean with four significant digits and its spread over seeds."""
    text = f"{figure['mean']:.4g}"
    return f"{text} ± {figure['spread']:.2g}" if figure["spread"] else text
