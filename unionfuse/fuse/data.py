"""Move file data for a session without holding up other requests.

Reads that the page cache can answer are made in line; those that would wait for the disk, in a
thread.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from unionfuse.union.backing import AppendOnly

if TYPE_CHECKING:
    from unionfuse.union.fs import UnionFs


async def read(fs: UnionFs, nodeid: int, size: int, offset: int) -> memoryview:
    """Return up to `size` bytes at `offset`, fewer only at the end of the file.

    Raises:
        OSError: EIO and what the layer says.
    """
    buffer = memoryview(bytearray(size))
    fd = fs.data_fd(nodeid)
    done = read_cached(fd, buffer, offset)
    if done < 0:
        done = -done - 1
        import trio

        own_fd = os.dup(fd)  # the thread's, whatever is closed meanwhile
        try:
            done += await trio.to_thread.run_sync(_fill, own_fd, buffer[done:], offset + done)
        finally:
            os.close(own_fd)
    return buffer[:done]


def write(
    fs: UnionFs, nodeid: int, data: bytes | memoryview, offset: int, *, whole: bool = False
) -> int:
    """Write `data` at `offset` of a file that is in the upper; return how much was written.

    That is less than all only where the next byte had no room: the caller then learns how long
    the file is, and the cause with the next write. With `whole` it is an error.

    Raises:
        CopyUpNeeded: if it has to be copied up first.
        OSError: ENOSPC, EDQUOT, EFBIG, EIO if nothing was written, or not the whole; EPERM
            within an append-only file.
    """
    try:
        fd = fs.data_fd(nodeid, write=True)
    except AppendOnly as only:
        return _append(only.fd, data, offset, whole=whole)
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        try:
            done += os.pwrite(fd, data[done:], offset + done)
        except OSError:
            if whole:
                raise
            break
    return done


def _append(fd: int, data: bytes | memoryview, offset: int, *, whole: bool) -> int:
    """Write what of `data` is behind the end of an append-only file.

    What the kernel has gathered begins with a page of which the file has a part already.
    """
    known = os.fstat(fd).st_size - offset
    if known < 0 or (known and not whole):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    if known and read_all(fd, min(known, len(data)), offset) != data[:known]:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    rest = memoryview(data)[known:]
    while rest:
        rest = rest[os.write(fd, rest) :]
    return len(data)


def read_cached(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` from the page cache; return the size, or -1 - size if the disk is needed."""
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(fd, [buffer[done:]], offset + done, os.RWF_NOWAIT)
        except OSError as err:
            if err.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return -1 - done
            raise
        if count == 0:
            break
        done += count
    return done


def read_all(fd: int, size: int, offset: int) -> memoryview:
    """Return `size` bytes at `offset`, fewer only at the end of the file; may wait."""
    buffer = memoryview(bytearray(size))
    return buffer[: _fill(fd, buffer, offset)]


def _fill(fd: int, buffer: memoryview, offset: int) -> int:
    done = 0
    while done < len(buffer):
        count = os.preadv(fd, [buffer[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done
