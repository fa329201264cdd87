"""The kernel's `struct ovl_fb`: how a file handle stands in an attribute or in an index's name.

    u8 version=0, u8 magic=0xfb, u8 len, u8 flags, u8 type, u8 uuid[16], u32 fid[]

Twin of ovl_encode_real_fh and ovl_check_fb_len (fs/overlayfs/copy_up.c, namei.c, overlayfs.h).
"""

from __future__ import annotations

import struct
import sys

from unionfuse.record import record

_HEADER = struct.Struct("=BBBBB16s")
_MAGIC = 0xFB
_BIG_ENDIAN = 1
_ANY_ENDIAN = 2
_FLAGS = _BIG_ENDIAN if sys.byteorder == "big" else 0


@record
class FileHandle:
    """A file handle, and the filesystem that it is good for.

    Attributes:
        handle_type, fid: as name_to_handle_at(2) returns them.
        uuid: of the filesystem, 16 bytes; zeros where it tells none.
    """

    handle_type: int
    fid: bytes
    uuid: bytes

    def pack(self) -> bytes:
        """Return it as the kernel writes it."""
        size = _HEADER.size + len(self.fid)
        return _HEADER.pack(0, _MAGIC, size, _FLAGS, self.handle_type, self.uuid) + self.fid


def parse(value: bytes) -> FileHandle | None:
    """Return the handle in `value`; None if it is in no form known here."""
    if len(value) <= _HEADER.size:
        return None
    version, magic, _, flags, handle_type, uuid = _HEADER.unpack_from(value)
    is_ours = flags & _ANY_ENDIAN or flags & _BIG_ENDIAN == _FLAGS
    if (version, magic) != (0, _MAGIC) or not is_ours:
        return None
    return FileHandle(handle_type, value[_HEADER.size :], uuid)


def is_malformed(value: bytes) -> bool:
    """Tell whether no version of the kernel can have written `value`: empty is "unknown"."""
    if not value:
        return False
    return len(value) <= _HEADER.size or value[1] != _MAGIC or value[2] != len(value)
