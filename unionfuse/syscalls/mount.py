"""mount(2) and umount2(2)."""

import ctypes

from unionfuse.syscalls.libc import check, libc

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_POSIXACL = 1 << 16
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

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
