"""unshare(2), which Python has from 3.12 on."""

import ctypes

from unionfuse.syscalls.libc import check, libc

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000

_unshare = libc.unshare
_unshare.argtypes = (ctypes.c_int,)


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones; with one thread only.

    Raises:
        OSError: EPERM or ENOSPC where user namespaces are turned off.
    """
    check(_unshare(flags))
