"""Files that claim, or become, much more than they are: refused in little time and memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import pytest
import torch
from pace import within

LARGE = 250 * 2**20  # bytes, of which the disk holds none

# Reads one file in a process of its own and tells what that took.
READING = """
import time
from pathlib import Path
from vgx.errors import VgxError
from vgx.recipe import yaml
from vgx.recipe.load import load_recipe
from vgx.runs import checkpoint, import_weights, reading
from vgx.runs.directory import Run
def peak():
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024
{careless}
before, start = peak(), time.process_time()
try:
    {read}
    how = "read"
except VgxError as error:
    how = str(error)
print(round(peak() - before), round(time.process_time() - start, 2), how)
"""


def claim(path):
    """Make a file of 250 MiB, all of it a hole."""
    with path.open("wb") as file:
        file.truncate(LARGE)


def recipe(folder, run):
    claim(folder / "bomb.yaml")


def state(folder, run):
    """The state of a checkpoint, with a manifest that says that it is right."""
    (checkpoint,) = (run / "checkpoints").iterdir()
    claim(checkpoint / "state.json")
    digest = hashlib.sha256()
    for _ in range(250):
        digest.update(bytes(2**20))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["state.json"] = {"bytes": LARGE, "sha256": digest.hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest, indent=1))


def archive(folder, run):
    """Weights of 160 MB in an archive of 1 MB."""
    torch.save({"a": torch.zeros(4 * 10**7)}, folder / "plain.pt")
    with (
        zipfile.ZipFile(folder / "plain.pt") as old,
        zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    (folder / "plain.pt").unlink()


def log(folder, run):
    """A log of one line without end."""
    claim(run / "log.jsonl")


CHECKPOINT = "checkpoint.load(Run(Path('run')))"
WEIGHTS = "import_weights.import_weights('bomb.pt', 'out.safetensors')"
# How each is made and read, what is said, and what takes its bound away.
BOMBS = {
    "recipe": (recipe, "load_recipe('bomb.yaml')", "at most 1,000,000", "yaml.MAX_BYTES = 10**9"),
    "state": (state, CHECKPOINT, "are read", "checkpoint.MAX_JSON = 10**9"),
    "log": (log, "Run(Path('run')).read_log()", "read", "reading.MAX_LINE = 10**10"),
    "archive": (archive, WEIGHTS, "compressed", "import_weights._size = lambda _: 10**12"),
}


@pytest.fixture(scope="module")
def trained(forkserver, tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("trained")
    forkserver.run(folder, "run", tiny, "--set", "train.steps=1")
    return folder / "runs" / "0001-tiny"


def met(forkserver, folder, trained, name, *, careless=False):
    """What reading a bomb took: MiB, seconds, and what was said."""
    make, read, _, without = BOMBS[name]
    shutil.copytree(trained, folder / "run")
    make(folder, folder / "run")
    hook = READING.format(read=read, careless=without if careless else "")
    child = forkserver.run(folder, "--version", hook=hook)
    mebibytes, seconds, how = child.out.read_text().split("\n")[0].split(" ", 2)
    return float(mebibytes), float(seconds), how


def held(mebibytes, seconds):
    return mebibytes < 200 and within(seconds, 5)


@pytest.mark.bar("S3")
@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_claims_much_costs_little(forkserver, tmp_path, trained, name):
    mebibytes, seconds, how = met(forkserver, tmp_path, trained, name)
    assert held(mebibytes, seconds), (mebibytes, seconds)
    assert BOMBS[name][2] in how


@pytest.mark.chaos
@pytest.mark.bar("S3", control="a recipe, a checkpoint, a log and an archive without bounds")
def test_files_without_bounds_would_be_felt(forkserver, tmp_path, trained, record_property):
    """Negative control."""
    felt = []
    for name in BOMBS:
        (tmp_path / name).mkdir()
        mebibytes, seconds, _ = met(forkserver, tmp_path / name, trained, name, careless=True)
        assert not held(mebibytes, seconds), name
        felt.append(f"{name} {mebibytes:,.0f} MiB, {seconds:.1f} s")
    record_property("seen", ", ".join(felt))
