"""Read the entries of a tar, as they come: ustar, PAX, GNU and old forms.

The stream is read once from its first byte to its last, never sought in, and no more of it is in
memory than one piece. Global PAX headers are passed over, as containerd and docker do. Formats:
pax(1) of POSIX, tar(5) of libarchive, "Tar Internals" of the manual of GNU tar.
"""

from __future__ import annotations

import stat
from struct import Struct
from typing import TYPE_CHECKING

from unionfuse.image.errors import Malformed, Refused
from unionfuse.image.layers import sparse
from unionfuse.image.layers.limits import Limits
from unionfuse.image.layers.member import FORMATS, HARD_LINK, Member

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
XATTR = b"SCHILY.xattr."

_HEADER = Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_ZEROS = bytes(BLOCK)
_SUM_OF_SPACES = sum(b" " * 8)  # in the place of the checksum
_REGULAR = frozenset({b"0", b"\0", b"7", b"S"})
_EXTENDED = frozenset({b"x", b"g", b"L", b"K"})
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \0"
_NANO = 10**9
_MAX_NS = (1 << 63) - 1


class Stream:
    """The bytes of a tar out of the pieces in which they come."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return `size` bytes; fewer only at the end of the stream."""
        at = self._at
        if at + size <= len(self._piece):
            self._at = at + size
            return self._piece[at : at + size]
        return b"".join(self.parts(size))

    def whole(self, size: int) -> memoryview | None:
        """Return the next `size` bytes if they are in one piece."""
        at = self._at
        if at + size > len(self._piece):
            return None
        self._at = at + size
        return memoryview(self._piece)[at : at + size]

    def parts(self, size: int) -> Iterator[memoryview]:
        """Yield the next `size` bytes in pieces; fewer only at the end of the stream."""
        while size:
            left = len(self._piece) - self._at
            if not left:
                self._piece, self._at = next(self._pieces, b""), 0
                if not self._piece:
                    return
                continue
            length = min(left, size)
            view = memoryview(self._piece)[self._at : self._at + length]
            self._at += length
            size -= length
            yield view

    def skip(self, size: int) -> None:
        """Pass over `size` bytes.

        Raises:
            Malformed: if the stream ends before that.
        """
        if self._at + size <= len(self._piece):
            self._at += size
            return
        passed = sum(len(part) for part in self.parts(size))
        if passed < size:
            raise Malformed("the tar is cut in the middle of a file")

    def rest(self) -> Iterator[memoryview]:
        """Yield all that is left."""
        yield memoryview(self._piece)[self._at :]
        self._piece, self._at = b"", 0
        for piece in self._pieces:
            yield memoryview(piece)


