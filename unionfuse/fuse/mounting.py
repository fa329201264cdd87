"""Attach a FUSE connection to a mountpoint and take it off again.

As root, or as root of a user namespace that owns its mount namespace, by mount(2); else by
fusermount3, which is setuid root and passes the descriptor back over a socket.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

from unionfuse.fuse.errors import MountError
from unionfuse.syscalls import mount as sys_mount

if TYPE_CHECKING:
    from unionfuse.fuse.options import MountOptions

FSTYPE = "fuse.unionfuse"
_FUSERMOUNT_SECONDS = 30


def mount(mountpoint: bytes, options: MountOptions) -> int:
    """Mount on `mountpoint` and return the connection's descriptor.

    Raises:
        MountError: with what would help.
    """
    try:
        return _mount_directly(mountpoint, options)
    except PermissionError:
        return _mount_by_fusermount(mountpoint, options)


def unmount(mountpoint: bytes, *, lazy: bool = False) -> None:
    """Unmount; a `lazy` one takes it out of the tree now and ends when nobody uses it.

    Raises:
        MountError: if it is no mount point, busy, or not ours to unmount.
    """
    flags = sys_mount.UMOUNT_NOFOLLOW | (sys_mount.MNT_DETACH if lazy else 0)
    try:
        sys_mount.umount2(mountpoint, flags)
    except PermissionError:
        _unmount_by_fusermount(mountpoint, lazy)
    except OSError as err:
        raise MountError(f"{os.fsdecode(mountpoint)}: {_unmount_problem(err)}") from None


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
        ]
        # With MS_POSIXACL the kernel leaves the umask to us, who know of default ACLs.
        sys_mount.mount(
            os.fsencode(options.fsname),
            mountpoint,
            FSTYPE.encode(),
            options.flags | sys_mount.MS_POSIXACL,
            ",".join(data).encode(),
        )
    except PermissionError:
        os.close(fd)
        raise
    except OSError as err:
        os.close(fd)
        problem = os.strerror(err.errno or errno.EIO)
        raise MountError(f"cannot mount on {os.fsdecode(mountpoint)}: {problem}") from None
    return fd


def _open_device() -> int:
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise MountError(
                "no /dev/fuse: load the kernel's module (modprobe fuse), or give the container "
                "the device (--device /dev/fuse)"
            ) from None
        raise


def _mount_by_fusermount(mountpoint: bytes, options: MountOptions) -> int:
    words = [f"fsname={_escape(options.fsname)}", "subtype=unionfuse", "default_permissions"]
    words += ["allow_other"] if options.allow_other else []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = _fusermount(
            ["-o", ",".join([*words, *options.words]), "--", mountpoint],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        if done.returncode == 0:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            if fds:
                os.set_inheritable(fds[0], False)
                return fds[0]
    raise MountError(f"cannot mount on {os.fsdecode(mountpoint)}: {_last_line(done.stderr)}")


def _unmount_by_fusermount(mountpoint: bytes, lazy: bool) -> None:
    done = _fusermount(["-u", *(["-z"] if lazy else []), "--", mountpoint])
    if done.returncode != 0:
        raise MountError(f"{os.fsdecode(mountpoint)}: {_last_line(done.stderr)}")


def _fusermount(
    arguments: list[str | bytes],
    env: dict[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("fusermount3")
    if program is None:
        raise MountError(
            "not permitted to mount: run as root, in a user namespace (unshare -Urm), or "
            "install fusermount3 (package fuse3)"
        )
    return subprocess.run(
        [program, *arguments],
        check=False,
        env=env,
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=_FUSERMOUNT_SECONDS,
    )


def _last_line(stderr: bytes) -> str:
    lines = [line for line in os.fsdecode(stderr).splitlines() if line.strip()]
    return lines[-1] if lines else "fusermount3 failed without a word"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,")
