"""Whatever stops a conversion, the upper says the same, and doing it again finishes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.core import CHAR_TRUSTED, CHAR_USER, Driver, use_format
from tests.support.faults import FAULT, Crash, close_new
from unionfuse.offline.convert import convert
from unionfuse.offline.forms import FORMS, Form
from unionfuse.union.fs import UnionFs
from unionfuse.union.state import Options

if TYPE_CHECKING:
    from pathlib import Path

IS_ROOT = os.geteuid() == 0
SOURCES = ["trusted.overlay.", "user.overlay."] if IS_ROOT else ["user.overlay."]
TARGETS = list(FORMS) if IS_ROOT else ["userxattr", "aufs"]
LONG_AGO = 10**18


def build(base: Path, own: str) -> None:
    """Make a lower, and an upper with every form of every marker."""
    lower, upper = base / "lower", base / "upper"
    for name in ("char", "file", "mixed/xattr", "mixed/file", "plain/x", "fuse/x", "aufs/x"):
        (lower / name).parent.mkdir(parents=True, exist_ok=True)
        (lower / name).write_text(f"of the lower: {name}")
    for name in ("beside", "beside-opaque", "opaque", "both"):
        (lower / name).mkdir()
        (lower / name / "hidden").write_text("hidden")
    upper.mkdir()
    for name in ("mixed", "plain", "fuse", "aufs", "beside", "beside-opaque", "opaque", "both"):
        (upper / name).mkdir()
        (upper / name / "own").write_text(f"of the upper: {name}")
    os.mknod(upper / "char", stat.S_IFCHR, 0)
    for name in (".wh.file", "mixed/.wh.file", "mixed/xattr", "aufs/.wh..wh..opq", ".wh.beside"):
        (upper / name).touch()
    for name in (".wh.beside-opaque", "mixed/.wh.xattr", "plain/.wh.own", ".wh..wh.aufs"):
        (upper / name).touch()
    os.setxattr(upper / "mixed", own + "opaque", b"x")
    os.setxattr(upper / "mixed/xattr", own + "whiteout", b"")
    os.setxattr(upper / "mixed/own", own + "origin", b"")
    os.setxattr(upper / "plain/own", own + "origin", b"\0\xfb\x1d\0\x01" + bytes(24))
    os.setxattr(upper / "plain", own + "impure", b"y")
    os.setxattr(upper / "plain", own + "overlay.opaque", b"of a user")
    os.setxattr(upper / "plain/own", own + "overlay.any", b"of a user too")
    os.setxattr(upper / "fuse", "user.fuseoverlayfs.opaque", b"y")
    os.setxattr(upper / "fuse/own", "user.fuseoverlayfs.origin", b"fuse/own\0")
    for name in ("opaque", "both", "beside-opaque"):
        os.setxattr(upper / name, own + "opaque", b"y")
    os.setxattr(upper / "both", "user.overlay.opaque", b"y")
    for path, _, _ in os.walk(upper, topdown=False):
        os.utime(path, ns=(0, LONG_AGO))


def drop_nested_marker(base: Path, own: str) -> None:
    """Take away the one attribute that no other namespace can keep."""
    os.removexattr(base / "upper/plain", own + "overlay.opaque")
    os.utime(base / "upper/plain", ns=(0, LONG_AGO))


def tree(base: Path, own: str) -> dict[bytes, tuple[object, ...]]:
    """Return what a union of the layers shows, but for the names of users' nested attributes."""
    work = os.fsencode(base / "work")
    layers = [os.fsencode(base / name) for name in ("lower", "upper")]
    fs = UnionFs.from_paths(layers[:1], layers[1], work, Options(sync=False))
    use_format(fs, CHAR_TRUSTED if own == "trusted.overlay." else CHAR_USER)
    with contextlib.closing(Driver(fs, keeps_lookups=True)) as d:
        found = below(d, b"")
    shutil.rmtree(work)
    return found


def below(d: Driver, path: bytes) -> dict[bytes, tuple[object, ...]]:
    st = d.stat(path).st
    is_dir = stat.S_ISDIR(st.st_mode)
    found = {
        path: (st.st_mode, st.st_mtime_ns if is_dir else None, None if is_dir else d.read(path))
    }
    for name in d.listdir(path) if is_dir else []:
        found |= below(d, os.path.join(path, name))
    return found


def without_times(found: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    return {path: (mode, data) for path, (mode, _, data) in found.items()}


def everything(upper: Path) -> dict[str, tuple[object, ...]]:
    paths = [upper, *upper.rglob("*")]
    return {
        str(path.relative_to(upper)): (
            stat.S_IFMT(path.lstat().st_mode),
            sorted((name, os.getxattr(path, name)) for name in os.listxattr(path)),
        )
        for path in paths
    }


@pytest.mark.parametrize("own", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_crash_changes_nothing_that_is_shown_and_the_next_run_finishes(
    target: str, own: str, scratch: Path
) -> None:
    form = FORMS[target]
    whole = scratch / "whole"
    prepare(whole, form, own)
    before = tree(whole, own)
    assert convert(os.fsencode(whole / "upper"), form) == []
    done = everything(whole / "upper")
    assert tree(whole, own) == before  # times of directories too
    for at in range(1, 400):
        base = scratch / str(at)
        prepare(base, form, own)
        has_crashed = crash(base, form, at)
        found = tree(base, own)
        assert without_times(found) == without_times(before), f"by a crash at change {at}"
        assert convert(os.fsencode(base / "upper"), form) == []
        assert everything(base / "upper") == done, f"after a crash at change {at}"
        assert without_times(tree(base, own)) == without_times(before)
        if not has_crashed:
            return
        shutil.rmtree(base)
    pytest.fail("the conversion does not end")


def prepare(base: Path, form: Form, own: str) -> None:
    base.mkdir()
    build(base, own)
    if form.prefix not in (None, own.encode()):
        drop_nested_marker(base, own)


def crash(base: Path, form: Form, at: int) -> bool:
    before = set(os.listdir("/proc/self/fd"))
    try:
        with FAULT.armed(at, Crash(), lasts=True):
            convert(os.fsencode(base / "upper"), form)
    except Crash:
        close_new(before)
        return True
    return False
