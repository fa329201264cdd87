"""Requests on files and their data.

Where opens make no request (cached data), READ and WRITE come by nodeid, without handles: copy-up
happens at the first WRITE, and what an open file needs after its last name has gone is held by
its node (`union.backing.make_orphan`).

With data past the daemon (passthrough) OPEN decides where it goes. A file of a lower that is open
for reading and is then opened for writing is copied up, and gets a second nodeid: the kernel keeps
to one backing a nodeid. The OPEN is answered with ESTALE, the kernel looks the name up again and
opens the new nodeid; those who have the old one open go on reading the old data, as on overlayfs.
"""

from __future__ import annotations

import errno
import functools
import os
from typing import TYPE_CHECKING

from unionfuse.fuse import data
from unionfuse.fuse.kernel import replies, wire
from unionfuse.fuse.kernel.attributes import kill_priv, killed_bits
from unionfuse.fuse.kernel.context import BODY, Context, Handler, Head
from unionfuse.fuse.kernel.init import MAX_WRITE, PASSTHROUGH
from unionfuse.fuse.kernel.setid import SETID
from unionfuse.syscalls.fallocate import fallocate
from unionfuse.union.state import Caller, Entry, oserror

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.fuse.kernel.backings import Backing

_CREATE_NAME = BODY + wire.CREATE_IN.size
_WRITE_DATA = BODY + wire.WRITE_IN.size


