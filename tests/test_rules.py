"""The rules of the house, held by tests: docs/design.md says why."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import io
import re
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest
import torch

import vgx
from vgx import rng
from vgx.engine.losses import has_term
from vgx.parts.base import fields_of
from vgx.parts.documented import field_docstrings
from vgx.testing.case import Networks
from vgx_builtin.posteriors import Quantised

ROOT = Path(__file__).parents[1]
CORE_ROOT = ROOT / "framework" / "vgx"
CORE = sorted(CORE_ROOT.rglob("*.py"))
BOX = sorted((ROOT / "plugins" / "vgx_builtin").rglob("*.py"))
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir())
WITH_COMMANDS = sorted(
    file
    for name in PLUGINS
    if name != "vgx_builtin"
    for file in (ROOT / "plugins" / name).rglob("*.py")
)
FILES = [*CORE, *BOX, *WITH_COMMANDS]
# What a plugin with commands may import from the core besides `vgx`; docs/design.md lists it too.
OPEN = {
    "check.blame", "check.trials", "cli.options", "cli.sample", "console", "data.batches",
    "data.cache", "data.classes", "data.decode", "data.peek", "data.split", "data.store",
    "engine.build", "errors", "evaluation.latents", "evaluation.tables", "files", "images",
    "notebook.html", "notebook.kernel", "notebook.live", "output", "recipe.library",
    "recipe.yaml",
    "runs.checkpoint", "runs.diffusers", "runs.directory", "runs.exported", "runs.frames",
    "runs.hub", "runs.reading", "runs.summary", "runs.trust", "sampling.draw", "sampling.model",
    "second.kept", "training.fork", "training.preparing", "training.replay", "training.session",
}  # fmt: skip
# Values for people: their methods call functions of `vgx` that stand above them.
FOR_PEOPLE = {"recipe.model", "notebook.run"}
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

# From bottom to top, as docs/design.md has them: a module imports what stands above it.
DESIGN = (ROOT / "docs" / "design.md").read_text()
HOUSE = DESIGN.partition("<!-- house -->")[2]
LAYERS = re.findall(r"^\| `([\w.]+)` \|", HOUSE.partition("\n\n")[0], re.MULTILINE)


def module(path):
    """data.store for framework/vgx/data/store.py, data for its package."""
    parts = path.relative_to(CORE_ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported(path):
    """Every module of vgx that a file imports, inside functions too; `vgx` itself is the face.

    A relative import is none of these, and so it is allowed nowhere.
    """
    known, names = {module(p) for p in CORE}, set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            names.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vgx":
            base = node.module.removeprefix("vgx").lstrip(".")
            inside = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            version = {alias.name for alias in node.names} == {"__version__"}
            names |= (inside & known) or {base or ("" if version else "the face")}
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.removeprefix("vgx").lstrip(".") or "the face"
                for alias in node.names
                if alias.name.split(".")[0] == "vgx"
            }
    return names - {""}


@cache
def tree_of(path):
    """The syntax tree of a file, which many tests walk through."""
    return ast.parse(path.read_text())


@cache
def lines_of_code(path):
    """The numbers of the lines that hold code: no blank ones, no comments, no docstrings."""
    text = path.read_text()
    strings = {
        line
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    idle = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    idle |= {tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in idle
        for line in range(token.start[0], token.end[0] + 1)
    }
    return lines - strings


def code_lines(path):
    return len(lines_of_code(path))


def lengths(path):
    """Lines of code of each class and function in a file, by name."""
    lines = lines_of_code(path)
    kinds = {ast.ClassDef: "class", ast.FunctionDef: "function"}
    for node in ast.walk(tree_of(path)):
        if type(node) in kinds:
            length = len(lines & set(range(node.lineno, node.end_lineno + 1)))
            yield kinds[type(node)], node.name, length


@pytest.mark.parametrize("path", [p for p in CORE if module(p) in LAYERS], ids=module)
def test_the_core_imports_only_downwards(path):
    here = LAYERS.index(module(path))
    allowed = {*LAYERS[:here], *(["the face"] if module(path) in FOR_PEOPLE else [])}
    assert imported(path) - allowed == set()


@pytest.mark.parametrize("text", ["from .batches import X", "from . import batches"])
def test_a_relative_import_would_be_seen(text, tmp_path):
    (tmp_path / "module.py").write_text(f"import vgx\n{text}\n")
    assert imported(tmp_path / "module.py") == {"the face", text.split()[1]}


def test_a_plugin_with_commands_imports_little_of_the_core():
    assert set().union(*map(imported, WITH_COMMANDS)) == {*OPEN, "the face"}
    text = DESIGN.partition("<!-- open -->")[2]
    assert set(re.findall(r"`vgx\.([\w.]+)`", text.partition("\n\n")[0])) == OPEN


def test_every_module_of_the_core_has_a_layer():
    maps = {module(p) for p in CORE if p.name == "__init__.py"} - {"cli", "testing"}
    assert {module(path) for path in CORE} - maps == set(LAYERS)
    assert len(LAYERS) == len(set(LAYERS))
    for package in maps - {"__init__"}:  # a docstring that is its map, and no imports
        (docstring,) = ast.parse((CORE_ROOT / package / "__init__.py").read_text()).body
        mapped = re.findall(r"^(\w+)  +\S", docstring.value.value, re.MULTILINE)
        assert mapped == [
            name.partition(".")[2] for name in LAYERS if name.startswith(f"{package}.")
        ]


def test_the_public_names_are_the_same_for_people_and_for_type_checkers():
    tree = ast.parse((CORE_ROOT / "__init__.py").read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {(node.module, alias.asname) for node in checked.body for alias in node.names}
    table = {(m, name) for m, names in vgx._PUBLIC.items() for name in names.split()}
    assert typed == table
    assert len(typed) == len({name for _, name in typed})
    assert all(getattr(vgx, name).__class__ for _, name in typed)
    assert {name for _, name in typed} <= set(dir(vgx))


@pytest.mark.parametrize("path", BOX, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_box_needs_no_name_that_is_not_public(path):
    assert imported(path) <= {"the face"}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):  # `import vgx`, and then vgx.Name
            assert node.module != "vgx"


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.name)
def test_the_core_knows_no_plugin(path):
    if path != CORE_ROOT / "__init__.py":  # the table of public names, some of the box's plugins
        assert not re.search("|".join(["builtin", *PLUGINS]), path.read_text())
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            assert bases.isdisjoint({"nn.Module", "Module", "torch.nn.Module"}), node.name


# Old names of metrics that recipes still have, and advice on what to write instead.
NAMED = {
    "recipe/renamed.py", "cli/second.py", "evaluation/evaluate.py", "training/monitors.py",
}  # fmt: skip


def test_the_core_names_no_part_of_the_box():
    """Of parts with a hyphen in their names; others are common words, such as `prior` or `kl`."""
    names = {part.type for plugin in vgx.discover().plugins for part in plugin.parts}
    names = {name for name in names if "-" in name}
    assert len(names) > 40
    word = re.compile(rf"(?<![\w-])({'|'.join(names)})(?![\w-])")
    named = {
        path.relative_to(CORE_ROOT).as_posix() for path in CORE if word.search(path.read_text())
    }
    assert named == NAMED


def test_no_class_of_the_core_is_a_network():
    """However it is written: asked of the classes themselves."""
    for name in set(LAYERS) - {"components", "registry", "__main__"}:
        for thing in vars(importlib.import_module(f"vgx.{name}")).values():
            if isinstance(thing, type) and thing.__module__.startswith("vgx."):
                assert not issubclass(thing, torch.nn.Module), thing


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_module_has_state_that_changes(path):
    if path == CORE_ROOT / "distributed" / "state.py":
        return  # which process this is: as a default device, it is state of the process
    tree = tree_of(path)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    # A drawing may remember its tables; the core remembers nothing.
    if path not in BOX:
        kept = re.findall(r"\b(?:lru_cache|functools\.cache|cached_property)\b", path.read_text())
        assert kept == []
    for name, value in assignments(tree):
        # Tables in capitals are constants, and nobody writes into them.
        assert not mutable(value) or (name.strip("_").isupper() and not empty(value)), name
    constants = {name for name, _ in assignments(tree) if name.strip("_").isupper()}
    assert constants.isdisjoint(written_into(tree))


def assignments(tree):
    """Names and values that a module assigns."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from ((t.id, node.value) for t in node.targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield ast.unparse(node.target), node.value


