"""Plugins: whose a part is, what happens when one is broken, and when two claim one name."""

from __future__ import annotations

import os
import re
import signal
from typing import Annotated

import jsonschema
import pytest
from pydantic import Field, PositiveInt

import vgx
from vgx.errors import PluginError, RecipeError
from vgx.parts.registry import Plugin
from vgx.recipe.schema import fields, recipe_schema

HUBER = '''
import torch.nn.functional as F
import vgx
from pydantic import PositiveFloat


class Huber(vgx.Loss, type="huber"):
    """Huber distance between image and reconstruction, mean over pixels (Huber 1964)."""

    delta: PositiveFloat = 1.0
    """Where the square becomes a line."""

    def generator(self, step: vgx.Step):
        return F.huber_loss(step.recon, step.real, delta=self.delta)


@vgx.hookimpl
def register_components(register):
    register(Huber)
'''
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


@pytest.fixture
def load(tmp_path):
    def loaded(losses, registry=None):
        (tmp_path / "r.yaml").write_text(RECIPE % losses)
        return vgx.load_recipe(tmp_path / "r.yaml", registry=registry)

    return loaded


def test_an_installed_part_knows_where_it_came_from(install, load):
    install("far-losses", HUBER, version="1.2")
    registry = vgx.discover()
    plugin = registry.owner(registry.part("loss", "huber"))
    assert (plugin.distribution, plugin.version) == ("far-losses", "1.2")
    assert plugin.name == "far-losses-plugin"
    assert load("{type: huber, delta: 0.5}", registry).losses[0].delta == 0.5


def test_a_file_is_a_plugin_too(tmp_path, load):
    (tmp_path / "vgx_huber.py").write_text(HUBER)
    registry = vgx.discover([tmp_path / "vgx_huber.py"])
    assert load("huber", registry).losses[0].delta == 1.0
    assert registry.owner(registry.part("loss", "huber")).distribution == "vgx_huber.py"
    with pytest.raises(RecipeError, match="no installed loss is called 'huber'"):
        load("huber")


@pytest.mark.bar("X1")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import there_is_no_such_module\n", "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("def broken(:\n", "SyntaxError"),
        ("x = 1\n", "no function register_components"),
        (HUBER.replace("register(Huber)", "register(3)"), "3 is no part"),
        (HUBER.replace("register(Huber)", "register(vgx.Loss)"), "is no part"),
        (HUBER.replace('type="huber"', ""), "is no part"),
        (re.sub('"""Huber.*?"""', "", HUBER), "has no docstring"),
        (HUBER.replace("register(Huber)", "register(Huber), register(Huber)"), "two parts as loss"),
    ],
)
def test_a_broken_plugin_is_recorded_and_stops_only_who_needs_it(install, load, text, said):
    install("broken", text)
    registry = vgx.discover()
    (plugin,) = [p for p in registry.plugins if p.distribution == "broken"]
    assert said in plugin.failure
    assert load("l1", registry).losses[0].type == "l1"
    assert plugin.parts == ()
    with pytest.raises(PluginError, match="did not load") as caught:
        load("zzz-unheard-of", registry)
    assert caught.value.exit_code == 3
    # What is only misspelt is the recipe's fault:
    with pytest.raises(RecipeError, match="did you mean 'hinge'"):
        load("hingee", registry)


