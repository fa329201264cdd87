"""renameat2(2): rename with NOREPLACE, EXCHANGE and WHITEOUT."""

import ctypes

from unionfuse.syscalls.libc import check, libc

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

_renameat2 = libc.renameat2
_renameat2.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)


def renameat2(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int) -> None:
    """Rename `old` below directory `old_fd` to `new` below `new_fd`.

    Raises:
        OSError: as renameat2(2); EINVAL where the filesystem lacks a flag.
    """
    check(_renameat2(old_fd, old, new_fd, new, flags))
