"""A run from a stranger: its plugin files are executed by no command that looks.

And by the others only when the user trusts them, by their SHA-256.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vgx
from vgx.cli import run_program
from vgx.console import Console
from vgx.runs import trust

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
LOOKS = (("list", "--out"), ("compare",), ("explain",))
USES = (
    ("report",), ("sample", "-n", "1"), ("sample", "-n", "1", "--best"),
    ("sample", "--separate", "pictures"), ("eval", "-n", "8"), ("resume",),
    ("resume", "--verify"), ("resume", "--force-unlock"), ("run", "--resume"),
    ("run", "--set", "train.steps=9", "--resume"), ("fork", "--at", "4"), ("fork",),
    ("replay", "--step", "3"), ("watch",), ("explore",), ("export",),
)  # fmt: skip
PART = '''
from pathlib import Path
import vgx

class {name}(vgx.Loss, type="{type}"):
    """A loss of a stranger."""

    def generator(self, step):
        return (step.recon - step.real).abs().mean()

with Path({marker!r}).open("a") as file:
    file.write("x")

@vgx.hookimpl
def register_components(register):
    register({name})
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps that was measured, so that `list` has a best value to find."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        patch.setenv("VGX_CONFIG", str(folder / "config"))
        settings = {
            "train.steps": 2, "train.save_every": 1, "discriminator": None, "losses": ["l1", "kl"],
            "sampler": "prior", "eval.every": 1, "eval.n": 8, "eval.metrics": ["psnr"],
            "eval.best": "psnr",
        }  # fmt: skip
        return vgx.run(vgx.load_recipe(TINY, settings), out=folder / "runs").path


class Stranger:
    """A copy of a run into which somebody else has put what he likes."""

    def __init__(self, trained, folder):
        self.folder = folder
        self.run = Path(shutil.copytree(trained, folder / "runs" / "0001-tiny"))
        self.plugins = self.run / "plugins"
        self.other = Path(shutil.copytree(trained, folder / "runs" / "0002-tiny"))
        self.marker = folder / "executed"
        self.count = 0

    def program(self):
        """A plugin's text that nobody has seen before: whoever executes it leaves a marker."""
        self.count += 1
        name = f"Mine{self.count}"
        return PART.format(name=name, type=name.lower(), marker=str(self.marker))

    def executed(self):
        found = self.marker.exists()
        self.marker.unlink(missing_ok=True)
        return found

    def look(self, command):
        """Run a command that looks: its exit code."""
        name, *options = command
        if name == "list":
            return run_program(["list", *options, str(self.run.parent)])
        beside = [str(self.other)] if name == "compare" else []
        return run_program([name, str(self.run), *beside])

    def use(self, command):
        """Run a command that uses the run: its exit code."""
        beside = ["pictures"] if command[0] == "export" else []
        return run_program([*command, str(self.run), *beside])


