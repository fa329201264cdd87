"""Name what a descriptor refers to, for the calls that take only paths.

`/proc/self/fd/N` works for any descriptor, O_PATH ones and those of unlinked files too, and
`/proc/self/fd/N/NAME` for a name below it. In the second form NAME is the only component
that a stranger could have made, and callers do not follow it.
"""

_DESCRIPTOR_SLASHES = 4


def fd_path(fd: int, name: bytes = b"") -> bytes:
    """Return a path for what `fd` refers to, or for `name` below it."""
    return b"/proc/self/fd/%d/%b" % (fd, name) if name else b"/proc/self/fd/%d" % fd


def is_descriptor(path: bytes) -> bool:
    """Tell whether a path of `fd_path` names a descriptor itself, a link that must be followed."""
    return path.count(b"/") == _DESCRIPTOR_SLASHES
