"""Processes by an identity that holds: their pid, when they started, and in which boot.

A pid alone is used again, after a while or after the next boot: whoever is killed by it then is
somebody else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from typing import TYPE_CHECKING

import msgspec

from unionfuse.fuse.table import start_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLOCK_SECONDS = 1.0  # by which a clock may be set meanwhile; pids are not used again so soon


class Process(msgspec.Struct, frozen=True):
    """A process.

    Attributes:
        started: in clock ticks since boot, as proc_pid_stat(5) has it.
        boot: the id of the boot.
    """

    pid: int
    started: int
    boot: str


def identify(pid: int) -> Process | None:
    """Return the process that has `pid` now; None if there is none that lives."""
    started = start_time(pid)
    return None if started is None else Process(pid, started, _boot())


def from_file(path: Path) -> Process | None:
    """Return the process whose pid a file was given, if it lives.

    One that has begun after the file was written is another one.
    """
    try:
        with open(path) as file:
            found = identify(int(file.read()))
            written = os.fstat(file.fileno()).st_mtime
    except (OSError, ValueError):
        return None
    if found is None:
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    begun = booted + found.started / os.sysconf("SC_CLK_TCK")
    return found if begun <= written + _CLOCK_SECONDS else None


def naming(program: str, word: str) -> list[Process]:
    """Return the processes of a program of which `word` is an argument."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
        except OSError:
            continue
        if os.path.basename(arguments[0]) == program.encode() and word.encode() in arguments:
            process = identify(int(name))
            found += [] if process is None else [process]
    return found


def children(process: Process) -> list[Process]:
    """Return the processes that it has started, and that live."""
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            pids = [int(pid) for pid in file.read().split()]
    except OSError:
        return []
    return [child for pid in pids if (child := identify(pid)) is not None]


def is_alive(process: Process | None) -> bool:
    """Tell whether it is there, and no zombie."""
    return (
        process is not None
        and process.boot == _boot()
        and start_time(process.pid) == process.started
    )


def send(process: Process | None, number: int) -> bool:
    """Send a signal; return False if the process is gone.

    Raises:
        PermissionError: if it is not ours to signal.
    """
    with _pidfd(process) as pidfd:
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        return True


def wait(process: Process | None, seconds: float) -> bool:
    """Wait until the process has ended; return False if it goes on."""
    deadline = time.monotonic() + seconds
    with _pidfd(process) as pidfd:
        if pidfd is None:
            return True
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                return True
    return not is_alive(process)


def end(process: Process | None, seconds: float) -> None:
    """Ask a process to end by SIGTERM, and kill it if it does not within `seconds`."""
    if send(process, signal.SIGTERM) and not wait(process, seconds):
        send(process, signal.SIGKILL)
        wait(process, seconds)


@contextlib.contextmanager
def _pidfd(process: Process | None) -> Iterator[int | None]:
    """Yield a pidfd of the process itself, and not of one that has its pid now."""
    if process is None:
        yield None
        return
    try:
        fd = os.pidfd_open(process.pid)
    except OSError as err:
        if err.errno not in (errno.ESRCH, errno.EINVAL):
            raise
        yield None
        return
    try:
        # looked at after the descriptor is there: from now on it means one process
        yield fd if is_alive(process) else None
    finally:
        os.close(fd)


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
