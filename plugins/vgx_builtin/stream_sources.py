"""Sources of images in row groups, with labels and without."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import vgx
from vgx_builtin.columns import cells_of
from vgx_builtin.image_files import NonRgb
from vgx_builtin.label_values import NO_LABEL, Labels
from vgx_builtin.row_groups import GroupRows
from vgx_builtin.row_images import RowImages

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
    groups: list[int]  # how many images each has
    group_bytes: int  # of the largest group, about
    ends: list[int]  # the row after the last of each group
    last: dict[int, RowImages] = field(default_factory=dict)  # the group that was read by row

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image, as `RowImages` does. Its group is read for it."""
        number = bisect_right(self.ends, index)
        group = self.last.get(number)
        if group is None:
            self.last.clear()
            group = self.last[number] = self.group(number)
        return group[index - group.first]

    def group(self, number: int) -> RowImages:
        """Read a group. Raises `DataError` or `HubError`."""
        rows = self.rows[number]
        first = self.ends[number] - len(rows)
        cells = cells_of(rows, self.column)
        return RowImages(cells, len(rows), (), self.non_rgb, self.channels, "", first)


@dataclass(frozen=True)
class LabelledRows:
    """The images of a group; those without a label are left out."""

    images: RowImages
    labels: Sequence[int]
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image. Raises `vgx.Dropped` if it has no label."""
        if self.labels[index] == NO_LABEL:
            raise vgx.Dropped("without a label")
        return self.images[index]

    def encoded(self, index: int) -> bytes:
        """Return the file of an image as it is."""
        return self.images.encoded(index)


@dataclass(frozen=True)
class LabelledStream:
    """Streamed images with labels."""

    source: StreamedRows
    labels: Labels
    fingerprint: str

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Image.Image | NDArray[Any]:
        """Return one image. Raises `vgx.Dropped` if it has no label."""
        if self.label(index) == NO_LABEL:
            raise vgx.Dropped("without a label")
        return self.source[index]

    @property
    def classes(self) -> Sequence[str]:
        """The names of the labels."""
        return self.labels.names

    @property
    def revision(self) -> str:
        """Return the commit of the data; "" when there is none."""
        return self.source.revision

    @property
    def groups(self) -> list[int]:
        """Return how many images each group has."""
        return self.source.groups

    @property
    def group_bytes(self) -> int:
        """Return the size in memory of the largest group, about."""
        return self.source.group_bytes

    def group(self, number: int) -> LabelledRows:
        """Read a group. Raises `DataError` or `HubError`."""
        images = self.source.group(number)
        numbers = self.labels.numbers[images.first : images.first + len(images)]
        return LabelledRows(images, numbers)

    def label(self, index: int) -> int:
        """Return the label of an image, or `NO_LABEL`."""
        return self.labels.numbers[index]
