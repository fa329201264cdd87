"""openat2(2) (Linux 5.6): open a path that leads nowhere but below a directory."""

import ctypes
import os
from struct import Struct

from unionfuse.syscalls.libc import check, libc

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_SYS_OPENAT2 = 437  # the same on every architecture
_OPEN_HOW = Struct("=QQQ")  # flags mode resolve


def openat2(dir_fd: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dir_fd`, resolved as `resolve` says; return a descriptor.

    Raises:
        OSError: as openat2(2); EXDEV or ELOOP where the path leads elsewhere.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    return check(
        libc.syscall(_SYS_OPENAT2, dir_fd, ctypes.c_char_p(path), how, ctypes.c_size_t(len(how)))
    )
