"""What a process is to the kernel, beyond what it can hand over in a message.

One process can stand in for another if both are the same here: they may do, see and use the
same. What is left (arguments, environment, working directory, standard streams, control group) is
handed over.
"""

from __future__ import annotations

import os
import sys

# not every kernel has all of them
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_FILES = ("attr/current", "limits", "loginuid", "oom_score_adj")
# proc_pid_status(5): the ids and what they are allowed, and what exec(2) hands on of signals
_STATUS = (
    *("Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"),
    *("NoNewPrivs:", "Seccomp:", "Umask:", "SigBlk:", "SigIgn:"),
)
# What an interpreter makes of its environment when it starts, it keeps.
_READ_AT_START = ("PYTHON", "LANG", "LC_")


def of_process(pid: int) -> str:
    """Return what the process `pid` is.

    Raises:
        OSError: if it is gone, or not ours to look at.
    """
    proc = f"/proc/{pid}"
    root = os.stat(f"{proc}/root")
    facts = [f"root {root.st_dev} {root.st_ino}", f"nice {os.getpriority(os.PRIO_PROCESS, pid)}"]
    namespaces = [f"{proc}/ns/{kind}" for kind in _NAMESPACES]
    facts += [os.readlink(path) for path in namespaces if os.path.lexists(path)]
    facts += [line for line in _lines(f"{proc}/status") if line.startswith(_STATUS)]
    for name in _FILES:
        try:
            facts += _lines(f"{proc}/{name}")
        except OSError:  # a kernel without audit, or without security modules, has some of them not
            facts.append(f"no {name}")
    return "\n".join(facts)


def of_program() -> str:
    """Return what this interpreter has been started as, and with."""
    import unionfuse

    environment = sorted(
        f"{name}={value}" for name, value in os.environ.items() if name.startswith(_READ_AT_START)
    )
    return "\n".join((sys.executable, sys.version, unionfuse.__file__, *environment))


def _lines(path: str) -> list[str]:
    with open(path, errors="surrogateescape") as file:
        return file.read().splitlines()
