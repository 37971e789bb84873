"""`vgx watch`: a page of one run for this machine alone, and what its server refuses."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import pytest
from PIL import Image

import vgx
from vgx.console import Console
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.training import session
from vgx_report import overview as listing
from vgx_report.overview import Overview
from vgx_report.watch import Watched, png_of, server

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(folder / "cache"))
        recipe = vgx.load_recipe(TINY, {"train.steps": 6, "train.log_every": 1})
        return session.run(recipe, folder / "runs", console=Console(file=io.StringIO()))


@pytest.fixture
def run(made, tmp_path):
    return Run(Path(shutil.copytree(made.path, tmp_path / made.path.name)))


@contextmanager
def watching(run):
    """Serve the page of a run, or the list of a folder; give a function that asks for a place.

    Places are below the secret.
    """
    listed = isinstance(run, Path)
    watched = Overview(run) if listed else Watched(run, vgx.load_recipe(run.recipe_file))
    serving, address = server(watched)
    thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
    thread.start()
    parts = urlsplit(address)

    def ask(place="", method="GET", host=None, root=parts.path):
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
        headers = {} if host is None else {"Host": host}
        connection.request(method, root + place, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers

    ask.watched, ask.address = watched, address
    try:
        yield ask
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()


def state(ask, known=""):
    code, body, _ = ask(f"state?{known}")
    return json.loads(body) if code == 200 else code


def test_the_page_is_that_of_the_run_and_its_grids_are_those_files(run):
    with watching(run) as ask:
        code, body, headers = ask()
        assert (code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', body.decode())[1]
        assert policy.startswith(
            "default-src 'none'; img-src data: 'self'; connect-src 'self'; style-src 'sha256-"
        )
        data = state(ask)
        assert data["kicker"] == "Run 0001-tiny, done"
        assert ["Steps", "6 of 6"] in data["facts"]
        assert [line["name"] for line in data["curves"]["groups"][-1]["lines"]] == ["speed"]
        frames = data["progress"]["frames"]
        assert [frame["step"] for frame in frames] == [1, 2, 5, 6]
        for name, prefix in (("samples", "step"), ("prior", "prior"), ("recon", "recon")):
            shown = frames[-1][name]
            code, body, headers = ask(shown["uri"])
            assert (code, headers["Content-Type"]) == (200, "image/png")
            sent = Image.open(io.BytesIO(body))
            file = Image.open(run.samples / f"{prefix}-00000006.png")
            assert (sent.size, sent.tobytes()) == (file.size, file.convert(sent.mode).tobytes())
            assert sent.size == (shown["width"], shown["height"])


def test_a_new_state_is_sent_when_the_run_has_one(run):
    lines = run.log_file.read_text().splitlines(keepends=True)
    run.log_file.write_text("".join(lines[:4]))
    (run.path / "ended.json").unlink()
    with run.held(), watching(run) as ask:
        first = state(ask)
        assert first["kicker"] == "Run 0001-tiny, running"
        assert first["curves"]["axes"][0]["step"] == [1, 2, 3, 4]
        assert first["facts"][0] == ["Steps", "4 of 6"]
        assert first["summary"][1] == "It is training. The last line of its log is of step 4."
        seconds = 2 * json.loads(lines[3])["seconds"] / 4  # for the two that are left
        left = dict(first["facts"])["Time left, about"]
        assert float(left.removesuffix(" s")) == pytest.approx(seconds, abs=0.051)
        ask.watched.rested = 0
        assert state(ask, first["live"]["version"]) == 204  # nothing new
        run.log_file.write_text("".join(lines))
        ask.watched.rested = float("inf")
        assert state(ask, first["live"]["version"]) == 204  # it rests, however fast the log grows
        ask.watched.rested = 0
        assert state(ask, first["live"]["version"])["curves"]["axes"][0]["step"][-1] == 6


def test_a_new_state_is_made_when_the_prior_is_trained(run):
    recipe = vgx.load_recipe(run.recipe_file, {"prior": "rectified-flow"})
    watched = Watched(run, recipe)
    before, data = watched.newest()
    assert data["prior"] is None
    (run.path / "prior").mkdir()
    line = {"step": 10, "losses": {"rectified-flow": 2.0}, "metrics": {"held_out": 1.5}}
    Run(run.path / "prior").log(line)
    watched.rested = 0
    after, data = watched.newest()
    assert after > before
    assert [line["values"] for line in data["prior"]["groups"][0]["lines"]] == [[2.0], [1.5]]


def test_a_new_state_is_made_when_a_note_is_written_and_has_the_run_s_family(run, tmp_path):
    other = Run(shutil.copytree(run.path, run.path.with_name("0002-child")))
    about = json.loads((other.path / "environment.json").read_text())
    about["parent"] = {"run": run.path.name, "step": 3, "how": "fork"}
    (other.path / "environment.json").write_text(json.dumps(about))
    watched = Watched(run, vgx.load_recipe(run.recipe_file))
    before, data = watched.newest()
    assert [row["run"] for row in data["family"]] == [run.path.name, "0002-child"]
    (run.path / "note.txt").write_text("less KL")
    watched.rested = 0
    after, data = watched.newest()
    assert after > before
    assert dict(data["facts"])["Note"] == "less KL"


def test_a_training_that_is_killed_is_noticed(run):
    """Its lock ends with it, and no file changes."""
    (run.path / "ended.json").unlink()
    with run.held(), watching(run) as ask:
        first = state(ask)
        assert first["live"]["state"] == "running"
        text = (run.path / "lock").read_text()
        # As the kernel does it: the text stays, and nobody holds the lock.
        with mock.patch.object(Run, "holder", return_value=""):
            ask.watched.rested = 0
            last = state(ask, first["live"]["version"])
        assert (run.path / "lock").read_text() == text
    assert last["kicker"] == "Run 0001-tiny, killed"
    assert last["live"]["state"] == "killed"


def test_grids_are_made_one_at_a_time(run, monkeypatch):
    """However many are asked for at once: each may be as large as is allowed."""
    within, most = [], []
    whole = reading.grid

    def slow(*given):
        within.append(1)
        most.append(len(within))
        time.sleep(0.05)
        within.pop()
        return whole(*given)

    monkeypatch.setattr(reading, "grid", slow)
    given = run, "step-00000006.png", 16 * 16, threading.Lock()
    made = [threading.Thread(target=png_of, args=given) for _ in range(4)]
    for each in made:
        each.start()
    for each in made:
        each.join()
    assert most == [1] * 4


def test_nothing_outside_of_the_run_is_sent(run, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (4, 4), "red").save(secret)
    (run.samples / "step-00000099.png").symlink_to(secret)
    os.mkfifo(run.samples / "step-00000098.png")
    (run.samples / "step-00000097.png").write_text("no image")
    (run.path / "log.jsonl.damaged").write_text("x")
    places = [
        "grids/step-00000099.png", "grids/step-00000098.png", "grids/step-00000097.png",
        "grids/../../secret.png", "grids/..%2f..%2fsecret.png", "grids/%2e%2e/recipe.yaml",
        "grids/timelapse.webp", "grids/", "grids/step-1.png", "log.jsonl", "recipe.yaml",
        "../../../../../../etc/passwd", "/etc/passwd", "checkpoints", "report.html", "state/x",
    ]  # fmt: skip
    with watching(run) as ask:
        assert {place: ask(place)[0] for place in places} == dict.fromkeys(places, 404)
        frames = state(ask)["progress"]["frames"]
        assert max(frame["step"] for frame in frames) == 6
        # The folder of samples may be a link too.
        run.samples.rename(tmp_path / "elsewhere")
        run.samples.symlink_to(tmp_path / "elsewhere")
        assert ask("grids/step-00000006.png")[0] == 404


def test_only_who_knows_the_address_and_asks_this_machine_is_answered(run):
    with watching(run) as ask:
        port = urlsplit(ask.address).port
        assert [ask("state", root=root)[0] for root in ("/", "//", "/wrong/")] == [404] * 3
        # A name that a stranger's page resolves to this machine (DNS rebinding).
        assert ask("state", host=f"evil.example:{port}")[0] == 403
        assert ask("state", host="127.0.0.1.evil.example")[0] == 403
        assert ask("state", host="localhost:9999")[0] == 200  # a tunnel has another port
        assert {ask("state", method=m)[0] for m in ("POST", "PUT", "HEAD", "DELETE")} == {501}
        headers = ask("state")[2]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
        # Nobody on the network reaches it: it listens on the loopback device alone.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)


def listed(ask):
    """The state of a list, whose files are looked at again."""
    ask.watched.rested = 0
    return state(ask)


def test_the_runs_of_a_folder_are_listed_with_their_newest_grids_and_curves(run, tmp_path):
    lines = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    with watching(tmp_path) as ask:
        first = listed(ask)
        (row,) = first["runs"]
        assert (row["name"], row["state"], row["step"], row["of"]) == ("0001-tiny", "done", 6, 6)
        for name in ("l1", "kl"):
            values = [line["losses"][name] for line in lines]
            assert row["curves"][name]["steps"] == [1, 2, 3, 4, 5, 6]
            assert row["curves"][name]["values"] == pytest.approx(values, rel=1e-5)
        code, body, _ = ask(row["page"] + row["grid"]["uri"])
        file = Image.open(run.samples / "step-00000006.png")
        assert (code, Image.open(io.BytesIO(body)).tobytes()) == (200, file.tobytes())
        # A run that begins is listed first, and one that goes on has another line.
        assert state(ask, first["live"]["version"]) == 204
        new = Run(Path(shutil.copytree(run.path, tmp_path / "0002-new")))
        (new.path / "ended.json").unlink()
        new.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines[:4]))
        with new.held():
            second = listed(ask)
            shown = [(each["name"], each["state"], each["step"]) for each in second["runs"]]
            assert shown == [("0002-new", "running", 4), ("0001-tiny", "done", 6)]
            seconds = 2 * lines[3]["seconds"] / 4  # for the two that are left
            left = float(second["runs"][0]["left"].removesuffix(" s"))
            assert left == pytest.approx(seconds, abs=0.051)
            assert second["runs"][1] == row
            new.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            third = listed(ask)
            assert third["runs"][0]["step"] == 6
            assert third["live"]["version"] > second["live"]["version"]
        # The page of each is that of `vgx watch RUN`, and leads back.
        data = json.loads(ask("0002-new/state")[1])
        assert (data["kicker"], data["live"]["up"]) == ("Run 0002-new, killed", "../")
        code, body, headers = ask("0002-new/")
        assert (code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert ask("0002-new/" + data["progress"]["frames"][-1]["recon"]["uri"])[0] == 200
        shutil.rmtree(new.path)
        assert [each["name"] for each in listed(ask)["runs"]] == ["0001-tiny"]
        assert ask("0002-new/")[0] == 404


def test_a_run_is_listed_with_its_metrics_its_note_and_its_parent(run, tmp_path):
    file = run.path / "environment.json"
    parent = {"parent": {"run": "0007-other", "step": 3, "how": "fork"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | parent))
    (run.path / "note.txt").write_text("less KL")
    lines = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    lines[2]["metrics"], lines[4]["metrics"] = {"psnr": 20.0}, {"psnr": 21.0}
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = Overview(tmp_path).newest()[1]["runs"]
    assert (row["note"], row["origin"]) == ("less KL", "a fork of 0007-other at step 3")
    curve = row["curves"]["psnr"]
    assert curve == {"kind": "metrics", "steps": [lines[2]["step"], lines[4]["step"]],
                     "values": [20.0, 21.0]}  # fmt: skip


def test_a_long_list_has_the_newest_runs_and_keeps_few_pages(run, tmp_path, monkeypatch):
    shutil.copytree(run.path, tmp_path / "0002-new")
    monkeypatch.setattr(listing, "MOST", 1)
    monkeypatch.setattr(listing, "OPEN", 1)
    overview = Overview(tmp_path)
    data = overview.newest()[1]
    assert ([row["name"] for row in data["runs"]], data["count"]) == (["0002-new"], 2)
    for each in (run, Run(tmp_path / "0002-new"), run):
        assert overview.page(each).run.path == each.path
        assert [*overview.pages] == [each.path.name]


def test_a_list_shows_runs_of_strangers_and_executes_nothing(run, tmp_path):
    hostile = "<b>a%2f..#?\u00e9"
    run.path.rename(tmp_path / hostile)
    run = Run(tmp_path / hostile)
    with run.log_file.open("a") as log:
        many = {f"term {i} {'x' * i}": 1.0 for i in range(200)}
        log.write(json.dumps({"step": 7, "losses": many}) + "\n")
    (run.samples / "step-00000099.png").symlink_to("/etc/passwd")
    plugin = run.path / "plugins" / "mine.py"
    plugin.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    (tmp_path / "0007-empty").mkdir()
    (tmp_path / "outside").mkdir()
    with watching(tmp_path) as ask:
        rows = {row["name"]: row for row in listed(ask)["runs"]}
        assert rows.keys() == {hostile, "0007-empty"}
        assert rows["0007-empty"]["state"].startswith("broken: no recipe.yaml")
        row = rows[hostile]
        assert len(row["curves"]) == 24
        assert row["grid"]["uri"].startswith("grids/step-00000006.png?")  # the newest is a link
        assert row["page"] == "%3Cb%3Ea%252f..%23%3F%C3%A9/"
        assert ask(row["page"] + "grids/step-00000006.png")[0] == 200
        code, body, headers = ask(row["page"])
        assert (code, headers["Content-Type"]) == (409, "text/plain; charset=utf-8")
        assert "you have not trusted these yet, so they were not executed" in body.decode()
        places = [
            row["page"] + "grids/step-00000099.png", row["page"] + "grids/../../x", "outside/",
            row["page"].rstrip("/"), "..%2f", "../", "%2e%2e/", "0007-empty/grids/x.png", "x/state",
        ]  # fmt: skip
        codes = {place: ask(place)[0] for place in places}
        assert codes.pop("0007-empty/grids/x.png") == 409  # without a recipe
        assert codes == dict.fromkeys(codes, 404)
    assert not (tmp_path / "executed").exists()


def test_a_folder_without_runs_is_waited_for(tmp_path):
    with watching(tmp_path / "later") as ask:
        assert state(ask)["runs"] == []
        assert b"Make one with vgx run RECIPE" in ask()[1]


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(run):
    command = [sys.executable, "-m", "vgx", "watch", str(run.path)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = started.stdout.readline().rsplit(" ", 1)[1].strip()
        assert started.stdout.readline().startswith("Ctrl-C ends this page.")
        parts = urlsplit(address)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
        connection.request("GET", parts.path)
        assert b"0001-tiny" in connection.getresponse().read()
        taken = subprocess.run(
            [*command, "--port", str(parts.port)], capture_output=True, text=True, check=False
        )
        assert taken.returncode == 2
        assert f"port {parts.port}: Address already in use" in taken.stderr
        started.send_signal(2)
        _, err = started.communicate(timeout=60)
        assert (started.returncode, err) == (0, "")
    finally:
        started.kill()