def mutable(value):
    if isinstance(value, ast.Call):
        called = ast.unparse(value.func).rpartition(".")[2]
        return called in {"dict", "list", "set", "defaultdict", "Counter", "deque", "OrderedDict"}
    displays = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    return isinstance(value, displays)


def empty(value):
    return ast.unparse(value) in {"[]", "{}", "set()", "dict()", "list()"}


def written_into(tree):
    """Names with an item that is assigned or deleted, or whose changing method is called."""
    changing = {"append", "add", "update", "pop", "setdefault", "extend", "clear", "insert"}
    for node in ast.walk(tree):
        stored = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        called = isinstance(node, ast.Attribute) and node.attr in changing
        if (stored or called) and isinstance(node.value, ast.Name):
            yield node.value.id


@pytest.mark.parametrize(
    "text",
    [
        "_cache = {}",
        "_cache: dict[str, int] = {}",
        "CACHE = {}",
        "seen = set()",
        "from collections import Counter\ncounts = Counter()",
        "def f():\n    global x\n    x = 1",
        "import functools\n@functools.cache\ndef f(): ...",
        "TABLE = {1: 2}\ndef f():\n    TABLE[3] = 4",
        "TABLE = [1]\ndef f():\n    TABLE.append(4)",
    ],
)
def test_state_would_be_seen(text, tmp_path):
    (tmp_path / "module.py").write_text(text)
    with pytest.raises(AssertionError):
        test_no_module_has_state_that_changes(tmp_path / "module.py")


