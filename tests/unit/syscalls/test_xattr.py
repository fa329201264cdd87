"""Extended attributes by descriptor and by name below one; symlinks never followed."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path, is_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    opened = os.open(tmp_path, os.O_PATH)
    yield opened
    os.close(opened)


def test_a_path_of_a_descriptor_is_told_from_one_of_a_name() -> None:
    assert is_descriptor(fd_path(5))
    assert not is_descriptor(fd_path(5, b"name"))


def test_values_are_set_listed_read_and_removed(fd: int) -> None:
    path = fd_path(fd, b"file")
    xattr.set_(path, b"user.test", b"value")
    assert xattr.names(path) == [b"user.test"]
    assert xattr.get(path, b"user.test") == b"value"
    xattr.remove(path, b"user.test")
    assert xattr.get_or_none(path, b"user.test") is None


def test_a_descriptor_stands_for_what_it_is_open_on(fd: int, tmp_path: Path) -> None:
    xattr.set_(fd_path(fd), b"user.test", b"value")
    assert os.getxattr(tmp_path, "user.test") == b"value"


def test_a_symlink_is_not_followed(fd: int) -> None:
    with pytest.raises(PermissionError):  # user.* is not for symlinks
        xattr.set_(fd_path(fd, b"link"), b"user.test", b"value")
    assert xattr.names(fd_path(fd, b"file")) == []


def test_an_absent_value_is_an_error_unless_none_will_do(fd: int) -> None:
    with pytest.raises(OSError, match="No data") as caught:
        xattr.get(fd_path(fd, b"file"), b"user.test")
    assert caught.value.errno == errno.ENODATA


def test_a_filesystem_without_attributes_has_no_names() -> None:
    assert xattr.names(b"/proc/self/status") == []
    assert xattr.get_or_none(b"/proc/self/status", b"user.test") is None
