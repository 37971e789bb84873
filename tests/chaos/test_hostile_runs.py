"""The files of a run in the state in which strangers and disks leave them, one after another.

Whatever stands in place of a file, each command that reads it ends with a documented exit code,
without a traceback, within 5 seconds of the processor and 200 MiB, and the other runs are listed.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import struct
import zlib
from functools import cache
from pathlib import Path

import pytest
from chaos.test_hostile import sealed
from pace import within

import vgx
from vgx.console import Console

HERE = Path(__file__).parent
TINY = HERE.parents[1] / "recipes" / "tiny.yaml"
SECONDS, BYTES = 5, 200 * 2**20
CODES = {0, 2, 5, 7}  # done; a recipe that is none; a file that cannot be read; a lock

SUMMED = ("state.json", "model.safetensors")  # their sums stand in the manifest
LOOKS = ("list", "compare", "explain")
COMMANDS = {
    "recipe.yaml": (*LOOKS, "report", "sample", "resume"),
    "environment.json": ("list", "compare page", "report", "resume"),
    "audit.json": ("compare", "explain", "explain svg", "report"),
    "ended.json": (*LOOKS, "report", "resume"),
    "evaluation.json": ("list", "compare page", "report"),
    "log.jsonl": (*LOOKS, "compare page", "report", "best", "resume"),
    "lock": (*LOOKS, "resume"),
    "checkpoints/step-00000004/state.json": ("sample", "best", "report", "resume"),
    "checkpoints/step-00000004/manifest.json": ("sample", "report", "resume"),
    "checkpoints/step-00000004/model.safetensors": ("sample", "report", "resume"),
    "samples/step-00000002.png": ("compare page", "report", "resume"),
    "samples/recon-00000004.png": ("compare page", "report", "resume"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, guard):
    """Two finished runs that were measured and evaluated: the second is to be spoilt."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {
        "train.steps": 4, "train.save_every": 2, "train.draw_every": 2, "eval.every": 2,
        "eval.n": 8, "eval.metrics": ["l1", "psnr"], "eval.best": "l1", "discriminator": None,
        "losses": ["l1", "kl"],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(guard.folder / "cache"))
        for _ in range(2):
            vgx.run(
                vgx.load_recipe(TINY, settings),
                out=folder,
                console=Console(file=io.StringIO()),
            )
    for name in ("0001-tiny", "0002-tiny"):
        assert guard("eval", folder / name, "-n", 8)[0] == 0
    return folder


# --- what stands there ---------------------------------------------------------------------------


def sparse(size):
    def made(file):
        file.touch()
        os.truncate(file, size)

    return made


def link(target):
    return lambda file: file.symlink_to(target)


def text(content):
    data = content if isinstance(content, bytes) else content.encode()
    return lambda file: file.write_bytes(data)


