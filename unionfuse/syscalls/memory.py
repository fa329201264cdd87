"""Give memory back to the system: malloc_trim(3), which glibc alone has."""

import ctypes

from unionfuse.syscalls.libc import libc

_malloc_trim = getattr(libc, "malloc_trim", None)
if _malloc_trim is not None:
    _malloc_trim.argtypes = (ctypes.c_size_t,)


def trim() -> None:
    """Give back what was freed; the allocator keeps most of it otherwise."""
    if _malloc_trim is not None:
        _malloc_trim(0)
