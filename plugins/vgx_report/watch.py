"""`vgx watch`: the page of a run while it trains, for the browsers of this machine.

The page asks every two seconds for the newest state of the run. The server listens on the loopback
device alone, answers GET alone, and gives the page, the state and the grids of the one run, or of
those in a folder (`overview`). Who does not know the secret in the address gets nothing: other
users of a machine share its loopback device. An address by another name is refused, so that no
other page can read the answers.
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
from typing import Any, Protocol

import vgx
from vgx.errors import VgxError
from vgx.files import opened, require_own
from vgx.runs import reading
from vgx.runs.directory import Run
from vgx.runs.summary import Summary, summarize
from vgx_report import run_data
from vgx_report.html import page
from vgx_report.tables import time_of

FILES = (
    "log.jsonl", "ended.json", "evaluation.json", "environment.json", "audit.json", "lock",
    "note.txt", "prior/log.jsonl", "samples",
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


@dataclass(frozen=True)
class Reply:
    """The answer to a request."""

    code: int
    kind: str = "text/plain; charset=utf-8"
    body: bytes = b""
    kept: str = "no-store"  # how long a browser keeps it


class Shown(Protocol):
    """What a server shows."""

    def answer(self, place: str, query: str) -> Reply:
        """Return the answer to a request for a place below the secret, which begins with /."""


@dataclass
class Watched:
    """A run, and its newest state as the page has it, made again when its files have changed."""

    run: Run
    recipe: vgx.Recipe
    up: str = ""  # the address of the list that the run is in
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
            seen = stamps(self.run, self.how)
            if seen != self.seen and begun >= self.rested:
                with suppress(VgxError):  # a file is damaged: what was known before stays
                    self.state = state_of(self.run, self.recipe)
                    self.version += 1
                self.seen = seen
                self.rested = time.monotonic() + REST * (time.monotonic() - begun)
            live = {"version": self.version, "state": self.how, "up": self.up}
            return self.version, {**self.state, "live": live}

    def answer(self, place: str, query: str) -> Reply:
        """Return the page, its state or a grid."""
        if place == "/":
            return as_page(self.newest()[1], "report")
        if place == "/state":
            return as_news(*self.newest(), query)
        image = self.recipe.image
        pixels = image.height * image.width
        return png_of(self.run, place.removeprefix("/grids/"), pixels, self.drawing)

    @property
    def how(self) -> str:
        """How the training is doing: running, done, stopped, ..."""
        return str(self.state["how"])


def stamps(run: Run, how: str) -> list[object]:
    """Return sizes and times of the files of a run, and whether one that trained still does.

    One that is killed writes nothing. The lock is touched for a running one alone, so that no
    beginning one finds it taken.
    """
    writes = False
    if how == "running":
        with suppress(VgxError):
            writes = bool(run.holder())
    return [*(_stamp(run.path / name) for name in FILES), writes]


def state_of(run: Run, recipe: vgx.Recipe) -> dict[str, Any]:
    """Return the data of a run's page without what needs its networks; grids are addresses."""
    nothing: dict[str, Any] = {"samples": [], "step": None}
    data = run_data.gather(run, recipe, nothing, [], read=lambda file: address_of(run, file))
    now, last = summarize(run), reading.unless_damaged(reading.last_line, run.path) or {"step": 0}
    facts = {"Steps": f"{now.step:,}" + (f" of {now.of:,}" if now.of else "")}
    if now.state == "running":
        data["summary"][1] = (
            f"It is training. The last line of its log is of step {last['step']:,}."
        )
        if left := time_left(now, last):
            facts["Time left, about"] = left
    facts |= {name: value for name, value in data["facts"] if name not in facts}
    kicker = f"Run {run.path.resolve().name}, {now.state}"
    return {**data, "how": now.state, "kicker": kicker, "facts": [*facts.items()]}


def time_left(now: Summary, last: reading.Line) -> str:
    """Return how long a training will still take, by its last logged line; "" if not known."""
    if not (now.of and last["step"] and last.get("seconds")):
        return ""
    return time_of((now.of - now.step) * last["seconds"] / last["step"])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def address_of(run: Run, file: Path) -> dict[str, Any] | None:
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


def png_of(run: Run, name: str, pixels: int, drawing: threading.Lock) -> Reply:
    """Return a grid of images of so many pixels, decoded and encoded again; 404 for no grid.

    One at a time, so that large grids do not fill the memory together.
    """
    if not GRID.fullmatch(name):
        return Reply(404)
    file, encoded = run.samples / name, io.BytesIO()
    with drawing:
        try:
            require_grid(run, file)
            grid = reading.grid(file, pixels)
        except VgxError:
            return Reply(404)
        grid.save(encoded, "PNG", compress_level=1)
    return Reply(200, "image/png", encoded.getvalue(), "private, max-age=86400")


def as_page(data: dict[str, Any], kind: str) -> Reply:
    """Return the page of a kind, which asks for news."""
    text = page(data, kind, live=True)
    return Reply(200, "text/html; charset=utf-8", text.encode(errors="replace"))


def as_news(version: int, data: dict[str, Any], known: str) -> Reply:
    """Return the data of a page, unless the version that the browser knows is the newest."""
    if known == str(version):
        return Reply(204)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    return Reply(200, "application/json", text.encode(errors="replace"))


class Server(ThreadingHTTPServer):
    """A server of a page, whose threads end with the program."""

    daemon_threads = True
    shown: Shown
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
            self.reply(Reply(403))
        elif not secrets.compare_digest(given.encode(), self.server.secret.encode()):
            self.reply(Reply(404))
        else:
            self.reply(self.server.shown.answer(place.removeprefix(f"/{given}"), query))

    def reply(self, reply: Reply) -> None:
        """Send an answer."""
        self.send_response(reply.code)
        headers = {**HEADERS, "Cache-Control": reply.kept}
        if reply.code != 204:
            headers |= {"Content-Type": reply.kind, "Content-Length": str(len(reply.body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Print nothing."""


def server(shown: Shown, port: int = 0) -> tuple[Server, str]:
    """Return a server of a page, and its address; port 0 is a free one.

    Raises `OSError` for a port that is in use.
    """
    started = Server(("127.0.0.1", port), Answer)
    started.shown, started.secret = shown, secrets.token_urlsafe(16)
    return started, f"http://127.0.0.1:{started.server_port}/{started.secret}/"
