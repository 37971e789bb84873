"""Test the documentation: its code runs, its names exist, and its lists are complete."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from distributions import lay
from PIL import Image
from pydantic import TypeAdapter
from steps import batches

import vgx
from vgx.cli import COMMANDS as CORE_COMMANDS
from vgx.cli import program
from vgx.cli.plugin_commands import plugin_commands
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.engine.finite import Guard
from vgx.engine.forward import Forward
from vgx.engine.players import Player
from vgx.errors import PluginError, RecipeError, VgxError
from vgx.parts import kinds as components
from vgx.parts.base import fields_of
from vgx.recipe import schema
from vgx.recipe.library import find_recipe
from vgx.recipe.load import parse_settings
from vgx.recipe.model import CHANGEABLE, Optimizer, Recipe, Train
from vgx.sampling.draw import with_sampler

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
HUBER = EXAMPLES / "vgx-huber"
SPECTRA = EXAMPLES / "vgx-spectra"
LOSSES = EXAMPLES / "vgx-losses"
BEGAN = EXAMPLES / "vgx-began"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
RECIPE_PAGES = sorted((DOCS / "recipe").glob("*.md"))
# Where each kind of part that a recipe can name is described.
PAGE_OF = {
    "dataset": "dataset",
    "augmentation": "augment",
    "encoder": "encoder",
    "decoder": "decoder",
    "discriminator": "discriminator",
    "loss": "losses",
    "prior": "prior",
    "sampler": "sampler",
    "metric": "eval",
    "features": "eval",
    "tracker": "trackers",
}
FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^\n]+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def commands():
    """Return the commands of the core, of the plugins in the box and of the example."""
    core = {command.name: command for command in CORE_COMMANDS}
    offered = plugin_commands(vgx.discover([LOSSES / "vgx_losses.py"]).plugins, core)
    return core | {name: command for _, name, command in offered.offers}


COMMANDS = commands()
EXAMPLE = "losses"  # the command of the example


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    note: str  # the comment before it
    language: str
    text: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    for block in FENCE.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        yield Block(page, line, block["note"] or "", block["kind"], block["text"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(language, *pages):
    return [
        block for block in BLOCKS if block.language == language and block.page in (pages or PAGES)
    ]


def prose(page):
    """Return a page without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page):
    """Return the texts between backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def section(page, title):
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section '## {title}'"
    return found[1]


def table(text):
    """Return the cells of every table row that begins with a name in backticks."""
    rows = re.findall(r"^\| `.*\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def expected(rows):
    """Return the first three cells of the rows of `vgx parts`."""
    shown = [[f"`{name}`", value, default] for name, value, default, _ in rows]
    return [[n, v, d if d == "required" else f"`{d}`"] for n, v, d in shown]


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    """Work in the repository, write elsewhere, and leave no module of an example behind."""
    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(ROOT)
    before = set(sys.modules)
    yield
    packages = ("vgx_huber", "vgx_spectra", "vgx_losses", "vgx_began", "test_vgx_began", "shift")
    for name in set(sys.modules) - before:
        made = name.startswith(("vgx_plugin_file_", "doc_block_"))
        if made or name.partition(".")[0] in packages:
            del sys.modules[name]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make the example packages look as after `pip install -e`: their metadata on the path."""
    for package in (HUBER, SPECTRA, LOSSES, BEGAN):
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        name, version = project["name"], project["version"]
        lay(tmp_path / "site", name, version, project["entry-points"]["vgx"])
    for place in (EXAMPLES, HUBER, SPECTRA, LOSSES, BEGAN, tmp_path / "site"):
        monkeypatch.syspath_prepend(str(place))


