"""File data is copied whole, its holes are kept, whatever the filesystems can do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.syscalls import copyfile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def files(tmp_path: Path, data: bytes) -> Iterator[tuple[int, int]]:
    (tmp_path / "source").write_bytes(data)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    try:
        yield source, target
    finally:
        os.close(source)
        os.close(target)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3_000_001])
def test_all_bytes_are_copied(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with files(tmp_path, data) as (source, target):
        copyfile.copy_data(source, target, size)
    assert (tmp_path / "target").read_bytes() == data


def test_only_the_first_bytes_are_copied_if_that_is_asked_for(tmp_path: Path) -> None:
    with files(tmp_path, b"0123456789") as (source, target):
        copyfile.copy_data(source, target, 4)
    assert (tmp_path / "target").read_bytes() == b"0123"


@pytest.mark.parametrize(
    ("islands", "size"),
    [
        pytest.param([], 1 << 30, id="nothing but a hole"),
        pytest.param([0], 1 << 30, id="hole at the end"),
        pytest.param([(1 << 30) - 4], 1 << 30, id="hole at the start"),
        pytest.param([0, 1 << 28, 1 << 29], 1 << 30, id="holes between"),
    ],
)
def test_holes_stay_holes(tmp_path: Path, islands: list[int], size: int) -> None:
    with files(tmp_path, b"") as (source, target):
        with open(tmp_path / "source", "r+b") as file:
            file.truncate(size)
            for start in islands:
                file.seek(start)
                file.write(b"data")
        copyfile.copy_data(source, target, size)
        st = os.fstat(target)
        assert st.st_size == size
        assert st.st_blocks * 512 <= 65536 * len(islands)
        for start in islands:
            assert os.pread(target, 4, start) == b"data"


def test_a_source_that_became_shorter_leaves_zeros(tmp_path: Path) -> None:
    with files(tmp_path, b"short") as (source, target):
        copyfile.copy_data(source, target, 100)
    assert (tmp_path / "target").read_bytes() == b"short".ljust(100, b"\0")


@pytest.fixture(params=[errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY])
def no_clone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "ioctl", refuse)


@pytest.mark.usefixtures("no_clone")
def test_a_filesystem_without_clones_copies(tmp_path: Path) -> None:
    with files(tmp_path, b"data" * 1000) as (source, target):
        copyfile.copy_data(source, target, 4000)
    assert (tmp_path / "target").read_bytes() == b"data" * 1000


def test_kernel_files_that_copy_file_range_takes_for_empty_are_read(tmp_path: Path) -> None:
    source = os.open("/proc/self/status", os.O_RDONLY)
    with files(tmp_path, b"") as (_, target):
        copyfile._copy_range(source, target, 0, 100)
        assert os.pread(target, 5, 0) == b"Name:"
    os.close(source)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with files(tmp_path, b"data") as (source, _):
        full = os.open("/dev/full", os.O_RDWR)
        with pytest.raises(OSError, match="No space"):
            copyfile.copy_data(source, full, 4)
        os.close(full)
