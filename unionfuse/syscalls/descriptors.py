"""The descriptors that a process has from the one that it was forked by."""

import contextlib
import os


def close_all_but(*kept: int) -> None:
    """Close all descriptors but the standard streams and `kept`.

    A lock or a pipe of who has called must not live as long as a process that stays behind.
    """
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):  # the one that listed them is closed already
                os.close(fd)


def silence() -> None:
    """Have the standard streams lead nowhere: who reads them is not to wait for this process."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
