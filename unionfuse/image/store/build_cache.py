"""What steps of builds have come to, by a key of all that they depend on: ROOT/build-cache/KEY.

A step that is in it keeps its layer in the store, until `image gc --build-cache` drops them all.
A record whose layer is gone, or that can not be read, is as good as none.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

import msgspec

from unionfuse.image.digest import Digest
from unionfuse.image.manifest import Descriptor
from unionfuse.image.store.blobs import as_store_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIRECTORY = "build-cache"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step.

    Attributes:
        created: when, as configs have it.
        descriptor, diff_id, chain_id: of its layer; None of a step that changes no file.
    """

    created: str
    descriptor: Descriptor | None = None
    diff_id: Digest | None = None
    chain_id: Digest | None = None


class BuildCache:
    """The records of a store."""

    def __init__(self, root: Path) -> None:
        """Take those of the store at `root`."""
        self.path = root / DIRECTORY

    def get(self, key: str) -> Record | None:
        """Return what a step has come to."""
        try:
            return msgspec.json.decode((self.path / key).read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def put(self, key: str, record: Record) -> None:
        """Note what a step has come to.

        Raises:
            StoreError: if there is no room.
        """
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            fd, temporary = tempfile.mkstemp(prefix=".", dir=self.path)
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(record))
            # After a crash it may be empty, which is as good as none: it needs no fsync.
            os.rename(temporary, self.path / key)
        except OSError as err:
            raise as_store_error(err) from None

    def records(self) -> Iterator[Record]:
        """Yield all of them."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                record = self.get(name)
                if record is not None:
                    yield record

    def clear(self) -> None:
        """Forget all of them."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                with contextlib.suppress(FileNotFoundError):
                    (self.path / name).unlink()
