"""Files whose data the kernel reads and writes past the daemon, by backing id.

All opens of one nodeid at a time must go the same way, and by the same backing id, or the kernel
answers them with EIO (fs/fuse/iomode.c). So it is kept, for each nodeid, what the first open got.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.record import mutable_record
from unionfuse.syscalls.backing import backing_close, backing_open

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_IDLE = 512  # files that are not open and whose backing id is kept for the next open


@mutable_record
class Backing:
    """How the opens of one nodeid go.

    Attributes:
        backing_id: 0 for opens that go through the kernel's cache and the daemon.
        is_upper: whether the id is that of the file in the upper.
        opens: how many handles are open; the kernel may have closed some of them already.
    """

    backing_id: int
    is_upper: bool
    opens: int = 0


class Backings:
    """The backing ids of one connection, by nodeid."""

    def __init__(self, fuse_fd: int) -> None:
        """Register files with the connection `fuse_fd`."""
        self._fuse_fd = fuse_fd
        self._by_nodeid: dict[int, Backing] = {}
        self._idle: dict[int, None] = {}  # the longest unused first

    def get(self, nodeid: int) -> Backing | None:
        """Return how `nodeid` is open, or was the last time."""
        return self._by_nodeid.get(nodeid)

    def add(self, nodeid: int, *, is_upper: bool, open_path: Callable[[], int] | None) -> Backing:
        """Decide how `nodeid`, which is not open, is opened now.

        Args:
            nodeid: a regular file.
            is_upper: whether it is in the upper.
            open_path: returns a new descriptor of it, which is closed then; None for opens
                that go through the daemon.
        """
        backing = Backing(0, is_upper)
        if open_path is not None:
            fd = open_path()
            try:
                backing.backing_id = backing_open(self._fuse_fd, fd)
            except OSError:
                pass  # on a filesystem that is stacked itself, or not permitted: through us
            finally:
                os.close(fd)
        self._by_nodeid[nodeid] = backing
        return backing

    def opened(self, nodeid: int, backing: Backing) -> None:
        """Count one more handle."""
        backing.opens += 1
        self._idle.pop(nodeid, None)

    def released(self, nodeid: int) -> int:
        """Count one handle less; return how many are left."""
        backing = self._by_nodeid[nodeid]
        backing.opens -= 1
        if backing.opens == 0:
            self._idle[nodeid] = None
            while len(self._idle) > _MAX_IDLE:
                self.drop(next(iter(self._idle)))
        return backing.opens

    def drop(self, nodeid: int) -> None:
        """Give up what is kept for a nodeid that is not open, so that nothing holds the file."""
        backing = self._by_nodeid.get(nodeid)
        if backing is None or backing.opens:
            return
        del self._by_nodeid[nodeid]
        self._idle.pop(nodeid, None)
        if backing.backing_id:
            backing_close(self._fuse_fd, backing.backing_id)
