"""The files for clusters do what they say, with stand-ins for the cluster's own programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).parents[1] / "docs" / "examples" / "cluster"
# Starts the tasks of a step here, passes SIGUSR1 on, and ends with the highest exit code, as srun.
SRUN = """#!{python}
import os, signal, subprocess, sys
tasks = [
    subprocess.Popen(sys.argv[1:], env=os.environ | {{"SLURM_PROCID": n, "SLURM_LOCALID": n}})
    for n in map(str, range(int(os.environ["SLURM_NTASKS"])))
]
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
open("srun.pid", "w").write(str(os.getpid()))
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; echo other; else echo "$@" >> requeued; fi
"""
VGX = """#!/bin/bash
exec {python} -m vgx "$@"
"""
TORCHRUN = """#!/bin/bash
printf '%s\\n' "$@"
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a stand-in on the path."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def write(name, text):
        file = tmp_path / "bin" / name
        file.write_text(text.format(python=sys.executable) if "{python}" in text else text)
        file.chmod(0o755)

    return write


@pytest.mark.parametrize("file", sorted(CLUSTER.iterdir()), ids=lambda file: file.name)
def test_a_file_for_clusters_is_read_without_an_error(file):
    if file.suffix == ".yaml":
        documents = list(yaml.safe_load_all(file.read_text()))
        assert all(each["apiVersion"] and each["metadata"]["name"] for each in documents)
    else:
        subprocess.run(["bash", "-n", file], check=True)


def test_a_pod_begins_a_run_and_goes_on_with_it(program, tmp_path):
    program("torchrun", TORCHRUN)
    service, job = yaml.safe_load_all((CLUSTER / "vgx-job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    claimed = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == claimed
    runs = tmp_path / "runs"
    given = {**os.environ, "VGX_RUNS": str(runs), "JOB_COMPLETION_INDEX": "1"}

    def words():
        command = [*container["command"], *container["args"]]
        done = subprocess.run(command, env=given, check=True, capture_output=True, text=True)
        return done.stdout.split()

    first = words()
    nodes = [first[first.index(option) + 1] for option in ("--nnodes", "--node-rank")]
    assert nodes == [str(job["spec"]["completions"]), "1"]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert first[first.index("--nproc-per-node") + 1] == str(gpus)
    assert first[first.index("-m") :][:3] == ["-m", "vgx", "run"]
    (runs / "0001-anime").mkdir(parents=True)
    (runs / "0001-anime" / "recipe.yaml").touch()
    assert words()[-4:] == ["-m", "vgx", "resume", "1"]


@pytest.mark.chaos
def test_a_job_of_slurm_is_saved_before_its_time_limit_and_goes_on(program, tmp_path):
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("vgx", VGX)):
        program(name, text)
    given = {
        "SLURM_JOB_ID": str(20_000 + os.getpid() % 20_000), "SLURM_JOB_NODELIST": "here[1-2]",
        "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "1", "SLURM_SUBMIT_DIR": str(tmp_path),
        "USER": "me", "TMPDIR": str(tmp_path),
    }  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VGX_")}
    options = ["--set", "train.steps=60", "--set", "train.save_every=1000"]
    command = ["bash", CLUSTER / "vgx.sbatch", "tiny", *options]
    log, folder = tmp_path / "log", tmp_path / f"runs-{given['SLURM_JOB_ID']}" / "0001-tiny"
    for turn in range(2):
        with log.open("w") as out:
            job = subprocess.Popen(
                command, cwd=tmp_path, env=environment | given, stdout=out, stderr=out
            )
            if turn == 0:
                deadline = time.monotonic() + 200
                while step_of(folder) < 5:
                    assert time.monotonic() < deadline, log.read_text()
                    assert job.poll() is None, log.read_text()
                    time.sleep(0.05)
                os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
            code = job.wait(300)
        assert code == (138, 0)[turn], log.read_text()
        assert (tmp_path / "requeued").read_text() == f"requeue {given['SLURM_JOB_ID']}\n"
    assert step_of(folder) == 60
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2


def step_of(run):
    file = run / "log.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0
