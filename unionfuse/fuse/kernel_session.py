"""The kernel session: speaks the wire format itself, so that it can ask for less of it.

What pyfuse3 can not ask for, in INIT and in replies, is why it exists: opens and closes that
make no request (ENOSYS to OPEN, OPENDIR and FLUSH, once), listings and symlinks that the kernel
keeps, writes that it gathers, plain READDIR, LSEEK, FALLOCATE, COPY_FILE_RANGE.

Data then comes by nodeid, without handles: copy-up happens at the first write, and what an open
file needs after its last name has gone is held by its node (`union.backing.make_orphan`).

A request is read, answered in line and written; only what would wait (copy-ups, reads from the
disk, fsync) becomes a task.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import time
from collections import Counter
from typing import TYPE_CHECKING

import trio

from unionfuse.fuse import data, wire
from unionfuse.fuse.caller import is_in_group, may_keep_suid, visible_xattrs
from unionfuse.fuse.copying import CopyUps
from unionfuse.syscalls.fallocate import fallocate
from unionfuse.union.fs import Changes, CopyUpNeeded, UnionFs
from unionfuse.union.state import Attr, Caller, Entry, oserror

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.fuse.options import MountOptions

log = logging.getLogger(__name__)

# The header of a request: len opcode unique nodeid uid gid pid total_extlen padding.
Head = tuple[int, int, int, int, int, int, int, int, int]

_MAX_WRITE = 1 << 20
_BUFFER_SIZE = _MAX_WRITE + 4096
_DOTS = 2  # offsets of `.` and `..`; a cookie of the union follows them
_NO_REPLY = None
# Refused once: the kernel then opens and closes without asking.
_UNANSWERED = {wire.OPEN: "open", wire.OPENDIR: "opendir", wire.FLUSH: "flush"}
_NOTHING = b""
_MAX_TIMEOUT = 1 << 40  # seconds

_WANTED = (
    wire.ASYNC_READ | wire.BIG_WRITES | wire.DONT_MASK | wire.DO_READDIRPLUS
    | wire.READDIRPLUS_AUTO | wire.ASYNC_DIO | wire.NO_OPEN_SUPPORT
    | wire.PARALLEL_DIROPS | wire.POSIX_ACL | wire.MAX_PAGES | wire.CACHE_SYMLINKS
    | wire.NO_OPENDIR_SUPPORT | wire.EXPLICIT_INVAL_DATA | wire.HANDLE_KILLPRIV_V2
    | wire.SETXATTR_EXT
)  # fmt: skip
_NEEDED = wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT | wire.BIG_WRITES


class KernelSession:
    """One mount served over its own /dev/fuse descriptor.

    Attributes:
        name: as `--session` has it.
        requests: how many of each opcode have come.
    """

    name = "kernel"

    def __init__(
        self, fs: UnionFs, fuse_fd: int, options: MountOptions, on_init: Callable[[], None]
    ) -> None:
        """Serve `fs` over the mounted connection `fuse_fd`, which becomes the session's."""
        os.set_blocking(fuse_fd, False)
        self.requests: Counter[str] = Counter()
        self._fs = fs
        self._fd = fuse_fd
        self._on_init = on_init
        self._volatile = options.volatile
        self._seconds = min(int(options.timeout), _MAX_TIMEOUT)
        self._nanoseconds = int(options.timeout % 1 * 1e9) if options.timeout < _MAX_TIMEOUT else 0
        self._absent = wire.ENTRY_OUT.pack(0, 0, self._seconds, 0, self._nanoseconds, 0) + bytes(
            wire.ATTR.size
        )
        self._copy_ups = CopyUps(fs)
        self._ends: dict[int, int] = {}  # by directory: the end of its listing at the last rewind
        self._flags = 0
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._handlers = self._make_handlers()

    def _make_handlers(self) -> dict[int, Callable[[Head, memoryview], bytes | None]]:
        return {
            getattr(wire, name[1:].upper()): getattr(self, name)
            for name in (
                "_lookup", "_forget", "_batch_forget", "_getattr", "_setattr", "_readlink",
                "_symlink", "_mknod", "_mkdir", "_unlink", "_rmdir", "_rename", "_rename2",
                "_link", "_read", "_write", "_statfs", "_release", "_fsync", "_setxattr",
                "_getxattr", "_listxattr", "_removexattr", "_init", "_readdir", "_readdirplus",
                "_releasedir", "_fsyncdir", "_create", "_interrupt", "_destroy", "_fallocate",
                "_lseek", "_copy_file_range",
            )
        }  # fmt: skip

    async def serve(self) -> None:
        """Answer requests until the filesystem is unmounted or `stop` is called."""
        buffer = bytearray(_BUFFER_SIZE)
        view = memoryview(buffer)
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while True:
                    try:
                        size = os.readv(self._fd, [buffer])
                    except BlockingIOError:
                        await trio.lowlevel.wait_readable(self._fd)
                        continue
                    except OSError as err:
                        if err.errno in (errno.ENODEV, errno.ECONNABORTED):
                            break
                        if err.errno in (errno.EINTR, errno.ENOENT):  # the request was withdrawn
                            continue
                        raise
                    self._answer(view[:size])
                    if nursery.child_tasks:  # they get their turn however fast requests come
                        await trio.lowlevel.checkpoint()

    def stop(self) -> None:
        """Make `serve` return."""
        self._scope.cancel()

    def close(self) -> None:
        """Close the connection."""
        os.close(self._fd)

    def statistics(self) -> str:
        """Return the number of nodes and of requests by kind, in one line."""
        counts = (f"{kind} {count}" for kind, count in self.requests.most_common())
        return f"{len(self._fs.union.table)} nodes; requests: {', '.join(counts) or 'none'}"

    # Requests and replies

    def _answer(self, request: memoryview) -> None:
        head: Head = wire.IN_HEADER.unpack_from(request)
        handler = self._handlers.get(head[1])
        if handler is None:  # OPEN, OPENDIR and FLUSH among them: the kernel asks no more
            self.requests[_UNANSWERED.get(head[1], f"opcode-{head[1]}")] += 1
            self._reply_error(head[2], errno.ENOSYS)
            return
        self.requests[handler.__name__[1:]] += 1
        body = request[wire.IN_HEADER.size : head[0]]
        try:
            payload = handler(head, body)
        except CopyUpNeeded:
            assert self._nursery is not None, "requests come after serve has begun"
            # The buffer is used again before the copy-up is done.
            self._nursery.start_soon(self._answer_later, handler, head, memoryview(bytes(body)))
            return
        except Exception as err:
            self._reply_exception(head, handler.__name__[1:], err)
            return
        if payload is not _NO_REPLY:
            self._reply(head[2], payload)

    async def _answer_later(
        self, handler: Callable[[Head, memoryview], bytes | None], head: Head, body: memoryview
    ) -> None:
        try:
            payload = await self._copy_ups.retry(handler, head, body)
        except Exception as err:
            self._reply_exception(head, handler.__name__[1:], err)
            return
        if payload is not _NO_REPLY:
            self._reply(head[2], payload)

    def _reply(self, unique: int, payload: bytes | memoryview) -> None:
        header = wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(payload), 0, unique)
        self._write_reply(header, payload)

    def _reply_error(self, unique: int, code: int) -> None:
        self._write_reply(wire.OUT_HEADER.pack(wire.OUT_HEADER.size, -code, unique), _NOTHING)

    def _reply_exception(self, head: Head, kind: str, err: Exception) -> None:
        code = err.errno if isinstance(err, OSError) else None
        if code is None:
            log.error("%s of node %d failed", kind, head[3], exc_info=err)
        self._reply_error(head[2], code or errno.EIO)

    def _write_reply(self, header: bytes, payload: bytes | memoryview) -> None:
        try:
            os.writev(self._fd, (header, payload))
        except OSError as err:
            # ENOENT: the request was interrupted and waits no more; ENODEV: it was unmounted.
            if err.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    # INIT

    def _init(self, head: Head, body: memoryview) -> bytes | None:
        major, minor, readahead, flags, _ = wire.INIT_IN.unpack_from(
            bytes(body).ljust(wire.INIT_IN.size, b"\0")
        )
        if (major, minor) < (wire.MAJOR, wire.MIN_MINOR) or flags & _NEEDED != _NEEDED:
            log.error("the kernel speaks FUSE %d.%d, too old for this session", major, minor)
            self.stop()  # after this answer there are no more requests
            raise oserror(errno.EPROTO)
        self._flags = flags & _WANTED
        log.debug("FUSE %d.%d, flags %#x, agreed on %#x", major, minor, flags, self._flags)
        reply = wire.INIT_OUT.pack(
            wire.MAJOR, min(minor, wire.MINOR), readahead, self._flags,
            64, 48, _MAX_WRITE, 1, _MAX_WRITE // 4096, 0, 0, 0,
        )  # fmt: skip
        self._reply(head[2], reply)
        self._on_init()
        return _NO_REPLY

    def _destroy(self, head: Head, body: memoryview) -> bytes:
        return _NOTHING

    def _interrupt(self, head: Head, body: memoryview) -> bytes | None:
        return _NO_REPLY  # what takes long takes no longer for it

    # Nodes and attributes

    def _lookup(self, head: Head, body: memoryview) -> bytes:
        entry = self._fs.lookup(head[3], _name(body))
        return self._absent if entry is None else self._entry(entry)

    def _forget(self, head: Head, body: memoryview) -> bytes | None:
        self._forget_one(head[3], wire.FORGET_IN.unpack_from(body)[0])
        return _NO_REPLY

    def _batch_forget(self, head: Head, body: memoryview) -> bytes | None:
        for nodeid, count in wire.FORGET_ONE.iter_unpack(body[wire.BATCH_FORGET_IN.size :]):
            self._forget_one(nodeid, count)
        return _NO_REPLY

    def _forget_one(self, nodeid: int, count: int) -> None:
        try:
            self._fs.forget(nodeid, count)
        except Exception:
            log.exception("forget(%d, %d) failed", nodeid, count)
        self._ends.pop(nodeid, None)

    def _getattr(self, head: Head, body: memoryview) -> bytes:
        return self._attributes(self._fs.getattr(head[3]))

    def _setattr(self, head: Head, body: memoryview) -> bytes:
        (valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _) = (
            wire.SETATTR_IN.unpack_from(body)
        )
        nodeid = head[3]
        killed_bits = 0
        if valid & (wire.FATTR_SIZE | wire.FATTR_UID | wire.FATTR_GID) and (
            valid & wire.FATTR_KILL_SUIDGID
        ):
            killed_bits = self._killed_bits(head, nodeid)
        changes = Changes(
            mode=mode if valid & wire.FATTR_MODE else None,
            uid=uid if valid & wire.FATTR_UID else None,
            gid=gid if valid & wire.FATTR_GID else None,
            size=size if valid & wire.FATTR_SIZE else None,
            atime_ns=_time(valid, wire.FATTR_ATIME, wire.FATTR_ATIME_NOW, atime, atime_ns),
            mtime_ns=_time(valid, wire.FATTR_MTIME, wire.FATTR_MTIME_NOW, mtime, mtime_ns),
            killed_bits=killed_bits,
        )
        return self._attributes(self._fs.setattr(nodeid, changes))

    def _killed_bits(self, head: Head, nodeid: int) -> int:
        """Return the mode bits that a change of data by this caller, without CAP_FSETID, clears.

        Twin of setattr_should_drop_suidgid (fs/attr.c).
        """
        st = self._fs.getattr(nodeid).st
        bits = st.st_mode & stat.S_ISUID
        if st.st_mode & stat.S_IXGRP or not is_in_group(head[6], head[5], st.st_gid):
            bits |= st.st_mode & stat.S_ISGID
        return bits

    def _kill_priv(self, head: Head, nodeid: int) -> None:
        """Clear setuid and setgid after a change of data that does not say whether to."""
        if not may_keep_suid(head[6], head[4]):
            self._fs.clear_mode_bits(nodeid, self._killed_bits(head, nodeid))

    def _readlink(self, head: Head, body: memoryview) -> bytes:
        return self._fs.readlink(head[3])

    def _getxattr(self, head: Head, body: memoryview) -> bytes:
        name = _name(body[wire.GETXATTR_IN.size :])
        return _sized(body, self._fs.getxattr(head[3], name))

    def _listxattr(self, head: Head, body: memoryview) -> bytes:
        return _sized(body, b"".join(name + b"\0" for name in self._listed(head)))

    def _listed(self, head: Head) -> list[bytes]:
        return visible_xattrs(self._fs.listxattr(head[3]), head[6], head[4])

    def _setxattr(self, head: Head, body: memoryview) -> bytes:
        # Without SETXATTR_EXT (kernel < 5.13) the struct ends after `flags`.
        has_ext = self._flags & wire.SETXATTR_EXT
        size, flags, ext_flags, _ = wire.SETXATTR_IN.unpack_from(bytes(body[:16]).ljust(16, b"\0"))
        rest = bytes(body[wire.SETXATTR_IN.size if has_ext else 8 :])
        name, _, value = rest.partition(b"\0")
        kill_sgid = bool(has_ext and ext_flags & wire.SETXATTR_ACL_KILL_SGID)
        self._fs.setxattr(head[3], name, value[:size], flags, kill_sgid=kill_sgid)
        return _NOTHING

    def _removexattr(self, head: Head, body: memoryview) -> bytes:
        self._fs.removexattr(head[3], _name(body))
        return _NOTHING

    # Names

    def _mknod(self, head: Head, body: memoryview) -> bytes:
        mode, rdev, umask, _ = wire.MKNOD_IN.unpack_from(body)
        name = _name(body[wire.MKNOD_IN.size :])
        # fuse.h has the kernel's 32-bit form: minor low 8 and high 12 bits around the major.
        device = os.makedev(rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00)
        return self._entry(self._fs.mknod(head[3], name, mode, device, _caller(head, umask)))

    def _mkdir(self, head: Head, body: memoryview) -> bytes:
        mode, umask = wire.MKDIR_IN.unpack_from(body)
        name = _name(body[wire.MKDIR_IN.size :])
        return self._entry(self._fs.mkdir(head[3], name, mode, _caller(head, umask)))

    def _symlink(self, head: Head, body: memoryview) -> bytes:
        name, target = wire.two_names(bytes(body))
        return self._entry(self._fs.symlink(head[3], name, target, _caller(head, 0)))

    def _link(self, head: Head, body: memoryview) -> bytes:
        (nodeid,) = wire.LINK_IN.unpack_from(body)
        return self._entry(self._fs.link(nodeid, head[3], _name(body[wire.LINK_IN.size :])))

    def _unlink(self, head: Head, body: memoryview) -> bytes:
        self._fs.unlink(head[3], _name(body))
        return _NOTHING

    def _rmdir(self, head: Head, body: memoryview) -> bytes:
        self._fs.rmdir(head[3], _name(body))
        return _NOTHING

    def _rename(self, head: Head, body: memoryview) -> bytes:
        (new_parent,) = wire.RENAME_IN.unpack_from(body)
        old, new = wire.two_names(bytes(body[wire.RENAME_IN.size :]))
        self._fs.rename(head[3], old, new_parent, new)
        return _NOTHING

    def _rename2(self, head: Head, body: memoryview) -> bytes:
        new_parent, flags, _ = wire.RENAME2_IN.unpack_from(body)
        old, new = wire.two_names(bytes(body[wire.RENAME2_IN.size :]))
        self._fs.rename(head[3], old, new_parent, new, flags)
        return _NOTHING

    # Files

    def _create(self, head: Head, body: memoryview) -> bytes:
        _, mode, umask, _ = wire.CREATE_IN.unpack_from(body)
        name = _name(body[wire.CREATE_IN.size :])
        entry = self._fs.create(head[3], name, mode, _caller(head, umask))
        self._fs.release(entry.node.nodeid)  # there are no handles here
        return self._entry(entry) + wire.OPEN_OUT.pack(0, wire.FOPEN_KEEP_CACHE, 0)

    def _release(self, head: Head, body: memoryview) -> bytes:
        return _NOTHING

    def _read(self, head: Head, body: memoryview) -> bytes | memoryview | None:
        _, offset, size, *_ = wire.READ_IN.unpack_from(body)
        buffer = memoryview(bytearray(size))
        done = data.read_cached(self._fs.data_fd(head[3]), buffer, offset)
        if done >= 0:
            return buffer[:done]
        assert self._nursery is not None, "requests come after serve has begun"
        self._nursery.start_soon(self._read_later, head, size, offset)
        return _NO_REPLY

    async def _read_later(self, head: Head, size: int, offset: int) -> None:
        try:
            found = await data.read(self._fs, head[3], size, offset)
        except Exception as err:
            self._reply_exception(head, "read", err)
        else:
            self._reply(head[2], found)

    def _write(self, head: Head, body: memoryview) -> bytes:
        _, offset, size, write_flags, *_ = wire.WRITE_IN.unpack_from(body)
        content = body[wire.WRITE_IN.size : wire.WRITE_IN.size + size]
        nodeid = head[3]
        written = data.write(self._fs, nodeid, content, offset)
        if write_flags & wire.WRITE_KILL_SUIDGID:
            self._fs.clear_mode_bits(nodeid, self._killed_bits(head, nodeid))
        return wire.WRITE_OUT.pack(written, 0)

    def _fallocate(self, head: Head, body: memoryview) -> bytes:
        _, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(body)
        fallocate(self._fs.data_fd(head[3], write=True), mode, offset, length)
        self._kill_priv(head, head[3])
        return _NOTHING

    def _lseek(self, head: Head, body: memoryview) -> bytes:
        _, offset, whence, _ = wire.LSEEK_IN.unpack_from(body)
        return wire.LSEEK_OUT.pack(os.lseek(self._fs.data_fd(head[3]), offset, whence))

    def _copy_file_range(self, head: Head, body: memoryview) -> bytes:
        _, in_offset, out_nodeid, _, out_offset, length, _ = wire.COPY_FILE_RANGE_IN.unpack_from(
            body
        )
        out_fd = self._fs.data_fd(out_nodeid, write=True)
        in_fd = self._fs.data_fd(head[3])
        done = os.copy_file_range(in_fd, out_fd, min(length, _MAX_WRITE), in_offset, out_offset)
        self._kill_priv(head, out_nodeid)
        return wire.WRITE_OUT.pack(done, 0)

    def _fsync(self, head: Head, body: memoryview) -> bytes | None:
        fd = None if self._volatile else self._fs.sync_fd(head[3])
        if fd is None:
            return _NOTHING
        _, flags, _ = wire.FSYNC_IN.unpack_from(body)
        assert self._nursery is not None, "requests come after serve has begun"
        data_only = bool(flags & wire.FSYNC_FDATASYNC)
        self._nursery.start_soon(functools.partial(self._sync_later, head, fd, data_only=data_only))
        return _NO_REPLY

    async def _sync_later(self, head: Head, fd: int, *, data_only: bool) -> None:
        try:
            await data.sync(fd, data_only=data_only)
        except Exception as err:
            self._reply_exception(head, "fsync", err)
        else:
            self._reply(head[2], _NOTHING)

    # Directories

    def _readdir(self, head: Head, body: memoryview) -> bytes:
        return self._list(head[3], body, with_entries=False)

    def _readdirplus(self, head: Head, body: memoryview) -> bytes:
        return self._list(head[3], body, with_entries=True)

    def _list(self, nodeid: int, body: memoryview, *, with_entries: bool) -> bytes:
        """Return what fits of a listing. With entries, increases nlookup by one for each name."""
        _, offset, size, *_ = wire.READ_IN.unpack_from(body)
        fs, out, used = self._fs, [], 0
        if offset == 0:
            self._ends[nodeid] = fs.last_cookie(nodeid)
        end = self._ends.get(nodeid, fs.last_cookie(nodeid))
        directory = fs.directory(nodeid)
        no_entry = self._absent if with_entries else b""
        for at, (name, node) in enumerate(
            ((b".", directory), (b"..", directory.parent or directory)), 1
        ):
            if at > offset:
                out.append(no_entry + wire.dirent(node.ino, at, stat.S_IFDIR, name))
                used += len(out[-1])
        for dirent in fs.readdir(nodeid, max(offset - _DOTS, 0)):
            length = len(no_entry) + wire.DIRENT.size + (len(dirent.name) + 7 & ~7)
            if dirent.cookie > end or used + length > size:
                break
            entry = fs.lookup(nodeid, dirent.name)
            if entry is None:
                continue
            ino, at = entry.node.ino, dirent.cookie + _DOTS
            record = wire.dirent(ino, at, dirent.fmt, dirent.name)
            if with_entries:
                record = self._entry(entry) + record
            else:
                fs.forget(entry.node.nodeid, 1)
            out.append(record)
            used += length
        return b"".join(out)

    def _releasedir(self, head: Head, body: memoryview) -> bytes:
        return _NOTHING

    def _fsyncdir(self, head: Head, body: memoryview) -> bytes | None:
        return self._fsync(head, body)

    def _statfs(self, head: Head, body: memoryview) -> bytes:
        st = self._fs.statfs()
        return wire.STATFS_OUT.pack(
            st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree,
            st.f_bsize, st.f_namemax, st.f_frsize, 0,
        )  # fmt: skip

    # Structs of replies

    def _entry(self, entry: Entry) -> bytes:
        seconds, nanoseconds = self._seconds, self._nanoseconds
        return wire.ENTRY_OUT.pack(
            entry.node.nodeid, 0, seconds, seconds, nanoseconds, nanoseconds
        ) + _attr(entry.attr)

    def _attributes(self, attr: Attr) -> bytes:
        return wire.ATTR_OUT.pack(self._seconds, self._nanoseconds, 0) + _attr(attr)


