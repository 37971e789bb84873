"""Images that are not used: counted by reason, and what a user can set to go on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vgx.errors import DataError, Dropped
from vgx.parts.kinds import Dataset

SHOWN = 7  # unreadable images in a message, which has at most ten lines


@dataclass
class Unusable:
    """The images of a source that are not used, so far."""

    dropped: Counter[str] = field(default_factory=Counter)  # by reason
    bad: list[str] = field(default_factory=list)  # that cannot be read: "name: why"
    instead: dict[str, tuple[str, ...]] = field(default_factory=dict)  # settings by reason

    @property
    def count(self) -> int:
        """How many there are."""
        return self.dropped.total() + len(self.bad)

    def add(self, fault: Dropped | DataError) -> None:
        """Count an image."""
        if isinstance(fault, Dropped):
            self.dropped[str(fault)] += 1
            self.instead[str(fault)] = fault.instead
        else:
            self.bad.append(str(fault))

    def nothing_else(self, total: str) -> str:
        """Return the message for a source of which no image is left."""
        return "\n".join([f"none of {total} images is usable: {self.counts()}", *self.settings()])

    def counts(self) -> str:
        """Return how many there are by reason, as a text."""
        counts = [f"{count:,} {reason}" for reason, count in sorted(self.dropped.items())]
        if self.bad:
            counts.append(f"{len(self.bad):,} unreadable ({'; '.join(self.bad[:3])})")
        return ", ".join(counts)

    def settings(self) -> list[str]:
        """Return what to set to use such images, a line for each choice."""
        lines = list[str]()
        for settings in dict.fromkeys(filter(None, self.instead.values())):
            reasons = [reason for reason, given in self.instead.items() if given == settings]
            choice = ", or ".join(f"--set {setting}" for setting in settings)
            lines.append(f"To use those that are {', '.join(reasons)}: {choice}")
        return lines


def unreadable(
    bad: int,
    named: Sequence[str],
    total: int,
    max_bad: float | None,
    advice: str = "",
    file: Path | None = None,
) -> str:
    """Return the message for more unreadable images than `max_bad` allows; with None, for any.

    It has the names of the first ones and ends with `advice`, by default the settings to go on.
    `file` has more names.
    """
    lines = [f"{bad:,} of {total:,} images cannot be read"]
    if max_bad is not None:
        lines[0] += f", and dataset.max_bad={max_bad:g} allows {math.floor(max_bad * total):,}"
    lines[0] += ":"
    lines += [f"  {name}" for name in named[:SHOWN]]
    if bad > SHOWN:
        where = f"; {file} names {len(named):,}" if file and len(named) > SHOWN else ""
        lines.append(f"  and {bad - SHOWN:,} more{where}")
    settings = [] if max_bad is not None else ["--set dataset.on_bad=skip"]
    if bad > (Dataset.model_fields["max_bad"].default if max_bad is None else max_bad) * total:
        settings.append(f"--set dataset.max_bad={share(bad, total):g}")
    return "\n".join([*lines, advice or f"To leave them out: {' '.join(settings)}"])


def share(part: int, total: int) -> float:
    """Return a share of a few digits that is at least `part` of `total`."""
    scale = 10.0 ** (1 - math.floor(math.log10(part / total)))
    units = math.floor(part * scale / total)
    while units / scale * total < part:
        units += 1
    return min(units / scale, 1)