class TarReader:
    """The entries of one tar; the data of one is read before the next is asked for, or skipped."""

    def __init__(
        self, pieces: Iterator[bytes], limits: Limits | None = None, *, needs_end: bool = True
    ) -> None:
        """Read what `pieces` yields.

        Args:
            pieces: the uncompressed tar.
            limits: on what is held in memory.
            needs_end: whether the two empty blocks at the end have to be there. Some writers
                leave them out, and who compares the digest of the tar knows that it is whole.
        """
        self._stream = Stream(pieces)
        self._limits = limits or Limits()
        self._needs_end = needs_end
        self._left = 0  # bytes of the entry's data that are still to come
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield the entries.

        Raises:
            Malformed: if the tar is cut, damaged, or goes on after its end.
            Refused: if an entry is of a kind, or a header of a size, that is not supported.
        """
        records: dict[bytes, bytes] = {}
        while True:
            header = self._header()
            if header is None:
                if records:
                    raise Malformed("the tar ends after an extended header")
                return
            flag, size = header[7], _number(header[4])
            if size < 0:
                raise Malformed("an entry of the tar has a negative size")
            if flag in _EXTENDED:
                self._extend(records, flag, size)
                continue
            yield self._member(header, records, size)
            records = {}
            self._skip_data()

    def data(self) -> Iterator[memoryview]:
        """Yield the bytes of the entry that came last, without its holes.

        Raises:
            Malformed: if the tar is cut.
        """
        for part in self._stream.parts(self._left):
            self._left -= len(part)
            yield part
        if self._left:
            raise Malformed("the tar is cut in the middle of a file")

    def whole(self) -> memoryview | None:
        """Return what `data` yields at once, if it is there; most files are small."""
        view = self._stream.whole(self._left)
        if view is not None:
            self._left = 0
        return view

    def _skip_data(self) -> None:
        self._stream.skip(self._left + self._padding)
        self._left = self._padding = 0

    def _header(self) -> tuple[bytes, ...] | None:
        """Return the fields of the next header; None at the end of the tar."""
        block = self._stream.take(BLOCK)
        if len(block) == BLOCK and block != _ZEROS:
            fields: tuple[bytes, ...] = _HEADER.unpack(block)
            total = sum(block) - sum(fields[6]) + _SUM_OF_SPACES
            told = _number(fields[6])
            if told != total and told != _signed_total(block, total):
                raise Malformed("the tar is damaged: a header does not have its checksum")
            return fields
        if not block and not self._needs_end:
            return None
        if len(block) < BLOCK:
            raise Malformed("the tar is cut: its end is missing")
        second = self._stream.take(BLOCK)
        if second != _ZEROS and (second or self._needs_end):
            raise Malformed("the tar is damaged: its end is a single empty block")
        for part in self._stream.rest():
            if any(part) if len(part) < BLOCK else part != bytes(len(part)):
                raise Malformed("the tar has something else after its end")
        return None

    def _extend(self, records: dict[bytes, bytes], flag: bytes, size: int) -> None:
        """Take what an extended header says of the entry that comes next."""
        if size > self._limits.header_bytes:
            raise Refused(f"a header in the tar has {size} bytes")
        data = self._stream.take(size)
        if len(data) < size:
            raise Malformed("the tar is cut in the middle of a header")
        self._stream.skip(-size % BLOCK)
        if flag == b"L":
            records[b"path"] = data.partition(b"\0")[0]
        elif flag == b"K":
            records[b"linkpath"] = data.partition(b"\0")[0]
        elif flag == b"x":
            records.update(parse_records(data))

    def _member(self, fields: tuple[bytes, ...], records: dict[bytes, bytes], size: int) -> Member:
        flag = fields[7]
        name = records.get(b"path") or _name(fields)
        if flag in _REGULAR:  # before POSIX a directory was told by its slash
            flag, is_old_sparse = b"0", flag == b"S"
            if name.endswith(b"/") and not is_old_sparse:
                flag = b"5"
        else:
            is_old_sparse = False
        if flag != HARD_LINK and flag not in FORMATS:
            raise Refused(f"{shown(name)} is of a kind that is not supported: {flag!r}")
        member = Member(
            name,
            FORMATS.get(flag, 0),
            _number(fields[1]) & 0o7777,
            _decimal(records, b"uid", fields[2]),
            _decimal(records, b"gid", fields[3]),
            _mtime(records, fields[5]),
        )
        if len(records) > (b"path" in records):
            member.xattrs = {
                key[len(XATTR) :]: value
                for key, value in records.items()
                if key.startswith(XATTR) and value
            }
            if any(b"\0" in key or not key for key in member.xattrs):
                raise Malformed(f"{shown(name)} has an attribute without a name")
        if member.fmt == stat.S_IFREG:
            self._regular(member, records, size, is_old_sparse)
        elif flag in (b"1", b"2"):
            member.target = records.get(b"linkpath") or _text(fields[8])
            if not member.target or b"\0" in member.target:
                raise Malformed(f"the link {shown(name)} leads nowhere")
        elif flag in (b"3", b"4"):
            member.rdev = (_number(fields[12]), _number(fields[13]))
            if not (0 <= member.rdev[0] < 1 << 12 and 0 <= member.rdev[1] < 1 << 20):
                raise Malformed(f"the device {shown(name)} has the number {member.rdev}")
        return member

    def _regular(
        self, member: Member, records: dict[bytes, bytes], size: int, is_old_sparse: bool
    ) -> None:
        if b"size" in records:
            size = _parse_int(records[b"size"], "size")
        if size < 0:
            raise Malformed("an entry of the tar has a negative size")
        member.size = self._left = size
        self._padding = -size % BLOCK
        limit = self._limits.header_bytes
        if is_old_sparse:
            raise Refused(f"{shown(member.name)} is in the old sparse form of GNU tar")
        if b"GNU.sparse.major" in records or b"GNU.sparse.map" in records:
            found = sparse.read_map(records, self._stream.take, limit)
            self._left -= found.read
            member.name = found.name or member.name
            member.size, member.extents = found.size, found.extents
            if found.stored != self._left:
                raise Malformed(f"{shown(member.name)} has another size than its sparse map")
        elif any(key.startswith(b"GNU.sparse.") for key in records):
            raise Refused(f"{shown(member.name)} is in an old sparse form of GNU tar")


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """Read the records of a PAX header: `LENGTH KEY=VALUE` and a newline.

    Raises:
        Malformed: if they are none.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise Malformed("a PAX header of the tar is damaged")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space or data[end - 1 : end] != b"\n" or not equals:
            raise Malformed("a PAX header of the tar is damaged")
        records[key] = value
        at = end
    return records


