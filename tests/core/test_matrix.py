"""Twelve strange distributions in twelve install orders: the good ones work, always the same way.

Each is as pip would leave it: a module, its metadata, its entry point. Nothing here is a stand-in
for the finding itself: `importlib.metadata` reads the folders, and the modules are imported anew.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import jsonschema
import pytest
from distributions import lay

import vgx
from vgx.cli import run_program
from vgx.parts.kinds import KINDS

RECIPE = """\
name: t
image: {size: 16}
latent: 8
dataset: {type: drawn-faces, count: 8}
encoder: {type: conv, widths: [4]}
decoder: {type: conv-transpose, widths: [4]}
losses: [%s]
sampler: prior
train: {steps: 1, batch: 2}
"""


def loss(*names, before="", after="", register="register"):
    """A module with losses of these names."""
    classes = [
        f'class L{number}(vgx.Loss, type="{name}"):\n'
        f'    """The mean of the reconstruction, as {name} has it."""\n'
        "    def generator(self, step):\n"
        "        return step.recon.mean()\n"
        for number, name in enumerate(names)
    ]
    calls = "".join(f"    register(L{number})\n" for number in range(len(names)))
    hook = f"@vgx.hookimpl\ndef register_components({register}):\n{calls}{after or '    pass'}\n"
    return "\n".join([before, "import vgx", *classes, hook])


BASELESS = """\
import vgx


class X(vgx.Component, type="x"):
    "No kind of part."


@vgx.hookimpl
def register_components(register):
    register(X)
"""
# Name: (version, text, what is said when it does not load).
DISTRIBUTIONS = {
    "calm": ("1.0", loss("calm"), ""),
    "slow": ("2.1", loss("slow", before="import time; time.sleep(0.05)"), ""),
    "noisy": (
        "0.3",
        loss("noisy", before="import sys\nprint('{LOUD}' * 9)\nprint('LOUD', file=sys.stderr)"),
        "",
    ),
    # Takes the name of a part in the box, and two strangers take one another's.
    "grabby": ("1.1", loss("l1", "grabby"), ""),
    "castor": ("4.0", loss("twin", "castor"), ""),
    "pollux": ("4.0", loss("twin", "pollux"), ""),
    "crashing": ("0.1", "1 / 0", "ZeroDivisionError: division by zero"),
    "leaving": ("0.2", "raise SystemExit(7)", "SystemExit: 7"),
    "lacking": (
        "0.4",
        "import no_such_library_anywhere",
        "ModuleNotFoundError: No module named 'no_such_library_anywhere'",
    ),
    "old-hook": ("0.5", loss("old-hook", register="registry"), "PluginValidationError: "),
    # Its first part is registered when it fails: nothing of it may be left.
    "half": ("0.6", loss("half", after="    raise OSError('a\\nb')"), "OSError: a b"),
    "wrong-base": (
        "0.7",
        BASELESS,
        "PluginError: <class 'wrong_base_plugin.X'> is no part",
    ),
}
BROKEN = [name for name, (_, _, failure) in DISTRIBUTIONS.items() if failure]
GOOD = ["calm", "slow", "noisy", "grabby", "castor", "pollux"]  # each has a loss of its own name


def orders():
    """Twelve of them: each distribution is first once, and the rest are shuffled."""
    names = list(DISTRIBUTIONS)
    for first in names:
        rest = [name for name in names if name != first]
        random.Random(first).shuffle(rest)
        yield pytest.param([first, *rest], id=first)


def put(folder, name):
    """What pip leaves in a folder of packages."""
    version, text, _ = DISTRIBUTIONS[name]
    module = f"{name.replace('-', '_')}_plugin"
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(text)
    lay(folder, name, version, {name: module})


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install in an order: either all in one folder, or each in its own, in the order of the path.

    Modules that were imported are forgotten before and after.
    """

    def forget():
        for name in [name for name in sys.modules if name.endswith("_plugin")]:
            del sys.modules[name]

    def install(order, *, apart):
        forget()
        for number, name in enumerate(order):
            folder = tmp_path / f"site-{number if apart else 'all'}"
            put(folder, name)
            if str(folder) not in sys.path:
                monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])

    yield install
    forget()


