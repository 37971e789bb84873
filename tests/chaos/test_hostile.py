"""Files and names from strangers: nothing in them is ever executed, and each is refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import pickletools
import shutil
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import vgx

HERE = Path(__file__).parent
TINY = HERE.parents[1] / "recipes" / "tiny.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps, made once."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        settings = {"train.steps": 2, "discriminator": None, "losses": ["l1", "kl"]}
        recipe = vgx.load_recipe(TINY, {**settings, "sampler": "gaussian-mixture"})
        run = vgx.run(recipe, out=folder / "runs")
        vgx.sample(run, n=1)
        return run.path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that can be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "0001-tiny"))


# --- what pickles would call ---------------------------------------------------------------------


class Evil:
    """What a pickle calls when it is believed."""

    def __init__(self, called, *arguments):
        self.called, self.arguments = called, arguments

    def __reduce__(self):
        return self.called, self.arguments


def by_hand(module, name, argument, opcode):
    """A pickle of a call, written with the opcode that is asked for."""
    text = b"X" + struct.pack("<I", len(argument)) + argument.encode()
    where = f"{module}\n{name}\n".encode()
    return {
        "global": b"c" + where + text + b"\x85R.",
        "inst": b"(" + text + b"i" + where + b".",
        "obj": b"(c" + where + text + b"o.",
        "newobj": b"c" + where + text + b"\x85\x81.",
        "stack global": (
            b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)])
            + name.encode() + b"\x93" + text + b"\x85R."
        ),
    }[opcode]  # fmt: skip


def calls(marker):
    """Pairs of a name and a pickle's bytes; each would leave `marker` if it were believed."""
    touch, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    from importlib import import_module

    things = {
        "os.system": Evil(os.system, touch),
        "os.popen": Evil(os.popen, touch),
        "subprocess.run": Evil(subprocess.run, ["touch", str(marker)]),
        "subprocess.Popen": Evil(subprocess.Popen, ["touch", str(marker)]),
        "eval": Evil(eval, f"__import__('os').system({touch!r})"),
        "exec": Evil(exec, code),
        "open": Evil(open, str(marker), "w"),
        "os.open": Evil(os.open, str(marker), os.O_CREAT | os.O_WRONLY),
        "getattr": Evil(getattr, Evil(import_module, "os"), "system"),
        "import_module": Evil(import_module, "antigravity"),
        "copyfile": Evil(shutil.copyfile, str(TINY), str(marker)),
        "makedirs": Evil(os.makedirs, str(marker)),
        "torch.load": Evil(torch.load, str(marker)),
        "from_file": Evil(torch.Storage.from_file, str(marker), True, 8),
        "numpy.save": Evil(np.save, str(marker), np.zeros(1)),
        "tofile": Evil(np.ndarray.tofile, np.zeros(1), str(marker)),
        "nested": Evil(pickle.loads, pickle.dumps(Evil(os.system, touch))),
        "in a dictionary": {"weight": torch.zeros(2), "epoch": Evil(os.system, touch)},
        "as a key": {1: Evil(os.system, touch)},
        "reduce and build": {"a": [Evil(os.system, touch)] * 3},
    }
    for name, thing in things.items():
        for protocol in (0, 2, 4) if name in ("os.system", "eval") else (2,):
            yield f"{name} {protocol}", pickle.dumps(thing, protocol)
    for opcode in ("global", "inst", "obj", "newobj", "stack global"):
        yield f"opcode {opcode}", by_hand("os", "system", touch, opcode)
    yield "builtins", by_hand("builtins", "exec", code, "global")
    yield "python 2", by_hand("__builtin__", "eval", f"__import__('os').system({touch!r})", "inst")
    yield "runpy", by_hand("runpy", "run_path", str(marker), "global")
    yield "timeit", by_hand("timeit", "timeit", code, "global")
    yield "cProfile", by_hand("cProfile", "run", code, "stack global")
    yield "ctypes", by_hand("ctypes", "CDLL", "libm.so.6", "global")
    yield "urlopen", by_hand("urllib.request", "urlopen", "http://127.0.0.1:9/", "global")
    yield "socket", by_hand("socket", "getaddrinfo", "localhost", "global")
    yield "hub", by_hand("torch.hub", "load", "x/y", "global")
    yield "dotted", by_hand("os", "path.os.system", touch, "stack global")
    yield "memo bomb", pickle.dumps(_nested(25), 2)


