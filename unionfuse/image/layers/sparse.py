"""The sparse maps that GNU tar writes in PAX form (its manual, "Storing Sparse Files").

0.0    GNU.sparse.offset and GNU.sparse.numbytes, repeated
0.1    GNU.sparse.map: numbers with commas between
1.0    before the data: how many, then offset and length of each, one number a line
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.image.errors import Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 512
_MAX_SIZE = (1 << 63) - 1
_MAX_DIGITS = 20


@dataclass(frozen=True, slots=True)
class SparseMap:
    """Where the data of a sparse file belongs.

    Attributes:
        name: of the file; empty if the entry has it itself.
        size: of the file, with its holes.
        extents: (offset, length) of its data, in order.
        read: bytes of the entry's data that the map took.
    """

    name: bytes
    size: int
    extents: list[tuple[int, int]]
    read: int

    @property
    def stored(self) -> int:
        """Bytes of data that are in the tar."""
        return sum(length for _, length in self.extents)


def read_map(records: dict[bytes, bytes], take: Callable[[int], bytes], limit: int) -> SparseMap:
    """Read the map of the entry whose PAX records these are.

    Args:
        records: of its PAX header.
        take: returns the next bytes of its data.
        limit: bytes that a map may have.

    Raises:
        Malformed: if the map makes no sense.
        Refused: if it is larger than `limit`.
    """
    name = records.get(b"GNU.sparse.name", b"")
    read = 0
    if b"GNU.sparse.major" in records:
        version = records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")
        if version != (b"1", b"0"):
            raise Refused(f"a sparse file of version {version!r}")
        numbers, read = _numbers_before_data(take, limit)
        size = _size(records.get(b"GNU.sparse.realsize", b""))
    else:
        numbers = [_size(text) for text in records[b"GNU.sparse.map"].split(b",") if text]
        size = _size(records.get(b"GNU.sparse.size", b""))
    if len(numbers) % 2:
        raise Malformed("a sparse map of the tar is damaged")
    extents = list(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in extents:
        if offset < end:
            raise Malformed("a sparse map of the tar is not in order")
        end = offset + length
    if end > size:
        raise Malformed("a sparse map of the tar goes over the end of its file")
    return SparseMap(name, size, extents, read)


def _numbers_before_data(take: Callable[[int], bytes], limit: int) -> tuple[list[int], int]:
    data = b""
    lines = 0
    expected = None  # lines: the first tells how many pairs there are
    while expected is None or lines < expected:
        block = take(_BLOCK)
        if len(block) < _BLOCK:
            raise Malformed("the tar is cut in the middle of a sparse map")
        data += block
        lines += block.count(b"\n")
        if len(data) > limit:
            raise Refused("a sparse map of the tar is too large")
        if expected is None and lines:
            expected = 1 + 2 * _size(data.partition(b"\n")[0])
    return [_size(line) for line in data.split(b"\n")[1:expected]], len(data)


def _size(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS or int(text) > _MAX_SIZE:
        raise Malformed("a sparse map of the tar is damaged")
    return int(text)
