"""The tree of runs on the page of a run: who comes from whom, as the files say."""

from __future__ import annotations

import json

from vgx.runs import reading
from vgx.runs.directory import Run
from vgx_report import curves
from vgx_report.family import branch, family, origin


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


def test_of_a_large_family_the_newest_are_shown_and_the_run_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("vgx_report.family.MOST", 3)
    first = made(tmp_path, "0001-a")
    last = [made(tmp_path, f"000{number}-b", "0001-a") for number in range(2, 7)][-1]
    assert [row["run"] for row in family(first)] == ["0001-a", "0005-b", "0006-b"]
    assert [row["run"] for row in family(last)] == ["0004-b", "0005-b", "0006-b"]


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


def logged(run, values, **more):
    """Give a run a log: a loss by step, every two steps, and what else the lines have."""
    lines = [
        {"step": step, "images": 8 * step, "seconds": step / 2, "losses": {"l1": value, **more}}
        for step, value in values.items()
    ]
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def branched(run):
    """The charts of a run with what its parent did, as its page has them."""
    lines = run.read_log()
    found = branch(run, reading.environment(run.path), lines[-1]["step"])
    return curves.of_run(lines, {}, found), found


def test_the_curves_of_a_fork_branch_where_it_left_its_parent(tmp_path):
    """By hand: the fork is of step 5, between the logged steps 4 and 6."""
    logged(made(tmp_path, "0001-a"), {2: 0.9, 4: 0.8, 6: 0.7, 8: 0.6, 10: 0.5, 12: 0.4}, kl=1.0)
    fork = logged(made(tmp_path, "0002-b", "0001-a", 5), {2: 0.9, 4: 0.8, 6: 0.3, 8: 0.2, 10: 0.1})
    page, _ = branched(fork)
    (chart,) = page["groups"]
    own, parent = chart["lines"]
    assert (own["name"], own["values"]) == ("l1", [0.9, 0.8, 0.3, 0.2, 0.1])
    # From the last line that both have, and as far as the fork is.
    assert (parent["name"], parent["values"]) == ("l1, 0001-a", [0.8, 0.7, 0.6, 0.5])
    assert page["axes"][parent["axes"]]["step"] == [4, 6, 8, 10]
    assert page["axes"][parent["axes"]]["seconds"] == [2, 3, 4, 5]
    assert (parent["branch"], parent["colour"]) == (True, own["colour"])
    assert page["mark"] == {"text": "fork", "step": 5, "images": 32, "seconds": 2.0}
    assert "Up to step 5 the lines are those of 0001-a; what it did after that is" in page["note"]


def test_each_chart_of_a_fork_has_the_branch_of_its_parent(tmp_path):
    """Whatever a line of the log may have. It begins at the fork, which is at a logged step."""
    runs = made(tmp_path, "0001-a"), made(tmp_path, "0002-b", "0001-a", 4)
    for run in runs:
        logged(run, {2: 0.9, 4: 0.8, 6: 0.7})
        lines = [
            line
            | {"grad_norm": {"decoder": line["step"]}, "accuracy": {"real": 0.5}}
            | {"codebook": {"codebook_usage": 0.5, "perplexity": line["step"]}}
            | {"figures": {"ada.p": 0.1}}
            | {"rates": {"generator": line["step"]}, "metrics": {"psnr": 9.0}}
            | {"images_per_second": 7.0}
            for line in run.read_log()
        ]
        run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, _ = branched(runs[1])
    shown = {each["title"]: [line["values"] for line in each["lines"]] for each in page["groups"]}
    assert shown == {
        "Generator's terms": [[0.9, 0.8, 0.7], [0.8, 0.7]],
        "Gradient norms": [[2, 4, 6], [4, 6]],
        "Discriminator's accuracy": [[0.5] * 3, [0.5] * 2],
        "Codebook usage": [[0.5] * 3, [0.5] * 2],
        "Codebook perplexity": [[2, 4, 6], [4, 6]],
        "Figures of parts": [[0.1] * 3, [0.1] * 2],
        "Learning rates": [[2, 4, 6], [4, 6]],
        "Metrics": [[9.0] * 3, [9.0] * 2],
        "Training speed": [[7.0] * 3, [7.0] * 2],
    }


def test_what_is_no_parent_any_more_has_no_branch(tmp_path):
    values = {2: 0.9, 4: 0.8}
    begun = logged(made(tmp_path, "0001-a", "0003-c", 2, "start"), values)
    assert branched(begun)[1] is None
    assert "mark" not in branched(begun)[0]
    fork = logged(made(tmp_path, "0002-b", "0003-c", 2), values)
    page, found = branched(fork)
    assert (found.lines, page["mark"]["step"]) == ([], 2)
    assert len(page["groups"][0]["lines"]) == 1
    logged(made(tmp_path, "0003-c"), values)  # begun later: it has the name of the removed parent
    assert branched(fork)[1].lines == []
    own = logged(made(tmp_path, "0004-d", "0004-d", 2), values)
    assert branched(own)[1].lines == []
    (tmp_path / "elsewhere").mkdir()
    logged(made(tmp_path / "elsewhere", "0001-x"), values)
    outside = logged(made(tmp_path, "0005-e", "elsewhere/0001-x", 2), values)
    assert branched(outside)[1].lines == []
