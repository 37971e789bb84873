"""A hub on this machine: models that are uploaded and fetched, as huggingface_hub asks for it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from hub_server import Answering, listening


class ModelHub:
    """The files of one model, `o/n`, by commit, and what was asked for."""

    def __init__(self):
        self.commits = {}  # commit: {path: bytes}, the newest last
        self.served = {}  # in place of a commit's files, though the list has those
        self.stored = {}  # uploaded bytes by their SHA-256
        self.requests = []  # method and path
        self.tokens = set()  # seen in requests
        self.visibility = None  # as which the model was made
        self.status = 0  # answered to everything, if not 0
        self.resets = 0  # how many of the next requests for a file end without an answer
        self.elsewhere = ""  # the address that files are redirected to

    @property
    def head(self):
        return list(self.commits)[-1]

    def add(self, files):
        commit = hashlib.sha1(str(len(self.commits)).encode()).hexdigest()
        self.commits[commit] = files
        return commit


def listed(name, data):
    """A file in the hub's list: large ones have a SHA-256 sum, the others that of git."""
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry = {"rfilename": name, "size": len(data), "blobId": blob}
    if name.endswith(".safetensors"):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
    return entry


def serving(hub):  # noqa: C901 - one server
    class Answer(Answering, BaseHTTPRequestHandler):
        def say(self, body=b"", code=200, **headers):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            super().say(code, data, **headers)

        def read(self):
            hub.requests.append(f"{self.command} {self.path}")
            if token := self.headers.get("Authorization"):
                hub.tokens.add(token)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self):
            self.read()
            path = self.path.partition("?")[0]
            if hub.status:
                return self.say({"error": f"no: {self.headers['Authorization']}"}, hub.status)
            if found := re.fullmatch(r"/api/models/o/n(?:/revision/(.*))?", path):
                commit = hub.head if found[1] in (None, "main") else found[1]
                files = [listed(name, data) for name, data in hub.commits[commit].items()]
                return self.say({"id": "o/n", "sha": commit, "siblings": files})
            if re.fullmatch(r"/api/models/o/n/tree/main", path):
                there = hub.commits[hub.head] if hub.commits else {}
                return self.say([
                    {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in there.items()
                ])  # fmt: skip
            if found := re.fullmatch(r"/o/n/resolve/(\w+)/(.*)", path):
                if hub.resets:
                    hub.resets -= 1
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
                if hub.elsewhere:
                    return self.say(code=302, Location=hub.elsewhere + path)
                data = {**hub.commits, **hub.served}[found[1]].get(found[2])
                return self.say(b"", 404) if data is None else self.say(data)
            return self.say({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

        def do_POST(self):
            data = self.read()
            if hub.status:
                return self.say({"error": f"no: {self.headers['Authorization']}"}, hub.status)
            address = f"http://{self.headers['Host']}"
            if self.path == "/api/validate-yaml":
                return self.say({"errors": [], "warnings": []})
            if self.path == "/api/repos/create":
                hub.visibility = json.loads(data).get("visibility")
                return self.say({"url": f"{address}/o/n"})
            if self.path == "/api/models/o/n/preupload/main":
                return self.say({"files": [
                    {"path": file["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                    for file in json.loads(data)["files"]
                ]})  # fmt: skip
            if self.path == "/o/n.git/info/lfs/objects/batch":
                objects = json.loads(data)["objects"]
                return self.say({"transfer": "basic", "objects": [
                    {**each, "actions": {"upload": {"href": f"{address}/lfs/{each['oid']}"}}}
                    for each in objects
                ]})  # fmt: skip
            assert self.path == "/api/models/o/n/commit/main", self.path
            commit = hub.add(self.committed(data))
            return self.say({"commitUrl": f"{address}/o/n/commit/{commit}", "commitOid": commit})

        def committed(self, data):
            files = dict(hub.commits[hub.head]) if hub.commits else {}
            for line in map(json.loads, data.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.stored[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            return files

        def do_PUT(self):
            data = self.read()
            sha = self.path.removeprefix("/lfs/")
            assert hashlib.sha256(data).hexdigest() == sha
            hub.stored[sha] = data
            return self.say()

        do_HEAD = do_GET  # noqa: N815

    return listening(Answer)


@contextmanager
def asked(hub, monkeypatch):
    """The library asks this hub in the block, by plain HTTP."""
    from huggingface_hub import constants

    with serving(hub) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield address