def told(capfd, *arguments):
    code = run_program([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return code, out, err


def test_there_are_twelve_and_half_of_them_are_broken():
    assert len(DISTRIBUTIONS) == len(list(orders())) == 12
    assert sorted([*GOOD, *BROKEN]) == sorted(DISTRIBUTIONS)
    assert len(BROKEN) == 6


@pytest.mark.bar("X1")
@pytest.mark.parametrize("apart", [False, True], ids=["one folder", "a folder each"])
@pytest.mark.parametrize("order", list(orders()))
def test_the_good_ones_work_whatever_the_order(
    installed, order, apart, tmp_path, monkeypatch, capfd
):
    installed(order, apart=apart)
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = told(capfd, "plugins")
    assert code == 0
    assert "LOUD" not in out
    assert err.count("{LOUD}") == 9
    lines = out.splitlines()
    for name in BROKEN:
        version, _, failure = DISTRIBUTIONS[name]
        (line,) = [line for line in lines if line.startswith(f"{name}  ")]
        assert line.startswith(f"{name}  ({name} {version})  failed to load: {failure}")
    for name in GOOD:
        version, _, _ = DISTRIBUTIONS[name]
        place = lines.index(f"{name}  ({name} {version})")
        assert name in lines[place + 1].removeprefix("  loss: ").split(", ")
    # Clashes are told, and both are named.
    assert lines[-2:] == [
        "more than one plugin offers the loss 'l1': write 'grabby:l1' or 'vgx:l1'",
        "more than one plugin offers the loss 'twin': write 'castor:twin' or 'pollux:twin'",
    ]
    # The same to the letter as in alphabetical order, which another case of this test may not be.
    registry = vgx.discover()
    names = [plugin.distribution for plugin in registry.plugins]
    own = ["vgx" for point in distribution("vgx").entry_points if point.group == "vgx"]
    assert names == sorted([*DISTRIBUTIONS, *own])

    def needs(*losses):
        (tmp_path / "r.yaml").write_text(RECIPE % ", ".join(losses))
        return vgx.load_recipe(tmp_path / "r.yaml", registry=registry)

    recipe = needs(*GOOD, "'vgx:l1'", "'castor:twin'", "{type: 'pollux:twin', name: other}")
    assert [loss.type for loss in recipe.losses] == [*GOOD, "l1", "twin", "twin"]
    written = tmp_path / "written.yaml"
    written.write_text(vgx.dump_recipe(recipe))
    assert vgx.load_recipe(written, registry=registry) == recipe
    owners = [registry.owner(type(loss)).distribution for loss in recipe.losses]
    assert owners == [*GOOD, "vgx", "castor", "pollux"]


@pytest.mark.bar("X1")
@pytest.mark.parametrize(
    ("named", "code", "said"),
    [
        ("[calm, noisy, slow]", 0, ""),
        ("[kl, 'vgx:l1']", 0, ""),
        *((f"[l2, {name}]", 3, f"plugin {name} of {name} ") for name in BROKEN),
        ("[l1]", 2, "more than one plugin offers the loss 'l1': write 'grabby:l1' or 'vgx:l1'"),
        ("[twin]", 2, "write 'castor:twin' or 'pollux:twin'"),
        ("['half:half']", 3, "no installed loss is called 'half:half'"),
        ("['half:hinges']", 3, "no installed loss is called 'half:hinges'"),
        ("['nobody:calm']", 2, "did you mean 'calm'?"),
        ("[hingee]", 2, "did you mean 'hinge'?"),
    ],
)
def test_a_recipe_that_needs_a_broken_one_is_exit_3(installed, tmp_path, capfd, named, code, said):
    installed(list(DISTRIBUTIONS), apart=False)
    (tmp_path / "r.yaml").write_text(RECIPE % named.strip("[]"))
    found, _, err = told(capfd, "check", tmp_path / "r.yaml")
    told_lines = [line for line in err.splitlines() if "LOUD" not in line]
    assert found == code, err
    assert any(said in line for line in told_lines) or not said
    assert "Traceback" not in err


@pytest.mark.parametrize("name", list(DISTRIBUTIONS))
def test_each_alone_leaves_the_box_as_it_was(installed, name):
    """Half-registered, clashing or broken: every part in the box is still there and is vgx's."""
    before = {(part.kind, part.type) for part in box()}
    installed([name], apart=False)
    registry = vgx.discover()
    assert {(part.kind, part.type) for part in box()} == before
    (plugin,) = [plugin for plugin in registry.plugins if plugin.distribution == name]
    _, _, failure = DISTRIBUTIONS[name]
    assert bool(plugin.parts) == (not failure)
    assert plugin.failure.startswith(failure)
    offered = {part.type for kind in KINDS for _, part in registry.offers(kind.kind)}
    assert {"half", "old-hook", "x"}.isdisjoint(offered)


def box():
    (plugin,) = [plugin for plugin in vgx.discover().plugins if plugin.name == "builtin"]
    return plugin.parts


def test_what_a_plugin_prints_is_not_what_was_asked_for(installed, capfd):
    """`vgx schema > recipe.schema.json` stays JSON."""
    installed(["noisy", "grabby"], apart=False)
    code, out, err = told(capfd, "schema")
    assert code == 0
    schema = json.loads(out)
    names = schema["$defs"]["loss"]["anyOf"][0]["enum"]
    assert {"noisy", "grabby:l1", "vgx:l1"} <= set(names)
    assert "l1" not in names
    assert "LOUD" in err
    check = jsonschema.Draft7Validator(schema)

    def valid(*losses):
        losses = [{"type": name, "weight": 2} if number else name for number, name in losses]
        dataset, networks = {"type": "drawn-faces"}, {"encoder": "vgx:conv", "decoder": "dcgan"}
        recipe = {"name": "t", "image": {"size": 16}, "latent": 8, "dataset": dataset, **networks}
        return check.is_valid(
            {**recipe, "losses": losses, "sampler": "prior", "train": {"steps": 1}}
        )

    # As a bare name and as a mapping: whole names always, short ones where they are nobody else's.
    for number in (0, 1):
        for name in ("noisy", "noisy:noisy", "grabby:l1", "vgx:l1", "vgx:l2", "l2"):
            assert valid((number, name)), name
        for name in ("l1", "vgx:noisy", "grabby:l2", "vgx:", "l3"):
            assert not valid((number, name)), name


@pytest.mark.bar("X1")
def test_all_of_them_broken_stop_no_command_that_looks(installed, capfd):
    installed(BROKEN, apart=True)
    for arguments in (["plugins"], ["parts"], ["parts", "loss/l1"], ["schema"]):
        code, _, err = told(capfd, *arguments)
        assert (code, err) == (0, "")


def test_it_is_the_same_in_a_process_of_its_own(tmp_path):
    site = tmp_path / "site"
    for name in DISTRIBUTIONS:
        put(site, name)
    done = subprocess.run(
        [sys.executable, "-m", "vgx", "plugins"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("failed to load") == 6
    assert "LOUD" not in done.stdout


def test_metadata_that_say_nothing_are_called_unknown(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    put(tmp_path, "calm")
    (info,) = tmp_path.glob("*.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\n")
    sys.modules.pop("calm_plugin", None)
    found = [p for p in vgx.discover().plugins if p.name == "calm"]
    # Python itself leaves out a distribution without a name; if it does not, we know nothing of it.
    assert all((p.distribution, p.version) == ("unknown", "unknown") for p in found)


@pytest.mark.bar("X2")
def test_two_entry_points_of_one_distribution_cannot_share_a_name(tmp_path, monkeypatch):
    """No recipe could tell them apart: the second, in the order of names, does not load."""
    monkeypatch.syspath_prepend(str(tmp_path))
    put(tmp_path, "calm")
    (info,) = tmp_path.glob("*.dist-info")
    (tmp_path / "again_plugin.py").write_text(loss("fresh", "calm"))
    (info / "entry_points.txt").write_text("[vgx]\nbeta = again_plugin\nalpha = calm_plugin\n")
    for name in ("calm_plugin", "again_plugin"):
        sys.modules.pop(name, None)
    plugins = {plugin.name: plugin for plugin in vgx.discover().plugins}
    assert [part.type for part in plugins["alpha"].parts] == ["calm"]
    assert plugins["beta"].parts == ()
    assert "it registers two parts as loss 'calm'" in plugins["beta"].failure
    assert vgx.discover().part("loss", "calm") is plugins["alpha"].parts[0]


def test_a_part_that_cannot_be_built_is_refused(tmp_path):
    file = Path(tmp_path / "unbuilt.py")
    file.write_text(
        "import vgx\nclass X(vgx.Encoder, type='x'):\n    '''Has no build.'''\n"
        "@vgx.hookimpl\ndef register_components(register):\n    register(X)\n"
    )
    with pytest.raises(vgx.errors.PluginError, match="the encoder 'x' lacks the method build"):
        vgx.discover([file])


def test_a_file_that_fails_leaves_no_module_behind(tmp_path):
    (tmp_path / "mine.py").write_text("import vgx\n1 / 0\n")
    before = set(sys.modules)
    with pytest.raises(vgx.errors.PluginError):
        vgx.discover([tmp_path / "mine.py"])
    assert {name for name in set(sys.modules) - before if "mine" in name} == set()
