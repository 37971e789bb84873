"""`--data`: which data set opens a path or a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vgx.errors import DataError, RecipeError
from vgx.files import user_path
from vgx.parts.kinds import Dataset
from vgx.parts.registry import Registry


def dataset_at(given: str | Path, registry: Registry) -> dict[str, Any]:
    """Return the type and the fields of the data set for a path or a name.

    Raises `DataError` when no installed data set opens it, `RecipeError` when several do, and for
    what is no place, as an array is.
    """
    if not isinstance(given, str | Path):
        raise RecipeError(f"data: {type(given).__name__}: write images to a folder, and name it")
    if not (place := str(given)).strip():
        raise RecipeError("--data: no place is given")
    types, opened, refused = list[str](), list[dict[str, Any]](), list[DataError]()
    for _, part in registry.offers("dataset"):
        if issubclass(part, Dataset) and "fields_for" in vars(part):
            types.append(part.type)
            try:
                fields = part.fields_for(str(user_path(place)))
            except DataError as error:
                refused.append(error)
                continue
            opened += [] if fields is None else [{"type": part.type, **fields}]
    if len(opened) == 1:
        return opened[0]
    if opened:
        several = " and ".join(fields["type"] for fields in opened)
        advice = f"choose one: --set dataset.type={opened[0]['type']} --set dataset.path={place}"
        raise RecipeError(f"--data {place}: {several} open it; {advice}")
    if refused:
        raise DataError(f"--data {place}: {refused[0]}")
    path = user_path(place)
    if not path.exists():
        hub = "" if "/" in place else "; data sets of the hub are called OWNER/NAME"
        raise DataError(f"--data {place}: there is no such folder or file: {path.absolute()}{hub}")
    raise DataError(f"--data {place}: these data sets find no images there: {', '.join(types)}")
