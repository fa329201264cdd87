"""How a layer is kept on disk by who may do what here.

root                   owners, devices, `trusted.overlay.*`: all as the tar has it
root of a namespace    owners that are mapped; devices are empty files of mode 0, as umoci has
                       them, since mknod(2) is not permitted there; `user.overlay.*`
one user               all is the user's own; owner, mode and kind are in
                       `user.containers.override_stat`, see `layer.override`
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass

from unionfuse.layer import names
from unionfuse.layer.names import XattrNames
from unionfuse.layer.override import CONTAINERS, NAMES
from unionfuse.layer.upper import UpperFormat
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path

ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"
ACLS = frozenset({ACL_ACCESS, ACL_DEFAULT})

ENCODED = b"user.containers.override_"
"""What stands before the name of an attribute that users may not set (fuse-overlayfs)."""
_TO_ENCODE = (b"security.", names.TRUSTED, names.USER)

NOT_CARRIED = frozenset({b"security.selinux", b"system.nfs4_acl"})
"""Attributes that belong to the machine and not to the image (umoci leaves them out too)."""

_NULL_DEVICE = os.makedev(1, 3)


@dataclass(frozen=True, slots=True)
class LayerForm:
    """What a layer may have on disk.

    Attributes:
        markers: how whiteouts and opaque directories are written.
        owners: whether files can be given away; if not, who has them is in an attribute.
        devices: whether device nodes can be made.
        is_layer: whether it is to lie in a stack, where overlays take some attributes for their
            own: those of a tar with such a name are escaped. In a root filesystem they are not.
    """

    markers: UpperFormat
    owners: bool
    devices: bool
    is_layer: bool = True

    @classmethod
    def probe(cls, dir_fd: int) -> LayerForm:
        """Find out by trying in the directory `dir_fd`, where nothing stays behind."""
        name = b".probe-" + secrets.token_hex(8).encode()
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            markers = UpperFormat(_can_make(fd, stat.S_IFCHR, 0), _namespace(fd))
            return cls(markers, _can_give_away(fd), _can_make(fd, stat.S_IFCHR, _NULL_DEVICE))
        finally:
            os.close(fd)
            os.rmdir(name, dir_fd=dir_fd)

    @property
    def override(self) -> bytes | None:
        """The attribute that says whose a file is, None if the disk says it."""
        return None if self.owners else CONTAINERS

    def stored(self, name: bytes) -> bytes | None:
        """Return the name under which an attribute of a tar is kept, None if it is not."""
        if is_never_carried(name):
            return None
        if not self.owners:
            if name in ACLS:  # it would be about the modes on disk
                return None
            if name.startswith(_TO_ENCODE):
                return ENCODED + name
            return name
        if not self.is_layer:
            return name
        if self.markers.prefix is None:
            return None
        return XattrNames(self.markers.prefix).stored(name)

    def shown(self, name: bytes) -> bytes | None:
        """Return the name that a kept attribute has in a tar, None if it is not told."""
        if name in NOT_CARRIED or name in NAMES:
            return None
        if not self.owners:
            if name.startswith(ENCODED):
                return name[len(ENCODED) :]
            # The others of these are about the file on disk, or markers.
            is_hidden = name.startswith((*_TO_ENCODE, names.FUSE_OVERLAYFS)) or name in ACLS
            return None if is_hidden else name
        if name.startswith(ENCODED):
            return None
        return XattrNames(self.markers.prefix or names.USER).shown(name)


def is_never_carried(name: bytes) -> bool:
    """Tell whether an attribute is no part of an image: it is a machine's, or says how it is kept.

    `user.fuseoverlayfs.*` are the markers of fuse-overlayfs, which has no way to escape them.
    """
    return name in NOT_CARRIED or name in NAMES or name.startswith((ENCODED, names.FUSE_OVERLAYFS))


def _can_make(fd: int, fmt: int, rdev: int) -> bool:
    try:
        os.mknod(b"device", fmt, rdev, dir_fd=fd)
    except OSError:
        return False
    os.unlink(b"device", dir_fd=fd)
    return True


def _can_give_away(fd: int) -> bool:
    """Tell whether files can be given to others than the one user that every process has."""
    try:
        os.chown(fd, 1, 1)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        os.chown(fd, os.geteuid(), os.getegid())
    return True


def _namespace(fd: int) -> bytes | None:
    path = fd_path(fd)
    for prefix in (names.TRUSTED, names.USER):
        try:
            xattr.set_(path, prefix + names.OPAQUE, b"0")
            xattr.remove(path, prefix + names.OPAQUE)
        except OSError:
            continue
        return prefix
    return None
