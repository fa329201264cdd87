"""The SQLite database of a store: what is in no blob.

That is which names images have here, and how large layers are. The names are in ROOT/index.json
too, written before the database is, and what is known of a layer is in its directory. So a
database that is lost or damaged can be made anew.

Many processes use it at once: writing is one short transaction, and waits for others'.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from unionfuse.image.digest import Digest
from unionfuse.image.errors import StoreError
from unionfuse.image.manifest import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VERSION = 1  # of the schema, in user_version
SYNCHRONOUS = "FULL"  # a name that a user was told of stays, also where the power fails
_WAIT_SECONDS = 60.0

# This is the reference for what is stored.
_SCHEMA = """
CREATE TABLE name (
    reference TEXT PRIMARY KEY,      -- as str(Reference) has it
    digest TEXT NOT NULL,            -- of a manifest or an index
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,           -- bytes of that document
    named_at INTEGER NOT NULL        -- seconds since 1970
) STRICT, WITHOUT ROWID;
CREATE INDEX name_digest ON name (digest);
CREATE TABLE layer (
    directory TEXT PRIMARY KEY,      -- in layers/
    diff_id TEXT NOT NULL,
    entries INTEGER NOT NULL,
    tar_size INTEGER NOT NULL,       -- bytes of the tar
    size INTEGER NOT NULL            -- bytes of the files
) STRICT, WITHOUT ROWID;
CREATE TABLE upper (
    path TEXT PRIMARY KEY,           -- of a directory that was mounted on an image
    inode INTEGER NOT NULL,          -- of it: another may be there by now
    image TEXT NOT NULL              -- digest of its manifest
) STRICT, WITHOUT ROWID;
"""


class DatabaseDamaged(StoreError):
    """The file is no database any more; what was in it can be found again."""


class Name(NamedTuple):
    """One name of an image, and the document that it means."""

    reference: str
    descriptor: Descriptor
    named_at: int


class LayerFacts(msgspec.Struct, frozen=True):
    """What is known of an unpacked layer; see the schema."""

    directory: str
    diff_id: Digest
    entries: int
    tar_size: int
    size: int


class Database:
    """An open database; any thread may use it."""

    def __init__(self, path: Path, fill: Callable[[Database], None]) -> None:
        """Open the database at `path`, and make it if it is not there.

        Args:
            path: of the file.
            fill: writes into a new one what is to be in it; it is there with that or not at all.

        Raises:
            StoreError: if it is damaged, or of a later version, or can not be filled.
        """
        self._path = path
        self._fill = fill
        self._mutex = threading.RLock()
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self._explained():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        if self._version() == VERSION:
            return
        with self.transaction():
            found = self._version()  # another may have made it meanwhile
            if found > VERSION:
                raise StoreError(
                    f"{self._path} is of version {found}; this unionfuse knows {VERSION}: update it"
                )
            if found == 0:
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._fill(self)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")

    def _version(self) -> int:
        with self._explained():
            row: tuple[int] = self._connection.execute("PRAGMA user_version").fetchone()
        return row[0]

    def close(self) -> None:
        """Close it."""
        with self._mutex:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what the `with` block writes, all or nothing, while no other process writes."""
        with self._mutex, self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def names(self) -> list[Name]:
        """Return all names, in order."""
        return self._names("SELECT * FROM name ORDER BY reference")

    def name(self, reference: str) -> Name | None:
        """Return what a name means."""
        found = self._names("SELECT * FROM name WHERE reference = ?", reference)
        return found[0] if found else None

    def set_name(self, reference: str, descriptor: Descriptor) -> None:
        """Give a name to a document; it may have meant another one before."""
        self._write(
            "INSERT OR REPLACE INTO name VALUES (?, ?, ?, ?, ?)",
            reference,
            descriptor.digest,
            descriptor.media_type,
            descriptor.size,
            int(time.time()),
        )

    def remove_name(self, reference: str) -> None:
        """Forget a name."""
        self._write("DELETE FROM name WHERE reference = ?", reference)

    def layers(self) -> dict[str, LayerFacts]:
        """Return what is known of layers, by their directories."""
        rows = self._read("SELECT directory, diff_id, entries, tar_size, size FROM layer")
        return {str(row[0]): LayerFacts(*row) for row in rows}  # type: ignore[arg-type] # by STRICT

    def set_layer(self, facts: LayerFacts) -> None:
        """Note what a layer was found to be."""
        values = msgspec.structs.astuple(facts)
        self._write("INSERT OR REPLACE INTO layer VALUES (?, ?, ?, ?, ?)", *values)

    def remove_layer(self, directory: str) -> None:
        """Forget what is known of a layer."""
        self._write("DELETE FROM layer WHERE directory = ?", directory)

    def base(self, path: str, inode: int) -> Digest | None:
        """Return the image that an upper was mounted on the last time."""
        rows = self._read("SELECT image FROM upper WHERE path = ? AND inode = ?", path, inode)
        return Digest(str(rows[0][0])) if rows else None

    def set_base(self, path: str, inode: int, image: Digest) -> None:
        """Note the image that an upper is mounted on."""
        self._write("INSERT OR REPLACE INTO upper VALUES (?, ?, ?)", path, inode, image)

    def problem(self) -> str | None:
        """Say what is damaged in the database, None if nothing is."""
        try:
            rows = self._read("PRAGMA integrity_check")
        except DatabaseDamaged as err:
            return str(err)
        return None if rows == [("ok",)] else " ".join(str(rows[0][0]).split())

    def _names(self, query: str, *values: str) -> list[Name]:
        return [
            Name(
                str(reference),
                Descriptor(str(media_type), Digest(str(digest)), int(size)),
                int(named_at),
            )
            for reference, digest, media_type, size, named_at in self._read(query, *values)
        ]

    def _read(self, query: str, *values: str | int) -> list[tuple[str | int, ...]]:
        with self._mutex, self._explained():
            return self._connection.execute(query, values).fetchall()

    def _write(self, query: str, *values: str | int) -> None:
        with self._mutex, self._explained():
            self._connection.execute(query, values)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in a user's words what SQLite can not do."""
        try:
            yield
        except sqlite3.OperationalError as err:
            text = str(err)
            if "full" in text or "disk I/O" in text:
                text = "no room is left for it, or its disk fails; nothing that was in it is lost"
            elif "locked" in text:
                text = f"other commands have kept it for {_WAIT_SECONDS:.0f} s"
            raise StoreError(f"{self._path}: {text}") from None
        except sqlite3.DatabaseError as err:
            raise DatabaseDamaged(
                f"{self._path} is damaged ({err}): `unionfuse image verify --repair` makes it anew"
            ) from None
