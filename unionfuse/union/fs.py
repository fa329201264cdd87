"""The union as sessions use it: one method a request, nodeids in, results or OSError out.

Every method runs to its end without waiting; `CopyUpNeeded` is raised before anything has
changed, and the same call is made again after the copy-up:

    copy = fs.begin_copy_up(need.node)
    copy.copy_data()                    # in a thread; fs.abandon_copy_up(copy) if it fails
    fs.finish_copy_up(copy)
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.layers import Layers
from unionfuse.layer.names import XattrNames
from unionfuse.layer.redirect import not_hidden
from unionfuse.layer.upper import Upper, UpperFormat
from unionfuse.syscalls.privilege import is_root
from unionfuse.syscalls.statx import birth_time
from unionfuse.union import attr, backing, copy_up, create, file, remove, rename, xattr
from unionfuse.union.attr import Changes
from unionfuse.union.index import Index
from unionfuse.union.lookup import key_of, listing_of, lookup
from unionfuse.union.node import ROOT_NODEID, DirNode, Node, NodeTable
from unionfuse.union.origin import InodeNumbers, Origins
from unionfuse.union.state import Attr, Caller, CopyUpNeeded, Entry, Options, Union, oserror

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.layer.stack import LayerStack
    from unionfuse.layer.workdir import Workdir
    from unionfuse.union.copy_up import CopyUp
    from unionfuse.union.listing import Dirent
    from unionfuse.union.metacopy import Fill

_DOTS = frozenset({b".", b".."})


class UnionFs:
    """A union of layers."""

    def __init__(
        self, stack: LayerStack, workdir: Workdir | None = None, options: Options | None = None
    ) -> None:
        """Unite the layers of `stack`; `workdir` is that of its upper, if it has one."""
        options = options or Options()
        upper = None if workdir is None else Upper(workdir, UpperFormat.probe(workdir))
        if workdir is not None and options.marks_volatile:
            workdir.mark_volatile()
        origins = Origins(stack.lowers)
        index = None
        if upper is not None and workdir is not None and stack.upper is not None:
            kept = workdir.index if options.index else None
            index = Index(upper, origins, kept, stack.upper)
        prefix = None if upper is None else upper.format.prefix
        xattr_names = XattrNames(prefix or (names.TRUSTED if is_root() else names.USER))
        roots = stack.lowers if stack.upper is None else (stack.upper, *stack.lowers)
        stats = [os.fstat(root.fd()) for root in roots]
        inodes = InodeNumbers(
            [st.st_dev for st in stats],
            is_unique=options.xino != "off",
            is_short=options.short_ino,
        )
        root_ino = inodes.number(key_of(stats[0]))
        root = DirNode(root_ino, None, b"", stack.upper, not_hidden(stack.upper, stack.lowers))
        table = NodeTable(options.nodeid_is_ino, keeps_named=options.nfs_export)
        table.add(root)
        self.workdir = workdir
        self._table = table
        self.union = Union(stack, options, upper, index, xattr_names, origins, inodes, table, root)

    @classmethod
    def from_paths(
        cls,
        lowers: list[bytes],
        upper: bytes | None = None,
        workdir: bytes | None = None,
        options: Options | None = None,
        max_open_dirs: int = 512,
    ) -> UnionFs:
        """Open layers at these paths, topmost lower first, and unite them.

        At most `max_open_dirs` of their directories are open at a time.

        Raises:
            OSError: if a layer can not be opened.
            WorkdirError: if the workdir can not be used.
        """
        layers = Layers.open(lowers, upper, workdir, max_open_dirs=max_open_dirs)
        try:
            return cls(layers.stack, layers.workdir, options)
        except BaseException:
            layers.close()
            raise

    def close(self) -> None:
        """Let go of all descriptors and of the workdir."""
        self.union.table.close()
        if self.workdir is not None:
            self.workdir.close()
        self.union.stack.close()

    # Nodes

    def node(self, nodeid: int) -> Node:
        """Return a node that the kernel knows; raise OSError ESTALE if it does not."""
        try:
            return self._table.nodes[nodeid]
        except KeyError:
            raise oserror(errno.ESTALE) from None

    def directory(self, nodeid: int) -> DirNode:
        """Return a directory that the kernel knows; raise OSError ENOTDIR if it is none."""
        node = self.node(nodeid)
        if not isinstance(node, DirNode):
            raise oserror(errno.ENOTDIR)
        return node

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        """Look up `name`; None if there is no such name. Increases nlookup by one if found."""
        if name in _DOTS:
            return self.dot(parent, name)
        directory = self.directory(parent)
        if name not in directory.children:
            listing = listing_of(directory)
            if name in listing.kinds:
                name = listing.own(name)
        return self.child(directory, name)

    def dot(self, nodeid: int, name: bytes) -> Entry:
        """Look up `.` or `..`. Increases nlookup by one.

        They are asked for when a file handle is opened, `.` of files too.
        """
        node = self.node(nodeid)
        if node.parent is None and node is not self.union.root:
            raise oserror(errno.ESTALE)  # removed
        if name == b"..":
            node = node.parent or node
        return _remember(Entry(node, backing.get_attr(node)))

    def child(self, directory: DirNode, name: bytes) -> Entry | None:
        """Look up `name`, which is no dot. Increases nlookup by one if found.

        Faster than `lookup`; the node keeps `name` itself, which should be that of a `Dirent`.
        """
        node = directory.children.get(name)
        if node is not None:
            found: Entry | None = Entry(node, backing.get_attr(node))
        else:
            found = lookup(self.union, directory, name)
        if found is not None:
            found.node.nlookup += 1
        return found

    def forget(self, nodeid: int, count: int) -> None:
        """Take back `count` lookups of a node."""
        node = self.node(nodeid)
        if self.union.table.is_old(nodeid):
            self.union.table.forget_old(nodeid, count)
        backing.forget(self.union, node, count)

    # Attributes

    def getattr(self, nodeid: int) -> Attr:
        """Return the attributes of a node."""
        return backing.get_attr(self.node(nodeid))

    def birth_time(self, nodeid: int) -> tuple[int, int] | None:
        """Return when the backing was made, in seconds and nanoseconds, if that is known."""
        fd = backing.open_path(self.node(nodeid))
        try:
            return birth_time(fd)
        finally:
            os.close(fd)

    def setattr(self, nodeid: int, changes: Changes) -> Attr:
        """Change attributes and return all of them."""
        node = self.node(nodeid)
        attr.set_attr(self.union, node, changes)
        return backing.get_attr(node)

    def getxattr(self, nodeid: int, name: bytes) -> bytes:
        """Return an extended attribute; raise OSError ENODATA if there is none."""
        return xattr.get_xattr(self.union, self.node(nodeid), name)

    def listxattr(self, nodeid: int) -> list[bytes]:
        """Return the names of all extended attributes."""
        return xattr.list_xattrs(self.union, self.node(nodeid))

    def setxattr(
        self, nodeid: int, name: bytes, value: bytes, flags: int = 0, *, kill_sgid: bool = False
    ) -> None:
        """Set an extended attribute; see `union.xattr.set_xattr`."""
        xattr.set_xattr(self.union, self.node(nodeid), name, value, flags, kill_sgid=kill_sgid)

    def removexattr(self, nodeid: int, name: bytes) -> None:
        """Remove an extended attribute; raise OSError ENODATA if there is none."""
        xattr.remove_xattr(self.union, self.node(nodeid), name)

    def readlink(self, nodeid: int) -> bytes:
        """Return the target of a symlink; raise OSError EINVAL for anything else."""
        node = self.node(nodeid)
        if node.fmt != stat.S_IFLNK:
            raise oserror(errno.EINVAL)
        if node.fd >= 0:
            return os.readlink(b"", dir_fd=node.fd)
        return os.readlink(backing.backing_path(node))

    # Names

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
        """Make a file, fifo, socket or device. Increases nlookup by one."""
        directory = self.directory(parent)
        return _remember(create.mknod(self.union, directory, name, mode, rdev, caller))

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Entry:
        """Make a directory. Increases nlookup by one."""
        return _remember(create.mkdir(self.union, self.directory(parent), name, mode, caller))

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        """Make a symlink. Increases nlookup by one."""
        return _remember(create.symlink(self.union, self.directory(parent), name, target, caller))

    def link(self, nodeid: int, parent: int, name: bytes) -> Entry:
        """Make a hard link. Increases nlookup by one."""
        directory = self.directory(parent)
        return _remember(create.link(self.union, self.node(nodeid), directory, name))

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name that is no directory."""
        remove.unlink(self.union, self.directory(parent), name)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove a directory that shows empty."""
        remove.rmdir(self.union, self.directory(parent), name)

    def rename(
        self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Rename; `flags` as renameat2(2), without RENAME_WHITEOUT."""
        old, new = self.directory(old_parent), self.directory(new_parent)
        rename.rename(self.union, old, old_name, new, new_name, flags)

    # Files

    def create(self, parent: int, name: bytes, mode: int, caller: Caller) -> Entry:
        """Make a regular file and open it. Increases nlookup and opens by one."""
        return _remember(create.create(self.union, self.directory(parent), name, mode, caller))

    def open(self, nodeid: int, flags: int, *, killed_bits: int = 0) -> None:
        """Open a regular file; see `union.file.open_file`. Increases opens by one."""
        file.open_file(self.union, self.node(nodeid), flags, killed_bits=killed_bits)

    def release(self, nodeid: int) -> None:
        """Close a handle of a regular file. Decreases opens by one."""
        self.node(nodeid).opens -= 1

    def data_fd(self, nodeid: int, *, write: bool = False) -> int:
        """Return a descriptor to read (or write) the data of a regular file through at once.

        Raises:
            CopyUpNeeded: if it is to be written and has to be copied up first.
        """
        node = self.node(nodeid)
        if write and not node.owns_data:
            copy_up.require_upper(self.union, node)
        return backing.backing_fd(self.union, node, write=write)

    def sync_fd(self, nodeid: int) -> int | None:
        """Return a new descriptor to sync a file or directory with; None if it is in a lower."""
        node = self.node(nodeid)
        if not node.is_upper:
            return None
        if not isinstance(node, DirNode):
            if node.data is not None:
                return backing.open_backing(node)
            return os.dup(backing.backing_fd(self.union, node))
        if node.is_dead:
            return None
        return os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=node.top.fd())

    def file_fd(self, node: Node) -> int | None:
        """Return a descriptor of a file in the upper, good at once; None for all else."""
        if not node.is_upper or node.fmt != stat.S_IFREG or node.data is not None:
            return None
        return backing.backing_fd(self.union, node)

    def tmpfile(self, parent: int, mode: int, caller: Caller) -> Entry:
        """Make a regular file without a name and open it. Increases nlookup and opens by one."""
        return _remember(create.tmpfile(self.union, self.directory(parent), mode, caller))

    def open_data_path(self, nodeid: int) -> int:
        """Return a new O_PATH descriptor of what has the data; the caller closes it."""
        return backing.open_data_path(self.node(nodeid))

    def owns_data(self, nodeid: int) -> bool:
        """Tell whether the data of a node is in the upper."""
        return self.node(nodeid).owns_data

    def renumber(self, nodeid: int) -> None:
        """Give a node a new nodeid; the old one goes on to mean it."""
        self.union.table.renumber(self.node(nodeid))

    def is_old_nodeid(self, nodeid: int) -> bool:
        """Tell whether a node has been given another nodeid than this one."""
        return self.union.table.is_old(nodeid)

    def inode_flags(self, nodeid: int, command: int) -> bytes:
        """Return the flags of chattr(1); see `syscalls.inodeflags.get_flags`."""
        return attr.inode_flags(self.union, self.node(nodeid), command)

    def set_inode_flags(self, nodeid: int, command: int, value: bytes) -> None:
        """Set the flags of chattr(1); see `syscalls.inodeflags.set_flags`."""
        attr.set_inode_flags(self.union, self.node(nodeid), command, value)

    def clear_mode_bits(self, nodeid: int, bits: int) -> bool:
        """Clear bits of the mode, as a write does; return whether one of them was set."""
        return attr.clear_mode_bits(self.node(nodeid), bits)

    def begin_copy_up(self, node: Node) -> CopyUp | Fill:
        """Begin the copy-up that a `CopyUpNeeded` asks for."""
        return copy_up.begin(self.union, node)

    def finish_copy_up(self, copy: CopyUp | Fill) -> None:
        """Publish a copy-up whose data is there."""
        copy_up.finish(self.union, copy)

    def abandon_copy_up(self, copy: CopyUp | Fill) -> None:
        """Give up a copy-up."""
        copy_up.abandon(self.union, copy)

    # Directories

    def last_cookie(self, nodeid: int) -> int:
        """Return the offset behind which a directory has nothing now."""
        return listing_of(self.directory(nodeid)).last_cookie()

    def readdir(self, nodeid: int, cookie: int) -> Iterator[Dirent]:
        """Yield the names behind offset `cookie`, without `.` and `..`."""
        return listing_of(self.directory(nodeid)).after(cookie)

    # The filesystem

    def statfs(self) -> os.statvfs_result:
        """Return the figures of the upper's filesystem, or of the top lower's."""
        return os.fstatvfs(self.union.root.top.fd())


def _remember(entry: Entry) -> Entry:
    entry.node.nlookup += 1
    return entry


__all__ = ["ROOT_NODEID", "Changes", "CopyUpNeeded", "UnionFs"]
