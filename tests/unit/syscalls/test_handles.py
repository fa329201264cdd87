"""File handles and the identity of filesystems."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.syscalls.handles import filesystem_uuid, name_to_handle, open_by_handle

if TYPE_CHECKING:
    from pathlib import Path


def test_every_file_has_its_own_handle(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).touch()
    os.link(tmp_path / "one", tmp_path / "one-more")
    fd = os.open(tmp_path, os.O_PATH)
    handles = [name_to_handle(fd, name) for name in (b"one", b"two", b"one-more")]
    os.close(fd)
    assert handles[0] == handles[2] != handles[1]


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    fd = os.open(tmp_path, os.O_PATH)
    assert name_to_handle(fd, b"link") != name_to_handle(fd, b"file")
    os.close(fd)


def test_a_filesystem_without_handles_says_so() -> None:
    fd = os.open("/proc", os.O_PATH)
    with pytest.raises(OSError, match="not supported"):
        name_to_handle(fd, b"version")
    os.close(fd)


def test_a_filesystem_without_identity_has_zeros() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    assert filesystem_uuid(fd) == bytes(16)
    os.close(fd)


def test_all_files_of_a_filesystem_tell_the_same_identity(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = set()
    for path in (tmp_path, tmp_path / "file"):
        fd = os.open(path, os.O_RDONLY)
        found.add(filesystem_uuid(fd))
        os.close(fd)
    assert len(found) == 1


@pytest.mark.root
def test_a_file_is_opened_by_its_handle_until_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mount_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        handle = name_to_handle(mount_fd, b"file")
        fd = open_by_handle(mount_fd, *handle)
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "file"))
        os.close(fd)
        os.unlink(tmp_path / "file")
        with pytest.raises(OSError, match="Stale file handle"):
            open_by_handle(mount_fd, *handle)
    finally:
        os.close(mount_fd)
