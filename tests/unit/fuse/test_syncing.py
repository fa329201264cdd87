"""Who is told that data has not reached the disk, and how often."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse import syncing
from unionfuse.fuse.syncing import Syncs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.conftest import Stand


def failing_once(code: int) -> Callable[[int], None]:
    """Return what fails like the kernel: once for a descriptor, and there is one for all."""
    left = [code]

    def sync(fd: int) -> None:
        if left:
            raise OSError(left.pop(), "")

    return sync


def sync(syncs: Syncs, nodeid: int, *, data_only: bool = False) -> str:
    """Sync a file; return the name of the errno it is answered with."""
    try:
        job = syncs.file(nodeid, data_only=data_only)
        if job is not None:
            job()
    except OSError as err:
        return errno.errorcode[err.errno or 0]
    return ""


@pytest.fixture
def nodeids(plain: Stand) -> tuple[int, int]:
    """Two files of the upper."""
    for name in (b"file", b"other"):
        plain.d.create(name, b"data")
    return plain.d.hold(b"file"), plain.d.hold(b"other")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_whoever_syncs_the_file_later_is_told_too(plain, nodeids, monkeypatch, code):
    file, other = nodeids
    syncs = Syncs(plain.d.fs, volatile=False)
    monkeypatch.setattr(os, "fsync", failing_once(code))
    name = errno.errorcode[code]
    assert [sync(syncs, file) for _ in range(3)] == [name] * 3
    assert sync(syncs, file, data_only=True) == name
    assert sync(syncs, other) == ""


def test_an_error_that_says_nothing_about_data_is_told_once(plain, nodeids, monkeypatch):
    syncs = Syncs(plain.d.fs, volatile=False)
    monkeypatch.setattr(os, "fsync", failing_once(errno.EINTR))
    assert [sync(syncs, nodeids[0]) for _ in range(2)] == ["EINTR", ""]


def test_a_file_that_is_not_in_the_upper_needs_no_sync(plain):
    (plain.bottom / "file").write_text("lower")
    assert Syncs(plain.d.fs, volatile=False).file(plain.d.hold(b"file"), data_only=False) is None


def test_a_volatile_mount_asks_the_kernel_and_writes_nothing(plain, nodeids, monkeypatch):
    syncs = Syncs(plain.d.fs, volatile=True)
    monkeypatch.setattr(os, "fsync", failing_once(errno.EIO))
    asked: list[int] = []
    monkeypatch.setattr(syncing, "check_written", asked.append)
    assert sync(syncs, nodeids[0]) == ""
    assert len(asked) == 1


def test_a_volatile_mount_that_lost_data_fails_every_sync_for_ever(plain, nodeids, monkeypatch):
    file, other = nodeids
    syncs = Syncs(plain.d.fs, volatile=True)
    monkeypatch.setattr(syncing, "check_written", failing_once(errno.ENOSPC))
    assert sync(syncs, file) == "EIO"
    assert [sync(syncs, nodeid) for nodeid in (file, other, 1)] == ["EIO"] * 3
    with pytest.raises(OSError, match="Input/output error"):
        syncs.all()
