"""Recipes that nobody should write: never a traceback, never a long wait, always a place."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from pace import within

import vgx
from vgx.errors import RecipeError
from vgx.recipe import faults
from vgx.recipe import yaml as yamlfile
from vgx.recipe.load import load_recipe
from vgx.training.session import check

HERE = Path(__file__).parent
RECIPES = sorted((HERE.parents[1] / "recipes").glob("*.yaml"))
REGISTRY = vgx.discover()
SECONDS = 2  # the longest that reading a recipe may take

spec = importlib.util.spec_from_file_location("mutations", HERE / "mutations.py")
mutations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutations)


def whole(path, *overrides):
    """A recipe as plain data, every default written out."""
    recipe = load_recipe(path, overrides, REGISTRY)
    return yamlfile.read(vgx.dump_recipe(recipe), path.name)[0].plain()


def read(data, folder):
    """Load a recipe of these bytes: it, or the message of what it lacks."""
    path = folder / "r.yaml"
    path.write_bytes(data)
    try:
        return load_recipe(path, (), REGISTRY), ""
    except RecipeError as error:
        return None, str(error)


def complain(message, path):
    """What is wrong with a message; nothing if it is as messages should be."""
    lines = message.splitlines()
    if len(lines) > 10 or max(map(len, lines)) > 1500:
        return f"too long: {len(lines)} lines"
    if not all(letter.isprintable() for line in lines for letter in line):
        return f"what a terminal would obey: {message!r}"
    if not re.match(re.escape(str(path)) + r"(:\d+:\d+)?: \S", lines[0]):
        return f"no place: {lines[0]}"
    if "Error" in message:
        return f"the words of a program: {message}"
    return ""


def blocks(first, *others):
    """Ranges of seeds: a small one, and more of them in the thorough tier."""
    return pytest.mark.parametrize(
        "seeds",
        [first, *(pytest.param(block, marks=pytest.mark.chaos) for block in others)],
        ids=lambda seeds: f"{seeds.start}-{seeds.stop}",
    )


@pytest.mark.bar("C1")
@blocks(range(100), range(100, 300), *(range(n, n + 1000) for n in range(300, 5300, 1000)))
def test_a_mutated_recipe_is_read_or_refused_with_its_place(seeds, tmp_path, record_property):
    record_property("cases", len(seeds))
    trees = [whole(path) for path in RECIPES]
    read_, refused = 0, 0
    for seed in seeds:
        since = time.perf_counter()
        data = mutations.mutated(trees[seed % len(trees)], seed)
        recipe, message = read(data, tmp_path)
        seconds = time.perf_counter() - since
        assert within(seconds, SECONDS), (seed, seconds)
        if recipe is None:
            assert complain(message, tmp_path / "r.yaml") == "", (seed, message)
            refused += 1
        else:
            assert load_recipe(tmp_path / "r.yaml", (), REGISTRY) == recipe
            read_ += 1
    assert refused > 0.8 * len(seeds)  # the mutations do something
    assert read_ > 0.01 * len(seeds)  # and leave some recipes alive


class Quiet:
    """A console that says nothing."""

    print = warn = table = lambda self, *_: None
    phase = lambda self, _: contextlib.nullcontext()  # noqa: E731


class Late(BaseException):
    """An examination took its time: whoever asks for a thousand channels waits for them."""


@pytest.mark.bar("C1")
@blocks(range(30), range(30, 100), *(range(n, n + 500) for n in range(100, 2100, 500)))
@pytest.mark.timeout(1500)
@pytest.mark.filterwarnings("ignore")
def test_what_is_read_is_examined_or_refused(seeds, tmp_path, monkeypatch, record_property):
    """`vgx check` of every changed recipe that can be read: ready, or an error of a person's."""

    def late(*_):
        raise Late

    small = ("image.size=32", "dataset={type: drawn-faces, count: 32}", "train.batch=8")
    names = ("tiny", "vqvae", "wgan_gp", "sngan_hinge", "larsen_vaegan")
    paths = [path for path in RECIPES if path.stem in names]
    trees = [whole(path, *(small if path.stem != "tiny" else ())) for path in paths]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcomes = Counter()
    before = signal.signal(signal.SIGPROF, late)
    try:
        for seed in seeds:
            data = mutations.changed(trees[seed % len(trees)], seed + 10**6)
            recipe, _ = read(data, tmp_path)
            if recipe is None:
                continue
            signal.setitimer(signal.ITIMER_PROF, 10)  # seconds of the processor
            try:
                check(recipe, REGISTRY, "cpu", Quiet())
                outcomes["ready"] += 1
            except vgx.VgxError as error:
                no_room = "images takes up to" in str(error)  # more than there is a disk for
                outcomes["no room" if no_room else error.exit_code] += 1
            except Late:
                outcomes["late"] += 1
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
    finally:
        signal.signal(signal.SIGPROF, before)
    record_property("cases", sum(outcomes.values()))
    assert set(outcomes) <= {"ready", "late", "no room", 2, 3, 4}
    assert outcomes["ready"] > 0.05 * len(seeds)
    assert outcomes["late"] <= 0.005 * len(seeds) + 1