@pytest.fixture
def stranger(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Stranger(trained, tmp_path)


def bytecode(file, text, mode):
    """Leave other bytecode where Python looks for that of a file."""
    source = file.with_name("source.txt")
    source.write_text(text)
    py_compile.compile(
        source, importlib.util.cache_from_source(file), str(file), invalidation_mode=mode
    )
    source.unlink()


def plain(made, name):
    (made.plugins / name).write_text(made.program())


def in_a_folder(made, name):
    (made.plugins / name).mkdir()
    for inner in ("__init__.py", "__main__.py", "x.py"):
        (made.plugins / name / inner).write_text(made.program())


def linked(made, target):
    (made.folder / "outside.py").write_text(made.program())
    (made.plugins / "x.py").symlink_to(target)


def sparse(made):
    with (made.plugins / "x.py").open("wb") as file:
        file.write(made.program().encode())
        file.truncate(3_000_000_000)


def many(made):
    for number in range(101):
        plain(made, f"x{number}.py")


def linked_folder(made):
    made.plugins.rmdir()
    (made.folder / "elsewhere").mkdir()
    (made.folder / "elsewhere" / "x.py").write_text(made.program())
    made.plugins.symlink_to(made.folder / "elsewhere")


def beside_bytecode(made, mode):
    plain(made, "x.py")
    bytecode(made.plugins / "x.py", made.program(), mode)


def added(made):
    """A file that the user trusts, and another one that came later."""
    plain(made, "known.py")
    trust.remember(vgx.Run(made.run).plugin_files)
    plain(made, "x.py")


def changed(made):
    """A file that the user trusts, changed within its size and time."""
    file = made.plugins / "x.py"
    file.write_text(made.program() + "# 1\n")
    before = file.stat()
    trust.remember(vgx.Run(made.run).plugin_files)
    file.write_text(file.read_text().replace("# 1", "# 2"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def two_cases(made):
    plain(made, "mine.py")
    plain(made, "Mine.py")


def cookie(made):
    text = "# -*- coding: utf-16 -*-\n" + made.program()
    (made.plugins / "x.py").write_text(text)


def no_python(made):
    (made.plugins / "x.py").write_bytes(b"\x00\xff" + made.program().encode())


REFUSED = {
    "plain": lambda made: plain(made, "x.py"),
    "hidden": lambda made: plain(made, ".x.py"),
    "hidden twice": lambda made: plain(made, "..x.py"),
    "only an ending": lambda made: plain(made, ".py"),
    "wide letters": lambda made: plain(made, "\uff58.py"),
    "turned round": lambda made: plain(made, "x\u202eyp.py"),
    "two lines": lambda made: plain(made, "x\nvgx: all is well.py"),
    "escapes": lambda made: plain(made, "\x1b]0;owned\x07\x1b[2J.py"),
    "no text": lambda made: plain(made, os.fsdecode(b"\xff\xfe.py")),
    "longest name": lambda made: plain(made, "x" * 252 + ".py"),
    "two dots": lambda made: plain(made, "x.y.py"),
    "an option": lambda made: plain(made, "--trust-plugins.py"),
    "sitecustomize": lambda made: plain(made, "sitecustomize.py"),
    "conftest": lambda made: plain(made, "conftest.py"),
    "a module of Python": lambda made: plain(made, "json.py"),
    "package": lambda made: plain(made, "__init__.py"),
    "in a folder": lambda made: in_a_folder(made, "x.py"),
    "hidden folder": lambda made: in_a_folder(made, ".x.py"),
    "link": lambda made: linked(made, made.folder / "outside.py"),
    "relative link": lambda made: linked(made, "../../../outside.py"),
    "link to a part": lambda made: linked(made, vgx.__file__),
    "lost link": lambda made: linked(made, "nowhere.py"),
    "link to itself": lambda made: linked(made, "x.py"),
    "link to zeros": lambda made: linked(made, "/dev/zero"),
    "pipe": lambda made: os.mkfifo(made.plugins / "x.py"),
    "sparse": sparse,
    "many": many,
    "linked folder": linked_folder,
    "unchecked bytecode": lambda made: beside_bytecode(
        made, py_compile.PycInvalidationMode.UNCHECKED_HASH
    ),
    "checked bytecode": lambda made: beside_bytecode(
        made, py_compile.PycInvalidationMode.CHECKED_HASH
    ),
    "dated bytecode": lambda made: beside_bytecode(made, py_compile.PycInvalidationMode.TIMESTAMP),
    "added": added,
    "changed": changed,
    "two cases": two_cases,
    "cookie": cookie,
    "no python": no_python,
}


def root_modules(made):
    for name in ("sitecustomize.py", "usercustomize.py", "conftest.py", "vgx.py", "torch.py"):
        (made.run / name).write_text(f"open({str(made.marker)!r}, 'a').write('x')\n")


def metadata(made):
    folder = made.plugins / "evil-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[vgx]\nevil = evil\n")
    in_a_folder(made, "evil")


def cache_alone(made):
    (made.plugins / "x.py").write_text(made.program())
    bytecode(made.plugins / "x.py", made.program(), py_compile.PycInvalidationMode.UNCHECKED_HASH)
    (made.plugins / "x.py").unlink()


def linked_cache(made):
    (made.folder / "elsewhere").mkdir()
    (made.folder / "elsewhere" / "x.py").write_text(made.program())
    (made.plugins / "__pycache__").symlink_to(made.folder / "elsewhere")


IGNORED = {  # nothing of it is a plugin file, so the run can be used
    "beside the run": root_modules,
    "upper case": lambda made: plain(made, "X.PY"),
    "bytecode alone": lambda made: plain(made, "x.pyc"),
    "other endings": lambda made: [plain(made, f"x.{end}") for end in ("pyw", "so", "pth", "py~")],
    "package": lambda made: in_a_folder(made, "package"),
    "metadata": metadata,
    "cache alone": cache_alone,
    "linked cache": linked_cache,
    "no folder": lambda made: made.plugins.rmdir(),
}
thin = pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.chaos)])


