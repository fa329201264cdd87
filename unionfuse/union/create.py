"""Make new things: files, directories, symlinks, nodes, hard links. Twin of dir.c."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from unionfuse.layer.directory import LayerDir
from unionfuse.layer.names import is_reserved
from unionfuse.layer.workdir import remove_tree
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.union import acl
from unionfuse.union.backing import adopt_fd, get_attr
from unionfuse.union.copy_up import mark_impure, require_upper
from unionfuse.union.listing import Dirent
from unionfuse.union.lookup import NAME_MAX, key_of, listing_of
from unionfuse.union.node import DirNode, Node
from unionfuse.union.state import Caller, Entry, Union, oserror

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o7777

# Makes the object under a name below a directory descriptor, with the given permission bits.
Make = Callable[[int, bytes, int], None]


@dataclass(frozen=True, slots=True)
class _New:
    """What is to be made: its S_IFMT and permission bits (no umask applied), and how."""

    fmt: int
    mode: int
    make: Make


def mkdir(u: Union, parent: DirNode, name: bytes, mode: int, caller: Caller) -> Entry:
    """Make a directory."""

    def make(dir_fd: int, at: bytes, bits: int) -> None:
        os.mkdir(at, bits, dir_fd=dir_fd)

    return _create(u, parent, name, _New(stat.S_IFDIR, mode & 0o1777, make), caller)


def symlink(u: Union, parent: DirNode, name: bytes, target: bytes, caller: Caller) -> Entry:
    """Make a symlink to `target`, which is not looked at."""

    def make(dir_fd: int, at: bytes, _: int) -> None:
        os.symlink(target, at, dir_fd=dir_fd)

    return _create(u, parent, name, _New(stat.S_IFLNK, 0o777, make), caller)


def mknod(u: Union, parent: DirNode, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
    """Make a file, fifo, socket or device.

    Raises:
        OSError: EPERM for char 0:0, as on overlayfs: it would be a whiteout.
    """
    if stat.S_ISCHR(mode) and rdev == 0:
        raise oserror(errno.EPERM)
    fmt = stat.S_IFMT(mode) or stat.S_IFREG

    def make(dir_fd: int, at: bytes, bits: int) -> None:
        os.mknod(at, fmt | bits, rdev, dir_fd=dir_fd)

    return _create(u, parent, name, _New(fmt, mode & _PERMISSIONS, make), caller)


def create(u: Union, parent: DirNode, name: bytes, mode: int, caller: Caller) -> Entry:
    """Make a regular file, open for one handle."""
    opened: list[int] = []

    def make(dir_fd: int, at: bytes, bits: int) -> None:
        opened.append(os.open(at, _NEW_FILE, bits, dir_fd=dir_fd))

    new = _New(stat.S_IFREG, mode & _PERMISSIONS, make)
    try:
        entry = _create(u, parent, name, new, caller)
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    adopt_fd(u, entry.node, opened[0])
    entry.node.opens += 1
    return entry


def link(u: Union, node: Node, parent: DirNode, name: bytes) -> Entry:
    """Make `name` in `parent` a hard link to `node`, which is copied up for that.

    Raises:
        CopyUpNeeded: if the data has to be copied up first.
        OSError: ENOENT if the last name of `node` has gone, EPERM for a directory.
    """
    if node.fmt == stat.S_IFDIR:
        raise oserror(errno.EPERM)
    if node.parent is None:
        raise oserror(errno.ENOENT)
    _check_new_name(u, parent, name)
    require_upper(u, node)
    require_upper(u, parent)
    upper = u.writable()
    assert parent.upper is not None
    assert node.where is not None
    is_covered = name in listing_of(parent).whiteouts
    dir_fd, at = parent.upper.fd(), name
    if is_covered:
        dir_fd, at = upper.work_fd, upper.workdir.temp_name()
    if node.ino != u.inodes.number(node.keys[0]):
        mark_impure(u, parent)
    os.link(
        node.backing_name,
        at,
        src_dir_fd=node.where.fd(),
        dst_dir_fd=dir_fd,
        follow_symlinks=False,
    )
    if is_covered:
        try:
            upper.publish(at, parent.upper.fd(), name, is_dir=False)
        except BaseException:
            upper.discard(at)
            raise
    _add_dirent(parent, name, node.fmt)
    node.add_place(parent, name)
    return Entry(node, get_attr(node))


def _create(u: Union, parent: DirNode, name: bytes, new: _New, caller: Caller) -> Entry:
    """Make something in the upper, in place or, over a whiteout, in the workdir first."""
    _check_new_name(u, parent, name)
    require_upper(u, parent)
    assert parent.upper is not None
    parent_st = os.fstat(parent.upper.fd())
    default_acl = _default_acl(fd_path(parent.upper.fd()), new.fmt)
    mode = new.mode if default_acl is not None else new.mode & ~caller.umask
    has_group = bool(parent_st.st_mode & stat.S_ISGID)
    owner = (caller.uid, parent_st.st_gid if has_group else caller.gid)
    if name in listing_of(parent).whiteouts:
        if has_group and new.fmt == stat.S_IFDIR:
            mode |= stat.S_ISGID
        _make_over_whiteout(u, parent, name, _New(new.fmt, mode, new.make), owner, default_acl)
    else:
        dir_fd = parent.upper.fd()
        new.make(dir_fd, name, mode)
        try:
            _give(dir_fd, name, owner)
        except BaseException:
            remove_tree(dir_fd, name)
            raise
    st = os.stat(name, dir_fd=parent.upper.fd(), follow_symlinks=False)
    node = _new_node(u, parent, name, st)
    _add_dirent(parent, name, new.fmt)
    return Entry(node, get_attr(node))


def _make_over_whiteout(
    u: Union,
    parent: DirNode,
    name: bytes,
    new: _New,
    owner: tuple[int, int],
    default_acl: bytes | None,
) -> None:
    upper = u.writable()
    assert parent.upper is not None
    is_dir = new.fmt == stat.S_IFDIR
    temp = upper.workdir.temp_name()
    bits, access_acl = new.mode, None
    if default_acl is not None:
        access_acl, bits = acl.inherit(default_acl, bits)
    new.make(upper.work_fd, temp, bits | 0o700 if is_dir else bits)
    try:
        path = fd_path(upper.work_fd, temp)
        _give(upper.work_fd, temp, owner)
        if is_dir:  # before its mode, which may forbid to put a mark into it
            upper.set_opaque(upper.work_fd, temp)
        if new.fmt != stat.S_IFLNK:
            os.chmod(path, bits)
        if access_acl is not None:
            xattr.set_(path, acl.ACCESS, access_acl)
        if is_dir and default_acl is not None:
            xattr.set_(path, acl.DEFAULT, default_acl)
        upper.publish(temp, parent.upper.fd(), name, is_dir)
    except BaseException:
        remove_tree(upper.work_fd, temp)
        raise


def _check_new_name(u: Union, parent: DirNode, name: bytes) -> None:
    u.writable()
    if parent.is_dead:
        raise oserror(errno.ENOENT)
    if len(name) > NAME_MAX:
        raise oserror(errno.ENAMETOOLONG)
    if is_reserved(name):
        raise oserror(errno.EPERM)
    if listing_of(parent).get(name) is not None:
        raise oserror(errno.EEXIST)


def _default_acl(path: bytes, fmt: int) -> bytes | None:
    return None if fmt == stat.S_IFLNK else xattr.get_or_none(path, acl.DEFAULT)


def _give(dir_fd: int, name: bytes, owner: tuple[int, int]) -> None:
    """Give a new object to its owner, keeping the mode that chown would change."""
    st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if (st.st_uid, st.st_gid) == owner:
        return
    os.chown(name, *owner, dir_fd=dir_fd, follow_symlinks=False)
    if st.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(st.st_mode):
        os.chmod(name, stat.S_IMODE(st.st_mode), dir_fd=dir_fd)


def _new_node(u: Union, parent: DirNode, name: bytes, st: os.stat_result) -> Node:
    assert parent.upper is not None
    key = key_of(st)
    ino = u.inodes.number(key)
    if stat.S_ISDIR(st.st_mode):
        node: Node = DirNode(ino, parent, name, LayerDir(parent.upper, name), ())
        u.table.add(node)
        parent.children[name] = node
        return node
    node = Node(ino, stat.S_IFMT(st.st_mode), None, b"")
    node.where, node.backing_name = parent.upper, name
    u.table.add(node)
    u.table.set_keys(node, (key,))
    node.add_place(parent, name)
    return node


def _add_dirent(parent: DirNode, name: bytes, fmt: int) -> None:
    listing = listing_of(parent)
    covers = listing.whiteouts.pop(name, False)
    listing.add(Dirent(name, fmt, in_upper=True, covers=covers, lowers=()))
