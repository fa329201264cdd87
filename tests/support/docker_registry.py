"""docker's registry, of the package docker-registry, on a port of this machine."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.commands import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "kim", "open sesame"
# as `htpasswd -B` makes it of that password
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"


@dataclass(frozen=True)
class DockerRegistry:
    """A registry that runs.

    Attributes:
        host: `ADDRESS:PORT`.
        authority: the certificate that its own is signed with; None if it speaks no TLS.
    """

    host: str
    authority: Path | None


@contextlib.contextmanager
def docker_registry(base: Path, *, private: bool = False) -> Iterator[DockerRegistry]:
    """Run a registry; a private one speaks TLS, and knows one user."""
    base.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(base / "data")}},
        "http": http,
    }
    authority = None
    if private:
        authority = _certify(base)
        http["tls"] = {"certificate": str(base / "own.pem"), "key": str(base / "own.key")}
        (base / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "box", "path": str(base / "htpasswd")}}
    (base / "config.json").write_text(json.dumps(config))  # JSON is YAML
    with open(base / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", base / "config.json"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until(lambda: _listens(port))
        yield DockerRegistry(f"127.0.0.1:{port}", authority)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def _certify(base: Path) -> Path:
    """Make an authority, and a certificate for this machine that it has signed."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    authority, own = base / "authority.pem", base / "own.pem"
    for command in (
        ["-x509", *key, "-subj", "/CN=ca", "-keyout", base / "authority.key", "-out", authority],
        [
            "-x509", *key, "-subj", "/CN=box", "-keyout", base / "own.key", "-out", own,
            "-CA", authority, "-CAkey", base / "authority.key",
            "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
        ],
    ):  # fmt: skip
        subprocess.run(["openssl", "req", *command], check=True, capture_output=True, timeout=30)
    return authority