@pytest.fixture
def one_thread():
    """Small tensors gain nothing from more threads, and lose much where cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- what is shown runs ------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
@pytest.mark.usefixtures("installed")
def test_every_recipe_shown_is_one(block, tmp_path):
    """A fragment is laid over the tiny recipe; a wrong one gives exactly the message shown."""
    for file in (ROOT / "recipes").glob("*.yaml"):
        shutil.copy(file, tmp_path)
    needed = {name for name, field in Recipe.model_fields.items() if field.is_required()}
    keys = set(re.findall(r"^(\w+):", block.text, re.MULTILINE))
    alone = "extends" in keys or needed <= keys
    wrong = block.note.startswith("wrong: ")
    file = tmp_path / (block.note.removeprefix("wrong: ") if wrong else "shown.yaml")
    file.write_text(block.text if alone else f"extends: tiny.yaml\n{block.text}")
    if not wrong:
        recipe = vgx.load_recipe(file)
        if block.note.startswith("recipes/"):
            assert recipe == vgx.load_recipe(ROOT / block.note.partition(",")[0])
        return
    with pytest.raises(RecipeError) as fault:
        vgx.load_recipe(file)
    shown = next(b.text for b in blocks("text", block.page) if b.line > block.line)
    assert f"vgx: {fault.value}\n".replace(f"{tmp_path}/", "") == shown


QUOTES = [b for b in BLOCKS if re.fullmatch(r"[\w/.-]+\.(py|toml|yaml)", b.note)]


@pytest.mark.parametrize("block", QUOTES, ids=str)
def test_a_quoted_file_is_the_file(block):
    root = DOCS if block.note.startswith("examples/") else ROOT
    assert block.text == (root / block.note).read_text()


def test_every_file_of_the_examples_is_quoted_or_linked():
    pages = [DOCS / "plugin-tutorial.md", DOCS / "from-a-paper.md"]
    shown = {(DOCS / block.note).resolve() for page in pages for block in blocks("python", page)}
    linked = [link for page in pages for link in re.findall(r"\]\(([^)\s]+\.py)\)", prose(page))]
    shown |= {(DOCS / link).resolve() for link in linked}
    assert {file for file in EXAMPLES.rglob("*.py") if "__pycache__" not in file.parts} <= shown


@pytest.mark.usefixtures("installed", "one_thread")
def test_the_python_of_every_page_runs(tmp_path, monkeypatch, capsys):
    """Each block is a module; what it has of tests is called as pytest would."""
    monkeypatch.chdir(tmp_path)  # where they write files
    for number, block in enumerate(blocks("python")):
        name = f"doc_block_{number}"
        file = HUBER / "test_vgx_huber.py" if block.note.endswith("test_vgx_huber.py") else None
        if file is None:
            file = tmp_path / f"{name}.py"
            file.write_text(block.text)
        spec = importlib.util.spec_from_file_location(name, file)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        run_tests(module)
    run = vgx.Run(tmp_path / "runs" / "0001-tiny")
    (shown,) = [json.loads(block.text) for block in BLOCKS if block.note == "log"]
    line = run.read_log()[-1]
    for part in (None, "losses", "rates", "grad_norm", "accuracy"):
        assert list(shown[part] if part else shown) == list(line[part] if part else line)
    assert capsys.readouterr().out


@pytest.mark.usefixtures("installed")
def test_the_tests_of_an_example_that_a_page_only_links_pass():
    run_tests(importlib.import_module("test_vgx_began"))


def run_tests(module):
    for function in [f for key, f in vars(module).items() if key.startswith("test_")]:
        for case in cases(function):
            function(**case)


def cases(function):
    marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    if not marks:
        return [{}]
    ((names, values),) = [mark.args for mark in marks]
    if isinstance(names, str):
        return [{names: value} for value in values]
    return [dict(zip(names, value, strict=True)) for value in values]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "file", [HUBER / "vgx_huber.py", *EXAMPLES.glob("[!t]*.py")], ids=lambda f: f.name
)
def test_an_example_trains_from_its_file(file):
    """As `--plugin` takes it: a step moves every weight, also those of a loss."""
    import torch

    from vgx.check.examine import examine
    from vgx.engine.engine import Engine

    registry = vgx.discover([file])
    (part,) = registry.plugins[-1].parts
    fields = {"augmentation": "augment.0", "loss": "losses.1"}
    field, given = fields.get(part.kind, part.kind), {"type": part.type}
    if "inner" in part.model_fields:
        given["inner"] = {"type": "conv-transpose", "widths": [16, 8]}
    recipe = vgx.load_recipe("recipes/tiny.yaml", {field: given}, registry)
    engine = Engine(recipe, steps=2)
    real = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    examine(engine, registry, Batch(real))
    before = {p: p.clone() for network in engine.networks.values() for p in network.parameters()}
    engine.step(0, batches(real))
    assert all(not torch.equal(parameter, old) for parameter, old in before.items())


@pytest.mark.usefixtures("installed")
def test_an_installed_example_is_found_and_a_clash_is_told():
    registry = vgx.discover()
    assert ("vgx-huber", "1.0.0") in {(p.distribution, p.version) for p in registry.plugins}
    vgx.load_recipe("recipes/tiny.yaml", {"losses.1": "huber"}, registry)
    both = vgx.discover([HUBER / "vgx_huber.py"])
    (message,) = [block.text.strip() for block in BLOCKS if block.note == "clash"]
    with pytest.raises(RecipeError, match=re.escape(message)):
        vgx.load_recipe("recipes/tiny.yaml", {"losses.1": "huber"}, both)
    for name in re.findall(r"'([^']+:huber)'", message):
        vgx.load_recipe("recipes/tiny.yaml", {"losses.1": name}, both)


@pytest.mark.usefixtures("installed")
def test_the_command_of_the_example_is_found_and_works(tmp_path, capsys):
    from vgx.cli import run_program

    run = vgx.Run(tmp_path / "0001-a")
    run.path.mkdir()
    run.log({"step": 1, "losses": {"l1": 0.5}})
    run.log({"step": 2, "losses": {"l1": 0.123456, "kl": 2.0}})
    assert run_program(["losses", str(run.path)]) == 0
    assert capsys.readouterr().out == "l1 0.1235\nkl 2\n"
    assert run_program(["--help"]) == 0
    assert "Print the last losses of the run in FOLDER." in capsys.readouterr().out
    (shown,) = [block.text for block in BLOCKS if block.note == "plugins of vgx-losses"]
    assert run_program(["plugins"]) == 0
    assert shown in capsys.readouterr().out


# --- what is named exists ----------------------------------------------------------------------


def slugs(page):
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in slugs(target), f"{page.name}: {link}"


def shell_commands():
    """Return (block, words) of every `vgx` command line in the pages' blocks."""
    for block in blocks("sh"):
        for line in block.text.splitlines():
            for part in line.split(" && "):
                words = shlex.split(part.partition(" > ")[0], comments=True)
                if words and words[0] == "vgx":
                    yield block, words[1:]


