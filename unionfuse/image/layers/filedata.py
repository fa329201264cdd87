"""The data of one file, from a tar to the disk and back, in pieces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.image.layers.reader import TarReader
    from unionfuse.layer.directory import LayerDir

_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ZEROS = memoryview(bytes(_CHUNK))


def write_all(fd: int, data: memoryview) -> None:
    """Write all of `data`."""
    written = os.write(fd, data) if data else 0
    while written < len(data):
        written += os.write(fd, data[written:])


def write_plain(fd: int, reader: TarReader) -> int:
    """Write the data that `reader` gives to an empty file; return its xxh3-64."""
    data = reader.whole()
    if data is not None:
        write_all(fd, data)
        return xxhash.xxh3_64_intdigest(data)
    hashed = xxhash.xxh3_64()
    for part in reader.data():
        hashed.update(part)
        write_all(fd, part)
    return hashed.intdigest()


def write_sparse(
    fd: int,
    reader: TarReader,
    extents: list[tuple[int, int]],
    size: int,
) -> int:
    """Write the data that `reader` gives to `extents` of an empty file of `size` bytes.

    Returns the xxh3-64 of the file with its holes.
    """
    hashed = xxhash.xxh3_64()
    os.ftruncate(fd, size)
    data = _cut(reader.data(), [length for _, length in extents])
    end = 0
    for offset, length in extents:
        for zeros in zeros_of(offset - end):
            hashed.update(zeros)
        os.lseek(fd, offset, os.SEEK_SET)
        left = length
        while left:
            part = next(data)
            hashed.update(part)
            write_all(fd, part)
            left -= len(part)
        end = offset + length
    for zeros in zeros_of(size - end):
        hashed.update(zeros)
    for _ in data:  # so that a cut tar is seen
        pass
    return hashed.intdigest()


def _cut(parts: Iterator[memoryview], lengths: list[int]) -> Iterator[memoryview]:
    """Yield what `parts` has, cut where each of `lengths` is full."""
    part = memoryview(b"")
    for length in lengths:
        left = length
        while left:
            if not part:
                part = next(parts)
            piece = part[:left]
            part = part[left:]
            left -= len(piece)
            yield piece
    yield from parts


def zeros_of(size: int) -> Iterator[memoryview]:
    """Yield `size` zeros in pieces."""
    while size > 0:
        yield _ZEROS[: min(size, _CHUNK)]
        size -= _CHUNK


def open_to_read(where: LayerDir, name: bytes) -> int:
    """Open a file of a layer, leaving its access time alone where the kernel lets us."""
    try:
        return os.open(name, _READ | os.O_NOATIME, dir_fd=where.fd())
    except PermissionError:  # O_NOATIME is for the owner and CAP_FOWNER
        return os.open(name, _READ, dir_fd=where.fd())
