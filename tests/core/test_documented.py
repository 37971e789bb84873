"""Docstrings below fields are read as pydantic reads them, but not before their first use."""

from __future__ import annotations

import importlib
import inspect
import linecache
import subprocess
import sys
from pathlib import Path

import pytest

from vgx.parts.documented import field_docstrings

SOURCE = '''
from __future__ import annotations

from functools import total_ordering
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
BASE


class Inner(Base):
    """A value."""

    start: Annotated[float, Field(alias="from")]
    """Where it begins."""
    bare: int = 0


class Inner(Base):
    """Another value of the same name."""

    start: Annotated[float, Field(alias="from")]
    """Where it begins,
    on two lines."""
    bare: int = 0
    "one line"
    shared: ClassVar[int] = 1
    """No field."""


@total_ordering
class Outer(
    Inner,
):
    """What contains others."""

    inner: Inner
    """The inner one."""
    bare: int = 2
    """Said anew."""
    named: Annotated[int, Field(description="Said at once.")] = 3
    """Said below."""

    def __lt__(self, other):
        return True


def made():
    class Nested(Base):
        """A class
of a function."""

        x: int = 0
        """A field
of two lines."""

    return Nested


Nested = made()
'''
PLAIN = """

class Base(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)
"""
OURS = "from vgx.parts.documented import Documented as Base"


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(name, base):
        (tmp_path / f"{name}.py").write_text(SOURCE.replace("BASE", base))
        return importlib.import_module(name)

    return made


def test_a_schema_describes_fields_as_that_of_pydantic_does(module):
    ours, plain = module("documented_by_vgx", OURS), module("documented_by_pydantic", PLAIN)
    expected = plain.Outer.model_json_schema()
    assert expected["properties"]["from"]["description"] == "Where it begins,\non two lines."
    assert expected["properties"]["named"]["description"] == "Said at once."
    assert ours.Outer.model_json_schema() == expected
    assert ours.Nested.model_json_schema() == plain.Nested.model_json_schema()


@pytest.mark.parametrize(
    "text", [None, "", "x = (\n" * 80, "class Other:\n    y: int\n    'y'\n" * 30]
)
def test_a_class_whose_source_is_lost_has_no_docstrings(module, text, tmp_path):
    """Its file was deleted, or changed after the import."""
    name = f"documented_{len(text or '')}_{text is None}"
    ours = module(name, OURS).Outer
    file = Path(inspect.getfile(ours))
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    linecache.clearcache()
    assert field_docstrings(ours) == {}
    assert "description" not in ours.model_json_schema()["properties"]["inner"]


def test_a_start_reads_the_source_of_hardly_a_class():
    program = (
        "import inspect, vgx\n"
        "read, getblock = [], inspect.getblock\n"
        "inspect.getblock = lambda lines: read.append(lines[0]) or getblock(lines)\n"
        "assert len(vgx.discover().plugins[0].parts) > 50\n"
        "assert len(read) < 5, read\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
