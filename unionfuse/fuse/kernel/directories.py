"""Requests on directories: their names, with entries or without.

Opening one makes no request (ENOSYS to OPENDIR), and the kernel keeps what it has listed.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from unionfuse.fuse.kernel import replies, wire
from unionfuse.fuse.kernel.context import BODY, Context, Handler, Head

if TYPE_CHECKING:
    from unionfuse.union.node import DirNode

_DOTS = 2  # offsets of `.` and `..`; a cookie of the union follows them


class DirectoryRequests:
    """Handlers."""

    def __init__(self, context: Context) -> None:
        self._fs = context.fs
        self._replies = context.replies
        self._ends = context.listing_ends

    def handlers(self) -> dict[int, Handler]:
        """Return the handlers by opcode."""
        return {wire.READDIR: self.readdir, wire.READDIRPLUS: self.readdirplus}

    def readdir(self, head: Head, request: bytes) -> bytes:
        """READDIR."""
        return self._list(head, request, with_entries=False)

    def readdirplus(self, head: Head, request: bytes) -> bytes:
        """READDIRPLUS: increases nlookup by one for each name but the dots."""
        return self._list(head, request, with_entries=True)

    def _list(self, head: Head, request: bytes, *, with_entries: bool) -> bytes:
        _, offset, size, *_ = wire.READ_IN.unpack_from(request, BODY)
        nodeid = head[3]
        fs, listed = self._fs, self._replies.listed
        if offset == 0:
            self._ends[nodeid] = fs.last_cookie(nodeid)
        end = self._ends.get(nodeid, fs.last_cookie(nodeid))
        directory = fs.directory(nodeid)
        out = [] if offset >= _DOTS else self._dots(directory, offset, with_entries=with_entries)
        room = size - sum(map(len, out))
        fixed = wire.DIRENT.size + (len(self._replies.no_entry) if with_entries else 0)
        for dirent in fs.readdir(nodeid, max(offset - _DOTS, 0)):
            name, cookie = dirent.name, dirent.cookie
            room -= fixed + (len(name) + 7 & ~7)
            if cookie > end or room < 0:
                break
            entry = fs.child(directory, name)
            if entry is None:
                continue
            if with_entries:
                out.append(listed(entry, cookie + _DOTS, name))
            else:
                mode = entry.attr.st.st_mode
                out.append(wire.dirent(entry.node.ino, cookie + _DOTS, mode, name))
                fs.forget(entry.node.nodeid, 1)
        return replies.body(head[2], b"".join(out))

    def _dots(self, directory: DirNode, offset: int, *, with_entries: bool) -> list[bytes]:
        """Return `.` and `..`, as far as they are behind `offset`; they have no entries."""
        no_entry = self._replies.no_entry if with_entries else b""
        dots = ((b".", directory), (b"..", directory.parent or directory))
        return [
            no_entry + wire.dirent(node.ino, at, stat.S_IFDIR, name)
            for at, (name, node) in enumerate(dots, 1)
            if at > offset
        ]
