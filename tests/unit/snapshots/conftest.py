"""A snapshotter served from this process, and a client of it."""

from __future__ import annotations

import tempfile
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.support.snapshots import connected
from unionfuse.snapshots.mounts import MountWords
from unionfuse.snapshots.service import Service
from unionfuse.snapshots.snapshotter import Snapshotter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.snapshots import Client


class Current:
    """Passes on to the snapshotter of the test that runs: a server takes 0.2 s to end."""

    snapshotter: Snapshotter

    def __getattr__(self, name: str) -> object:
        return getattr(self.snapshotter, name)


@pytest.fixture(scope="package")
def served() -> Iterator[tuple[Client, Current]]:
    current = Current()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Service(current).handler()])
    with tempfile.TemporaryDirectory() as base:  # the path of a socket has to be short
        server.add_insecure_port(f"unix:{base}/sock")
        server.start()
        with connected(Path(base, "sock")) as client:
            yield client, current
        server.stop(None).wait()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def client(served: tuple[Client, Current], root: Path) -> Iterator[Client]:
    client, current = served
    current.snapshotter = Snapshotter(root, MountWords())
    yield client
    current.snapshotter.close()
