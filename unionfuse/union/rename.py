"""Rename, with NOREPLACE and EXCHANGE. Twin of dir.c (ovl_rename)."""

from __future__ import annotations

import errno
import os
import stat

from unionfuse.layer.names import is_reserved
from unionfuse.layer.upper import exists
from unionfuse.record import mutable_record
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.rename import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    renameat2,
)
from unionfuse.union.backing import data_stat, forget
from unionfuse.union.copy_up import (
    copy_metadata,
    keep_count,
    require_upper,
    require_upper_name,
)
from unionfuse.union.listing import Kind, kind_of
from unionfuse.union.lookup import NAME_MAX, existing, listing_of
from unionfuse.union.metacopy import keep_within_reach
from unionfuse.union.node import DirNode, Node
from unionfuse.union.publish import has_origin, mark_impure
from unionfuse.union.redirect import redirect_of, set_redirect
from unionfuse.union.remove import (
    directory_gone,
    directory_held,
    leave_name,
    name_gone,
    remove_name,
)
from unionfuse.union.state import Union, oserror


@mutable_record
class _End:
    """One end of a rename: a name in a directory, and what is there at first."""

    parent: DirNode
    name: bytes
    kind: Kind | None
    node: Node | None

    @classmethod
    def look(cls, u: Union, parent: DirNode, name: bytes) -> _End:
        kind = listing_of(parent).get(name)
        return cls(parent, name, kind, None if kind is None else existing(u, parent, name))

    @property
    def covers(self) -> bool:
        """Whether a lower has the name."""
        if self.kind is not None:
            return self.kind.covers
        return listing_of(self.parent).whiteouts.get(self.name, False)

    def fd(self) -> int:
        """Return the descriptor of the directory in the upper."""
        assert self.parent.upper is not None, "it was copied up"
        return self.parent.upper.fd()


def rename(
    u: Union, old_parent: DirNode, old_name: bytes, new_parent: DirNode, new_name: bytes, flags: int
) -> None:
    """Rename; `flags` are RENAME_NOREPLACE or RENAME_EXCHANGE.

    Raises:
        CopyUpNeeded: if data has to be copied up first.
        OSError: EXDEV for a directory that lies in a lower where no redirect can be written
            (overlayfs: redirect_dir=off), ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL,
            EROFS, ENOSPC.
    """
    u.writable()
    if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
        raise oserror(errno.EINVAL)
    if len(new_name) > NAME_MAX:
        raise oserror(errno.ENAMETOOLONG)
    if is_reserved(new_name):
        raise oserror(errno.EPERM)
    old = _End.look(u, old_parent, old_name)
    new = _End.look(u, new_parent, new_name)
    if old.node is None or new_parent.is_dead:
        raise oserror(errno.ENOENT)
    if flags & RENAME_NOREPLACE and new.node is not None:
        raise oserror(errno.EEXIST)
    if flags & RENAME_EXCHANGE:
        _exchange(u, old, new)
    elif new.node is not old.node:
        _check_replaceable(u, old.node, new.node)
        _move(u, old, new)
    for end in (old, new):
        if end.node is not None:
            forget(u, end.node, 0)  # what the kernel does not hold was made to look at it


def _check_movable(u: Union, node: Node) -> None:
    if isinstance(node, DirNode) and node.lowers and not u.makes_redirects:
        raise oserror(errno.EXDEV)


def _check_replaceable(u: Union, node: Node, target: Node | None) -> None:
    _check_movable(u, node)
    if target is None:
        return
    if isinstance(target, DirNode):
        if not isinstance(node, DirNode):
            raise oserror(errno.EISDIR)
        if len(listing_of(target)):
            raise oserror(errno.ENOTEMPTY)
    elif isinstance(node, DirNode):
        raise oserror(errno.ENOTDIR)


def _exchange(u: Union, old: _End, new: _End) -> None:
    if old.node is None or new.node is None or old.kind is None or new.kind is None:
        raise oserror(errno.ENOENT)
    if old.node is new.node:
        return
    for end in (old, new):
        assert end.node is not None
        _check_movable(u, end.node)
    for end in (old, new):
        assert end.node is not None
        require_upper_name(u, end.node, end.parent, end.name)
    _stay_whole(u, old, new)
    _stay_whole(u, new, old)
    renameat2(old.fd(), old.name, new.fd(), new.name, RENAME_EXCHANGE)
    listing_of(old.parent).replace(old.name, kind_of(new.kind.fmt, True, old.kind.covers))
    listing_of(new.parent).replace(new.name, kind_of(old.kind.fmt, True, new.kind.covers))
    # First both places are given up, then both are taken: each node is at one of them.
    old.node.drop_place(old.parent, old.name)
    new.node.drop_place(new.parent, new.name)
    _arrive(old.node, old, new)
    _arrive(new.node, new, old)


