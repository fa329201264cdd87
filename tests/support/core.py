"""Drive a `UnionFs` by path, in the place of the kernel and of a session.

Like the kernel it looks names up one component at a time, never following a symlink, counts its
lookups and takes them back, and makes the checks of rename(2) that no filesystem is asked for.
Like a session it makes the copy-ups that a request needs, and calls again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from unionfuse.layer import names
from unionfuse.layer.names import XattrNames
from unionfuse.layer.upper import UpperFormat
from unionfuse.syscalls.rename import RENAME_EXCHANGE, RENAME_NOREPLACE
from unionfuse.union.fs import ROOT_NODEID, Changes, CopyUpNeeded, UnionFs
from unionfuse.union.node import DirNode
from unionfuse.union.state import Attr, Caller, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unionfuse.union.copy_up import CopyUp
    from unionfuse.union.node import Node

P = ParamSpec("P")
T = TypeVar("T")

CHAR_TRUSTED = UpperFormat(char_whiteouts=True, prefix=names.TRUSTED)
CHAR_USER = UpperFormat(char_whiteouts=True, prefix=names.USER)
WH_FILES = UpperFormat(char_whiteouts=False, prefix=None)

# The caller of everything that is made, unless a test says otherwise; no umask, no switch of owner.
OURSELVES = Caller(os.geteuid(), os.getegid(), 0)


def use_format(fs: UnionFs, fmt: UpperFormat) -> None:
    """Make `fs` write `fmt` into its upper, whatever its probing has found."""
    if fs.union.upper is not None:
        fs.union.upper.format = fmt
    fs.union.xattr_names = XattrNames(fmt.prefix or names.TRUSTED)


def oserror(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Handle:
    """An open file: it holds one lookup of its node, as an open file of the kernel does."""

    def __init__(self, driver: Driver, nodeid: int) -> None:
        self.driver = driver
        self.nodeid = nodeid

    def read(self, size: int = 1 << 24, offset: int = 0) -> bytes:
        return os.pread(self.driver.fs.data_fd(self.nodeid), size, offset)

    def write(self, data: bytes, offset: int = 0) -> None:
        fd = self.driver.call(self.driver.fs.data_fd, self.nodeid, write=True)
        assert os.pwrite(fd, data, offset) == len(data)

    def stat(self) -> Attr:
        return self.driver.fs.getattr(self.nodeid)

    def setattr(self, **changes: int) -> Attr:
        return self.driver.call(self.driver.fs.setattr, self.nodeid, Changes(**changes))

    def close(self) -> None:
        self.driver.fs.release(self.nodeid)
        self.driver.fs.forget(self.nodeid, 1)


class Driver:
    """A union by paths.

    Attributes:
        fs: the union.
        caller: on whose behalf things are made.
        keeps_lookups: whether lookups are taken back only by `forget_all`, as by a kernel with
            much memory, or after each call.
        pending: copy-ups that were begun by `begin_copy_up` and not finished yet.
        copied_up: how many copy-ups were asked for by `CopyUpNeeded`.
    """

    def __init__(
        self, fs: UnionFs, caller: Caller = OURSELVES, *, keeps_lookups: bool = False
    ) -> None:
        self.fs = fs
        self.caller = caller
        self.keeps_lookups = keeps_lookups
        self.pending: dict[int, CopyUp] = {}
        self.copied_up = 0
        self._held: Counter[int] = Counter()

    # Nodes

    def call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `method` until no copy-up stands in its way."""
        while True:
            try:
                return method(*args, **kwargs)
            except CopyUpNeeded as needed:
                self.copied_up += 1
                self._copy_up(needed.node)

    def _copy_up(self, node: Node) -> None:
        if node.nodeid in self.pending:
            self.finish_copy_up(node.nodeid)
            return
        copy = self.fs.begin_copy_up(node)
        try:
            copy.copy_data()
        except BaseException:
            self.fs.abandon_copy_up(copy)
            raise
        self.fs.finish_copy_up(copy)

    def begin_copy_up(self, path: bytes) -> int:
        """Begin the copy-up of a file and leave it on its way; return its nodeid."""
        nodeid = self.hold(path)
        self.pending[nodeid] = self.fs.begin_copy_up(self.fs.node(nodeid))
        return nodeid

    def finish_copy_up(self, nodeid: int) -> None:
        """Finish a copy-up that was left on its way."""
        copy = self.pending.pop(nodeid)
        try:
            try:
                copy.copy_data()
            except BaseException:
                self.fs.abandon_copy_up(copy)
                raise
            self.fs.finish_copy_up(copy)
        finally:
            self.fs.forget(nodeid, 1)

    def abandon_copy_up(self, nodeid: int) -> None:
        """Give up a copy-up that was left on its way."""
        self.fs.abandon_copy_up(self.pending.pop(nodeid))
        self.fs.forget(nodeid, 1)

    def hold(self, path: bytes) -> int:
        """Look `path` up once more and return its nodeid, for the caller to forget."""
        with self._at(path) as nodeid:
            if nodeid != ROOT_NODEID:
                self.fs.node(nodeid).nlookup += 1  # a second lookup, with no time in between
            return nodeid

    def forget_all(self) -> None:
        """Take back all lookups but those of handles."""
        while self._held:
            nodeid, count = self._held.popitem()
            self.fs.forget(nodeid, count)

    @contextlib.contextmanager
    def _at(self, path: bytes) -> Iterator[int]:
        """Yield the nodeid of `path`; raise OSError ENOENT or ENOTDIR."""
        with self._walk() as held:
            nodeid = ROOT_NODEID
            for name in _components(path):
                nodeid = self._step(nodeid, name, held)
            yield nodeid

    @contextlib.contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the nodeid of the directory of `path`, and the last name."""
        *_, name = _components(path)
        with self._at(os.path.dirname(path)) as nodeid:
            if not isinstance(self.fs.node(nodeid), DirNode):
                raise oserror(errno.ENOTDIR)
            yield nodeid, name

    def _step(self, parent: int, name: bytes, held: list[int]) -> int:
        entry = self.fs.lookup(parent, name)
        if entry is None:
            raise oserror(errno.ENOENT)
        held.append(entry.node.nodeid)
        return entry.node.nodeid

    @contextlib.contextmanager
    def _walk(self) -> Iterator[list[int]]:
        held: list[int] = []
        try:
            yield held
        finally:
            if self.keeps_lookups:
                self._held.update(held)
            else:
                for nodeid in reversed(held):
                    self.fs.forget(nodeid, 1)

    def _found(self, entry: Entry) -> Attr:
        """Note the lookup that came with a new entry."""
        if self.keeps_lookups:
            self._held[entry.node.nodeid] += 1
        else:
            self.fs.forget(entry.node.nodeid, 1)
        return entry.attr

    # Attributes

    def stat(self, path: bytes) -> Attr:
        with self._at(path) as nodeid:
            return self.fs.getattr(nodeid)

    def exists(self, path: bytes) -> bool:
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True

    def mode(self, path: bytes) -> int:
        return stat.S_IMODE(self.stat(path).st.st_mode)

    def setattr(self, path: bytes, **changes: int) -> Attr:
        with self._at(path) as nodeid:
            return self.call(self.fs.setattr, nodeid, Changes(**changes))

    def chmod(self, path: bytes, mode: int) -> None:
        self.setattr(path, mode=mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self.setattr(path, uid=uid, gid=gid)

    def truncate(self, path: bytes, size: int) -> None:
        self.setattr(path, size=size)

    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        self.setattr(path, atime_ns=atime_ns, mtime_ns=mtime_ns)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        with self._at(path) as nodeid:
            return self.fs.getxattr(nodeid, name)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
        with self._at(path) as nodeid:
            self.call(self.fs.setxattr, nodeid, name, value, flags)

    def removexattr(self, path: bytes, name: bytes) -> None:
        with self._at(path) as nodeid:
            self.call(self.fs.removexattr, nodeid, name)

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        with self._at(path) as nodeid:
            return {name: self.fs.getxattr(nodeid, name) for name in self.fs.listxattr(nodeid)}

    # Names

    def mkdir(self, path: bytes, mode: int = 0o755) -> Attr:
        with self._parent(path) as (parent, name):
            return self._found(self.fs.mkdir(parent, name, mode, self.caller))

    def mknod(self, path: bytes, mode: int, rdev: int = 0) -> Attr:
        with self._parent(path) as (parent, name):
            return self._found(self.fs.mknod(parent, name, mode, rdev, self.caller))

    def symlink(self, target: bytes, path: bytes) -> Attr:
        with self._parent(path) as (parent, name):
            return self._found(self.fs.symlink(parent, name, target, self.caller))

    def link(self, old: bytes, new: bytes) -> Attr:
        with self._at(old) as nodeid, self._parent(new) as (parent, name):
            if self.exists(new):
                raise oserror(errno.EEXIST)
            return self._found(self.call(self.fs.link, nodeid, parent, name))

    def unlink(self, path: bytes) -> None:
        with self._parent(path) as (parent, name):
            self.call(self.fs.unlink, parent, name)

    def rmdir(self, path: bytes) -> None:
        with self._parent(path) as (parent, name):
            self.call(self.fs.rmdir, parent, name)

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        """Rename, with the checks that vfs_rename and its callers make beforehand."""
        with (
            self._parent(old) as (old_parent, old_name),
            self._parent(new) as (new_parent, new_name),
            self._walk() as held,
        ):
            source = self.fs.node(self._step(old_parent, old_name, held))
            found = self.fs.lookup(new_parent, new_name)
            if found is not None:
                held.append(found.node.nodeid)
            self._check_rename(old, new, source, None if found is None else found.node, flags)
            self.call(self.fs.rename, old_parent, old_name, new_parent, new_name, flags)

    @staticmethod
    def _check_rename(
        old: bytes, new: bytes, source: Node, target: Node | None, flags: int
    ) -> None:
        if flags & RENAME_NOREPLACE and target is not None:
            raise oserror(errno.EEXIST)
        if flags & RENAME_EXCHANGE and target is None:
            raise oserror(errno.ENOENT)
        if _components(new)[: len(_components(old))] == _components(old) and old != new:
            raise oserror(errno.EINVAL)
        if _components(old)[: len(_components(new))] == _components(new) and old != new:
            raise oserror(errno.EINVAL if flags & RENAME_EXCHANGE else errno.ENOTEMPTY)
        if target is None or target is source or flags & RENAME_EXCHANGE:
            return
        if isinstance(source, DirNode) and not isinstance(target, DirNode):
            raise oserror(errno.ENOTDIR)
        if isinstance(target, DirNode) and not isinstance(source, DirNode):
            raise oserror(errno.EISDIR)

    # Files and directories

    def create(self, path: bytes, data: bytes = b"", mode: int = 0o644) -> Attr:
        """Make a file, write `data` into it and close it."""
        handle = self.create_open(path, mode)
        try:
            if data:
                handle.write(data)
            return handle.stat()
        finally:
            handle.close()

    def create_open(self, path: bytes, mode: int = 0o644) -> Handle:
        with self._parent(path) as (parent, name):
            entry = self.fs.create(parent, name, mode, self.caller)
            return Handle(self, entry.node.nodeid)  # its lookup is the handle's

    def open(self, path: bytes, flags: int = os.O_RDONLY) -> Handle:
        with self._at(path) as nodeid:
            self.call(self.fs.open, nodeid, flags)
            self.fs.node(nodeid).nlookup += 1
            return Handle(self, nodeid)

    def read(self, path: bytes) -> bytes:
        handle = self.open(path)
        try:
            return handle.read()
        finally:
            handle.close()

    def write(self, path: bytes, data: bytes, offset: int = 0, flags: int = 0) -> None:
        handle = self.open(path, os.O_WRONLY | flags)
        try:
            handle.write(data, offset)
        finally:
            handle.close()

    def readlink(self, path: bytes) -> bytes:
        with self._at(path) as nodeid:
            return self.fs.readlink(nodeid)

    def readdir(self, path: bytes) -> list[bytes]:
        with self._at(path) as nodeid:
            return [dirent.name for dirent in self.fs.readdir(nodeid, 0)]

    def listdir(self, path: bytes) -> list[bytes]:
        return sorted(self.readdir(path))

    def is_upper(self, path: bytes) -> bool:
        """Whether the object is in the upper."""
        with self._at(path) as nodeid:
            return self.fs.node(nodeid).is_upper

    def node(self, path: bytes) -> Node:
        """Return the node of `path`: good as long as a lookup holds it."""
        with self._at(path) as nodeid:
            return self.fs.node(nodeid)

    def close(self) -> None:
        """Take back everything and close the union."""
        self.forget_all()
        self.fs.close()


def _components(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name]
