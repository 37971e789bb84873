"""A hub that refuses, stammers or is too busy: a bounded number of questions, and exit code 8."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hub_server import listening

ANIME = Path(__file__).parents[2] / "recipes" / "anime_vaegan.yaml"


# Requests that are sent before it is known whether the hub works.
FIRST = ("/", "/api/agent-harnesses")


@contextmanager
def answering(code, headers=()):
    """A server on this machine that answers everything alike.

    200 breaks off in mid-sentence, of what it says to be a file of a data set; 0 is one that says
    that it is there, and not a word more.
    """
    requests, over = [], threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(f"{self.command} {self.path}")
            if code == 0 and self.path not in FIRST:
                over.wait()
            self.send_response(code or 200)
            self.send_header("Content-Length", "1000" if code == 200 else "0")
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            if code == 200 and self.command != "HEAD":
                self.wfile.write(b'{"siblings": [')

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with listening(Answer) as address:
        try:
            yield address, requests
        finally:
            over.set()


PROGRAM = """
import sys
from vgx_builtin import hub
{careless}
from vgx.cli import run_program
sys.exit(run_program(sys.argv[1:]))
"""
# The negative control: the hub's own library asks on, and waits for as long as it is bid.
PATIENT = "hub.RetryLimit.before_request = hub.RetryLimit.after_response = lambda *_: None"


def check(folder, address, careless=""):
    """Check a recipe that needs the hub: the process, and how many seconds it took."""
    since = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM.format(careless=careless), "check", str(ANIME)]
    done = subprocess.run(
        [*command, "--set", "dataset.fallback=null"],
        cwd=folder,
        env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done, time.perf_counter() - since


def most(requests):
    """Return how often the most frequent request was sent."""
    return max(Counter(requests).values())


FILE = [("X-Repo-Commit", "c" * 40), ("ETag", "e" * 40)]
HOUR = [("Retry-After", "3600"), ("RateLimit", '"api";r=0;t=3600')]


@pytest.mark.chaos
@pytest.mark.bar("H1")
@pytest.mark.parametrize(
    ("code", "headers"),
    [
        *((code, []) for code in (0, 200, 401, 403, 404, 429, 500, 503)),
        (200, FILE),
        (429, HOUR),
        (503, HOUR),
    ],
)
def test_a_hub_that_gives_nothing_is_exit_8_within_a_minute(tmp_path, code, headers):
    with answering(code, headers) as (address, requests):
        done, seconds = check(tmp_path, address)
    assert done.returncode == 8, done.stderr
    assert seconds < 60
    assert set(requests) - {f"HEAD {path}" for path in FIRST} - {f"GET {path}" for path in FIRST}
    # A download that breaks off is taken up where it ended, five times at most.
    assert most(requests) <= (6 if headers == FILE else 3)
    message = done.stderr[done.stderr.index("vgx: ") :]
    assert "DrishtiSharma/Anime-Face-Dataset" in message
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "hf").rglob("*.parquet"))  # nothing partial is kept as whole


@pytest.mark.chaos
@pytest.mark.bar("H1", control="with the retries of the hub's own library")
def test_without_bounds_it_would_be_asked_again_and_again(tmp_path, record_property):
    with answering(503) as (address, requests):
        done, seconds = check(tmp_path, address, PATIENT)
    assert most(requests) > 5
    record_property(
        "seen", f"{most(requests)} tries, {seconds:.0f} seconds, exit {done.returncode}"
    )
