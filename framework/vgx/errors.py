"""The errors that a person may cause and mend; anything else that is raised is a bug of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class VgxError(Exception):
    """Shown as one message without a traceback: where, what, what instead."""

    exit_code = 1


class RecipeError(VgxError):
    """The recipe, or the command line that changes it, cannot mean what it says."""

    exit_code = 2


class PluginError(VgxError):
    """A plugin that is needed is broken, missing or ambiguous."""

    exit_code = 3


class DataError(VgxError):
    """The pictures are missing, unreadable or too few."""

    exit_code = 4


class StorageError(VgxError):
    """A run or a checkpoint cannot be found, read or written."""

    exit_code = 5


class DivergedError(VgxError):
    """A loss or a weight is no longer a finite number."""

    exit_code = 6

    def __init__(self, message: str, step: int | None = None) -> None:
        """Keep the number of the step, where there is one."""
        super().__init__(message)
        self.step = step


class BusyError(VgxError):
    """Another process is training in this run directory."""

    exit_code = 7


class HubError(VgxError):
    """The hub cannot be reached, or refuses, and nothing is cached."""

    exit_code = 8


class Stopped(VgxError):  # noqa: N818 - a stop that was asked for is no error of anybody's
    """A signal asked for the end; the run is saved."""

    def __init__(self, message: str, signal: int) -> None:
        """Keep the signal's number: by custom the exit code is 128 more."""
        super().__init__(message)
        self.exit_code = 128 + signal


class Notice(UserWarning):
    """What a person must know about this run although it goes on.

    A part says it with `warnings.warn("...", vgx.Notice)` while it is being built. It is shown on
    the terminal, and kept in `environment.json` and in the first line of the run's log.
    """


class Dropped(Exception):  # noqa: N818 - a decision, not an error
    """A source raises it for a picture that the recipe leaves out; the message is the reason.

    Pictures are counted by reason ("greyscale", "with alpha"), so a reason names no single file.
    """


@contextmanager
def noticing(notices: list[str]) -> Iterator[None]:
    """Collect the notices that parts give while they are built."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Notice)
        yield
    for warning in caught:
        if issubclass(warning.category, Notice):
            notices.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
