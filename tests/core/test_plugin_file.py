"""A plugin file is imported from the bytes that were hashed: no bytecode, no second reading."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
import py_compile
import sys
import traceback
from pathlib import Path

import pytest

import vgx
from vgx.parts import plugin_file
from vgx.parts.plugin_file import PluginFile, files_in

PART = '''
import vgx

class Mine(vgx.Loss, type="mine"):
    """A loss."""

    def generator(self, step):
        return (step.recon - step.real).abs().mean() * {factor}

VALUE = {factor}

@vgx.hookimpl
def register_components(register):
    register(Mine)
'''


def imported(file):
    """The module that `discover` makes of a plugin file, and the version that it notes."""
    (plugin,) = vgx.discover([file]).plugins[-1:]
    return sys.modules[plugin.parts[0].__module__], plugin.version


def write(file, factor, times=None):
    file.write_text(PART.format(factor=factor))
    if times:
        os.utime(file, ns=times)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def edited(file):
    """A file that is imported, edited within its size and time, and imported again."""
    write(file, 1)
    before = file.stat()
    values = [imported(file)[0].VALUE]
    digest = write(file, 2, (before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file.stat().st_size == before.st_size
    module, version = imported(file)
    return [*values, module.VALUE], version == digest


@pytest.mark.bar("S7")
def test_an_edit_within_size_and_time_runs_the_new_code(tmp_path):
    assert edited(tmp_path / "mine.py") == ([1, 2], True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]  # no bytecode is written


def ordinary_load(file):
    """Import a file as Python does it, through its bytecode."""
    spec = importlib.util.spec_from_file_location(file.module_name, file.path)
    module = sys.modules[file.module_name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.bar("S7", control="imported by Python's own loader: the old code runs")
def test_the_old_code_would_be_noticed(tmp_path, monkeypatch, record_property):
    monkeypatch.setattr(PluginFile, "load", ordinary_load)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    values, _ = edited(tmp_path / "mine.py")
    assert values == [1, 1]
    record_property("seen", "1 after an edit to 2")


def bytecode(file, text, mode):
    """Leave the bytecode of another program where Python looks for that of a file."""
    other = file.with_name("other.txt")
    other.write_text(text)
    about = file.stat()
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    place = importlib.util.cache_from_source(file)
    py_compile.compile(other, place, str(file), doraise=True, invalidation_mode=mode)
    if mode is py_compile.PycInvalidationMode.TIMESTAMP:  # with the size of the true file
        with Path(place).open("r+b") as cached:
            cached.seek(12)
            cached.write(about.st_size.to_bytes(4, "little"))
    other.unlink()


@pytest.mark.bar("S7")
@pytest.mark.parametrize("mode", [*py_compile.PycInvalidationMode], ids=lambda mode: mode.name)
def test_bytecode_beside_a_file_is_never_executed(tmp_path, mode):
    file = tmp_path / "mine.py"
    write(file, 1)
    bytecode(file, PART.format(factor=3), mode)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pyc")}
    assert len(before) == 1
    assert imported(file)[0].VALUE == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pyc")} == before


@pytest.mark.slow
@pytest.mark.bar("S7")
def test_the_copy_in_a_run_is_what_was_executed(tmp_path):
    """Also when the file is replaced while it is imported: it is read once."""
    file = tmp_path / "mine.py"
    replaces = f"from pathlib import Path\nPath({str(file)!r}).write_text('1 / 0')\n"
    text = PART.format(factor=1) + replaces
    file.write_text(text)
    settings = {"train.steps": 1, "losses.1": "mine"}
    registry = vgx.discover([file])
    assert file.read_text() == "1 / 0"
    run = vgx.run(vgx.load_recipe("recipes/tiny.yaml", settings, registry), registry=registry)
    assert (run.path / "plugins" / "mine.py").read_text() == text
    (noted,) = [p for p in run.environment()["plugins"] if p["name"] == "mine.py"]
    assert noted["version"] == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_tracebacks_and_sources_show_the_lines_that_were_executed(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def fails():\n    return 1 / 0\n" + PART.format(factor=1))
    module, _ = imported(file)
    assert module.__file__ == str(file)
    file.write_text("nothing of it\n" * 40)
    with pytest.raises(ZeroDivisionError) as caught:
        module.fails()
    shown = "".join(traceback.format_exception(caught.value))
    assert f'File "{file}", line 2, in fails\n    return 1 / 0\n' in shown
    assert inspect.getsource(module.Mine).startswith('class Mine(vgx.Loss, type="mine"):')


def test_the_encoding_that_a_file_declares_holds(tmp_path):
    file = tmp_path / "mine.py"
    text = "# -*- coding: latin-1 -*-\nNAME = 'ä'\n" + PART.format(factor=1)
    file.write_bytes(text.encode("latin-1"))
    module, _ = imported(file)
    assert module.NAME == "ä"
    assert "NAME = 'ä'" in inspect.getsource(module)


# --- what a run's folder may contain -------------------------------------------------------------


def test_files_are_sorted_and_others_are_not_read(tmp_path):
    for name in ("b.py", "a.py", "notes.txt", "c.pyc", "D.PY"):
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "__pycache__").mkdir()
    os.mkfifo(tmp_path / "__pycache__" / "a.cpython-311.pyc")
    (tmp_path / "package").mkdir()
    assert [file.path.name for file in files_in(tmp_path)] == ["a.py", "b.py"]
    assert files_in(tmp_path / "none") == []


@pytest.mark.parametrize("kind", ["hidden", "link", "lost", "folder", "pipe", "large", "many"])
def test_what_no_run_contains_is_refused(tmp_path, kind, monkeypatch):
    folder = tmp_path / "plugins"
    folder.mkdir()
    file = folder / (".x.py" if kind == "hidden" else "x.py")
    match kind:
        case "hidden":
            file.write_text("")
        case "link" | "lost":
            file.symlink_to(__file__ if kind == "link" else "nowhere.py")
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "large":
            file.write_bytes(b"#" * (plugin_file.MOST + 1))
        case "many":
            monkeypatch.setattr(plugin_file, "MOST_FILES", 2)
            for number in range(3):
                (folder / f"x{number}.py").write_text("")
    with pytest.raises(vgx.PluginError, match=r"hidden|no regular file|at most"):
        files_in(folder)


def test_a_folder_that_is_a_link_or_a_file_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "plugins").symlink_to(tmp_path / "other")
    with pytest.raises(vgx.PluginError, match="a link"):
        files_in(tmp_path / "plugins")
    (tmp_path / "file").write_text("")
    with pytest.raises(vgx.PluginError, match="Not a directory"):
        files_in(tmp_path / "file")


def test_a_name_breaks_no_line_of_a_message(tmp_path):
    (tmp_path / "x\nvgx: all is well \x1b[2J.py").write_text("")
    (file,) = files_in(tmp_path)
    assert file.line.isprintable()
    assert json.dumps(file.line)
