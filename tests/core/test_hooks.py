"""The hooks: each plugin is called by itself, and its error costs nobody else anything."""

from __future__ import annotations

import io
import json
from pathlib import Path
from unittest import mock

import pytest

import vgx
from vgx.console import Console
from vgx.engine.engine import Engine
from vgx.errors import DivergedError
from vgx.training import session

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
PART = '''
import vgx


class Dark(vgx.Loss, type="dark"):
    """Mean brightness."""

    def generator(self, step):
        return step.recon.mean()


@vgx.hookimpl
def register_components(register):
    register(Dark)
'''
ENDED = """
from pathlib import Path
import vgx


@vgx.hookimpl
def run_ended(run):
    Path(run.path, "%s").write_text((run.path / "ended.json").read_text())
    %s
"""


def plugin_of(distribution):
    (plugin,) = [p for p in vgx.discover().plugins if p.distribution == distribution]
    return plugin


def train(changes=None):
    """Train two steps; return the run and what was printed."""
    printed = io.StringIO()
    console = Console(file=printed, width=1000)
    recipe = vgx.load_recipe(TINY, {"train.steps": 2} | (changes or {}))
    try:
        session.run(recipe, device="cpu", console=console)
    finally:
        text = printed.getvalue()
    return session.find(), text


def test_a_plugin_says_which_hooks_it_implements(install):
    install("one", PART)
    install("two", ENDED % ("seen", "pass"))
    assert plugin_of("one").hooks == ["register_components"]
    assert plugin_of("two").hooks == ["run_ended"]
    assert plugin_of("two").parts == ()
    assert plugin_of("two").failure == ""


def test_a_plugin_without_a_hook_has_failed_and_the_hooks_are_named(install):
    install("none", "def run_ended(run): ...\n")
    plugin = plugin_of("none")
    assert plugin.hooks == []
    for name in ("register_components", "register_commands", "run_ended", "run_evaluated"):
        assert name in plugin.failure


def test_a_registry_is_compared_by_what_it_offers_and_not_by_its_hooks(install):
    install("one", ENDED % ("seen", "pass"))
    assert vgx.discover() == vgx.discover()
    assert "hook" not in repr(plugin_of("one"))


def test_the_end_of_a_run_is_told_to_each_plugin_whatever_the_others_do(install):
    install("a-exits", ENDED % ("a", "raise SystemExit(3)"))
    install("b-fails", ENDED % ("b", "1 / 0"))
    install("c-works", ENDED % ("c", "pass"))
    run, printed = train()
    ended = (run.path / "ended.json").read_text()
    assert json.loads(ended)["how"] == "done"
    assert [(run.path / name).read_text() for name in "abc"] == [ended] * 3
    warning = "NOTICE: plugin {0}-plugin of {0} failed at the end of {1}: {2}"
    assert warning.format("a-exits", run.path, "SystemExit: 3") in printed
    assert warning.format("b-fails", run.path, "ZeroDivisionError: division by zero") in printed
    assert (run.path / "report.html").is_file()


def test_a_run_that_diverged_has_ended_too_and_its_error_counts(install):
    install("fails", ENDED % ("seen", "1 / 0"))
    with (
        mock.patch.object(Engine, "step", side_effect=DivergedError("l1 is nan")),
        pytest.raises(DivergedError, match="l1 is nan"),
    ):
        train()
    assert json.loads((session.find().path / "seen").read_text())["how"] == "diverged"


def test_an_evaluation_is_told_to_each_plugin_and_the_page_has_its_figures(install):
    evaluated = ENDED.replace("ended", "evaluated").replace("evaluated.json", "evaluation.json")
    install("b-fails", evaluated % ("b", "1 / 0"))
    install("c-works", evaluated % ("c", "pass"))
    run, _ = train()
    page = run.path / "report.html"
    assert "Not evaluated yet" in page.read_text()
    printed = io.StringIO()
    chosen = {"metrics": "psnr", "n": 8, "seeds": 1, "device": "cpu"}
    figures = vgx.evaluate(run, **chosen, console=Console(file=printed, width=1000)).figures
    assert (run.path / "b").read_text() == (run.path / "c").read_text()
    text = f"NOTICE: plugin b-fails-plugin of b-fails failed after the evaluation of {run.path}: "
    assert f"{text}ZeroDivisionError: division by zero" in printed.getvalue()
    assert "Not evaluated yet" not in page.read_text()
    assert f'"psnr (more is better)","{figures["psnr"]:.4g} ' in page.read_text()
    page.unlink()  # who removed the page wants none
    vgx.evaluate(run, **chosen, quiet=True)
    assert not page.exists()
