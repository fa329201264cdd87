"""Extended attributes by a path of `fdpath` or by a descriptor; a symlink is never followed.

The kernel has no *at form of these calls before 6.13. A descriptor must not be an O_PATH one;
where there is another, it takes a third of the time of its path.
"""

import errno
import os

from unionfuse.syscalls.fdpath import is_descriptor

Target = int | bytes

_ABSENT = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


def get(target: Target, name: bytes) -> bytes:
    """Return the value of attribute `name`; raise OSError ENODATA if there is none."""
    return os.getxattr(target, name, follow_symlinks=follows(target))


def get_or_none(target: Target, name: bytes) -> bytes | None:
    """Return the value of attribute `name`, None where there is none or there can be none."""
    try:
        return get(target, name)
    except OSError as err:
        if err.errno in _ABSENT:
            return None
        raise


def set_(target: Target, name: bytes, value: bytes, flags: int = 0) -> None:
    """Set attribute `name`; `flags` are os.XATTR_CREATE and os.XATTR_REPLACE."""
    os.setxattr(target, name, value, flags, follow_symlinks=follows(target))


def remove(target: Target, name: bytes) -> None:
    """Remove attribute `name`; raise OSError ENODATA if there is none."""
    os.removexattr(target, name, follow_symlinks=follows(target))


def names(target: Target) -> list[bytes]:
    """Return the names of all attributes; none where the filesystem has no attributes."""
    try:
        found = os.listxattr(target, follow_symlinks=follows(target))
    except OSError as err:
        if err.errno == errno.EOPNOTSUPP:
            return []
        raise
    return [os.fsencode(name) for name in found]


def follows(target: Target) -> bool:
    """Return `follow_symlinks` for calls on `target`; on a descriptor they know nothing else."""
    return isinstance(target, int) or is_descriptor(target)
