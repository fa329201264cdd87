"""Control groups: a child of the server goes where the client is, and is ended with it."""

from __future__ import annotations

import os

_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_UNIFIED = "0::"


def join_that_of(pid: int) -> bool:
    """Move this process into the control groups of `pid`; tell whether it is there.

    Of version 1 no process is moved: few who use it have one for each command.
    """
    wanted = _read(pid)
    if _read(os.getpid()) == wanted:
        return True
    for line in wanted.splitlines():
        if line.startswith(_UNIFIED):
            _write(line.removeprefix(_UNIFIED))
    return _read(os.getpid()) == wanted


def _write(path: str) -> None:
    for mount in _MOUNTS:
        try:
            with open(f"{mount}{path}/cgroup.procs", "w") as file:
                file.write("0")  # whoever writes
        except OSError:
            continue
        return


def _read(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup") as file:
        return file.read()
