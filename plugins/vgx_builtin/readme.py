"""Splits that a README.md names: it chooses among the files of its folder, by their names."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import vgx
from vgx_builtin.image_files import described, open_regular

MAX_README = 2**20
MAX_CONFIGS = 2**16
"""The longest README.md that is read, and the longest `configs` in it, in bytes."""
MAX_DEPTH = 8
MAX_TRIES = 10**6
"""The most names that are compared with patterns of a README.md."""


def configured(readme: Path, names: list[str]) -> dict[str, list[str]]:
    """Return the files of each split as `configs` in a README.md says; an empty dict without it."""
    if not readme.is_file():
        return {}
    with open_regular(readme, readme.name) as file:
        data = file.read(MAX_README + 1)
    if len(data) > MAX_README:
        raise vgx.DataError(f"README.md: longer than {MAX_README:,} bytes")
    head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", data.decode(errors="replace"), re.DOTALL)
    # Only this key: the others may be long, and nothing here needs them.
    found = re.search(r"(?ms)^configs:.*?(?=^[^\s#-]|\Z)", head[1]) if head else None
    if found is None:
        return {}
    config = _default(found[0])
    if "data_dir" in config:
        raise vgx.DataError("README.md: configs with data_dir are not understood; give that folder")
    return _chosen(config["data_files"], names) if "data_files" in config else {}


def _default(text: str) -> dict[str, Any]:
    """Return the one configuration of a text of YAML, or the one that is the default."""
    from ruamel.yaml import YAML
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

    if len(text) > MAX_CONFIGS:
        raise vgx.DataError(f"README.md: configs longer than {MAX_CONFIGS:,} characters")
    try:
        safe, depth = YAML(typ="safe", pure=True), 0
        for event in safe.parse(text):
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH or isinstance(event, AliasEvent):
                raise ValueError("nested too deeply, or with an alias")
        configs = safe.load(text)["configs"]
        named = {str(config["config_name"]): dict(config) for config in configs}
    # Text that is no YAML, or no list of configurations, can raise any error.
    except Exception as error:
        raise vgx.DataError(f"README.md: configs: {described(error)}") from error
    if len(named) == 1:
        return next(iter(named.values()))
    chosen = [n for n, config in named.items() if n == "default" or config.get("default") is True]
    if len(chosen) != 1:
        listed = ", ".join(list(named)[:10])
        raise vgx.DataError(f"README.md: several configs ({listed}); give the folder of one")
    return named[chosen[0]]


def _chosen(patterns: Any, names: list[str]) -> dict[str, list[str]]:
    """Return the files of each split that `data_files` names. Raises `DataError` for others."""
    pairs: list[tuple[str, Any]] = []
    for entry in patterns if isinstance(patterns, list) else [patterns]:
        split, paths = "train", entry
        if isinstance(entry, dict):
            split, paths = str(entry.get("split")), entry.get("path")
        pairs += [(split, path) for path in (paths if isinstance(paths, list) else [paths])]
    if len(pairs) * len(names) > MAX_TRIES:
        raise vgx.DataError(f"README.md: {len(pairs):,} data_files for {len(names):,} files")
    splits: dict[str, list[str]] = {}
    for split, path in pairs:
        found = matching(path, names) if isinstance(path, str) else []
        if not found:
            where = "no parquet file in this folder has this name"
            raise vgx.DataError(f"README.md: data_files: {path!r}: {where}")
        inner = splits.setdefault(split, [])
        inner += [name for name in found if name not in inner]
    if not splits:
        raise vgx.DataError("README.md: data_files: no file is named")
    return splits


def matching(pattern: str, names: list[str]) -> list[str]:
    """Return the names that a pattern stands for: itself, or those that fit its wildcards."""
    pattern = pattern.removeprefix("./")
    if pattern in names:
        return [pattern]
    return [name for name in names if _fits(name.split("/"), pattern.split("/"))]


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Return whether a path fits a pattern; `**` stands for any number of folders."""
    reached = {0}  # how many parts of the path may have been passed
    for piece in pattern:
        if piece == "**":
            reached = set(range(min(reached, default=len(parts) + 1), len(parts) + 1))
        else:
            reached = {n + 1 for n in reached if fnmatchcase("".join(parts[n : n + 1]), piece)}
    return len(parts) in reached
