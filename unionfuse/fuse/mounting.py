"""Attach a FUSE connection to a mountpoint and take it off again.

As root, or as root of a user namespace that owns its mount namespace, by mount(2); else by
fusermount3, which is setuid root and passes the descriptor back over a socket.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.fuse.errors import MountError
from unionfuse.syscalls import mount as sys_mount

if TYPE_CHECKING:
    from unionfuse.fuse.options import MountOptions

FSTYPE = "fuse.unionfuse"
_DEVICE = "/dev/fuse"
_SELINUX = "/sys/fs/selinux/enforce"


def mount(mountpoint: bytes, options: MountOptions) -> int:
    """Mount on `mountpoint` and return the connection's descriptor.

    Raises:
        MountError: with what would help.
    """
    try:
        return _mount_directly(mountpoint, options)
    except PermissionError:
        from unionfuse.fuse import fusermount

        return fusermount.mount(mountpoint, options)


def unmount(mountpoint: bytes, *, lazy: bool = False) -> None:
    """Unmount; a `lazy` one takes it out of the tree now and ends when nobody uses it.

    Raises:
        MountError: if it is no mount point, busy, or not ours to unmount.
    """
    flags = sys_mount.UMOUNT_NOFOLLOW | (sys_mount.MNT_DETACH if lazy else 0)
    try:
        sys_mount.umount2(mountpoint, flags)
    except PermissionError:
        from unionfuse.fuse import fusermount

        fusermount.unmount(mountpoint, lazy=lazy)
    except OSError as err:
        raise MountError(f"{os.fsdecode(mountpoint)}: {_unmount_problem(err)}") from None


def remount(mountpoint: bytes, options: MountOptions) -> None:
    """Give a mount other flags; what the daemon was told when it began stays.

    Raises:
        MountError: if that is not permitted, or no mount is there.
    """
    try:
        sys_mount.mount(
            b"", mountpoint, b"", options.flags | sys_mount.MS_REMOUNT, b""
        )  # fmt: skip
    except OSError as err:
        problem = _unmount_problem(err)
        raise MountError(f"cannot remount {os.fsdecode(mountpoint)}: {problem}") from None


def _unmount_problem(err: OSError) -> str:
    if err.errno == errno.EBUSY:
        return "in use: end its users, or unmount with --lazy"
    if err.errno == errno.EINVAL:
        return "not mounted"
    return os.strerror(err.errno or errno.EIO)


def _mount_directly(mountpoint: bytes, options: MountOptions) -> int:
    fd = _open_device()
    try:
        allow_other = os.geteuid() == 0 if options.allow_other is None else options.allow_other
        data = [
            f"fd={fd}",
            f"rootmode={stat.S_IFDIR:o}",
            f"user_id={os.geteuid()}",
            f"group_id={os.getegid()}",
            "default_permissions",
            *(["allow_other"] if allow_other else []),
            *([f'context="{options.context}"'] if options.context and _has_selinux() else []),
        ]
        # With MS_POSIXACL the kernel leaves the umask to us, who know of default ACLs.
        sys_mount.mount(
            os.fsencode(options.fsname),
            mountpoint,
            os.fsencode(f"fuse.{options.subtype}"),
            options.flags | (sys_mount.MS_POSIXACL if options.acl else 0),
            os.fsencode(",".join(data)),
        )
    except PermissionError:
        os.close(fd)
        raise
    except OSError as err:
        os.close(fd)
        problem = os.strerror(err.errno or errno.EIO)
        raise MountError(f"cannot mount on {os.fsdecode(mountpoint)}: {problem}") from None
    return fd


def _has_selinux() -> bool:
    """Tell whether the kernel knows labels: otherwise it refuses `context=` as nonsense."""
    return os.path.exists(_SELINUX)


def _open_device() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as err:
        raise MountError(_device_problem(err)) from None


def _device_problem(err: OSError) -> str:
    """Say why /dev/fuse can not be opened; fusermount3 opens it as its caller, and can not too."""
    if err.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return (
            f"no {_DEVICE}: load the kernel's module (modprobe fuse), or give the container the "
            f"device (--device {_DEVICE})"
        )
    problem = f"{_DEVICE}: {os.strerror(err.errno or errno.EIO)}"
    if err.errno == errno.EACCES:  # its mode, or a mount with nodev
        return (
            f"{problem}: let its users read and write it (chmod 666 {_DEVICE}); to a container "
            f"give the device (--device {_DEVICE})"
        )
    if err.errno == errno.EPERM:  # the device cgroup
        return f"{problem}: the container may not use it: give it the device (--device {_DEVICE})"
    return problem
