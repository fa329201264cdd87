"""How far the kernel reads ahead of a program that reads a file from end to end.

INIT can only ask for less than the 128 KiB that every FUSE mount starts with. Four times as much
brings READ requests of the greatest size (1 MiB): 67 for a file of 64 MiB in place of 257.
"""

from __future__ import annotations

import contextlib
import os

from unionfuse.syscalls.fdpath import proc_path

_KIB = 512


def raise_readahead(mountpoint: bytes) -> None:
    """Have the kernel read further ahead on this mount, where root may say so."""
    device = _device(mountpoint)
    # Anyone but root, and those in containers, keep what they have.
    with contextlib.suppress(OSError), open(f"/sys/class/bdi/{device}/read_ahead_kb", "w") as file:
        file.write(str(_KIB))


def _device(mountpoint: bytes) -> str | None:
    """Return `MAJOR:MINOR` of what is mounted there, without touching it."""
    wanted = _escape(mountpoint)
    found = None
    with open(proc_path("self/mountinfo"), "rb") as mounts:
        for line in mounts:
            fields = line.split(b" ", 5)
            if fields[4] == wanted:
                found = os.fsdecode(fields[2])
    return found


def _escape(path: bytes) -> bytes:
    for byte in b"\\ \t\n":
        path = path.replace(bytes([byte]), b"\\%03o" % byte)
    return path
