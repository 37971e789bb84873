"""An experiment as a drawing: what it says comes from the recipe and from what was found out."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import vgx
from vgx.check import trials as tuning
from vgx.console import Console
from vgx.errors import RecipeError, StorageError
from vgx.training import session as training
from vgx_report import diagram

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"


def found(changes=None, file=TINY):
    """Return recipe, engine and findings as `vgx explain RECIPE` has them."""
    recipe = vgx.load_recipe(file, changes or {})
    console = Console(file=io.StringIO())
    return recipe, *training.check(recipe, vgx.discover(), "cpu", console)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(tmp_path_factory.mktemp("cache")))
        recipe, engine, findings = found()
    return recipe, engine, json.loads(json.dumps(asdict(findings)))


def shown(tiny, changes=None, steps=20, **audit):
    recipe = vgx.load_recipe(TINY, changes) if changes else tiny[0]
    return diagram.explain(recipe.model_dump(mode="json"), tiny[2] | audit, steps)


def test_a_picture_passes_the_networks_with_their_shapes_and_sizes(tiny):
    boxes = shown(tiny).boxes
    assert [(box.name, box.shapes) for box in boxes] == [
        ("images", "3x16x16"),
        ("encoder", "3x16x16 -> 8"),
        ("latent", "8"),
        ("decoder", "8 -> 3x16x16"),
        ("discriminator", "3x16x16 -> 1x6x6"),
    ]
    for box in boxes:
        if box.network:
            count = sum(p.numel() for p in tiny[1].networks[box.name].parameters())
            assert f"{count:,} parameters" in box.about
    lines = diagram.chain(shown(tiny))
    assert [line.split()[0] for line in lines[::2]] == [box.name for box in boxes]


def test_each_term_stands_with_its_player_and_the_networks_it_moves(tiny):
    terms = {(term.label, term.player): term for term in shown(tiny).terms}
    moved = {key: {n for n, v in t.reaches.items() if v is not None} for key, t in terms.items()}
    both, judge = {"encoder", "decoder"}, {"discriminator"}
    assert moved == {
        ("bce-adversarial.generator", "generator"): both,
        ("bce-adversarial.discriminator", "discriminator"): judge,
        ("l1", "generator"): both,
        ("bce", "generator"): both,
        ("kl", "generator"): {"encoder"},
    }
    header, rows = diagram.table(shown(tiny))
    assert header[-3:] == ("encoder", "decoder", "discriminator")
    (row,) = (row for row in rows if row[0] == "kl")
    assert row[-2:] == ("-", "-")
    (norm,) = (flow["norms"]["encoder"] for flow in tiny[2]["flows"] if flow["label"] == "kl")
    assert float(row[-3]) == pytest.approx(norm, rel=5e-3)


def test_weights_are_those_of_the_schedule(tiny):
    changes = {
        "losses.0.weight": 0.5,
        "losses.0.start": 6,
        "losses.1.weight": {"from": 0, "to": 10, "steps": 20},
        "losses.2.weight": {"against": ["l1"], "factor": 2, "after": 5},
        "losses.3.every": 4,
    }
    terms = {term.label: term.weights for term in shown(tiny, changes, steps=20).terms}
    assert terms == {
        "bce-adversarial.generator": ("0", "0.5", "0.5"),
        "bce-adversarial.discriminator": ("0", "1", "1"),
        "l1": ("0", "5", "9.5"),
        "bce": ("0", "2 x level with l1", "2 x level with l1"),
        "kl": ("1", "1", "1"),
    }
    # And those are what the engine uses.
    engine = found(changes)[1]
    for player in engine.players:
        for term in engine.players[player].terms:
            if term.label in ("l1", "bce-adversarial.generator", "bce-adversarial.discriminator"):
                used = [term.weight(number) for number in (0, 10, 19)]
                assert [float(said) for said in terms[term.label]] == used


def test_a_penalty_is_the_discriminators(tiny):
    norms = {"encoder": None, "decoder": None, "discriminator": 2.0}
    changes = {"losses.1": {"type": "r1", "weight": 5, "every": 16}}
    (term,) = shown(tiny, changes, flows=[{"label": "r1", "norms": norms}]).terms
    assert (term.player, term.weights) == ("discriminator", ("5", "5", "5"))


def test_a_gan_begins_with_its_latents(tiny):
    rows = [row for row in tiny[2]["rows"] if row["network"] != "encoder"]
    recipe = tiny[0].model_copy(update={"encoder": None})
    plain = recipe.model_dump(mode="json")
    boxes = diagram.explain(plain, tiny[2] | {"rows": rows}, 20).boxes
    assert [box.name for box in boxes] == ["latent", "decoder", "discriminator"]


def test_memory_and_movers_are_said(tiny):
    need = {"fixed": 10**9, "each": 5 * 10**7, "there": 8 * 10**9}
    said = shown(tiny, {"train.batch": 64, "train.accumulate": 4}, need=need)
    (memory,) = said.costs
    assert "at least 1.80 GB of 8.00 GB: 1.00 GB" in memory
    assert "50.0 MB for each of 16 images" in memory
    rate = {"train.optimizers.generator.lr": {"from": 1e-3, "to": 0, "steps": 9}}
    generator, discriminator, order, average = shown(tiny, rate).movers
    assert "encoder and decoder: adam, learning rate 0.001 to 0 over 9 steps, linear" in generator
    assert "adam, learning rate 5e-05" in discriminator
    assert "generator is updated first" in order
    assert "decay 0.9" in average
    assert "effective beta is 0.0099: weight 1 beside 100 l1 and 1 bce, " in " ".join(said.notes)


def test_what_is_no_audit_is_an_error_that_says_so(tiny):
    for audit in ({}, {"rows": 3}, tiny[2] | {"flows": [{"label": "l1"}]}):
        with pytest.raises(
            StorageError, match=r"audit\.json or recipe\.yaml is not as a run writes it"
        ):
            diagram.explain(tiny[0].model_dump(mode="json"), audit, 20)


@pytest.mark.parametrize(
    "spoilt", [{"losses": 3}, {"losses": []}, {"image": {}}, {"train": {}}, {"dataset": "x"}]
)
def test_what_is_no_recipe_is_an_error_that_says_so(tiny, spoilt):
    plain = tiny[0].model_dump(mode="json") | spoilt
    with pytest.raises(StorageError, match=r"recipe\.yaml is not as a run writes it"):
        diagram.explain(plain, tiny[2], 20)


def test_parts_that_are_not_installed_are_explained_too(tiny):
    """A run from another machine: a plugin is missing, and names may be spelt with their plugin."""
    plain = tiny[0].model_dump(mode="json")
    plain["losses"][1] = {"type": "far-losses:huber", "weight": 3.0, "delta": 0.5}
    plain["dataset"] = {"type": "cells", "slides": 4}
    flows = [{"label": "huber", "norms": {"encoder": 1.0, "decoder": 2.0, "discriminator": None}}]
    explained = diagram.explain(plain, tiny[2] | {"flows": flows}, 20)
    assert explained.boxes[0].about.startswith("cells")
    assert [(term.label, term.weights) for term in explained.terms] == [("huber", ("3",) * 3)]


def test_texts_of_a_stranger_are_printable(tiny):
    evil = "\x1b]0;owned\x07\u202e"
    plain = tiny[0].model_dump(mode="json") | {"name": evil, "dataset": {"type": evil}}
    plain["train"]["optimizers"]["generator"]["type"] = evil
    rows = [row | {"part": evil, "shapes": evil} for row in tiny[2]["rows"]]
    explained = diagram.explain(plain, tiny[2] | {"rows": rows, "notes": [evil]}, 20)
    texts = [explained.name, *diagram.chain(explained), *explained.movers, *explained.notes]
    assert all(text.isprintable() for text in texts)
    ElementTree.fromstring(diagram.svg(explained))


def test_the_drawing_is_whole_and_believes_nothing(tiny):
    hostile = "</svg><script>window.hacked = 1</script>"
    drawing = diagram.svg(shown(tiny, notes=[hostile, "word " * 100]))
    tree = ElementTree.fromstring(drawing)
    space = "{http://www.w3.org/2000/svg}"
    assert not tree.findall(f".//{space}script")
    texts = [element.text for element in tree.iter(f"{space}text")]
    assert hostile in texts
    assert len(tree.findall(f".//{space}rect")) == 1 + 5  # the paper and a box each
    moves = sum(v is not None for term in shown(tiny).terms for v in term.reaches.values())
    assert len(tree.findall(f".//{space}circle")) == moves + 2  # and two in the legend
    assert "prefers-color-scheme:dark" in drawing
    assert not re.findall(r"(?:href|src|url)\W", drawing)
    width = float(tree.get("width"))
    placed = [(float(e.get("x")), e) for e in tree.iter(f"{space}text")]
    # Letters of 12 pixels are about 6 wide.
    assert all(x + 6 * len(e.text) < width for x, e in placed if e.get("class") == "soft")


@pytest.mark.parametrize("each", [1, 2])
def test_the_pace_is_that_of_real_steps(each, monkeypatch):
    recipe, engine, findings = found({"train.discriminator_steps": each, "train.accumulate": 2})
    seen = []
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda *given: seen.append(given) or step(*given))
    seconds, count = tuning.step_time(engine, findings.forward)
    assert 0 < seconds < 5
    assert count == recipe.train.batch
    assert [number for number, *_ in seen] == list(range(1 + tuning.STEPS))
    shapes = [[tuple(batch.images.shape) for batch in given[1]] for given in seen]
    assert shapes == [[(8, 3, 16, 16)] * each] * len(seen)


def test_a_minibatch_that_takes_long_is_cut_for_the_pace():
    _, engine, _ = found({"train.accumulate": 2, "train.batch": 64})
    # A picture that takes 0.1 s forwards: 4 steps of 8 are about 10 s.
    assert tuning.step_time(engine, 0.1)[1] == 8
    assert tuning.step_time(engine, 100.0)[1] == 2
    _, engine, _ = found({"train.accumulate": 4, "train.batch": 64})
    assert tuning.step_time(engine, 0.08)[1] == 8  # 10 do not fall into 4 pieces


def test_a_recipe_is_explained_and_drawn(tmp_path, capsys):
    from vgx.cli import run_program

    file = tmp_path / "new" / "drawing.svg"
    command = ["explain", str(TINY), "--set", "losses.1.weight=50", "--svg", str(file)]
    assert run_program(command) == 0
    said = capsys.readouterr().out
    assert "encoder        3x16x16 -> 8" in said
    assert re.search(r"^l1 +generator +50 ", said, re.MULTILINE)
    assert re.search(
        r"^Time: about .* for 20 steps on cpu: .* measured on 3 steps of 8", said, re.MULTILINE
    )
    assert ElementTree.parse(file).getroot().tag.endswith("svg")
    assert not (tmp_path / "runs").exists()


def test_a_run_is_explained_from_its_files(tiny, tmp_path, capsys):
    from vgx.cli import run_program

    run = vgx.Run(tmp_path / "runs" / "0001-tiny")
    run.path.mkdir(parents=True)
    run.recipe_file.write_text(vgx.dump_recipe(tiny[0]))
    assert run_program(["explain", str(run.path)]) == 5
    assert "audit.json" in capsys.readouterr().err
    audit = tiny[2] | {"notes": ["Noted by the run."]}
    (run.path / "audit.json").write_text(json.dumps(audit))
    run.log({"step": 12, "epoch": 1.5, "seconds": 30.0, "losses": {"l1": 1.0}})
    assert run_program(["explain"]) == 0
    said = capsys.readouterr().out
    assert "Noted by the run." in said
    assert "Time: 30 s for the first 12 of 20 steps, by its log." in said
    assert run_program(["explain", str(run.path), "--set", "train.batch=2"]) == 2


def test_a_recipe_that_is_wrong_is_told_as_ever():
    with pytest.raises(RecipeError):
        found({"losses.1": "hing"})
    assert torch.is_grad_enabled()


def test_discriminators_stand_side_by_side_with_their_own_names(tiny):
    """An arrow leads from the decoder to one that takes its images, and to no other."""
    known = shown(tiny)
    boxes = [*known.boxes[:-1]]
    for name, shapes in (
        ("discriminator image", "3x16x16 -> 1x6x6"),
        ("discriminator of-many-latents", "8 -> 1"),
    ):
        boxes.append(replace(known.boxes[-1], name=name, shapes=shapes))
    drawn = diagram.svg(replace(known, boxes=boxes))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert texts.count("discriminator") == 2
    assert "image" in texts
    assert [text for text in texts if text.startswith("of-many")] == ["of-many-late\u2026"]
    assert drawn.count('class="arrow"') == 4  # images, encoder, latent, decoder, discriminator
    assert diagram.svg(known).count('class="arrow"') == 4
    apart = [box for box in boxes if box.name != "discriminator image"]
    assert diagram.svg(replace(known, boxes=apart)).count('class="arrow"') == 3
