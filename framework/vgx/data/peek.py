"""The first images of a source, decoded without the cache: to try a recipe, or to show some.

Letters: N images, H x W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vgx.data import decode as decoding
from vgx.data import sums
from vgx.data.decode import Decoded
from vgx.data.look import look
from vgx.data.pieces import gather, hashes_of
from vgx.data.pixels import as_given, limits
from vgx.data.store import Store, label_of, settled
from vgx.data.unusable import Unusable, unreadable
from vgx.errors import DataError
from vgx.parts.kinds import Source
from vgx.parts.values import ImageSpec

LABELS = 100  # images with a wrong label that are decoded before all are


def peek(
    source: Source,
    image: ImageSpec,
    n: int,
    rows: Iterable[int] | None = None,
    *,
    skip_bad: bool = False,
) -> Store:
    """Decode the first `n` usable images without the cache, or fewer if there are not as many.

    With `rows`, of these images alone. With `skip_bad`, unreadable images are left out; else they
    are a `DataError`.
    """
    if n < 1:
        raise DataError(f"n: {n}: give a whole number, at least 1")
    usable, labels, unusable = list[Decoded](), list[int](), Unusable()
    with decoding.guarded():
        for index in range(len(source)) if rows is None else rows:
            decoded = decoding.decode(source, index, image)
            if isinstance(decoded, Decoded):
                usable.append(decoded)
                labels += [label_of(source, index, image)] if image.classes else []
            else:
                unusable.add(decoded)
            if len(usable) == n:
                break
    bad, tried = unusable.bad, len(usable) + unusable.count
    if not usable:
        count = f"{tried:,} of" if tried < len(source) else ""
        raise DataError(unusable.nothing_else(f"{count} {len(source):,}".strip()))
    if bad and not skip_bad:
        advice = "Only these were tried. To leave such images out: --set dataset.on_bad=skip"
        raise DataError(unreadable(len(bad), bad, tried, None, advice))
    values, facts = gather(usable, "uint8")
    hashes = np.array(hashes_of(values), np.uint64)
    ends = limits(image, facts.kind, *facts.ends)
    images = as_given(values, image, *ends)
    return Store(
        images,
        hashes,
        np.array(labels) if labels else None,
        settled(image, images),
        "",
        "",
        dict(unusable.dropped),
        len(bad),
        tuple(bad[: sums.NAMED]),
        facts.kind,
        look(values, hashes, image, ends, facts),
    )


def spread(count: int, most: int) -> list[int]:
    """Return numbers from 0 to `count` - 1 in ascending order: `most` of them, evenly spread."""
    most = min(count, most)
    return [number * count // most for number in range(most)]


def check_labels(source: Source, image: ImageSpec) -> None:
    """Raise `DataError` for the first image without a label that the recipe allows.

    An image that is left out may have any label, so such images are decoded: at most a hundred.
    """
    tried = 0
    for index in range(len(source) if image.classes else 0):
        try:
            label_of(source, index, image)
        except DataError:
            with decoding.guarded():
                if isinstance(decoding.decode(source, index, image), Decoded):
                    raise
            tried += 1
            if tried == LABELS:
                return
