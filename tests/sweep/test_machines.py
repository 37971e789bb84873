"""Two machines without a common disk and with no network but the way to one server of PostgreSQL.

A machine is a network namespace with a host name of its own and an empty file system over the
folder of the tests. The server is in a third namespace, with a wire to each of the two. Only root
can make them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import vgx
from vgx.runs import reading
from vgx.runs.directory import every

pytest.importorskip("optuna")
pytestmark = pytest.mark.chaos
POINTS = 10
PASSWORD = "only-in-pgpass"
# The machine sees of `root` only its own folder; what follows is the command.
ENTER = """
hostname "$1" && ip link set lo up || exit 99
mkdir -p /mnt && mount --bind "$3" /mnt && mount -t tmpfs tmpfs "$2" && mkdir -p "$3" || exit 99
mount --move /mnt "$3" && cd "$3" || exit 99
shift 3
exec "$@"
"""


@dataclass
class Machine:
    """A host name, a home and an address of the server, all of its own."""

    name: str
    root: Path
    space: str
    server: str

    @property
    def home(self):
        return self.root / self.name

    @property
    def study(self):
        return f"postgresql://vgx@{self.server}/postgres"

    def start(self, *command):
        places = {"HOME": str(self.home), "VGX_CACHE": str(self.home / "cache")}
        left_out = ("VGX_RUNS", "VGX_SWEEPS", "VGX_STORAGE", "PGPASSWORD", "PGPASSFILE")
        inherited = {name: v for name, v in os.environ.items() if name not in left_out}
        enter = ["unshare", "--uts", "--mount", "sh", "-c", ENTER, "sh"]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.space, *enter, self.name, str(self.root), str(self.home),
             *map(str, command)],
            env={**inherited, **places, "COLUMNS": "200"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def vgx(self, *arguments):
        return self.start(sys.executable, "-m", "vgx", *arguments)


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode and words[:2] == ("netns", "add"):
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def machines(tmp_path):
    """Two machines, and the name of the namespace of the server."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("only root can make network namespaces, with the program ip")
    host, made = f"vgx-{os.getpid()}-db", []
    try:
        for space in (host, f"vgx-{os.getpid()}-a", f"vgx-{os.getpid()}-b"):
            ip("netns", "add", space)
            made.append(space)
        ip("-n", host, "link", "set", "lo", "up")
        for number, space in enumerate(made[1:], 1):
            wire = f"vgx{number}"
            peer = ("type", "veth", "peer", "name", "wire", "netns", space)
            ip("-n", host, "link", "add", wire, *peer)
            for where, name, end in ((host, wire, 1), (space, "wire", 2)):
                ip("-n", where, "address", "add", f"10.99.{number}.{end}/30", "dev", name)
                ip("-n", where, "link", "set", name, "up")
        found = []
        for number, name in enumerate(("one", "two"), 1):
            machine = Machine(name, tmp_path, made[number], f"10.99.{number}.1")
            machine.home.mkdir()
            pgpass = machine.home / ".pgpass"
            pgpass.write_text(f"{machine.server}:*:*:vgx:{PASSWORD}\n")
            pgpass.chmod(0o600)
            found.append(machine)
        yield *found, host
    finally:
        for space in made:
            subprocess.run(["ip", "netns", "delete", space], check=True)


@pytest.fixture
def listening(machines, postgres_at):
    """A server with a password that only the wires of the two machines lead to."""
    one, two, host = machines
    addresses = f"{one.server},{two.server}"
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    with postgres_at(PASSWORD, addresses, ("ip", "netns", "exec", host, *nobody)):
        yield one, two


def pictures(folder, images):
    """The same images in a folder of each machine, of another name."""
    folder.mkdir()
    for number, image in enumerate(images):
        image.save(folder / f"{number:03}.png")


@pytest.mark.bar("W2")
def test_two_machines_that_reach_only_the_server_complete_a_study_together(
    listening, record_property
):
    from PIL import Image

    one, two = listening
    colours = [Image.new("RGB", (16, 16), (4 * n, 255 - 4 * n, 128)) for n in range(64)]
    pictures(one.home / "faces", colours)
    pictures(two.home / "photos", colours)
    # No other way leads anywhere, not even to the other machine.
    for machine, other in ((one, "10.99.2.2"), (two, "10.99.1.2")):
        code = f"import socket; socket.create_connection(({other!r}, 5432), 3)"
        out, err = machine.start(sys.executable, "-c", code).communicate(timeout=60)
        assert "Network is unreachable" in err, out + err
        code = "import os; print(os.uname().nodename, *os.listdir('..'))"
        out, err = machine.start(sys.executable, "-c", code).communicate(timeout=60)
        assert out.split() == [machine.name, machine.name], err

    short = ["train.steps=6", "eval.metrics=[psnr]", "eval.every=6", "train.draw_every=6"]
    short += ["dataset={type: image-folder}"]
    over = "losses.1.weight=" + ",".join(map(str, range(1, POINTS + 1)))
    first = one.vgx(
        "sweep", "tiny", *(word for text in short for word in ("--set", text)), "--over", over,
        "--by", "psnr", "--data", "faces", "--storage", one.study, "--name", "both",
    )  # fmt: skip
    joining = ("sweep", "--join", "both", "--data", "photos", "--storage", two.study)
    end = time.monotonic() + 300
    while True:
        second = two.vgx(*joining)
        out, err = second.communicate(timeout=500)
        if second.returncode == 0:
            break
        # Whoever joins a study that is not there yet is told so.
        assert "both" in err, out + err
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(1)
    told, err = first.communicate(timeout=300)
    assert first.returncode == 0, told + err
    for text in (told, out):
        assert len(re.findall(r"^\d+ +complete ", text, re.MULTILINE)) == POINTS
    runs = {machine.name: every(machine.home / "runs") for machine in (one, two)}
    assert all(len(found) >= 2 for found in runs.values()), runs
    figures = {}
    for machine in (one, two):
        for run in runs[machine.name]:
            assert reading.ended(run.path)["how"] == "done"
            weight = reading.recipe(run.path)["losses"][1]["weight"]
            assert weight not in figures, "trained twice"
            figures[weight] = reading.measured(run.path, "psnr")[-1]["metrics"]["psnr"]
        # The page has all figures, and the images of the runs that lie here.
        page = (machine.home / "sweeps" / "both" / "sweep.html").read_text()
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
        assert len(data["points"]) == POINTS
        shown = [each["run"] for each in data["images"]]
        assert sorted(shown) == sorted(run.path.name for run in runs[machine.name])
        assert not (machine.home / "sweeps" / "both" / "study.db").exists()
    assert sorted(figures) == [*range(1, POINTS + 1)]
    for machine, images in ((one, "faces"), (two, "photos")):
        best = vgx.load_recipe(machine.home / "sweeps" / "both" / "best.yaml")
        assert best.losses[1].weight == max(figures, key=figures.get)
        assert str(best.dataset.path) == images
    assert PASSWORD not in told + out + page
    record_property("cases", POINTS)