def test_a_broken_file_that_was_asked_for_stops_at_once(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    for given in ([tmp_path / "broken.py"], tmp_path / "broken.py", str(tmp_path / "broken.py")):
        with pytest.raises(PluginError, match="ZeroDivisionError"):
            vgx.discover(given)


def neither_of_two_is_chosen(install, load):
    install("near-losses", HUBER)
    install("far-losses", HUBER.replace("= 1.0", "= 9.0"))
    registry = vgx.discover()
    with pytest.raises(RecipeError, match="'far-losses:huber' or 'near-losses:huber'"):
        load("huber", registry)
    recipe = load("{type: 'far-losses:huber'}", registry)
    assert recipe.losses[0].delta == 9.0
    assert "far-losses:huber" in vgx.dump_recipe(recipe)


@pytest.mark.bar("X2")
def test_two_parts_of_one_name_are_never_chosen_between(install, load):
    neither_of_two_is_chosen(install, load)


@pytest.mark.bar("X2", control="the first of two parts is taken")
def test_a_silent_choice_would_be_seen(install, load, monkeypatch, record_property):
    offers = vgx.Registry.offers

    def first(self, kind):
        return list({part.type: (p, part) for p, part in reversed(offers(self, kind))}.values())

    monkeypatch.setattr(vgx.Registry, "offers", first)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        neither_of_two_is_chosen(install, load)
    owner = vgx.discover().owner(vgx.discover().part("loss", "huber"))
    record_property("seen", f"{owner.distribution} is taken in silence")


def test_a_part_is_final():
    loss = vgx.discover().part("loss", "l1")
    with pytest.raises(TypeError, match="a part is final"):
        type("Mine", (loss,), {}, type="mine")
    with pytest.raises(TypeError, match="lowercase-with-hyphens"):
        type("Mine", (vgx.Loss,), {}, type="Mine_Loss")


def test_a_plugin_that_wants_to_be_interrupted_is(install):
    install("impatient", "raise KeyboardInterrupt\n")
    # Ctrl-C raises it with Python's own handler, which another test may have replaced.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            vgx.discover()
    finally:
        signal.signal(signal.SIGINT, before)


def test_plugins_come_in_one_order_however_they_were_installed(install):
    for name in ("zebra", "ant", "moth"):
        install(name, HUBER)
    found = [plugin.distribution for plugin in vgx.discover().plugins]
    assert found == sorted(found)
    offered = [(part.type, plugin.distribution) for plugin, part in vgx.discover().offers("loss")]
    assert offered == sorted(offered)
    assert [owner for name, owner in offered if name == "huber"] == ["ant", "moth", "zebra"]


def test_a_part_is_looked_for_in_its_own_kind_and_its_own_distribution(install, load):
    install("far-losses", HUBER)
    registry = vgx.discover()
    assert load("'far-losses:huber'", registry).losses[0].type == "huber"
    for name in ("'vgx:huber'", "'far-losses:l1'", "'nobody:huber'", "conv", "''", "':huber:'"):
        with pytest.raises(RecipeError, match="no installed loss is called"):
            load(name, registry)


def test_a_files_version_is_what_it_says(tmp_path):
    """Twelve digits of its SHA-256: a changed file is another version."""
    file = tmp_path / "mine.py"
    versions = set()
    for text in (HUBER, HUBER.replace("1.0", "2.0"), HUBER):
        file.write_text(text)
        versions.add(vgx.discover([file]).plugins[-1].version)
    assert len(versions) == 2
    assert all(re.fullmatch("[0-9a-f]{12}", version) for version in versions)


def test_a_file_never_hides_an_installed_module(tmp_path):
    import json

    (tmp_path / "json.py").write_text(HUBER)
    assert vgx.discover([tmp_path / "json.py"]).plugins[-1].parts[0].type == "huber"
    import json as again

    assert again is json
    assert again.loads("[1]") == [1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.py", "none.py: No such file or directory"),
        ("huber.txt", "the name must end in .py"),
        (".", "the name must end in .py"),
        ("folder.py", "folder.py: not a regular file"),
        ("pipe.py", "pipe.py: not a regular file"),
        ("large.py", "large.py: 3,000,000,000 bytes; at most 1,048,576 are read"),
    ],
)
def test_what_is_no_plugin_file_is_said(tmp_path, name, said):
    (tmp_path / "huber.txt").write_text(HUBER)
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    with (tmp_path / "large.py").open("wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(PluginError, match=said):
        vgx.discover([tmp_path / name])


def test_two_files_of_one_name_are_refused(tmp_path):
    """A run keeps copies by name, and a recipe tells parts apart by it."""
    (tmp_path / "deep").mkdir()
    files = [tmp_path / "mine.py", tmp_path / "deep" / "mine.py"]
    for file in files:
        file.write_text(HUBER)
    with pytest.raises(PluginError, match=r"there is already one called mine\.py"):
        vgx.discover(files)


@pytest.mark.bar("X2")
def test_an_installed_part_and_a_file_may_clash_too(tmp_path, install, load):
    install("far-losses", HUBER)
    (tmp_path / "mine.py").write_text(HUBER.replace("= 1.0", "= 9.0"))
    registry = vgx.discover([tmp_path / "mine.py"])
    with pytest.raises(
        RecipeError, match=r"r\.yaml:7:10: .*'far-losses:huber' or 'mine\.py:huber'"
    ):
        load("huber", registry)
    assert load("'mine.py:huber'", registry).losses[0].delta == 9.0


def test_fields_are_said_with_their_ranges_and_parts_within_parts():
    class Around(vgx.Encoder, type="around"):
        """Another encoder, and what it is told."""

        inner: vgx.Encoder
        """The encoder."""
        spare: vgx.Encoder | None = None
        """Another one."""
        share: Annotated[float, Field(gt=0, le=0.5)] = 0.25
        """A share."""
        widths: tuple[PositiveInt, ...] = (4, 8)
        """Channels."""

        def build(self, image, latent):
            return self.inner.build(image, latent)

    assert [row[:3] for row in fields(Around)] == [
        ("inner", "an encoder", "required"),
        ("spare", "an encoder or null", "null"),
        ("share", "number > 0 <= 0.5", "0.25"),
        ("widths", "list of integer > 0", "[4, 8]"),
    ]
    mine = Plugin("notebook", "0", "notebook", (Around,))
    schema = recipe_schema(vgx.Registry((*vgx.discover().plugins, mine)))
    check = jsonschema.Draft7Validator({**schema["$defs"]["encoder"], "$defs": schema["$defs"]})
    inside = {"type": "conv", "widths": [4]}
    assert check.is_valid({"type": "around", "inner": inside, "spare": {"type": "around"}})
    assert check.is_valid({"type": "around", "inner": "conv", "spare": None})
    for wrong in (
        {"type": "around", "inner": {**inside, "width": 4}},
        {"type": "around", "inner": "hinge"},
        {"type": "around", "inner": None},
        {"type": "around", "inner": "conv", "share": 0.6},
    ):
        assert not check.is_valid(wrong), wrong
