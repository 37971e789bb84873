"""A hub on this machine: a data set whose files are served in ranges, well or badly."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """Files by commit: {"c1": {"data/train-00000-of-00001.parquet": b"..."}}."""

    def __init__(self, commits, head):
        self.commits, self.head = commits, head
        self.requests, self.sent = [], 0  # paths that ranges are requested of; bytes of the answers
        self.busy = []  # status codes of the next answers to requests for ranges
        self.torn = 0  # how many of the next answers break off
        self.down = False  # every request for a range is refused
        self.slow = 0.0  # seconds before each answer with a range
        self.ranges = True


class Answering:
    """A handler that keeps connections open and prints nothing."""

    protocol_version = "HTTP/1.1"

    def say(self, code, body=b"", **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def listening(handler):
    """A server on loopback whose requests are answered by this class; its address is given."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # the client has left
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serving(hub):
    class Answer(Answering, BaseHTTPRequestHandler):
        def do_GET(self):
            if found := re.match(r"/api/datasets/o/n(/revision/([^?/]+))?(\?|$)", self.path):
                revision = found[2] or "main"
                commit = hub.head if revision == "main" else revision
                names = [{"rfilename": name} for name in hub.commits[commit]]
                body = {"id": "o/n", "sha": commit, "siblings": names}
                return self.say(200, json.dumps(body).encode(), Content_Type="application/json")
            if found := re.match(r"/datasets/o/n/resolve/([^/]+)/(.*)", self.path):
                return self.send_file(hub.commits.get(found[1], {}).get(found[2]), found[1])
            return self.say(200)

        def send_file(self, data, commit):
            if data is None:
                return self.say(404)
            wanted = self.headers.get("Range")
            if wanted is None or not hub.ranges:
                return self.say(200, data, ETag=f'"{commit}"', X_Repo_Commit=commit)
            hub.requests.append(self.path)
            time.sleep(hub.slow)
            if hub.down or hub.busy:
                return self.say(503 if hub.down else hub.busy.pop(0), Retry_After="0")
            first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted).groups()
            if first:
                start, end = int(first), min(int(last), len(data) - 1)
            else:
                start, end = max(len(data) - int(last), 0), len(data) - 1
            body = data[start : end + 1]
            hub.sent += len(body)
            self.send_response(206)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
            self.end_headers()
            if hub.torn:
                hub.torn -= 1
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return None
            self.wfile.write(body)
            return None

        do_HEAD = do_GET  # noqa: N815

    return listening(Answer)
