"""The rules of the house, held by tests: docs/design.md says why."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import vgx

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "framework" / "vgx").rglob("*.py"))
BOX = sorted((ROOT / "plugins" / "vgx_builtin").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

# From bottom to top: a module imports only what stands above it in this list.
LAYERS = [
    "errors", "step", "components", "hooks", "registry", "yamlfile", "recipe", "schema", "keys",
    "rundir", "checkpoint", "data", "engine", "check", "sampling", "voice", "training", "cli",
    "__main__",
]  # fmt: skip


def module(path):
    """errors, or cli for everything under cli/."""
    parts = path.relative_to(ROOT / "framework" / "vgx").with_suffix("").parts
    return parts[0]


def imported(path):
    """Every module of vgx that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "vgx":
                names |= {alias.name for alias in node.names}
            elif node.module.startswith("vgx."):
                names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vgx.")
            }
    return names


def code_lines(path):
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    text = path.read_text()
    strings = {
        line
        for node in ast.walk(ast.parse(text))
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
    return len(lines - strings)


@pytest.mark.parametrize("path", [p for p in CORE if p.name != "__init__.py"], ids=module)
def test_the_core_imports_only_downwards(path):
    here = LAYERS.index(module(path))
    allowed = set(LAYERS[: here + 1] if module(path) == "cli" else LAYERS[:here])
    assert imported(path) - allowed - {"__version__"} == set()


def test_every_module_of_the_core_has_a_layer():
    assert {module(path) for path in CORE} - {"__init__"} == set(LAYERS)


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.name)
def test_the_core_knows_no_plugin(path):
    assert "builtin" not in path.read_text()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            assert bases.isdisjoint({"nn.Module", "Module", "torch.nn.Module"}), node.name


@pytest.mark.parametrize("path", [*CORE, *BOX], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_module_has_state_that_changes(path):
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for name in [t.id for t in targets if isinstance(t, ast.Name)]:
            mutable = isinstance(
                node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp
            ) or (
                isinstance(node.value, ast.Call)
                and ast.unparse(node.value.func) in ("dict", "list", "set", "defaultdict")
            )
            # Tables in capitals are constants.
            assert not mutable or name.strip("_").isupper(), name


@pytest.mark.parametrize("path", [*CORE, *BOX], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_nothing_executes_what_it_reads(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names}.isdisjoint({"pickle", "dill", "marshal"})
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "torch.load", "yaml.load", "pickle.loads"), called


@pytest.mark.parametrize("path", [*CORE, *BOX], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_duck_is_asked_whether_it_quacks(path):
    text = path.read_text()
    assert "hasattr(" not in text
    supers = re.findall(r"super\(\)\.(\w+)", text)
    assert set(supers) <= {"__init__", "__init_subclass__"}


def test_the_core_fits_its_budget():
    """About 2,500 lines of code; a tenth more is the most."""
    assert sum(code_lines(path) for path in CORE) < 2750


@pytest.mark.parametrize("path", BOX, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_part_fits_its_budget(path):
    if path.name != "face_drawing.py":  # a drawing, not a part
        assert code_lines(path) <= 120


def parts():
    return [part for plugin in vgx.discover().plugins for part in plugin.parts]


@pytest.mark.parametrize("part", parts(), ids=lambda part: f"{part.kind}/{part.type}")
def test_every_part_and_every_field_is_documented(part):
    assert len(part.__doc__.split()) >= 4
    for name, field in part.model_fields.items():
        assert field.description, name
    assert part.model_fields.keys() == part.model_json_schema()["properties"].keys() - {"type"}


def test_every_field_of_a_recipe_is_documented():
    from vgx.recipe import Optimizer, Optimizers, Recipe, Train

    for model in (Recipe, Train, Optimizers, Optimizer, vgx.Schedule):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_says_what_it_is_and_round_trips(path, tmp_path):
    assert path.read_text().startswith("# ")
    recipe = vgx.load_recipe(path)
    (tmp_path / "again.yaml").write_text(vgx.dump_recipe(recipe))
    assert vgx.load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["parts"], ["run", "--help"]])
def test_looking_imports_nothing_heavy(arguments):
    program = (
        "import sys\n"
        "from vgx.cli import run_program\n"
        f"code = run_program({arguments!r})\n"
        "heavy = {'torch', 'torchvision', 'timm', 'datasets', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_loss_is_a_function_of_the_step():
    for part in parts():
        if part.kind == "loss":
            assert part.model_fields.keys() >= {"weight", "start", "name"}
            assert "optimizer" not in Path(sys.modules[part.__module__].__file__).read_text()
