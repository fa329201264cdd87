"""Extended attributes and ACLs of nodes, the union's own markers hidden. Twin of xattrs.c."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.syscalls import xattr
from unionfuse.union import acl
from unionfuse.union.backing import backing_at, backing_stat, backing_target
from unionfuse.union.copy_up import require_upper
from unionfuse.union.node import DirNode
from unionfuse.union.state import Union, oserror

if TYPE_CHECKING:
    from unionfuse.union.node import Node


def get_xattr(u: Union, node: Node, name: bytes) -> bytes:
    """Return an attribute of the node itself, a symlink too.

    Raises:
        OSError: ENODATA if there is none, EOPNOTSUPP if there can be none.
    """
    stored = u.xattr_names.stored(name)
    if stored is None:
        raise oserror(errno.ENODATA)
    return xattr.get(backing_target(node), stored)


def list_xattrs(u: Union, node: Node) -> list[bytes]:
    """Return the names of all attributes that are not the union's own."""
    shown = (u.xattr_names.shown(name) for name in xattr.names(backing_target(node)))
    return [name for name in shown if name is not None]


def set_xattr(
    u: Union, node: Node, name: bytes, value: bytes, flags: int = 0, *, kill_sgid: bool = False
) -> None:
    """Set an attribute; `flags` are os.XATTR_CREATE and os.XATTR_REPLACE.

    Args:
        u: the union.
        node: of any kind.
        name: its name.
        value: its value.
        flags: as setxattr(2).
        kill_sgid: an access ACL clears setgid, since its caller is not of the group
            (fuse.h: FUSE_SETXATTR_ACL_KILL_SGID).

    Raises:
        CopyUpNeeded: if a lower file has to be copied up first.
        OSError: EPERM, EOPNOTSUPP, EEXIST, ENODATA, ENOSPC, EROFS.
    """
    stored = u.xattr_names.stored(name)
    if stored is None:
        raise oserror(errno.EPERM)
    require_upper(u, node, attributes=True)
    if isinstance(node, DirNode):
        node.gives = None
    xattr.set_(backing_target(node), stored, value, flags)
    if name == acl.ACCESS and kill_sgid:
        mode = backing_stat(node).st_mode
        if mode & stat.S_ISGID:
            path, dir_fd, _ = backing_at(node)
            os.chmod(path, stat.S_IMODE(mode & ~stat.S_ISGID), dir_fd=dir_fd)


def remove_xattr(u: Union, node: Node, name: bytes) -> None:
    """Remove an attribute; nothing is copied up for one that is not there.

    Raises:
        CopyUpNeeded: if a lower file has to be copied up first.
        OSError: ENODATA, EPERM, EOPNOTSUPP, EROFS.
    """
    stored = u.xattr_names.stored(name)
    if stored is None:
        raise oserror(errno.ENODATA)
    u.writable()
    if not node.is_upper:
        xattr.get(backing_target(node), stored)
    require_upper(u, node, attributes=True)
    if isinstance(node, DirNode):
        node.gives = None
    xattr.remove(backing_target(node), stored)
