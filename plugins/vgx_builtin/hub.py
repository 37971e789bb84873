"""Manners towards the hub: ask first whether it is there, and never wait for it for long."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vgx

SECONDS = 10  # the longest that anybody waits for a word of the hub
TRIES = 3  # that one question is asked when the hub is too busy, broken or silent


class UnreachableError(vgx.HubError):
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
    """Run the block offline when the hub can't be reached, else with patience; tell which."""
    from huggingface_hub import constants, get_session

    online = reachable()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not online
    client, patience = get_session(), Patience()
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks["request"], patience.asking],
        "response": [*hooks["response"], patience.answered],
    }
    try:
        yield online
    finally:
        constants.HF_HUB_OFFLINE = before
        client.event_hooks = hooks


class Patience:
    """Gives up where the hub's own library would ask on, and wait for as long as it is told to."""

    def __init__(self) -> None:
        self.tries = Counter[str]()  # by question, since it was last answered

    def asking(self, request: Any) -> None:
        """Count a question that is about to be asked. The fourth in vain is an error."""
        question = f"{request.method} {request.url}"
        if self.tries[question] == TRIES:
            raise UnreachableError(f"no answer of the hub in {TRIES} tries: {question}")
        self.tries[question] += 1
        # Some of the library's questions would wait for a hundred seconds.
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            what: min(limits.get(what) or SECONDS, SECONDS)
            for what in ("connect", "read", "write", "pool")
        }

    def answered(self, response: Any) -> None:
        """Look at an answer. Raises `HubError` for the third in a row that is none."""
        question = f"{response.request.method} {response.request.url}"
        if response.status_code != 429 and response.status_code < 500:
            del self.tries[question]
        elif self.tries[question] == TRIES:
            said = f"the hub answers {response.status_code} to {TRIES} tries: {question}"
            raise vgx.HubError(said)
        # These may bid to wait for an hour; without them the library waits a second, then two.
        for name in ("retry-after", "ratelimit"):
            response.headers.pop(name, None)


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
        vgx.HubError,
    )
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False
