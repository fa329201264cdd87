"""Whatever stops an operation halfway, the next mount shows the tree before it or after it.

A crash, or a full disk, happens at each system call of each operation in turn.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.core import CHAR_TRUSTED, CHAR_USER, WH_FILES, Driver, use_format
from tests.support.faults import FAULT, Crash, close_new
from unionfuse.syscalls.rename import RENAME_EXCHANGE
from unionfuse.union.fs import UnionFs
from unionfuse.union.state import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unionfuse.layer.upper import UpperFormat

IS_ROOT = os.geteuid() == 0
# The two ways to hide a name; the two kinds of attributes are written by the same calls.
FORMATS = {"char": CHAR_TRUSTED if IS_ROOT else CHAR_USER, "wh-files": WH_FILES}


def build(base: Path) -> None:
    """Make two lowers and an upper that has been worked on already."""
    top, bottom = base / "top", base / "bottom"
    (bottom / "d/sub").mkdir(parents=True)
    (bottom / "d/file").write_bytes(b"bottom" * 1000)
    os.link(bottom / "d/file", bottom / "d/second-name")
    (bottom / "d/sub/deep").write_text("deep")
    (bottom / "d/link").symlink_to("file")
    (bottom / "gone").write_text("gone")
    (bottom / "gone-directory").mkdir()
    (bottom / "gone-directory/inside").write_text("inside")
    (bottom / "empty/one").mkdir(parents=True)
    (top / "d").mkdir(parents=True)
    (top / "d/file-of-top").write_text("top")
    (top / "d/file-of-top").chmod(0o640)
    (base / "upper").mkdir()


@contextlib.contextmanager
def union(base: Path, fmt: UpperFormat) -> Iterator[Driver]:
    lowers = [os.fsencode(base / name) for name in ("top", "bottom")]
    upper, work = os.fsencode(base / "upper"), os.fsencode(base / "work")
    fs = UnionFs.from_paths(lowers, upper, work, Options(sync=False, inline_bytes=16))
    use_format(fs, fmt)
    with contextlib.closing(fs):
        yield Driver(fs, keeps_lookups=True)


def prepare(d: Driver) -> None:
    """Bring the upper into a state from which all operations lead on."""
    d.unlink(b"gone")
    d.unlink(b"gone-directory/inside")
    d.rmdir(b"gone-directory")
    d.rmdir(b"empty/one")
    d.mkdir(b"new")
    d.create(b"new/file", b"made in the union")
    d.mkdir(b"new/directory")


def tree(d: Driver, path: bytes = b"") -> dict[bytes, tuple[object, ...]]:
    """Return what the union shows, but for times of directories and link counts."""
    st = d.stat(path).st
    is_dir, is_link = stat.S_ISDIR(st.st_mode), stat.S_ISLNK(st.st_mode)
    data = None
    if stat.S_ISREG(st.st_mode):
        data = d.read(path)
    found: dict[bytes, tuple[object, ...]] = {
        path: (
            st.st_mode,
            st.st_uid,
            data,
            d.readlink(path) if is_link else None,
            d.xattrs(path),
        )
    }
    for name in d.listdir(path) if is_dir else []:
        found |= tree(d, os.path.join(path, name))
    return found


OPERATIONS: dict[str, Callable[[Driver], object]] = {
    "chmod": lambda d: d.chmod(b"d/file-of-top", 0o600),
    "chmod of a hard link": lambda d: d.chmod(b"d/file", 0o600),
    "chmod of a symlink's directory": lambda d: d.chmod(b"d/sub", 0o700),
    "truncate": lambda d: d.truncate(b"d/sub/deep", 0),
    "setxattr": lambda d: d.setxattr(b"d/sub/deep", b"user.test", b"1"),
    "create over a whiteout": lambda d: d.create(b"gone"),
    "mkdir over a whiteout": lambda d: d.mkdir(b"gone-directory"),
    "mkdir in a lower": lambda d: d.mkdir(b"d/sub/made"),
    "symlink over a whiteout": lambda d: d.symlink(b"target", b"gone"),
    "link": lambda d: d.link(b"d/file", b"new/third-name"),
    "link over a whiteout": lambda d: d.link(b"d/sub/deep", b"gone"),
    "unlink of a lower file": lambda d: d.unlink(b"d/sub/deep"),
    "unlink of a hard link": lambda d: d.unlink(b"d/file"),
    "unlink of an upper file": lambda d: d.unlink(b"new/file"),
    "rmdir with whiteouts inside": lambda d: d.rmdir(b"empty"),
    "rmdir": lambda d: d.rmdir(b"new/directory"),
    "rename of a lower file": lambda d: d.rename(b"d/sub/deep", b"d/moved"),
    "rename of a hard link": lambda d: d.rename(b"d/second-name", b"new/moved"),
    "rename of a symlink": lambda d: d.rename(b"d/link", b"new/moved"),
    "rename over a lower file": lambda d: d.rename(b"new/file", b"d/file-of-top"),
    "rename over a whiteout": lambda d: d.rename(b"d/sub/deep", b"gone"),
    "rename of a directory": lambda d: d.rename(b"new", b"moved"),
    "rename of a directory over a whiteout": lambda d: d.rename(b"new", b"gone-directory"),
    "rename of a directory over another": lambda d: d.rename(b"new", b"empty"),
    "exchange": lambda d: d.rename(b"new/file", b"d/sub/deep", RENAME_EXCHANGE),
    "exchange of a file and a directory": lambda d: d.rename(
        b"new/directory", b"d/sub/deep", RENAME_EXCHANGE
    ),
}


@pytest.fixture(params=FORMATS.values(), ids=list(FORMATS))
def fmt(request: pytest.FixtureRequest) -> UpperFormat:
    return request.param


def outcomes(
    base: Path, fmt: UpperFormat, operation: Callable[[Driver], object]
) -> tuple[object, object]:
    """Return what the union shows before the operation and after it."""
    base.mkdir()
    build(base)
    with union(base, fmt) as d:
        prepare(d)
        before = tree(d)
        operation(d)
        return before, tree(d)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_after_a_crash_the_tree_is_the_old_or_the_new_one(
    operation: Callable[[Driver], object], fmt: UpperFormat, scratch: Path
) -> None:
    before, after = outcomes(scratch / "whole", fmt, operation)
    for at in range(1, 100):
        base = scratch / str(at)
        base.mkdir()
        build(base)
        with union(base, fmt) as d:
            prepare(d)
        has_crashed = _crash(base, fmt, operation, at)
        with union(base, fmt) as d:
            found = tree(d)
            assert found in (before, after), f"half done by a crash at change {at}"
            assert has_crashed or found == after
            if found == before:
                operation(d)  # nothing that was left stands in its way
                assert tree(d) == after
        assert not os.listdir(base / "work/work")
        if not has_crashed:
            return
    pytest.fail("the operation does not end")


def _crash(base: Path, fmt: UpperFormat, operation: Callable[[Driver], object], at: int) -> bool:
    """Do `operation` and crash at its change number `at`; return whether it came so far."""
    before = set(os.listdir("/proc/self/fd"))
    try:
        with union(base, fmt) as d, FAULT.armed(at, Crash(), lasts=True):
            operation(d)
    except Crash:
        close_new(before)  # a process that ends closes what it has open
        return True
    return False


def failure(operation: Callable[[Driver], object], d: Driver) -> OSError | None:
    try:
        operation(d)
    except OSError as err:
        return err
    return None


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_a_failed_change_leaves_the_tree_as_it_was(
    operation: Callable[[Driver], object], fmt: UpperFormat, scratch: Path
) -> None:
    before, after = outcomes(scratch / "whole", fmt, operation)
    for at in range(1, 100):
        base = scratch / str(at)
        base.mkdir()
        build(base)
        with union(base, fmt) as d:
            prepare(d)
            full = OSError(errno.ENOSPC, "full")
            with FAULT.armed(at, full, lasts=False):
                error = failure(operation, d)
            assert error in (None, full), f"at change {at}"
            wanted = after if error is None else before
            assert tree(d) == wanted, f"by a failure at change {at}"
        with union(base, fmt) as d:
            assert tree(d) == wanted, f"for the next mount by a failure at change {at}"
            if wanted == before != after:
                operation(d)
                assert tree(d) == after
        if FAULT.calls < at:
            return
    pytest.fail("the operation does not end")
