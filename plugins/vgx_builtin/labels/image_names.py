"""Which image a name means, as people write the names of images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
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
    def short(self) -> dict[str, int]:
        """The images by their names without endings, and without folders too; -1 for several."""
        short: dict[str, int] = {}
        for index, name in enumerate(self.names):
            for key in {_key(name), _key(name.rpartition("/")[2])}:
                short[key] = -1 if short.get(key, index) != index else index
        return short

    def find(self, written: str) -> int | None:
        """Return which image a name means; -1 for several, None for none.

        A name may have either slash, `./` before it, more folders before it, and no ending or
        another one.
        """
        if (index := self.whole.get(written)) is not None:
            return index
        name = unicodedata.normalize("NFC", written.strip().replace("\\", "/"))
        parts = [part for part in name.split("/") if part not in ("", ".")][-20:]
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        for known, made in ((self.whole, str), (self.short, str.casefold), (self.short, _key)):
            for tail in tails:
                if (index := known.get(made(tail))) is not None:
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
