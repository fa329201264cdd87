"""fsync: who is told that data has not reached the disk.

The kernel tells an error of writing back once to each descriptor (errseq), and the daemon has one
for all who have a file open. So it is kept for the node: whoever has the file open is told.

In volatile mode nothing is written for an fsync, but after one such error of the upper every
sync of the mount fails with EIO, for ever (overlayfs.rst, "Volatile mount": ovl_sync_status).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from unionfuse.syscalls.syncfs import check_written, syncfs
from unionfuse.union.fs import ROOT_NODEID
from unionfuse.union.state import oserror

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.union.fs import UnionFs
    from unionfuse.union.node import Node

_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


class Syncs:
    """The syncs of one mount, and what has come of them."""

    def __init__(self, fs: UnionFs, *, volatile: bool) -> None:
        """Sync files of `fs`; with `volatile` nothing is written."""
        self._fs = fs
        self._volatile = volatile
        self._lost: dict[Node, int] = {}  # errno
        self._is_damaged = False

    def file(self, nodeid: int, *, data_only: bool) -> Callable[[], None] | None:
        """Begin to sync a file or directory; return what may wait, None if nothing does.

        That touches a descriptor of its own, so it can run in a thread; it has to be run, and
        raises what the upper says: EIO, ENOSPC, EDQUOT, EROFS.

        Raises:
            OSError: what was met before.
        """
        node = self._fs.node(nodeid)
        if self._volatile:
            self._check(node)
            return None
        if node in self._lost:
            raise oserror(self._lost[node])
        fd = self._fs.sync_fd(nodeid)
        if fd is None:
            return None
        sync = os.fdatasync if data_only else os.fsync

        def job() -> None:
            try:
                sync(fd)
            except OSError as err:
                if err.errno in _LOST:
                    self._lost[node] = err.errno
                raise
            finally:
                os.close(fd)

        return job

    def all(self) -> Callable[[], None] | None:
        """Begin to sync all of the upper, as `file` does."""
        if self._volatile:
            self._check(None)
            return None
        fd = self._fs.sync_fd(ROOT_NODEID)
        if fd is None:
            return None

        def job() -> None:
            try:
                syncfs(fd)
            finally:
                os.close(fd)

        return job

    def _check(self, node: Node | None) -> None:
        if not self._is_damaged and node is not None and (fd := self._fs.file_fd(node)) is not None:
            try:
                check_written(fd)
            except OSError as err:
                if err.errno not in _LOST:
                    raise
                self._is_damaged = True
        if self._is_damaged:
            raise oserror(errno.EIO)
