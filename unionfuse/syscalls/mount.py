"""mount(2), umount2(2), and mounts that are in no tree."""

import ctypes
import os
from struct import Struct

from unionfuse.syscalls.libc import check, libc

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 1 << 14
MS_POSIXACL = 1 << 16
MS_SLAVE = 1 << 19
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# Numbers of system calls from open_tree on are the same on every architecture.
_SYS_OPEN_TREE, _SYS_MOUNT_SETATTR = 428, 442
_AT_FDCWD = -100
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MS_PRIVATE = 1 << 18
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOATIME, _MOUNT_ATTR_ATIME = 0x01, 0x10, 0x70
_MOUNT_ATTR = Struct("=QQQQ")  # attr_set attr_clr propagation userns_fd

_mount = libc.mount
_mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_umount2 = libc.umount2
_umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_syncfs = libc.syncfs
_syncfs.argtypes = (ctypes.c_int,)


def mount(source: bytes, target: bytes, fstype: bytes, flags: int, data: bytes) -> None:
    """Mount `source` on `target`.

    Raises:
        OSError: as mount(2); EPERM without CAP_SYS_ADMIN over the mount namespace.
    """
    check(_mount(source, target, fstype, flags, data))


def umount2(target: bytes, flags: int) -> None:
    """Unmount what is mounted on `target`.

    Raises:
        OSError: as umount2(2); EBUSY while it is in use, EINVAL if it is no mount point.
    """
    check(_umount2(target, flags))


def syncfs(fd: int) -> None:
    """Write back everything dirty on the filesystem that `fd` lies on."""
    check(_syncfs(fd))


def private_view(path: bytes) -> int:
    """Return an O_PATH descriptor of the directory `path` in a mount of its own.

    Through it nothing is written, and reading leaves access times alone, whoever reads; what is
    mounted below `path` does not show, as in the layers of overlayfs. It lasts as long as
    descriptors below it.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, EINVAL in a user namespace, ENOSYS before 5.12.
    """
    flags = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOATIME
    return _cloned(path, 0, _MOUNT_ATTR.pack(flags, _MOUNT_ATTR_ATIME, 0, 0))


def frozen_view(path: bytes) -> int:
    """Return an O_PATH descriptor of `path` and of what is mounted below it now.

    What is mounted below `path` later does not show; what is unmounted stays in use. It lasts as
    long as descriptors below it. Where that may be, it is as `private_view` is.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN over the mount namespace, ENOSYS before 5.12.
    """
    # A copy of a shared mount is its peer: without MS_PRIVATE what is mounted there shows here too.
    flags = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOATIME
    try:
        attributes = _MOUNT_ATTR.pack(flags, _MOUNT_ATTR_ATIME, _MS_PRIVATE, 0)
        return _cloned(path, _AT_RECURSIVE, attributes)
    except PermissionError:  # a user namespace does not change what it was given
        return _cloned(path, _AT_RECURSIVE, _MOUNT_ATTR.pack(0, 0, _MS_PRIVATE, 0))


def make_read_only(path: bytes) -> None:
    """Let nothing be written through the mount on `path`, nor through what is mounted below it.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN over the mount namespace, ENOSYS before 5.12.
    """
    attributes = _MOUNT_ATTR.pack(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    size = _MOUNT_ATTR.size
    check(libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, size))


def _cloned(path: bytes, flags: int, attributes: bytes) -> int:
    clone = _OPEN_TREE_CLONE | os.O_CLOEXEC | flags
    fd = check(libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, path, clone))
    try:
        at = _AT_EMPTY_PATH | flags
        check(libc.syscall(_SYS_MOUNT_SETATTR, fd, b"", at, attributes, _MOUNT_ATTR.size))
    except BaseException:
        os.close(fd)
        raise
    return fd
