"""Owner, mode and kind of a file, kept in an attribute beside what the disk says.

A user who may not give files away, or make devices, can keep a whole image so. The value is

    UID:GID:MODE[:TYPE]

ids in decimal, mode in octal; TYPE is dir, file, symlink, pipe, socket, char-MAJOR-MINOR or
block-MAJOR-MINOR, and without it the kind is that of the disk. So containers/storage (`force_mask`)
and fuse-overlayfs (`xattr_permissions`) have it; the latter writes MODE with the bits of S_IFMT.
Anything but a directory is a regular file on disk; of a symlink, its content is the target.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from unionfuse.layer import status
from unionfuse.syscalls import xattr

SECURITY = b"security.fuseoverlayfs.override_stat"
CONTAINERS = b"user.containers.override_stat"
USER = b"user.fuseoverlayfs.override_stat"
NAMES = (SECURITY, CONTAINERS, USER)  # that of a layer is the first one that its root has

_PERMISSIONS = 0o7777
_KINDS = {
    b"dir": stat.S_IFDIR,
    b"file": stat.S_IFREG,
    b"symlink": stat.S_IFLNK,
    b"pipe": stat.S_IFIFO,
    b"socket": stat.S_IFSOCK,
    b"char": stat.S_IFCHR,
    b"block": stat.S_IFBLK,
}
_KIND_NAMES = {fmt: name for name, fmt in _KINDS.items()}


class Override(NamedTuple):
    """What such an attribute says.

    Attributes:
        mode: permission bits.
        fmt: S_IFMT of the kind; 0 for that of the disk.
        rdev: of a device.
    """

    uid: int
    gid: int
    mode: int
    fmt: int = 0
    rdev: int = 0

    @classmethod
    def parse(cls, value: bytes) -> Override | None:
        """Read the value of an attribute; None if it makes no sense, which says nothing then."""
        uid, gid, mode, *kind = value.split(b":")[:4] + [b""] * (3 - value.count(b":"))
        try:
            fmt, rdev = _parse_kind(kind[0]) if kind[0] else (0, 0)
            return cls(int(uid), int(gid), int(mode, 8) & _PERMISSIONS, fmt, rdev)
        except (ValueError, KeyError):
            return None

    @classmethod
    def of(cls, st: os.stat_result) -> Override:
        """Return one that says what `st` does."""
        mode = st.st_mode
        return cls(st.st_uid, st.st_gid, stat.S_IMODE(mode), stat.S_IFMT(mode), st.st_rdev)

    def packed(self) -> bytes:
        """Return the value of the attribute, as containers/storage writes it."""
        kind = _KIND_NAMES[self.fmt]
        if self.fmt in (stat.S_IFCHR, stat.S_IFBLK):
            kind += b"-%d-%d" % (os.major(self.rdev), os.minor(self.rdev))
        return b"%d:%d:%04o:%b" % (self.uid, self.gid, self.mode, kind)

    def applied(self, st: os.stat_result) -> os.stat_result:
        """Return `st`, of the disk, as it is to be shown."""
        mode = (self.fmt or stat.S_IFMT(st.st_mode)) | self.mode
        others = {"st_rdev": self.rdev} if self.rdev else None
        return status.changed(st, mode=mode, uid=self.uid, gid=self.gid, others=others)


def _parse_kind(kind: bytes) -> tuple[int, int]:
    name, *numbers = kind.split(b"-")
    fmt = _KINDS[name]
    if fmt not in (stat.S_IFCHR, stat.S_IFBLK):
        return fmt, 0
    if len(numbers) < 2:
        raise ValueError(kind)
    return fmt, os.makedev(int(numbers[0]), int(numbers[1]))


def name_of(root: xattr.Target) -> bytes | None:
    """Return the name of the attribute that the layer with this root keeps; None if none."""
    present = xattr.names(root)
    return next((name for name in NAMES if name in present), None)
