"""unshare(2) and setns(2), which Python has from 3.12 on."""

import ctypes

from unionfuse.syscalls.libc import check, libc

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000

_unshare = libc.unshare
_unshare.argtypes = (ctypes.c_int,)
_setns = libc.setns
_setns.argtypes = (ctypes.c_int, ctypes.c_int)


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones; with one thread only.

    Raises:
        OSError: EPERM or ENOSPC where user namespaces are turned off.
    """
    check(_unshare(flags))


def setns(fd: int, flags: int) -> None:
    """Move this process into namespaces of the process that the pidfd `fd` is of (Linux 5.8).

    Raises:
        OSError: as setns(2); ESRCH if that process is gone.
    """
    check(_setns(fd, flags))
