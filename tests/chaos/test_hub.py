"""A hub that refuses, stammers or is too busy: a bounded number of questions, and exit code 8."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ANIME = Path(__file__).parents[2] / "recipes" / "anime_vaegan.yaml"


@contextmanager
def answering(code):
    """A server on this machine that answers everything alike; 200 breaks off in mid-sentence."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(code)
            self.send_header("Content-Length", "1000" if code == 200 else "0")
            self.end_headers()
            if code == 200:
                self.wfile.write(b'{"siblings": [')

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.chaos
@pytest.mark.parametrize("code", [200, 401, 403, 404, 429, 500, 503])
def test_a_hub_that_gives_nothing_is_exit_8_within_a_minute(tmp_path, code):
    with answering(code) as (address, asked):
        since = time.perf_counter()
        done = subprocess.run(
            [
                sys.executable, "-m", "vgx", "check", ANIME, "--set", "dataset.fallback=null",
            ],
            cwd=tmp_path,
            env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - since
    assert done.returncode == 8, done.stderr
    assert seconds < 60
    assert 0 < len(asked) <= 20
    message = done.stderr[done.stderr.index("vgx: ") :]
    assert "DrishtiSharma/Anime-Face-Dataset" in message
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "hf").rglob("*.parquet"))  # nothing partial is kept as whole
