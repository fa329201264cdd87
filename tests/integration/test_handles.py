"""File handles on a union, with `nfs_export=on`: what an NFS server keeps of a file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

import pytest

from tests.support.mounts import union_mount
from tests.support.sessions import KERNEL_AUTO, KERNEL_PASSTHROUGH
from unionfuse.syscalls.handles import name_to_handle

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.root,
    pytest.mark.sessions(KERNEL_AUTO, KERNEL_PASSTHROUGH),
]

libc = ctypes.CDLL(None, use_errno=True)


def handle_of(path: Path) -> tuple[int, bytes]:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return name_to_handle(directory, os.fsencode(path.name))
    finally:
        os.close(directory)


@contextlib.contextmanager
def opened(mnt: Path, handle: tuple[int, bytes], flags: int = os.O_RDONLY):
    """Open a file by its handle."""
    kind, data = handle
    directory = os.open(mnt, os.O_RDONLY | os.O_DIRECTORY)
    try:
        packed = struct.pack("=Ii", len(data), kind) + data
        fd = libc.open_by_handle_at(directory, packed, flags)
        if fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(directory)
    try:
        yield fd
    finally:
        os.close(fd)


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("2")


@pytest.fixture
def mnt(layers):
    (layers.lowers[0] / "directory/deep").mkdir(parents=True)
    (layers.lowers[0] / "directory/deep/file").write_text("lower")
    with union_mount(layers, "-o", "nfs_export=on") as mnt:
        yield mnt


def test_a_file_is_opened_after_the_kernel_has_forgotten_it(mnt):
    handle = handle_of(mnt / "directory/deep/file")
    drop_caches()
    with opened(mnt, handle) as fd:
        assert os.read(fd, 10) == b"lower"
        assert os.fstat(fd).st_ino == (mnt / "directory/deep/file").stat().st_ino


def test_a_directory_is_opened_and_leads_to_its_parents(mnt):
    handle = handle_of(mnt / "directory/deep")
    drop_caches()
    with opened(mnt, handle, os.O_RDONLY | os.O_DIRECTORY) as fd:
        assert os.listdir(fd) == ["file"]
        above = os.open("..", os.O_RDONLY, dir_fd=fd)
        assert os.listdir(above) == ["deep"]
        os.close(above)


def test_a_handle_outlasts_copy_up_and_rename(mnt):
    handle = handle_of(mnt / "directory/deep/file")
    (mnt / "directory/deep/file").write_text("upper")
    (mnt / "directory/deep/file").rename(mnt / "moved")
    drop_caches()
    with opened(mnt, handle) as fd:
        assert os.read(fd, 10) == b"upper"


def test_the_handle_of_a_removed_file_is_stale(mnt):
    handle = handle_of(mnt / "directory/deep/file")
    (mnt / "directory/deep/file").unlink()
    drop_caches()
    with pytest.raises(OSError, match="Stale"), opened(mnt, handle):
        pass
