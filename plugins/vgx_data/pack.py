"""Any data set as shards of parquet, in the layout of the hub and of the library `datasets`.

A folder appears under its name when all of it is written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import vgx
from vgx.check.blame import blaming
from vgx.console import Console
from vgx.data.cache import parse_bytes
from vgx.data.decode import MACHINE, guarded
from vgx.data.store import announce, open_source
from vgx.files import flush_directory, new_folder, require_new, storage
from vgx.images import ahead, threads
from vgx.recipe.library import recipes

PLAIN = "quickstart"  # the recipe that stands around a data set that was named by its place
GROUP = 2**24  # bytes of encoded images that are read together, at most
NAMED = 3  # unreadable images that are named


@dataclass(frozen=True)
class Sizes:
    """How much a row group and a shard hold, at most."""

    rows: int  # of a row group
    shard: int  # bytes of a file, about

    @staticmethod
    def of(rows: int, shard: str) -> Sizes:
        """Read a size like 500MB. Raises `RecipeError`."""
        return Sizes(rows, max(1, parse_bytes(shard, "--shard-size")))


def recipe_of(place: str, overrides: Sequence[str], registry: vgx.Registry) -> vgx.Recipe:
    """Return a recipe with the data set that a user named: by a recipe, or by its place."""
    known = place.replace("-", "_") in recipes() and not Path(place).exists()
    if known or place.endswith((".yaml", ".yml")):
        return vgx.load_recipe(place, overrides, registry)
    return vgx.load_recipe(PLAIN, overrides, registry, place)


def pack_images(
    recipe: vgx.Recipe,
    registry: vgx.Registry,
    out: Path,
    sizes: Sizes,
    console: Console,
    limit: int | None = None,
) -> str:
    """Write the images of a recipe's data set as shards into `out`; return what was done.

    Images are written as their files are where the source has these, else as PNG. Those that are
    dropped or cannot be read are left out and counted. Raises `StorageError` for a folder that has
    files, and `DataError` when no image is usable.
    """
    _require_empty(out := out.resolve())  # a folder cannot take the place of a link
    with blaming(registry):
        announce(recipe.dataset, [], console)
        source, notices = open_source(recipe.dataset, recipe.image)
        for notice in notices:
            console.warn(notice)
        labels = source if isinstance(source, vgx.Labelled) and recipe.image.classes else None
        count = min(len(source), limit or len(source))
        with new_folder(out) as folder, guarded():
            (folder / "data").mkdir()
            shards = Shards(folder, sizes, _features(labels))
            with console.progress("Packing", count) as advance:
                for row in ahead(lambda index: _read(source, index), range(count), threads()):
                    shards.add(row, labels)
                    advance(1, ())
            shards.finish(source)
    return f"{shards.summary()} in {out}"


@dataclass(frozen=True)
class Row:
    """One image of a source, encoded, or why there is none."""

    index: int
    data: bytes = b""
    dropped: str = ""  # why it is left out
    fault: str = ""  # why it cannot be read


def _read(source: vgx.Source, index: int) -> Row:
    """Return image `index`, which was decoded to see that it is whole."""
    try:
        opened = source[index]
        file = source.encoded(index) if isinstance(source, vgx.Encoded) else b""
        return Row(index, file or _as_png(opened))
    except vgx.Dropped as reason:
        return Row(index, dropped=str(reason))
    # Decoders raise many kinds of error for bad files; each means the same to the user.
    except Exception as error:
        causes = (error, error.__cause__)
        if any(isinstance(c, MemoryError) or getattr(c, "errno", 0) in MACHINE for c in causes):
            raise
        named = isinstance(error, vgx.DataError)
        text = str(error) if named else f"image {index}: {type(error).__name__}: {error}"
        return Row(index, fault=text[:200])


def _as_png(image: Any) -> bytes:
    """Return an image as PNG, without loss. Raises `DataError` for values that PNG cannot hold."""
    if isinstance(image, np.ndarray):
        pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        whole = pixels.dtype == np.uint8 or (pixels.dtype == np.uint16 and pixels.ndim == 2)
        if not whole or (pixels.ndim == 3 and pixels.shape[2] not in (2, 3, 4)):
            kind = f"{image.dtype} of shape {list(image.shape)}"
            raise vgx.DataError(f"an array {kind} can't be written as PNG without loss")
        image = Image.fromarray(pixels)
    if image.mode == "F":
        raise vgx.DataError("an image of floats can't be written as PNG without loss")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass
class Shards:
    """Row groups and files, as rows are added."""

    folder: Path
    sizes: Sizes
    features: dict[str, Any]  # what the columns hold, in the words of `datasets`
    files: list[Path] = field(default_factory=list)
    rows: list[tuple[bytes, int | None]] = field(default_factory=list)  # of the next row group
    held: int = 0  # bytes of those
    written: int = 0  # bytes of the open file
    count: int = 0
    bad: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    writer: Any = None  # pyarrow.parquet.ParquetWriter
    sha256: Any = None  # of the images of the open file

    def add(self, row: Row, labels: vgx.Labelled | None) -> None:
        """Add a row, or count why it is left out."""
        if row.dropped:
            self.dropped[row.dropped] += 1
        elif row.fault:
            self.bad.append(row.fault)
        else:
            label = None if labels is None else labels.label(row.index)
            if self.rows and self.held + len(row.data) > GROUP:
                self._write_group()
            self.rows.append((row.data, label))
            self.held += len(row.data)
            self.count += 1
            if len(self.rows) == self.sizes.rows:
                self._write_group()

    def finish(self, source: vgx.Source) -> None:
        """Write the last rows and give the files their names. Raises `DataError` for no rows."""
        if not self.count:
            why = f"dropped: {dict(self.dropped)}, unreadable: {self._examples()}"
            raise vgx.DataError(f"none of {len(source):,} images is usable: {why}")
        if self.rows:
            self._write_group()
        self._close()
        for number, file in enumerate(self.files):
            file.rename(file.with_name(f"train-{number:05}-of-{len(self.files):05}.parquet"))
        flush_directory(self.folder / "data")

    def summary(self) -> str:
        """Return the counts as a line of text."""
        files = "1 file" if len(self.files) == 1 else f"{len(self.files):,} files"
        text = f"{self.count:,} images in {files}"
        if self.dropped:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(self.dropped.items()))
            text += f", {self.dropped.total():,} dropped ({reasons})"
        return text + (f", {self._examples()}" if self.bad else "")

    def _examples(self) -> str:
        more = f"; and {len(self.bad) - NAMED:,} more" if len(self.bad) > NAMED else ""
        return f"{len(self.bad):,} unreadable ({'; '.join(self.bad[:NAMED])}{more})"

    def _write_group(self) -> None:
        import pyarrow

        images = pyarrow.array([{"bytes": data, "path": None} for data, _ in self.rows], _image())
        columns = [images]
        if "label" in self.features:
            columns.append(pyarrow.array([label for _, label in self.rows], pyarrow.int64()))
        if self.writer is None:
            self._open()
        table = pyarrow.Table.from_arrays(columns, schema=self.writer.schema)
        self.writer.write_table(table, row_group_size=len(self.rows))
        for data, label in self.rows:
            self.sha256.update(hashlib.sha256(data).digest() + f"{label}".encode())
        self.written += self.held
        self.rows, self.held = [], 0
        if self.written >= self.sizes.shard:
            self._close()

    def _open(self) -> None:
        import pyarrow
        import pyarrow.parquet

        file = self.folder / "data" / f"part-{len(self.files):05}.parquet"
        self.files.append(file)
        fields = [pyarrow.field("image", _image())]
        if "label" in self.features:
            fields.append(pyarrow.field("label", pyarrow.int64()))
        info = json.dumps({"info": {"features": self.features}})
        schema = pyarrow.schema(fields, metadata={"huggingface": info})
        # Images are compressed already, and smallest and largest bytes in the footer help nobody.
        self.writer = pyarrow.parquet.ParquetWriter(
            file, schema, compression="none", use_dictionary=False, write_statistics=False
        )
        self.written, self.sha256 = 0, hashlib.sha256()

    def _close(self) -> None:
        """Close the open file. Its footer has the sum of its images: other images, other footer."""
        if self.writer is None:
            return
        self.writer.add_key_value_metadata({"vgx.sha256": self.sha256.hexdigest()})
        self.writer.close()
        self.writer = None
        descriptor = os.open(self.files[-1], os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _image() -> Any:
    import pyarrow

    return pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})


def _features(labels: vgx.Labelled | None) -> dict[str, Any]:
    """Return what the columns hold, as `datasets` writes it into the metadata of a file."""
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if isinstance(labels, vgx.Named):
        features["label"] = {"names": [*labels.classes], "_type": "ClassLabel"}
    elif labels is not None:
        features["label"] = {"dtype": "int64", "_type": "Value"}
    return features


def _require_empty(out: Path) -> None:
    """Raise `StorageError` unless a folder can be made at a path."""
    require_new(out)
    with storage(out):  # another folder takes its place at the end
        if out.exists() and (out.samefile(Path.cwd()) or out.is_mount()):
            raise vgx.StorageError(f"{out}: a disk or the working directory; give another folder")
