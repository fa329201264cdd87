"""A client of the snapshotter, over gRPC as containerd is one, and the process that it talks to."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import grpc

from tests.support.mounts import REPOSITORY
from unionfuse.snapshots import protobuf
from unionfuse.snapshots.messages import (
    SERVICE,
    CommitRequest,
    Empty,
    FieldMask,
    Info,
    InfoResponse,
    KeyRequest,
    ListRequest,
    ListResponse,
    Mount,
    MountsResponse,
    PrepareRequest,
    UpdateRequest,
    UsageResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
TIMEOUT = 30.0


class Client:
    """Calls the methods of the service by their names."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def prepare(self, key: str, parent: str = "", **labels: str) -> tuple[Mount, ...]:
        return self._call("Prepare", PrepareRequest(key, parent, labels), MountsResponse).mounts

    def view(self, key: str, parent: str = "", **labels: str) -> tuple[Mount, ...]:
        return self._call("View", PrepareRequest(key, parent, labels), MountsResponse).mounts

    def mounts(self, key: str) -> tuple[Mount, ...]:
        return self._call("Mounts", KeyRequest(key), MountsResponse).mounts

    def commit(self, name: str, key: str, **labels: str) -> None:
        self._call("Commit", CommitRequest(name, key, labels), Empty)

    def remove(self, key: str) -> None:
        self._call("Remove", KeyRequest(key), Empty)

    def stat(self, key: str) -> Info:
        return self._call("Stat", KeyRequest(key), InfoResponse).info

    def update(self, info: Info, *paths: str) -> Info:
        return self._call("Update", UpdateRequest(info, FieldMask(paths)), InfoResponse).info

    def usage(self, key: str) -> UsageResponse:
        return self._call("Usage", KeyRequest(key), UsageResponse)

    def cleanup(self) -> None:
        self._call("Cleanup", Empty(), Empty)

    def list(self, *filters: str) -> list[Info]:
        call = self._channel.unary_stream(
            f"/{SERVICE}/List", protobuf.encode, functools.partial(protobuf.decode, ListResponse)
        )
        return [
            info for answer in call(ListRequest(filters), timeout=TIMEOUT) for info in answer.info
        ]

    def _call(self, name: str, request: object, answer: type[T]) -> T:
        call = self._channel.unary_unary(
            f"/{SERVICE}/{name}", protobuf.encode, functools.partial(protobuf.decode, answer)
        )
        made: T = call(request, timeout=TIMEOUT)
        return made


@contextlib.contextmanager
def connected(address: Path) -> Iterator[Client]:
    """Yield a client of the snapshotter on the socket `address`, when it serves."""
    # without it, clients of one address share a connection, and what is known of its last end
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"unix:{address}", options=options) as channel:
        grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
        yield Client(channel)


class Process:
    """A `unionfuse snapshotter`, which may be killed and started again.

    Attributes:
        root: where it keeps snapshots.
        address: its socket.
    """

    def __init__(self, base: Path, *options: str) -> None:
        self.root = base / "root"
        self.address = base / "sock"
        self._options = options
        self._log = base / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "unionfuse", "snapshotter", "--root", self.root,
                 "--address", self.address, *self._options],
                cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=TIMEOUT)
        self.process = None
        return code

    def said(self) -> str:
        return self._log.read_text()

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with connected(self.address) as client:
            yield client


@contextlib.contextmanager
def snapshotter(*options: str) -> Iterator[Process]:
    """Yield a snapshotter that serves, with directories of its own."""
    # the path of a socket has to be short
    with tempfile.TemporaryDirectory(prefix="ufs.", dir="/tmp", ignore_cleanup_errors=True) as base:
        made = Process(Path(base), *options)
        made.start()
        try:
            yield made
        finally:
            if made.process is not None:
                made.process.kill()
                made.process.wait(timeout=TIMEOUT)


def directories(root: Path) -> set[str]:
    """Return the names of the directories of snapshots that are there."""
    return set(os.listdir(root / "snapshots"))
