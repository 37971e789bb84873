"""The source of a part of a cell: what it imports, and where it stands."""

from __future__ import annotations

import linecache
import sys
from types import ModuleType

import pytest

from vgx.errors import PluginError
from vgx.notebook import defined

PART = """class Cell:
    def generator(self, step):
        return {used}
"""


@pytest.fixture
def source_of(monkeypatch):
    """Execute the text of a cell, and return the source that is kept for its class `Cell`."""

    def source(text):
        name = "<the cell>"
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
        program = ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", program)
        exec(compile(text, name, "exec"), vars(program))
        return defined._source([program.Cell])

    yield source
    linecache.cache.pop("<the cell>", None)


def test_a_class_in_an_if_or_a_try_is_kept(source_of):
    inside = "".join(f"    {line}\n" for line in PART.format(used="step").splitlines())
    for text in (f"if True:\n{inside}", f"try:\n{inside}finally:\n    pass\n"):
        assert f"\n\n{PART.format(used='step').rstrip()}\n" in source_of(text)


def test_a_module_in_a_package_is_imported_too(source_of):
    text = "import xml.dom.minidom\n" + PART.format(used="xml.dom.minidom.parseString(step)")
    kept = source_of(text)
    assert "import xml.dom.minidom\n" in kept
    compile(kept, "kept", "exec")


@pytest.mark.parametrize("place", [".", "elsewhere"])
def test_a_module_that_is_not_installed_is_refused(source_of, tmp_path, monkeypatch, place):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (folder / "my_helpers.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_helpers", raising=False)
    for text in (
        "import my_helpers\n" + PART.format(used="my_helpers.twice(step)"),
        "from my_helpers import twice\n" + PART.format(used="twice(step)"),
    ):
        with pytest.raises(PluginError, match="my_helpers, which is of no installed package"):
            source_of(text)
    monkeypatch.delitem(sys.modules, "my_helpers")


def test_packages_that_are_installed_are_kept(source_of):
    kept = source_of("import torch, json\n" + PART.format(used="torch.nn.functional.relu(json)"))
    assert "import torch\n" in kept
    assert "import json\n" in kept
