"""What every test stands on: no test writes outside its own folder, none asks a network."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
