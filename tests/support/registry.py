"""A registry in this process, which keeps what it is sent in memory and misbehaves when told to.

It speaks distribution-spec's API over real sockets, as `docker-registry` does. A fault is called
in place of the usual answer to the requests that it is for:

    registry.fault("GET", "/blobs/", cut_after(1000), times=1)
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER, PASSWORD = "kim", "open sesame"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Request:
    """What came: the path with its query, headers by names in lower case, and the body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Fault:
    method: str
    part: str
    act: Callable[[Handler], None]
    times: int


@dataclass
class FakeRegistry:
    """The registry: what it has, what it was asked, and how it is to behave.

    Attributes:
        blobs: by digest, for all repositories; `owners` are the repositories that show each.
        auth: "", "basic" or "token".
        takes_ranges: whether a part of a blob can be had.
        mounts: whether a blob can be had from another repository.
        chunk_least: what OCI-Chunk-Min-Length says, and holds.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    owners: dict[str, set[str]] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    tokens: dict[str, set[str]] = field(default_factory=dict)
    auth: str = ""
    realm: str = ""
    takes_ranges: bool = True
    mounts: bool = True
    chunk_least: int = 0
    host: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    counter: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def add_blob(self, data: bytes, repository: str = "box") -> dict[str, object]:
        """Have a blob; return the digest and the size of its descriptor."""
        name = digest(data)
        self.blobs[name] = data
        self.owners.setdefault(name, set()).add(repository)
        return {"digest": name, "size": len(data)}

    def add_manifest(
        self, document: dict[str, object], tag: str | None, repository: str = "box"
    ) -> dict[str, object]:
        """Have a manifest or an index; return its descriptor."""
        data = json.dumps(document).encode()
        media_type = str(document["mediaType"])
        name = digest(data)
        for reference in (name, *([tag] if tag else [])):
            self.manifests[repository, reference] = (media_type, data)
        return {"mediaType": media_type, "digest": name, "size": len(data)}

    def fault(
        self, method: str, part: str, act: Callable[[Handler], None], times: int = 1_000_000
    ) -> None:
        """Answer requests of `method` with `part` in their path by `act`, `times` times."""
        self.faults.append(Fault(method, part, act, times))

    def asked(self, method: str, part: str = "") -> list[Request]:
        """Return the requests of `method` that had `part` in their path."""
        return [one for one in self.requests if one.method == method and part in one.path]


@contextlib.contextmanager
def running(registry: FakeRegistry) -> Iterator[FakeRegistry]:
    """Serve `registry` on a free port of this machine, which `registry.host` then names."""

    class Bound(Handler):
        fake = registry

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # it waits for them: no connection is left open
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: clients go away in the middle of it."""

    server = Server(("127.0.0.1", 0), Bound)
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.002,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    fake: FakeRegistry
    protocol_version = "HTTP/1.1"
    timeout = 20
    disable_nagle_algorithm = True  # head and body of an answer are two packets
    body = b""

    def handle_one_request(self) -> None:
        first = self.connection.recv(1, socket.MSG_PEEK)
        if first == b"\x16":  # a handshake of TLS: answered as Go's servers do
            self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            self.close_connection = True
            return
        super().handle_one_request()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        """Say nothing."""

    def serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        url = urlsplit(self.path)
        request = Request(
            self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, b""
        )
        for fault in list(self.fake.faults):
            with self.fake.lock:
                hit = fault.times > 0 and fault.method == self.command and fault.part in self.path
                fault.times -= hit
            if hit:
                self.fake.requests.append(request)
                self.body = b"" if getattr(fault.act, "reads", False) else self.rfile.read(length)
                fault.act(self)
                return
        self.body = self.rfile.read(length)
        self.fake.requests.append(Request(request.method, request.path, request.headers, self.body))
        self.usual(url.path, parse_qs(url.query))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = serve

    def usual(self, path: str, query: dict[str, list[str]]) -> None:
        """Answer as a registry should."""
        if path == "/token":
            self.token(query)
            return
        if path.startswith("/elsewhere/"):
            self.blob(path.removeprefix("/elsewhere/"))
            return
        if not self.is_let_in():
            return
        for pattern, method in (
            (r"/v2/", self.ping),
            (r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)", self.manifest),
            (r"/v2/(?P<name>.+)/blobs/uploads/", self.begin),
            (r"/v2/(?P<name>.+)/blobs/uploads/(?P<upload>[^/]+)", self.go_on),
            (r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)", self.named_blob),
        ):
            match = re.fullmatch(pattern, path)
            if match is not None:
                method(query, **match.groupdict())
                return
        self.error(404, "NAME_UNKNOWN")

    def ping(self, query: dict[str, list[str]]) -> None:
        self.answer(200, b"{}")

    # --- authorization ---

    def is_let_in(self) -> bool:
        shown = self.headers.get("authorization", "")
        if self.fake.auth == "basic":
            wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if shown != f"Basic {wanted}":
                self.error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="box"'})
                return False
        if self.fake.auth == "token":
            scopes = self.fake.tokens.get(shown.removeprefix("Bearer "), set())
            name = re.match(r"/v2/(.+)/(?:blobs|manifests)/", self.path)
            action = "pull" if self.command in ("GET", "HEAD") else "pull,push"
            wanted = f"repository:{name[1] if name else ''}:{action}"
            if not any(scope.startswith(wanted) for scope in scopes):
                realm = self.fake.realm or f"http://{self.fake.host}/token"
                challenge = f'Bearer realm="{realm}",service="box",scope="{wanted}"'
                self.error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
                return False
        return True

    def token(self, query: dict[str, list[str]]) -> None:
        if self.command == "POST":
            form = parse_qs(self.body.decode())
            scopes = form["scope"][0].split()
            if form["refresh_token"] != ["identity"]:
                self.answer(401, b"{}")
                return
        else:
            scopes = query.get("scope", [])
            if self.fake.realm == "private" and "authorization" not in self.headers:
                self.answer(401, b"{}")
                return
        token = f"token-{next(self.fake.counter)}"
        self.fake.tokens[token] = set(scopes)
        self.answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    # --- documents and blobs ---

    def manifest(self, query: dict[str, list[str]], name: str, reference: str) -> None:
        if self.command == "PUT":
            found = digest(self.body)
            media_type = self.headers["content-type"]
            for key in {reference, found}:
                self.fake.manifests[name, key] = (media_type, self.body)
            self.answer(201, b"", {"Docker-Content-Digest": found})
            return
        if (name, reference) not in self.fake.manifests:
            self.error(404, "MANIFEST_UNKNOWN")
            return
        media_type, data = self.fake.manifests[name, reference]
        self.answer(200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest(data)})

    def named_blob(self, query: dict[str, list[str]], name: str, digest: str) -> None:
        if name not in self.fake.owners.get(digest, ()):
            self.error(404, "BLOB_UNKNOWN")
            return
        self.blob(digest)

    def blob(self, name: str) -> None:
        data = self.fake.blobs[name]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        if wanted and self.fake.takes_ranges:
            start = int(wanted[1])
            if start >= len(data):
                self.error(416, "RANGE_INVALID")
                return
            said = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[start:], {"Content-Range": said})
            return
        self.answer(200, data)

    # --- uploads ---

    def begin(self, query: dict[str, list[str]], name: str) -> None:
        if "mount" in query and self.fake.mounts:
            blob, source = query["mount"][0], query["from"][0]
            if source in self.fake.owners.get(blob, ()):
                self.fake.owners[blob].add(name)
                self.answer(201, b"", {"Location": f"/v2/{name}/blobs/{blob}"})
                return
        upload = f"upload-{next(self.fake.counter)}"
        self.fake.uploads[upload] = bytearray()
        headers = {"Location": f"/v2/{name}/blobs/uploads/{upload}?state=a%2Fb"}
        if self.fake.chunk_least:
            headers["OCI-Chunk-Min-Length"] = str(self.fake.chunk_least)
        self.answer(202, b"", headers)

    def go_on(self, query: dict[str, list[str]], name: str, upload: str) -> None:
        data = self.fake.uploads.get(upload)
        if data is None or query.get("state") != ["a/b"]:
            self.error(404, "BLOB_UPLOAD_UNKNOWN")
            return
        if self.command == "PATCH":
            start = int(self.headers["content-range"].partition("-")[0])
            if start != len(data):
                self.error(416, "RANGE_INVALID")
                return
        data += self.body
        if self.command != "PUT":
            headers = {
                "Location": f"/v2/{name}/blobs/uploads/{upload}?state=a%2Fb",
                "Range": f"0-{max(len(data) - 1, 0)}",
            }
            self.answer(202 if self.command == "PATCH" else 204, b"", headers)
            return
        found = digest(bytes(data))
        if [found] != query.get("digest"):
            self.error(400, "DIGEST_INVALID")
            return
        del self.fake.uploads[upload]
        self.fake.add_blob(bytes(data), name)
        self.answer(201, b"", {"Location": f"/v2/{name}/blobs/{found}"})

    # --- answers ---

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        said = {"errors": [{"code": code, "message": f"said\n{code.lower()}"}]}
        self.answer(status, json.dumps(said).encode(), headers)

    def cut(self) -> None:
        """Break the connection as a machine that crashed does."""
        linger = struct.pack("ii", 1, 0)
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()


# --- faults ---


def answers(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> Callable[[Handler], None]:
    """Answer this, whatever is asked."""
    return lambda handler: handler.answer(status, body, headers)


def cut(handler: Handler) -> None:
    """Give no answer at all."""
    handler.cut()


def cut_after(size: int) -> Callable[[Handler], None]:
    """Answer as usual, but break off after so many bytes of a blob."""

    def act(handler: Handler) -> None:
        data = handler.fake.blobs[handler.path.rpartition("/")[2]]
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("range", ""))
        start = int(wanted[1]) if wanted else 0
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start : start + size])
        # closed in order: what was written arrives, and no more
        handler.close_connection = True

    return act


def endless(handler: Handler) -> None:
    """Answer with a body that has no end."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(chunk)


def keeps_a_part(size: int) -> Callable[[Handler], None]:
    """Take so many bytes of an upload and then break the connection."""

    def act(handler: Handler) -> None:
        upload = re.search(r"uploads/([^/?]+)", handler.path)
        assert upload is not None
        handler.fake.uploads[upload[1]] += handler.rfile.read(size)
        handler.cut()

    act.reads = True  # type: ignore[attr-defined]  # it reads the body itself
    return act
