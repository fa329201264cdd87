"""What `ps` shows of this process: the memory that its arguments are in, from start to end."""

import ctypes
import os

from unionfuse.syscalls.libc import libc

_prctl = libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_char_p)
_PR_SET_NAME = 15
_ARG_START = 48 - 3  # proc_pid_stat(5); those from `state` on
_SEPARATOR = b"\0"


def write(arguments: list[str]) -> None:
    """Show `arguments` as the command line, as far as they fit where the first ones were."""
    start, end = _place()
    if not start:
        return  # of a process that is not ours to look at
    room = end - start
    joined = b"".join(os.fsencode(argument) + _SEPARATOR for argument in arguments)
    # The last byte stays NUL: anything else makes the kernel look for more behind it.
    ctypes.memmove(start, joined[: room - 1].ljust(room, _SEPARATOR), room)
    name = os.path.basename(os.fsencode(arguments[0]))
    _prctl(_PR_SET_NAME, name)


def _place() -> tuple[int, int]:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[_ARG_START]), int(fields[_ARG_START + 1])
