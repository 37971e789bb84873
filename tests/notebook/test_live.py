"""What is shown in one output of a notebook, and what is printed beside it."""

from __future__ import annotations

import logging
import sys

import pytest

import vgx
from vgx.notebook.live import Captured, Live


class Output:
    """Stands for the output of a cell: it keeps what was shown last."""

    def update(self, content, raw):
        assert raw
        self.page, self.text = content["text/html"], content["text/plain"]


@pytest.fixture
def live():
    console = Live()
    console._handle = Output()
    return console


@pytest.mark.slow
def test_an_evaluation_that_fails_leaves_no_bar(live, small_run, monkeypatch):
    def fails(run, recipe, settings, registry, device, console):
        with console.phase("Drawing"), console.progress("Measuring", 10) as advance:
            advance(3, [])
            console.update(now=True)
            assert "Measuring 3/10 images" in live._handle.page
            raise vgx.DataError("no images")

    monkeypatch.setattr("vgx.notebook.evaluation.evaluate_run", fails)
    with pytest.raises(vgx.DataError, match="no images"):
        vgx.evaluate(small_run, console=live)
    assert "Measuring 3/10" not in live._handle.page + live._handle.text
    assert "border-radius" not in live._handle.page  # of the bar
    assert live._handle.text == "Drawing"  # what it did last


@pytest.mark.slow
def test_the_second_stage_is_shown_as_the_first_one(live, tmp_path, monkeypatch):
    """Its bar and its curves, below those of the networks; also by `vgx.fit`."""
    monkeypatch.setattr(vgx.Plugin, "call", lambda *_, **__: "")  # the page takes longer
    bars, html = [], live.html

    def kept():
        page = html()
        if live.bar is not None and live.bar.label == "Prior":
            bars.append(page)
        return page

    monkeypatch.setattr(live, "html", kept)
    monkeypatch.setattr("vgx.notebook.live.SECONDS", 0.0)
    prior = {"type": "rectified-flow", "width": 8, "depth": 1, "steps": 30}
    changes = {
        "train.steps": 4,
        "dataset.count": 24,
        "train.precision": "fp32",
        "eval.holdout": 0.3,
    }
    recipe = vgx.load_recipe("tiny", {**changes, "prior": prior})
    run = vgx.run(recipe, out=tmp_path, console=live)
    assert any("Prior 20/30 steps" in page for page in bars)
    for page in (bars[-1], live._handle.page, run._repr_html_()):
        networks, _, second = page.partition(">prior<")
        assert ">l1</text>" in networks
        assert ">rectified-flow</text>" in second
    assert ">rectified-flow</text>" not in bars[0]  # a curve has two points

    again = Live()
    again._handle = Output()
    run = vgx.fit(run, {"prior.steps": 110}, console=again)
    _, _, second = again._handle.page.partition(">prior<")
    assert "steps 1 to 110" in second
    assert ">held_out</text>" in second  # measured twice by now
    assert run.recipe.prior.steps == 110
    assert "Prior: rectified-flow, 110 steps" in again._handle.page


def test_a_stream_that_somebody_keeps_is_never_closed(live, capsys):
    """A logger finds the stream of a step, and uses it in the next step, between both and after."""
    capturing, logger = Captured(live), logging.getLogger("of a part")
    logger.propagate = False
    try:
        for number in (1, 2):
            with capturing:
                if number == 1:
                    handler = logging.StreamHandler()
                    logger.addHandler(handler)
                    kept = sys.stdout
                logger.warning("step %d", number)
                sys.stdout.write(f"half a line {number}")
            logger.warning("after step %d", number)
            kept.write(f"late {number}\n")
            kept.flush()
    finally:
        logger.removeHandler(handler)
    assert live.messages == ["step 1", "half a line 1", "step 2", "half a line 2"]
    assert capsys.readouterr() == ("late 1\nlate 2\n", "after step 1\nafter step 2\n")
