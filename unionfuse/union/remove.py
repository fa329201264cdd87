"""Remove names: unlink and rmdir. Twin of dir.c (ovl_do_remove)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.union.backing import backing_stat, forget, make_orphan
from unionfuse.union.copy_up import keep_count, require_upper
from unionfuse.union.lookup import existing, listing_of
from unionfuse.union.node import FD_PATH, DirNode, Node
from unionfuse.union.state import Union, oserror

if TYPE_CHECKING:
    from collections.abc import Iterator


def unlink(u: Union, parent: DirNode, name: bytes) -> None:
    """Remove `name`, which is no directory.

    A whiteout is left only where a lower layer has the name.

    Raises:
        OSError: EROFS, ENOENT, EISDIR, ENOSPC.
    """
    upper = u.writable()
    kind = listing_of(parent).get(name)
    if kind is None:
        raise oserror(errno.ENOENT)
    if kind.fmt == stat.S_IFDIR:
        raise oserror(errno.EISDIR)
    node = existing(u, parent, name)
    if not kind.in_upper:
        keep_count(u, node, parent, name)
        kind = listing_of(parent).kinds[name]
    require_upper(u, parent)
    assert parent.upper is not None
    dir_fd = parent.upper.fd()
    if kind.in_upper:
        leave_name(u, node, parent, name)
        if kind.covers:
            upper.replace_by_whiteout(dir_fd, name, is_dir=False)
        else:
            os.unlink(name, dir_fd=dir_fd)
    else:
        upper.whiteout(dir_fd, name)
    remove_name(parent, name, leaves_whiteout=kind.covers)
    name_gone(u, node, parent, name, was_in_upper=kind.in_upper)
    forget(u, node, 0)


def rmdir(u: Union, parent: DirNode, name: bytes) -> None:
    """Remove the directory `name`, which shows empty, whatever whiteouts it holds.

    Raises:
        OSError: EROFS, ENOENT, ENOTDIR, ENOTEMPTY, ENOSPC.
    """
    upper = u.writable()
    kind = listing_of(parent).get(name)
    if kind is None:
        raise oserror(errno.ENOENT)
    node = existing(u, parent, name)
    if not isinstance(node, DirNode):
        raise oserror(errno.ENOTDIR)
    if len(listing_of(node)):
        raise oserror(errno.ENOTEMPTY)
    require_upper(u, parent)
    assert parent.upper is not None
    dir_fd = parent.upper.fd()
    with directory_held(node):
        if not kind.in_upper:
            upper.whiteout(dir_fd, name)
        elif kind.covers:
            upper.replace_by_whiteout(dir_fd, name, is_dir=True)
        else:
            upper.remove_directory(dir_fd, name)
    remove_name(parent, name, leaves_whiteout=kind.covers)
    directory_gone(u, node, parent, name)


def leave_name(u: Union, node: Node, parent: DirNode, name: bytes) -> None:
    """Prepare `node` for the loss of `name` in the upper, which may be all that leads to it."""
    if node.where is not parent.upper or node.backing_name != name:
        return
    for other, other_name in node.places():
        kind = None if other.listing is None else other.listing.get(other_name)
        if kind is None or not kind.in_upper or (other, other_name) == (parent, name):
            continue
        node.where, node.backing_name = other.upper, other_name
        return
    make_orphan(u, node)


def name_gone(u: Union, node: Node, parent: DirNode, name: bytes, *, was_in_upper: bool) -> None:
    """Note that `name` no longer leads to `node`, and keep its link count."""
    node.drop_place(parent, name)
    if was_in_upper and node.is_orphan:  # most are: there is nothing else to keep
        return
    if not was_in_upper:
        node.nlink_delta -= 1  # the backing has its link still
        has_keys = bool(node.keys)  # it has, or had, more names in its lower
        if has_keys and not node.is_upper and backing_stat(node).st_nlink + node.nlink_delta > 0:
            u.removed_links[node.keys[0]] = -node.nlink_delta
    if u.index is None or node.is_orphan or not u.index.holds(node.where):
        return
    assert node.where is not None
    # By a guess nothing is removed that a name in a lower may still lead to.
    if not node.is_counted or backing_stat(node).st_nlink + node.nlink_delta > 0:
        if not was_in_upper:
            u.index.write_nlink_delta(node.where, node.backing_name, node.nlink_delta)
        return
    make_orphan(u, node)
    u.index.remove(node.where, node.backing_name)
    node.nlink_delta = 0


@contextlib.contextmanager
def directory_held(node: DirNode) -> Iterator[None]:
    """Keep a directory within reach of those who have it open while its name is removed.

    A body that fails leaves it as it was.
    """
    node.fd, node.fd_access = os.dup(node.top.fd()), FD_PATH
    try:
        yield
    except BaseException:
        os.close(node.fd)
        node.fd = -1
        raise


def directory_gone(u: Union, node: DirNode, parent: DirNode, name: bytes) -> None:
    """Note that `name` no longer leads to the directory `node`, which is no more."""
    node.is_dead = True
    node.listing = None
    if node.upper is not None:
        node.upper.forget()
    node.drop_place(parent, name)
    forget(u, node, 0)


def remove_name(parent: DirNode, name: bytes, *, leaves_whiteout: bool) -> None:
    """Take `name` out of the merged listing."""
    listing = listing_of(parent)
    listing.remove(name)
    if leaves_whiteout:
        listing.whiteouts[name] = True
