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
        return _numbered(map(_key, self.names))

    @cached_property
    def bare(self) -> dict[str, int]:
        """The images by their names without endings and folders; -1 for several."""
        return _numbered(_key(name.rpartition("/")[2]) for name in self.names)

    def find(self, written: str) -> int | None:
        """Return which image a name means; -1 for several, None for none.

        A name may have either slash, `./` before it, more folders before it, and no ending or
        another one. It may lack folders, if only one image is called so: those that it has must be
        those of the image.
        """
        if (index := self.whole.get(written)) is not None:
            return index
        name = unicodedata.normalize("NFC", written.strip().replace("\\", "/"))
        parts = [part for part in name.split("/") if part not in ("", ".")][-20:]
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        for known, made in ((self.whole, str), (self.keys, str.casefold), (self.keys, _key)):
            for tail in tails:
                if (index := known.get(made(tail))) is not None:
                    return index
        return self._with_fewer_folders(tails) if tails else None

    def _with_fewer_folders(self, tails: Sequence[str]) -> int | None:
        """Return which image a name means that lacks folders of the image, as `find` does.

        `tails` are the name, the same without its first folder, and so on to the bare name.
        """
        for made in (str.casefold, _key):
            index = self.bare.get(made(tails[-1]))
            if index is not None and len(tails) == 1:
                return index
            if index not in (None, -1) and _key(self.names[index]).endswith(f"/{made(tails[0])}"):
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


def _numbered(keys: Iterable[str]) -> dict[str, int]:
    """Return the place of each key among all; -1 for a key that is there several times."""
    places: dict[str, int] = {}
    for index, key in enumerate(keys):
        places[key] = -1 if key in places else index
    return places
