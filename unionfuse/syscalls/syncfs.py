"""What Python lacks of writing to the disk: syncfs(2), and sync_file_range(2) as a question."""

import ctypes

from unionfuse.syscalls.libc import check, libc

_WAIT_BEFORE = 1  # SYNC_FILE_RANGE_WAIT_BEFORE
_BEYOND = 1 << 62  # where no file has data, so there is nothing to wait for

_sync_file_range = libc.sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def syncfs(fd: int) -> None:
    """Write all of the filesystem that `fd` is on to the disk."""
    check(libc.syncfs(fd))


def check_written(fd: int) -> None:
    """Raise what writing back the file behind `fd` has met since it was opened; write nothing.

    Raises:
        OSError: EIO, ENOSPC, once for each descriptor.
    """
    check(_sync_file_range(fd, _BEYOND, 1, _WAIT_BEFORE))
