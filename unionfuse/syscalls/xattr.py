"""Extended attributes by a path of `fdpath`; a symlink is never followed.

The kernel has no *at form of these calls before 6.13.
"""

import errno
import os

from unionfuse.syscalls.fdpath import is_descriptor

_ABSENT = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


def get(path: bytes, name: bytes) -> bytes:
    """Return the value of attribute `name`; raise OSError ENODATA if there is none."""
    return os.getxattr(path, name, follow_symlinks=is_descriptor(path))


def get_or_none(path: bytes, name: bytes) -> bytes | None:
    """Return the value of attribute `name`, None where there is none or there can be none."""
    try:
        return get(path, name)
    except OSError as err:
        if err.errno in _ABSENT:
            return None
        raise


def set_(path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
    """Set attribute `name`; `flags` are os.XATTR_CREATE and os.XATTR_REPLACE."""
    os.setxattr(path, name, value, flags, follow_symlinks=is_descriptor(path))


def remove(path: bytes, name: bytes) -> None:
    """Remove attribute `name`; raise OSError ENODATA if there is none."""
    os.removexattr(path, name, follow_symlinks=is_descriptor(path))


def names(path: bytes) -> list[bytes]:
    """Return the names of all attributes; none where the filesystem has no attributes."""
    try:
        found = os.listxattr(path, follow_symlinks=is_descriptor(path))
    except OSError as err:
        if err.errno == errno.EOPNOTSUPP:
            return []
        raise
    return [os.fsencode(name) for name in found]
