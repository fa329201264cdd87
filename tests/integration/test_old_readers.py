"""A lower file is open when it is changed for the first time.

What its readers see of that is old data or new, as the session has it, never a mixture; whoever
opens it then sees the new, and all see the same file.
"""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.files import mapped, opened, write
from tests.support.programs import run, served
from tests.support.sessions import KERNEL_CACHED, KERNEL_PASSTHROUGH, held_views
from tests.support.stress_shared import stamped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(60), pytest.mark.data]

SIZE = 20_000
OLD, NEW = stamped(1, SIZE), stamped(2, SIZE)


def by_mapping(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, SIZE) as mapping:
        mapping[:] = NEW


def by_truncation_of_the_open_file(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.ftruncate(fd, 5000)


def by_copying(path: Path) -> None:
    source = path.with_name("source")
    with opened(source, os.O_RDWR | os.O_CREAT) as fd, opened(path, os.O_RDWR) as target:
        os.write(fd, NEW)
        assert os.copy_file_range(fd, target, SIZE, 0, 0) == SIZE


def by_many_writes(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        for offset in range(0, SIZE, 1000):
            os.pwrite(fd, NEW[offset : offset + 1000], offset)


# What is done to the file, and what it then contains.
DATA_CHANGES: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "write": (lambda path: write(path, NEW), NEW),
    "many writes": (by_many_writes, NEW),
    "append": (lambda path: write(path, NEW, os.O_APPEND), OLD + NEW),
    "open with truncation": (lambda path: write(path, NEW, os.O_TRUNC), NEW),
    "truncation to nothing": (lambda path: os.truncate(path, 0), b""),
    "truncation": (lambda path: os.truncate(path, 5000), OLD[:5000]),
    "extension": (lambda path: os.truncate(path, SIZE + 9), OLD + bytes(9)),
    "truncation of the open file": (by_truncation_of_the_open_file, OLD[:5000]),
    "mapping": (by_mapping, NEW),
    "copy_file_range": (by_copying, NEW),
}


class TestOldReaders:
    """A lower file is open when it is changed for the first time."""

    @pytest.mark.parametrize("change", DATA_CHANGES)
    def test_data_is_old_or_new_as_a_whole(self, layers, session, change):
        (layers.lowers[0] / "file").write_bytes(OLD)
        action, new = DATA_CHANGES[change]
        with served(layers) as mnt, opened(mnt / "file") as reader:
            before = os.fstat(reader)
            assert os.pread(reader, 2 * SIZE, 0) == OLD
            action(mnt / "file")
            views = held_views(session, OLD, new)
            if session == KERNEL_PASSTHROUGH and change.startswith(("truncation", "extension")):
                # by its size the kernel knows only one file of this inode, if it is the same
                views = [OLD, OLD[: len(new)], new]
            assert os.pread(reader, 3 * SIZE, 0) in views
            assert (mnt / "file").read_bytes() == new
            after = (mnt / "file").stat()
            assert after.st_size == len(new)
            assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
            assert os.fstat(reader).st_ino == before.st_ino
            # the next change finds it in the upper
            write(mnt / "file", b"again")
            assert (mnt / "file").read_bytes()[:5] == b"again"
        with served(layers) as mnt:
            assert (mnt / "file").read_bytes() == b"again" + new[5:]
            assert (mnt / "file").stat().st_ino == before.st_ino

    def test_truncation_to_the_same_size_changes_the_time(self, layers, session):
        (layers.lowers[0] / "file").write_bytes(OLD)
        os.utime(layers.lowers[0] / "file", (1000, 1000))
        with served(layers) as mnt:
            os.truncate(mnt / "file", SIZE)
            # where it gathers writes, the kernel keeps the time itself, and changes it only with
            # the size
            changed = (mnt / "file").stat().st_mtime > 1000
            assert changed == (session != KERNEL_CACHED)
            assert (mnt / "file").read_bytes() == OLD

    @pytest.mark.parametrize("where", ["path", "old reader"])
    def test_attributes_are_the_same_for_all(self, layers, where):
        (layers.lowers[0] / "file").write_bytes(OLD)
        with served(layers) as mnt, opened(mnt / "file") as reader:
            target = reader if where == "old reader" else mnt / "file"
            os.chmod(target, 0o600)
            os.utime(target, ns=(10**18 + 1, 10**18 + 2))
            os.setxattr(target, "user.x", b"value")
            if os.geteuid() == 0:
                os.chown(target, 1234, 2345)
            looks = os.stat(mnt / "file"), os.fstat(reader)
            for name in ("st_mode", "st_mtime_ns", "st_uid", "st_gid", "st_size", "st_ino"):
                assert getattr(looks[0], name) == getattr(looks[1], name), name
            assert stat.S_IMODE(looks[0].st_mode) == 0o600
            assert looks[0].st_mtime_ns == 10**18 + 2
            for place in (mnt / "file", reader):
                assert os.getxattr(place, "user.x") == b"value"
            assert os.pread(reader, 2 * SIZE, 0) == OLD
            # and when it is written after that
            write(mnt / "file", NEW)
            assert (mnt / "file").read_bytes() == NEW
            assert os.pread(reader, 2 * SIZE, 0) in (OLD, NEW)
            assert stat.S_IMODE((mnt / "file").stat().st_mode) == 0o600

    def test_names_come_and_go(self, layers, session):
        (layers.lowers[0] / "file").write_bytes(OLD)
        with served(layers) as mnt, opened(mnt / "file") as reader:
            inode = os.fstat(reader).st_ino
            (mnt / "file").rename(mnt / "renamed")
            os.link(mnt / "renamed", mnt / "linked")
            with opened(mnt / "linked") as second:
                write(mnt / "renamed", NEW)
                assert (mnt / "linked").read_bytes() == NEW
                for fd in (reader, second):
                    assert os.fstat(fd).st_ino == inode
                    assert os.pread(fd, 2 * SIZE, 0) in (OLD, NEW)
                assert os.pread(reader, 2 * SIZE, 0) in (*held_views(session, OLD, NEW), NEW)
            (mnt / "renamed").unlink()
            (mnt / "linked").unlink()
            assert os.pread(reader, 2 * SIZE, 0) in (OLD, NEW)
            assert os.listdir(mnt) == []

    def test_a_removed_file_is_read_to_its_end(self, layers):
        for name in ("unlinked", "replaced"):
            (layers.lowers[0] / name).write_bytes(OLD)
        with (
            served(layers) as mnt,
            opened(mnt / "unlinked") as unlinked,
            opened(mnt / "replaced") as replaced,
        ):
            (mnt / "unlinked").unlink()
            (mnt / "new").write_bytes(NEW)
            (mnt / "new").rename(mnt / "replaced")
            (mnt / "unlinked").write_bytes(NEW)
            for fd in (unlinked, replaced):
                assert os.pread(fd, 2 * SIZE, 0) == OLD
            for name in ("unlinked", "replaced"):
                assert (mnt / name).read_bytes() == NEW

    def test_a_mapping_from_before_is_whole(self, layers, session):
        (layers.lowers[0] / "file").write_bytes(OLD)
        with served(layers) as mnt, mapped(mnt / "file") as mapping:
            assert mapping[:100] == OLD[:100]  # the rest is not in memory yet
            write(mnt / "file", NEW)
            assert mapping[:] in held_views(session, OLD, NEW)
            with mapped(mnt / "file") as other:
                assert other[:] == NEW
                by_mapping(mnt / "file")
                write(mnt / "file", b"more", 0, 4096)
                assert other[4096:4100] == b"more"

    def test_two_names_of_one_file_are_open_when_one_is_written(self, layers, session):
        (layers.lowers[0] / "first").write_bytes(OLD)
        os.link(layers.lowers[0] / "first", layers.lowers[0] / "second")
        with (
            served(layers) as mnt,
            opened(mnt / "first") as first,
            opened(mnt / "second") as second,
        ):
            write(mnt / "second", NEW)
            for name in ("first", "second"):
                assert (mnt / name).read_bytes() == NEW
                assert (mnt / name).stat().st_ino == os.fstat(first).st_ino
            views = {os.pread(fd, 2 * SIZE, 0) for fd in (first, second)}
            assert views <= set(held_views(session, OLD, NEW))
            (mnt / "first").unlink()
            write(mnt / "second", b"again")
            assert (mnt / "second").read_bytes()[:5] == b"again"

    def test_a_program_goes_on_when_its_file_is_replaced(self, layers):
        shutil.copy("/bin/sleep", layers.lowers[0] / "program")
        with served(layers) as mnt, subprocess.Popen([mnt / "program", "1"]) as running:
            with pytest.raises(OSError, match="Text file busy"):
                write(mnt / "program", b"#!")
            (mnt / "program").chmod(0o700)
            shutil.copy("/bin/true", mnt / "other")
            (mnt / "other").rename(mnt / "program")
            run(mnt / "program", "not a number")
            assert running.wait(20) == 0

    def test_a_program_is_written_when_it_has_ended(self, layers):
        (layers.lowers[0] / "script").write_text("#!/bin/sh\necho old\n")
        (layers.lowers[0] / "script").chmod(0o755)
        with served(layers) as mnt, opened(mnt / "script"):
            assert run(mnt / "script") == "old\n"
            (mnt / "script").write_text("#!/bin/sh\necho new\n")
            assert run(mnt / "script") == "new\n"
            assert (mnt / "script").stat().st_mode & 0o777 == 0o755
