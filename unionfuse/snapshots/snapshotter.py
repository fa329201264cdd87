"""What can be done with snapshots: the store and the directories, kept in step.

Order is what keeps them in step over a crash. A directory is there before the row that names it,
and its name with it; a row goes before its directory. So a crash leaves directories too many, which
`cleanup` removes, and never a row without its directory.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from unionfuse.snapshots import filters as filter_syntax
from unionfuse.snapshots import mounts as mount_words
from unionfuse.snapshots.directories import Directories, own, wait_until_released
from unionfuse.snapshots.errors import FailedPrecondition
from unionfuse.snapshots.record import Kind, Record, Usage
from unionfuse.snapshots.store import Store, refuse_inactive

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.snapshots.messages import Mount
    from unionfuse.snapshots.mounts import MountWords

log = logging.getLogger(__name__)

DATABASE = "metadata.sqlite3"
# How long a commit waits for the daemon of a mount that was just taken off. A container may also
# be committed while it runs, by whoever knows what that means.
_RELEASE_SECONDS = 5.0
# How long a cleanup waits for one, for each snapshot that is gone.
_UNUSED_SECONDS = 1.0


class Snapshotter:
    """The snapshots below one root. Its methods may be called from several threads."""

    def __init__(self, root: Path, words: MountWords) -> None:
        """Serve the snapshots of `root`, an absolute path; `words` say how they are mounted.

        Raises:
            ServerError: if the store can not be used.
            OSError: if `root` can not be used.
        """
        self._words = words
        self._directories = Directories(root)
        self._store = Store(root / DATABASE)
        self._lock = threading.Lock()  # over the store; never while files are read or removed

    def close(self) -> None:
        """Close the store; may be called again."""
        with self._lock:
            self._store.close()

    def prepare(self, key: str, parent: str, labels: dict[str, str]) -> tuple[Mount, ...]:
        """Make an active snapshot `key` on top of `parent`; return how to mount it.

        Raises:
            SnapshotError: see `Store.create`.
        """
        return self._create(Kind.ACTIVE, key, parent, labels)

    def view(self, key: str, parent: str, labels: dict[str, str]) -> tuple[Mount, ...]:
        """Make a snapshot `key` that only shows `parent`; return how to mount it.

        Raises:
            SnapshotError: see `Store.create`.
        """
        return self._create(Kind.VIEW, key, parent, labels)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return how to mount a snapshot.

        Raises:
            NotFound: if there is none.
            FailedPrecondition: if it is committed.
        """
        with self._lock:
            record = self._store.get(key)
            if record.kind is Kind.COMMITTED:
                raise FailedPrecondition(f"snapshot {key!r} is committed: it can not be mounted")
            return self._mounts(record)

    def commit(self, name: str, key: str, labels: dict[str, str]) -> None:
        """Make the active snapshot `key` a committed one, `name`.

        Raises:
            SnapshotError: see `Store.commit`.
        """
        with self._lock:
            record = self._store.get(key)
            refuse_inactive(record)
        if not wait_until_released(self._directories.fs(record.id), _RELEASE_SECONDS):
            log.warning("snapshot %r is committed as %r while it is mounted", key, name)
        usage = self._directories.usage(record.id)
        with self._lock, self._store.transaction():
            self._store.commit(key, name, usage, labels)

    def remove(self, key: str) -> None:
        """Forget a snapshot; `cleanup` removes its files.

        Raises:
            NotFound: if there is none.
            FailedPrecondition: if it is the parent of another.
        """
        with self._lock, self._store.transaction():
            self._store.remove(key)

    def cleanup(self) -> None:
        """Remove the files of snapshots that are gone, as far as nothing is mounted there."""
        with self._lock:  # or what is just being made would seem to be left
            left = self._directories.left(self._store.ids())
        for directory in left:
            self._remove(directory)

    def stat(self, key: str) -> Record:
        """Return what is known of a snapshot.

        Raises:
            NotFound: if there is none.
        """
        with self._lock:
            return self._store.get(key)

    def update(self, name: str, labels: dict[str, str], paths: tuple[str, ...]) -> Record:
        """Change labels of a snapshot; return it.

        Raises:
            SnapshotError: see `Store.relabel`.
        """
        with self._lock, self._store.transaction():
            return self._store.relabel(name, labels, paths)

    def list(self, filters: tuple[str, ...]) -> list[Record]:
        """Return the snapshots for which any filter holds; all, if there is none.

        Raises:
            InvalidArgument: for a filter that makes no sense.
        """
        is_meant = filter_syntax.parse(filters)
        with self._lock:
            records = self._store.all()
        return [record for record in records if is_meant(record)]

    def usage(self, key: str) -> Usage:
        """Return what a snapshot itself takes on disk; of an active one, by a look at its files.

        Raises:
            NotFound: if there is none.
        """
        record = self.stat(key)
        if record.kind is Kind.ACTIVE:
            return self._directories.usage(record.id)
        return record.usage

    def _create(
        self, kind: Kind, key: str, parent: str, labels: dict[str, str]
    ) -> tuple[Mount, ...]:
        with self._lock:
            made = self._directories.make(has_work=kind is Kind.ACTIVE)
            try:
                with self._store.transaction():
                    record = self._store.create(kind, key, parent, labels)
                    mounts = self._mounts(record)
                    self._own(made, record)
                    self._directories.publish(made, record.id)
            except BaseException:
                self._directories.remove(made)
                raise
            return mounts

    def _remove(self, directory: Path) -> None:
        """Remove what is left of a snapshot, unless a container still uses it: then later."""
        try:
            if wait_until_released(directory / "fs", _UNUSED_SECONDS):
                self._directories.remove(directory)
            else:
                log.warning("%s is not removed yet: it is mounted", directory)
        except FileNotFoundError:  # half of it, or another cleanup was here
            self._directories.remove(directory)
        except OSError as err:
            log.warning("%s is not removed yet: %s", directory, err.strerror)

    def _own(self, made: Path, record: Record) -> None:
        ancestors = self._store.ancestors(record)
        if ancestors:
            self._directories.inherit(made, ancestors[0])
        else:
            root = mount_words.mapped_root(record.labels)
            if root is not None:  # a bind mount maps nothing: the files have to be theirs
                own(made, *root)

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        ancestors = self._store.ancestors(record)
        return mount_words.mounts(record, ancestors, self._directories, self._words)
