"""A hub on this machine: the requests of the Hugging Face hub that a model's way there and back takes.

`huggingface_hub`'s own client speaks to it, so what is tested is what happens on the wire.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1] if self.commits else {}

    def commit(self, added: dict[str, bytes]) -> str:
        files = {**self.files, **added}
        text = "".join(f"{name}{len(self.commits)}" for name in sorted(files)).encode()
        sha = hashlib.sha1(text + b"".join(files[name] for name in sorted(files))).hexdigest()
        self.commits.append((sha, files))
        return sha


@dataclass
class StandInHub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """ "POST /api/..." in their order."""
    messages: list[str] = field(default_factory=list)
    """Of commits."""
    tokens: set[str | None] = field(default_factory=set)
    writable: bool = True
    endpoint: str = ""

    def put(self, name: str, files: dict[str, bytes], **traits: bool) -> str:
        return self.repositories.setdefault(name, Repository(**traits)).commit(files)


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandInHub

    def log_message(self, *_: object) -> None:
        pass

    def _say(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, about: object, status: int = 200, **headers: str) -> None:
        self._say(status, json.dumps(about).encode(), Content_Type="application/json", **headers)

    def _refuse(self, status: int, code: str) -> None:
        self._json({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def _noted(self) -> str:
        path = self.path.split("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization"))
        return path

    def do_GET(self) -> None:
        path = self._noted()
        if path == "/":
            return self._say(200)
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/\w+)?", path)
        if about:
            return self._about(about[1])
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        return self._file(*file.groups()) if file else self._refuse(404, "NotKnownHere")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _about(self, name: str) -> None:
        found = self.hub.repositories.get(name)
        if found is None:
            return self._refuse(404, "RepoNotFound")
        siblings = [{"rfilename": file} for file in found.files]
        sha = found.commits[-1][0] if found.commits else "0" * 40
        return self._json({"id": name, "private": found.private, "sha": sha, "siblings": siblings})

    def _file(self, name: str, revision: str, file: str) -> None:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.headers.get("Authorization")):
            return self._refuse(401, "RepoNotFound")
        if found.gated:
            return self._refuse(403, "GatedRepo")
        states = dict(found.commits)
        sha = found.commits[-1][0] if revision == "main" else revision
        if sha not in states:
            return self._refuse(404, "RevisionNotFound")
        content = states[sha].get(file)
        if content is None:
            return self._json({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        etag = hashlib.sha1(content).hexdigest()
        return self._say(200, content, ETag=f'"{etag}"', X_Repo_Commit=sha)

    def do_POST(self) -> None:
        path = self._noted()
        given = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if not self.hub.writable:
            return self._json({"error": "no"}, 403)
        if path == "/api/repos/create":
            return self._create(json.loads(given))
        asked = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        if asked and asked[2] == "preupload":
            files = [file["path"] for file in json.loads(given)["files"]]
            how = {"uploadMode": "regular", "shouldIgnore": False}
            return self._json({"files": [{"path": file, **how} for file in files]})
        return self._commit(asked[1], given) if asked else self._refuse(404, "NotKnownHere")

    def _create(self, asked: dict[str, str]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        exists = name in self.hub.repositories
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repositories.setdefault(name, Repository(private))
        self._json({"url": f"{self.hub.endpoint}/{name}", "id": name}, 409 if exists else 200)

    def _commit(self, name: str, given: bytes) -> None:
        head, *files = (json.loads(line) for line in given.splitlines())
        added = {f["value"]["path"]: base64.b64decode(f["value"]["content"]) for f in files}
        self.hub.messages.append(head["value"]["summary"])
        sha = self.hub.repositories[name].commit(added)
        url = f"{self.hub.endpoint}/{name}/commit/{sha}"
        self._json({"success": True, "commitUrl": url, "commitOid": sha})


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Answers until the context ends."""
    hub = StandInHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
