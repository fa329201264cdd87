"""The backing of a node: its status, and descriptors of which a bounded number is open.

Data is read and written by node, not by handle: all handles of a file share one page cache
in the kernel, so after copy-up an old handle must not bring the lower's pages back into it.
"""

from __future__ import annotations

import os
import stat

from unionfuse.syscalls.fdpath import fd_path, is_descriptor
from unionfuse.union.node import FD_PATH, FD_READ, FD_WRITE, DirNode, Node
from unionfuse.union.state import Attr, Union


def attr_of(node: Node, st: os.stat_result) -> Attr:
    """Return the attributes of a node that is no directory, whose backing has status `st`."""
    return Attr(node.ino, max(st.st_nlink + node.nlink_delta, 0), st)


def get_attr(node: Node) -> Attr:
    """Return the attributes of `node`."""
    st = backing_stat(node)
    if not isinstance(node, DirNode):
        return attr_of(node, st)
    if node.is_dead:
        return Attr(node.ino, 0, st)
    # overlayfs: the links of a merged directory can not be told without reading it: 1.
    return Attr(node.ino, 1 if node.is_merged else st.st_nlink, st)


def backing_stat(node: Node) -> os.stat_result:
    """Return the status of the backing of `node`."""
    if node.fd >= 0:
        return os.fstat(node.fd)
    if isinstance(node, DirNode):
        return os.fstat(node.top.fd())
    assert node.where is not None, "a node without fd has a place in a layer"
    return os.stat(node.backing_name, dir_fd=node.where.fd(), follow_symlinks=False)


def backing_path(node: Node) -> bytes:
    """Return a path (see `fdpath`) of the backing of `node`, for the next few calls."""
    if node.fd >= 0:
        return fd_path(node.fd)
    if isinstance(node, DirNode):
        return fd_path(node.top.fd())
    assert node.where is not None, "a node without fd has a place in a layer"
    return fd_path(node.where.fd(), node.backing_name)


def backing_fd(u: Union, node: Node, *, write: bool = False) -> int:
    """Return an open descriptor of the backing, good until others were asked for.

    The caller has made sure that the node is in the upper if it is to be written.
    """
    wanted = FD_WRITE if write else FD_READ
    if node.fd < 0 or node.fd_access < wanted:
        fd = _open(node, write)
        if node.fd >= 0:
            os.close(node.fd)
        node.fd, node.fd_access = fd, wanted
    if not node.is_orphan:
        keep_fd(u, node)
    return node.fd


def keep_fd(u: Union, node: Node) -> None:
    """Count the open descriptor of `node` as just used; close the longest unused if too many."""
    open_nodes = u.backing_fds
    open_nodes.pop(node, None)
    open_nodes[node] = None
    while len(open_nodes) > u.options.max_backing_fds:
        oldest = next(iter(open_nodes))
        close_fd(u, oldest)


def close_fd(u: Union, node: Node) -> None:
    """Close the descriptor of the backing; it is reopened when needed."""
    u.backing_fds.pop(node, None)
    if node.fd >= 0:
        os.close(node.fd)
        node.fd = -1
        node.fd_access = FD_PATH


def forget(u: Union, node: Node, count: int) -> None:
    """Take back `count` lookups; let go of the node, and its descriptor, if that was the last."""
    u.table.forget(node, count)
    if node.fd < 0:
        u.backing_fds.pop(node, None)


def adopt_fd(u: Union, node: Node, fd: int) -> None:
    """Take `fd`, open for reading and writing, as the backing of `node`."""
    close_fd(u, node)
    node.fd, node.fd_access = fd, FD_WRITE
    if not node.is_orphan:
        keep_fd(u, node)


def make_orphan(u: Union, node: Node) -> None:
    """Hold the backing by a descriptor, since the name in the layer goes away.

    That also keeps the filesystem from giving its inode number to another file while the
    kernel knows this one by it.
    """
    if node.fd < 0 or (node.opens and node.fd_access == FD_READ):
        if node.opens and node.fmt == stat.S_IFREG:
            backing_fd(u, node, write=True)
        elif node.fd < 0:
            assert node.where is not None, "it has had a name until now"
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            node.fd = os.open(node.backing_name, flags, dir_fd=node.where.fd())
            node.fd_access = FD_PATH
    node.is_orphan = True
    u.backing_fds.pop(node, None)


def _open(node: Node, write: bool) -> int:
    if not node.is_upper:
        return _open_lower(node)
    path = backing_path(node)
    flags = (os.O_RDWR if write else os.O_RDONLY) | _no_follow(path)
    try:
        return os.open(path, flags)
    except PermissionError:
        return _open_own(path, flags)


def _open_own(path: bytes, flags: int) -> int:
    """Open a file of our own whose mode forbids it: the kernel has checked the caller already.

    Only a daemon without CAP_DAC_OVERRIDE comes here, for a handle that was opened when the
    mode allowed it, or by the creation of a read-only file.
    """
    mode = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, mode | stat.S_IRUSR | stat.S_IWUSR)
    try:
        return os.open(path, flags)
    finally:
        os.chmod(path, mode)


def _open_lower(node: Node) -> int:
    path = backing_path(node)
    flags = os.O_RDONLY | _no_follow(path)
    try:
        return os.open(path, flags | os.O_NOATIME)  # reading does not touch a lower
    except PermissionError:  # O_NOATIME is for the owner and CAP_FOWNER
        return os.open(path, flags)


def _no_follow(path: bytes) -> int:
    return 0 if is_descriptor(path) else os.O_NOFOLLOW
