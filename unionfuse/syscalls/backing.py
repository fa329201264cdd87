"""Ioctls of /dev/fuse that hand a file to the kernel, to read and write it past the daemon."""

import fcntl
from struct import Struct

_BACKING_OPEN = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
_BACKING_CLOSE = 0x4004E502  # _IOW(229, 2, uint32_t)
_MAP = Struct("=iIQ")  # fd flags padding
_ID = Struct("=I")


def backing_open(fuse_fd: int, fd: int) -> int:
    """Register the regular file `fd` (O_PATH will do) and return its backing id, > 0.

    The kernel holds the file until `backing_close`, and while it is open through that id.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN in the initial user namespace, ELOOP for a file on
            a filesystem that is stacked itself, EOPNOTSUPP, ENOTTY by kernels before 6.9.
    """
    # of a mutable argument ioctl returns the call's result, which is the id
    backing_id: int = fcntl.ioctl(fuse_fd, _BACKING_OPEN, bytearray(_MAP.pack(fd, 0, 0)), True)
    return backing_id


def backing_close(fuse_fd: int, backing_id: int) -> None:
    """Give a backing id back."""
    fcntl.ioctl(fuse_fd, _BACKING_CLOSE, _ID.pack(backing_id))
