"""Folders of images as classes, and as splits of a data set."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import vgx

# Also trainA and val2017.
_SPLIT = r"(?i:train(ing)?|test(ing)?|val(id(ation)?)?|dev|eval(uation)?)[-_ ]?([A-Z]|\d*)"


def tell_of_splits(names: Sequence[str], root: Path, where: str) -> None:
    """Give a notice when the folders of the images look like splits, which are all used."""
    base = common_folder(names)
    tops = Counter(name[len(base) :].split("/")[0] for name in names)
    splits = [top for top in tops if re.fullmatch(_SPLIT, top)]
    if len(splits) > 1:
        splits.sort(key=lambda top: (not top.lower().startswith("train"), top))
        counts = ", ".join(f"{top} ({tops[top]:,} images)" for top in splits)
        one = f"dataset.path={root / base / splits[0]} takes one of them"
        text = f"{where}: {root}: these look like splits, and all are used: {counts}; {one}"
        warnings.warn(text, vgx.Notice, stacklevel=3)


def common_folder(names: Iterable[str]) -> str:
    """Return the path of the innermost folder that holds all files in folders of its own.

    It ends with "/"; an empty text is the place itself.
    """
    folders = {name.rpartition("/")[0] for name in names}
    common = os.path.commonpath(folders) if folders and "" not in folders else ""
    if common in folders:  # files lie in it
        common = common.rpartition("/")[0]
    return f"{common}/" if common else ""


def class_folders(names: Sequence[str]) -> list[str | None]:
    """Return for each image the folder that is its class, or `None` if it lies in none.

    Leading folders that all images share are no classes, nor are splits: of train/cat/1.png and
    test/dog/2.png the classes are cat and dog.
    """
    base = common_folder(names)
    below = [name[len(base) :].split("/") for name in names]
    splits = all(re.fullmatch(_SPLIT, parts[0]) for parts in below)
    split = int(splits and any(len(parts) > 2 for parts in below))
    return [parts[split] if len(parts) > 1 + split else None for parts in below]
