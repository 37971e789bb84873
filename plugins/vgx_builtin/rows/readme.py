"""Configurations in the README.md of a local data set: read with limits, checked by the library."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import vgx
from vgx_builtin.files.image_files import described, open_regular

MAX_README = 2**20
MAX_CONFIGS = 2**16
"""The longest README.md that is read, and the longest `configs` in it, in bytes."""
MAX_DEPTH = 8
MAX_TRIES = 10**6
"""The most names that are compared with patterns of a README.md."""


def configs_in(readme: Path) -> dict[str, dict[str, Any]]:
    """Return the configurations of a README.md by name; an empty dict without any.

    Raises `DataError` for what is no list of configurations.
    """
    if not readme.is_file():
        return {}
    with open_regular(readme, readme.name) as file:
        data = file.read(MAX_README + 1)
    if len(data) > MAX_README:
        raise vgx.DataError(f"README.md: longer than {MAX_README:,} bytes")
    first, *lines = data.decode(errors="replace").split("\n")
    fences = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    if first.rstrip() != "---" or not fences:
        return {}
    # Only this key: the others may be long, and nothing here needs them.
    found = re.search(r"(?ms)^configs:.*?(?=^[^\s#-]|\Z)", "\n".join(lines[: fences[0]]))
    return _parsed(found[0]) if found else {}


def _parsed(text: str) -> dict[str, dict[str, Any]]:
    """Return the configurations in a text of YAML, as the library understands them."""
    import yaml
    from datasets.utils.metadata import MetadataConfigs
    from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

    if len(text) > MAX_CONFIGS:
        raise vgx.DataError(f"README.md: configs longer than {MAX_CONFIGS:,} characters")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH or isinstance(event, AliasEvent):
                raise ValueError("nested too deeply, or with an alias")
        known = ("config_name", "data_files", "data_dir", "default")
        entries = [
            {key: value for key, value in dict(entry).items() if key in known}
            for entry in yaml.safe_load(text)["configs"]
        ]
        configs = MetadataConfigs.from_dataset_card_data({"configs": entries})
        return {str(name): config for name, config in configs.items()}
    # Text that is no YAML, or no list of configurations, can raise any error.
    except Exception as error:
        raise vgx.DataError(f"README.md: configs: {described(error)}") from error


def config_of(configs: dict[str, dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    """Return the configuration of a name, or the one that is the default.

    Raises `DataError` when there is none of this name, or when there is a choice.
    """
    from datasets.utils.metadata import MetadataConfigs

    listed = ", ".join(list(configs)[:10]) + (", ..." if len(configs) > 10 else "")
    if wanted is None:
        try:
            wanted = MetadataConfigs(configs).get_default_config_name()
        except ValueError as error:
            raise vgx.DataError(f"README.md: {error}") from error
        if wanted is None:
            raise vgx.DataError(f"several configs: {listed}; set dataset.config=NAME")
    if wanted not in configs:
        raise vgx.DataError(f"no config '{wanted}'; there are: {listed}")
    return configs[wanted]


def chosen(data_files: Any, names: list[str]) -> dict[str, list[str]]:
    """Return the files of each split that `data_files` names. Raises `DataError` for others."""
    from datasets.data_files import sanitize_patterns

    try:
        patterns = sanitize_patterns(data_files)
    except (ValueError, TypeError) as error:
        raise vgx.DataError(f"README.md: data_files: {described(error)}") from error
    tries = sum(len(inner) for inner in patterns.values()) * len(names)
    if tries > MAX_TRIES:
        raise vgx.DataError(f"README.md: data_files: too many for {len(names):,} files")
    splits: dict[str, list[str]] = {}
    for split, inner in patterns.items():
        for pattern in inner:
            found = matching(pattern, names) if isinstance(pattern, str) else []
            if not found:
                where = "no file of this folder that can be opened has this name"
                raise vgx.DataError(f"README.md: data_files: {pattern!r}: {where}")
            splits.setdefault(split, []).extend(found)
    if not splits:
        raise vgx.DataError("README.md: data_files: no file is named")
    return {split: list(dict.fromkeys(found)) for split, found in splits.items()}


def matching(pattern: str, names: list[str]) -> list[str]:
    """Return the names that a pattern stands for: itself, or those that fit its wildcards."""
    pattern = pattern.removeprefix("./")
    if pattern in names:
        return [pattern]
    if pattern.endswith("/**"):  # all that is below, not the folder itself
        pattern += "/*"
    return [name for name in names if _fits(name.split("/"), pattern.split("/"))]


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Return whether a path fits a pattern; `**` stands for any number of folders.

    The time is bounded for any pattern: that of the library's own function grows about tenfold
    with each `*` of a pattern like `*a*a*a*b`.
    """
    reached = {0}  # how many parts of the path may have been passed
    for piece in pattern:
        if piece == "**":
            reached = set(range(min(reached, default=len(parts) + 1), len(parts) + 1))
        else:
            reached = {n + 1 for n in reached if fnmatchcase("".join(parts[n : n + 1]), piece)}
    return len(parts) in reached