def shown(name: bytes) -> str:
    """Return a name as a message has it: short, and without control characters."""
    text = name if len(name) <= 200 else name[:197] + b"..."
    return repr(text.decode("utf-8", "backslashreplace"))[1:-1] or "''"


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(fields: tuple[bytes, ...]) -> bytes:
    name = _text(fields[0])
    if fields[9] == _USTAR:
        prefix = _text(fields[14])
        return prefix + b"/" + name if prefix else name
    return name


def _number(field: bytes) -> int:
    """Read a number: octal digits, or two's complement marked by the first bit (GNU)."""
    digits = field[:-1]
    if digits.isdigit():  # as nearly all writers have it
        try:
            return int(digits, 8)
        except ValueError:
            raise Malformed(f"a number in the tar is none: {digits!r}") from None
    if field[0] & 0x80:
        # 0x80 marks the form, and the next bit is the sign of the number.
        first = field[0] & 0x7F
        first -= (first & 0x40) << 1
        found: int = first << 8 * (len(field) - 1) | int.from_bytes(field[1:], "big")
        return found
    digits = field.strip(b" \0")
    if not digits:
        return 0
    digits = digits.partition(b"\0")[0].strip()
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise Malformed(f"a number in the tar is none: {digits!r}")
    return int(digits, 8)


def _signed_total(block: bytes, total: int) -> int:
    """Return the checksum as some old writers made it, of signed bytes."""
    return total - 256 * len([byte for byte in block[:148] + block[156:] if byte > 127])


def _parse_int(value: bytes, what: str) -> int:
    if not value.removeprefix(b"-").isdigit() or len(value) > 20:
        raise Malformed(f"the {what} in a PAX header is no number: {shown(value)}")
    return int(value)


def _decimal(records: dict[bytes, bytes], key: bytes, field: bytes) -> int:
    value = records.get(key)
    found = _number(field) if not value else _parse_int(value, key.decode())
    if not 0 <= found < 0xFFFFFFFF:  # the last one means "leave it" to chown(2)
        raise Malformed(f"an entry of the tar has the {key.decode()} {found}")
    return found


def _mtime(records: dict[bytes, bytes], field: bytes) -> int:
    value = records.get(b"mtime")
    if not value:
        return _in_range(_number(field) * _NANO)
    whole, _, fraction = value.partition(b".")
    if fraction and not fraction.isdigit():
        raise Malformed(f"the mtime in a PAX header is no number: {shown(value)}")
    nanos = int(fraction[:9].ljust(9, b"0"))
    seconds = _parse_int(whole, "mtime")
    return _in_range(seconds * _NANO + (-nanos if whole.startswith(b"-") else nanos))


def _in_range(mtime_ns: int) -> int:
    """Return the nearest time that can be set at all (of the years 1677 to 2262)."""
    return max(-_MAX_NS, min(mtime_ns, _MAX_NS))
