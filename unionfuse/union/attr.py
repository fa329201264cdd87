"""Change attributes: setattr. Twin of fs/overlayfs/inode.c."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from unionfuse.syscalls.fdpath import is_descriptor
from unionfuse.union.backing import backing_fd, backing_path, backing_stat
from unionfuse.union.copy_up import require_upper
from unionfuse.union.state import Union, oserror

if TYPE_CHECKING:
    from unionfuse.union.node import Node


class Changes(NamedTuple):
    """What a setattr changes; None leaves alone. Times in ns since the epoch.

    Attributes:
        killed_bits: mode bits that a change of `size` or owner clears: setuid and setgid,
            unless its caller may keep them.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    killed_bits: int = 0


def clear_mode_bits(node: Node, bits: int) -> bool:
    """Clear these bits of the mode; return whether one of them was set."""
    if not bits:
        return False
    mode = backing_stat(node).st_mode
    if not mode & bits:
        return False
    os.chmod(backing_path(node), stat.S_IMODE(mode & ~bits))
    return True


def set_attr(u: Union, node: Node, changes: Changes) -> None:
    """Apply `changes` to `node`.

    Raises:
        CopyUpNeeded: if a lower file has to be copied up first.
        OSError: EROFS, EISDIR (size of a directory), EPERM, ENOSPC and what the upper says.
    """
    if changes.size is not None:
        if node.fmt != stat.S_IFREG:
            raise oserror(errno.EISDIR if node.fmt == stat.S_IFDIR else errno.EINVAL)
        require_upper(u, node, truncate=changes.size == 0)
        os.ftruncate(backing_fd(u, node, write=True), changes.size)
    else:
        require_upper(u, node)
    path = backing_path(node)
    if changes.uid is not None or changes.gid is not None:
        uid = -1 if changes.uid is None else changes.uid
        gid = -1 if changes.gid is None else changes.gid
        os.chown(path, uid, gid, follow_symlinks=is_descriptor(path))
    if node.fmt == stat.S_IFREG:
        clear_mode_bits(node, changes.killed_bits)
    if changes.mode is not None:
        if node.fmt == stat.S_IFLNK:
            raise oserror(errno.EOPNOTSUPP)
        os.chmod(path, stat.S_IMODE(changes.mode))
    _set_times(node, path, changes)


def _set_times(node: Node, path: bytes, changes: Changes) -> None:
    if changes.atime_ns is None and changes.mtime_ns is None:
        return
    st = backing_stat(node)
    atime = st.st_atime_ns if changes.atime_ns is None else changes.atime_ns
    mtime = st.st_mtime_ns if changes.mtime_ns is None else changes.mtime_ns
    os.utime(path, ns=(atime, mtime), follow_symlinks=is_descriptor(path))
