"""Sources of images in row groups, with labels and without."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import vgx
from vgx_builtin.files.image_files import NonRgb
from vgx_builtin.labels.sources import LabelledSource
from vgx_builtin.labels.values import NO_LABEL, Labels
from vgx_builtin.rows.columns import cells_of
from vgx_builtin.rows.row_groups import GroupRows
from vgx_builtin.rows.row_images import RowImages

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class StreamedRows:
    """The images of a column, by row groups."""

    rows: list[GroupRows]
    column: str
    non_rgb: NonRgb
    channels: int  # of the recipe
    fingerprint: str
    revision: str
    group_bytes: int  # of the largest group, about
    # The group that was read by row.
    last: dict[int, RowImages] = field(init=False, default_factory=dict)

    @cached_property
    def groups(self) -> list[int]:
        """How many images each group has."""
        return [len(rows) for rows in self.rows]

    @cached_property
    def ends(self) -> list[int]:
        """The row after the last of each group."""
        return list(accumulate(self.groups))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image, as `RowImages` does."""
        return self.image(index)

    def image(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image with a label or without. Its group is read for it."""
        number = bisect_right(self.ends, index)
        group = self.last.get(number)
        if group is None:
            self.last.clear()
            group = self.last[number] = self.images(number)
        return group[index - group.first]

    def group(self, number: int) -> vgx.Encoded:
        """Read a group. Raises `DataError` or `HubError`."""
        return self.images(number)

    def images(self, number: int) -> RowImages:
        """Return the images of a group, with labels or without. Raises as above."""
        rows = self.rows[number]
        first = self.ends[number] - len(rows)
        cells = cells_of(rows, self.column)
        return RowImages(cells, len(rows), (), self.non_rgb, self.channels, "", first)


@dataclass(frozen=True)
class LabelledStream(StreamedRows):
    """The same images with labels."""

    labels: Labels

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image. Raises `vgx.Dropped` if it has no label."""
        if self.label(index) == NO_LABEL:
            raise vgx.Dropped("without a label")
        return self.image(index)

    @property
    def classes(self) -> Sequence[str]:
        """The names of the labels."""
        return self.labels.names

    def group(self, number: int) -> LabelledSource:
        """Read a group. Raises `DataError` or `HubError`."""
        images = self.images(number)
        rows = range(len(images))
        numbers = self.labels.numbers[images.first : images.first + len(images)]
        return LabelledSource(images, rows, Labels(numbers, self.classes), "")

    def label(self, index: int) -> int:
        """Return the label of an image, or `NO_LABEL`."""
        return self.labels.numbers[index]