MAKES_CODE = {"source_to_code", "exec_module", "module_from_spec", "ModuleSpec"}
READS_BYTECODE = {
    "spec_from_file_location", "SourceFileLoader", "SourcelessFileLoader", "ExtensionFileLoader",
    "run_path", "run_module", "execfile",
}  # fmt: skip
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
# Under whatever name: called, passed on or imported.
NEVER = re.compile(
    r"eval|exec|compile|__import__|(.*\.)?read_pickle|torch\.(serialization|jit|hub)\.load"
    r"|os\.(system|popen|startfile|exec\w+|spawn\w+|posix_spawnp?)|pty\.spawn"
    r"|subprocess\.get(status)?output"
)


def spelled_out(node, imports):
    """The dotted name of a syntax node, with what the file imports by its full name."""
    if isinstance(node, ast.Name):
        return imports.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{spelled_out(node.value, imports)}.{node.attr}".removeprefix("builtins.")
    return "?"


def imports_of(tree):
    """The full name of each name that a file gets by an import."""
    full = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                full |= {alias.asname: alias.name} if alias.asname else {first: first}
        elif isinstance(node, ast.ImportFrom):
            within = f"{node.module}.".removeprefix("builtins.")
            full |= {alias.asname or alias.name: within + alias.name for alias in node.names}
    return full


@pytest.mark.bar("S2")
@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_nothing_executes_what_it_reads(path):
    imports = imports_of(tree_of(path))
    for full in imports.values():
        assert PICKLES.isdisjoint(full.split(".")), full
        assert full != "torch.load", full  # it is called as what it is
        assert not NEVER.fullmatch(full), full
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            used = spelled_out(node, imports)
            assert not NEVER.fullmatch(used), used
            if used == "torch.load":  # the one door for other people's files
                assert path == CORE_ROOT / "runs" / "import_weights.py"
        if isinstance(node, ast.Call):
            called = spelled_out(node.func, imports)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert words.get("allow_pickle", "False") == words.get("shell", "False") == "False"
            assert words.get("trust_remote_code", "False") == "False"
            if called == "torch.load":
                assert words.get("weights_only") == "True"
            # Torch's other readers of what pickle wrote, and of code.
            assert not called.endswith(("PackageImporter", "load_state_dict_from_url")), called
            if called.startswith("yaml.") and "load" in called:
                assert called == "yaml.safe_load"
            assert not called.endswith(("full_load", "unsafe_load")), called
            if called.endswith("import_module"):  # only the table of public names
                assert path == CORE_ROOT / "__init__.py"
            # The one door for code: the bytes of a plugin file that were hashed.
            if called.rpartition(".")[2] in MAKES_CODE:
                assert path == CORE_ROOT / "parts" / "plugin_file.py", called
            assert called.rpartition(".")[2] not in READS_BYTECODE, called


