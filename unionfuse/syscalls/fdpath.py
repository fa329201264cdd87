"""Name what a descriptor refers to, for the calls that take only paths.

`/proc/self/fd/N` works for any descriptor, O_PATH ones and those of unlinked files too, and
`/proc/self/fd/N/NAME` for a name below it. In the second form NAME is the only component
that a stranger could have made, and callers do not follow it.

A daemon does not begin at `/`: who calls pivot_root(2) in its mount namespace moves that into the
union, and it would ask itself. It works in /proc, which is a little faster, too.
"""

import os

_PROC = "/proc/"


class _Base:
    """Where paths begin: with nothing, once /proc is the working directory."""

    proc = _PROC
    descriptors = b"/proc/self/fd/"


def work_in_proc() -> None:
    """Make /proc the working directory, which it has to be from then on.

    Raises:
        OSError: ENOENT where there is none.
    """
    os.chdir(_PROC)
    _Base.proc, _Base.descriptors = "", b"self/fd/"


def proc_path(name: str) -> str:
    """Return a path of `name` in /proc."""
    return _Base.proc + name


def fd_path(fd: int, name: bytes = b"") -> bytes:
    """Return a path for what `fd` refers to, or for `name` below it."""
    if name:
        return b"%b%d/%b" % (_Base.descriptors, fd, name)
    return b"%b%d" % (_Base.descriptors, fd)


def is_descriptor(path: bytes) -> bool:
    """Tell whether a path of `fd_path` names a descriptor itself, a link that must be followed."""
    return path[len(_Base.descriptors) :].isdigit()
