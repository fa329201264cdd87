"""syncfs(2)."""

from unionfuse.syscalls.libc import check, libc


def syncfs(fd: int) -> None:
    """Write all of the filesystem that `fd` is on to the disk."""
    check(libc.syncfs(fd))
