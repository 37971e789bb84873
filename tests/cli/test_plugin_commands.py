"""Commands of plugins: found behind those of the core, and each fault costs as little as it can."""

from __future__ import annotations

import re

import pytest

import vgx
from vgx.cli import COMMANDS, program

HELLO = """
import click
import vgx


@vgx.hookimpl
def register_commands(cli):
    @cli.command()
    @click.option("--name", default="you")
    def hello(name):
        "Greet somebody."
        click.echo(f"hello {name}")
"""
PART = '''

class Dark(vgx.Loss, type="dark"):
    """Mean brightness."""

    def generator(self, step):
        return step.recon.mean()


@vgx.hookimpl
def register_components(register):
    register(Dark)
'''


def test_a_plugin_adds_a_command(install, vgx_here):
    install("greeter", HELLO)
    assert vgx_here("hello", "--name", "world") == (0, "hello world\n", "")
    code, out, _ = vgx_here("--help")
    assert code == 0
    names = re.findall(r"^│ ([a-z][\w-]+) ", out, re.MULTILINE)
    core = [command.name for command in COMMANDS]
    assert names[: len(core)] == core  # plugins come after the core
    assert {"hello", "report"} <= set(names[len(core) :])
    assert "Greet somebody." in vgx_here("hello", "--help")[1]
    assert vgx_here("hello", "--nmae", "x")[0] == 2


def test_a_command_line_leaves_nothing_behind_for_the_next_one(install, vgx_here):
    before = dict(program.commands)
    install("greeter", HELLO)
    assert vgx_here("hello")[0] == vgx_here("--help")[0] == vgx_here("hello")[0] == 0
    assert program.commands == before
    assert list(before) == [command.name for command in COMMANDS]


def test_the_plugins_are_listed_with_their_commands_and_hooks(install, vgx_here):
    install("greeter", HELLO + PART)
    out = vgx_here("plugins")[1]
    assert (
        "greeter-plugin  (greeter 1.0)\n  loss: dark\n  commands: hello\n"
        "  hooks: register_components, register_commands\n"
    ) in out
    assert (
        "  commands: report, watch, compare, explain\n"
        "  hooks: register_commands, run_ended, run_evaluated\n" in out
    )


@pytest.mark.bar("X1")
def test_commands_that_cannot_be_registered_cost_no_part_and_no_other_command(install, vgx_here):
    install("clumsy", HELLO + "    raise SystemExit(0)\n" + PART)
    install("greeter", HELLO)
    assert vgx_here("hello")[:2] == (0, "hello you\n")
    assert vgx.discover().part("loss", "dark")
    code, out, _ = vgx_here("plugins")
    assert code == 0
    assert "clumsy-plugin  (clumsy 1.0)  failed: SystemExit: 0\n  loss: dark\n  hooks: " in out


@pytest.mark.bar("X2")
def test_a_command_of_the_core_is_never_replaced(install, vgx_here):
    install("greedy", HELLO.replace("def hello", "def schema") + HELLO.split("\n\n\n")[1].replace(
        "@vgx.hookimpl\ndef register_commands(cli):\n", "\n"
    ))  # fmt: skip
    code, out, _ = vgx_here("schema")
    assert code == 0
    assert out.startswith("{")
    out = vgx_here("plugins")[1]
    assert "failed: vgx has commands of its own with the names schema" in out
    assert "  commands: hello\n" in out
    assert vgx_here("hello")[0] == 0


@pytest.mark.bar("X2")
def test_two_commands_of_one_name_are_never_chosen_between(install, vgx_here):
    install("one", HELLO)
    install("two", HELLO)
    message = (
        "more than one plugin offers the command 'hello': one-plugin of one and two-plugin of two"
    )
    for words in (["hello"], ["hello", "--name", "x"], ["hello", "--help"]):
        code, out, err = vgx_here(*words)
        assert (code, out) == (3, "")
        assert message in err
    assert message in vgx_here("plugins")[1]
    assert vgx_here("--help")[0] == 0
    assert vgx_here("report", "--help")[0] == 0


@pytest.mark.bar("X1")
def test_an_unknown_command_names_the_plugin_that_failed(install, vgx_here):
    code, _, err = vgx_here("hello")
    assert code == 2
    assert "No such command" in err
    install("broken", "import there_is_no_such_module\n")
    code, _, err = vgx_here("hello")
    assert code == 3
    assert "no command 'hello'; plugin broken-plugin of broken failed: ModuleNotFoundError" in err
    # What it does not bring works as ever.
    assert vgx_here("report", "--help")[0] == vgx_here("plugins")[0] == vgx_here("--help")[0] == 0


def test_a_misspelt_command_suggests_one_of_the_core_or_of_a_plugin(install, vgx_here):
    install("greeter", HELLO)
    for typed, meant in (("rnu", "run"), ("swep", "sweep"), ("helo", "hello")):
        code, out, err = vgx_here(typed, "--set", "x=1")
        assert (code, out) == (2, "")
        assert err == f"vgx: no command '{typed}'; did you mean '{meant}'?\nTry: vgx --help\n"


def test_a_command_that_raises_is_a_bug_and_keeps_its_traceback(install, vgx_here):
    install("greeter", HELLO.replace("click.echo(", "1 / 0, ("))
    code, _, err = vgx_here("hello")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "a bug in vgx or in a plugin" in err


def test_separate_files_have_no_grid(vgx_here):
    code, _, err = vgx_here("sample", "--separate", "folder", "--out", "grid.png")
    assert code == 2
    assert "leave out --separate or --out" in err


def test_a_field_that_is_no_yaml_is_told_why(tiny_run, vgx_here):
    _, _, run = tiny_run
    code, _, err = vgx_here("sample", run, "--set", "of=[1")
    assert code == 2
    assert "write it as KEY=VALUE" not in err
    assert "--set of: " in err
    assert "write it as KEY=VALUE" in vgx_here("sample", run, "--set", "of")[2]


def test_debug_shows_the_traceback_of_an_error(vgx_here):
    for words in (["report", "nothing", "--debug"], ["--debug", "report", "nothing"]):
        code, _, err = vgx_here(*words)
        assert code == 5
        assert "Traceback" in err
    assert "Traceback" not in vgx_here("report", "nothing")[2]
