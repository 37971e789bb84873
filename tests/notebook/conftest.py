"""One small run for all tests of this folder, trained once."""

from __future__ import annotations

import io

import pytest

import vgx
from vgx.console import Console
from vgx.training import session

SMALL = {"train.steps": 4, "train.draw_every": 2, "dataset.count": 24, "train.precision": "fp32"}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    recipe = vgx.load_recipe("tiny", SMALL)
    folder = tmp_path_factory.mktemp("runs")
    return vgx.Run(session.run(recipe, folder, "cpu", console=Console(io.StringIO())).path)
