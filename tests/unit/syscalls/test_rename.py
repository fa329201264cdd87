"""renameat2 and its flags."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from unionfuse.syscalls.rename import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    renameat2,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    opened = os.open(tmp_path, os.O_PATH)
    yield opened
    os.close(opened)


def test_without_flags_it_replaces(fd: int, tmp_path: Path) -> None:
    renameat2(fd, b"one", fd, b"two", 0)
    assert os.listdir(tmp_path) == ["two"]


def test_noreplace_does_not(fd: int) -> None:
    with pytest.raises(FileExistsError):
        renameat2(fd, b"one", fd, b"two", RENAME_NOREPLACE)


def test_exchange_swaps(fd: int, tmp_path: Path) -> None:
    renameat2(fd, b"one", fd, b"two", RENAME_EXCHANGE)
    assert (tmp_path / "one").read_text() == "2"
    assert (tmp_path / "two").read_text() == "1"


def test_whiteout_leaves_a_device(fd: int, tmp_path: Path) -> None:
    renameat2(fd, b"one", fd, b"two", RENAME_WHITEOUT)
    st = (tmp_path / "one").stat()
    assert (stat.S_IFMT(st.st_mode), st.st_rdev) == (stat.S_IFCHR, 0)


def test_names_need_not_be_text(fd: int, tmp_path: Path) -> None:
    renameat2(fd, b"one", fd, b"\xff\n", 0)
    assert b"\xff\n" in os.listdir(os.fsencode(tmp_path))


def test_errors_have_their_errno(fd: int) -> None:
    with pytest.raises(FileNotFoundError):
        renameat2(fd, b"missing", fd, b"two", 0)
