"""Images that are numbers in a column: lists of lists, or the arrays of the library `datasets`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vgx
from vgx_builtin.rows.column_types import feature_at, numbers_in, rank
from vgx_builtin.rows.columns import Cells, Rows, cells_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST = 8
"""Rows that say what is white, in columns of whole numbers that may be larger than two bytes."""


@dataclass(frozen=True)
class ArrayCells:
    """The cells of a column of numbers as arrays, all of one type."""

    cells: Cells
    dtype: str

    def __getitem__(self, index: int) -> NDArray[Any] | None:
        """Return [H, W] or [H, W, C], or None. Raises `DataError` for what is no image."""
        import numpy as np

        value = self.cells[index]
        if value is None:
            return None
        try:
            array = np.asarray(value)
        except ValueError as error:  # rows of different lengths
            raise vgx.DataError(f"row {index}: {error}") from error
        if array.dtype.kind not in "buif" or array.ndim not in (2, 3):
            raise vgx.DataError(f"row {index}: not an array of numbers in two or three dimensions")
        if array.size and (array.astype(self.dtype) != array).any() and self.dtype != "float32":
            limits = f"{array.min()} to {array.max()}"
            raise vgx.DataError(f"row {index}: values of {limits}; other rows are {self.dtype}")
        array = array.astype(self.dtype)
        channels = (1, 3, 4)
        if array.ndim == 3 and array.shape[0] in channels and array.shape[2] not in channels:
            array = np.moveaxis(array, 0, 2)
        return array


def image_cells(rows: Rows, column: str) -> Cells:
    """Return the cells of a column of images; numbers become arrays."""
    cells, kind = cells_of(rows, column), feature_at(rows.features, column)
    if rank(kind) != 1:
        return cells
    numbers = numbers_in(kind)
    if numbers in ("bool", "uint8", "uint16"):
        return ArrayCells(cells, "uint8" if numbers == "bool" else numbers)
    if numbers.startswith("float"):
        return ArrayCells(cells, "float32")
    return ArrayCells(cells, _narrowest(ArrayCells(cells, "float32"), len(rows)))


def _narrowest(cells: Cells, count: int) -> str:
    """Return the type of pixels for whole numbers of many bytes, as programs write them."""
    arrays = [array for index in range(min(count, FIRST)) if (array := cells[index]) is not None]
    low = min((float(array.min()) for array in arrays if array.size), default=0.0)
    high = max((float(array.max()) for array in arrays if array.size), default=0.0)
    for name, white in (("uint8", 255), ("uint16", 65535)):
        if low >= 0 and high <= white:
            return name
    return "float32"
