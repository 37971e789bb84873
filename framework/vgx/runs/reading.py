"""The files of a run, each read by a function of its own.

A run may come from anybody, and disks damage files. So only a regular file of bounded size is
read, nothing is waited for, and the content must have the types and ranges with which a run writes
it. A missing file gives None. A damaged one raises `StorageError` that names the file and the
field. Nothing here imports torch.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Required, TypeVar

from pydantic import ConfigDict, FailFast, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic import with_config as configured
from typing_extensions import TypedDict

from vgx.errors import Notice, StorageError
from vgx.files import opened, read_file
from vgx.output import short
from vgx.recipe.renamed import RENAMED, rename_evaluation, rename_keys, rename_recipe, renamed_in
from vgx.recipe.yaml import MAX_BYTES, read

if TYPE_CHECKING:
    from PIL import Image

MAX_JSON = 2**20  # bytes of audit.json and ended.json
MAX_ENVIRONMENT = 2**23  # it names up to 10,000 classes
MAX_EVALUATION = 2**22  # its lists have a number for each latent dimension
MAX_LOG, MAX_LINE = 2**29, 2**20  # bytes; the rest of a longer line is passed over
MAX_LOCK, MAX_NOTE = 2**12, 2**14
MAX_GRID = 2**26  # bytes of an image in samples/
LINES = 100_000  # of a log: of a longer one so many are kept, evenly chosen
TAIL = 2**16  # bytes at the end of a log in which its last line is looked for
DAMAGED = "log.jsonl.damaged"  # the lines of a log that could not be read, after a resume

Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[FiniteFloat, Field(ge=0, lt=2**63)]
T = TypeVar("T")


# --- what the files contain ----------------------------------------------------------------------


class Unreadable(TypedDict, total=False):
    """The images that could not be read."""

    count: Count


class Class(TypedDict):
    """A class of images."""

    name: str
    count: Count


class Data(TypedDict, total=False):
    """The images that a run was trained on."""

    dataset: str
    fingerprint: str
    content: Required[str]
    revision: str  # the commit of the data; "" where it is not known
    streamed: bool  # read while training, and not stored
    kept: Required[Count]
    held_out: Count
    dropped: dict[str, Count]
    bad: Unreadable
    classes: Annotated[list[Class], FailFast()]  # of the labels 0, 1, ...; absent without labels


class Plugin(TypedDict, total=False):
    """A plugin that a run needs."""

    name: Required[str]
    distribution: str
    version: Required[str]
    failure: str


class Parent(TypedDict, total=False):
    """The run that a run comes from, and the step at which it left it."""

    run: Required[str]  # the name of its directory
    step: Required[Count]  # of the checkpoint whose weights were taken
    how: Required[Literal["fork", "start"]]
    sha256: str  # of the file with these weights
    networks: Annotated[list[str], FailFast()]  # whose weights were taken
    latents: dict[str, FiniteFloat | list[FiniteFloat]]  # what was known of their scale


class Environment(TypedDict, total=False):
    """What a run was made with: `environment.json`."""

    vgx: str
    python: str
    platform: str
    packages: dict[str, str]
    plugins: Annotated[list[Plugin], FailFast()]
    device: str
    threads: Count
    processes: Count  # absent in runs of earlier versions
    launch: str  # of a launcher, such as torchrun, and a sum of the recipe that it was given
    git: str | None
    folder: str  # the working directory, in which relative paths began
    started: str
    data: Data
    classes: Annotated[list[Class], FailFast()]  # of an imported model; of others in `data`
    better: dict[str, Literal["higher", "lower"]] | None  # absent in runs of earlier versions
    grids: str
    notices: Annotated[list[str], FailFast()]
    parent: Parent  # absent in a run that began with weights of its own


class Row(TypedDict):
    """A network in the audit."""

    network: str
    part: str
    shapes: str
    parameters: Count
    trained: Count


class Flow(TypedDict):
    """The gradient norms of a term by network; None where it moves nothing."""

    label: str
    norms: dict[str, FiniteFloat | None]


class Need(TypedDict):
    """The memory that a training needs, in bytes."""

    fixed: Count
    each: Amount
    there: Count


class Audit(TypedDict, total=False):
    """What was known before the first step: `audit.json`. Earlier versions wrote less."""

    rows: Annotated[list[Row], FailFast()]
    losses: dict[str, FiniteFloat]
    flows: Annotated[list[Flow], FailFast()]
    notes: Annotated[list[str], FailFast()]
    forward: FiniteFloat
    need: Need


class Ended(TypedDict, total=False):
    """How a training ended: `ended.json`."""

    how: Required[Literal["done", "stopped", "diverged", "failed"]]
    step: Required[Count]
    of: Required[Count]  # steps of the whole training
    signal: int | None
    message: str


class Figure(TypedDict, total=False):
    """A figure of an evaluation."""

    mean: Required[float]  # a metric may give a value that is not finite
    spread: float
    values: Annotated[list[float], FailFast()]
    groups: Annotated[list[float], FailFast()]  # means of parts of the reconstructed images
    better: Literal["higher", "lower"] | None
    features: str | None
    meaning: str | None


class Part(TypedDict, total=False):
    """The figures of reconstructions, of a sampler or of the latents."""

    sampler: dict[str, Any]
    pictures: Count
    real: Count
    real_of: Count
    split: str
    figures: Required[dict[str, Figure]]


class Evaluation(TypedDict, total=False):
    """What `vgx eval` measured: `evaluation.json`."""

    format: Count
    step: Count
    checkpoint: str
    seeds: Annotated[list[int], FailFast()]
    data: dict[str, Any]
    features: Annotated[list[dict[str, Any]], FailFast()]
    metrics: Annotated[list[dict[str, Any]], FailFast()]
    reconstruction: Part | None
    generation: Annotated[list[Part], FailFast()]
    latent: Part | None
    notices: Annotated[list[str], FailFast()]


class Line(TypedDict, total=False):
    """A line of the log."""

    step: Required[Count]
    epoch: Amount
    images: Count
    seconds: Amount
    losses: dict[str, FiniteFloat]
    rates: dict[str, FiniteFloat]
    grad_norm: dict[str, FiniteFloat]  # of each network, before clipping
    accuracy: dict[str, FiniteFloat]  # of the discriminator, on real and on fake images
    codebook: dict[str, FiniteFloat]  # how much of it the last minibatch used
    figures: dict[str, FiniteFloat]  # that parts have of themselves, by part and name
    images_per_second: Amount  # since the line before
    metrics: dict[str, float]
    warnings: Annotated[list[str], FailFast()]
    notices: Annotated[list[str], FailFast()]


class Best(TypedDict):
    """The last and the best value of a metric, as a checkpoint notes them."""

    last: float
    value: FiniteFloat
    step: Count


class Monitored(TypedDict, total=False):
    """What the monitors know of a training."""

    since: dict[str, Count]
    reported: list[str]


class Optimizer(TypedDict, total=False):
    """Settings and plain numbers of an optimizer."""

    groups: list[dict[str, Any]]
    values: dict[str, Any]


@configured(ConfigDict(extra="allow"))
class Numbers(TypedDict, total=False):
    """The plain numbers of a checkpoint: `state.json`."""

    format: Required[Count]
    step: Required[Count]
    epoch: FiniteFloat
    images: Count
    seconds: FiniteFloat
    rollbacks: Count
    terms: dict[str, FiniteFloat]  # of the losses, by name, in their last step
    monitor: Monitored
    warnings: Annotated[list[str], FailFast()]
    measured: dict[str, Best]
    optimizers: dict[str, Optimizer]


class Summed(TypedDict):
    """Size and SHA-256 of a file, as a manifest notes them."""

    bytes: Count
    sha256: str


ENVIRONMENT, AUDIT, ENDED = TypeAdapter(Environment), TypeAdapter(Audit), TypeAdapter(Ended)
EVALUATION, LINE = TypeAdapter(Evaluation), TypeAdapter(Line)
NUMBERS, MANIFEST = TypeAdapter(Numbers), TypeAdapter(dict[str, Summed])


# --- one function for each file ------------------------------------------------------------------


def environment(run: Path) -> Environment | None:
    """Return what a run was made with."""
    return _json(run / "environment.json", ENVIRONMENT, MAX_ENVIRONMENT)


def audit(run: Path) -> Audit | None:
    """Return what was known before the first step of a run."""
    return _json(run / "audit.json", AUDIT)


def ended(run: Path) -> Ended | None:
    """Return how the training of a run ended."""
    return _json(run / "ended.json", ENDED)


def evaluation(run: Path) -> Evaluation | None:
    """Return what was measured of a run, with the names that metrics have today."""
    file = run / "evaluation.json"
    results = _json(file, EVALUATION, MAX_EVALUATION)
    try:
        return results and EVALUATION.validate_python(rename_evaluation({**results}))
    except (LookupError, ValueError) as error:  # of another format: nothing can be renamed
        raise StorageError(f"{file}: {type(error).__name__}: {error}") from None


def recipe(run: Path) -> dict[str, Any]:
    """Return a run's recipe as plain data, which no part has validated."""
    tree, faults = read(recipe_text(run), "recipe.yaml")
    if faults:
        raise StorageError(f"{run / faults[0].place}: {faults[0].message}")
    plain = tree.plain()
    if not (isinstance(plain, dict) and isinstance(plain.get("train"), dict)):
        raise StorageError(f"{run / 'recipe.yaml'}: no recipe")
    return rename_recipe(plain)


