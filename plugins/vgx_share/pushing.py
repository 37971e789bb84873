"""`vgx push`: an exported folder onto the Hugging Face hub, by the uploader of its library.

Only the files that `vgx.json` lists are uploaded, after their sums were compared. The token is that
of `hf auth login` or of HF_TOKEN; it is written nowhere and stands in no message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vgx
from vgx.files import user_path
from vgx.output import short, visible
from vgx.runs import exported
from vgx_share.card import NAME

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SECRET = re.compile(r"hf_[A-Za-z0-9]{4,}|(?i:bearer\s+\S+)")
LOGIN = "log in first: hf auth login (or set HF_TOKEN), with a token that may write"


def upload(folder: str | Path, name: str, *, private: bool) -> str:
    """Upload an exported folder to the model `owner/name`. See `vgx_share.push`."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    folder = user_path(folder)
    if not _NAME.fullmatch(name):
        raise vgx.RecipeError(f"{short(visible(name))}: give a name of the hub: owner/name")
    files = contents(folder, name)
    if get_token() is None:
        raise vgx.HubError(f"{name}: {LOGIN}")
    with _polite(name):
        api = HfApi()
        address = str(api.create_repo(name, private=private or None, exist_ok=True))
        there = api.list_repo_files(name)
        stale = [each for each in there if exported.NAMES.fullmatch(each) and each not in files]
        operations: list[Any] = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=data)
            for path, data in files.items()
        ]
        operations += [CommitOperationDelete(path_in_repo=path) for path in stale]
        api.create_commit(name, operations, commit_message="Exported by vgx")
    return address


def contents(folder: Path, name: str) -> dict[str, bytes]:
    """Return the files of an exported folder as they are uploaded, with the name in the card."""
    if not exported.is_exported(folder):
        text = "no folder that vgx export wrote; first: vgx export RUN FOLDER"
        raise vgx.StorageError(f"{folder}: {text}")
    known = exported.about(folder)
    files = {each: exported.content(folder, known, each) for each in known["files"]}
    if (card := files.get(exported.CARD)) is not None:
        files[exported.CARD] = card.replace(NAME.encode(), name.encode())
        known["files"][exported.CARD] = exported.summed(files[exported.CARD])
    files[exported.ABOUT] = json.dumps(known, indent=1, ensure_ascii=False).encode()
    return files


@contextmanager
def _polite(name: str) -> Iterator[None]:
    """Ask the hub in the block: without its bars, without long waits, with errors as messages."""
    from huggingface_hub import errors, get_session, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    client = get_session()
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "response": [*hooks["response"], _no_long_wait]}
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise vgx.HubError(f"{name}: nothing is uploaded offline") from None
    # A network fails with many kinds of error. They hold requests, and so the token.
    except Exception as error:  # noqa: BLE001
        cause = error.__cause__ if isinstance(error, RuntimeError) else None  # of one of the files
        code = getattr(getattr(cause or error, "response", None), "status_code", None)
        text = next(iter(str(cause or error).strip().splitlines()), type(error).__name__)
        text = _SECRET.sub("***", text.replace(get_token() or "\0", "***"))
        advice = f"; {LOGIN}" if code in (401, 403) else ""
        raise vgx.HubError(f"{name}: not uploaded: {short(visible(text))}{advice}") from None
    finally:
        client.event_hooks = hooks


def _no_long_wait(response: Any) -> None:
    """Take away what asks for a wait of an hour; without it the library waits a few seconds."""
    for header in ("retry-after", "ratelimit"):
        response.headers.pop(header, None)
