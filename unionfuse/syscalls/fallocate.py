"""fallocate(2), with its modes."""

import ctypes

from unionfuse.syscalls.libc import check, libc

_fallocate = libc.fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Allocate, zero or punch a range of a file; `mode` as fallocate(2).

    Raises:
        OSError: EOPNOTSUPP for a mode that the filesystem lacks, ENOSPC, EINVAL.
    """
    check(_fallocate(fd, mode, offset, length))
