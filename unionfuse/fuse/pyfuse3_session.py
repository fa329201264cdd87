"""The portable session: pyfuse3 in, `UnionFs` out.

A protocol adapter only: one short method a request, the errno mapping, and the copy-ups that
requests ask for. Everything that does not wait is done in line, so no request sees another
half done.

pyfuse3 sets nodeid and st_ino as one, so nodes are numbered by inode number here
(`Options.nodeid_is_ino`). What it can not carry: lseek, fallocate, copy_file_range, O_TMPFILE,
ioctl, statx.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

import pyfuse3
import trio

from unionfuse.fuse import data
from unionfuse.fuse.caller import is_in_group, may_keep_suid, visible_xattrs
from unionfuse.fuse.copying import CopyUps
from unionfuse.fuse.syncing import Syncs
from unionfuse.record import mutable_record
from unionfuse.union import acl
from unionfuse.union.fs import Changes, UnionFs
from unionfuse.union.state import Attr, Caller, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from unionfuse.fuse.options import MountOptions

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_DOTS = 2  # offsets of `.` and `..`; a cookie of the union follows them
_MAX_TASKS = 10_000  # as many requests may wait for copy-ups and the disk before others do
_SUID_BITS = stat.S_ISUID | stat.S_ISGID


class _Process(NamedTuple):
    """Who makes a request."""

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, ctx: pyfuse3.RequestContext) -> _Process:
        return cls(ctx.pid, ctx.uid, ctx.gid)


@mutable_record
class _Handle:
    """An open file or directory.

    Attributes:
        opener: who opened it. Writes are taken to be by that process: pyfuse3 does not tell.
        last_cookie: of a directory: the end of the listing when it was last rewound. Names
            that come later are not shown, so that renaming while reading comes to an end.
    """

    nodeid: int
    opener: _Process
    last_cookie: int = 0


def _request(
    method: Callable[Concatenate[Pyfuse3Operations, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Pyfuse3Operations, P], Coroutine[Any, Any, T]]:
    """Count a request, answer its OSError, and let nothing else end the daemon."""
    kind = method.__name__

    @functools.wraps(method)
    async def answer(self: Pyfuse3Operations, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.requests[kind] += 1
        try:
            return await method(self, *args, **kwargs)
        except OSError as err:
            raise pyfuse3.FUSEError(err.errno or errno.EIO) from None
        except pyfuse3.FUSEError:
            raise
        except Exception:
            log.exception("%s%r failed", kind, args)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return answer


class Pyfuse3Operations(pyfuse3.Operations):
    """The requests of one mount.

    Attributes:
        requests: how many of each kind have come.
    """

    enable_acl = True
    supports_dot_lookup = False

    def __init__(self, fs: UnionFs, options: MountOptions, on_init: Callable[[], None]) -> None:
        """Serve `fs`; `on_init` is called when the kernel is there."""
        super().__init__()
        self.fs = fs
        self.requests: Counter[str] = Counter()
        self._timeout = options.timeout
        self._syncs = Syncs(fs, volatile=options.volatile)
        self._on_init = on_init
        self._handles: dict[int, _Handle] = {}
        self._next_handle = itertools.count(1)
        self._copy_ups = CopyUps(fs)
        self._absent = pyfuse3.EntryAttributes()
        self._absent.entry_timeout = options.timeout  # st_ino 0: a name that is known not to exist

    def init(self) -> None:
        """Note that the kernel is there."""
        self._on_init()

    # Nodes and attributes

    @_request
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Look up a name. Increases nlookup by one if it is there."""
        entry = self.fs.lookup(parent_inode, name)
        return self._absent if entry is None else self._entry(entry)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back lookups; there is nobody to answer."""
        self.requests["forget"] += len(inode_list)
        for nodeid, count in inode_list:
            try:
                self.fs.forget(nodeid, count)
            except Exception:
                log.exception("forget(%d, %d) failed", nodeid, count)

    @_request
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Return the attributes of a node."""
        return self._attributes(self.fs.getattr(inode))

    @_request
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Change attributes."""
        kills = fields.update_size or fields.update_uid or fields.update_gid
        changes = Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            killed_bits=self._killed_bits(inode, _Process.of(ctx)) if kills else 0,
        )
        return self._attributes(await self._copy_ups.retry(self.fs.setattr, inode, changes))

    @_request
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """Return the target of a symlink."""
        return self.fs.readlink(inode)

    @_request
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """Return an extended attribute."""
        return self.fs.getxattr(inode, name)

    @_request
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """Return the names of the extended attributes that the caller may see."""
        return visible_xattrs(self.fs.listxattr(inode), ctx.pid, ctx.uid)

    @_request
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        """Set an extended attribute; pyfuse3 has seen to XATTR_CREATE and XATTR_REPLACE."""
        kill_sgid = False
        if name == acl.ACCESS:
            st = self.fs.getattr(inode).st
            if st.st_mode & stat.S_ISGID:
                kill_sgid = not is_in_group(ctx.pid, ctx.gid, st.st_gid)
        await self._copy_ups.retry(
            functools.partial(self.fs.setxattr, kill_sgid=kill_sgid), inode, name, value
        )

    @_request
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an extended attribute."""
        await self._copy_ups.retry(self.fs.removexattr, inode, name)

    @_request
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Allow it: the kernel has checked the permissions (default_permissions)."""
        return True

    # Names

    @_request
    async def mknod(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a file, fifo, socket or device. Increases nlookup by one."""
        return self._entry(self.fs.mknod(parent_inode, name, mode, rdev, _caller(ctx)))

    @_request
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a directory. Increases nlookup by one."""
        return self._entry(self.fs.mkdir(parent_inode, name, mode, _caller(ctx)))

    @_request
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a symlink. Increases nlookup by one."""
        return self._entry(self.fs.symlink(parent_inode, name, target, _caller(ctx)))

    @_request
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a hard link. Increases nlookup by one."""
        return self._entry(
            await self._copy_ups.retry(self.fs.link, inode, new_parent_inode, new_name)
        )

    @_request
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a name."""
        self.fs.unlink(parent_inode, name)

    @_request
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an empty directory."""
        self.fs.rmdir(parent_inode, name)

    @_request
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Rename, or exchange."""
        await self._copy_ups.retry(
            self.fs.rename, parent_inode_old, name_old, parent_inode_new, name_new, flags
        )

    # Files

    @_request
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make a file and open it. Increases nlookup by one."""
        entry = self.fs.create(parent_inode, name, mode, _caller(ctx))
        handle = self._new_handle(entry.node.nodeid, ctx)
        return pyfuse3.FileInfo(fh=handle, keep_cache=True), self._entry(entry)

    @_request
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file, which is copied up if it is opened to be written."""
        killed_bits = self._killed_bits(inode, _Process.of(ctx)) if flags & os.O_TRUNC else 0
        await self._copy_ups.retry(
            functools.partial(self.fs.open, killed_bits=killed_bits), inode, flags
        )
        handle = self._new_handle(inode, ctx)
        return pyfuse3.FileInfo(fh=handle, keep_cache=True)

    @_request
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read data."""
        found = await data.read(self.fs, self._handles[fh].nodeid, size, off)
        return cast("bytes", found)  # any buffer will do

    @_request
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write data."""
        handle = self._handles[fh]
        written = data.write(self.fs, handle.nodeid, buf, off)
        if self.fs.clear_mode_bits(handle.nodeid, self._killed_bits(handle.nodeid, handle.opener)):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(handle.nodeid), attr_only=True)
        return written

    @_request
    async def flush(self, fh: int) -> None:
        """Have nothing to do: data is in the upper when its write is answered."""

    @_request
    async def release(self, fh: int) -> None:
        """Close a handle."""
        self.fs.release(self._handles.pop(fh).nodeid)

    @_request
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Write a file to the disk, in a thread."""
        await self._sync(fh, data_only=datasync)

    # Directories

    @_request
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a directory."""
        handle = self._new_handle(inode, ctx)
        self._handles[handle].last_cookie = self.fs.last_cookie(inode)
        return handle

    @_request
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory, with attributes.

        Increases nlookup by one for each name that the kernel takes, but `.` and `..`.
        """
        handle = self._handles[fh]
        nodeid = handle.nodeid
        if start_id == 0:
            handle.last_cookie = self.fs.last_cookie(nodeid)
        if start_id < _DOTS and not self._list_dots(nodeid, start_id, token):
            return
        for dirent in self.fs.readdir(nodeid, max(start_id - _DOTS, 0)):
            if dirent.cookie > handle.last_cookie:
                return
            entry = self.fs.lookup(nodeid, dirent.name)
            if entry is None:
                continue
            attributes = self._entry(entry)
            offset = dirent.cookie + _DOTS
            if not pyfuse3.readdir_reply(token, dirent.name, attributes, offset):
                self.fs.forget(entry.node.nodeid, 1)
                return

    def _list_dots(self, nodeid: int, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        directory = self.fs.directory(nodeid)
        for offset, (name, node) in enumerate(
            ((b".", directory), (b"..", directory.parent or directory)), 1
        ):
            attributes = self._attributes(self.fs.getattr(node.nodeid))
            if offset > start_id and not pyfuse3.readdir_reply(token, name, attributes, offset):
                return False
        return True

    @_request
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        del self._handles[fh]

    @_request
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Write a directory to the disk, in a thread."""
        await self._sync(fh, data_only=datasync)

    @_request
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Return the figures of the upper's filesystem."""
        figures, answer = self.fs.statfs(), pyfuse3.StatvfsData()
        for name in (
            "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree",
            "f_favail", "f_namemax",
        ):  # fmt: skip
            setattr(answer, name, getattr(figures, name))
        return answer

    # Helpers

    async def _sync(self, fh: int, *, data_only: bool) -> None:
        job = self._syncs.file(self._handles[fh].nodeid, data_only=data_only)
        if job is not None:
            await trio.to_thread.run_sync(job)

    def _new_handle(self, nodeid: int, ctx: pyfuse3.RequestContext) -> int:
        handle = next(self._next_handle)
        self._handles[handle] = _Handle(nodeid, _Process.of(ctx))
        return handle

    def _killed_bits(self, nodeid: int, process: _Process) -> int:
        """Return the mode bits that a change of a file's data by this process clears.

        Twin of setattr_should_drop_suidgid (fs/attr.c).
        """
        st = self.fs.getattr(nodeid).st
        if not st.st_mode & _SUID_BITS or may_keep_suid(process.pid, process.uid):
            return 0
        bits = st.st_mode & stat.S_ISUID
        if st.st_mode & stat.S_IXGRP or not is_in_group(process.pid, process.gid, st.st_gid):
            bits |= st.st_mode & stat.S_ISGID
        return bits

    def _attributes(self, attr: Attr) -> pyfuse3.EntryAttributes:
        st = attr.st
        answer = pyfuse3.EntryAttributes()
        answer.st_ino = pyfuse3.InodeT(attr.ino)
        answer.st_mode = pyfuse3.ModeT(st.st_mode)
        answer.st_nlink = attr.nlink
        answer.st_uid = st.st_uid
        answer.st_gid = st.st_gid
        answer.st_rdev = st.st_rdev
        answer.st_size = st.st_size
        answer.st_blksize = st.st_blksize
        answer.st_blocks = st.st_blocks
        answer.st_atime_ns = st.st_atime_ns
        answer.st_mtime_ns = st.st_mtime_ns
        answer.st_ctime_ns = st.st_ctime_ns
        answer.attr_timeout = self._timeout
        answer.entry_timeout = self._timeout
        return answer

    def _entry(self, entry: Entry) -> pyfuse3.EntryAttributes:
        return self._attributes(entry.attr)


