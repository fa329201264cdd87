"""The system calls by which fsx changes a file, and what a filesystem carries of them.

A test makes one of them faulty to see that fsx finds it.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING

from unionfuse.syscalls.fallocate import fallocate

if TYPE_CHECKING:
    from pathlib import Path

# Modes of fallocate(2), <linux/falloc.h>.
PLAIN, KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 0, 1, 2, 8, 0x10, 0x20
MODES = {
    PLAIN: "plain",
    KEEP_SIZE: "keep-size",
    PUNCH_HOLE | KEEP_SIZE: "punch-hole",
    ZERO_RANGE: "zero-range",
    ZERO_RANGE | KEEP_SIZE: "zero-range keep-size",
    COLLAPSE_RANGE: "collapse-range",
    INSERT_RANGE: "insert-range",
}
# fs/fuse/file.c refuses the other two before it asks anybody.
FUSE_MODES = frozenset(MODES) - {COLLAPSE_RANGE, INSERT_RANGE}
PAGE = mmap.PAGESIZE


class Calls:
    """The calls as they are."""

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def pread_direct(self, fd: int, size: int, offset: int) -> bytes:
        """Read past the cache; `size` and `offset` are whole pages, as all of O_DIRECT."""
        with mmap.mmap(-1, size) as buffer:
            return buffer[: os.preadv(fd, [buffer], offset)]

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def pwrite_direct(self, fd: int, data: bytes, offset: int) -> int:
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            return os.pwritev(fd, [buffer], offset)

    def append(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def truncate(self, file: int | Path, size: int) -> None:
        os.truncate(file, size)

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        fallocate(fd, mode, offset, length)

    def copy_file_range(self, source: int, target: int, size: int, at: int, to: int) -> int:
        return os.copy_file_range(source, target, size, at, to)

    def map_read(self, mapping: mmap.mmap, begin: int, end: int) -> bytes:
        return mapping[begin:end]

    def map_write(self, mapping: mmap.mmap, begin: int, data: bytes) -> None:
        mapping[begin : begin + len(data)] = data

    def seek(self, fd: int, offset: int, whence: int) -> int:
        return os.lseek(fd, offset, whence)


def data_ranges(calls: Calls, fd: int, size: int) -> list[tuple[int, int]]:
    """Return where SEEK_DATA and SEEK_HOLE say that there is data, as (begin, end)."""
    found = []
    end = 0
    while end < size:
        try:
            begin = calls.seek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data from here on
                raise
            break
        end = calls.seek(fd, begin, os.SEEK_HOLE)
        found.append((begin, end))
        assert end > begin, f"data ends where it begins, at {begin}"
    return found


def carried_modes(directory: Path) -> frozenset[int]:
    """Return the modes of fallocate that the filesystem of `directory` has."""
    path = directory / "fsx-probe"
    found = set()
    for mode in MODES:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.pwrite(fd, bytes(4 * PAGE), 0)
            fallocate(fd, mode, PAGE, PAGE)
            found.add(mode)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        finally:
            os.close(fd)
            path.unlink()
    return frozenset(found)


def has_direct(directory: Path) -> bool:
    """Tell whether files in `directory` can be opened with O_DIRECT."""
    path = directory / "fsx-probe"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    finally:
        path.unlink(missing_ok=True)
    return True
