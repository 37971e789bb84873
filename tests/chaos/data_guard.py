"""Opens data sets of strangers under an audit hook that forbids sockets and notes opened files.

Reads one JSON object a line from standard input: the type and the path of a data set. Writes one
JSON object for each: how many images it gave or why none, and what that cost. With the argument
"careless", folders are given to the library `datasets` as they are.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import warnings
from pathlib import Path

LIBRARIES = (sys.prefix, sys.base_prefix, "/proc", "/sys", "/usr", "/lib")


FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
WATCHED = ("os.system", "subprocess.Popen", "pickle.find_class", "os.exec")


def main():
    """Set the hook and open the data sets."""
    import datasets
    import pyarrow.parquet
    from PIL import Image

    import vgx.data.opening
    import vgx.data.store
    from vgx_builtin.datasets import huggingface

    del pyarrow, vgx  # what is imported now is not opened later
    Image.init()
    datasets.disable_progress_bars()
    if sys.argv[1:] == ["careless"]:
        huggingface._load_local = load_local
    events, opened = [], []

    def hook(event, arguments):
        if event in FORBIDDEN:
            events.append(f"{event} {arguments}")
            raise ConnectionError("no socket for local data")
        if event in WATCHED:
            events.append(f"{event} {arguments}"[:200])
        if event == "open" and isinstance(arguments[0], str | bytes):
            opened.append(os.fsdecode(arguments[0]))

    sys.addaudithook(hook)
    warnings.simplefilter("ignore")
    own = (os.environ["VGX_CACHE"], *LIBRARIES)
    for line in sys.stdin:
        events.clear()
        opened.clear()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, start = peak(), time.monotonic()
        answer = look(json.loads(line))
        answer["seconds"], answer["mebibytes"] = time.monotonic() - start, peak() - before
        answer["opened"] = sorted({file for file in opened if not file.startswith(own)})
        answer["events"] = events
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def load_local(path, split, _config):
    """Load local files as vgx must not."""
    import datasets

    import vgx
    from vgx_builtin.rows.columns import LibraryRows

    where = {"path": str(path)}
    if not path.is_dir():
        where = {"path": "parquet", "data_files": {"train": str(path)}}
    try:
        cache = str(vgx.cache_dir() / "datasets")
        rows = datasets.load_dataset(**where, split=split, cache_dir=cache)
    except Exception as error:
        raise vgx.DataError(str(error)) from error
    return LibraryRows(rows), str(time.time()), (Path("/"),)


def look(fields):
    """Open one data set, and say what it has."""
    import vgx
    from vgx.data.store import open_source, open_store
    from vgx_builtin.datasets.huggingface import HuggingFace
    from vgx_builtin.datasets.image_folder import ImageFolder

    spec, kind = vgx.ImageSpec(size=8, classes=fields.pop("classes", 0)), fields.pop("type")
    try:
        if kind == "stream":
            return streamed(HuggingFace(**fields, stream=True), spec)
        if kind == "huggingface":
            part = HuggingFace(**fields)
        else:
            part = ImageFolder(**{**fields, "path": Path(fields["path"])})
        store = open_store(open_source(part, spec)[0], spec, max_bad=1)
    except vgx.VgxError as error:
        return {"error": str(error)}
    except BaseException as error:  # noqa: BLE001 - nothing else may come this far
        return {"escaped": f"{type(error).__name__}: {error}"}
    colours = sorted({tuple(image[4, 4].tolist()) for image in store.images})
    answer = {"kept": len(store.images), "bad": store.bad, "dropped": store.dropped}
    return {**answer, "why": store.named[:1], "colours": colours}


def streamed(part, spec):
    """Read all images of a stream, some at a time, as a training does."""
    import numpy as np

    from vgx.console import Console
    from vgx.data.opening import open_stream

    quiet = Console(io.StringIO())  # the answers go to the standard output
    store = open_stream(part.build(spec), spec, quiet, max_bad=1, holdout=0.5)
    images, colours = store.images, set()
    for start in range(0, min(len(images), 5000), 50):
        batch = images[np.arange(start, min(start + 50, len(images)))]
        colours |= {tuple(image[4, 4].tolist()) for image in batch}
    return {"kept": len(images), "why": images.unusable.bad[:1], "colours": sorted(colours)}


def peak():
    """Return the largest memory of this process since it was last asked, in MiB."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


if __name__ == "__main__":
    main()