def _move(u: Union, old: _End, new: _End) -> None:
    assert old.node is not None
    assert old.kind is not None
    require_upper_name(u, old.node, old.parent, old.name)
    require_upper(u, new.parent)
    if new.node is not None and new.node.fmt != stat.S_IFDIR:
        keep_count(u, new.node, new.parent, new.name)
        new.kind = listing_of(new.parent).get(new.name)
    new_covers = new.covers
    _stay_whole(u, old, new)
    target_in_upper = new.kind is not None and new.kind.in_upper
    if isinstance(new.node, DirNode):
        if target_in_upper:
            _empty_on_disk(u, new.node, new)
        with directory_held(new.node):
            _rename_on_disk(u, old, new)
    else:
        if new.node is not None and target_in_upper:
            leave_name(u, new.node, new.parent, new.name)
        _rename_on_disk(u, old, new)
    remove_name(old.parent, old.name, leaves_whiteout=old.kind.covers)
    new_listing = listing_of(new.parent)
    if new.kind is not None:
        remove_name(new.parent, new.name, leaves_whiteout=False)
    new_listing.whiteouts.pop(new.name, None)
    fmt = old.node.fmt
    new_listing.add(new.name, kind_of(fmt, True, new_covers))
    if isinstance(new.node, DirNode):
        directory_gone(u, new.node, new.parent, new.name)
    elif new.node is not None:
        name_gone(u, new.node, new.parent, new.name, was_in_upper=target_in_upper)
    old.node.drop_place(old.parent, old.name)
    _arrive(old.node, old, new)


def _stay_whole(u: Union, end: _End, target: _End) -> None:
    """Make sure that what is in the lowers for `end` counts at `target` too, and nothing else.

    All of this is true of the old name as well, so it is done before the rename.
    """
    node = end.node
    assert node is not None
    if isinstance(node, DirNode):
        if node.lowers:
            _redirect(u, node, end, target)
        elif target.covers:
            u.writable().set_opaque(end.fd(), end.name)
    elif node.data is not None:
        same = end.parent is target.parent and data_stat(node.data).st_nlink == 1
        place = (end.parent, end.name)
        keep_within_reach(u, node, place, fd_path(end.fd(), end.name), same=same)
    if has_origin(u, node) or (isinstance(node, DirNode) and node.lowers):
        mark_impure(u, target.parent)


def _redirect(u: Union, node: DirNode, end: _End, target: _End) -> None:
    same = end.parent is target.parent
    try:
        redirect = redirect_of(u, node, end.parent, end.name, same=same)
    except OSError:  # ENAMETOOLONG: as on overlayfs it is the caller who copies then
        raise oserror(errno.EXDEV) from None
    if redirect is not None:
        set_redirect(u, node, fd_path(end.fd(), end.name), redirect)


def _empty_on_disk(u: Union, node: DirNode, end: _End) -> None:
    """Empty a directory that shows empty but holds whiteouts, so that it can be renamed over.

    Twin of ovl_clear_empty. An empty opaque one takes its place, which shows the same.
    """
    upper = u.writable()
    assert node.upper is not None
    path = fd_path(node.upper.fd())
    listing_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not os.listdir(listing_fd):
            return
    finally:
        os.close(listing_fd)
    temp = upper.workdir.temp_name()
    os.mkdir(temp, 0o700, dir_fd=upper.work_fd)
    try:
        st = os.fstat(node.upper.fd())
        copy_metadata(u, node, st, path, fd_path(upper.work_fd, temp), None)
        if upper.format.prefix is not None:
            upper.set_opaque(upper.work_fd, temp)
        elif end.covers:  # a mark inside would be in the way
            upper.whiteout_file(end.fd(), end.name)
            listing_of(end.parent).whiteouts[end.name] = True
        renameat2(upper.work_fd, temp, end.fd(), end.name, RENAME_EXCHANGE)
    except BaseException:
        os.rmdir(temp, dir_fd=upper.work_fd)
        raise
    upper.discard(temp)
    node.upper.forget()
    node.lowers = ()
    node.redirect = None
    node.listing = None


def _rename_on_disk(u: Union, old: _End, new: _End) -> None:
    upper = u.writable()
    assert old.kind is not None
    assert old.node is not None
    is_dir = old.node.fmt == stat.S_IFDIR
    may_be_marked = new.name in listing_of(new.parent).whiteouts
    over_whiteout = new.kind is None and may_be_marked and exists(new.fd(), new.name)
    args = (old.fd(), old.name, new.fd(), new.name)
    leaves_whiteout = old.kind.covers
    if leaves_whiteout and not upper.format.char_whiteouts:
        upper.whiteout(old.fd(), old.name)  # says nothing while the name is beside it
        leaves_whiteout = False
    if leaves_whiteout:
        # A whiteout in the way is just what the old name needs.
        renameat2(*args, RENAME_EXCHANGE if over_whiteout else RENAME_WHITEOUT)
    elif is_dir and over_whiteout:  # a directory can not be renamed over a whiteout
        renameat2(*args, RENAME_EXCHANGE)
        upper.drop_whiteout(old.fd(), old.name)
    else:
        os.rename(old.name, new.name, src_dir_fd=args[0], dst_dir_fd=args[2])
    if may_be_marked:
        upper.drop_whiteout_file(new.fd(), new.name)


def _arrive(node: Node | None, old: _End, new: _End) -> None:
    """Note that `node` is now at `new`."""
    assert node is not None
    node.add_place(new.parent, new.name)
    if isinstance(node, DirNode):
        assert node.upper is not None
        node.upper.parent, node.upper.name = new.parent.upper, new.name
        return
    if node.where is old.parent.upper and node.backing_name == old.name:
        node.where, node.backing_name = new.parent.upper, new.name
