"""An in-memory POSIX tree: what a union has to look like from the outside.

overlayfs.rst promises the tree that `cp -a /lower /upper` would give, and operations on it as on
any filesystem. That is all that is here, and three facts that a union does not hide: a directory
with a part in a lower can not be renamed (EXDEV), the link count of a lower file is that of its
layer whatever names the union shows, and times taken from the clock are not known.

Every method either does its work or raises OSError and has changed nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def oserror(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@dataclass(eq=False)
class Inode:
    """A file, whatever its names.

    Attributes:
        mode: permission bits.
        mtime_ns: None when the clock has set it.
        nlink: None when it is not known; of directories it is never looked at.
        children: of a directory.
        has_lower: of a directory: a lower has a part of it.
        lower_nlink: how many names its layer has, 0 for what was made in the union.
        lost_links: names were removed, which only a copied-up file remembers.
    """

    fmt: int
    mode: int
    uid: int
    gid: int
    data: bytes = b""
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    mtime_ns: int | None = None
    nlink: int | None = 1
    children: dict[bytes, Inode] = field(default_factory=dict)
    has_lower: bool = False
    lower_nlink: int = 0
    lost_links: bool = False

    @property
    def is_dir(self) -> bool:
        return self.fmt == stat.S_IFDIR


class Model:
    """A tree below `root`; paths are bytes without a leading slash, b"" the root."""

    def __init__(self, root: Inode, *, moves_directories: bool = True) -> None:
        """Begin with the tree `root`; may directories that lie in a lower be renamed?"""
        self.root = root
        self.moves_directories = moves_directories

    # Looking

    def walk(self) -> Iterator[tuple[bytes, Inode]]:
        """Yield every path with its inode, the root first, in the order of names."""
        pending = [(b"", self.root)]
        while pending:
            path, inode = pending.pop()
            yield path, inode
            pending.extend(
                (os.path.join(path, name), child)
                for name, child in sorted(inode.children.items(), reverse=True)
            )

    def get(self, path: bytes) -> Inode:
        at = self.root
        for name in path.split(b"/") if path else []:
            if not at.is_dir:
                raise oserror(errno.ENOTDIR)
            if name not in at.children:
                raise oserror(errno.ENOENT)
            at = at.children[name]
        return at

    def _place(self, path: bytes) -> tuple[Inode, bytes]:
        directory, name = os.path.split(path)
        parent = self.get(directory)
        if not parent.is_dir:
            raise oserror(errno.ENOTDIR)
        return parent, name

    # Making

    def _add(self, path: bytes, new: Inode) -> Inode:
        parent, name = self._place(path)
        if name in parent.children:
            raise oserror(errno.EEXIST)
        if parent.mode & stat.S_ISGID:
            new.gid = parent.gid
            if new.is_dir:
                new.mode |= stat.S_ISGID
        parent.children[name] = new
        parent.mtime_ns = None
        return new

    def mkdir(self, path: bytes, mode: int, owner: tuple[int, int]) -> Inode:
        return self._add(path, Inode(stat.S_IFDIR, mode, *owner))

    def create(self, path: bytes, mode: int, owner: tuple[int, int]) -> Inode:
        return self._add(path, Inode(stat.S_IFREG, mode, *owner))

    def mkfifo(self, path: bytes, mode: int, owner: tuple[int, int]) -> Inode:
        return self._add(path, Inode(stat.S_IFIFO, mode, *owner))

    def symlink(self, target: bytes, path: bytes, owner: tuple[int, int]) -> Inode:
        return self._add(path, Inode(stat.S_IFLNK, 0o777, *owner, target=target))

    def link(self, old: bytes, new: bytes) -> None:
        inode = self.get(old)
        parent, name = self._place(new)
        if name in parent.children:
            raise oserror(errno.EEXIST)
        if inode.is_dir:
            raise oserror(errno.EPERM)
        parent.children[name] = inode
        parent.mtime_ns = None
        if inode.nlink is not None:
            inode.nlink += 1

    # Removing and moving

    def unlink(self, path: bytes) -> None:
        parent, name = self._place(path)
        if name not in parent.children:
            raise oserror(errno.ENOENT)
        if parent.children[name].is_dir:
            raise oserror(errno.EISDIR)
        self._drop(parent.children.pop(name))
        parent.mtime_ns = None

    def rmdir(self, path: bytes) -> None:
        parent, name = self._place(path)
        if name not in parent.children:
            raise oserror(errno.ENOENT)
        if not parent.children[name].is_dir:
            raise oserror(errno.ENOTDIR)
        if parent.children[name].children:
            raise oserror(errno.ENOTEMPTY)
        del parent.children[name]
        parent.mtime_ns = None

    @staticmethod
    def _drop(inode: Inode) -> None:
        inode.lost_links = True
        if inode.nlink is not None:
            inode.nlink -= 1

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        old_parent, old_name = self._place(old)
        new_parent, new_name = self._place(new)
        if old_name not in old_parent.children:
            raise oserror(errno.ENOENT)
        source, target = old_parent.children[old_name], new_parent.children.get(new_name)
        self._check_rename(old, new, (source, target), flags)
        if source is target:
            return
        if flags == RENAME_EXCHANGE:
            assert target is not None
            old_parent.children[old_name] = target
        else:
            if target is not None and not target.is_dir:
                self._drop(target)
            del old_parent.children[old_name]
        new_parent.children[new_name] = source
        old_parent.mtime_ns = new_parent.mtime_ns = None

    def _check_rename(
        self, old: bytes, new: bytes, ends: tuple[Inode, Inode | None], flags: int
    ) -> None:
        source, target = ends
        if flags == RENAME_NOREPLACE and target is not None:
            raise oserror(errno.EEXIST)
        if flags == RENAME_EXCHANGE and target is None:
            raise oserror(errno.ENOENT)
        if new.startswith(old + b"/"):
            raise oserror(errno.EINVAL)
        if old.startswith(new + b"/"):
            raise oserror(errno.EINVAL if flags == RENAME_EXCHANGE else errno.ENOTEMPTY)
        if source is target:
            return
        replaces = target if flags != RENAME_EXCHANGE else None
        if replaces is not None and source.is_dir and not replaces.is_dir:
            raise oserror(errno.ENOTDIR)
        if replaces is not None and replaces.is_dir and not source.is_dir:
            raise oserror(errno.EISDIR)
        moved = (source, target) if flags == RENAME_EXCHANGE else (source,)
        of_lowers = any(inode is not None and inode.has_lower for inode in moved)
        if of_lowers and not self.moves_directories:
            raise oserror(errno.EXDEV)
        if replaces is not None and replaces.children:
            raise oserror(errno.ENOTEMPTY)

    # Changing

    @staticmethod
    def write(inode: Inode, data: bytes, offset: int) -> None:
        before = inode.data.ljust(offset, b"\0")
        inode.data = before[:offset] + data + before[offset + len(data) :]
        inode.mtime_ns = None

    @staticmethod
    def truncate(inode: Inode, size: int) -> None:
        inode.data = inode.data[:size].ljust(size, b"\0")
        inode.mtime_ns = None

    @staticmethod
    def chown(inode: Inode, uid: int, gid: int) -> None:
        inode.uid, inode.gid = uid, gid
        if not inode.is_dir and inode.fmt != stat.S_IFLNK:
            inode.mode &= ~stat.S_ISUID
            if inode.mode & stat.S_IXGRP:
                inode.mode &= ~stat.S_ISGID

    # What a union does not keep

    def remount(self) -> None:
        """Forget how many names a file has of which some were removed before it was copied up.

        It may have been copied up, and the number be kept: both is right.
        """
        for _, inode in self.walk():
            if inode.lower_nlink > 1 and inode.lost_links:
                inode.nlink = None

    def lose_links(self) -> None:
        """Forget how many names the files with several in a lower have."""
        for _, inode in self.walk():
            if inode.lower_nlink > 1:
                inode.nlink = None
