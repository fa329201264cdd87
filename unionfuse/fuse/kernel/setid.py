"""Setuid and setgid of files that are written past the daemon.

A write by a process without CAP_FSETID clears them (fs/attr.c). Where the kernel writes past us it
leaves that to nobody: FUSE leaves it to the daemon (HANDLE_KILLPRIV_V2), and the layer's filesystem
sees the daemon, which is root. So a file that has such bits is not opened that way to be written;
and one that gets them while it is, or must be, open that way is watched: when it has changed, the
bits go before anybody is told of them.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from unionfuse.fuse.caller import is_in_group, may_keep_suid

if TYPE_CHECKING:
    from unionfuse.union.fs import UnionFs


SETID = stat.S_ISUID | stat.S_ISGID


class _Writer(NamedTuple):
    pid: int
    uid: int
    gid: int


class SetidWatch:
    """The nodes whose setuid and setgid a write past us should clear."""

    def __init__(self, fs: UnionFs) -> None:
        """Watch nodes of `fs`."""
        self._fs = fs
        self._writers: dict[int, _Writer] = {}  # by nodeid: who opened it last
        self._watched: dict[int, int] = {}  # by nodeid: mtime in ns when the bits were seen

    def opened_to_write(self, nodeid: int, pid: int, uid: int, gid: int) -> None:
        """Note that the kernel writes a file past us for this process."""
        self._writers[nodeid] = _Writer(pid, uid, gid)
        self.changed(nodeid)

    def changed(self, nodeid: int) -> None:
        """Note that mode or mtime of a node may have been changed by its owner, not by a write."""
        writer = self._writers.get(nodeid)
        if writer is None:
            return
        st = self._fs.getattr(nodeid).st
        if st.st_mode & SETID and not may_keep_suid(writer.pid, writer.uid):
            self._watched[nodeid] = st.st_mtime_ns
        else:
            self._watched.pop(nodeid, None)

    def check(self, nodeid: int) -> None:
        """Clear the bits of a node that was written since they were set."""
        if nodeid not in self._watched:
            return
        st = self._fs.getattr(nodeid).st
        if st.st_mtime_ns == self._watched[nodeid]:
            return
        del self._watched[nodeid]
        writer = self._writers[nodeid]
        bits = stat.S_ISUID
        if st.st_mode & stat.S_IXGRP or not is_in_group(writer.pid, writer.gid, st.st_gid):
            bits |= stat.S_ISGID
        self._fs.clear_mode_bits(nodeid, bits)

    def closed(self, nodeid: int) -> None:
        """Note that no handle of a node is open any more."""
        self.check(nodeid)
        self._writers.pop(nodeid, None)
        self._watched.pop(nodeid, None)
