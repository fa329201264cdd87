"""What a caller may do, as far as a request does not say it: read from /proc, when it matters."""

from __future__ import annotations

import signal

from unionfuse.syscalls.fdpath import proc_path

_CAP_FSETID = 4
_CAP_SYS_ADMIN = 21
_KILLED = 1 << signal.SIGKILL - 1  # any fatal signal becomes this one
_TRUSTED = b"trusted."


def may_keep_suid(pid: int, uid: int) -> bool:
    """Tell whether a write by this process leaves setuid and setgid (CAP_FSETID)."""
    status = _status(pid)
    if status is None:
        return uid == 0
    return _has(status, _CAP_FSETID)


def visible_xattrs(names: list[bytes], pid: int, uid: int) -> list[bytes]:
    """Return the names of attributes that this process is shown.

    `trusted.*` only with CAP_SYS_ADMIN (xattr(7)); the kernel leaves that to the filesystem.
    """
    if not any(name.startswith(_TRUSTED) for name in names):
        return names
    status = _status(pid)
    if uid == 0 if status is None else _has(status, _CAP_SYS_ADMIN):
        return names
    return [name for name in names if not name.startswith(_TRUSTED)]


def is_in_group(pid: int, gid: int, group: int) -> bool:
    """Tell whether this process, of group `gid`, is a member of `group`, or need not be."""
    if gid == group:
        return True
    status = _status(pid)
    if status is None:
        return False
    return str(group) in status["Groups"].split() or _has(status, _CAP_FSETID)


def is_dying(pid: int) -> bool:
    """Tell whether this thread has been killed, or is gone."""
    status = _status(pid)
    return status is None or bool(int(status["SigPnd"], 16) & _KILLED)


def _has(status: dict[str, str], capability: int) -> bool:
    return bool(int(status["CapEff"], 16) >> capability & 1)


def _status(pid: int) -> dict[str, str] | None:
    """Return the fields of /proc/PID/status; None for a process that is not to be seen."""
    try:
        with open(proc_path(f"{pid}/status")) as file:
            lines = (line.partition(":") for line in file)
            return {key: value.strip() for key, _, value in lines}
    except OSError:
        return None
