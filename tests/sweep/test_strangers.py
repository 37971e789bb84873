"""A study that somebody sent: what is in its file is data, and is validated."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3

import pytest

import vgx
from vgx_sweep import results
from vgx_sweep import storage as storing
from vgx_sweep.running import planned
from vgx_sweep.sweep_page import gather
from vgx_sweep.training import Machine

optuna = pytest.importorskip("optuna")
REGISTRY = vgx.discover()
TINY = vgx.load_recipe("tiny", (), REGISTRY)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The bytes of a study of two points, the first of them complete."""
    folder = tmp_path_factory.mktemp("sweeps")
    plan = planned(TINY, REGISTRY, ["losses.1.weight=1,2"], None, 1, "psnr", None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_SWEEPS", str(folder))
        with contextlib.closing(storing.create("s", plan, None)) as study:
            trial = storing.claim(study, lambda _: optuna.samplers.RandomSampler())
            plan.over[0].suggest(trial)
            trial.set_user_attr("figures", {"0": 10.5})
            trial.set_user_attr("runs", {"0": "0001-tiny"})
            storing.finish(study, trial, "COMPLETE", 10.5)
    return (folder / "s" / "study.db").read_bytes()


@pytest.fixture
def file(made, tmp_path, monkeypatch):
    """The file of that study, in a folder of sweeps of its own."""
    monkeypatch.setenv("VGX_SWEEPS", str(tmp_path / "sweeps"))
    found = tmp_path / "sweeps" / "s" / "study.db"
    found.parent.mkdir(parents=True)
    found.write_bytes(made)
    return found


def rows():
    with contextlib.closing(storing.join("s", None)) as study:
        return results.rows_of(study)


def change(file, *statements):
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_it_is_read_as_it_was_written(file):
    first, second = rows()
    assert (first.state, first.figures, first.text) == ("complete", {"0": 10.5}, "10.5")
    assert (second.state, second.parameters) == ("waiting", {})


ATTRIBUTE = "UPDATE trial_user_attributes SET value_json = '{}' WHERE key = '{}'"


@pytest.mark.parametrize(
    "statement",
    [
        ATTRIBUTE.format('{"0": "ten"}', "figures"),
        ATTRIBUTE.format('{"0": NaN}', "figures"),
        ATTRIBUTE.format("[1]", "figures"),
        ATTRIBUTE.format("{", "figures"),
        ATTRIBUTE.format(json.dumps({str(n): 1.0 for n in range(101)}), "figures"),
        ATTRIBUTE.format('{"0": 5}', "runs"),
        ATTRIBUTE.format('{"0": "' + 301 * "x" + '"}', "runs"),
        ATTRIBUTE.format("2", "point"),  # the points are 0 and 1
        ATTRIBUTE.format('"0"', "point"),
        "DELETE FROM trial_user_attributes WHERE key = 'point'",
        "UPDATE trial_params SET param_value = 7",
        'UPDATE trial_params SET distribution_json = \'{"name": "os.system", "attributes": {}}\'',
        "UPDATE trial_params SET param_name = 'other'",
        "UPDATE study_user_attributes SET value_json = '\"{}\"' WHERE key = 'vgx'",
        "UPDATE study_user_attributes SET value_json = '[[[' WHERE key = 'vgx'",
        "DELETE FROM study_user_attributes WHERE key = 'vgx'",
        "DELETE FROM study_user_attributes WHERE key = 'vgx ready'",
        "UPDATE studies SET study_name = 'other'",
        "UPDATE alembic_version SET version_num = 'v99'",
        "DROP TABLE trials",
        "UPDATE trials SET state = 'ODD'",
        "UPDATE trial_values SET value = 'text'",
    ],
)
def test_values_that_no_worker_has_written_are_an_error_of_the_storage(file, statement):
    change(file, statement)
    with pytest.raises(vgx.StorageError):
        rows()


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT x FROM n WHERE x = 2"


@pytest.mark.parametrize(
    "statements",
    [
        ("DROP TABLE version_info", f"CREATE VIEW version_info AS {ENDLESS}"),
        (f"CREATE TRIGGER t AFTER UPDATE ON trials BEGIN INSERT INTO trials {ENDLESS}; END",),
        ("CREATE VIRTUAL TABLE t USING fts5(x)",),
    ],
    ids=["view", "trigger", "virtual table"],
)
@pytest.mark.parametrize("new", [False, True])
def test_a_file_with_more_than_tables_is_refused_before_it_is_asked_anything(
    file, monkeypatch, statements, new
):
    """Optuna asks `version_info` when it opens a storage, and this view answers never."""

    def asked(*_, **__):
        raise AssertionError("opened by Optuna")

    change(file, *statements)
    monkeypatch.setattr(optuna.storages, "RDBStorage", asked)
    with pytest.raises(vgx.StorageError, match=r"study\.db: no study that can .* writes: CREATE"):
        storing.connect(storing.address("s", None), 15, new=new)
    with pytest.raises(vgx.StorageError, match="no study that can be read"):
        rows()


def test_what_is_no_file_of_a_study_is_refused_and_not_waited_for(file, tmp_path):
    data = file.read_bytes()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(vgx.StorageError, match="pipe"):
        rows()
    file.unlink()
    (tmp_path / "elsewhere").write_bytes(data)
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(vgx.StorageError, match="link"):
        rows()
    file.unlink()
    for content in (b"", b"text", data[:5000], b"SQLite format 3\0" + bytes(4000)):
        file.write_bytes(content)
        with pytest.raises(vgx.StorageError):
            rows()
    with file.open("wb") as opened:
        opened.truncate(storing.MAX_BYTES + 1)
    with pytest.raises(vgx.StorageError, match="larger than"):
        rows()


@pytest.mark.parametrize(
    "server",
    [
        "redis://host",
        "sqlite:////etc/passwd",
        "mysql://host/x",
        "/tmp/journal.log",
        "postgresql+x://h",
    ],
)
def test_other_storages_are_refused(server):
    """Journals unpickle what they contain."""
    with pytest.raises(vgx.RecipeError, match="PostgreSQL"):
        storing.address("s", server)


@pytest.mark.parametrize("name", ["../s", "", "a/b", ".hidden", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(vgx.RecipeError, match="name of a study"):
        storing.address(name, None)


def test_a_password_is_in_no_message():
    with pytest.raises(vgx.VgxError) as fault:
        storing.join("s", "postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(fault.value)
    assert storing.hidden("postgresql://me:s3c@h/x") == "postgresql://me:***@h/x"
    assert storing.hidden("postgresql://me:p@ss@h/x") == "postgresql://me:***@h/x"
    given = "postgresql://me@h/x?password=s3c&sslmode=require"
    assert storing.hidden(given) == "postgresql://me@h/x?password=***&sslmode=require"


def test_the_page_reads_no_run_but_the_trials_own(file, tmp_path, monkeypatch):
    """The name of a run is what a stranger wrote: no other folder of the user is shown."""
    monkeypatch.setenv("VGX_RUNS", str(tmp_path / "runs"))
    other = tmp_path / "runs" / "0001-tiny"
    (other / "samples").mkdir(parents=True)
    secret = tmp_path / "secret"
    (secret / "samples").mkdir(parents=True)
    for folder in (other, secret):
        recipe = vgx.load_recipe(TINY, {"losses.1.weight": 55}, REGISTRY)
        (folder / "recipe.yaml").write_text(vgx.dump_recipe(recipe))
        (folder / "samples" / "step-00000001.png").write_bytes(b"no image")
    for name in ("0001-tiny", "../secret", str(secret), ".."):
        change(file, ATTRIBUTE.format(json.dumps({"0": name}), "runs"))
        with contextlib.closing(storing.join("s", None)) as study:
            found = results.rows_of(study)
            data = gather(study, found, [], [], Machine(None, None, (), REGISTRY, None))
        assert data["images"] == []
        assert data["notices"] == []


def test_optunas_own_programs_read_the_study(file):
    dashboard = pytest.importorskip("optuna_dashboard")
    from optuna.storages import RDBStorage

    storage = RDBStorage(f"sqlite:///{file}")
    app = dashboard.wsgi(storage)
    answers = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "SERVER_NAME": "x",
        "SERVER_PORT": "80", "wsgi.url_scheme": "http",
    }  # fmt: skip
    body = b"".join(app(environ, lambda status, _headers, *_: answers.append(status)))
    storage.remove_session()
    storage.engine.dispose()
    assert answers == ["200 OK"]
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["s"]
