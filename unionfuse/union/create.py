"""Make new things: files, directories, symlinks, nodes, hard links. Twin of dir.c."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from unionfuse.layer.directory import LayerDir
from unionfuse.layer.names import is_reserved
from unionfuse.layer.stack import UPPER
from unionfuse.layer.workdir import remove_tree
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.union import acl
from unionfuse.union.backing import adopt_fd, backing_path, get_attr, keep_fd
from unionfuse.union.copy_up import require_upper
from unionfuse.union.listing import Listing, kind_of
from unionfuse.union.lookup import NAME_MAX, key_of, listing_of
from unionfuse.union.metacopy import keep_within_reach
from unionfuse.union.node import FD_WRITE, DirNode, Node, Rare
from unionfuse.union.publish import has_origin, mark_impure
from unionfuse.union.state import Attr, Caller, Entry, Union, oserror

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o7777

# Makes the object under a name below a directory descriptor, with the given permission bits.
# Returns a descriptor of it if it is open now, else -1.
Make = Callable[[int, bytes, int], int]


class _New(NamedTuple):
    """What is to be made: its S_IFMT and permission bits (no umask applied), and how."""

    fmt: int
    mode: int
    make: Make


def mkdir(u: Union, parent: DirNode, name: bytes, mode: int, caller: Caller) -> Entry:
    """Make a directory."""

    def make(dir_fd: int, at: bytes, bits: int) -> int:
        os.mkdir(at, bits, dir_fd=dir_fd)
        return -1

    return _create(u, parent, name, _New(stat.S_IFDIR, mode & 0o1777, make), caller)


def symlink(u: Union, parent: DirNode, name: bytes, target: bytes, caller: Caller) -> Entry:
    """Make a symlink to `target`, which is not looked at."""

    def make(dir_fd: int, at: bytes, _: int) -> int:
        os.symlink(target, at, dir_fd=dir_fd)
        return -1

    return _create(u, parent, name, _New(stat.S_IFLNK, 0o777, make), caller)


def mknod(u: Union, parent: DirNode, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
    """Make a file, fifo, socket or device.

    Raises:
        OSError: EPERM for char 0:0, as on overlayfs: it would be a whiteout.
    """
    if stat.S_ISCHR(mode) and rdev == 0:
        raise oserror(errno.EPERM)
    fmt = stat.S_IFMT(mode) or stat.S_IFREG

    def make(dir_fd: int, at: bytes, bits: int) -> int:
        os.mknod(at, fmt | bits, rdev, dir_fd=dir_fd)
        return -1

    return _create(u, parent, name, _New(fmt, mode & _PERMISSIONS, make), caller)


def create(u: Union, parent: DirNode, name: bytes, mode: int, caller: Caller) -> Entry:
    """Make a regular file, open for one handle."""
    opened: list[int] = []

    def make(dir_fd: int, at: bytes, bits: int) -> int:
        fd = os.open(at, _NEW_FILE, bits, dir_fd=dir_fd)
        opened.append(fd)
        return fd

    new = _New(stat.S_IFREG, mode & _PERMISSIONS, make)
    try:
        entry = _create(u, parent, name, new, caller)
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    rare = entry.node.rare = Rare()
    rare.fd, rare.fd_access, rare.opens = opened[0], FD_WRITE, 1
    keep_fd(u, entry.node)
    return entry


def tmpfile(u: Union, parent: DirNode, mode: int, caller: Caller) -> Entry:
    """Make a regular file without a name (O_TMPFILE), which `link` can give one.

    Raises:
        OSError: EOPNOTSUPP where the upper's filesystem can not.
    """
    u.writable()
    if parent.is_dead:
        raise oserror(errno.ENOENT)
    require_upper(u, parent)
    assert parent.upper is not None
    given_gid, default_acl = parent.gives or _given_by(parent)
    bits = mode & _PERMISSIONS
    if default_acl is None:
        bits &= ~caller.umask
    fd = os.open(fd_path(parent.upper.fd()), os.O_TMPFILE | os.O_RDWR, bits)
    try:
        gid = caller.gid if given_gid is None else given_gid
        st = os.fstat(fd)
        if (st.st_uid, st.st_gid) != (caller.uid, gid):
            os.fchown(fd, caller.uid, gid)
            os.fchmod(fd, stat.S_IMODE(st.st_mode))
    except BaseException:
        os.close(fd)
        raise
    node = Node(u.inodes.number(key_of(st)), stat.S_IFREG, None, b"")
    node.where = LayerDir.root(UPPER, u.writable().work_fd, u.stack.fds)
    node.is_orphan = True
    u.table.add(node)
    u.table.set_keys(node, (key_of(st),))
    adopt_fd(u, node, fd)
    node.opens += 1
    return Entry(node, get_attr(node))


def link(u: Union, node: Node, parent: DirNode, name: bytes) -> Entry:
    """Make `name` in `parent` a hard link to `node`, which is copied up for that.

    Raises:
        CopyUpNeeded: if the data has to be copied up first.
        OSError: ENOENT if the last name of `node` has gone (a file made by `tmpfile` may get
            its first), EPERM for a directory.
    """
    if node.fmt == stat.S_IFDIR:
        raise oserror(errno.EPERM)
    if node.parent is None and not (node.is_orphan and node.is_upper):
        raise oserror(errno.ENOENT)
    _check_new_name(u, parent, name)
    require_upper(u, node, attributes=True)
    if node.data is not None and node.parent is not None:
        place = (node.parent, node.name)
        keep_within_reach(u, node, place, backing_path(node), same=False)
    require_upper(u, parent)
    upper = u.writable()
    assert parent.upper is not None
    assert node.where is not None
    is_covered = name in listing_of(parent).whiteouts
    dir_fd, at = parent.upper.fd(), name
    if is_covered:
        dir_fd, at = upper.work_fd, upper.workdir.temp_name()
    if has_origin(u, node):
        mark_impure(u, parent)
    if node.is_orphan:  # made by O_TMPFILE: of any other file the filesystem refuses it
        os.link(fd_path(node.fd), at, dst_dir_fd=dir_fd, follow_symlinks=True)
    else:
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
    _add_name(parent, name, node.fmt)
    node.add_place(parent, name)
    if node.is_orphan:
        node.where, node.backing_name = parent.upper, name
        node.is_orphan = False
        keep_fd(u, node)
    entry = Entry(node, get_attr(node))
    if not node.keys:  # from now on it is to be found by more than one name
        u.table.set_keys(node, (key_of(entry.attr.st),))
    return entry


def _create(u: Union, parent: DirNode, name: bytes, new: _New, caller: Caller) -> Entry:
    """Make something in the upper, in place or, over a whiteout, in the workdir first."""
    listing = _check_new_name(u, parent, name)
    require_upper(u, parent)
    assert parent.upper is not None
    gid, default_acl = parent.gives or _given_by(parent)
    if new.fmt == stat.S_IFLNK:
        default_acl = None
    mode = new.mode if default_acl is not None else new.mode & ~caller.umask
    owner = (caller.uid, caller.gid if gid is None else gid)
    if name in listing.whiteouts:
        if gid is not None and new.fmt == stat.S_IFDIR:
            mode |= stat.S_ISGID
        _make_over_whiteout(u, parent, name, _New(new.fmt, mode, new.make), owner, default_acl)
        st = os.stat(name, dir_fd=parent.upper.fd(), follow_symlinks=False)
    else:
        dir_fd = parent.upper.fd()
        fd = new.make(dir_fd, name, mode)
        try:
            st = _give(dir_fd, name, fd, owner)
        except BaseException:
            remove_tree(dir_fd, name)
            raise
    node = _new_node(u, parent, name, st)
    _add_name(parent, name, new.fmt)
    return Entry(node, Attr(node.ino, st.st_nlink, st))


def _given_by(parent: DirNode) -> tuple[int | None, bytes | None]:
    """Find out what `parent`, which is in the upper, gives to what is made in it."""
    assert parent.upper is not None
    fd = parent.upper.fd()
    st = os.fstat(fd)
    gid = st.st_gid if st.st_mode & stat.S_ISGID else None
    parent.gives = gid, xattr.get_or_none(fd_path(fd), acl.DEFAULT)
    return parent.gives


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
    fd = new.make(upper.work_fd, temp, bits | 0o700 if is_dir else bits)
    try:
        path = fd_path(upper.work_fd, temp)
        st = _give(upper.work_fd, temp, fd, owner)
        if is_dir:  # before its mode, which may forbid to put a mark into it
            upper.set_opaque(upper.work_fd, temp)
        if new.fmt != stat.S_IFLNK and stat.S_IMODE(st.st_mode) != bits:
            os.chmod(temp, bits, dir_fd=upper.work_fd)
        if access_acl is not None:
            xattr.set_(path, acl.ACCESS, access_acl)
        if is_dir and default_acl is not None:
            xattr.set_(path, acl.DEFAULT, default_acl)
        upper.publish(temp, parent.upper.fd(), name, is_dir)
    except BaseException:
        remove_tree(upper.work_fd, temp)
        raise


def _check_new_name(u: Union, parent: DirNode, name: bytes) -> Listing:
    u.writable()
    if parent.is_dead:
        raise oserror(errno.ENOENT)
    if len(name) > NAME_MAX:
        raise oserror(errno.ENAMETOOLONG)
    if is_reserved(name):
        raise oserror(errno.EPERM)
    listing = listing_of(parent)
    if name in listing.kinds:
        raise oserror(errno.EEXIST)
    return listing


def _give(dir_fd: int, name: bytes, fd: int, owner: tuple[int, int]) -> os.stat_result:
    """Give a new object to its owner, keeping the mode that chown would change.

    Args:
        dir_fd: the directory it is in.
        name: its name there.
        fd: a descriptor of it, -1 if there is none.
        owner: the user and the group that it shall have.

    Returns:
        Its status.
    """
    st = _stat_new(dir_fd, name, fd)
    if (st.st_uid, st.st_gid) == owner:
        return st
    os.chown(name, *owner, dir_fd=dir_fd, follow_symlinks=False)
    if st.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(st.st_mode):
        os.chmod(name, stat.S_IMODE(st.st_mode), dir_fd=dir_fd)
    return _stat_new(dir_fd, name, fd)


def _stat_new(dir_fd: int, name: bytes, fd: int) -> os.stat_result:
    return os.fstat(fd) if fd >= 0 else os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def _new_node(u: Union, parent: DirNode, name: bytes, st: os.stat_result) -> Node:
    assert parent.upper is not None
    key = key_of(st)
    ino = u.inodes.number(key)
    if stat.S_ISDIR(st.st_mode):
        directory = DirNode(ino, parent, name, LayerDir(parent.upper, name), ())
        directory.listing = Listing()  # it is new: nothing is in it
        u.table.add(directory)
        parent.children[name] = directory
        return directory
    node = Node(ino, stat.S_IFMT(st.st_mode), parent, name)
    node.where, node.backing_name = parent.upper, name
    u.table.add(node)
    parent.children[name] = node
    return node


def _add_name(parent: DirNode, name: bytes, fmt: int) -> None:
    listing = listing_of(parent)
    covers = listing.whiteouts.pop(name, False)
    listing.add(name, kind_of(fmt, True, covers))
