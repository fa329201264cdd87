"""The processes behind mounts: find them, wait for their end, clear what a killed run left."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT = 60.0  # seconds; mounting takes well under one


def clear(base: Path) -> None:
    """Remove what a run that was killed has left in `base`, its mount first."""
    mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    if os.fsencode(base / "mnt") in {line.split()[4] for line in mounts}:
        subprocess.run(["umount", "-l", str(base / "mnt")], timeout=TIMEOUT, check=True)
    if base.exists():
        shutil.rmtree(base)


def daemon_pids(mountpoint: Path) -> list[int]:
    """Return the processes that have `mountpoint` on their command line."""
    wanted = os.fsencode(mountpoint)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end between the listing and the reading.
        with contextlib.suppress(OSError):
            if wanted in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def unmount(mnt: Path, pids: Sequence[int]) -> None:
    """Unmount `mnt` and wait until its daemon is gone.

    Raises:
        BenchError: it can not be unmounted; it has been detached then.
    """
    said = b""
    for _ in range(50):  # somebody's lookup in it may end a moment later
        done = subprocess.run(
            ["umount", str(mnt)], capture_output=True, timeout=TIMEOUT, check=False
        )
        if not done.returncode:
            break
        said = done.stderr
        time.sleep(0.1)
    else:
        subprocess.run(["umount", "-l", str(mnt)], timeout=TIMEOUT, check=False)
        raise BenchError(f"{mnt} can not be unmounted: {said.decode(errors='replace').strip()}")
    deadline = time.monotonic() + TIMEOUT
    while left := [pid for pid in pids if _is_running(pid)]:
        if time.monotonic() > deadline:
            raise BenchError(f"the daemon of {mnt} outlived its mount: pid {left}")
        time.sleep(0.005)


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[0] != b"Z"
