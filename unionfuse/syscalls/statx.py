"""statx(2), for what os.stat does not tell: when a file was made."""

import ctypes
from struct import Struct

from unionfuse.syscalls.libc import check, libc

_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_SIZE = 256
_MASK = Struct("=I")
_BTIME = Struct("=qI")
_BTIME_OFFSET = 80

_statx = libc.statx
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)


def birth_time(fd: int, name: bytes = b"") -> tuple[int, int] | None:
    """Return seconds and nanoseconds of the birth of `name` below `fd`, or of `fd` itself.

    None where the filesystem does not keep it.
    """
    buffer = ctypes.create_string_buffer(_SIZE)
    flags = _AT_SYMLINK_NOFOLLOW | (0 if name else _AT_EMPTY_PATH)
    check(_statx(fd, name, flags, _STATX_BTIME, buffer))
    (mask,) = _MASK.unpack_from(buffer)
    if not mask & _STATX_BTIME:
        return None
    seconds, nanoseconds = _BTIME.unpack_from(buffer, _BTIME_OFFSET)
    return seconds, nanoseconds
