"""Access to the Hugging Face hub: check first that it answers, and never wait long for it."""

from __future__ import annotations

import contextlib
import fcntl
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vgx

SECONDS = 10  # the longest wait for an answer of the hub
TRIES = 3  # for one request, when the hub is too busy, broken or silent


class UnreachableError(vgx.HubError):
    """The hub can't be reached, and nothing is cached."""


def reachable() -> bool:
    """Return whether the hub answers within `SECONDS`."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []

    def request() -> None:
        # Whatever goes wrong here, the hub did not answer.
        with contextlib.suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
            answers.append(True)

    # Resolving a name can take longer than any time-out: the thread is left behind then.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return bool(answers)


@contextmanager
def bounded() -> Iterator[bool]:
    """Run the block offline when the hub can't be reached, else with a limit of tries.

    Gives whether the block runs online.
    """
    from huggingface_hub import constants, get_session

    online = reachable()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not online
    client, limit = get_session(), RetryLimit()
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks["request"], limit.before_request],
        "response": [*hooks["response"], limit.after_response],
    }
    try:
        yield online
    finally:
        constants.HF_HUB_OFFLINE = before
        client.event_hooks = hooks


class RetryLimit:
    """Ends requests that the hub's library would repeat, or wait for, much longer."""

    def __init__(self) -> None:
        self.tries = Counter[str]()  # of each request since it was last answered

    def before_request(self, request: Any) -> None:
        """Count a try. Raises `UnreachableError` before the fourth without an answer."""
        name = f"{request.method} {request.url}"
        if self.tries[name] == TRIES:
            raise UnreachableError(f"no answer of the hub in {TRIES} tries: {name}")
        self.tries[name] += 1
        # Some of the library's requests would wait for a hundred seconds.
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            phase: min(limits.get(phase) or SECONDS, SECONDS)
            for phase in ("connect", "read", "write", "pool")
        }

    def after_response(self, response: Any) -> None:
        """Check an answer. Raises `HubError` for the third error in a row of the hub itself."""
        name = f"{response.request.method} {response.request.url}"
        if response.status_code != 429 and response.status_code < 500:
            del self.tries[name]
        elif self.tries[name] == TRIES:
            message = f"the hub answers {response.status_code} to {TRIES} tries: {name}"
            raise vgx.HubError(message)
        # These may ask for a wait of an hour; without them the library waits a second, then two.
        for header in ("retry-after", "ratelimit"):
            response.headers.pop(header, None)


def load(*, split: str | None, offline: bool = False, **source: Any) -> Any:
    """Return `datasets.load_dataset(**source, split=split)`, with its files in vgx's cache.

    Without a split, return a mapping of all.
    """
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.disable_progress_bars()
    datasets.config.HF_HUB_OFFLINE = before or offline
    try:
        _cache().mkdir(parents=True, exist_ok=True)
        # Until all is mapped, `vgx cache --clear` removes nothing.
        with vgx.cache_dir().joinpath("datasets.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            return datasets.load_dataset(**source, split=split, cache_dir=str(_cache()))
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def folders() -> tuple[Path, ...]:
    """Return the folders of the files that were fetched from the hub."""
    from huggingface_hub import constants

    return _cache(), Path(constants.HF_HUB_CACHE)


def _cache() -> Path:
    return vgx.cache_dir() / "datasets"


def missing_config(error: BaseException) -> str:
    """Return which configurations there are, if an error says that one must be chosen.

    An empty text stands for another error.
    """
    names = re.search(r"available configs: \[(.*?)\]|Available: \[(.*?)\]", str(error))
    if names is None:
        return ""
    listed = (names[1] or names[2] or "").replace("'", "")
    return f"the configs are: {listed[:300]}; set dataset.config=NAME"


def is_hub_error(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, comes from the hub or the network."""
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
