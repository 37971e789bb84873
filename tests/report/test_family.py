"""The tree of runs on the page of a run: who comes from whom, as the files say."""

from __future__ import annotations

import json

from vgx.runs.directory import Run
from vgx_report.family import family, origin


def made(folder, name, parent=None, step=0, how="fork"):
    """The directory of a run with as few files as a tree needs."""
    path = folder / name
    path.mkdir()
    (path / "recipe.yaml").write_text("train: {steps: 20}\n")
    environment = {"started": f"2026-01-0{name[3]}T00:00:00+00:00"}
    if parent:
        environment["parent"] = {"run": parent, "step": step, "how": how, "networks": ["encoder"]}
    (path / "environment.json").write_text(json.dumps(environment))
    ended = {"how": "done", "step": 20, "of": 20}
    (path / "ended.json").write_text(json.dumps(ended))
    return Run(path)


def rows(run):
    return [(row["line"], row["run"], row["origin"]) for row in family(run)]


def test_a_run_stands_among_its_ancestors_and_their_descendants(tmp_path):
    first = made(tmp_path, "0001-a")
    assert family(first) == []
    made(tmp_path, "0002-b", "0001-a", 5)
    third = made(tmp_path, "0003-c", "0002-b", 10, "start")
    made(tmp_path, "0004-d", "0001-a", 15)
    made(tmp_path, "0005-other")
    wanted = [
        ("", "0001-a", ""),
        ("├─ ", "0002-b", "a fork of 0001-a at step 5"),
        ("│  └─ ", "0003-c", "begun with weights of 0002-b at step 10: encoder"),
        ("└─ ", "0004-d", "a fork of 0001-a at step 15"),
    ]
    assert rows(third) == rows(first) == wanted
    assert [row["run"] for row in family(third) if row["own"]] == ["0003-c"]
    with third.held(), first.held():  # its page is written before its lock is free
        states = {row["run"]: row["state"] for row in family(third)}
    assert (states["0001-a"], states["0003-c"], states["0004-d"]) == ("running", "done", "done")


def test_a_parent_that_is_gone_is_named(tmp_path):
    run = made(tmp_path, "0002-b", "0001-a", 1500)
    assert rows(run) == [("", "0002-b", "a fork of 0001-a at step 1,500")]
    assert origin(None) == ""


def test_what_a_stranger_s_files_claim_leads_nowhere(tmp_path):
    """Circles, and names that would lead out of the folder."""
    (tmp_path / "secret").mkdir()
    made(tmp_path / "secret", "0009-x")
    (tmp_path / "runs").mkdir()
    one = made(tmp_path / "runs", "0001-a", "0002-b", 1)
    made(tmp_path / "runs", "0002-b", "0001-a", 1)
    assert {row["run"] for row in family(one)} == {"0001-a", "0002-b"}
    out = made(tmp_path / "runs", "0003-c", "../secret/0009-x", 1)
    assert [row["run"] for row in family(out)] == ["0003-c"]
    (tmp_path / "runs" / "0002-b" / "environment.json").write_text("[")
    damaged = next(row for row in family(one) if row["run"] == "0002-b")
    assert damaged["state"].startswith("broken: environment.json")
