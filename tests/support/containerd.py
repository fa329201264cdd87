"""containerd with our snapshotter beside it, and images for it, made here: there is no network."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import clients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import House

TIMEOUT = 120.0
_LOST_HELPERS = 2  # starts that may fail so
_CONFIG = """\
version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{base}/containerd.sock"
[proxy_plugins.unionfuse]
  type = "snapshot"
  address = "{base}/snapshotter.sock"
"""
_REGISTRY = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {base}/registry}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{level: error}}
"""


@dataclass
class Containerd:
    """A containerd in a house, and the snapshotter that it calls `unionfuse`."""

    house: House
    base: Path
    snapshotter: subprocess.Popen[bytes] | None = None

    def ctr(self, *arguments: str | Path, check: bool = True, timeout: float = TIMEOUT) -> str:
        """Run ctr; return what it prints."""
        command = ["ctr", "--address", f"{self.base}/containerd.sock", *arguments]
        with open(self.base / "output", "w+b") as output:
            done = subprocess.run(
                ["timeout", "-k", "5", str(timeout), *self._entered(*command)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            output.seek(0)
            said = output.read().decode(errors="backslashreplace")
        line = " ".join(map(str, arguments))
        assert not check or done.returncode == 0, f"ctr {line}: {done.returncode}\n{said}"
        return said

    def run(self, image: str, *command: str, options: tuple[str, ...] = ()) -> str:
        """Run a container on our snapshotter; return what it prints.

        On a busy machine containerd's shim itself reaps a mount helper that it waits for; after ten
        such helpers it gives up, whatever they mount.
        """
        for _ in range(_LOST_HELPERS):
            try:
                return self._run(image, command, options)
            except AssertionError as error:
                if "failed with ECHILD" not in str(error):
                    raise
        return self._run(image, command, options)

    def _run(self, image: str, command: tuple[str, ...], options: tuple[str, ...]) -> str:
        name = f"c{time.monotonic_ns()}"
        return self.ctr(
            "run", "--rm", "--snapshotter", "unionfuse", *options, image, name, *command
        )

    def start_snapshotter(self) -> None:
        """Start the snapshotter, and wait until it listens."""
        command = self._entered(
            self.base.parent / "unionfuse", "snapshotter", "--address",
            self.base / "snapshotter.sock", "--root", self.base / "snapshots", "--debug",
        )  # fmt: skip
        with open(self.base / "snapshotter.log", "ab") as log:
            self.snapshotter = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        _wait_for(self.base / "snapshotter.sock")

    def kill_snapshotter(self) -> None:
        """Kill the snapshotter, which says no good-bye."""
        if self.snapshotter is not None:
            self.snapshotter.kill()
            self.snapshotter.wait(timeout=30)
            self.snapshotter = None

    def mounts(self) -> list[str]:
        """Return the mounts of containers and of layers that are being unpacked."""
        seen = Path(f"/proc/{self.house.pid}/mountinfo").read_text().splitlines()
        return [line for line in seen if f"{self.base}/" in line or "containerd-mount" in line]

    def daemons(self) -> list[int]:
        """Return the daemons of mounts of our snapshots."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes()
                if f"{self.base}/snapshots/snapshots/".encode() in line:
                    found.append(int(process.name))
        return found

    def snapshots(self) -> list[str]:
        """Return the names of the directories of our snapshots."""
        return os.listdir(self.base / "snapshots" / "snapshots")

    def _entered(self, *command: str | Path) -> list[str]:
        path = f"PATH={self.base.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        return self.house.enter("env", "-C", self.base, path, "LC_ALL=C.UTF-8", *command)


@contextlib.contextmanager
def containerd(house: House) -> Iterator[Containerd]:
    """Start a containerd and our snapshotter."""
    base = house.base / "ctd"
    base.mkdir()
    clients.mount_program(house.base)
    clients.make_program(house.base, "unionfuse")
    (base / "config.toml").write_text(_CONFIG.format(base=base))
    made = Containerd(house, base)
    made.start_snapshotter()
    with (
        open(base / "log", "wb") as log,
        _running(made._entered("containerd", "--config", base / "config.toml"), log),
    ):
        try:
            _wait_for(base / "containerd.sock")
            yield made
        finally:
            for task in made.ctr("tasks", "ls", "-q", check=False).split():
                made.ctr("tasks", "kill", "--signal", "KILL", task, check=False)
                made.ctr("tasks", "rm", "--force", task, check=False)
    made.kill_snapshotter()


@contextlib.contextmanager
def registry(base: Path) -> Iterator[str]:
    """Start a registry on the loopback; yield its name, HOST:PORT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (base / "registry.yml").write_text(_REGISTRY.format(base=base, port=port))
    with (
        open(base / "registry.log", "wb") as log,
        _running(["docker-registry", "serve", str(base / "registry.yml")], log),
    ):
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            assert time.monotonic() < deadline, "the registry does not listen"
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def _running(command: list[str], log: Any) -> Iterator[None]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(address: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(address))
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {address}")


def image(base: Path, name: str, layers: list[Path]) -> Path:
    """Make an archive of an image of these layers, tars each, in OCI's layout; return it."""
    layout = base / "layout"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, media_type: str, **more: object) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        kind = f"application/vnd.oci.image.{media_type}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    def document(media_type: str, content: object, **more: object) -> dict[str, object]:
        return add(json.dumps(content).encode(), media_type, **more)

    added = [add(layer.read_bytes(), "layer.v1.tar") for layer in layers]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = document(
        "config.v1+json",
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in added]},
            "history": [{"created_by": "tests"} for _ in added],
        },
    )
    manifest = document(
        "manifest.v1+json",
        {"schemaVersion": 2, "config": config, "layers": added},
        annotations={
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name,
        },
    )
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    archive = base / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for entry in ("oci-layout", "index.json", "blobs"):
            tar.add(layout / entry, entry)
    shutil.rmtree(layout)
    return archive


def layer(path: Path, *entries: tuple[str, str | None]) -> Path:
    """Make a layer: names with their content, None for a directory; return its tar."""
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.mtime = 1_000_000_000
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content.encode()))
    return path
