"""What every test stands on: no test writes outside its own folder, none asks a network."""

from __future__ import annotations

import importlib
import os
import re
import shutil

import distributions
import faces
import pytest
from bars import Table
from forkserver import ForkServer
from hypothesis import settings

# The networks here are small, so a second thread gains nothing; and on a machine with other work
# each small operation would wait until both threads get a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure(config):
    config.pluginmanager.register(Table(config))


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory):
    """For what is made once for several tests: nothing of the user's is read or written."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VGX_CACHE", "VGX_CONFIG"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture(autouse=True, scope="session")
def _what_stays_the_same_is_made_once():
    faces.remember()
    distributions.remember()


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VGX_CONFIG", str(tmp_path / "config"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def browser():
    """One for all tests of a process, in which Playwright can be started only once."""
    playing = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    with playing.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def forkserver():
    made = ForkServer()
    made.ask({"warm": True})
    yield made
    made.process.communicate()


@pytest.fixture
def no_pages(monkeypatch):
    """For modules that train by the dozen: the page of a run takes longer than their trainings."""
    monkeypatch.setattr("vgx.training.ending.call_plugins", lambda *_: None)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a plugin as pip does: a module, its metadata and its entry point on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(distribution, text, version="1.0"):
        # A name of its own in each test, for Python imports a module once.
        module = distribution.replace("-", "_") + re.sub(r"\W", "_", tmp_path.name)
        (site / f"{module}.py").write_text(text)
        distributions.lay(site, distribution, version, {f"{distribution}-plugin": module})
        # The folder may have been listed in the same tick of the clock.
        importlib.invalidate_caches()

    return make


# Files in which nearly every test trains, kills or starts a process for real.
SLOW = ("chaos", "test_surroundings", "test_run", "test_resume", "test_reference", "test_matrix")
SLOW += ("test_networks_training", "test_training", "test_interrupt", "test_eval", "test_replay")
SLOW += ("test_compare", "test_report")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark what is slow, and leave out the thorough tier without -m chaos."""
    for item in items:
        trains = "tiny_run" in item.fixturenames  # a real run of the tiny recipe
        if trains or item.path.stem in SLOW or item.path.parent.name in SLOW:
            item.add_marker(pytest.mark.slow)
    if "chaos" not in config.getoption("markexpr"):
        left_out = [item for item in items if item.get_closest_marker("chaos")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("chaos")]


# A slow machine fails no test, and a run of the suite is the same twice.
settings.register_profile("vgx", deadline=None, derandomize=True)
settings.load_profile("vgx")
