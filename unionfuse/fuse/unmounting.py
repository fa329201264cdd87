"""Unmount, and wait for the daemon behind the mount to go."""

from __future__ import annotations

import os
import select

from unionfuse.fuse import mounting, table
from unionfuse.fuse.errors import MountError

_DAEMON_SECONDS = 60


def unmount_and_wait(mountpoint: bytes, *, lazy: bool) -> None:
    """Unmount `mountpoint`; return when its upper can be mounted again.

    A lazy unmount does not wait: the daemon goes when the last user does.

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
        if pidfd >= 0 and not lazy and not select.select([pidfd], [], [], _DAEMON_SECONDS)[0]:
            raise MountError(
                f"unmounted here, but its daemon {record.pid} goes on: is it mounted in another "
                "mount namespace too?"
            )
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _resolve(mountpoint: bytes) -> bytes:
    """Return the absolute path without asking the mount itself, which may be dead."""
    parent, name = os.path.split(os.path.abspath(mountpoint))
    return os.path.join(os.path.realpath(parent), name) if name else b"/"
