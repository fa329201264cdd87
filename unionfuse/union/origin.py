"""Where a copied-up object came from: `overlay.origin`, and the inode number it keeps.

Twin of ovl_encode_real_fh and ovl_check_origin_fh (fs/overlayfs/copy_up.c, namei.c). The
value, see `layer.handle`, is the file handle of the lower object. Only the inode number in it is of
use here, so it is read out of the forms that filesystems give a handle, without the privilege to
open it.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from unionfuse.layer import handle
from unionfuse.syscalls import handles

if TYPE_CHECKING:
    from unionfuse.layer.directory import LayerDir

_INO32_GEN = 0x01  # ext4, xfs; tmpfs with a third word
_INO64_GEN = 0x81  # xfs
_BTRFS = 0x4D

Key = tuple[int, int]


class InodeNumbers:
    """Inode numbers that are unique over the filesystems of all layers.

    Those of the first filesystem are shown as they are; the index of any other is put into
    the top bits (overlayfs.rst: xino).
    """

    _SHIFT = 56

    def __init__(
        self, devices: list[int], *, is_unique: bool = True, is_short: bool = False
    ) -> None:
        """Number the filesystems as they come in `devices`, st_dev of the layers in order.

        Unless they shall be unique all are shown as they are (overlayfs: xino=off), and of short
        ones the last 32 bits (fuse-overlayfs: ino32_t).
        """
        self._is_unique = is_unique and not is_short
        self._mask = (1 << 32) - 1 if is_short else (1 << 64) - 1
        self._index: dict[int, int] = {}
        for device in devices:
            self._index.setdefault(device, len(self._index))
        self._first = devices[0] if devices else None

    def number(self, key: Key) -> int:
        """Return the st_ino to show for inode `key` (st_dev, st_ino)."""
        device, ino = key
        if device == self._first or not self._is_unique:
            return ino & self._mask
        index = self._index.setdefault(device, len(self._index))
        return ino | (index << self._SHIFT)


class Origins:
    """Encode and decode origins of the objects in the lowers of one stack."""

    def __init__(self, lowers: tuple[LayerDir, ...]) -> None:
        """Ask each lower's filesystem for its UUID.

        Two filesystems that tell the same one, or none, can not be told apart in an origin.
        """
        self._uuid_of: dict[int, bytes] = {}
        for lower in lowers:
            device = os.fstat(lower.fd()).st_dev
            if device not in self._uuid_of:
                self._uuid_of[device] = _uuid(lower)
        known = list(self._uuid_of.values())
        self._device_of = {
            uuid: device for device, uuid in self._uuid_of.items() if known.count(uuid) == 1
        }

    def encode(self, where: LayerDir, name: bytes, device: int) -> bytes | None:
        """Return the origin of `name` in the lower directory `where`.

        None where its filesystem, `device`, has no file handles.
        """
        try:
            handle_type, fid = handles.name_to_handle(where.fd(), name)
        except OSError:
            return None
        uuid = self._uuid_of.get(device, bytes(16))
        return handle.FileHandle(handle_type, fid, uuid).pack()

    def decode(self, value: bytes) -> Key | None:
        """Return the (st_dev, st_ino) that an origin names.

        None if it names a filesystem that no lower is on, or in a form not known here.
        """
        found = handle.parse(value)
        if found is None:
            return None
        device = self._device_of.get(found.uuid)
        ino = _ino_of_handle(found.handle_type, found.fid)
        return None if device is None or ino is None else (device, ino)


def _uuid(lower: LayerDir) -> bytes:
    try:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=lower.fd())
    except PermissionError:
        return bytes(16)
    try:
        return handles.filesystem_uuid(fd)
    finally:
        os.close(fd)


def _ino_of_handle(handle_type: int, fid: bytes) -> int | None:
    if handle_type == _INO32_GEN and len(fid) == 8:
        return int(struct.unpack_from("=I", fid)[0])
    if handle_type == _INO32_GEN and len(fid) == 12:
        return int(struct.unpack_from("=Q", fid, 4)[0])
    if (handle_type == _INO64_GEN and len(fid) == 12) or (handle_type == _BTRFS and len(fid) == 20):
        return int(struct.unpack_from("=Q", fid)[0])
    return None
