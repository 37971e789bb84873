"""Manners towards the hub: ask first whether it is there, and never wait for it for long."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vgx
from vgx.errors import HubError

SECONDS = 10  # the longest that anybody waits to learn that the hub can't be reached


class UnreachableError(HubError):
    """The hub can't be reached, and nothing is cached."""


def reachable() -> bool:
    """Tell whether the hub answers anything at all within `SECONDS`."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []

    def ask() -> None:
        # Whatever goes wrong here, the hub did not answer.
        with contextlib.suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
            answers.append(True)

    # A name that no server resolves can hang longer than any time-out: leave the thread behind.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return bool(answers)


@contextmanager
def bounded() -> Iterator[bool]:
    """Run the block offline when the hub can't be reached; tell whether it can."""
    from huggingface_hub import constants

    online = reachable()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not online
    try:
        yield online
    finally:
        constants.HF_HUB_OFFLINE = before


def load(*, split: str, offline: bool = False, **where: Any) -> Any:
    """Return `datasets.load_dataset(**where, split=split)`, its files in vgx's own cache."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.disable_progress_bars()
    datasets.config.HF_HUB_OFFLINE = before or offline
    try:
        cache = vgx.cache_dir() / "datasets"
        return datasets.load_dataset(**where, split=split, cache_dir=str(cache))
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def is_hub_error(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is the hub's or the network's."""
    from huggingface_hub import errors

    kinds = (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        ConnectionError,
    )
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False
