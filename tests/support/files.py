"""Open, map and write files as system calls do."""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file for the time of a `with` block."""
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Map a file for reading, shared, for the time of a `with` block."""
    with opened(path) as fd, mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as mapping:
        yield mapping


def write(path: Path, data: bytes, flags: int = 0, offset: int = 0) -> None:
    """Write into a file by one call."""
    with opened(path, os.O_WRONLY | flags) as fd:
        os.lseek(fd, offset, os.SEEK_SET)
        assert os.write(fd, data) == len(data)
