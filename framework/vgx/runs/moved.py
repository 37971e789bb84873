"""Images of a run that lie elsewhere now: its data set may move, since its content is compared."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vgx.data.store import Store, name_of
from vgx.errors import VgxError
from vgx.files import read_file, user_path, working_folder, write_file
from vgx.parts.kinds import Dataset
from vgx.recipe.load import dump_recipe
from vgx.recipe.model import Recipe
from vgx.runs import reading
from vgx.runs.directory import Run


class Command(NamedTuple):
    """A command that takes `--data`."""

    text: str
    takes_set: bool  # whether it takes `--set` too


@contextmanager
def looking_back(run: Run, recipe: Recipe, again: Command | None = None) -> Iterator[None]:
    """Add to an error in the block where a relative path of the run is found, if it is not here.

    It begins in the folder where the run was started. `again` is what the user would do again; by
    default the run is resumed.
    """
    try:
        yield
    except VgxError as error:
        made = reading.unless_damaged(reading.environment, run.path) or {}
        folder = made.get("folder")
        for field in ("dataset", "sampler"):
            path = Path(getattr(getattr(recipe, field), "path", None) or "")
            if folder and not path.exists() and (Path(folder) / path).exists():
                place = Path(folder) / path
                setting = shlex.quote(f"{field}.path={place}")
                command = f"{_setting(run, again)} --set {setting}"
                if field == "dataset" and again and not again.takes_set:
                    command = f"{again.text} --data {shlex.quote(str(place))}"
                where = f"{path} is in {folder}, where the run was started"
                raise type(error)(f"{error}\n{where}. From here: {command}") from error
        raise


def other_images(
    run: Run, dataset: Dataset, before: reading.Data, store: Store, again: Command | None = None
) -> str:
    """Return the message for images that are not those of a run, which had those of `before`.

    `again` is what the user would do again; by default the run is resumed.
    """
    kept, commit = before["kept"], before.get("revision", "")
    path = getattr(dataset, "path", None)
    local = path is not None and user_path(path).exists()
    where = str(user_path(path).absolute()) if local and path else name_of(dataset)
    counts = f"{kept:,} then, {len(store.images):,} now, in {where}"
    if kept == len(store.images):
        counts += "; some have other content"
    if commit and store.revision and commit != store.revision:
        return (
            f"{run.path}: the images are not those of the run ({counts})\n"
            f"The data set was at commit {commit} and is at {store.revision}\n"
            f"To go on: {_setting(run, again)} --set dataset.revision={commit}"
        )
    command = again.text if again else f"vgx resume {run.short}"
    return (
        f"{run.path}: the images are not those of the run ({counts})\n"
        f"If its images lie elsewhere: {command} --data PLACE; "
        "for other images start a new run"
    )


def _setting(run: Run, again: Command | None) -> str:
    """Return a command that takes `--set`: this one, or a resume, which keeps the place."""
    return again.text if again and again.takes_set else f"vgx run --resume {run.short}"


def keep_place(run: Run, recipe: Recipe, store: Store) -> None:
    """Write into a run where its images lie now."""
    file = run.path / "environment.json"
    made = json.loads(read_file(file, reading.MAX_ENVIRONMENT))
    made["folder"] = working_folder()
    made["data"] |= {"fingerprint": store.fingerprint, "revision": store.revision}
    write_file(file, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    write_file(run.place("recipe.yaml"), dump_recipe(recipe))
