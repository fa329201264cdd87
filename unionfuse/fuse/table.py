"""The unionfuse mounts of this machine: the kernel's table, and the record of each daemon.

A daemon leaves `DEVICE.json` in a directory of its user for `ls` and `umount` to find; what
the kernel's table says is true, the record only adds what it does not know.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unionfuse.fuse.mounting import FSTYPE

if TYPE_CHECKING:
    from unionfuse.fuse.options import MountPlan

_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
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
    records = []
    for line in _MOUNTINFO.read_bytes().splitlines():
        fields, _, tail = line.partition(b" - ")
        if tail.split(b" ", 1)[0] != FSTYPE.encode():
            continue
        parts = fields.split(b" ")
        mountpoint, device = os.fsdecode(_unescape(parts[4])), parts[2].decode()
        records.append(_with_record(MountRecord(mountpoint, device)))
    return records


def find(mountpoint: bytes) -> MountRecord | None:
    """Return the topmost unionfuse mount on `mountpoint`."""
    path = os.fsdecode(mountpoint)
    return next((record for record in reversed(mounted()) if record.mountpoint == path), None)


def write_record(plan: MountPlan, session: str) -> Path | None:
    """Leave the record of a mount that this process has made; return where it is."""
    found = find(plan.mountpoint)
    if found is None:
        return None
    record = replace(
        found,
        lowers=tuple(os.fsdecode(lower) for lower in plan.lowers),
        upper=None if plan.upper is None else os.fsdecode(plan.upper),
        workdir=None if plan.workdir is None else os.fsdecode(plan.workdir),
        session=session,
        pid=os.getpid(),
        started=_start_time(os.getpid()) or 0,
    )
    for directory in _own_directories():
        path = directory / f"{record.device}.json"
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(directory):
                continue
            path.touch(mode=0o600)
            path.write_text(json.dumps(asdict(record)))
            return path
    return None


def _own_directories() -> list[Path]:
    """Return where to leave a record, best first."""
    directories = [Path("/run/unionfuse")] if os.geteuid() == 0 else []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        directories.append(Path(runtime) / "unionfuse")
    # Root of a user namespace may find that of the real root, and takes one of its namespace.
    user = f"/tmp/unionfuse-{os.geteuid()}"
    namespace = os.stat("/proc/self/ns/user").st_ino
    return [*directories, Path(user), Path(f"{user}-{namespace}")]


def _is_ours(directory: Path) -> bool:
    """Tell whether this is a directory of ours, and no trap that somebody set up in /tmp."""
    st = directory.lstat()
    return stat.S_ISDIR(st.st_mode) and st.st_uid == os.geteuid()


def _all_directories() -> list[Path]:
    others = [*Path("/run/user").glob("*/unionfuse"), *Path("/tmp").glob("unionfuse-*")]
    return [*_own_directories(), *others]


def _with_record(record: MountRecord) -> MountRecord:
    for directory in _all_directories():
        with contextlib.suppress(OSError, ValueError, TypeError):
            known = json.loads((directory / f"{record.device}.json").read_text())
            known["lowers"] = tuple(known["lowers"])
            found = MountRecord(**known)
            # Device numbers are used again: only the record of a daemon that lives is its own.
            if found.mountpoint == record.mountpoint and _start_time(found.pid) == found.started:
                return found
    return record


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]  # proc_pid_stat(5): fields 3 and 22
    return None if state in "ZX" else int(start)


def _unescape(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)