def recipe_text(run: Path) -> str:
    """Return a run's recipe as it is written. Without one, the run ended before it began."""
    data = _bytes(run / "recipe.yaml", MAX_BYTES)
    if data is None:
        raise StorageError(f"{run}: no recipe.yaml; it was ended before it began")
    try:
        return data.decode()
    except ValueError:
        raise StorageError(f"{run / 'recipe.yaml'}: no UTF-8 text") from None


def lock(run: Path) -> str:
    """Return the text in the lock of a run; an empty text if it has none."""
    return (_bytes(run / "lock", MAX_LOCK) or b"").decode(errors="replace").strip()


def note(run: Path) -> str:
    """Return what people have noted about a run; an empty text if nothing."""
    return (_bytes(run / "note.txt", MAX_NOTE) or b"").decode(errors="replace").strip()


def grid(file: Path, pixels: int) -> Image.Image:
    """Return a grid of images of so many pixels each, as a run draws them: PNG, RGB or grey.

    Raises `StorageError` also when it is missing, and when it has far more pixels than such a grid.
    """
    from PIL import Image

    data = _bytes(file, MAX_GRID)
    if data is None:
        raise StorageError(f"{file}: missing")
    most = 2**24 + 80 * pixels  # 64 images, the lines between them and their captions
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=("PNG",))
            if image.width * image.height > most or image.mode not in ("RGB", "L"):
                what = f"{image.width:,} x {image.height:,} pixels of {image.mode}"
                raise StorageError(f"{file}: {what}; no grid of this run")
            image.load()
    except StorageError:
        raise
    # A damaged file can make a decoder raise any error.
    except Exception as error:
        raise StorageError(f"{file}: {type(error).__name__}: {short(str(error))}") from error
    return image


