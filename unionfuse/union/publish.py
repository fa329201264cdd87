"""Publish what was copied up: its name in the upper, or its entry in the index.

One rename or link does it; what the directory shows of itself stays as it was.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.stack import UPPER
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.union.listing import kind_of
from unionfuse.union.lookup import key_of, listing_of

if TYPE_CHECKING:
    from unionfuse.union.node import DirNode, Node
    from unionfuse.union.state import Union

log = logging.getLogger(__name__)

_MAY_CHANGE = stat.S_IWUSR | stat.S_IXUSR


def publish(u: Union, node: Node, temp: bytes, st: os.stat_result, origin: bytes | None) -> None:
    """Give a finished temporary its name in the upper, and lead the node there.

    A file that had several names in the lower goes into the index, where all of them find it; one
    whose last name has gone stays open without any.

    Args:
        u: the union.
        node: what was copied up; no directory.
        temp: its copy in WORKDIR/work.
        st: of the source in the lower.
        origin: what the copy has as `overlay.origin`.

    Raises:
        OSError: ENOSPC, EDQUOT, EIO.
    """
    upper = u.writable()
    new_key = key_of(os.stat(temp, dir_fd=upper.work_fd, follow_symlinks=False))
    parent, name = node.parent, node.name
    if u.index is not None and st.st_nlink > 1 and st.st_nlink + node.nlink_delta > 0:
        _enter_index(u, node, temp, st)
        u.table.set_keys(node, (new_key, key_of(st)))  # its names are still in the lower only
        if parent is not None:
            link_from_index(u, node, parent, name)
    elif parent is None:  # its last name went while it was open
        os.unlink(temp, dir_fd=upper.work_fd)
        node.is_orphan = True
        node.where = LayerDir.root(UPPER, upper.work_fd, u.stack.fds)
        u.table.set_keys(node, (new_key,))
    else:
        assert parent.upper is not None, "begin has copied up the parent"
        if origin is not None:
            mark_impure(u, parent)
        with DirectoryKept(parent.upper):
            upper.publish(temp, parent.upper.fd(), name, is_dir=False, over_whiteout=False)
        node.where, node.backing_name = parent.upper, name
        u.table.set_keys(node, (new_key,))
        _now_in_upper(parent, name)


def link_from_index(u: Union, node: Node, parent: DirNode, name: bytes) -> None:
    """Make a name of a file that is in the index, so far in the lower only, a link to it."""
    assert u.index is not None
    assert node.where is not None
    assert parent.upper is not None
    mark_impure(u, parent)
    with DirectoryKept(parent.upper):
        os.link(
            node.backing_name,
            name,
            src_dir_fd=node.where.fd(),
            dst_dir_fd=parent.upper.fd(),
            follow_symlinks=False,
        )
    node.nlink_delta -= 1  # one link more in the upper, as many names as before in the union
    u.index.write_nlink_delta(node.where, node.backing_name, node.nlink_delta)
    _now_in_upper(parent, name)


def has_origin(u: Union, node: Node) -> bool:
    """Tell whether an object in the upper came from a lower, whose number it shows."""
    keys = node.keys
    return bool(keys) and node.ino != u.inodes.number(keys[0])


def mark_impure(u: Union, parent: DirNode) -> None:
    """Mark that a directory may hold objects with an origin (overlayfs: `overlay.impure`)."""
    listing = listing_of(parent)
    if not listing.is_impure and parent.upper is not None:
        u.writable().set_marker(fd_path(parent.upper.fd()), names.IMPURE, b"y")
        listing.is_impure = True


def _enter_index(u: Union, node: Node, temp: bytes, st: os.stat_result) -> None:
    """Publish a file with several names as an entry of the index, where all names find it."""
    assert u.index is not None
    assert node.where is not None
    directory, entry = u.index.place(node.where, node.backing_name, st)
    os.rename(temp, entry, src_dir_fd=u.writable().work_fd, dst_dir_fd=directory.fd())
    node.where, node.backing_name = directory, entry
    node.nlink_delta += st.st_nlink - 1  # as many names as before, but one link in the upper
    u.index.write_nlink_delta(directory, entry, node.nlink_delta)
    u.removed_links.pop(key_of(st), None)


def _now_in_upper(parent: DirNode, name: bytes) -> None:
    listing = listing_of(parent)
    kind = listing.get(name)
    assert kind is not None, "a node with a place is in its parent's listing"
    listing.replace(name, kind_of(kind.fmt, True, kind.covers))


class DirectoryKept:
    """Leave mode and times of an upper directory as they were: copy-up is no change of the tree.

    Without CAP_DAC_OVERRIDE a directory of our own may have to be made writable meanwhile.
    """

    def __init__(self, directory: LayerDir) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        fd = self._directory.fd()
        st = os.fstat(fd)
        self._times = (st.st_atime_ns, st.st_mtime_ns)
        self._mode: int | None = None
        if st.st_mode & _MAY_CHANGE != _MAY_CHANGE and st.st_uid == os.geteuid() != 0:
            self._mode = stat.S_IMODE(st.st_mode)
            os.chmod(fd_path(fd), self._mode | _MAY_CHANGE)

    def __exit__(self, *_: object) -> None:
        path = fd_path(self._directory.fd())
        try:
            if self._mode is not None:
                os.chmod(path, self._mode)
            os.utime(path, ns=self._times)
        except OSError as err:  # the copy-up is published: it must not be taken back for that
            log.warning("mode or times of a directory not kept: %s", err)
