"""The list of runs: states from what a run's files say, and damaged runs as rows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import vgx
from vgx.runs import directory as rundir
from vgx.runs import summary as listing

RECIPE = "name: a\ntrain: {steps: 40}\n"


def made(name="a", recipe=RECIPE, log=(), ended=None, **files):
    run = rundir.create(name)
    run.recipe_file.write_text(recipe)
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in log))
    if ended is not None:
        (run.path / "ended.json").write_text(json.dumps(ended))
    for file, content in files.items():
        (run.path / f"{file}.json").write_text(json.dumps(content))
    return run


def line(step, **more):
    return {"step": step, "epoch": step / 8, "losses": {"l1": 0.5}, **more}


@pytest.mark.parametrize("how", ["done", "stopped", "diverged", "failed"])
def test_an_ended_run_says_how(how):
    run = made(log=[line(10)], ended={"how": how, "step": 17, "of": 40})
    summary = listing.summarize(run)
    assert (summary.name, summary.state, summary.step, summary.of) == ("0001-a", how, 17, 40)


def test_a_run_without_an_end_was_killed_unless_somebody_holds_it():
    run = made(log=[line(10), line(20)])
    (run.path / "lock").write_text("1 (on nowhere)")  # as one that was killed leaves it
    assert listing.summarize(run).state == "killed"
    with run.held():
        summary = listing.summarize(run)
        assert (summary.state, summary.step, summary.of) == ("running", 20, 40)
    assert listing.summarize(run).state == "killed"


def test_looking_takes_no_lock_away():
    run = made()
    with run.held():
        assert run.holder()
    with run.held():  # nobody holds it after the look
        pass
    assert run.holder() == ""


def test_a_writer_on_another_machine_is_believed():
    run = made()
    (run.path / "lock").write_text("12 (on far-away since 2026-01-01)")
    assert listing.summarize(run).state == "running"


def test_steps_are_reckoned_from_epochs():
    run = made(recipe="name: a\ntrain: {epochs: 10}\n", log=[line(12)])
    assert listing.summarize(run).of == 80  # 8 steps an epoch
    assert listing.summarize(made(recipe="name: a\ntrain: {epochs: 10}\n")).of is None


def test_the_last_whole_line_of_a_long_log_counts():
    run = made(log=[line(n, more="x" * 500) for n in range(1, 400)])
    with run.log_file.open("a") as file:
        file.write('{"step": 999, "lo')
    assert listing.summarize(run).step == 399


@pytest.mark.parametrize(
    ("metric", "best"), [("psnr", "psnr 9 at step 2"), ("l1", "l1 4 at step 1")]
)
def test_the_best_metric_is_the_recipes(metric, best):
    recipe = vgx.load_recipe(
        "recipes/tiny.yaml",
        {"eval.every": 1, "eval.best": metric, "eval.metrics": ["psnr", "l1"]},
    )
    metrics = [{"psnr": 7.0, "l1": 4.0}, {"psnr": 9.0, "l1": 6.0}, {"psnr": 8.0, "l1": 5.0}]
    log = [line(n, metrics=each) for n, each in enumerate(metrics, 1)]
    noted = {"better": recipe.eval.better}
    run = made(recipe=vgx.dump_recipe(recipe), log=log, environment=noted)
    assert listing.summarize(run).best == best


MEASURED = "name: a\ntrain: {steps: 40}\neval: {every: 1, best: psnr}\n"


@pytest.mark.parametrize("noted", [{}, {"better": None}, {"better": {"l1": "lower"}}])
def test_an_old_run_that_does_not_say_what_is_better_shows_the_last_value(noted):
    log = [line(n, metrics={"psnr": value}) for n, value in enumerate((7.0, 9.0, 8.0), 1)]
    run = made(recipe=MEASURED, log=[*log, line(4)], environment=noted)
    assert listing.summarize(run).best == "psnr 8 at step 3 (the last)"
    (run.path / "environment.json").unlink()
    assert listing.summarize(run).best == "psnr 8 at step 3 (the last)"


def test_looking_at_a_run_does_not_run_its_plugins(capsys, tmp_path):
    """Its files may come from anybody; only commands that use the parts import them."""
    from vgx.cli import run_program

    log = [
        line(n, seconds=1.0, metrics={"psnr": value}) for n, value in enumerate((7.0, 9.0, 8.0), 1)
    ]
    runs = [made(name, MEASURED, log, environment=noted) for name, noted in
            (("new", {"better": {"psnr": "higher"}}), ("old", {}))]  # fmt: skip
    for run in runs:
        code = f"open({str(tmp_path / run.path.name)!r}, 'w')\n"
        (run.path / "plugins" / "own.py").write_text(code)
    assert run_program(["list"]) == 0
    out = capsys.readouterr().out
    assert "psnr 9 at step 2" in out
    assert "psnr 8 at step 3 (the last)" in out
    assert run_program(["compare", *(str(run.path) for run in runs)]) == 0
    assert not [run for run in runs if (tmp_path / run.path.name).exists()]


def test_a_run_notes_which_of_two_values_is_better():
    recipe = vgx.load_recipe(
        "recipes/tiny.yaml", {"train.steps": 1, "eval.every": 1, "eval.metrics": ["psnr", "l1"]}
    )
    run = vgx.run(recipe)
    assert run.environment()["better"] == {"psnr": "higher", "l1": "lower"}


def test_else_it_is_the_first_figure_of_the_evaluation():
    figures = {"figures": {"fid": {"mean": 12.3456, "spread": 1.0}, "kid": {"mean": 1.0}}}
    pairs = {"figures": {"psnr": {"mean": 20.0}}}
    both = {"generation": [figures], "reconstruction": pairs}
    assert listing.summarize(made(evaluation=both)).best == "fid 12.35"
    alone = {"generation": [], "reconstruction": pairs}
    assert listing.summarize(made(evaluation=alone)).best == "psnr 20"
    assert listing.summarize(made()).best == ""


def test_its_size_is_that_of_all_its_files():
    run = made()
    before = listing.summarize(run).bytes
    (run.samples / "x.png").write_bytes(b"x" * 1000)
    assert listing.summarize(run).bytes == before + 1000


DAMAGE = {
    "recipe.yaml": ["name: [", "5\n", "train: 3\n", None],
    "ended.json": ["{", "[]", '{"how": "done"}', '{"how": "done", "step": "x", "of": 1}'],
    "log.jsonl": ["nothing\n", "[1]\n"],
    "evaluation.json": ["{", "[]", '{"generation": 3}', '{"generation": [{"figures": {"x": 1}}]}'],
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, text) for name, texts in DAMAGE.items() for text in texts]
)
def test_a_damaged_run_is_a_row_that_says_so(name, content):
    run = made(log=[line(1)])
    file = run.path / name
    file.unlink() if content is None else file.write_text(content)
    summary = listing.summarize(run)
    assert summary.state.startswith("broken: ")
    assert len(summary.state) > len("broken: ")
    assert summary.bytes > 0


def test_ages_are_said_as_one_says_them():
    said = [listing.age(seconds) for seconds in (-1, 5, 59.4, 60, 3600, 90000)]
    assert said == ["0 s", "5 s", "59 s", "1 min", "1 h", "1 d"]


def test_the_list_is_newest_first_and_imports_no_torch(tmp_path):
    made("old", log=[line(3)], ended={"how": "done", "step": 3, "of": 3})
    made("bad").recipe_file.write_text("name: [")
    code = "import sys; from vgx.cli import run_program; code = run_program(['list']); "
    code += "sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["run", "state", "step", "age", "size", "best", "metric"]
    assert first.startswith("0002-bad")
    assert "broken: recipe.yaml:" in first
    assert second.split()[:5] == ["0001-old", "done", "3", "of", "3"]


def test_no_runs_are_told(capsys):
    from vgx.cli import run_program

    assert run_program(["list"]) == 0
    assert "no runs here yet" in capsys.readouterr().out


# --- where runs come from ------------------------------------------------------------------------


def come(name, parent=None, step=5, how="fork", started="2026-01-01T00:00:00+00:00"):
    """A run that comes from another one."""
    noted = {"started": started}
    if parent is not None:
        noted["parent"] = {"run": parent, "step": step, "how": how}
    return made(name, environment=noted)


def shown(*runs):
    return [line + run.name for line, run in listing.tree([*map(listing.summarize, runs)])]


def test_each_run_stands_below_the_one_that_it_comes_from():
    a, b, c, d, e = (
        come("a"), come("b", "0001-a"), come("c", "0002-b"), come("d", "0001-a"), come("e")
    )  # fmt: skip
    assert shown(e, d, c, b, a) == [
        "0005-e", "0001-a", "├─ 0002-b", "│  └─ 0003-c", "└─ 0004-d",
    ]  # fmt: skip
    assert shown(c, d) == ["0003-c", "0004-d"]  # of a parent that is not there


def test_a_tree_has_each_run_once_whatever_the_files_claim():
    a, b, c = come("a", "0002-b"), come("b", "0001-a"), come("c", "0003-c")
    assert sorted(shown(a, b, c)) == ["0001-a", "0002-b", "0003-c"]


def test_a_long_line_of_forks_is_a_tree_too():
    """Longer than Python lets functions call each other."""
    parents = [None, *({"run": f"{n:04}-a", "step": 5, "how": "fork"} for n in range(1, 1200))]
    runs = [
        listing.Summary(f"{n:04}-a", "done", 9, 9, 0, 0, "", parent=parent)
        for n, parent in enumerate(parents, 1)
    ]
    line, last = listing.tree(runs)[-1]
    assert (line, last.name) == ("   " * 1198 + "└─ ", "1200-a")


def test_a_later_run_with_the_name_of_a_removed_parent_is_not_taken_for_it():
    child = come("child", "0002-new", started="2026-01-01T00:00:00+00:00")
    new = come("new", started="2026-02-01T00:00:00+00:00")
    assert shown(new, child) == ["0002-new", "0001-child"]


def test_the_list_shows_the_tree_and_the_notes(capsys):
    from vgx.cli import run_program

    come("a")
    assert run_program(["list"]) == 0
    assert "note" not in capsys.readouterr().out
    child = come("b", "0001-a", 1000)
    start = come("c", "0001-a", 20, "start")
    (child.path / "note.txt").write_text("the \x1b[31mred one")
    assert run_program(["list", "--tree"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[-1] == "note"
    assert lines[2].startswith("├─ 0002-b ")
    assert " 0001-a at step 1,000 " in lines[2]
    assert lines[2].endswith(r" the \x1b[31mred one")
    assert lines[3].startswith("└─ 0003-c ")
    assert lines[3].endswith("weights of 0001-a at step 20")
    assert start.path.name == "0003-c"
