"""Requests on attributes, plain and extended, and on the targets of symlinks."""

from __future__ import annotations

import errno
import stat
import time
from struct import Struct
from typing import TYPE_CHECKING

from unionfuse.fuse.caller import is_in_group, may_keep_suid, visible_xattrs
from unionfuse.fuse.kernel import replies, wire
from unionfuse.fuse.kernel.context import BODY, Context, Handler, Head
from unionfuse.syscalls import inodeflags
from unionfuse.union.fs import Changes
from unionfuse.union.state import oserror

if TYPE_CHECKING:
    from unionfuse.union.fs import UnionFs

_XATTR_NAME = BODY + wire.GETXATTR_IN.size
_FLAGS = Struct("=I")
_NS = 1_000_000_000
_KILLING = wire.FATTR_SIZE | wire.FATTR_UID | wire.FATTR_GID
# Bits of `valid` that say how, not what.
_HOW = 1 << 6 | 1 << 9 | 1 << 10 | wire.FATTR_KILL_SUIDGID  # FH LOCKOWNER CTIME


class AttributeRequests:
    """Handlers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fs = context.fs
        self._replies = context.replies

    def handlers(self) -> dict[int, Handler]:
        """Return the handlers by opcode."""
        return {
            wire.GETATTR: self.getattr,
            wire.SETATTR: self.setattr,
            wire.STATX: self.statx,
            wire.READLINK: self.readlink,
            wire.GETXATTR: self.getxattr,
            wire.LISTXATTR: self.listxattr,
            wire.SETXATTR: self.setxattr,
            wire.REMOVEXATTR: self.removexattr,
            wire.IOCTL: self.ioctl,
            wire.STATFS: self.statfs,
        }

    def getattr(self, head: Head, request: bytes) -> bytes:
        """GETATTR."""
        nodeid = head[3]
        self._context.setid.check(nodeid)
        keep = not self._fs.is_old_nodeid(nodeid)
        return self._replies.attributes(head[2], self._fs.getattr(nodeid), keep=keep)

    def statx(self, head: Head, request: bytes) -> bytes:
        """STATX: comes for what GETATTR does not have, the time of birth."""
        nodeid = head[3]
        self._context.setid.check(nodeid)
        attr, birth = self._fs.getattr(nodeid), self._fs.birth_time(nodeid)
        keep = not self._fs.is_old_nodeid(nodeid)
        return replies.body(head[2], self._replies.statx(attr, birth, keep=keep))

    def setattr(self, head: Head, request: bytes) -> bytes:
        """SETATTR."""
        (valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _) = (
            wire.SETATTR_IN.unpack_from(request, BODY)
        )
        nodeid = head[3]
        killed_bits = 0
        if valid & wire.FATTR_KILL_SUIDGID and valid & _KILLING:
            killed_bits = self._killed_bits(head, nodeid)
        changes = Changes(
            mode=mode if valid & wire.FATTR_MODE else None,
            uid=uid if valid & wire.FATTR_UID else None,
            gid=gid if valid & wire.FATTR_GID else None,
            size=size if valid & wire.FATTR_SIZE else None,
            atime_ns=_time(valid, wire.FATTR_ATIME, wire.FATTR_ATIME_NOW, atime, atime_ns),
            mtime_ns=_time(valid, wire.FATTR_MTIME, wire.FATTR_MTIME_NOW, mtime, mtime_ns),
            killed_bits=killed_bits,
        )
        if not self._context.agreement.has(wire.WRITEBACK_CACHE) or not self._is_told(
            nodeid, valid & ~_HOW, changes
        ):
            self._context.setid.check(nodeid)
            try:
                self._fs.setattr(nodeid, changes)
            except PermissionError:
                if not self._keeps_own_time(nodeid, valid & ~_HOW):
                    raise
            if valid & (wire.FATTR_MODE | wire.FATTR_MTIME):
                self._context.setid.changed(nodeid)
        keep = not self._fs.is_old_nodeid(nodeid)
        return self._replies.attributes(head[2], self._fs.getattr(nodeid), keep=keep)

    def _is_told(self, nodeid: int, valid: int, changes: Changes) -> bool:
        """Tell whether the kernel only tells us what is so already.

        With the write-back cache it is the kernel that keeps mtime and size. It tells the mtime
        of every inode that was written, linked or unlinked; a lower file whose name has just
        gone must not be copied up for that. And it says with a size that it sets the mtime,
        unless the size stays: truncate(2) leaves the time alone then.
        """
        if valid == wire.FATTR_MTIME:
            return self._fs.getattr(nodeid).st.st_mtime_ns == changes.mtime_ns
        if valid == wire.FATTR_SIZE and not changes.killed_bits:
            return self._fs.getattr(nodeid).st.st_size == changes.size
        return False

    def _keeps_own_time(self, nodeid: int, valid: int) -> bool:
        """Tell whether this may be the mtime of an append-only file, which was appended to.

        The kernel sends it before an fsync, which must not fail for it; it can not be set, but
        the append has set one.
        """
        if valid != wire.FATTR_MTIME or not self._context.agreement.has(wire.WRITEBACK_CACHE):
            return False
        [flags] = _FLAGS.unpack(self._fs.inode_flags(nodeid, inodeflags.FS_IOC_GETFLAGS))
        return bool(flags & inodeflags.FS_APPEND_FL)

    def _killed_bits(self, head: Head, nodeid: int) -> int:
        return killed_bits(self._fs, head, nodeid)

    def readlink(self, head: Head, request: bytes) -> bytes:
        """READLINK."""
        return replies.body(head[2], self._fs.readlink(head[3]))

    def getxattr(self, head: Head, request: bytes) -> bytes:
        """GETXATTR."""
        return _sized(head, request, self._fs.getxattr(head[3], request[_XATTR_NAME:-1]))

    def listxattr(self, head: Head, request: bytes) -> bytes:
        """LISTXATTR."""
        listed = visible_xattrs(self._fs.listxattr(head[3]), head[6], head[4])
        return _sized(head, request, b"".join(name + b"\0" for name in listed))

    def setxattr(self, head: Head, request: bytes) -> bytes:
        """SETXATTR: NAME, then the value."""
        # Without SETXATTR_EXT (kernel < 5.13) the struct ends after `flags`.
        size, flags = wire.GETXATTR_IN.unpack_from(request, BODY)
        ext_flags, start = 0, BODY + wire.GETXATTR_IN.size
        if self._context.agreement.has(wire.SETXATTR_EXT):
            _, _, ext_flags, _ = wire.SETXATTR_IN.unpack_from(request, BODY)
            start = BODY + wire.SETXATTR_IN.size
        name, _, value = request[start:].partition(b"\0")
        kill_sgid = bool(ext_flags & wire.SETXATTR_ACL_KILL_SGID)
        self._fs.setxattr(head[3], name, value[:size], flags, kill_sgid=kill_sgid)
        return replies.done(head[2])

    def removexattr(self, head: Head, request: bytes) -> bytes:
        """REMOVEXATTR."""
        self._fs.removexattr(head[3], request[BODY:-1])
        return replies.done(head[2])

    def ioctl(self, head: Head, request: bytes) -> bytes:
        """IOCTL: the flags of chattr(1); all else is for devices and terminals."""
        _, _, command, _, in_size, _ = wire.IOCTL_IN.unpack_from(request, BODY)
        start = BODY + wire.IOCTL_IN.size
        if command in (inodeflags.FS_IOC_GETFLAGS, inodeflags.FS_IOC_FSGETXATTR):
            found = self._fs.inode_flags(head[3], command)
        elif command in (inodeflags.FS_IOC_SETFLAGS, inodeflags.FS_IOC_FSSETXATTR):
            self._fs.set_inode_flags(head[3], command, request[start : start + in_size])
            found = b""
        else:
            return replies.failed(head[2], errno.ENOTTY)
        return replies.body(head[2], wire.IOCTL_OUT.pack(0, 0, 0, 0) + found)

    def statfs(self, head: Head, request: bytes) -> bytes:
        """STATFS."""
        st = self._fs.statfs()
        return replies.body(
            head[2],
            wire.STATFS_OUT.pack(
                st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree,
                st.f_bsize, st.f_namemax, st.f_frsize, 0,
            ),
        )  # fmt: skip


def killed_bits(fs: UnionFs, head: Head, nodeid: int) -> int:
    """Return the mode bits that a change of data by this caller, without CAP_FSETID, clears.

    Twin of setattr_should_drop_suidgid (fs/attr.c).
    """
    st = fs.getattr(nodeid).st
    bits = st.st_mode & stat.S_ISUID
    if st.st_mode & stat.S_IXGRP or not is_in_group(head[6], head[5], st.st_gid):
        bits |= st.st_mode & stat.S_ISGID
    return bits


def kill_priv(fs: UnionFs, head: Head, nodeid: int) -> None:
    """Clear setuid and setgid after a change of data that does not say whether to."""
    if not may_keep_suid(head[6], head[4]):
        fs.clear_mode_bits(nodeid, killed_bits(fs, head, nodeid))


def _time(valid: int, given: int, now: int, seconds: int, nanoseconds: int) -> int | None:
    if valid & now:
        return time.time_ns()
    return seconds * _NS + nanoseconds if valid & given else None


def _sized(head: Head, request: bytes, value: bytes) -> bytes:
    """Answer a request for an attribute: its size if asked with 0, itself if it fits."""
    (size, _) = wire.GETXATTR_IN.unpack_from(request, BODY)
    if size == 0:
        return replies.body(head[2], wire.GETXATTR_OUT.pack(len(value), 0))
    if len(value) > size:
        raise oserror(errno.ERANGE)
    return replies.body(head[2], value)
