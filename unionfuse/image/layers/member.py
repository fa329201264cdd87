"""One entry of a layer tar, in the words of image-spec layer.md."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

FORMATS = {
    b"0": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
"""S_IFMT by the type flag of ustar; a hard link (`1`) is a name of what is there already."""
HARD_LINK = b"1"


@dataclass(slots=True)
class Member:
    """What a tar says of one name.

    Attributes:
        name: as it stands there, not cleaned.
        fmt: S_IFMT; 0 of a hard link.
        mode: permission bits, with setuid, setgid and sticky.
        mtime_ns: since 1970, may be negative.
        size: bytes of a regular file.
        target: of a symlink what it holds, of a hard link the name of the other.
        rdev: of a device: major and minor.
        xattrs: by their full names.
        extents: of a sparse file: (offset, length) of its data, in order; None for one without
            holes.
    """

    name: bytes
    fmt: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    extents: list[tuple[int, int]] | None = None
