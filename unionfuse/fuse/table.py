"""The table of unionfuse mounts: what the kernel lists, and what the daemons say of themselves.

A daemon leaves a record named `MAJOR:MINOR` in a directory of its user for `ls` and `umount` to
find; what the kernel's table says is true, the record only adds what it does not know. A record
is `KEY=VALUE` fields, each ended by a NUL, which no path contains.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from unionfuse.fuse import rundir
from unionfuse.fuse.mountinfo import mounts
from unionfuse.fuse.mounting import FSTYPE
from unionfuse.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.fuse.options import MountPlan


@record
class MountRecord:
    """One mount. Paths as str with surrogateescape.

    Attributes:
        device: `MAJOR:MINOR` of the filesystem.
        pid: of the daemon; 0 if it is not known or not alive.
        started: when it started, in clock ticks since boot: with the pid, its identity.
        lowers, upper, workdir, session: empty if there is no record.
    """

    mountpoint: str
    device: str
    lowers: tuple[str, ...] = ()
    upper: str | None = None
    workdir: str | None = None
    session: str = ""
    pid: int = 0
    started: int = 0


def mounted() -> list[MountRecord]:
    """Return the unionfuse mounts that this process sees."""
    listed = [(fstype, _with_record(*place)) for fstype, *place in _listed()]
    return [record for fstype, record in listed if fstype == FSTYPE or record.pid]


def find(mountpoint: bytes) -> MountRecord | None:
    """Return the topmost unionfuse mount on `mountpoint`."""
    there = [record for record in mounted() if record.mountpoint == os.fsdecode(mountpoint)]
    return there[-1] if there else None


def write_record(plan: MountPlan, session: str) -> str | None:
    """Leave the record of a mount that this process has made; return where it is."""
    mountpoint = os.fsdecode(plan.mountpoint)
    device = _device(mountpoint)
    if device is None:
        return None
    record = MountRecord(
        mountpoint,
        device,
        lowers=tuple(os.fsdecode(lower) for lower in plan.lowers),
        upper=None if plan.upper is None else os.fsdecode(plan.upper),
        workdir=None if plan.workdir is None else os.fsdecode(plan.workdir),
        session=session,
        pid=os.getpid(),
        started=start_time(os.getpid()) or 0,
    )
    for directory in rundir.candidates():
        path = os.path.join(directory, device)
        with contextlib.suppress(OSError):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            if not rundir.is_ours(directory):
                continue
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(_packed(record))
            return path
    return None


def remove_record(path: str) -> None:
    """Remove the record that this process has left.

    Device numbers are used again as soon as a filesystem is unmounted: by now it may be that of
    a later mount, whose `umount` would not wait without it.
    """
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            if b"\0pid=%d\0" % os.getpid() not in file.read():
                return
        os.unlink(path)


def _listed() -> Iterator[tuple[str, str, str]]:
    """Yield type, mountpoint and device of what may be a union, the topmost last.

    That is what has our type in the kernel's table, or another `subtype=`.
    """
    for mount in mounts():
        if mount.fstype.startswith(b"fuse."):
            yield os.fsdecode(mount.fstype), os.fsdecode(mount.mountpoint), mount.device.decode()


def _device(mountpoint: str) -> str | None:
    devices = [device for _, path, device in _listed() if path == mountpoint]
    return devices[-1] if devices else None


def _all_directories() -> list[str]:
    runtimes = [f"{user}/{rundir.NAME}" for user in _names("/run/user")]
    others = [path for path in _names("/tmp") if path.startswith(f"/tmp/{rundir.NAME}-")]
    return [*rundir.candidates(), *runtimes, *others]


def _names(directory: str) -> list[str]:
    try:
        return [os.path.join(directory, name) for name in os.listdir(directory)]
    except OSError:
        return []


def _with_record(mountpoint: str, device: str) -> MountRecord:
    record = MountRecord(mountpoint, device)
    for directory in _all_directories():
        with contextlib.suppress(OSError, ValueError, KeyError):
            # Others may write to some of these directories: neither wait for a FIFO nor follow.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(os.path.join(directory, device), flags), "rb") as file:
                found = _unpacked(record, file.read())
            # Device numbers are used again: only the record of a daemon that lives is its own.
            if found is not None and start_time(found.pid) == found.started:
                return found
    return record


def _packed(record: MountRecord) -> bytes:
    fields = [("mountpoint", record.mountpoint), ("session", record.session)]
    fields += [("pid", str(record.pid)), ("started", str(record.started))]
    fields += [("lower", lower) for lower in record.lowers]
    if record.upper is not None:
        fields += [("upper", record.upper), ("workdir", record.workdir or "")]
    return b"".join(os.fsencode(f"{key}={value}\0") for key, value in fields)


def _unpacked(listed: MountRecord, packed: bytes) -> MountRecord | None:
    """Return the record that `packed` is; None if it is of another mount than the listed one.

    Raises:
        KeyError: if a field is missing.
        ValueError: if a number is none.
    """
    pairs = [field.partition("=")[::2] for field in os.fsdecode(packed).split("\0")]
    fields = dict(pairs)
    if fields["mountpoint"] != listed.mountpoint:
        return None
    return replace(
        listed,
        lowers=tuple(value for key, value in pairs if key == "lower"),
        upper=fields.get("upper"),
        workdir=fields.get("workdir"),
        session=fields["session"],
        pid=int(fields["pid"]),
        started=int(fields["started"]),
    )


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is dead."""
    try:
        with open(f"/proc/{pid}/stat", errors="surrogateescape") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]  # proc_pid_stat(5): fields 3 and 22
    return None if state in "ZX" else int(start)