@pytest.mark.bar("S2", control="modules that use them in many ways: each is noticed")
@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=True)",
        "from torch import load",
        "import torch\ntorch.jit.load('x')",
        "import torch\ntorch.hub.load('x', 'y')",
        "eval('1')",
        "exec('1')",
        "import yaml\nyaml.load_all('a: 1')",
        "from yaml import unsafe_load\nunsafe_load('a: 1')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import importlib\nimportlib.import_module(name)",
        "compile('1', 'x', 'exec')",
        "import importlib.util\nimportlib.util.spec_from_file_location('x', 'x.py')",
        "spec.loader.exec_module(module)",
        "from importlib.machinery import SourceFileLoader\nSourceFileLoader('x', 'x.py')",
        "loader.source_to_code(data, 'x.py')",
        "import runpy\nrunpy.run_path('x.py')",
        "import builtins\nbuiltins.exec('1')",
        "from builtins import exec as run\nrun('1')",
        "import builtins as b\nb.eval('1')",
        "list(map(eval, texts))",
        "import torch as t\nt.load('x')",
        "import torch\nlist(map(torch.load, paths))",
        "import torch.serialization\ntorch.serialization.load('x')",
        "from torch.serialization import load",
        "from torch import serialization as s\ns.load('x')",
        "import pandas\npandas.read_pickle('x')",
        "from pandas import read_pickle",
        "import cloudpickle",
        "from torch.serialization import pickle",
        "import os\nos.system('x')",
        "import os\nos.execv('x', [])",
        "from os import popen as p\np('x')",
        "import subprocess\nsubprocess.getoutput('x')",
        "import yaml as y\ny.load('a: 1', y.Loader)",
        "import importlib as i\ni.import_module(name)",
    ],
)
def test_executing_would_be_seen(text, tmp_path):
    (tmp_path / "module.py").write_text(text)
    with pytest.raises(AssertionError):
        test_nothing_executes_what_it_reads(tmp_path / "module.py")


PRINTING = re.compile(r"print|rich\.print|(.*\.)?(secho|echo|echo_via_pager|std(out|err)\.write)")


def prints(path):
    """Whether a file shows text without the console."""
    calls = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))
    return any(PRINTING.fullmatch(ast.unparse(call.func)) for call in calls)


def test_text_is_shown_by_the_console_which_no_terminal_obeys():
    """But for errors and warnings, which are made visible, and for texts of vgx itself."""
    found = {path.relative_to(ROOT).as_posix() for path in FILES if prints(path)}
    assert found == {"framework/vgx/cli/__init__.py", "framework/vgx/cli/inspect.py"}


