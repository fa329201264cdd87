"""A registry in this process, a store of blobs, and what to reach the one with for the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.registry import FakeRegistry, running
from unionfuse.image.reference import Reference
from unionfuse.image.registry.connection import Connection, ConnectionOptions, Timeouts
from unionfuse.image.registry.endpoint import Trust
from unionfuse.image.registry.retry import RetryPolicy
from unionfuse.image.store.blobs import Blobs

QUICK = RetryPolicy(attempts=3, first_delay=0.001, max_delay=0.002)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with running(FakeRegistry()) as registry:
        yield registry


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    (tmp_path / "tmp").mkdir()
    return Blobs(tmp_path / "blobs", tmp_path / "tmp")


@dataclass(frozen=True)
class Reach:
    """How tests reach the registry."""

    registry: FakeRegistry
    options: ConnectionOptions

    def connection(self, repository: str = "box") -> Connection:
        return Connection(self.registry.host, repository, self.options)

    def reference(self, name: str = "box:latest") -> Reference:
        return Reference.parse(f"{self.registry.host}/{name}")


@pytest.fixture
def reach(registry: FakeRegistry, tmp_path: Path) -> Reach:
    options = ConnectionOptions(
        trust=Trust(plain_http=True),
        auth_files=(tmp_path / "auth.json",),
        retry=QUICK,
        timeouts=Timeouts(),
    )
    return Reach(registry, options)
