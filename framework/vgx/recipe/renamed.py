"""Metrics that earlier versions called `fid` and `kid` whatever features they compared.

A distance in other features than Inception's is no FID. Recipes, logs and evaluations of that time
are read under the new names. The functions take and return plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {"fid": "frechet-distance", "kid": "kernel-distance"}
RIGHT = "inception"  # the type of the features in which the old names are right


def renamed(metrics: Any) -> dict[str, str]:
    """Return the old and the new name of each metric in the list `metrics` that has a new one."""
    features = {_type(m): _type(m.get("features")) for m in _mappings(metrics)}
    return {old: new for old, new in RENAMED.items() if features.get(old, "") not in ("", RIGHT)}


def rename_metrics(metrics: Any) -> Any:
    """Return the metrics with their new names as types."""
    if not (names := renamed(metrics)):
        return metrics
    return [
        {**m, "type": names[_type(m)]} if _mappings([m]) and _type(m) in names else m
        for m in metrics
    ]


def renamed_in(recipe: Any) -> dict[str, str]:
    """Return the old and the new name of each metric of a recipe that has a new one."""
    section = recipe.get("eval") if isinstance(recipe, dict) else None
    return renamed(section.get("metrics")) if isinstance(section, dict) else {}


def rename_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with the new names in `eval.metrics` and `eval.best`."""
    if not (names := renamed_in(recipe)):
        return recipe
    new = {**recipe["eval"], "metrics": rename_metrics(recipe["eval"]["metrics"])}
    if isinstance(best := new.get("best"), str):
        new["best"] = names.get(best, best)
    return {**recipe, "eval": new}


def rename_keys(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with new names for its keys."""
    return {names.get(name, name): value for name, value in values.items()}


def rename_evaluation(results: dict[str, Any]) -> dict[str, Any]:
    """Return the content of an `evaluation.json` with the new names."""
    if not (names := renamed(results.get("metrics"))):
        return results
    generation = [
        {**part, "figures": rename_keys(part["figures"], names)} for part in results["generation"]
    ]
    metrics = rename_metrics(results["metrics"])
    features = {_type(m): _type(m.get("features")) for m in metrics}
    for part in generation:
        for name in names.values() & part["figures"].keys():
            part["figures"][name] = {"features": features[name], **part["figures"][name]}
    return {**results, "metrics": metrics, "generation": generation}


def _mappings(values: Any) -> list[dict[str, Any]]:
    """Return those of some values that are mappings; none if there is no list of values."""
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _type(part: Any) -> str:
    """Return the type of a part without its distribution; "" if it has none."""
    name = part.get("type") if isinstance(part, dict) else part
    return name.rpartition(":")[2] if isinstance(name, str) else ""