def options(command):
    return {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_named_in_text_exists(page):
    every = options(program).union(*map(options, COMMANDS.values()))
    for span in spans(page):
        words = span.split()
        if words[0] == "vgx" and len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in COMMANDS, span
            assert {w for w in words[2:] if w.startswith("-")} <= options(COMMANDS[words[1]]), span
        elif words[0] == "vgx" or words[0].startswith("--"):
            assert {w.partition("=")[0] for w in words if w.startswith("-")} <= every, span


def test_the_readme_trains_the_quickstart_longer():
    """A run that is done refuses fewer steps than it has."""
    (steps,) = re.findall(
        r"vgx run --resume 1 --set train\.steps=(\d+)", (ROOT / "README.md").read_text()
    )
    assert int(steps) > vgx.load_recipe("quickstart").train.steps


@pytest.mark.usefixtures("installed")
def test_every_command_shown_would_run(tmp_path):
    """click takes its words, its files exist, its recipe loads, its parts are there."""
    images = tmp_path / "images"  # for every --data
    images.mkdir()
    Image.new("RGB", (16, 16)).save(images / "0.png")
    seen = set()
    for block, words in shell_commands():
        if words[0].startswith("-"):
            assert set(words) <= options(program), str(block)
            continue
        assert words[0] in COMMANDS, str(block)
        seen.add(words[0])
        given = COMMANDS[words[0]].make_context(words[0], words[1:]).params
        where = HUBER if "recipe.yaml" in words or "vgx_huber.py" in words else ROOT
        registry = vgx.discover([where / file for file in given.get("plugins", ())])
        # A file that is also installed would clash; each command shown needs only one of them.
        if given.get("plugins"):
            registry = vgx.Registry(
                tuple(p for p in registry.plugins if p.distribution != "vgx-huber")
            )
        base = find_recipe(given.get("recipe") or "tiny", where)
        data = given.get("data") and str(images)
        recipe = vgx.load_recipe(base, given.get("overrides", ()), registry, data)
        if words[0] == "sample":
            settings = parse_settings(given["settings"])
            with_sampler(recipe, given["sampler"], settings, registry)
        if given.get("which"):
            kind, _, name = given["which"].partition("/")
            assert registry.offers(kind)
            assert not name or registry.part(kind, name)
    assert seen == set(COMMANDS)


def test_paths_shown_exist():
    pattern = re.compile(r"(?:recipes|docs/examples|benchmarks|framework|plugins|tests)/[\w./-]*\w")
    for page in PAGES:
        for path in pattern.findall(page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_methods_in_the_design_exist():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    shown = re.findall(r"`(Engine|Forward|Guard|Player)\.(\w+)", text)
    assert len(shown) >= 5
    classes = {cls.__name__: cls for cls in (Engine, Forward, Guard, Player)}
    assert [
        (name, attribute) for name, attribute in shown if not hasattr(classes[name], attribute)
    ] == []


def test_the_readme_has_the_two_lines():
    lines = [line for b in blocks("sh", ROOT / "README.md") for line in b.text.splitlines()]
    assert "pip install -e . && vgx run quickstart" in lines
    assert "pip install -e '.[test]' && pytest -n auto" in lines


# --- what is listed is all ---------------------------------------------------------------------


def builtin_parts():
    for kind in PAGE_OF:
        for plugin, part in vgx.discover().offers(kind):
            if plugin.distribution == "vgx":
                yield pytest.param(kind, part, id=f"{kind}-{part.type}")


@pytest.mark.parametrize(("kind", "part"), list(builtin_parts()))
def test_a_built_in_part_is_described_as_it_is(kind, part):
    bases = {"loss": components.Loss, "dataset": components.Dataset, "prior": components.Prior}
    common = fields_of(bases[kind]) if kind in bases else {}
    rows = [row for row in schema.fields(part) if row[0] not in common]
    text = section(DOCS / "recipe" / f"{PAGE_OF[kind]}.md", part.type)
    assert [row[:3] for row in table(text)] == expected(rows)


@pytest.mark.parametrize("kind", PAGE_OF)
def test_no_part_is_described_that_is_not_there(kind):
    beside = [other for other, page in PAGE_OF.items() if page == PAGE_OF[kind]]
    types = {part.type for other in beside for _, part in vgx.discover().offers(other)}
    titles = re.findall(
        r"^## (\S+)$", (DOCS / "recipe" / f"{PAGE_OF[kind]}.md").read_text(), re.MULTILINE
    )
    assert {title for title in titles if title.islower()} <= types


def test_every_field_of_every_loss_is_described():
    rows = schema.fields(vgx.discover().part("loss", "l1"))
    page = DOCS / "recipe" / "losses.md"
    assert [row[:3] for row in table(section(page, "Every loss"))] == expected(rows)
    rows = schema.fields(vgx.Schedule)
    assert [row[:3] for row in table(section(page, "Schedules"))] == expected(rows)


def test_every_field_of_every_data_set_is_described():
    rows = schema.fields(vgx.discover().part("dataset", "drawn-faces"))
    rows = [row for row in rows if row[0] in components.Dataset.model_fields]
    page = DOCS / "recipe" / "dataset.md"
    assert [row[:3] for row in table(section(page, "Every data set"))] == expected(rows)


def test_every_field_of_every_prior_is_described():
    rows = schema.fields(vgx.discover().part("prior", "transformer"))
    rows = [row for row in rows if row[0] in components.Prior.model_fields]
    page = DOCS / "recipe" / "prior.md"
    assert [row[:3] for row in table(section(page, "Every prior"))] == expected(rows)


def test_every_field_of_train_is_described():
    page = DOCS / "recipe" / "train.md"
    own, inner = expected(schema.fields(Train)), expected(schema.fields(Optimizer))
    shown = [row[:3] for row in table(page.read_text())]
    own = [[n, v, "see below" if n == "`optimizers`" else d] for n, v, d in own]
    assert sorted(shown) == sorted([*own, *inner])


def test_every_field_of_image_is_described():
    page = (DOCS / "recipe" / "image.md").read_text()
    described = TypeAdapter(vgx.ImageSpec).json_schema()["properties"]
    assert [row[0].strip("`") for row in table(page)] == list(described)
    for row in table(page):
        field = described[row[0].strip("`")]
        default = f"`{field['default']}`" if "default" in field else "required"
        assert row[1:3] == [schema.type_in_words(field), default]


def test_every_field_of_a_recipe_has_its_page():
    names = [*Recipe.model_fields, "extends"]
    index = (DOCS / "recipe" / "index.md").read_text()
    assert re.findall(r"^\| \[`(\w+)`\]\(\1\.md\)", index, re.MULTILINE) == names
    assert {page.stem for page in RECIPE_PAGES} == {*names, "index"}
    for page in RECIPE_PAGES:
        assert blocks("yaml", page), f"{page.name} has no example"
        if page.stem != "index":
            assert page.read_text().startswith(f"# {page.stem}\n")


def test_exit_codes_and_changeable_fields_are_those_of_the_code():
    text = (DOCS / "runs.md").read_text()
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    kinds = (VgxError, *VgxError.__subclasses__())
    assert codes == {0, 129, 130, 138, 143, *(kind.exit_code for kind in kinds)}
    listed = text.partition("<!-- changeable -->")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([\w.]+)`", listed)) == set(CHANGEABLE)


def test_the_audits_table_is_what_a_check_prints(capsys):
    """Which term moves which network; the numbers are another machine's."""
    from vgx.cli import run_program

    assert run_program(["check", "recipes/tiny.yaml"]) == 0
    printed = capsys.readouterr().out
    shown = next(block.text for block in blocks("text", DOCS / "audit.md"))
    rows = [line.split() for line in shown.splitlines()]
    printed_rows = [line.split() for line in printed[printed.index("gradient norm") :].splitlines()]
    assert printed_rows[0] == rows[0]
    for cells, row in zip(printed_rows[1 : len(rows)], rows[1:], strict=True):
        assert cells[0] == row[0]
        assert [cell == "-" for cell in cells] == [cell == "-" for cell in row]
        numbers = [
            (float(a), float(b)) for a, b in zip(cells[1:], row[1:], strict=True) if a != "-"
        ]
        assert all(a == pytest.approx(b, rel=0.05) for a, b in numbers)


def test_every_finding_of_the_audit_is_explained():
    checks = (ROOT / "framework" / "vgx" / "check").glob("*.py")
    code = "".join(path.read_text() for path in checks)
    names = set(re.findall(r'Finding\(\s*f?"([\w-]+):', code))
    explained = set(re.findall(r"^\| `([\w-]+):", (DOCS / "audit.md").read_text(), re.MULTILINE))
    assert names == explained


def test_the_tutorial_names_every_kind_and_all_that_a_step_has():
    tutorial = DOCS / "plugin-tutorial.md"
    kinds = re.findall(
        r"^\| (\w+) \| `vgx\.(\w+)` \|", section(tutorial, "The kinds"), re.MULTILINE
    )
    assert kinds == [(kind.kind, kind.__name__) for kind in components.KINDS]
    named = re.findall(r"`(\w+)`", section(tutorial, "What a loss may read"))
    assert {field.name for field in fields(vgx.Step)} <= set(named)


def test_the_changelog_names_every_command_recipe_and_part():
    text = (ROOT / "CHANGELOG.md").read_text()
    for command in COMMANDS.keys() - {EXAMPLE}:
        assert f"`vgx {command}`" in text
    parts = [part.values[1].type for part in builtin_parts()]
    for name in [*parts, *(file.stem for file in (ROOT / "recipes").glob("*.yaml"))]:
        assert f"`{name}`" in text, name


# --- what the design says of the code ----------------------------------------------------------


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda f: f.stem)
def test_a_recipe_is_complete_and_reads_back_what_it_writes(file, tmp_path):
    recipe = vgx.load_recipe(file)
    written = tmp_path / "recipe.yaml"
    written.write_text(vgx.dump_recipe(recipe))
    assert vgx.load_recipe(written) == recipe


def test_the_command_line_is_there_before_torch_is():
    code = "import sys; from vgx.cli import run_program; run_program(['--help']); "
    code += "sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode
        == 0
    )


