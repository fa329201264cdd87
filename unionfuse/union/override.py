"""A union that keeps owners and modes in an attribute, see `layer.override`.

It stands between the core, which knows what the disk says, and the session. What is made in the
upper belongs to the daemon on disk, can be read and entered by all, and is a regular file if it is
no directory or symlink; whose it is, and what, is in the attribute. Symlinks can have none: they
belong to whom the disk says, and it is no error if they can not be given away.

There are no POSIX ACLs: they would be about the modes of the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.layer import override
from unionfuse.layer.names import FUSE_OVERLAYFS, TRUSTED, USER, XattrNames
from unionfuse.layer.override import CONTAINERS, NAMES, SECURITY, Override
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.union import acl, copy_up
from unionfuse.union.attr import Changes
from unionfuse.union.backing import backing_at, backing_target, get_attr
from unionfuse.union.fs import UnionFs
from unionfuse.union.node import DirNode
from unionfuse.union.state import Attr, Caller, Entry, oserror

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.layer.stack import LayerStack
    from unionfuse.layer.workdir import Workdir
    from unionfuse.union.node import Node
    from unionfuse.union.state import Options

# Attributes of others that a user may not set on disk are kept under a name of his
# (fuse-overlayfs: `user.containers.override_<NAME>`).
_ENCODED = b"user.containers.override_"
_TO_ENCODE = (b"security.", TRUSTED, USER, FUSE_OVERLAYFS)
_CAPABILITY = b"security.capability"
_ACLS = frozenset({acl.ACCESS, acl.DEFAULT})

_OPEN_TO_ALL = 0o755
_SETID = stat.S_ISUID | stat.S_ISGID
_NOT_PERMITTED = frozenset({errno.EPERM, errno.EINVAL})
_FOR_MODE = {1: SECURITY, 2: CONTAINERS}  # values of xattr_permissions


class _Names(XattrNames):
    """The attributes come along when a file is copied up, whatever their namespace."""

    __slots__ = ()

    def shown(self, name: bytes) -> bytes | None:
        return name if name in NAMES else super().shown(name)


def names_of(stack: LayerStack, mode: int) -> dict[int, tuple[bytes, ...]]:
    """Return the attributes that are looked for in each layer, by its number.

    Args:
        stack: the layers.
        mode: `xattr_permissions`; with 0 layers that have such attributes are still read, and
            the upper over them is written like them.
    """
    found = {}
    for root in (*([] if stack.upper is None else [stack.upper]), *stack.lowers):
        name = override.name_of(fd_path(root.fd()))
        if name is not None:
            found[root.layer] = name
    own = _FOR_MODE.get(mode)
    if not found and own is None:
        return {}
    by_layer: dict[int, tuple[bytes, ...]] = {layer: (name,) for layer, name in found.items()}
    if stack.upper is not None:
        first = found.get(stack.upper.layer) or own or next(iter(found.values()))
        # What is copied up has the attribute of its lower, until it is changed.
        by_layer[stack.upper.layer] = tuple(dict.fromkeys((first, *found.values())))
    return by_layer


class OverriddenFs(UnionFs):
    """A union with `override` in its options, or a layer that has such attributes."""

    def __init__(
        self, stack: LayerStack, workdir: Workdir | None = None, options: Options | None = None
    ) -> None:
        """Unite layers; see `UnionFs`."""
        super().__init__(stack, workdir, options)
        u = self.union
        u.xattr_names = _Names(u.xattr_names.own)
        self._names = names_of(stack, u.options.override)
        self._ours = Caller(os.geteuid(), os.getegid())
        self._own = b""
        # Only `user.*` can not be on symlinks and devices.
        self._is_users = not any(SECURITY in names for names in self._names.values())
        if stack.upper is not None and u.upper is not None:
            self._own = self._names[stack.upper.layer][0]
            self._mark_root(stack)
            u.keep_status = self._keep_status

    def _mark_root(self, stack: LayerStack) -> None:
        """Say whose the root is, by which the layer is known to have such attributes."""
        assert stack.upper is not None
        path = fd_path(stack.upper.fd())
        if xattr.get_or_none(path, self._own) is None:
            below = next(self._read(lower.layer, fd_path(lower.fd())) for lower in stack.lowers)
            first = below or Override(0, 0, _OPEN_TO_ALL, stat.S_IFDIR)
            xattr.set_(path, self._own, first._replace(fmt=stat.S_IFDIR, rdev=0).packed())

    # What is in the attribute

    def _read(self, layer: int, target: xattr.Target) -> Override | None:
        for name in self._names.get(layer, ()):
            value = xattr.get_or_none(target, name)
            if value is not None:
                return Override.parse(value)
        return None

    def _status(self, node: Node, st: os.stat_result) -> os.stat_result:
        """Return the status to be shown of `node`, of which the disk says `st`."""
        if self._is_users and node.fmt not in (stat.S_IFREG, stat.S_IFDIR):
            return st
        layer = node.top.layer if isinstance(node, DirNode) else _layer(node)
        found = self._read(layer, backing_target(node))
        return st if found is None else found.applied(st)

    def _write(self, node: Node, kept: Override) -> None:
        """Keep what is said of `node`, which is in the upper."""
        xattr.set_(backing_target(node), self._own, kept.packed())

    def _keep_status(self, node: Node, st: os.stat_result, target: xattr.Target) -> None:
        """Keep what is shown of a node with its copy in the upper, whatever its layer has.

        fuse-overlayfs before 1.14 shows nothing of a directory that holds a file without it.
        """
        if not self._is_users or node.fmt in (stat.S_IFREG, stat.S_IFDIR):
            xattr.set_(target, self._own, Override.of(self._status(node, st)).packed())

    def _shown(self, node: Node) -> os.stat_result:
        return self._status(node, get_attr(node).st)

    # Out

    def _overridden(self, node: Node, attr: Attr) -> Attr:
        return Attr(attr.ino, attr.nlink, self._status(node, attr.st))

    def child(self, directory: DirNode, name: bytes) -> Entry | None:
        """Look up `name`, which is no dot. Increases nlookup by one if found."""
        found = super().child(directory, name)
        return (
            None if found is None else Entry(found.node, self._overridden(found.node, found.attr))
        )

    def dot(self, nodeid: int, name: bytes) -> Entry:
        """Look up `.` or `..`. Increases nlookup by one."""
        entry = super().dot(nodeid, name)
        return Entry(entry.node, self._overridden(entry.node, entry.attr))

    def getattr(self, nodeid: int) -> Attr:
        """Return the attributes of a node."""
        return self._overridden(self.node(nodeid), super().getattr(nodeid))

    def readlink(self, nodeid: int) -> bytes:
        """Return the target of a symlink; raise OSError EINVAL for anything else."""
        node = self.node(nodeid)
        if node.fmt == stat.S_IFREG and stat.S_ISLNK(self._shown(node).st_mode):
            fd = self.data_fd(nodeid)
            return os.pread(fd, os.fstat(fd).st_size, 0)
        return super().readlink(nodeid)

    # Attributes

    def setattr(self, nodeid: int, changes: Changes) -> Attr:
        """Change attributes and return all of them."""
        node = self.node(nodeid)
        if node.fmt == stat.S_IFLNK and self._is_users:
            return self._set_symlink(nodeid, changes)
        rest = changes._replace(mode=None, uid=None, gid=None, killed_bits=0)
        if rest != Changes():
            super().setattr(nodeid, rest)
        if (changes.mode, changes.uid, changes.gid) != (None, None, None):
            copy_up.require_upper(self.union, node, attributes=True)
        st = self._shown(node)
        kept = _changed(Override.of(st), changes)
        if kept != Override.of(st):
            self._write(node, kept)
        return self._overridden(node, get_attr(node))

    def _set_symlink(self, nodeid: int, changes: Changes) -> Attr:
        try:
            return super().setattr(nodeid, changes)
        except OSError as err:
            if err.errno not in _NOT_PERMITTED:
                raise
            return super().setattr(nodeid, changes._replace(uid=None, gid=None))

    def clear_mode_bits(self, nodeid: int, bits: int) -> bool:
        """Clear bits of the mode, as a write does; return whether one of them was set."""
        if not bits:
            return False
        node = self.node(nodeid)
        kept = Override.of(self._shown(node))
        if not kept.mode & bits:
            return False
        self._write(node, kept._replace(mode=kept.mode & ~bits))
        return True

    def open(self, nodeid: int, flags: int, *, killed_bits: int = 0) -> None:
        """Open a regular file; see `union.file.open_file`. Increases opens by one."""
        super().open(nodeid, flags)
        if flags & os.O_TRUNC:
            self.clear_mode_bits(nodeid, killed_bits)

    # Extended attributes

    def _stored(self, name: bytes) -> bytes:
        """Return the name on disk of an attribute of the union.

        Raises:
            OSError: EPERM for one that is not the users' own, EOPNOTSUPP for an ACL.
        """
        if name in _ACLS:
            raise oserror(errno.EOPNOTSUPP)
        if name in NAMES or name.startswith(_ENCODED):
            raise oserror(errno.EPERM)
        return _ENCODED + name if self._is_users and name.startswith(_TO_ENCODE) else name

    def getxattr(self, nodeid: int, name: bytes) -> bytes:
        """Return an extended attribute; raise OSError ENODATA if there is none.

        So it is with ACLs: where a mount has them, the kernel asks for the one of every directory
        that it enters, and takes any other error for the answer of the access.
        """
        if name in NAMES or name in _ACLS or name.startswith(_ENCODED):
            raise oserror(errno.ENODATA)
        stored = self._stored(name)
        try:
            return super().getxattr(nodeid, stored)
        except OSError as err:
            # A layer that was made by root has it as it is.
            if err.errno != errno.ENODATA or stored == name or name != _CAPABILITY:
                raise
            return super().getxattr(nodeid, name)

    def listxattr(self, nodeid: int) -> list[bytes]:
        """Return the names of all extended attributes."""
        return list(
            dict.fromkeys(
                name.removeprefix(_ENCODED)
                for name in super().listxattr(nodeid)
                if name not in NAMES and name not in _ACLS and self._is_listed(name)
            )
        )

    def _is_listed(self, name: bytes) -> bool:
        return name == _CAPABILITY or not (self._is_users and name.startswith(b"security."))

    def setxattr(
        self, nodeid: int, name: bytes, value: bytes, flags: int = 0, *, kill_sgid: bool = False
    ) -> None:
        """Set an extended attribute; see `union.xattr.set_xattr`."""
        super().setxattr(nodeid, self._stored(name), value, flags)

    def removexattr(self, nodeid: int, name: bytes) -> None:
        """Remove an extended attribute; raise OSError ENODATA if there is none."""
        stored = self._stored(name)
        try:
            super().removexattr(nodeid, stored)
        except OSError as err:
            if err.errno != errno.ENODATA or stored == name or name != _CAPABILITY:
                raise
            super().removexattr(nodeid, name)

    # New things

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Entry:
        """Make a directory. Increases nlookup by one."""
        kept = self._new(parent, stat.S_IFDIR | mode & 0o1777, caller)
        entry = super().mkdir(parent, name, kept.mode & 0o777 | stat.S_IRWXU, self._ours)
        return self._made(entry, kept, lambda: self.rmdir(parent, name))

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
        """Make a file, fifo, socket or device. Increases nlookup by one."""
        if stat.S_ISCHR(mode) and rdev == 0:
            raise oserror(errno.EPERM)  # it would be a whiteout
        kept = self._new(parent, mode, caller, rdev)
        fmt = stat.S_IFREG if self._is_users else kept.fmt
        bits = kept.mode & 0o777 | stat.S_IRWXU
        entry = super().mknod(parent, name, fmt | bits, rdev, self._ours)
        return self._made(entry, kept, lambda: self.unlink(parent, name))

    def create(self, parent: int, name: bytes, mode: int, caller: Caller) -> Entry:
        """Make a regular file and open it. Increases nlookup and opens by one."""
        kept = self._new(parent, stat.S_IFREG | mode & 0o7777, caller)
        entry = super().create(parent, name, kept.mode & 0o777 | stat.S_IRWXU, self._ours)

        def undo() -> None:
            self.release(entry.node.nodeid)
            self.unlink(parent, name)

        return self._made(entry, kept, undo)

    def tmpfile(self, parent: int, mode: int, caller: Caller) -> Entry:
        """Make a regular file without a name and open it. Increases nlookup and opens by one."""
        kept = self._new(parent, stat.S_IFREG | mode & 0o7777, caller)
        entry = super().tmpfile(parent, kept.mode & 0o777 | stat.S_IRWXU, self._ours)
        return self._made(entry, kept, lambda: self.release(entry.node.nodeid))

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        """Make a symlink. Increases nlookup by one."""
        kept = self._new(parent, stat.S_IFLNK | 0o777, caller._replace(umask=0))
        entry = super().symlink(parent, name, target, self._ours)
        if not self._is_users:
            return self._made(entry, kept, lambda: self.unlink(parent, name))
        attr = self._set_symlink(entry.node.nodeid, Changes(uid=kept.uid, gid=kept.gid))
        return Entry(entry.node, attr)

    def link(self, nodeid: int, parent: int, name: bytes) -> Entry:
        """Make a hard link. Increases nlookup by one."""
        entry = super().link(nodeid, parent, name)
        return Entry(entry.node, self._overridden(entry.node, entry.attr))

    def _new(self, parent: int, mode: int, caller: Caller, rdev: int = 0) -> Override:
        """Return what to keep of something new in `parent`."""
        st = self._shown(self.node(parent))
        fmt, bits = stat.S_IFMT(mode) or stat.S_IFREG, stat.S_IMODE(mode) & ~caller.umask
        gid = caller.gid
        if st.st_mode & stat.S_ISGID:
            gid = st.st_gid
            bits |= stat.S_ISGID if fmt == stat.S_IFDIR else 0
        return Override(caller.uid, gid, bits, fmt, rdev)

    def _made(self, entry: Entry, kept: Override, undo: Callable[[], None]) -> Entry:
        """Say what a new object is; only then is it opened to all, on disk."""
        node = entry.node
        try:
            self._write(node, kept)
            if node.fmt != stat.S_IFLNK:
                path, dir_fd, _ = backing_at(node)
                os.chmod(path, kept.mode & 0o777 | _OPEN_TO_ALL, dir_fd=dir_fd)
            return Entry(node, self._overridden(node, get_attr(node)))
        except BaseException:
            with contextlib.suppress(OSError):
                undo()
            self.forget(node.nodeid, 1)
            raise


def _layer(node: Node) -> int:
    assert node.where is not None, "anything but a directory has a place in a layer"
    return node.where.layer


def _changed(kept: Override, changes: Changes) -> Override:
    """Return `kept` after the changes, with what the kernel clears (chown_common, fs/open.c)."""
    bits = kept.mode
    is_given = changes.uid is not None or changes.gid is not None
    if is_given and kept.fmt != stat.S_IFDIR:
        bits &= ~stat.S_ISUID
        if bits & stat.S_IXGRP:
            bits &= ~stat.S_ISGID
    if kept.fmt == stat.S_IFREG:
        bits &= ~(changes.killed_bits & _SETID)
    if changes.mode is not None:
        bits = stat.S_IMODE(changes.mode)
    uid = kept.uid if changes.uid is None else changes.uid
    gid = kept.gid if changes.gid is None else changes.gid
    return kept._replace(uid=uid, gid=gid, mode=bits)
