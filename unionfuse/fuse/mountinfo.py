"""The kernel's tables of mounts: /proc/PID/mountinfo (proc(5))."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

_PROC = "/proc"
_ESCAPED = ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\"))


class Mount(NamedTuple):
    """One mount.

    Attributes:
        device: `MAJOR:MINOR` of the filesystem.
        root: the directory of the filesystem that is mounted.
        mountpoint: where.
        options: of this mount, not of its filesystem.
        fstype: type of the filesystem.
    """

    device: bytes
    root: bytes
    mountpoint: bytes
    options: tuple[bytes, ...]
    fstype: bytes


def mounts() -> list[Mount]:
    """Return the mounts that this process sees, those on top of others after them."""
    return _mounts_of("self")


def holders_of(device: bytes) -> list[int]:
    """Return a process of each other mount namespace that has filesystem `device` mounted.

    Those that this process may not look at are left out.
    """
    seen = {os.readlink(f"{_PROC}/self/ns/mnt")}
    found = []
    for name in os.listdir(_PROC):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is none of ours
            namespace = os.readlink(f"{_PROC}/{name}/ns/mnt")
            if namespace not in seen:
                seen.add(namespace)
                if is_mounted_for(int(name), device):
                    found.append(int(name))
    return found


def is_mounted_for(pid: int, device: bytes) -> bool:
    """Tell whether a process that is there, and may be looked at, has `device` mounted."""
    try:
        return any(mount.device == device for mount in _mounts_of(str(pid)))
    except OSError:
        return False


def _mounts_of(process: str) -> list[Mount]:
    with open(f"{_PROC}/{process}/mountinfo", "rb") as table:
        return [_parsed(line) for line in table.read().splitlines()]


def _parsed(line: bytes) -> Mount:
    fields, _, tail = line.partition(b" - ")
    _, _, device, root, mountpoint, options, *_ = fields.split(b" ")
    fstype = tail.partition(b" ")[0]
    return Mount(
        device, _unescaped(root), _unescaped(mountpoint), tuple(options.split(b",")), fstype
    )


def _unescaped(text: bytes) -> bytes:
    if b"\\" in text:
        for escaped, char in _ESCAPED:
            text = text.replace(escaped, char)
    return text
