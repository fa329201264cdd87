"""What is known of all snapshots: one SQLite file, changed in transactions.

A transaction is the moment at which something happens to a snapshot: what a crash leaves beside it
on disk without a row here is nobody's (see `directories`), and there is no row without its
directory. Ids are never used again, so that what is left of one snapshot can not become another's.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

from unionfuse.snapshots.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ServerError,
)
from unionfuse.snapshots.record import Kind, Record, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = 1
_MAX_LABEL = 4096  # bytes of key and value, as containerd has it
_SCHEMA = f"""
CREATE TABLE snapshots (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT NOT NULL UNIQUE,
    parent  INTEGER REFERENCES snapshots (id) ON DELETE RESTRICT,
    kind    INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    size    INTEGER NOT NULL DEFAULT 0,
    inodes  INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX snapshots_by_parent ON snapshots (parent);
CREATE TABLE labels (
    snapshot INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (snapshot, key)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_SELECT = """
SELECT s.id, s.name, coalesce(p.name, ''), s.kind, s.created, s.updated, s.size, s.inodes
FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent
"""
_ANCESTORS = """
WITH RECURSIVE chain (id, parent, depth) AS (
    SELECT id, parent, 0 FROM snapshots WHERE id = ?
    UNION ALL
    SELECT s.id, s.parent, depth + 1 FROM chain JOIN snapshots s ON s.id = chain.parent
)
SELECT id FROM chain WHERE depth > 0 ORDER BY depth
"""


class Store:
    """The snapshots of one root. Not for several threads at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it where there is none.

        Raises:
            ServerError: if it is of another version, or is none.
        """
        try:
            # autocommit: the transactions are ours
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as err:
            raise ServerError(f"{path}: {err}") from None

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # containerd writes down what it was answered, and does not ask again: nothing that was
        # answered may be lost with the power.
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(
                f"written by another unionfuse: version {version}, not {VERSION}"
            )

    def close(self) -> None:
        """Close the file; may be called again."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Let all changes of the body be made, or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def get(self, name: str) -> Record:
        """Return a snapshot.

        Raises:
            NotFound: if there is none.
        """
        row = self._db.execute(f"{_SELECT} WHERE s.name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(f"snapshot {name!r} does not exist")
        return self._record(row)

    def all(self) -> list[Record]:
        """Return every snapshot, the oldest first."""
        labels: dict[int, dict[str, str]] = {}
        for identifier, key, value in self._db.execute("SELECT snapshot, key, value FROM labels"):
            labels.setdefault(identifier, {})[key] = value
        rows = self._db.execute(f"{_SELECT} ORDER BY s.id")
        return [_made(row, labels.get(row[0], {})) for row in rows]

    def ids(self) -> set[int]:
        """Return the ids of all snapshots."""
        return {identifier for (identifier,) in self._db.execute("SELECT id FROM snapshots")}

    def ancestors(self, record: Record) -> list[int]:
        """Return the ids of a snapshot's parents, the nearest first."""
        return [identifier for (identifier,) in self._db.execute(_ANCESTORS, (record.id,))]

    def create(self, kind: Kind, key: str, parent: str, labels: dict[str, str]) -> Record:
        """Add a snapshot that is not committed, in a transaction of the caller's.

        Raises:
            NotFound: if there is no such parent.
            InvalidArgument: if the parent is not committed, or a label too long.
            AlreadyExists: if the name is taken.
        """
        _check_name(key)
        above = self.get(parent) if parent else None
        if above is not None and above.kind is not Kind.COMMITTED:
            raise InvalidArgument(f"parent {parent!r} is not a committed snapshot")
        self._refuse_taken(key)
        now = time.time_ns()
        values = (key, None if above is None else above.id, kind, now, now)
        cursor = self._db.execute(
            "INSERT INTO snapshots (name, parent, kind, created, updated) VALUES (?, ?, ?, ?, ?)",
            values,
        )
        assert cursor.lastrowid is not None, "a row was inserted"
        self._label(cursor.lastrowid, labels)
        return self.get(key)

    def commit(self, key: str, name: str, usage: Usage, labels: dict[str, str]) -> None:
        """Make the active snapshot `key` the committed snapshot `name`; its labels go.

        Raises:
            NotFound: if there is no such snapshot.
            FailedPrecondition: if it is not active.
            AlreadyExists: if the name is taken.
            InvalidArgument: if a label is too long.
        """
        _check_name(name)
        self._refuse_taken(name)
        record = self.get(key)
        refuse_inactive(record)
        now = time.time_ns()
        self._db.execute(
            "UPDATE snapshots SET name = ?, kind = ?, created = ?, updated = ?, size = ?,"
            " inodes = ? WHERE id = ?",
            (name, Kind.COMMITTED, now, now, usage.size, usage.inodes, record.id),
        )
        self._label(record.id, labels)

    def relabel(self, name: str, labels: dict[str, str], paths: tuple[str, ...]) -> Record:
        """Change labels; `paths` are `labels` or `labels.KEY`, none of them means all labels.

        Raises:
            NotFound: if there is no such snapshot.
            InvalidArgument: if another field is to change, or a label is too long.
        """
        record = self.get(name)
        new = dict(record.labels)
        for path in paths or ("labels",):
            key = path.removeprefix("labels.")
            if path == "labels":
                new = dict(labels)
            elif key != path:
                new[key] = labels.get(key, "")
            else:
                raise InvalidArgument(f"can not update field {path!r} of snapshot {name!r}")
        now = time.time_ns()
        self._db.execute("UPDATE snapshots SET updated = ? WHERE id = ?", (now, record.id))
        self._label(record.id, new)
        return self.get(name)

    def remove(self, name: str) -> Record:
        """Forget a snapshot; return what it was.

        Raises:
            NotFound: if there is no such snapshot.
            FailedPrecondition: if it is the parent of another.
        """
        record = self.get(name)
        try:
            self._db.execute("DELETE FROM snapshots WHERE id = ?", (record.id,))
        except sqlite3.IntegrityError:
            raise FailedPrecondition(f"can not remove snapshot {name!r}: it has a child") from None
        return record

    def _refuse_taken(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self.get(name)
            raise AlreadyExists(f"snapshot {name!r} already exists")

    def _label(self, identifier: int, labels: dict[str, str]) -> None:
        for key, value in labels.items():
            if len(key.encode()) + len(value.encode()) > _MAX_LABEL:
                raise InvalidArgument(f"label {key[:64]!r}: over {_MAX_LABEL} bytes with its value")
        self._db.execute("DELETE FROM labels WHERE snapshot = ?", (identifier,))
        self._db.executemany(
            "INSERT INTO labels (snapshot, key, value) VALUES (?, ?, ?)",
            # an empty value is how containerd removes a label
            [(identifier, key, value) for key, value in labels.items() if value],
        )

    def _record(self, row: tuple[int, str, str, int, int, int, int, int]) -> Record:
        found = self._db.execute("SELECT key, value FROM labels WHERE snapshot = ?", (row[0],))
        return _made(row, dict(found))


def refuse_inactive(record: Record) -> None:
    """Refuse to commit what can not be.

    Raises:
        FailedPrecondition: if the snapshot is not active.
    """
    if record.kind is not Kind.ACTIVE:
        raise FailedPrecondition(f"snapshot {record.name!r} is not active")


def _check_name(name: str) -> None:
    if not name:
        raise InvalidArgument("a snapshot needs a name")


def _made(row: tuple[int, str, str, int, int, int, int, int], labels: dict[str, str]) -> Record:
    identifier, name, parent, kind, created, updated, size, inodes = row
    usage = Usage(size, inodes)
    return Record(identifier, name, parent, Kind(kind), created, updated, labels, usage)
