"""The errors that a user can cause and correct. Any other exception is a bug of vgx."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from vgx.output import cut


class VgxError(Exception):
    """The base of these errors: printed as one message, without a traceback."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the message alone."""
        return [f"vgx: {line}" if i == 0 else line for i, line in enumerate(cut(str(self)))]


class RecipeError(VgxError):
    """The recipe is invalid, or an option of the command line that changes it."""

    exit_code = 2


class PluginError(VgxError):
    """A plugin that the recipe needs is broken, missing or ambiguous."""

    exit_code = 3


class DataError(VgxError):
    """The images are missing, unreadable or too few."""

    exit_code = 4


class StorageError(VgxError):
    """A run or a checkpoint cannot be found, read or written."""

    exit_code = 5


class DivergedError(VgxError):
    """A loss or a weight is not a finite number."""

    exit_code = 6

    def __init__(self, message: str, step: int | None = None) -> None:
        """Keep the number of the step, if it is known."""
        super().__init__(message)
        self.step = step


class BusyError(VgxError):
    """Another process is training in this run directory."""

    exit_code = 7


class HubError(VgxError):
    """The hub cannot be reached or refuses the request, and the files are not cached."""

    exit_code = 8


class LostError(VgxError):
    """Another process of the same training has ended or cannot be reached."""

    exit_code = 9

    def __init__(self, message: str, code: int = exit_code) -> None:
        """Keep the exit code of the process that failed, if it is known."""
        super().__init__(message)
        self.exit_code = code


class Stopped(VgxError):  # noqa: N818 - a stop on request is no error
    """A signal ended the training. The run is saved."""

    def __init__(self, message: str, number: int) -> None:
        """Keep the number of the signal. By convention the exit code is 128 + that number."""
        super().__init__(message)
        self.exit_code = 128 + number


class Interrupted(KeyboardInterrupt):
    """The user pressed Ctrl-C. A plain `KeyboardInterrupt` may come from a part."""


def by_user(error: BaseException) -> bool:
    """Return whether an error is that of Ctrl-C, and not one that a part raised."""
    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, KeyboardInterrupt if plain else Interrupted)


class Notice(UserWarning):
    """A warning that the user must see, although the run continues.

    A part calls `warnings.warn("...", vgx.Notice)` in its `build`. The message is printed, and kept
    in `environment.json` and in the first line of the run's log.
    """


class Dropped(Exception):  # noqa: N818 - a decision, no error
    """Raised by a source for an image that the recipe leaves out. The message is the reason.

    Images are counted by reason ("greyscale", "with alpha"), so a reason must not name a file.
    `instead` are settings with which such images are used: "dataset.non_rgb=convert". They are
    shown when more images are dropped than used.
    """

    def __init__(self, reason: str, *instead: str) -> None:
        """Keep what the user can set instead."""
        super().__init__(reason)
        self.instead = instead


@contextmanager
def noticing(notices: list[str]) -> Iterator[None]:
    """Append to `notices` the messages of all `Notice` warnings in the block."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Notice)
        try:
            yield
        finally:  # what explains an error is shown, too
            notices += [str(each.message) for each in caught if issubclass(each.category, Notice)]
            others = [each for each in caught if not issubclass(each.category, Notice)]
    for other in others:
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
