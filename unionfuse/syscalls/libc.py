"""The C library, loaded once, and its way of reporting errors."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    """Return `result` of a C call, or raise the `OSError` that errno names if it is negative."""
    if result < 0:
        err = ctypes.get_errno()
        raise OSError(err, os.strerror(err))
    return result
