"""Unmount, and wait for the daemon behind the mount to go."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import NamedTuple

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
        waits = pidfd >= 0 and not lazy
        # Before: when the filesystem has gone, another one can get its number.
        others = _Others.of(path, os.fsencode(record.device)) if waits else None
        mounting.unmount(path, lazy=lazy)
        return None if others is None else _wait(pidfd, record.pid, others)
    finally:
        if pidfd >= 0:
            os.close(pidfd)


class _Others(NamedTuple):
    """Where else a filesystem is mounted.

    Attributes:
        device: its number.
        mountpoints: in this namespace.
        pids: of processes, each in another one.
    """

    device: bytes
    mountpoints: frozenset[bytes]
    pids: list[int]

    @classmethod
    def of(cls, mountpoint: bytes, device: bytes) -> _Others:
        """Look where else `device`, which is mounted on `mountpoint`, is."""
        here = (mount.mountpoint for mount in mountinfo.mounts() if mount.device == device)
        return cls(device, frozenset(here) - {mountpoint}, mountinfo.holders_of(device))

    def still(self) -> str | None:
        """Return where it is still, in words; None if nowhere."""
        for mount in mountinfo.mounts():
            if mount.device == self.device and mount.mountpoint in self.mountpoints:
                return f"it is mounted on {os.fsdecode(mount.mountpoint)} too"
        for pid in self.pids:
            if mountinfo.is_mounted_for(pid, self.device):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
                    return f"process {pid} ({file.read().strip()}) has it in its mount namespace"
        return None


def _wait(pidfd: int, daemon: int, others: _Others) -> str | None:
    deadline = time.monotonic() + _DAEMON_SECONDS
    while not select.select([pidfd], [], [], _LOOK_SECONDS)[0]:
        still = others.still()
        if still is not None:
            return f"{still}; daemon {daemon} and its upper are in use until that ends"
        if time.monotonic() > deadline:
            raise MountError(f"unmounted, but its daemon {daemon} does not end")
    return None


def _resolve(mountpoint: bytes) -> bytes:
    """Return the absolute path without asking the mount itself, which may be dead."""
    parent, name = os.path.split(os.path.abspath(mountpoint))
    return os.path.join(os.path.realpath(parent), name) if name else b"/"
