"""A union whose owners and link counts are shown otherwise than they are.

It stands between the core, which knows only what is on disk, and the session: attributes are
changed on their way out, owners on their way in, and the ids in POSIX ACLs with them. A union that
has nothing of it is a plain `UnionFs` and pays nothing.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from unionfuse.layer import status
from unionfuse.union import acl
from unionfuse.union.fs import UnionFs
from unionfuse.union.ids import IdMap
from unionfuse.union.node import DirNode
from unionfuse.union.state import Attr, Caller, Entry

if TYPE_CHECKING:
    from unionfuse.layer.stack import LayerStack
    from unionfuse.layer.workdir import Workdir
    from unionfuse.union.attr import Changes
    from unionfuse.union.node import Node
    from unionfuse.union.state import Options

_ACLS = frozenset({acl.ACCESS, acl.DEFAULT})
_AS_IT_IS = IdMap()
_NOT_PERMITTED = frozenset({errno.EPERM, errno.EINVAL})


class ShownFs(UnionFs):
    """A union with `uids`, `gids` or `static_nlink` in its options."""

    def __init__(
        self, stack: LayerStack, workdir: Workdir | None = None, options: Options | None = None
    ) -> None:
        """Unite layers; see `UnionFs`."""
        super().__init__(stack, workdir, options)
        options = self.union.options
        self._uids = options.uids or _AS_IT_IS
        self._gids = options.gids or _AS_IT_IS
        self._static_nlink = options.static_nlink
        self._is_squashed = self._uids.only is not None or self._gids.only is not None

    # Out

    def child(self, directory: DirNode, name: bytes) -> Entry | None:
        """Look up `name`, which is no dot. Increases nlookup by one if found."""
        found = super().child(directory, name)
        return None if found is None else self._entry(found)

    def dot(self, nodeid: int, name: bytes) -> Entry:
        """Look up `.` or `..`. Increases nlookup by one."""
        return self._entry(super().dot(nodeid, name))

    def getattr(self, nodeid: int) -> Attr:
        """Return the attributes of a node."""
        return self._attr(self.node(nodeid), super().getattr(nodeid))

    def _entry(self, entry: Entry) -> Entry:
        return Entry(entry.node, self._attr(entry.node, entry.attr))

    def _attr(self, node: Node, attr: Attr) -> Attr:
        ino, nlink, st = attr
        uid, gid = self._uids.shown(st.st_uid), self._gids.shown(st.st_gid)
        if self._static_nlink and nlink and isinstance(node, DirNode):
            nlink = 1
        if (uid, gid) == (st.st_uid, st.st_gid):
            return Attr(ino, nlink, st)
        return Attr(ino, nlink, status.changed(st, uid=uid, gid=gid))

    def getxattr(self, nodeid: int, name: bytes) -> bytes:
        """Return an extended attribute; raise OSError ENODATA if there is none."""
        value = super().getxattr(nodeid, name)
        if name not in _ACLS:
            return value
        return acl.with_ids(value, self._uids.shown, self._gids.shown)

    # In

    def setattr(self, nodeid: int, changes: Changes) -> Attr:
        """Change attributes and return all of them.

        Raises:
            OSError: EINVAL for an owner that nothing on disk is shown as, and as `UnionFs`.
        """
        if changes.uid is not None:
            changes = changes._replace(uid=self._uids.stored(changes.uid))
        if changes.gid is not None:
            changes = changes._replace(gid=self._gids.stored(changes.gid))
        node = self.node(nodeid)
        if not self._is_squashed or (changes.uid, changes.gid) == (None, None):
            return self._attr(node, super().setattr(nodeid, changes))
        # Nobody sees who the owner is: fuse-overlayfs does not tell if it cannot be given, either.
        kept = changes._replace(uid=None, gid=None)
        try:
            return self._attr(node, super().setattr(nodeid, changes))
        except OSError as err:
            if err.errno not in _NOT_PERMITTED:
                raise
            return self._attr(node, super().setattr(nodeid, kept))

    def setxattr(
        self, nodeid: int, name: bytes, value: bytes, flags: int = 0, *, kill_sgid: bool = False
    ) -> None:
        """Set an extended attribute; see `union.xattr.set_xattr`."""
        if name in _ACLS:
            value = acl.with_ids(value, self._uids.stored, self._gids.stored)
        super().setxattr(nodeid, name, value, flags, kill_sgid=kill_sgid)

    def _caller(self, caller: Caller) -> Caller:
        uid = self._uids.stored_or_overflow(caller.uid)
        gid = self._gids.stored_or_overflow(caller.gid)
        return Caller(uid, gid, caller.umask)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
        """Make a file, fifo, socket or device. Increases nlookup by one."""
        return self._entry(super().mknod(parent, name, mode, rdev, self._caller(caller)))

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Entry:
        """Make a directory. Increases nlookup by one."""
        return self._entry(super().mkdir(parent, name, mode, self._caller(caller)))

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Entry:
        """Make a symlink. Increases nlookup by one."""
        return self._entry(super().symlink(parent, name, target, self._caller(caller)))

    def create(self, parent: int, name: bytes, mode: int, caller: Caller) -> Entry:
        """Make a regular file and open it. Increases nlookup and opens by one."""
        return self._entry(super().create(parent, name, mode, self._caller(caller)))

    def tmpfile(self, parent: int, mode: int, caller: Caller) -> Entry:
        """Make a regular file without a name and open it. Increases nlookup and opens by one."""
        return self._entry(super().tmpfile(parent, mode, self._caller(caller)))

    def link(self, nodeid: int, parent: int, name: bytes) -> Entry:
        """Make a hard link. Increases nlookup by one."""
        return self._entry(super().link(nodeid, parent, name))
