"""Data sets of parquet files on the hub, as row groups that are fetched when they are needed."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import vgx
from vgx_builtin import hub
from vgx_builtin.rows.layout import cut_split, pieces_of, splits_of
from vgx_builtin.rows.parquet import ParquetRows
from vgx_builtin.rows.ranges import HubFile

THREADS = 8
"""Files whose footers are read at one time."""


def open_remote(
    repository: str, split: str, revision: str | None, config: str | None
) -> tuple[ParquetRows, str]:
    """Return the rows of a split, and the commit that a branch or tag is at now.

    To be called where the hub is known to answer. Raises `DataError` when there are no parquet
    files, and the errors of the library.
    """
    from huggingface_hub import HfApi, hf_hub_download

    api = HfApi()
    info = api.dataset_info(repository, revision=revision, timeout=hub.SECONDS)
    names = [each.rfilename for each in info.siblings or ()]
    root, commit = Path("/"), str(info.sha)
    if "README.md" in names:
        about = hf_hub_download(repository, "README.md", repo_type="dataset", revision=commit)
        root = Path(about).parent
    splits = splits_of(root, [root / name for name in names], config)
    if any(file.suffix != ".parquet" for inner in splits.values() for file in inner):
        raise vgx.DataError(
            "only parquet files can be streamed. The hub keeps a copy of most data sets as "
            "parquet: set dataset.revision=refs/convert/parquet"
        )
    needed = {
        name: files for name, files in splits.items() if re.search(rf"\b{re.escape(name)}\b", split)
    }
    with ThreadPoolExecutor(THREADS) as pool:
        found = {
            name: [
                piece
                for pieces in pool.map(
                    pieces_of,
                    [HubFile(repository, str(file.relative_to(root)), commit) for file in files],
                )
                for piece in pieces
            ]
            for name, files in (needed or splits).items()
        }
    return cut_split(found, split), commit
