"""The union as a whole: opening, closing, and what holds for every request."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.core import Driver
from unionfuse.layer.workdir import WorkdirError
from unionfuse.union.fs import ROOT_NODEID, UnionFs
from unionfuse.union.state import Caller

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.conftest import Stand

NOBODY = Caller(65534, 65534)
UNKNOWN = 99


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        UnionFs.from_paths([os.fsencode(tmp_path / "missing")])
    assert caught.value.filename == os.fsencode(tmp_path / "missing")


def test_a_layer_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        UnionFs.from_paths([os.fsencode(tmp_path / "file")])


def test_a_refused_workdir_leaves_nothing_open(plain: Stand) -> None:
    plain.d.listdir(b"")
    before = os.listdir("/proc/self/fd")
    paths = [os.fsencode(path) for path in (plain.bottom, plain.upper, plain.work)]
    with pytest.raises(WorkdirError):
        UnionFs.from_paths([paths[0]], paths[1], paths[2])
    assert os.listdir("/proc/self/fd") == before


def test_closing_leaves_nothing_open(tmp_path: Path) -> None:
    for name in ("lower", "upper"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_text("data")
    before = os.listdir("/proc/self/fd")
    paths = [os.fsencode(tmp_path / name) for name in ("lower", "upper", "work")]
    driver = Driver(UnionFs.from_paths([paths[0]], paths[1], paths[2]))
    driver.open(b"file", os.O_RDWR)
    driver.unlink(b"file")
    driver.fs.close()
    assert os.listdir("/proc/self/fd") == before


REQUESTS: dict[str, Callable[[UnionFs], object]] = {
    "create": lambda fs: fs.create(ROOT_NODEID, b"new", 0o644, NOBODY),
    "mkdir": lambda fs: fs.mkdir(ROOT_NODEID, b"new", 0o755, NOBODY),
    "symlink": lambda fs: fs.symlink(ROOT_NODEID, b"new", b"target", NOBODY),
    "mknod": lambda fs: fs.mknod(ROOT_NODEID, b"new", 0o100644, 0, NOBODY),
    "unlink": lambda fs: fs.unlink(ROOT_NODEID, b"file"),
    "rmdir": lambda fs: fs.rmdir(ROOT_NODEID, b"dir"),
    "rename": lambda fs: fs.rename(ROOT_NODEID, b"file", ROOT_NODEID, b"new"),
    "setxattr": lambda fs: fs.setxattr(ROOT_NODEID, b"user.test", b""),
    "removexattr": lambda fs: fs.removexattr(ROOT_NODEID, b"user.test"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=list(REQUESTS))
def test_a_union_without_upper_changes_nothing(
    request_: Callable[[UnionFs], object], tmp_path: Path
) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    fs = UnionFs.from_paths([os.fsencode(tmp_path)])
    with contextlib.closing(fs), pytest.raises(OSError, match="Read-only file system"):
        request_(fs)
    assert sorted(os.listdir(tmp_path)) == ["dir", "file"]


def test_a_union_without_upper_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    with contextlib.closing(Driver(UnionFs.from_paths([os.fsencode(tmp_path)]))) as d:
        assert d.read(b"file") == b"data"
        with pytest.raises(OSError, match="Read-only file system"):
            d.open(b"file", os.O_WRONLY)


def test_a_node_that_the_kernel_does_not_know_is_stale(plain: Stand) -> None:
    with pytest.raises(OSError, match="Stale file handle"):
        plain.d.fs.getattr(UNKNOWN)


def test_a_file_is_no_directory(plain: Stand) -> None:
    plain.d.create(b"file")
    held = plain.d.hold(b"file")
    with pytest.raises(NotADirectoryError):
        plain.d.fs.lookup(held, b"name")
    plain.d.fs.forget(held, 1)


def test_only_a_symlink_has_a_target(plain: Stand) -> None:
    plain.d.create(b"file")
    with pytest.raises(OSError, match="Invalid argument"):
        plain.d.readlink(b"file")


def test_a_name_over_255_bytes_is_too_long_to_look_up(plain: Stand) -> None:
    with pytest.raises(OSError, match="File name too long"):
        plain.d.exists(b"x" * 256)


def test_an_unlinked_symlink_still_has_its_target(union: Stand) -> None:
    union.d.symlink(b"target", b"link")
    held = union.d.hold(b"link")
    union.d.unlink(b"link")
    assert union.d.fs.readlink(held) == b"target"
    union.d.fs.forget(held, 1)


def test_the_figures_are_those_of_the_uppers_filesystem(plain: Stand) -> None:
    assert plain.d.fs.statfs().f_blocks == os.statvfs(plain.upper).f_blocks


def test_a_lower_file_needs_no_syncing_and_an_upper_one_does(plain: Stand) -> None:
    (plain.bottom / "file").touch()
    held = plain.d.hold(b"file")
    assert plain.d.fs.sync_fd(held) is None
    plain.d.chmod(b"file", 0o600)
    fd = plain.d.fs.sync_fd(held)
    assert fd is not None
    os.fsync(fd)
    os.close(fd)
    plain.d.fs.forget(held, 1)


def test_a_directory_of_the_upper_can_be_synced(plain: Stand) -> None:
    fd = plain.d.fs.sync_fd(ROOT_NODEID)
    assert fd is not None
    os.fsync(fd)
    os.close(fd)


def test_a_file_of_mode_0_is_read_through_its_handle(union: Stand) -> None:
    handle = union.d.create_open(b"file", 0)
    handle.write(b"data")
    assert handle.read() == b"data"
    handle.close()
    assert union.d.mode(b"file") == 0