def _nested(depth):
    inner = ["x"] * 9
    for _ in range(depth):
        inner = [inner] * 9
    return inner


def as_torch(data, name="data.pkl"):
    """A pickle in the archive that `torch.save` writes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(f"archive/{name}", data)
        archive.writestr("archive/version", "3\n")
    return target.getvalue()


def as_legacy(data):
    """A pickle after the magic numbers of the format before that."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001}]
    return b"".join(pickle.dumps(part, 2) for part in head) + data


def as_tar(data):
    """A pickle in the archive of the format before that one."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def archives(marker):
    """Pairs of a name and the bytes of an archive that is not what it seems to be."""
    evil = pickle.dumps(Evil(os.system, f"touch {marker}"), 2)
    plain = io.BytesIO()
    torch.save({"a": torch.ones(3)}, plain)
    yield "tar", as_tar(evil)
    yield "behind safetensors", safetensors.torch.save({"a": torch.ones(2)}) + as_torch(evil)
    yield "constants", as_torch(evil, "constants.pkl")
    for name, member in (("parent", "../data.pkl"), ("absolute", "/tmp/data.pkl")):
        yield f"member {name}", as_torch(evil, member)
    for name, kind in (("symlink", 0o120777), ("device", 0o060666)):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            info = zipfile.ZipInfo("archive/data.pkl")
            info.external_attr = kind << 16
            archive.writestr(info, "/etc/passwd")
        yield f"member {name}", target.getvalue()
    target = io.BytesIO(plain.getvalue())
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], evil)
    yield "member twice", target.getvalue()
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("archive/code/__torch__.py", f"import os\nos.system('touch {marker}')")
        archive.writestr("archive/constants.pkl", evil)
        archive.writestr("archive/data.pkl", evil)
        archive.writestr("archive/version", "3\n")
    yield "script", script.getvalue()
    numbers = io.BytesIO()
    np.save(numbers, np.array([Evil(os.system, f"touch {marker}")], object))
    yield "npy", numbers.getvalue()
    yield "half", plain.getvalue()[: len(plain.getvalue()) // 2]
    yield "random", np.random.default_rng(0).bytes(3000)


def payloads(marker):
    for name, data in calls(marker):
        yield name, data
        yield f"{name} in torch's archive", as_torch(data)
    for name, data in list(calls(marker))[:8]:
        yield f"{name} in torch's old format", as_legacy(data)
    yield from archives(marker)


@pytest.mark.bar("S1", control="read by an ordinary pickle reader: each leaves its marker")
def test_the_payloads_are_real(tmp_path, monkeypatch):
    """The control: whoever believes them has the marker, and the guard sees it."""
    marker = tmp_path / "marker"
    worked, parsed = 0, 0
    for _, data in calls(marker):
        pickletools.dis(data, io.StringIO())
        parsed += 1
    for name in ("os.system 2", "exec 2", "nested 2", "opcode inst", "opcode stack global"):
        pickle.loads(dict(calls(marker))[name])
        assert marker.exists(), name
        marker.unlink()
        worked += 1
    assert (worked, parsed) == (5, len(list(calls(marker))))
    assert len(list(payloads(marker))) >= 40


@pytest.mark.bar(
    "S1", control="a plugin that starts a process, looks up a host name, unpickles: all are noticed"
)
def test_the_guard_sees_what_it_should(guard, tmp_path):
    """The control: a plugin file is code, and code that starts a process is seen."""
    (tmp_path / "p.py").write_text(
        "import os, pickle, socket\nsocket.getaddrinfo('127.0.0.1', 1)\n"
        "pickle.loads(b'cos\\nsystem\\n.')\n"
        f"os.system('touch {tmp_path / 'marker'}')\n"
    )
    _, _, events = guard("parts", "--plugin", tmp_path / "p.py")
    for seen in ("os.system", "socket.getaddrinfo", "pickle.find_class"):
        assert any(event.startswith(seen) for event in events), seen
    assert (tmp_path / "marker").exists()


def some(every):
    """Every so manieth payload in the fast tier, every one in the thorough tier."""
    return pytest.mark.parametrize("every", [every, pytest.param(1, marks=pytest.mark.chaos)])


@pytest.mark.bar("S1")
@some(3)
def test_no_pt_file_gets_anything_executed(guard, tmp_path, every, record_property):
    marker, count = tmp_path / "marker", 0
    for name, data in list(payloads(marker))[::every]:
        (tmp_path / "in.pt").write_bytes(data)
        code, err, events = guard("import-weights", tmp_path / "in.pt", tmp_path / "o.safetensors")
        assert (code, events) == (5, []), (name, code, err, events)
        assert len(err.splitlines()) <= 10
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pt"], name
        count += 1
    assert count >= 100 // every
    record_property("cases", count)


def sealed(checkpoint, name, data):
    """Put a file into a checkpoint as a stranger would: with a manifest that says it is right."""
    (checkpoint / name).write_bytes(data)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest, indent=1))


def odd_tensors():
    """Safetensors that are none, or that claim too much."""

    def made(header, data=b""):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    f32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    yield "empty", b""
    yield "header of 2^63", struct.pack("<Q", 2**63) + b"{}"
    yield "header of 1 GB", struct.pack("<Q", 10**9) + b"{}"
    yield "no JSON", made(b"not json")
    yield "deep JSON", made(b"[" * 100_000)
    yield "shape overflows", made({"a": {**f32, "shape": [2**62, 2**62]}}, bytes(8))
    yield "negative shape", made({"a": {**f32, "shape": [-2]}}, bytes(8))
    yield "offsets beyond", made({"a": {**f32, "data_offsets": [0, 10**12]}}, bytes(8))
    yield "offsets overlap", made({"a": f32, "b": f32}, bytes(8))
    yield "unknown type", made({"a": {**f32, "dtype": "PICKLE"}}, bytes(8))
    yield "twice", made(b'{"a":%b,"a":%b}' % ((json.dumps(f32).encode(),) * 2), bytes(8))
    yield "many", made({str(i): {**f32, "shape": [0], "data_offsets": [0, 0]} for i in range(9999)})
    yield "other names", safetensors.torch.save({"../../x": torch.zeros(2)})
    yield "other shapes", safetensors.torch.save({"codes": torch.zeros(2, 3, 4, 5)})
    yield "not finite", safetensors.torch.save({"codes": torch.full((4, 8), torch.nan)})
    yield "other numbers", safetensors.torch.save({"codes": torch.zeros(4, 8, dtype=torch.int64)})


def odd_states(step):
    """Plain numbers of a checkpoint that are none."""
    good = {"format": 1, "step": step, "epoch": 1.0, "images": 16, "seconds": 1.0, "optimizers": {}}
    yield "no JSON", b"\x80\x04."
    yield "deep", b"[" * 100_000
    yield "a list", b"[]"
    yield "large number", json.dumps(good).replace(f": {step}", ": " + "9" * 5000).encode()
    for name, value in {
        "step": ["../../../x", -1, 10**30, None, [], {}, 1.5, True],
        "format": [2, "x", None, [], -1],
        "seconds": ["x", None, float("nan")],
        "optimizers": [[], None, {"generator": []}, {"generator": {"groups": 1, "values": 2}}],
    }.items():
        for odd in value:
            yield f"{name}={odd}", json.dumps({**good, name: odd}).encode()
    yield "empty", json.dumps({"format": 1}).encode()


def spoilt(marker, every):
    """Pairs of a file of a checkpoint and what stands in it."""
    chosen = list(payloads(marker))[:: 3 * every]
    for name, data in [*chosen, *odd_tensors()]:
        yield "model.safetensors", name, data
        yield "latents.safetensors", name, data
    for name, data in odd_tensors():
        yield "optimizer.safetensors", name, data
    for name, data in odd_states(2):
        yield "state.json", name, data


@pytest.mark.bar("S1")
@some(3)
def test_no_checkpoint_gets_anything_executed(guard, run, tmp_path, every, record_property):
    """Each is refused, or is data that fits and is drawn from; nothing else is written."""
    marker, count = tmp_path / "marker", 0
    (folder,) = (run / "checkpoints").iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, what, data in list(spoilt(marker, every))[:: 1 + (every > 1)]:
        sealed(folder, name, data)
        commands = [("sample", run, "-n", 1, "--out", tmp_path / "o.png")]
        if name in ("state.json", "optimizer.safetensors"):
            commands.append(("resume", run))
        for command in commands:
            code, err, events = guard(*command)
            assert events == [], (name, what, events)
            fits = name == "latents.safetensors" and what == "not finite"
            if command[0] == "sample":  # which reads neither
                fits |= name in ("state.json", "optimizer.safetensors")
            assert code == 5 or (fits and code in (0, 2, 5)), (command[0], name, what, code, err)
        count += 1
        assert not marker.exists()
        for old, content in before.items():
            (folder / old).write_bytes(content)
    assert count >= 40
    record_property("cases", count)
    outside = {path.name for path in tmp_path.iterdir()} - {"o.png", run.name}
    assert outside == set()
    assert guard("sample", run, "-n", 1, "--out", tmp_path / "o.png")[0] == 0  # as before


@pytest.mark.bar("S1")
@some(3)
def test_nothing_that_a_sampler_learned_is_executed(guard, run, tmp_path, every):
    marker = tmp_path / "marker"
    (fit,) = (run / "samplers").iterdir()
    chosen = list(payloads(marker))[:: 4 * every]
    for name, data in [*chosen, *odd_tensors()]:
        fit.write_bytes(data)
        code, err, events = guard("sample", run, "-n", 1, "--out", tmp_path / "o.png")
        assert (code, events) == (0, []), (name, code, err, events)
        assert "learned again" in err, (name, err)
    assert not marker.exists()


@pytest.mark.bar("S1")
@some(3)
def test_nothing_else_in_a_run_is_executed(guard, run, tmp_path, every):
    marker = tmp_path / "marker"
    chosen = list(payloads(marker))[:: 8 * every]
    for file, codes in (("recipe.yaml", {2}), ("environment.json", {5}), ("log.jsonl", {0, 5})):
        before = (run / file).read_bytes()
        for name, data in chosen:
            (run / file).write_bytes(data)
            code, err, events = guard("resume", run)
            seen = [event for event in events if "git" not in event]
            assert code in codes, (file, name, code, err)
            assert seen == [], (file, name, seen)
        (run / file).write_bytes(before)
    assert not marker.exists()


TAGS = [
    "!!python/object/apply:os.system [touch {0}]",
    "!!python/object/new:os.system [touch {0}]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:os.system {{}}",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {0}']",
    "!!binary Y29zCnN5c3RlbQ==",
    "!!set {{a, b}}",
    "!include /etc/passwd",
    "!ENV HOME",
    "!!js/function 'x'",
    "os.system",
    "os:system",
    "torch.nn:Linear",
    "builtins:eval",
    "__import__('os').system('touch {0}')",
    "{{type: os.system}}",
    "{{type: 'vgx:../../x'}}",
    "{{type: 'torch.nn:Linear'}}",
    "{{type: conv, _target_: os.system}}",
    "{{type: conv, __class__: os.system}}",
    "{{_target_: os.system, _args_: [touch {0}]}}",
    "{{class_path: os.system}}",
    "{{type: conv, widths: !!python/tuple [1]}}",
    "${{oc.env:HOME}}",
    "{{{{ cycler.__init__.__globals__.os.system('touch {0}') }}}}",
    "%(__import__)s",
    "&a [*a]",
]


@pytest.mark.bar("S1")
@pytest.mark.parametrize(
    "field",
    [
        "encoder",
        "train.optimizers.generator",
        *(pytest.param(name, marks=pytest.mark.chaos) for name in ("name", "losses.0")),
    ],
)
def test_no_recipe_names_what_is_executed(guard, tmp_path, field):
    marker = tmp_path / "marker"
    for text in TAGS:
        value = text.format(marker)
        code, err, events = guard("check", TINY, "--set", f"{field}={value}")
        fits = field == "name" and value == "os.system"  # a name as good as any
        assert (code, events) == (0 if fits else 2, []), (value, code, err, events)
    assert not marker.exists()


@pytest.mark.bar("S1")
@some(3)
def test_no_recipe_file_is_executed(guard, tmp_path, every, record_property):
    marker = tmp_path / "marker"
    chosen = list(payloads(marker))[::every]
    record_property("cases", len(chosen))
    for name, data in chosen:
        (tmp_path / "r.yaml").write_bytes(data)
        code, err, events = guard("check", tmp_path / "r.yaml")
        assert (code, events) == (2, []), (name, code, err, events)
        assert "r.yaml" in err
    assert not marker.exists()


@pytest.mark.bar("S1")
@some(3)
def test_pretrained_weights_are_safetensors_or_refused(guard, tmp_path, every):
    marker = tmp_path / "marker"
    part = "{{type: timm, backbone: resnet10t, weights: {0}}}"
    chosen = list(payloads(marker))[:: 8 * every]
    for ending in ("safetensors", "pt"):
        for name, data in [*chosen, *odd_tensors()][:: 1 + (every > 1)]:
            file = tmp_path / f"w.{ending}"
            file.write_bytes(data)
            code, err, events = guard("check", TINY, "--set", f"encoder={part.format(file)}")
            assert (code, events) == (2, []), (name, code, err, events)
    assert not marker.exists()


@pytest.mark.bar("H1")
def test_a_recipe_of_this_machine_asks_nobody(guard, tmp_path):
    """No socket is opened, no name is looked up, from the first look to the last picture."""
    for command in (
        ("check", TINY),
        ("run", TINY, "--set", "train.steps=1", "--out", tmp_path / "runs"),
        ("sample", tmp_path / "runs" / "0001-tiny", "-n", 1),
        ("resume", tmp_path / "runs" / "0001-tiny"),
        ("parts",),
        ("plugins",),
        ("schema",),
    ):
        code, err, events = guard(*command)
        assert code == 0, (command, err)
        assert [event for event in events if "git" not in event] == [], command


# --- names ---------------------------------------------------------------------------------------


def names():
    """Names that lead elsewhere, or that some system takes for something else."""
    seeds = [
        "../x", "../../x", "..", ".", "/", "/tmp/x", "~", "~root", "$HOME", "`id`", "$(id)", "a/b",
        "a/../../b", "..\\x", "C:\\x", "\\\\host\\x", "%2e%2e%2fx", "..%2fx", "x\0y", "x\ny", "-rf",
        "--help", "-", "", " ", "  x", "x ", ".x", "x.", "CON", "NUL", "aux.txt", "COM1",
        "a" * 5000, "a" * 65, "x:y", "x*y", "x?y", "x|y", "x<y", "x>y", 'x"y', "x'y", "x;y", "x&y",
        "é", "\uff41", "\u202ex",
        "\u2024\u2024/x", "\uff0e\uff0e/x", "\uff0e\uff0e\uff0fx", "x\u2215y", "x\u200by",
        "\ufeffx", "x\u2028y", "\U0001f600", "\ud800", "x\x1b[31m", "file:///x", "http://x/y",
        "lock", "0001", "0001-x", "con", "...", "....//x",
    ]  # fmt: skip
    yield from seeds
    for seed in seeds:
        yield f"a{seed}/../../../b"
        yield f"{seed}/{seed}"
    yield from (f"{'../' * n}x" for n in range(2, 12))


PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@pytest.mark.bar("S4")
def test_no_name_leads_out_of_the_folder_of_runs(tmp_path, monkeypatch, record_property):
    """What makes a directory of its own is a plain word; everything else is refused."""
    from vgx.errors import RecipeError
    from vgx.runs.directory import create

    monkeypatch.chdir(tmp_path)
    registry, count, made, messages = vgx.discover(), 0, 0, []
    for name in dict.fromkeys(names()):
        count += 1
        try:
            recipe = vgx.load_recipe(TINY, {"name": name}, registry)
        except RecipeError as error:
            messages += str(error).splitlines()
            continue
        run = create(recipe.name, tmp_path / "runs")
        assert run.path.parent == tmp_path / "runs"
        assert set(run.path.name) <= PLAIN
        made += 1
    assert count >= 200
    record_property("cases", count)
    assert 0 < made < 20
    assert all(letter.isprintable() for line in messages for letter in line)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list((tmp_path / "runs").iterdir())) == made


@pytest.mark.bar("S4", control="names without a check of their characters")
def test_names_that_nobody_looks_at_would_be_made(tmp_path, record_property):
    from vgx.errors import StorageError
    from vgx.runs.directory import create

    odd = 0
    for name in dict.fromkeys(names()):
        with contextlib.suppress(StorageError, ValueError):
            odd += not set(create(name, tmp_path / "runs").path.name) <= PLAIN
    assert odd > 20
    record_property("seen", f"{odd} directories with names that are no plain word")


@pytest.mark.bar("S4")
@pytest.mark.parametrize("field", ["losses.0.name", "train.optimizers.generator.type", "extends"])
def test_no_other_name_leads_anywhere(tmp_path, monkeypatch, field):
    from vgx.errors import RecipeError

    monkeypatch.chdir(tmp_path)
    registry = vgx.discover()
    for name in dict.fromkeys(names()):
        try:
            recipe = vgx.load_recipe(TINY, {field: name}, registry)
        except RecipeError:
            continue
        if field == "losses.0.name":
            assert set(recipe.losses[0].name) <= PLAIN
    assert list(tmp_path.iterdir()) == []


@pytest.mark.bar("S4")
@some(3)
def test_no_name_of_a_run_or_a_sampler_leads_out(guard, run, tmp_path, every):
    before = sorted(tmp_path.rglob("*"))
    for name in list(dict.fromkeys(names()))[:: 2 * every - 1]:
        if "\0" in name or "\ud800" in name or name.startswith("-"):
            continue  # no argument of a command
        for command in (("sample", name), ("resume", name), ("sample", run, "--sampler", name)):
            code, err, events = guard(*command)
            assert code in (2, 5), (command, code, err)
            assert events == []
    assert sorted(tmp_path.rglob("*")) == before


SECRETS = {
    "HF_TOKEN": "hf_secretOfAPerson", "WANDB_API_KEY": "wandb-secret",
    "AWS_SECRET": "aws-secret", "GITHUB_TOKEN": "ghp-secret",
}  # fmt: skip


def tells(path):
    """Whether a file holds a secret."""
    content = path.read_bytes()
    return any(secret.encode() in content for secret in SECRETS.values())


@pytest.mark.bar("S5")
def test_no_secret_of_the_environment_is_kept_in_a_run(tmp_path, monkeypatch):
    """Tokens that the hub's libraries read are written nowhere."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    run = vgx.run(vgx.load_recipe(TINY, {"train.steps": 1}), out=tmp_path / "runs")
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert [path for path in files if tells(path)] == []


@pytest.mark.bar("S5", control="the environment variables noted with the versions")
def test_a_secret_that_is_kept_would_be_seen(tmp_path, monkeypatch):
    from vgx.training import environment

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    machine = environment.machine
    monkeypatch.setattr(
        environment, "machine", lambda *given: {**machine(*given), "all": dict(os.environ)}
    )
    run = vgx.run(vgx.load_recipe(TINY, {"train.steps": 1}), out=tmp_path / "runs")
    assert [path.name for path in run.path.rglob("*") if path.is_file() and tells(path)] == [
        "environment.json"
    ]


@pytest.mark.bar("S5")
def test_files_of_a_run_have_the_rights_that_the_person_gives(tmp_path):
    before = os.umask(0o027)
    try:
        run = vgx.run(vgx.load_recipe(TINY, {"train.steps": 1}), out=tmp_path / "runs")
    finally:
        os.umask(before)
    for path in run.path.rglob("*"):
        expected = 0o750 if path.is_dir() else 0o640
        assert path.stat().st_mode & 0o777 == expected, path