def unless_damaged(read: Callable[[Path], T | None], run: Path) -> T | None:
    """Return what `read` gives; for a damaged file None, with a `Notice`."""
    try:
        return read(run)
    except StorageError as error:
        warnings.warn(f"left out: {error}", Notice, stacklevel=2)
        return None


# --- the log -------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A line of a log, as bytes and as data; or why it cannot be read."""

    number: int
    text: bytes
    line: Line | None
    why: str = ""
    torn: bool = False  # the end of a log whose writer was killed


def _all(_: int) -> bool:
    return True


def entries(run: Path, wanted: Callable[[int], bool] = _all) -> Iterator[Entry]:
    """Give the lines of a run's log whose numbers are wanted; nothing for a missing log.

    Steps ascend. A line between two that ascend whose own step is not between theirs is damaged.
    """
    before, held = -1, None
    for entry in _lines(run, wanted=wanted):
        if entry.line is None:
            yield entry
            continue
        step = entry.line["step"]
        if held is not None and held.line is not None:
            own = held.line["step"]
            if before < step and not before < own < step:
                why = f"step {own:,} is not between {before:,} and {step:,}"
                yield held._replace(line=None, why=why)
            else:
                yield held
                before = own
        held = entry
    if held is not None:
        yield held


def log(run: Path) -> tuple[list[Line], list[Entry]]:
    """Return the lines of a log and those that cannot be read, without the end of a killed writer.

    Of a log of more than `LINES` lines every second or fourth and so on is returned, and the last.
    """
    lines: list[Line] = []
    damaged: list[Entry] = []
    each, taken = 1, 0

    def wanted(number: int) -> bool:
        return (number - 1) % each == 0

    # Lines that are left out are not parsed either: a log may have a million.
    for entry in entries(run, wanted):
        if entry.line is not None:
            lines.append(entry.line)
        elif not entry.torn and len(damaged) < LINES:
            damaged.append(entry._replace(text=b""))
        taken += 1
        if taken > LINES:
            lines, each, taken = lines[::2], 2 * each, taken // 2
    with suppress(StorageError):  # the end may be damaged
        last = last_line(run) if each > 1 and lines else None
        if last is not None and last["step"] > lines[-1]["step"]:
            lines.append(last)
    return lines, damaged


