"""Change attributes: setattr. Twin of fs/overlayfs/inode.c."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from unionfuse.syscalls import inodeflags
from unionfuse.union.backing import (
    backing_at,
    backing_fd,
    backing_path,
    backing_stat,
    close_fd,
)
from unionfuse.union.copy_up import require_upper
from unionfuse.union.metacopy import forget_data
from unionfuse.union.node import DirNode
from unionfuse.union.state import Union, oserror

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    path, dir_fd, _ = backing_at(node)
    os.chmod(path, stat.S_IMODE(mode & ~bits), dir_fd=dir_fd)
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
        fd = backing_fd(u, node, write=True)
        os.ftruncate(fd, changes.size)
        forget_data(u, node, fd)
    else:
        require_upper(u, node, attributes=True)
    path, dir_fd, follows = backing_at(node)
    if changes.uid is not None or changes.gid is not None:
        uid = -1 if changes.uid is None else changes.uid
        gid = -1 if changes.gid is None else changes.gid
        os.chown(path, uid, gid, dir_fd=dir_fd, follow_symlinks=follows)
    if node.fmt == stat.S_IFREG:
        clear_mode_bits(node, changes.killed_bits)
    elif isinstance(node, DirNode):
        node.gives = None
    if changes.mode is not None:
        if node.fmt == stat.S_IFLNK:
            raise oserror(errno.EOPNOTSUPP)
        os.chmod(path, stat.S_IMODE(changes.mode), dir_fd=dir_fd)
    if changes.atime_ns is not None or changes.mtime_ns is not None:
        times = _times(node, changes)
        os.utime(path, ns=times, dir_fd=dir_fd, follow_symlinks=follows)


def inode_flags(u: Union, node: Node, command: int) -> bytes:
    """Return the flags of chattr(1) of a file or directory, as `command` has them.

    Raises:
        OSError: ENOTTY for anything else, and where the layer's filesystem has none.
    """
    with _opened(node) as fd:
        return inodeflags.get_flags(fd, command)


def set_inode_flags(u: Union, node: Node, command: int, value: bytes) -> None:
    """Set the flags of chattr(1), in the upper, whose filesystem then keeps to them.

    Raises:
        CopyUpNeeded: if a lower file has to be copied up first.
        OSError: EROFS, ENOTTY, EPERM, EOPNOTSUPP.
    """
    require_upper(u, node)
    with _opened(node) as fd:
        inodeflags.set_flags(fd, command, value)
    if not node.is_orphan:
        close_fd(u, node)  # one that is open could write on past them


@contextlib.contextmanager
def _opened(node: Node) -> Iterator[int]:
    if node.fmt not in (stat.S_IFREG, stat.S_IFDIR):
        raise oserror(errno.ENOTTY)
    fd = os.open(backing_path(node), os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _times(node: Node, changes: Changes) -> tuple[int, int]:
    atime, mtime = changes.atime_ns, changes.mtime_ns
    if atime is None or mtime is None:
        st = backing_stat(node)
        atime = st.st_atime_ns if atime is None else atime
        mtime = st.st_mtime_ns if mtime is None else mtime
    return atime, mtime
