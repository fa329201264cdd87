"""Whole replies, header included, packed at one go.

Packing header, entry and attributes by one struct saves two objects and a `writev` for each
of the requests that come most.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING

from unionfuse.fuse.kernel import wire

if TYPE_CHECKING:
    from unionfuse.union.state import Attr, Entry

_NS = 1_000_000_000
_MAX_TIMEOUT = 1 << 40  # seconds

_ENTRY = Struct(
    wire.OUT_HEADER.format + (wire.ENTRY_OUT.format + wire.ATTR.format).replace("=", "")
)
_ATTRIBUTES = Struct(
    wire.OUT_HEADER.format + (wire.ATTR_OUT.format + wire.ATTR.format).replace("=", "")
)
_CREATED = Struct(_ENTRY.format + wire.OPEN_OUT.format.replace("=", ""))
_OPENED = Struct(wire.OUT_HEADER.format + wire.OPEN_OUT.format.replace("=", ""))
_WRITTEN = Struct(wire.OUT_HEADER.format + wire.WRITE_OUT.format.replace("=", ""))
_LISTED = Struct(
    "=" + (wire.ENTRY_OUT.format + wire.ATTR.format + wire.DIRENT.format).replace("=", "")
)
_PADDING = [bytes(-length % 8) for length in range(8)]


class Replies:
    """Packs the replies of one connection, whose names and attributes the kernel keeps so long."""

    def __init__(self, timeout: float) -> None:
        """Let the kernel keep what it is told for `timeout` seconds."""
        self._seconds = min(int(timeout), _MAX_TIMEOUT)
        self._ns = int(timeout % 1 * _NS) if timeout < _MAX_TIMEOUT else 0
        self.no_entry = wire.ENTRY_OUT.pack(0, 0, self._seconds, 0, self._ns, 0) + bytes(
            wire.ATTR.size
        )

    def entry(self, unique: int, entry: Entry) -> bytes:
        """Return the reply to a request that looks up or makes a name."""
        seconds, ns = self._seconds, self._ns
        return _ENTRY.pack(
            _ENTRY.size, 0, unique, entry.node.nodeid, 0, seconds, seconds, ns, ns,
            *attr_fields(entry.attr),
        )  # fmt: skip

    def absent(self, unique: int) -> bytes:
        """Return the reply that there is no such name, which the kernel keeps too."""
        return wire.OUT_HEADER.pack(_ENTRY.size, 0, unique) + self.no_entry

    def created(self, unique: int, entry: Entry, open_flags: int, backing_id: int) -> bytes:
        """Return the reply to CREATE and TMPFILE."""
        seconds, ns = self._seconds, self._ns
        return _CREATED.pack(
            _CREATED.size, 0, unique, entry.node.nodeid, 0, seconds, seconds, ns, ns,
            *attr_fields(entry.attr), 0, open_flags, backing_id,
        )  # fmt: skip

    def attributes(self, unique: int, attr: Attr, *, keep: bool = True) -> bytes:
        """Return the reply to GETATTR and SETATTR; the kernel keeps it, unless told not to."""
        seconds, ns = (self._seconds, self._ns) if keep else (0, 0)
        return _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, unique, seconds, ns, 0, *attr_fields(attr))

    def listed(self, entry: Entry, cookie: int, name: bytes) -> bytes:
        """Return one name of READDIRPLUS with its entry and attributes."""
        seconds, ns = self._seconds, self._ns
        node, attr = entry
        return (
            _LISTED.pack(
                node.nodeid, 0, seconds, seconds, ns, ns, *attr_fields(attr),
                node.ino, cookie, len(name), attr.st.st_mode >> 12,
            )
            + name
            + _PADDING[len(name) & 7]
        )  # fmt: skip

    def statx(self, attr: Attr, birth: tuple[int, int] | None, *, keep: bool) -> bytes:
        """Return the body of the reply to STATX: the basic fields, and the birth if known."""
        st = attr.st
        seconds, ns = (self._seconds, self._ns) if keep else (0, 0)
        mask = _STATX_BASIC | (_STATX_BTIME if birth is not None else 0)
        device = st.st_rdev
        return wire.STATX_OUT.pack(seconds, ns, 0) + wire.STATX_ATTR.pack(
            mask, st.st_blksize, 0, attr.nlink, st.st_uid, st.st_gid, st.st_mode, attr.ino,
            st.st_size, st.st_blocks, 0,
            *divmod(st.st_atime_ns, _NS), *(birth or (0, 0)),
            *divmod(st.st_ctime_ns, _NS), *divmod(st.st_mtime_ns, _NS),
            os.major(device), os.minor(device), 0, 0,
        )  # fmt: skip


_STATX_BASIC = 0x7FF
_STATX_BTIME = 0x800


def attr_fields(attr: Attr) -> tuple[float, ...]:
    """Return the fields of a `fuse_attr`; all are whole numbers."""
    ino, nlink, st = attr
    mode, _, _, _, uid, gid, size, atime, mtime, ctime = st[:10]
    device = st.st_rdev
    if device:
        minor = os.minor(device)
        device = minor & 0xFF | os.major(device) << 8 | (minor & ~0xFF) << 12
    return (
        ino, size, st.st_blocks, atime, mtime, ctime,
        st.st_atime_ns % _NS, st.st_mtime_ns % _NS, st.st_ctime_ns % _NS,
        mode, nlink, uid, gid, device, st.st_blksize, 0,
    )  # fmt: skip


def opened(unique: int, open_flags: int, backing_id: int) -> bytes:
    """Return the reply to OPEN."""
    return _OPENED.pack(_OPENED.size, 0, unique, 0, open_flags, backing_id)


def written(unique: int, size: int) -> bytes:
    """Return the reply to WRITE and COPY_FILE_RANGE."""
    return _WRITTEN.pack(_WRITTEN.size, 0, unique, size, 0)


def done(unique: int) -> bytes:
    """Return the reply to a request that asks for nothing back."""
    return wire.OUT_HEADER.pack(wire.OUT_HEADER.size, 0, unique)


def failed(unique: int, code: int) -> bytes:
    """Return the reply that a request fails with errno `code`."""
    return wire.OUT_HEADER.pack(wire.OUT_HEADER.size, -code, unique)


def body(unique: int, payload: bytes) -> bytes:
    """Return a reply with any other body."""
    return wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(payload), 0, unique) + payload