class FileRequests:
    """Handlers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fs = context.fs
        self._backings = context.backings
        self._buffer = memoryview(bytearray(MAX_WRITE))

    def handlers(self) -> dict[int, Handler]:
        """Return the handlers by opcode."""
        return {
            wire.OPEN: self.open,
            wire.CREATE: self.create,
            wire.TMPFILE: self.tmpfile,
            wire.RELEASE: self.release,
            wire.READ: self.read,
            wire.WRITE: self.write,
            wire.FALLOCATE: self.fallocate,
            wire.LSEEK: self.lseek,
            wire.COPY_FILE_RANGE: self.copy_file_range,
            wire.FSYNC: self.fsync,
            wire.FSYNCDIR: self.fsync,
            wire.SYNCFS: self.syncfs,
        }

    # Open and close

    def open(self, head: Head, request: bytes) -> bytes:
        """OPEN; the first ENOSYS tells the kernel to open files without asking."""
        if self._context.agreement.io != PASSTHROUGH:
            raise oserror(errno.ENOSYS)
        nodeid = head[3]
        if self._fs.is_old_nodeid(nodeid):
            raise oserror(errno.ESTALE)
        flags, open_flags = wire.OPEN_IN.unpack_from(request, BODY)
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            kill = open_flags & wire.OPEN_KILL_SUIDGID
            bits = killed_bits(self._fs, head, nodeid) if kill else 0
            self._fs.open(nodeid, flags, killed_bits=bits)
            self._fs.release(nodeid)  # what is open is counted by its backing
        backing = self._backing(nodeid, flags)
        self._opened(head, nodeid, flags, backing)
        return replies.opened(head[2], _open_flags(backing), backing.backing_id)

    def _opened(self, head: Head, nodeid: int, flags: int, backing: Backing) -> None:
        self._backings.opened(nodeid, backing)
        if flags & os.O_ACCMODE and head[4] and backing.backing_id:
            self._context.setid.opened_to_write(nodeid, head[6], head[4], head[5])

    def _backing(self, nodeid: int, flags: int) -> Backing:
        """Return how an open of `nodeid` goes; raise OSError ESTALE where it needs another."""
        is_upper = self._fs.owns_data(nodeid)
        backing = self._backings.get(nodeid)
        if backing is not None and backing.is_upper != is_upper and backing.backing_id:
            if backing.opens:
                self._fs.renumber(nodeid)
                self._context.connection.forget_attributes(nodeid)
                raise oserror(errno.ESTALE)
            self._backings.drop(nodeid)
            backing = None
        if backing is not None and not backing.backing_id and not backing.opens:
            self._backings.drop(nodeid)
            backing = None
        if backing is None:
            open_path: Callable[[], int] | None = functools.partial(self._fs.open_data_path, nodeid)
            if flags & os.O_ACCMODE and self._fs.getattr(nodeid).st.st_mode & SETID:
                open_path = None
            backing = self._backings.add(nodeid, is_upper=is_upper, open_path=open_path)
        return backing

    def create(self, head: Head, request: bytes) -> bytes:
        """CREATE: make a file and open it."""
        flags, mode, umask, _ = wire.CREATE_IN.unpack_from(request, BODY)
        caller = Caller(head[4], head[5], umask)
        entry = self._fs.create(head[3], request[_CREATE_NAME:-1], mode, caller)
        return self._created(head, entry, flags)

    def tmpfile(self, head: Head, request: bytes) -> bytes:
        """TMPFILE: make a file without a name (O_TMPFILE) and open it."""
        flags, mode, umask, _ = wire.CREATE_IN.unpack_from(request, BODY)
        entry = self._fs.tmpfile(head[3], mode, Caller(head[4], head[5], umask))
        return self._created(head, entry, flags)

    def _created(self, head: Head, entry: Entry, flags: int) -> bytes:
        nodeid = entry.node.nodeid
        self._fs.release(nodeid)  # there are no handles here, or they are counted by the backing
        open_flags, backing_id = wire.FOPEN_KEEP_CACHE, 0
        if self._context.agreement.io == PASSTHROUGH:
            backing = self._backing(nodeid, flags)
            self._opened(head, nodeid, flags, backing)
            open_flags, backing_id = _open_flags(backing), backing.backing_id
        return self._context.replies.created(head[2], entry, open_flags, backing_id)

    def release(self, head: Head, request: bytes) -> bytes:
        """RELEASE: a handle is closed; nobody waits for the reply."""
        if self._context.agreement.io == PASSTHROUGH:
            _, flags, _, _ = wire.RELEASE_IN.unpack_from(request, BODY)
            nodeid = head[3]
            if self._backings.released(nodeid) == 0:
                self._context.setid.closed(nodeid)
            if flags & os.O_ACCMODE == os.O_RDWR:
                # A shared mapping may have changed size and times past the kernel's cache.
                self._context.connection.forget_attributes(nodeid)
        return replies.done(head[2])

    # Data

    def read(self, head: Head, request: bytes) -> None:
        """READ: in line if the data is in memory, else in a thread."""
        _, offset, size, *_ = wire.READ_IN.unpack_from(request, BODY)
        buffer = self._buffer[:size]
        done = data.read_cached(self._fs.data_fd(head[3]), buffer, offset)
        if done >= 0:
            self._context.connection.reply(head[2], buffer[:done])
            return

        fd = os.dup(self._fs.data_fd(head[3]))  # the thread's, whatever is closed meanwhile

        def read() -> memoryview:
            try:
                return data.read_all(fd, size, offset)
            finally:
                os.close(fd)

        self._context.pending.in_thread(head, "read", read)

    def write(self, head: Head, request: memoryview) -> bytes:
        """WRITE."""
        _, offset, size, write_flags, *_ = wire.WRITE_IN.unpack_from(request, BODY)
        content = request[_WRITE_DATA : _WRITE_DATA + size]
        nodeid = head[3]
        # Of what the kernel has gathered it takes a part for all, and the rest would be lost.
        whole = bool(write_flags & wire.WRITE_CACHE)
        written = data.write(self._fs, nodeid, content, offset, whole=whole)
        if write_flags & wire.WRITE_KILL_SUIDGID:
            self._fs.clear_mode_bits(nodeid, killed_bits(self._fs, head, nodeid))
        return replies.written(head[2], written)

    def fallocate(self, head: Head, request: bytes) -> bytes:
        """FALLOCATE."""
        _, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(request, BODY)
        fallocate(self._fs.data_fd(head[3], write=True), mode, offset, length)
        kill_priv(self._fs, head, head[3])
        return replies.done(head[2])

    def lseek(self, head: Head, request: bytes) -> bytes | None:
        """LSEEK: SEEK_DATA and SEEK_HOLE.

        The kernel asks before it has sent what it has gathered, or what a shared mapping has
        changed: where that is still to come, data would be taken for a hole. So its pages of
        the file are asked for first; their WRITEs have to be answered meanwhile.
        """
        _, offset, whence, _ = wire.LSEEK_IN.unpack_from(request, BODY)
        nodeid = head[3]

        def seek() -> bytes:
            found = os.lseek(self._fs.data_fd(nodeid), offset, whence)
            return replies.body(head[2], wire.LSEEK_OUT.pack(found))

        async def flush_and_seek() -> bytes:
            import trio

            await trio.to_thread.run_sync(self._context.connection.flush_pages, nodeid)
            return seek()

        backing = self._backings.get(nodeid)
        if backing is not None and backing.backing_id:
            return seek()
        self._context.pending.start(head, "lseek", flush_and_seek)
        return None

    def copy_file_range(self, head: Head, request: bytes) -> bytes:
        """COPY_FILE_RANGE: as much at a time as a WRITE has."""
        _, in_offset, out_nodeid, _, out_offset, length, _ = wire.COPY_FILE_RANGE_IN.unpack_from(
            request, BODY
        )
        out_fd = self._fs.data_fd(out_nodeid, write=True)
        in_fd = self._fs.data_fd(head[3])
        copied = os.copy_file_range(in_fd, out_fd, min(length, MAX_WRITE), in_offset, out_offset)
        kill_priv(self._fs, head, out_nodeid)
        return replies.written(head[2], copied)

    # To disk

    def fsync(self, head: Head, request: bytes) -> bytes | None:
        """FSYNC and FSYNCDIR, always in a thread."""
        _, flags, _ = wire.FSYNC_IN.unpack_from(request, BODY)
        data_only = bool(flags & wire.FSYNC_FDATASYNC)
        return self._sync(head, "fsync", self._context.syncs.file(head[3], data_only=data_only))

    def syncfs(self, head: Head, request: bytes) -> bytes | None:
        """SYNCFS: all that is in the upper."""
        return self._sync(head, "syncfs", self._context.syncs.all())

    def _sync(self, head: Head, kind: str, job: Callable[[], None] | None) -> bytes | None:
        if job is None:
            return replies.done(head[2])

        def sync() -> bytes:
            job()
            return b""

        self._context.pending.in_thread(head, kind, sync)
        return None


def _open_flags(backing: Backing) -> int:
    if backing.backing_id:
        return wire.FOPEN_PASSTHROUGH | wire.FOPEN_NOFLUSH
    return wire.FOPEN_KEEP_CACHE | wire.FOPEN_NOFLUSH