def _attr(attr: Attr) -> bytes:
    st = attr.st
    atime, atime_ns = divmod(st.st_atime_ns, 1_000_000_000)
    mtime, mtime_ns = divmod(st.st_mtime_ns, 1_000_000_000)
    ctime, ctime_ns = divmod(st.st_ctime_ns, 1_000_000_000)
    device = st.st_rdev
    if device:
        minor = os.minor(device)
        device = minor & 0xFF | os.major(device) << 8 | (minor & ~0xFF) << 12
    return wire.ATTR.pack(
        attr.ino, st.st_size, st.st_blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns,
        st.st_mode, attr.nlink, st.st_uid, st.st_gid, device, st.st_blksize, 0,
    )  # fmt: skip


def _name(body: memoryview) -> bytes:
    return bytes(body).partition(b"\0")[0]


def _caller(head: Head, umask: int) -> Caller:
    return Caller(head[4], head[5], umask)


def _time(valid: int, given: int, now: int, seconds: int, nanoseconds: int) -> int | None:
    if valid & now:
        return time.time_ns()
    return seconds * 1_000_000_000 + nanoseconds if valid & given else None


def _sized(body: memoryview, value: bytes) -> bytes:
    """Answer a request for an attribute: its size if asked with 0, itself if it fits."""
    (size, _) = wire.GETXATTR_IN.unpack_from(body)
    if size == 0:
        return wire.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise oserror(errno.ERANGE)
    return value
