"""`vgx watch`: the page of a run while it trains, for the browsers of this machine.

The page asks every two seconds for the newest state of the run. The server listens on the loopback
device alone, answers GET alone, and gives the page, the state and the grids of the one run. Who
does not know the secret in the address gets nothing: other users of a machine share its loopback
device. An address by another name is refused, so that no other page can read the answers.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import vgx
from vgx.errors import VgxError
from vgx.files import opened, require_own
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.summary import summarize
from vgx_report import run_data
from vgx_report.html import page
from vgx_report.tables import time_of

FILES = (
    "log.jsonl", "ended.json", "evaluation.json", "environment.json", "audit.json", "lock",
    "samples",
)  # fmt: skip
GRID = re.compile(r"(?:step|prior|recon)-\d{8,}\.png")
HEADER = b"\x89PNG\r\n\x1a\n"
NAMES = ("127.0.0.1", "localhost", "[::1]")  # of this machine, whatever port a tunnel has
REST = 9  # times the time that a state took: until then the newest one is kept
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass
class Watched:
    """A run, and its newest state as the page has it, made again when its files have changed."""

    run: Run
    recipe: vgx.Recipe
    lock: threading.Lock = field(default_factory=threading.Lock)
    drawing: threading.Lock = field(default_factory=threading.Lock)  # one grid at a time
    seen: list[object] = field(default_factory=list)  # sizes and times of its files, its writer
    rested: float = 0.0  # the time from which a new state may be made
    version: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the first state. Raises `vgx.VgxError` for a run of which none can be made."""
        self.state = state_of(self.run, self.recipe)

    def newest(self) -> tuple[int, dict[str, Any]]:
        """Return the version and the data of the page.

        Making them takes at most a tenth of the time of one processor, however long the log is.
        """
        with self.lock:
            begun = time.monotonic()
            seen = [*(_stamp(self.run.path / name) for name in FILES), self._writes()]
            if seen != self.seen and begun >= self.rested:
                with suppress(VgxError):  # a file is damaged: what was known before stays
                    self.state = state_of(self.run, self.recipe)
                    self.version += 1
                self.seen = seen
                self.rested = time.monotonic() + REST * (time.monotonic() - begun)
            return self.version, {
                **self.state,
                "live": {"version": self.version, "state": self.how},
            }

    def _writes(self) -> bool:
        """Return whether a training that was running still is: one that is killed writes nothing.

        The lock is touched for a running one alone, so that no beginning one finds it taken.
        """
        if self.how != "running":
            return False
        with suppress(VgxError):
            return bool(self.run.holder())
        return False

    @property
    def how(self) -> str:
        """How the training is doing: running, done, stopped, ..."""
        return str(self.state["how"])


def state_of(run: Run, recipe: vgx.Recipe) -> dict[str, Any]:
    """Return the data of a run's page without what needs its networks; grids are addresses."""
    nothing: dict[str, Any] = {"samples": [], "step": None}
    data = run_data.gather(run, recipe, nothing, [], read=lambda file: _address(run, file))
    now, last = summarize(run), reading.unless_damaged(reading.last_line, run.path) or {"step": 0}
    facts = {"Steps": f"{now.step:,}" + (f" of {now.of:,}" if now.of else "")}
    if now.state == "running":
        data["summary"][1] = (
            f"It is training. The last line of its log is of step {last['step']:,}."
        )
        if now.of and last["step"] and last.get("seconds"):
            left = (now.of - now.step) * last["seconds"] / last["step"]
            facts["Time left, about"] = time_of(left)
    facts |= {name: value for name, value in data["facts"] if name not in facts}
    kicker = f"Run {run.path.resolve().name}, {now.state}"
    return {**data, "how": now.state, "kicker": kicker, "facts": [*facts.items()]}


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _address(run: Run, file: Path) -> dict[str, Any] | None:
    """Return the address and the size of a grid; None for what is no grid of this run."""
    try:
        require_grid(run, file)
        with opened(file, reading.MAX_GRID) as png:
            head = png.read(24)
        stamp = file.stat().st_mtime_ns
    except (OSError, VgxError):
        return None
    if not head.startswith(HEADER):
        return None
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    return {"uri": f"grids/{file.name}?{stamp}", "width": width, "height": height}


def require_grid(run: Run, file: Path) -> None:
    """Raise `vgx.StorageError` for a file that is a link, or lies behind one, out of the run."""
    require_own(run.samples)
    require_own(file)


def _png(watched: Watched, name: str) -> bytes | None:
    """Return a grid, decoded and encoded again; None for what is no grid of this run.

    One at a time, so that large grids do not fill the memory together.
    """
    if not GRID.fullmatch(name):
        return None
    file, encoded = watched.run.samples / name, io.BytesIO()
    image = watched.recipe.image
    with watched.drawing:
        try:
            require_grid(watched.run, file)
            grid = reading.grid(file, image.height * image.width)
        except VgxError:
            return None
        grid.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


class Server(ThreadingHTTPServer):
    """A server of one run, whose threads end with the program."""

    daemon_threads = True
    watched: Watched
    secret: str

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: the browser has left."""


class Answer(BaseHTTPRequestHandler):
    """Answers one request."""

    server_version, sys_version, timeout = "vgx", "", 30
    server: Server

    def do_GET(self) -> None:
        """Send the page, the state or a grid; else 403 or 404."""
        name = re.sub(r":\d+$", "", self.headers.get("Host", ""))
        place, _, query = self.path.partition("?")
        given = place.split("/")[1] if place.startswith("/") else ""
        if name not in NAMES:
            self.reply(403)
        elif not secrets.compare_digest(given.encode(), self.server.secret.encode()):
            self.reply(404)
        else:
            self.route(place.removeprefix(f"/{given}"), query)

    def route(self, place: str, query: str) -> None:
        """Answer a request for a place below the secret."""
        watched = self.server.watched
        if place == "/":
            text = page(watched.newest()[1], "report", live=True)
            self.reply(200, "text/html; charset=utf-8", text.encode(errors="replace"))
        elif place == "/state":
            version, data = watched.newest()
            if query == str(version):
                self.reply(204)
            else:
                text = json.dumps(data, ensure_ascii=False, allow_nan=False)
                self.reply(200, "application/json", text.encode(errors="replace"))
        elif place.startswith("/grids/") and (png := _png(watched, place.removeprefix("/grids/"))):
            self.reply(200, "image/png", png, "private, max-age=86400")
        else:
            self.reply(404)

    def reply(
        self, code: int, kind: str = "text/plain", body: bytes = b"", kept: str = "no-store"
    ) -> None:
        """Send an answer."""
        self.send_response(code)
        headers = {**HEADERS, "Cache-Control": kept}
        if code != 204:
            headers |= {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Print nothing."""


def server(watched: Watched, port: int = 0) -> tuple[Server, str]:
    """Return a server of the page of a run, and its address; port 0 is a free one.

    Raises `OSError` for a port that is in use.
    """
    started = Server(("127.0.0.1", port), Answer)
    started.watched, started.secret = watched, secrets.token_urlsafe(16)
    return started, f"http://127.0.0.1:{started.server_port}/{started.secret}/"