def _caller(ctx: pyfuse3.RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask)


class WithoutXattrs(Pyfuse3Operations):
    """The requests of a mount that has no extended attributes: the kernel asks once for each."""

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """Refuse it."""
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """Refuse it."""
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        """Refuse it."""
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Refuse it."""
        raise pyfuse3.FUSEError(errno.ENOSYS)


class Pyfuse3Session:
    """One mount served by pyfuse3, which knows one a process.

    Attributes:
        name: as `--session` has it.
    """

    name = "pyfuse3"

    def __init__(
        self, fs: UnionFs, fuse_fd: int, options: MountOptions, on_init: Callable[[], None]
    ) -> None:
        """Serve `fs` over the mounted connection `fuse_fd`, which becomes the session's."""
        kind = Pyfuse3Operations if options.xattrs else WithoutXattrs
        self._operations = kind(fs, options, on_init)
        self._operations.enable_acl = options.acl and options.xattrs
        # libfuse takes a descriptor that is mounted already by this name (fuse_session_mount).
        pyfuse3.init(self._operations, f"/dev/fd/{fuse_fd}", set())

    async def serve(self) -> None:
        """Answer requests until the filesystem is unmounted or `stop` is called."""
        await pyfuse3.main(max_tasks=_MAX_TASKS)

    def stop(self) -> None:
        """Make `serve` return."""
        pyfuse3.terminate()

    def close(self) -> None:
        """Close the connection."""
        pyfuse3.close(unmount=False)

    def statistics(self) -> str:
        """Return the number of nodes and of requests by kind, in one line."""
        operations = self._operations
        counts = (f"{kind} {count}" for kind, count in operations.requests.most_common())
        return f"{len(operations.fs.union.table)} nodes; requests: {', '.join(counts) or 'none'}"