def last_line(run: Path) -> Line | None:
    """Return the last line of a log that can be read; None for an empty log.

    Raises `StorageError` when the end of the log has lines, but none that can be read.
    """
    try:
        with opened(run / "log.jsonl", MAX_LOG) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
            texts = file.read(TAIL).splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{run / 'log.jsonl'}: {error.strerror or error}") from error
    for text in reversed(texts):
        line, _ = _parsed(text)
        if line is not None:
            return line
    if texts:
        raise StorageError(f"{run / 'log.jsonl'}: no line can be read")
    return None


def measured(run: Path, name: str) -> list[Line]:
    """Return the lines of a log in which a metric was measured; the others are not parsed."""
    lines = (entry.line for entry in _lines(run, b'"metrics"') if entry.line is not None)
    return [line for line in lines if name in line.get("metrics", {})]


def _lines(run: Path, having: bytes = b"", wanted: Callable[[int], bool] = _all) -> Iterator[Entry]:
    """Give the lines of a log that contain some bytes, with the names that metrics have today."""
    names: dict[str, str] | None = None
    for number, text in enumerate(_texts(run / "log.jsonl"), 1):
        if having not in text or not wanted(number):
            continue
        line, why = _parsed(text)
        if line is not None and RENAMED.keys() & line.get("metrics", {}).keys():
            names = _names(run) if names is None else names
            line["metrics"] = rename_keys(line["metrics"], names)
            text = json.dumps(line).encode() + b"\n"  # noqa: PLW2901 - as it will be written
        yield Entry(number, text, line, why, torn=line is None and not text.endswith(b"\n"))


def _texts(file: Path) -> Iterator[bytes]:
    """Give the lines of a file, each with at most `MAX_LINE` bytes of it."""
    try:
        with opened(file, MAX_LOG) as opened_file:
            while text := opened_file.readline(MAX_LINE):
                rest = text
                while rest and not rest.endswith(b"\n"):  # a line without end is passed over
                    rest = opened_file.readline(MAX_LINE)
                    text = text[:MAX_LINE].rstrip(b"\n") + (b"\n" if rest else b"")
                yield text
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror or error}") from error


def _parsed(text: bytes) -> tuple[Line | None, str]:
    """Return a line of a log as data, or None and why it cannot be read."""
    try:
        return LINE.validate_json(text, strict=True), ""
    except ValidationError as error:
        return None, _fault(error)


def _names(run: Path) -> dict[str, str]:
    """Return the old and the new names of the metrics in a run's recipe, if it can be read."""
    try:
        return renamed_in(read(recipe_text(run), "recipe.yaml")[0].plain())
    except StorageError:
        return {}


# --- how they are read ---------------------------------------------------------------------------


def _bytes(file: Path, most: int) -> bytes | None:
    try:
        return read_file(file, most)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror or error}") from error


def _json(file: Path, adapter: TypeAdapter[T], most: int = MAX_JSON) -> T | None:
    data = _bytes(file, most)
    return None if data is None else parsed(data, file, adapter)


def parsed(data: bytes, file: Path, adapter: TypeAdapter[T]) -> T:
    """Return the content of a JSON file, which the adapter checks. Raises `StorageError`."""
    try:
        return adapter.validate_json(data, strict=True)
    except ValidationError as error:
        raise StorageError(f"{file}: {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    """Return the place and the message of the first error."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{short(place)}: {first['msg']}" if place else first["msg"]