def survey(made, kinds, commands, act):
    """Try each kind with each command; return what was executed and what ended otherwise."""
    executed, codes = [], {}
    for name, spoil in kinds.items():
        spoil(made)
        for command in commands:
            codes[name, command] = act(command)
            if made.executed():
                executed.append((name, command))
        if made.plugins.is_symlink():
            made.plugins.unlink()
        shutil.rmtree(made.plugins, ignore_errors=True)
        made.plugins.mkdir()
        for path in (*made.folder.glob("outside.py"), *made.folder.glob("elsewhere")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return executed, codes


@pytest.mark.bar("S6")
@thin
def test_looking_executes_nothing(stranger, every, record_property):
    kinds = dict(list({**REFUSED, **IGNORED}.items())[::every])
    executed, codes = survey(stranger, kinds, LOOKS, stranger.look)
    assert executed == []
    assert {case: code for case, code in codes.items() if code != 0} == {}
    record_property("cases", len(codes))


@pytest.mark.bar("S6")
@thin
def test_using_is_refused_and_says_what(stranger, every, record_property, capsys):
    before = {p: p.stat().st_mtime_ns for p in stranger.run.rglob("*") if p.is_file()}
    kinds = dict(list(REFUSED.items())[::every])
    executed, codes = survey(stranger, kinds, USES, stranger.use)
    assert executed == []
    assert {case: code for case, code in codes.items() if code != 3} == {}
    after = {p: p.stat().st_mtime_ns for p in stranger.run.rglob("*") if p.is_file()}
    assert after == before  # nothing of the run was touched
    assert not (stranger.folder / "pictures").exists()
    err = capsys.readouterr().err
    assert all(letter.isprintable() for line in err.splitlines() for letter in line)
    assert not [line for line in err.splitlines() if line.startswith("vgx: all is well")]
    record_property("cases", len(codes))


@pytest.mark.bar("S6")
@thin
def test_what_is_no_plugin_file_is_never_executed(stranger, every, record_property):
    kinds = dict(list(IGNORED.items())[:: 2 * every - 1])
    executed, codes = survey(stranger, kinds, (("sample", "-n", "1"),), stranger.use)
    assert executed == []
    assert {case: code for case, code in codes.items() if code != 0} == {}
    record_property("cases", len(codes))


@pytest.mark.bar("S6")
def test_the_same_bytes_are_trusted_wherever_they_lie(stranger):
    """A plugin file that the user gave to another run is his own here too."""
    plain(stranger, "x.py")
    trust.remember(vgx.Run(stranger.run).plugin_files)
    (stranger.plugins / "x.py").rename(stranger.plugins / "renamed.py")
    assert stranger.use(("sample", "-n", "1")) == 0
    assert stranger.executed()


@pytest.mark.bar("S6", control="trust of every file: each program is executed")
def test_the_programs_are_real(stranger, monkeypatch, record_property):
    """The control: where nobody asks, each command executes them, and the marker is seen."""
    monkeypatch.setattr(trust, "untrusted", lambda _: [])
    seen = 0
    commands = (("report",), ("sample", "-n", "1"), ("eval", "-n", "8", "--seeds", "1"))
    for command in (*commands, ("resume",), ("run", "--resume")):
        plain(stranger, "x.py")
        assert stranger.use(command) == 0
        assert stranger.executed(), command
        seen += 1
    record_property("seen", f"{seen} of {seen} commands executed it")


@pytest.mark.bar("S6", control="explain that loads the recipe's parts: its plugin file is executed")
def test_a_look_that_loads_parts_would_be_seen(stranger, monkeypatch):
    from vgx_report import diagram

    of_run = diagram.of_run

    def loading(run):
        vgx.discover(run.plugin_files)
        return of_run(run)

    monkeypatch.setattr(diagram, "of_run", loading)
    executed, _ = survey(stranger, {"plain": REFUSED["plain"]}, LOOKS, stranger.look)
    assert executed == [("plain", ("explain",))]
    assert [name for name in sys.modules if name.startswith("vgx_plugin_file_x_")]


# --- where its recipe would go -------------------------------------------------------------------


class Watch:
    """Notes what is opened below a folder and what is asked over a network, and what is printed."""

    def __init__(self):
        self.folder, self.events = "", []
        sys.addaudithook(self.hear)

    def hear(self, event, arguments):
        if not self.folder:
            return
        path = arguments[0] if arguments else None
        if event in ("open", "os.listdir", "os.scandir") and isinstance(path, str | bytes | Path):
            path = os.fsdecode(path)
            if path == self.folder or path.startswith(self.folder + "/"):
                self.events.append(event)
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            self.events.append(event)

    def during(self, folder, work):
        """Do some work; return its result and the events."""
        self.folder, self.events = str(folder), []
        try:
            return work(), self.events
        finally:
            self.folder = ""


@pytest.fixture(scope="module")
def watch():
    return Watch()


@pytest.fixture
def private(tmp_path):
    """A folder of this machine that a stranger's recipe names."""
    from PIL import Image

    folder = tmp_path / "private"
    folder.mkdir()
    for number in range(16):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def places(private):
    """Changes of a recipe, which then names other data."""
    folder, name = f"{{type: image-folder, path: {private}}}", "nobody/has-this"
    hub, kernel = f"{{type: huggingface, path: {name}}}", "{type: kernel-distance, features: timm}"
    return {
        "a folder": {"dataset": folder},
        "the hub": {"dataset": hub},
        "a folder in the hub's layout": {"dataset": f"{{type: huggingface, path: {private}}}"},
        "a fallback": {"dataset": f"{{type: image-folder, fallback: {hub}}}"},
        "another fallback": {"dataset": f"{{type: huggingface, path: {name}, fallback: {folder}}}"},
        "a sampler": {"sampler": f"{{type: reconstruct, path: {private}}}"},
        "metrics": {"eval": "{every: 1, best: fid, metrics: [fid]}"},
        "features": {"eval": f"{{every: 1, best: null, metrics: [{kernel}]}}"},
        "weights": {"losses.0": f"{{type: perceptual, name: l1, weights: {private}/vgg.pt}}"},
        "downloaded weights": {"losses.0": "{type: perceptual, name: l1}"},
    }


@pytest.mark.bar("S6")
@thin
def test_looking_opens_no_data_and_asks_nobody(
    stranger, watch, private, every, monkeypatch, record_property
):
    """Also for the page, which is drawn with the trained networks."""
    monkeypatch.setenv("VGX_CACHE", str(stranger.folder / "empty"))
    recipe, count = (stranger.run / "recipe.yaml").read_text(), 0
    for name, changes in list(places(private).items())[:: every // 2 or 1]:
        file = stranger.run / "recipe.yaml"
        file.write_text(recipe)
        file.write_text(
            vgx.dump_recipe(vgx.load_recipe(file, [f"{k}={v}" for k, v in changes.items()]))
        )
        for command in (*LOOKS, ("report",)):
            act = stranger.use if command == ("report",) else stranger.look
            code, events = watch.during(private, lambda act=act, command=command: act(command))
            assert (code, events) == (0, []), (name, command)
            count += 1
    record_property("cases", count)


@pytest.mark.bar("S6", control="eval and sample: the folder is opened and the hub is asked")
def test_opening_is_seen_and_said_before(stranger, watch, private, monkeypatch, capsys):
    """The control, and what is promised of it: a line says where before anything is opened."""
    monkeypatch.setenv("VGX_CACHE", str(stranger.folder / "empty"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    file = stranger.run / "recipe.yaml"
    recipe, said = file.read_text(), {}
    monkeypatch.setattr(
        Console, "print", lambda _, text: text.startswith("Opening") and watch.events.append(text)
    )
    for name in ("a folder", "the hub", "a sampler"):
        changes = [f"{key}={value}" for key, value in places(private)[name].items()]
        file.write_text(recipe)
        file.write_text(vgx.dump_recipe(vgx.load_recipe(file, changes)))
        commands = [("sample", "-n", "1")] if name == "a sampler" else []
        for command in commands or [("eval", "-n", "8"), ("resume",)]:
            _, events = watch.during(private, lambda command=command: stranger.use(command))
            said[name, command[0]] = events
        notices = capsys.readouterr().err
        if name == "a sampler":
            assert f"opening the images of the sampler reconstruct path={private}" in notices
    for (name, command), events in said.items():
        others = [event for event in events if not event.startswith("Opening")]
        assert others, (name, command)
        if command != "sample":
            assert events[0].startswith("Opening the data set "), (name, command)
    assert said["a folder", "eval"][0] == f"Opening the data set image-folder path={private}"
    assert "asks the hub, with your token" in said["the hub", "eval"][0]


@pytest.mark.bar("S6")
@pytest.mark.parametrize("name", ["a folder", "the hub", "a sampler"])
def test_a_check_says_where_it_goes_before_it_does(
    stranger, watch, private, name, monkeypatch, record_property
):
    """And so does a training of a stranger's recipe."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        Console, "print", lambda _, text: text.startswith("Opening") and watch.events.append(text)
    )
    settings = [f"--set={key}={value}" for key, value in places(private)[name].items()]
    for command in ("check", "run"):
        order = [command, str(TINY), *settings, "--set=train.steps=1"]
        _, events = watch.during(private, lambda order=order: run_program(order))
        first = next(i for i, event in enumerate(events) if not event.startswith("Opening"))
        said = events[first - 1]
        if name == "a sampler":
            assert said == f"Opening the images of the sampler reconstruct path={private}"
        else:
            assert said.startswith("Opening the data set ")
    record_property("cases", 2)


@pytest.mark.bar("S6")
def test_looking_works_where_nothing_is_installed(stranger, monkeypatch):
    """Neither the plugin of the run nor the built-in parts."""
    from vgx.parts import registry

    discover = registry.discover
    file = stranger.run / "recipe.yaml"
    for part in ("l1", "drawn-faces", "conv-transpose", "psnr", "prior"):
        file.write_text(file.read_text().replace(f"type: {part}", f"type: far:{part}"))
    found = registry.Registry(tuple(p for p in discover().plugins if p.name == "report"))
    monkeypatch.setattr(registry, "discover", lambda *_: found)
    monkeypatch.setattr(vgx, "discover", lambda *_: found, raising=False)
    for command in LOOKS:
        name, *_ = command
        assert stranger.look(command) == 0, name


@pytest.mark.bar("S6")
def test_the_folder_in_which_vgx_is_started_is_not_imported_from(stranger):
    """As the command that pip installs starts it; `python -m` looks there, which Python says."""
    root_modules(stranger)
    for name in ("json.py", "click.py", "numpy.py"):
        shutil.copy(stranger.run / "torch.py", stranger.run / name)
    folder = stranger.run / "evil-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[vgx]\nevil = torch\n")
    script = stranger.folder / "bin" / "vgx"
    script.parent.mkdir()
    script.write_text("import sys\nfrom vgx.__main__ import main\nsys.exit(main())\n")
    several = ["run", "tiny", "--processes", "2", "--set", "train.steps=1"]
    for arguments in (["list"], ["plugins"], ["explain", "."], several):
        command = [sys.executable, str(script), *arguments]
        done = subprocess.run(
            command, cwd=stranger.run, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "evil" not in done.stdout
    assert not stranger.executed()
    module = [sys.executable, "-m", "vgx", "list"]
    subprocess.run(module, cwd=stranger.run, capture_output=True, check=False)
    assert stranger.executed()  # the control, and what the page warns of
