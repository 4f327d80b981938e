"""A stand-in of the hub's HTTP interface: repositories, commits, and large files by Git LFS."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = 10 << 20
"""Bytes above which the hub wants a file by LFS."""
Answer = tuple[int, dict[str, Any]]


@dataclass
class Hub:
    """Repositories by name, each with its files, and how they were created."""

    endpoint: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    refuses: bool = False
    parts: int = 1
    """Pieces in which a large file is asked for."""
    loses: bool = False
    """Whether the storage loses a byte of what it is sent."""
    sent: list[bytes] = field(default_factory=list)
    """Pieces of large files, as they came."""
    stored: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """Pieces of large files by digest and number."""
    verified: set[str] = field(default_factory=set)
    commits: list[int] = field(default_factory=list)
    """Bytes of each commit's request."""

    def post(self, path: str, body: bytes) -> Answer:
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._answer_batch(json.loads(body))
        if path.startswith("/storage/"):
            return self._verify(path.split("/")[2], path.endswith("/complete"))
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = {f["path"]: "lfs" if f["size"] > LARGE else "regular" for f in files}
            return 200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]}
        if "/commit/" in path and not self.refuses:
            return self._answer_commit(name, body)
        return 403, {"error": "forbidden"}

    def put(self, path: str, body: bytes) -> Answer:
        _, _, oid, part = path.split("/")
        self.sent.append(body)
        self.stored.setdefault(oid, {})[int(part)] = body[: len(body) - self.loses]
        return 200, {}

    def compute_last_part(self, size: int) -> int:
        return size - (self.parts - 1) * -(-size // self.parts)

    def _create(self, asked: dict[str, Any]) -> Answer:
        name = f"{asked.get('organization', 'me')}/{asked['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.endpoint}/{name}"}
        self.repositories[name] = {}
        self.created.append(asked)
        return 200, {"url": f"{self.endpoint}/{name}", "name": name}

    def _answer_batch(self, asked: dict[str, Any]) -> Answer:
        """Where each object goes: github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md, and the hub's parts."""
        assert asked["operation"] == "upload" and asked["hash_algo"] == "sha256"
        objects = []
        for each in asked["objects"]:
            place = f"{self.endpoint}/storage/{each['oid']}"
            upload: dict[str, Any] = {"href": f"{place}/1"}
            if self.parts > 1:
                header = {str(i): f"{place}/{i}" for i in range(1, self.parts + 1)}
                upload = {
                    "href": f"{place}/complete",
                    "header": {**header, "chunk_size": -(-each["size"] // self.parts)},
                }
            objects.append({**each, "actions": {"upload": upload, "verify": {"href": f"{place}/verify"}}})
        return 200, {"transfer": "multipart" if self.parts > 1 else "basic", "objects": objects}

    def _join_parts(self, oid: str) -> bytes:
        return b"".join(part for _, part in sorted(self.stored[oid].items()))

    def _verify(self, oid: str, partial: bool) -> Answer:
        if partial:
            return 200, {}
        if hashlib.sha256(self._join_parts(oid)).hexdigest() != oid:
            return 400, {"error": "the object's digest is another"}
        self.verified.add(oid)
        return 200, {}

    def _answer_commit(self, name: str, body: bytes) -> Answer:
        self.commits.append(len(body))
        for line in body.decode().splitlines():
            key, value = (json.loads(line)[part] for part in ("key", "value"))
            if key == "file":
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            if key == "lfsFile":
                if value["oid"] not in self.verified:
                    return 400, {"error": "an LFS object is missing"}
                self.repositories[name][value["path"]] = self._join_parts(value["oid"])
        return 200, {"commitUrl": f"{self.endpoint}/{name}/commit/1", "commitOid": "1", "success": True}


@contextmanager
def serve() -> Iterator[Hub]:
    """Within, a hub answers at its `endpoint` on this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, act: Any) -> None:
            code, data = act(self.path.partition("?")[0], self._read())
            text = json.dumps(data).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.send_header("ETag", "a piece")
            self.end_headers()
            self.wfile.write(text)

        def _read(self) -> bytes:
            """The request's body, of a length said before or in chunks that each say theirs."""
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            whole = bytearray()
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(whole)

        def do_POST(self) -> None:
            self._answer(hub.post)

        def do_PUT(self) -> None:
            self._answer(hub.put)

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
