"""File handles and filesystem identity: name_to_handle_at(2), open_by_handle_at(2), UUIDs."""

import ctypes
import fcntl
import os
import struct

from unionfuse.syscalls.libc import check, libc

_MAX_HANDLE = 128  # MAX_HANDLE_SZ of <linux/exportfs.h>
_FS_IOC_GETFSUUID = 0x80111500  # _IOR(0x15, 0, struct fsuuid2) of <linux/fs.h>, kernel 6.9


_HEADER = struct.Struct("=Ii")  # struct file_handle: handle_bytes, handle_type, f_handle[]

_name_to_handle_at = libc.name_to_handle_at
_name_to_handle_at.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_int,
)

_open_by_handle_at = libc.open_by_handle_at
_open_by_handle_at.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


def name_to_handle(dir_fd: int, name: bytes) -> tuple[int, bytes]:
    """Return type and bytes of the file handle of `name` (never followed) below `dir_fd`.

    Raises:
        OSError: EOPNOTSUPP where the filesystem has no handles.
    """
    handle = ctypes.create_string_buffer(_HEADER.size + _MAX_HANDLE)
    _HEADER.pack_into(handle, 0, _MAX_HANDLE, 0)
    mount_id = ctypes.c_int()
    check(_name_to_handle_at(dir_fd, name, handle, ctypes.byref(mount_id), 0))
    size, handle_type = _HEADER.unpack_from(handle)
    return handle_type, handle.raw[_HEADER.size : _HEADER.size + size]


def open_by_handle(mount_fd: int, handle_type: int, handle: bytes) -> int:
    """Open, as O_PATH, what a handle of the filesystem of `mount_fd` (no O_PATH one) names.

    Raises:
        OSError: ESTALE if there is no such file any more, EPERM without CAP_DAC_READ_SEARCH.
    """
    packed = _HEADER.pack(len(handle), handle_type) + handle
    return check(_open_by_handle_at(mount_fd, packed, os.O_PATH | os.O_CLOEXEC))


def filesystem_uuid(fd: int) -> bytes:
    """Return the 16-byte UUID of the filesystem below `fd`; zeros where it tells none."""
    buffer = bytearray(17)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFSUUID, buffer, True)
    except OSError:
        return bytes(16)
    return bytes(buffer[1:17])