@pytest.mark.chaos
@pytest.mark.bar("C1", control="without the check of values, the same test fails")
def test_the_mutations_find_a_reader_that_lets_large_numbers_through(
    tmp_path, monkeypatch, record_property
):
    """The control: without the look at what is unfit, the same eyes find fault."""
    monkeypatch.setattr(yamlfile, "unfit", lambda *_: iter(()))
    monkeypatch.setattr(faults, "visible", lambda text: text)
    monkeypatch.setattr(yamlfile, "short", lambda text: text)
    trees = [whole(path) for path in RECIPES]
    wrong = 0
    for seed in range(300):
        _, message = read(mutations.mutated(trees[seed % len(trees)], seed), tmp_path)
        wrong += bool(message and complain(message, tmp_path / "r.yaml"))
    assert wrong
    record_property("seen", f"{wrong} of 300")


@pytest.mark.bar("S3")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {steps: " + "9" * 400 + "}", "train.steps"),
        ("losses: [{type: l1, weight: 1" + "0" * 30 + "}]", "more than 64 bits"),
        ("losses: [{type: l1, weight: 1e999}]", "losses.0.weight"),
        ("losses: [{type: l1, weight: -.inf}]", "losses.0.weight"),
        ("losses: [{type: l1, weight: .nan}]", "losses.0.weight"),
        ('name: "a\\0b"', "can't be printed"),
        ('name: "\\ud800"', "invalid Unicode character escape code"),
        ('"na\\0me": x', "a key with characters that can't be printed"),
        ('encoder: {type: "\\e[31m"}', "can't be printed"),
        ("encoder: " + "x" * 3000, "more than 2,000 characters"),
        ("latent: 10000000000000000000000", "more than 64 bits"),
        ("extends: " + "x" * 5000, "can't be the name of a file"),
        ("extends: .", "there is no such file"),
        ("extends: /dev/zero", "there is no such file"),
        ("a: &a [*a]", "an alias"),
        ("- " * 300 + "x", "nested deeper than 20"),
        ("{a: " * 300 + "}" * 300, "nested deeper than 20"),
        ("#" * 1_000_001, "at most 1,000,000 are read"),
        ("x: '" + "ä" * 600_000 + "'", "at most 1,000,000 are read"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_has_hurt_others_is_refused_quickly(text, expected, tmp_path):
    since = time.perf_counter()
    recipe, message = read(text.encode(), tmp_path)
    assert within(time.perf_counter() - since, SECONDS)
    assert recipe is None
    assert expected in message
    assert complain(message, tmp_path / "r.yaml") == ""


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("x." * 5000 + "y=1", "nested deeper than 20"),
        ("losses." + "9" * 5000 + ".weight=1", "items 0 to"),
        ("losses.٣.weight=1", "items 0 to"),
        ("losses.-1.weight=1", "items 0 to"),
        ("train.\ud800=1", "can't be printed"),
        ("train.batch=\x00", "no YAML"),
        ("train.steps=" + "[" * 500, "nested deeper than 20"),
        ("train.steps=" + "[" * 5000, "exceeded maximum nesting depth"),
        ("name=" + "x" * 5000, "more than 2,000 characters"),
        ("train.seed=" + "9" * 99, "more than 64 bits"),
        ("=1", "KEY=VALUE"),
        ("", "KEY=VALUE"),
    ],
    ids=lambda value: value[:12].encode("ascii", "replace").decode(),
)
def test_what_is_set_on_the_command_line_is_no_better(override, expected):
    with pytest.raises(RecipeError) as caught:
        load_recipe(RECIPES[-1], [override], REGISTRY)
    message = str(caught.value)
    assert expected in message
    assert all(letter.isprintable() for line in message.splitlines() for letter in line)
    assert len(message) < 3000


def test_recipes_on_top_of_each_other_end_somewhere(tmp_path):
    tiny = next(path for path in RECIPES if path.stem == "tiny")
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    (tmp_path / "40.yaml").write_text(f"extends: {tiny}\n")
    with pytest.raises(RecipeError, match="more than 20 recipes on top of each other"):
        load_recipe(tmp_path / "0.yaml", (), REGISTRY)
    assert load_recipe(tmp_path / "30.yaml", (), REGISTRY).name == "tiny"


@pytest.mark.bar("S3")
def test_a_file_without_end_is_not_read_to_its_end():
    with pytest.raises(RecipeError, match="not a regular file"):
        load_recipe("/dev/zero", (), REGISTRY)
