"""Flags of an inode, as chattr(1) and lsattr(1) have them: FS_IOC_*FLAGS and FS_IOC_FS*XATTR."""

import fcntl

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
FS_APPEND_FL = 0x20

_SIZES = {FS_IOC_GETFLAGS: 4, FS_IOC_FSGETXATTR: 28}


def get_flags(fd: int, command: int) -> bytes:
    """Return what one of the two GET commands answers, in the machine's byte order.

    Raises:
        OSError: ENOTTY where the filesystem has no such flags.
    """
    return fcntl.ioctl(fd, command, bytes(_SIZES[command]))


def set_flags(fd: int, command: int, value: bytes) -> None:
    """Set flags by one of the two SET commands.

    Raises:
        OSError: EPERM without CAP_LINUX_IMMUTABLE, EOPNOTSUPP, ENOTTY.
    """
    fcntl.ioctl(fd, command, value)
