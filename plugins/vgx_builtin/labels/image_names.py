"""Which image a name means, as people write the names of images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property

ENDING = re.compile(r"\.\w{1,5}$")


class Names:
    """The names of images, as a file of labels may write them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    @cached_property
    def whole(self) -> dict[str, int]:
        """The images by their names."""
        return {unicodedata.normalize("NFC", name): i for i, name in enumerate(self.names)}

    @cached_property
    def keys(self) -> dict[str, int]:
        """The images by their names without endings; -1 for several."""
        return _numbered((_key(name), index) for index, name in enumerate(self.names))

    @cached_property
    def ends(self) -> dict[str, int]:
        """The images by their names without endings and some first folders; -1 for several."""
        return _numbered(
            (end, index) for index, name in enumerate(self.names) for end in _ends(_key(name))[1:]
        )

    def find(self, written: str) -> int | None:
        """Return which image a name means; -1 for several, None for none.

        A name may have either slash, `./` before it, more folders before it, and no ending or
        another one. It may lack first folders, if only one image is called so.
        """
        if (index := self.whole.get(written)) is not None:
            return index
        name = unicodedata.normalize("NFC", written.strip().replace("\\", "/"))
        ends = _ends("/".join(part for part in name.split("/") if part not in ("", ".")))
        for known, made in ((self.whole, str), (self.keys, str.casefold), (self.keys, _key)):
            for end in ends:
                if (index := known.get(made(end))) is not None:
                    return index
        for made in (str.casefold, _key):  # the folders that it has must be those of the image
            if (index := self.ends.get(made(ends[0]))) is not None:
                return index
        return None

    def sure(self, value: object) -> int:
        """Return whether a value is the name of an image: 2 as it stands, 1 otherwise, 0 if not."""
        if not isinstance(value, str) or self.find(value) is None:
            return 0
        return 2 if value in self.whole else 1


def _key(name: str) -> str:
    """Return a name without its ending, in small letters."""
    folder, slash, base = unicodedata.normalize("NFC", name).rpartition("/")
    return f"{folder}{slash}{ENDING.sub('', base) or base}".casefold()


def _ends(name: str) -> list[str]:
    """Return a name, the same without its first folder, and so on to the last part alone."""
    parts = name.split("/")[-20:]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _numbered(keys: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the image of each key; -1 for a key of several images."""
    images: dict[str, int] = {}
    for key, index in keys:
        images[key] = -1 if images.get(key, index) != index else index
    return images