def test_an_unknown_part_beside_a_broken_plugin_is_a_plugin_error():
    broken = vgx.Plugin("far", "1", "far", failure="ImportError: no such thing")
    registry = vgx.Registry((*vgx.discover().plugins, broken))
    with pytest.raises(PluginError, match="ImportError: no such thing"):
        vgx.load_recipe("recipes/tiny.yaml", {"losses.1": "quantile"}, registry)
    with pytest.raises(RecipeError):
        vgx.load_recipe("recipes/tiny.yaml", {"losses.1": "hing"}, registry)


def test_published_methods_have_their_parts_recipes_and_tests():
    text = (DOCS / "published-methods.md").read_text()
    rows = re.findall(r"^\| (?!method|---)(.*) \|$", text, re.MULTILINE)
    assert len(rows) > 40
    parts_there = [part for plugin in vgx.discover().plugins for part in plugin.parts]
    there = {f"{part.kind}/{part.type}" for part in parts_there}
    named = set()
    for row in rows:
        _, parts, recipes, _, link = row.split(" | ")
        assert {*re.findall(r"`(.*?)`", parts)} <= there, row
        test, file = re.fullmatch(r"\[`(test_\w+)`\]\(\.\./(.*)\)", link).groups()
        assert f"\ndef {test}(" in (ROOT / file).read_text(), row
        named |= {*re.findall(r"`(.*?)`", recipes)}
    papers = {
        path.stem for path in (ROOT / "recipes").glob("*.yaml")
        if "hanged from the original" in path.read_text()
    }  # fmt: skip
    assert papers <= named
