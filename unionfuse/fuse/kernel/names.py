"""Requests on names: look up, forget, make, remove, rename."""

from __future__ import annotations

import logging
import os

from unionfuse.fuse.kernel import wire
from unionfuse.fuse.kernel.context import BODY, Context, Handler, Head
from unionfuse.fuse.kernel.replies import done
from unionfuse.union.state import Caller

log = logging.getLogger(__name__)

_MKNOD_NAME = BODY + wire.MKNOD_IN.size
_MKDIR_NAME = BODY + wire.MKDIR_IN.size
_LINK_NAME = BODY + wire.LINK_IN.size
_RENAME_NAMES = BODY + wire.RENAME_IN.size
_RENAME2_NAMES = BODY + wire.RENAME2_IN.size


class NameRequests:
    """Handlers; a name is what is left of a request, but for the NUL that ends it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fs = context.fs
        self._replies = context.replies

    def handlers(self) -> dict[int, Handler]:
        """Return the handlers by opcode."""
        return {
            wire.LOOKUP: self.lookup,
            wire.FORGET: self.forget,
            wire.BATCH_FORGET: self.batch_forget,
            wire.MKNOD: self.mknod,
            wire.MKDIR: self.mkdir,
            wire.SYMLINK: self.symlink,
            wire.LINK: self.link,
            wire.UNLINK: self.unlink,
            wire.RMDIR: self.rmdir,
            wire.RENAME: self.rename,
            wire.RENAME2: self.rename2,
        }

    def lookup(self, head: Head, request: bytes) -> bytes:
        """LOOKUP; that there is no such name is an answer, which the kernel keeps."""
        entry = self._fs.lookup(head[3], request[BODY:-1])
        if entry is None:
            return self._replies.absent(head[2])
        return self._replies.entry(head[2], entry)

    def forget(self, head: Head, request: bytes) -> None:
        """FORGET: has no reply."""
        self._forget(head[3], wire.FORGET_IN.unpack_from(request, BODY)[0])

    def batch_forget(self, head: Head, request: bytes) -> None:
        """BATCH_FORGET: has no reply."""
        for nodeid, count in wire.FORGET_ONE.iter_unpack(
            request[BODY + wire.BATCH_FORGET_IN.size :]
        ):
            self._forget(nodeid, count)

    def _forget(self, nodeid: int, count: int) -> None:
        try:
            self._context.backings.drop(nodeid)
            self._context.listing_ends.pop(nodeid, None)
            self._fs.forget(nodeid, count)
        except Exception:
            log.exception("forget(%d, %d) failed", nodeid, count)

    def mknod(self, head: Head, request: bytes) -> bytes:
        """MKNOD: files, fifos, sockets and devices."""
        mode, rdev, umask, _ = wire.MKNOD_IN.unpack_from(request, BODY)
        # fuse.h has the kernel's 32-bit form: minor low 8 and high 12 bits around the major.
        device = os.makedev(rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00)
        name = request[_MKNOD_NAME:-1]
        entry = self._fs.mknod(head[3], name, mode, device, Caller(head[4], head[5], umask))
        return self._replies.entry(head[2], entry)

    def mkdir(self, head: Head, request: bytes) -> bytes:
        """MKDIR."""
        mode, umask = wire.MKDIR_IN.unpack_from(request, BODY)
        name = request[_MKDIR_NAME:-1]
        entry = self._fs.mkdir(head[3], name, mode, Caller(head[4], head[5], umask))
        return self._replies.entry(head[2], entry)

    def symlink(self, head: Head, request: bytes) -> bytes:
        """SYMLINK: NAME, then the target."""
        name, target = request[BODY:-1].split(b"\0")
        entry = self._fs.symlink(head[3], name, target, Caller(head[4], head[5], 0))
        return self._replies.entry(head[2], entry)

    def link(self, head: Head, request: bytes) -> bytes:
        """LINK."""
        (nodeid,) = wire.LINK_IN.unpack_from(request, BODY)
        entry = self._fs.link(nodeid, head[3], request[_LINK_NAME:-1])
        return self._replies.entry(head[2], entry)

    def unlink(self, head: Head, request: bytes) -> bytes:
        """UNLINK."""
        self._fs.unlink(head[3], request[BODY:-1])
        return done(head[2])

    def rmdir(self, head: Head, request: bytes) -> bytes:
        """RMDIR."""
        self._fs.rmdir(head[3], request[BODY:-1])
        return done(head[2])

    def rename(self, head: Head, request: bytes) -> bytes:
        """RENAME: the old name, then the new one."""
        (new_parent,) = wire.RENAME_IN.unpack_from(request, BODY)
        old, new = request[_RENAME_NAMES:-1].split(b"\0")
        self._fs.rename(head[3], old, new_parent, new)
        return done(head[2])

    def rename2(self, head: Head, request: bytes) -> bytes:
        """RENAME2: with the flags of renameat2(2)."""
        new_parent, flags, _ = wire.RENAME2_IN.unpack_from(request, BODY)
        old, new = request[_RENAME2_NAMES:-1].split(b"\0")
        self._fs.rename(head[3], old, new_parent, new, flags)
        return done(head[2])
