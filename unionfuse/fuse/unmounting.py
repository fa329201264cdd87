"""Unmount, and wait for the daemon behind the mount to go."""

from __future__ import annotations

import os
import select
import time

from unionfuse.fuse import mountinfo, mounting, table
from unionfuse.fuse.errors import MountError

_DAEMON_SECONDS = 60
_LOOK_SECONDS = 1  # until it is looked why the daemon does not end


def unmount_and_wait(mountpoint: bytes, *, lazy: bool) -> str | None:
    """Unmount `mountpoint`; return when its upper can be mounted again.

    A lazy unmount does not wait: the daemon goes when the last user does. Nor is a mount waited
    for that is elsewhere too, as in the mount namespace of a container engine that was started
    after it: umount(8) of overlayfs is done then as well, and the filesystem lives on.

    Returns:
        Where else it is mounted, for the user to read; None if it is gone.

    Raises:
        MountError: if it is no unionfuse mount, busy, or the daemon does not end.
    """
    path = _resolve(mountpoint)
    record = table.find(path)
    if record is None:
        raise MountError(f"{os.fsdecode(mountpoint)}: no unionfuse mount there")
    try:
        pidfd = os.pidfd_open(record.pid) if record.pid else -1
    except ProcessLookupError:
        pidfd = -1
    try:
        mounting.unmount(path, lazy=lazy)
        return None if lazy or pidfd < 0 else _wait(pidfd, record)
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _wait(pidfd: int, record: table.MountRecord) -> str | None:
    deadline = time.monotonic() + _DAEMON_SECONDS
    while not select.select([pidfd], [], [], _LOOK_SECONDS)[0]:
        elsewhere = _elsewhere(os.fsencode(record.device))
        if elsewhere is not None:
            return f"{elsewhere}; daemon {record.pid} and its upper are in use until that ends"
        if time.monotonic() > deadline:
            raise MountError(f"unmounted, but its daemon {record.pid} does not end")
    return None


def _elsewhere(device: bytes) -> str | None:
    for mount in mountinfo.mounts():
        if mount.device == device:
            return f"it is mounted on {os.fsdecode(mount.mountpoint)} too"
    pid = mountinfo.holder_of(device)
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/comm") as file:
            name = file.read().strip()
    except OSError:  # it has just ended
        return None
    return f"process {pid} ({name}) has it in its mount namespace"


def _resolve(mountpoint: bytes) -> bytes:
    """Return the absolute path without asking the mount itself, which may be dead."""
    parent, name = os.path.split(os.path.abspath(mountpoint))
    return os.path.join(os.path.realpath(parent), name) if name else b"/"
