"""Write a tar so that the same entries are the same bytes, everywhere and always.

USTAR where that can say it, else a PAX header before the entry, with its keys in order; no user
or group names, no atime, whole seconds. As Go's archive/tar, with which most layers are made.
"""

from __future__ import annotations

import stat
from struct import Struct
from typing import TYPE_CHECKING

from unionfuse.image.digest import Digest, Digester
from unionfuse.image.errors import Refused
from unionfuse.image.layers.member import FORMATS, HARD_LINK, Member
from unionfuse.image.layers.reader import BLOCK, XATTR, shown

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER = Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_FLAGS = {fmt: flag for flag, fmt in FORMATS.items()}
_USTAR = b"ustar\x0000"
_NAME, _PREFIX = 100, 155
_MAX_OCTAL = {8: 0o7777777, 12: 0o77777777777}
_NANO = 10**9
_END = bytes(2 * BLOCK)


class TarWriter:
    """One tar that is being written.

    Attributes:
        entries: how many there are by now.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """Give the bytes of the tar to `write`."""
        self._write_out = write
        self._digester = Digester()
        self._left = 0
        self._padding = 0
        self.entries = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._digester.size

    def diff_id(self) -> Digest:
        """Return the digest of what was written so far."""
        return self._digester.digest()

    def add(self, member: Member) -> None:
        """Write the header of an entry; the data of a file comes by `write`.

        Directories get their slash. Attributes with an empty value are left out: PAX can not
        hold them.

        Raises:
            Refused: if no tar can say it.
        """
        assert not self._left, "the entry before has all of its data"
        name = member.name
        if stat.S_ISDIR(member.fmt) and not name.endswith(b"/"):
            name += b"/"
        records: dict[bytes, bytes] = {
            XATTR + key: value for key, value in member.xattrs.items() if value
        }
        if any(b"=" in key for key in records):
            raise Refused(f"{shown(name)} has an attribute whose name no tar can hold")
        prefix, ustar_name = _split(name)
        if ustar_name is None:
            records[b"path"] = name
            prefix, ustar_name = b"", _shortened(name)
        target = member.target
        if len(target) > _NAME or not target.isascii():
            records[b"linkpath"] = target
            target = _shortened(target)
        mtime = member.mtime_ns // _NANO
        size = member.size if stat.S_ISREG(member.fmt) else 0
        numbers = {b"uid": member.uid, b"gid": member.gid, b"size": size, b"mtime": mtime}
        for key, number in numbers.items():
            if not 0 <= number <= _MAX_OCTAL[12 if key in (b"size", b"mtime") else 8]:
                records[key] = b"%d" % number
                numbers[key] = 0
        if records:
            self._extended(name, records)
        flag = HARD_LINK if not member.fmt else _FLAGS[member.fmt]
        self._put(
            _header(
                (ustar_name, prefix, target), flag, member.mode,
                (numbers[b"uid"], numbers[b"gid"], numbers[b"size"], numbers[b"mtime"]),
                member.rdev if flag in (b"3", b"4") else None,
            )
        )  # fmt: skip
        self._left, self._padding = size, -size % BLOCK
        self.entries += 1
        if not size:
            self._padding = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes of the file whose header came last."""
        assert len(data) <= self._left, "a file has the data that its header says"
        self._put(bytes(data) if isinstance(data, memoryview) else data)
        self._left -= len(data)
        if not self._left and self._padding:
            self._put(bytes(self._padding))
            self._padding = 0

    def close(self) -> None:
        """Write the end of the tar."""
        assert not self._left, "the entry before has all of its data"
        self._put(_END)

    def _put(self, data: bytes) -> None:
        self._digester.update(data)
        self._write_out(data)

    def _extended(self, name: bytes, records: dict[bytes, bytes]) -> None:
        data = b"".join(record(key, records[key]) for key in sorted(records))
        base = name.rstrip(b"/").rpartition(b"/")[2]
        fields = (_shortened(b"PaxHeaders.0/" + base), b"", b"")
        self._put(_header(fields, b"x", 0, (0, 0, len(data), 0), None))
        self._put(data + bytes(-len(data) % BLOCK))


def record(key: bytes, value: bytes) -> bytes:
    """Return one record of a PAX header; its length counts its own digits."""
    rest = b" %b=%b\n" % (key, value)
    size = len(rest) + len(str(len(rest)))
    if len(str(size)) + len(rest) != size:
        size += 1
    return b"%d" % size + rest


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Return `name` as prefix and name of ustar; no name if it does not fit."""
    if not name.isascii():
        return b"", None
    if len(name) <= _NAME:
        return b"", name
    at = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))
    if at <= 0 or len(name) - at - 1 > _NAME:
        return b"", None
    return name[:at], name[at + 1 :]


def _shortened(name: bytes) -> bytes:
    """Return what stands in a header that has the true name in its PAX records."""
    return bytes(byte for byte in name if byte < 0x80)[:_NAME]


def _header(
    names: tuple[bytes, bytes, bytes],
    flag: bytes,
    mode: int,
    numbers: tuple[int, int, int, int],
    rdev: tuple[int, int] | None,
) -> bytes:
    name, prefix, target = names
    uid, gid, size, mtime = numbers
    major, minor = rdev or (0, 0)
    fields = (
        name, b"%07o\0" % mode, b"%07o\0" % uid, b"%07o\0" % gid, b"%011o\0" % size,
        b"%011o\0" % mtime, b" " * 8, flag, target, _USTAR, b"", b"",
        b"%07o\0" % major, b"%07o\0" % minor, prefix,
    )  # fmt: skip
    block = _HEADER.pack(*fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