@cache
def png(width, height, colour=2):
    """A PNG of one colour, which a few bytes describe."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    packer, pixels = zlib.compressobj(9), b""
    row = bytes(1 + width * (3 if colour == 2 else 1))
    for _ in range(height):
        pixels += packer.compress(row)
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    whole = chunk(b"IHDR", head) + chunk(b"IDAT", pixels + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


THINGS = {
    "nothing": lambda file: None,
    "empty": text(""),
    "words": text("no file of a run\n"),
    "NUL": text(b"\0" * 5000),
    "no UTF-8": text(b"\xff\xfe{}\n"),
    "depth": text("[" * 100_000),
    "depth of mappings": text('{"a":' * 100_000),
    "a list": text("[]\n"),
    "a mapping": text("{}\n"),
    "a number": text("7\n"),
    "null": text("null\n"),
    "many digits": text('{"step": ' + "9" * 4000 + "}\n"),
    "infinity": text('{"step": Infinity, "how": "done", "of": Infinity, "kept": NaN}\n'),
    "a surrogate": text('{"step": 1, "notices": ["\\ud800"], "notes": ["\\udfff"]}\n'),
    "escapes": text('{"step": 1, "how": "\\u001b[2J", "of": 1, "notes": ["\\u001b]0;x\\u0007"]}\n'),
    "wrong items": text('{"rows": [' + "1," * 200_000 + "1]}\n"),
    "wrong values": text('{"losses": {' + ",".join(f'"{n}":[]' for n in range(60_000)) + "}}\n"),
    "short lines": text('{"step":1}\n' * 1_500_000),
    "long lines": text(b"x" * 30_000_000),
    "a folder": lambda file: file.mkdir(),
    "a pipe": os.mkfifo,
    "a link to nothing": link("nowhere"),
    "a link to itself": lambda file: file.symlink_to(file.name),
    "/dev/zero": link("/dev/zero"),
    "/dev/stdin": link("/dev/stdin"),
    "/proc/self/mem": link("/proc/self/mem"),
    "/proc/kmsg": link("/proc/kmsg"),
    "3 GB": sparse(3 * 10**9),
    "1 TB": sparse(10**12),
    "a large picture": lambda file: file.write_bytes(png(13_300, 13_300)),
    "a picture of another kind": lambda file: file.write_bytes(png(4_000, 4_000, 0)),
}
ODD = [
    None, True, -1, 0, 1.5, 10**18, 10**400, 1e308, float("nan"), float("inf"), "", "x", "\x1b[2J",
    "\ud800", [], {}, [[]], {"a": {}}, ["x"] * 3, "9" * 400, "a" * 100_000,
]  # fmt: skip


def changed(value, generator):
    """Return JSON in which one value somewhere is odd, or one is missing."""
    if isinstance(value, dict | list) and value and generator.random() < 0.85:
        copy = value.copy()
        keys = list(copy) if isinstance(copy, dict) else range(len(copy))
        key = generator.choice(list(keys))
        if generator.random() < 0.1:
            del copy[key]
        else:
            copy[key] = changed(copy[key], generator)
        return copy
    return generator.choice(ODD)


def odd_json(whole, generator):
    """Return a JSON text, or lines of it, in which one value is odd."""
    lines = whole.splitlines() if whole.count("\n{") else [whole]
    at = generator.randrange(len(lines))
    lines[at] = json.dumps(changed(json.loads(lines[at]), generator))
    return "\n".join(lines) + "\n"


# --- what is done with it ------------------------------------------------------------------------


def command(name, folder, out):
    run, other = folder / "0002-tiny", folder / "0001-tiny"
    return {
        "list": ("list", "--out", folder),
        "compare": ("compare", run, other),
        "compare page": ("compare", other, run, "--out", out / "c.html"),
        "explain": ("explain", run),
        "explain svg": ("explain", run, "--svg", out / "e.svg"),
        "report": ("report", run, "--out", out / "r.html"),
        "sample": ("sample", run, "-n", 1, "--sampler", "prior", "--out", out / "s.png"),
        "best": ("sample", run, "--best", "-n", 1, "--sampler", "prior", "--out", out / "b.png"),
        "resume": ("resume", run),
    }[name]


def wrong_with(guard, folder, out, name, what, make):
    """Spoil a file, run each command that reads it, and return what went wrong."""
    wrong, run = [], folder / "0002-tiny"
    for each in COMMANDS[name]:
        shutil.rmtree(run)
        shutil.copytree(folder.parent / "whole" / "0002-tiny", run)
        file = run / name
        file.unlink()
        make(file)
        plain = file.is_file() and not file.is_symlink() and file.stat().st_size < 10**8
        if file.name in SUMMED and plain:
            sealed(file.parent, file.name, file.read_bytes())  # as a stranger would do it
        answer = guard.ask(*command(each, folder, out))
        case = f"{name}: {what}: {each}"
        if answer["code"] not in CODES or "Traceback" in answer["err"]:
            last = answer["err"].strip().splitlines()[-3:]
            wrong.append(f"{case}: {answer['code']} {last}")
        if not within(answer["seconds"], SECONDS):
            wrong.append(f"{case}: {answer['seconds']:.1f} s")
        if answer["grown"] > BYTES:
            wrong.append(f"{case}: {answer['grown'] / 2**20:.0f} MiB")
        if each == "list" and not re.search(
            r"^0001-tiny +done +4 of 4", answer["out"], re.MULTILINE
        ):
            wrong.append(f"{case}: the other run is not listed: {answer['out']}")
    return wrong


@pytest.fixture
def spoilt(runs, tmp_path):
    """A copy of the runs, beside a whole one."""
    shutil.copytree(runs, tmp_path / "whole")
    shutil.copytree(runs, tmp_path / "runs")
    for name in COMMANDS:
        (tmp_path / "runs" / "0002-tiny" / name).touch()
        (tmp_path / "whole" / "0002-tiny" / name).touch()
    return tmp_path / "runs"


@pytest.mark.bar("S10")
@pytest.mark.parametrize("every", [151, pytest.param(4, marks=pytest.mark.chaos)])
def test_no_file_of_a_run_costs_more_than_itself(guard, spoilt, tmp_path, every, record_property):
    cases = [(name, what) for name in COMMANDS for what in THINGS][::every]
    wrong = [
        fault
        for name, what in cases
        for fault in wrong_with(guard, spoilt, tmp_path, name, what, THINGS[what])
    ]
    assert wrong == []
    record_property("cases", sum(len(COMMANDS[name]) for name, _ in cases))


JSON = [name for name in COMMANDS if name.endswith((".json", ".jsonl"))]


@pytest.mark.bar("S10")
@pytest.mark.parametrize("n", [2, pytest.param(60, marks=pytest.mark.chaos)])
def test_no_value_in_a_file_of_a_run_costs_more(guard, spoilt, tmp_path, n, record_property):
    generator, count, wrong = random.Random(n), 0, []
    for case in range(n):
        name = generator.choice(JSON)
        whole = (spoilt.parent / "whole" / "0002-tiny" / name).read_text()
        odd = text(odd_json(whole, generator))
        wrong += wrong_with(guard, spoilt, tmp_path, name, f"change {case}", odd)
        count += len(COMMANDS[name])
    assert wrong == []
    record_property("cases", count)


@pytest.mark.bar("S10", control="files of a run read by the plain `json.loads`: noticed")
def test_a_plain_reader_would_be_noticed(spoilt, monkeypatch, capsys, record_property):
    from vgx.cli import run_program
    from vgx.runs import reading

    def plain(file, adapter, most=0):
        return json.loads(file.read_text()) if file.exists() else None

    monkeypatch.setattr(reading, "_json", plain)
    noticed = 0
    for name, content in (
        ("environment.json", '{"packages": []}'),
        ("environment.json", "[" * 100_000),
        ("audit.json", '{"rows": [{"network": "encoder"}]}'),
    ):
        file = spoilt / "0002-tiny" / name
        before = file.read_bytes()
        file.write_text(content)
        noticed += run_program(["compare", *(str(spoilt / f"000{n}-tiny") for n in (1, 2))]) == 1
        file.write_bytes(before)
    capsys.readouterr()
    assert noticed == 3
    record_property("seen", f"{noticed} of 3 damaged files ended the program")