@pytest.mark.parametrize("text", ["print(1)", "click.echo(x)", "echo(x)", "sys.stdout.write(x)"])
def test_printing_would_be_seen(text, tmp_path):
    (tmp_path / "module.py").write_text(text)
    assert prints(tmp_path / "module.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_duck_is_asked_whether_it_quacks(path):
    text = path.read_text()
    assert "hasattr(" not in text
    supers = re.findall(r"super\(\)\.(\w+)", text)
    assert set(supers) <= {"__init__", "__init_subclass__"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):  # no mixins
            bases = [base for base in node.bases if ast.unparse(base) != "Protocol"]
            assert len(bases) <= 1, node.name


def test_lines_of_code_are_counted_without_the_talk(tmp_path):
    (tmp_path / "module.py").write_text(
        '"""Talk.\n\nMore talk.\n"""\n\n# A comment\nx = [\n    1,  # one\n]\n'
        'def f():\n    "Talk."\n    return """a\nb"""\n'
    )
    assert code_lines(tmp_path / "module.py") == 6  # x = [, 1, ], def, return """a, b"""


# Lines of code of each package; a budget that is reached is a reason to cut.
BUDGETS = {
    "": 1125, "parts": 1280, "recipe": 1055, "data": 2050, "runs": 1825, "engine": 1455,
    "sampling": 600, "check": 1453, "evaluation": 980, "training": 2330, "testing": 1000,
    "cli": 935, "notebook": 1416, "second": 805, "distributed": 645,
}  # fmt: skip
PLUGIN_BUDGETS = {
    "vgx_data": 460, "vgx_explore": 522, "vgx_figures": 1184, "vgx_report": 2196, "vgx_runs": 310,
    "vgx_share": 980, "vgx_sweep": 1481,
}  # fmt: skip


def test_each_package_fits_its_budget():
    lines = dict.fromkeys(BUDGETS, 0)
    for path in CORE:
        lines[
            module(path).rpartition(".")[0] or (module(path) if path.parent != CORE_ROOT else "")
        ] += code_lines(path)
    assert {name: n for name, n in lines.items() if n > BUDGETS[name]} == {}
    assert {*PLUGIN_BUDGETS} == {*PLUGINS} - {"vgx_builtin"}
    for name, budget in PLUGIN_BUDGETS.items():
        assert sum(map(code_lines, (ROOT / "plugins" / name).rglob("*.py"))) <= budget, name
    written = re.findall(r"^\| `?([\w ]+)`? \| [\d,]+ \| ([\d,]+) \|", DESIGN, re.MULTILINE)
    budgets = {"top level": BUDGETS[""], **BUDGETS, **PLUGIN_BUDGETS}
    del budgets[""]
    assert {name: int(number.replace(",", "")) for name, number in written} == budgets


LIMITS = {"class": 200, "function": 60}


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_module_class_or_function_is_too_long_to_hold_in_mind(path):
    assert code_lines(path) <= 350
    assert [found for found in lengths(path) if found[2] > LIMITS[found[0]]] == []


def test_lengths_would_be_seen(tmp_path):
    """The control: a class of three lines with a function of two in it."""
    (tmp_path / "x.py").write_text(
        'class A:\n    """Talk."""\n\n    def f(self):\n        return 1\n'
    )
    assert set(lengths(tmp_path / "x.py")) == {("class", "A", 3), ("function", "f", 2)}


def test_the_training_step_is_one_page():
    """From the forward pass to the optimizers, docstrings and comments included."""
    lines = (CORE_ROOT / "engine" / "engine.py").read_text().splitlines()
    tree = ast.parse("\n".join(lines))
    methods = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert sum(methods[name] for name in ("step", "turns", "update")) <= 60


@pytest.mark.parametrize("path", BOX, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_part_fits_its_budget(path):
    if path.name != "__init__.py":  # the list of parts
        assert code_lines(path) <= 120


def parts():
    return [part for plugin in vgx.discover().plugins for part in plugin.parts]


@pytest.mark.parametrize("part", parts(), ids=lambda part: f"{part.kind}/{part.type}")
def test_every_part_and_every_field_is_documented(part):
    assert len(part.__doc__.split()) >= 4
    assert field_docstrings(part).keys() == part.model_fields.keys()
    assert fields_of(part).keys() == part.model_json_schema()["properties"].keys() - {"type"}


def test_every_field_of_a_recipe_is_documented():
    from vgx.recipe.model import Optimizer, Optimizers, Recipe, Train

    for model in (Recipe, Train, Optimizers, Optimizer, vgx.Schedule):
        assert field_docstrings(model).keys() == model.model_fields.keys()


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_says_what_it_is_and_round_trips(path, tmp_path):
    assert path.read_text().startswith("# ")
    recipe = vgx.load_recipe(path)
    (tmp_path / "again.yaml").write_text(vgx.dump_recipe(recipe))
    assert vgx.load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_a_recipe_is_shorter_than_thirty_lines_without_its_comment(path):
    lines = path.read_text().splitlines()
    own = [line for line in lines if line and not line.startswith("#")]
    assert len(own) < 30
    # Of a paper, with its comment; the anime VAE-GAN is the seed's own system.
    assert len(lines) < 30 or CHANGED not in path.read_text() or path.stem == "anime_vaegan"


CHANGED = "# Changed from the original: "


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_a_recipe_of_a_paper_says_what_it_changes(path):
    comment = re.match(r"(#.*\n)+", path.read_text())[0]
    papers = re.search(r"\b(19|20)\d\d[,)]", comment)
    assert bool(papers) == (CHANGED in comment)


LOOKING = [
    ["--help"],
    ["--version"],
    ["compare", "--help"],
    ["plugins"],
    ["parts"],
    ["recipes"],
    ["parts", "loss/kl"],
    ["schema"],
    ["list"],
    ["run", "--help"],
]


def output_of(program):
    """What a Python program prints, which must end well."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_of_the_core_is_found_without_any_plugin():
    program = (
        "import sys\n"
        "from vgx.cli import run_program\n"
        "code = run_program(['run', '--help'])\n"
        "assert not {'vgx_builtin', 'vgx_report'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    output_of(program)


def test_help_loads_the_plugins_without_their_parts():
    program = (
        "import sys\n"
        "from vgx.cli import run_program\n"
        "code = run_program(['--help'])\n"
        "assert {'vgx_builtin', 'vgx_report.commands'} <= set(sys.modules)\n"
        "found = [name for name in sys.modules if name.startswith(('vgx_builtin.', 'numpy'))]\n"
        "sys.exit(code or ', '.join(found) or 0)\n"
    )
    assert "sweep" in output_of(program)


def test_looking_imports_nothing_heavy():
    """One process for all commands: the first one that imports something heavy is named."""
    program = (
        "import sys\n"
        "from vgx.cli import run_program\n"
        "heavy = {'torch', 'torchvision', 'timm', 'datasets', 'matplotlib'}\n"
        f"for arguments in {LOOKING!r}:\n"
        "    code = run_program(arguments)\n"
        "    if code or heavy & set(sys.modules):\n"
        "        sys.exit(f'{arguments}: {code}, imported {heavy & set(sys.modules)}')\n"
    )
    output_of(program)


LOSSES = [part for part in parts() if part.kind == "loss"]
OF_PIXELS = {"cutmix-consistency"}  # they want logits [B, 1, 2H, W]


@pytest.mark.parametrize("part", LOSSES, ids=lambda part: part.type)
def test_a_loss_owns_no_optimizer_and_no_device(part):
    assert part.model_fields.keys() >= {"weight", "start", "name"}
    text = Path(sys.modules[part.__module__].__file__).read_text()
    assert not re.search(r"optim|\.device|\bcuda\b|\.cpu\(|\.to\(|no_grad", text)


def full_step(part):
    """A step with everything that there can be, three pictures of it, as this loss wants it."""

    def leaf(*shape):
        return torch.randn(3, *shape, generator=chance).requires_grad_()

    def judge(images):
        if part.type in OF_PIXELS:
            return vgx.Score(torch.cat([slope * images] * 2, 2).mean(1, keepdim=True), (images,))
        return vgx.Score((slope * images).mean((1, 2, 3)).view(-1, 1), (images,))

    places = (128, 64) if part.type in OF_PIXELS else (2, 2)
    chance = torch.Generator().manual_seed(0)
    # A few scales of a picture's structure need 64 pixels.
    logits, prior, slope = leaf(3, 64, 64), leaf(3, 64, 64), leaf()[0]
    latent = latent_of(part)
    posterior = vgx.Gaussian(leaf(*latent), leaf(*latent))
    calls = Networks(vgx.ImageSpec(64), vgx.LatentSpec(latent)).calls()
    if part.type in SPATIAL:
        calls |= {"decode": lambda z: painted(z).sigmoid(), "decode_logits": painted}
    if book := {"vq": "learned", "bit-entropy": "corners"}.get(part.type):
        posterior = Quantised(leaf(6), leaf(6), torch.zeros(3, dtype=torch.long), book)
    return vgx.Step(
        number=5,
        progress=0.5,
        real=torch.rand(3, 3, 64, 64, generator=chance),
        posterior=posterior,
        z=leaf(*latent),
        prior_z=leaf(*latent).detach(),
        **calls,
        recon=logits.sigmoid(),
        recon_logits=logits,
        prior=prior.sigmoid(),
        real_score=vgx.Score(leaf(1, *places), (leaf(5, 2, 2),)),
        # Of reconstructions, and then of decoded noise.
        fake_score=vgx.Score(
            torch.cat([leaf(1, *places), leaf(1, *places)]),
            (torch.cat([leaf(5, 2, 2), leaf(5, 2, 2)]),),
        ),
        discriminator=judge,
        fakes=("recon", "prior"),
    )


def built(part):
    """A fresh one, with the weights that a run's seed would draw."""
    with rng.ambient(0, "weights"):
        made = part(**SMALL.get(part.type, {})).untrained()
        return made.build(vgx.ImageSpec(64), vgx.LatentSpec(latent_of(part)))


# Losses that want spatial latents, and smaller networks than by default.
SPATIAL = ("alignment", "equivariance")
SMALL = {name: {"backbone": "test_resnet"} for name in ("alignment", "perceptual")}


def latent_of(part):
    return (4, 2, 2) if part.type in SPATIAL else (6,)


def painted(z):
    """Logits of latents: pictures of 64 pixels, or of 32 for each place of a spatial latent."""
    if z.dim() == 2:
        return z[:, :3, None, None].expand(-1, -1, 64, 64)
    return z[:, :3].repeat_interleave(32, 2).repeat_interleave(32, 3)


@pytest.mark.parametrize("part", LOSSES, ids=lambda part: part.type)
def test_a_loss_is_a_scalar_that_depends_on_the_step_alone(part):
    step = full_step(part)
    before = dict(vars(step))
    asked = built(part)
    halves = [name for name in ("generator", "discriminator") if has_term(asked, name)]
    said = {name: getattr(asked, name)(step) for name in halves}
    assert said
    for name, value in said.items():
        assert value.shape == ()
        assert value.isfinite()
        assert value.requires_grad  # it reaches somebody
        assert torch.equal(value, getattr(built(part), name)(step))
        value.backward(retain_graph=True)
    assert all(vars(step)[name] is value for name, value in before.items())


# An unbiased estimate leaves out what a latent has in common with itself, but not with its double.
# The others draw other numbers for the double, or for more images.
DRAWN = (
    "mmd", "density-ratio-tc", "soft-intro-encoder", "iwae", "path-length", "cutmix-consistency",
)  # fmt: skip
MEANS = [part for part in LOSSES if part.type not in DRAWN]


@pytest.mark.parametrize("part", MEANS, ids=lambda part: part.type)
def test_a_loss_is_a_mean_over_the_batch(part):
    """The same pictures twice are no larger a loss."""
    once = full_step(part)
    given = dict(vars(once))
    kinds = {name: 2 if name == "fake_score" else 1 for name in given}
    twice = vgx.Step(**{name: doubled(value, kinds[name]) for name, value in given.items()})
    for name in [name for name in ("generator", "discriminator") if has_term(built(part), name)]:
        one, two = (getattr(built(part), name)(step) for step in (once, twice))
        assert torch.allclose(one, two)


def doubled(value, kinds=1):
    """The same pictures once more, those of each kind together."""
    if isinstance(value, torch.Tensor):
        return torch.cat([piece for part in value.chunk(kinds) for piece in (part, part)])
    if isinstance(value, vgx.Gaussian | Quantised):
        return type(value)(*(doubled(getattr(value, f.name)) for f in dataclasses.fields(value)))
    if isinstance(value, vgx.Score):
        features = tuple(doubled(feature, kinds) for feature in value.features)
        return vgx.Score(doubled(value.logits, kinds), features)
    return value
