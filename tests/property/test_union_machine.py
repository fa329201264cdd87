"""Any sequence of operations on a union does what it does on the tree that its layers make up."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.property.layers import (
    DIR_MODES,
    FILE_MODES,
    IS_ROOT,
    NAMES,
    OWNERS,
    fingerprint,
    layers,
    unite,
    write,
)
from tests.support.core import CHAR_TRUSTED, CHAR_USER, WH_FILES, Driver, use_format
from tests.support.model import RENAME_EXCHANGE, RENAME_NOREPLACE, Inode, Model
from unionfuse.union.fs import UnionFs
from unionfuse.union.state import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.property.layers import Dir
    from tests.support.core import Handle
    from unionfuse.layer.upper import UpperFormat

IS_NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

# One example is a whole life of a union; these many take half a minute together. Making a failing
# one smaller takes minutes, so only a nightly run does it: the limit of a test is for all of it.
MACHINE = (
    settings(stateful_step_count=100)
    if IS_NIGHTLY
    else settings(
        max_examples=150,
        stateful_step_count=40,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
)

FORMATS = (CHAR_TRUSTED, CHAR_USER, WH_FILES) if IS_ROOT else (CHAR_USER, WH_FILES)
OWN = (os.geteuid(), os.getegid())
MAX_HANDLES = 3

picks = st.integers(0, 1 << 16)
names = st.sampled_from(NAMES)
CHUNKS = {"nothing": b"", "letter": b"x", "words": b"some words", "pages": b"page" * 1500}
chunks = st.sampled_from(sorted(CHUNKS))
offsets = st.sampled_from((0, 3, 4096, 9000))
times = st.integers(0, 10**18)


def outcome(act: Callable[..., Any], *args: Any) -> str:
    """Return how `act` ends: "done", or the errno it raises."""
    try:
        act(*args)
    except OSError as err:
        return os.strerror(err.errno or 0)
    return "done"


class UnionMachine(RuleBasedStateMachine):
    """A union and the model of it, through the same operations."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="union."))
        self.umask_before = os.umask(0)  # as the daemon
        self.fds_before = len(os.listdir("/proc/self/fd"))
        self.handles: list[tuple[Handle, Inode]] = []
        self.copies: dict[int, Inode] = {}
        self.inos: dict[Inode, int] = {}

    @initialize(
        stack=st.lists(layers, min_size=1, max_size=3),
        fmt=st.sampled_from(FORMATS),
        options=st.builds(
            Options,
            sync=st.just(False),
            inline_bytes=st.sampled_from((8, 1 << 16)),
            nodeid_is_ino=st.booleans(),
            max_backing_fds=st.sampled_from((1, 64)),
            metacopy=st.booleans(),
            redirect_dir=st.sampled_from(("on", "follow")),
        ),
        keeps_lookups=st.booleans(),
    )
    def mount(
        self, stack: list[Dir], fmt: UpperFormat, options: Options, keeps_lookups: bool
    ) -> None:
        self.lowers = [self.base / f"lower{number}" for number in range(len(stack))]
        for path, layer in zip(self.lowers, stack, strict=True):
            path.mkdir()
            write(path, layer)
        (self.base / "upper").mkdir(0o755)
        self.before = fingerprint(self.lowers)
        redirects = options.redirect_dir == "on" and fmt.prefix is not None
        self.model = Model(unite(stack), moves_directories=redirects)
        self.model.root.mode, self.model.root.mtime_ns = 0o755, None  # the upper's
        if fmt.prefix is None:  # nothing to record how many names a copied-up file has
            self.model.lose_links()
        self.fmt, self.options, self.keeps_lookups = fmt, options, keeps_lookups
        self._open()

    def _open(self) -> None:
        fs = UnionFs.from_paths(
            [os.fsencode(path) for path in self.lowers],
            os.fsencode(self.base / "upper"),
            os.fsencode(self.base / "work"),
            self.options,
            max_open_dirs=8,
        )
        use_format(fs, self.fmt)
        self.driver = Driver(fs, keeps_lookups=self.keeps_lookups)

    # Choosing

    def _paths(self, *fmts: int) -> list[bytes]:
        return [path for path, inode in self.model.walk() if not fmts or inode.fmt in fmts]

    def _pick(self, pick: int, *fmts: int) -> bytes:
        """Return a path that exists, of one of these formats if there is one."""
        found = self._paths(*fmts)
        return found[pick % len(found)] if found else b"missing"

    def _new(self, pick: int, name: bytes) -> bytes:
        """Return a path in a directory that exists, which may exist itself."""
        return os.path.join(self._pick(pick, stat.S_IFDIR), name)

    def _both(self, ours: Callable[[], Any], models: Callable[[], Any]) -> None:
        found, wanted = outcome(ours), outcome(models)
        assert found == wanted

    # Making

    @rule(pick=picks, name=names, mode=st.sampled_from(DIR_MODES))
    def mkdir(self, pick: int, name: bytes, mode: int) -> None:
        path, mode = self._new(pick, name), mode & 0o1777
        self._both(lambda: self.driver.mkdir(path, mode), lambda: self.model.mkdir(path, mode, OWN))

    @rule(pick=picks, name=names, mode=st.sampled_from(FILE_MODES), chunk=chunks)
    def create(self, pick: int, name: bytes, mode: int, chunk: str) -> None:
        path, data = self._new(pick, name), CHUNKS[chunk]
        self._both(
            lambda: self.driver.create(path, data, mode),
            lambda: self.model.write(self.model.create(path, mode, OWN), data, 0),
        )

    @rule(pick=picks, name=names, mode=st.sampled_from(FILE_MODES))
    def mkfifo(self, pick: int, name: bytes, mode: int) -> None:
        path = self._new(pick, name)
        self._both(
            lambda: self.driver.mknod(path, stat.S_IFIFO | mode),
            lambda: self.model.mkfifo(path, mode, OWN),
        )

    @rule(pick=picks, name=names)
    def symlink(self, pick: int, name: bytes) -> None:
        path = self._new(pick, name)
        self._both(
            lambda: self.driver.symlink(b"to/" + name, path),
            lambda: self.model.symlink(b"to/" + name, path, OWN),
        )

    @rule(old=picks, pick=picks, name=names)
    def link(self, old: int, pick: int, name: bytes) -> None:
        source = self._pick(old, stat.S_IFREG, stat.S_IFIFO, stat.S_IFLNK)
        path = self._new(pick, name)
        self._both(lambda: self.driver.link(source, path), lambda: self.model.link(source, path))

    # Removing and moving

    @rule(pick=picks)
    def unlink(self, pick: int) -> None:
        path = self._pick(pick, stat.S_IFREG, stat.S_IFIFO, stat.S_IFLNK)
        self._both(lambda: self.driver.unlink(path), lambda: self.model.unlink(path))

    @precondition(lambda self: len(self._paths(stat.S_IFDIR)) > 1)
    @rule(pick=picks)
    def rmdir(self, pick: int) -> None:
        directories = self._paths(stat.S_IFDIR)[1:]
        path = directories[pick % len(directories)]
        self._both(lambda: self.driver.rmdir(path), lambda: self.model.rmdir(path))

    @precondition(lambda self: len(self._paths()) > 1)
    @rule(
        old=picks,
        pick=picks,
        name=names,
        flags=st.sampled_from((0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE)),
    )
    def rename(self, old: int, pick: int, name: bytes, flags: int) -> None:
        paths = self._paths()[1:]
        source, target = paths[old % len(paths)], self._new(pick, name)
        self._both(
            lambda: self.driver.rename(source, target, flags),
            lambda: self.model.rename(source, target, flags),
        )

    @precondition(lambda self: len(self._paths(stat.S_IFDIR)) > 1)
    @rule(old=picks, pick=picks, name=names, flags=st.sampled_from((0, RENAME_EXCHANGE)))
    def rename_directory(self, old: int, pick: int, name: bytes, flags: int) -> None:
        paths = self._paths(stat.S_IFDIR)[1:]
        source, target = paths[old % len(paths)], self._new(pick, name)
        self._both(
            lambda: self.driver.rename(source, target, flags),
            lambda: self.model.rename(source, target, flags),
        )

    # Changing

    @rule(pick=picks, mode=st.sampled_from(FILE_MODES))
    def chmod(self, pick: int, mode: int) -> None:
        path = self._pick(pick, stat.S_IFREG, stat.S_IFIFO)
        self._both(
            lambda: self.driver.chmod(path, mode),
            lambda: setattr(self.model.get(path), "mode", mode),
        )

    @rule(pick=picks, mode=st.sampled_from(DIR_MODES))
    def chmod_directory(self, pick: int, mode: int) -> None:
        path = self._pick(pick, stat.S_IFDIR)
        self.driver.chmod(path, mode)
        self.model.get(path).mode = mode

    @rule(pick=picks, uid=st.sampled_from(OWNERS), gid=st.just(OWN[1]))
    def chown(self, pick: int, uid: int, gid: int) -> None:
        path = self._pick(pick)
        self.driver.chown(path, uid, gid)
        self.model.chown(self.model.get(path), uid, gid)

    @rule(pick=picks, mtime_ns=times)
    def utimens(self, pick: int, mtime_ns: int) -> None:
        path = self._pick(pick)
        self.driver.utimens(path, 0, mtime_ns)
        self.model.get(path).mtime_ns = mtime_ns

    @rule(pick=picks, value=st.sampled_from((b"", b"1", b"2")))
    def setxattr(self, pick: int, value: bytes) -> None:
        path = self._pick(pick, stat.S_IFREG, stat.S_IFDIR)
        self.driver.setxattr(path, b"user.test", value)
        self.model.get(path).xattrs[b"user.test"] = value

    @rule(pick=picks)
    def removexattr(self, pick: int) -> None:
        path = self._pick(pick, stat.S_IFREG, stat.S_IFDIR)
        is_there = self.model.get(path).xattrs.pop(b"user.test", None) is not None
        found = outcome(self.driver.removexattr, path, b"user.test")
        assert found == ("done" if is_there else "No data available")

    @rule(pick=picks, chunk=chunks, offset=offsets)
    def write(self, pick: int, chunk: str, offset: int) -> None:
        path, data = self._pick(pick, stat.S_IFREG), CHUNKS[chunk]
        self._both(
            lambda: self.driver.write(path, data, offset),
            lambda: self._write(self.model.get(path), data, offset),
        )

    @rule(pick=picks, size=st.sampled_from((0, 0, 5, 10_000)))
    def truncate(self, pick: int, size: int) -> None:
        path = self._pick(pick, stat.S_IFREG)
        self._both(
            lambda: self.driver.truncate(path, size),
            lambda: self.model.truncate(self.model.get(path), size),
        )

    def _write(self, inode: Inode, data: bytes, offset: int) -> None:
        if data:
            self.model.write(inode, data, offset)

    # Open files

    @precondition(lambda self: len(self.handles) < MAX_HANDLES)
    @rule(pick=picks, flags=st.sampled_from((os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC)))
    def open(self, pick: int, flags: int) -> None:
        path = self._pick(pick, stat.S_IFREG)
        if path not in self._paths():
            return
        inode = self.model.get(path)
        self.handles.append((self.driver.open(path, flags), inode))
        if flags & os.O_TRUNC:
            self.model.truncate(inode, 0)

    @precondition(lambda self: self.handles)
    @rule(pick=picks, chunk=chunks, offset=offsets)
    def write_handle(self, pick: int, chunk: str, offset: int) -> None:
        data = CHUNKS[chunk]
        handle, inode = self.handles[pick % len(self.handles)]
        handle.write(data, offset)
        self._write(inode, data, offset)

    @precondition(lambda self: self.handles)
    @rule(pick=picks, mode=st.sampled_from(FILE_MODES))
    def chmod_handle(self, pick: int, mode: int) -> None:
        handle, inode = self.handles[pick % len(self.handles)]
        handle.setattr(mode=mode)
        inode.mode = mode

    @precondition(lambda self: self.handles)
    @rule(pick=picks)
    def close(self, pick: int) -> None:
        handle, _ = self.handles.pop(pick % len(self.handles))
        handle.close()

    # Copy-ups on their way while other requests are answered

    @precondition(lambda self: not self.driver.pending)
    @rule(pick=picks)
    def begin_copy_up(self, pick: int) -> None:
        path = self._pick(pick, stat.S_IFREG)
        if path not in self._paths() or self.driver.is_upper(path):
            return
        if len(self.model.get(path).data) > self.options.inline_bytes:  # others are made at once
            self.driver.begin_copy_up(path)

    @precondition(lambda self: self.driver.pending)
    @rule(gives_up=st.booleans())
    def end_copy_up(self, gives_up: bool) -> None:
        [nodeid] = self.driver.pending
        if gives_up:
            self.driver.abandon_copy_up(nodeid)
        else:
            self.driver.finish_copy_up(nodeid)

    # The kernel's memory

    @rule()
    def forget(self) -> None:
        self.driver.forget_all()

    @rule()
    def remount(self) -> None:
        self._close()
        self.model.remount()
        self._open()

    def _close(self) -> None:
        for nodeid in list(self.driver.pending):
            self.driver.finish_copy_up(nodeid)
        while self.handles:
            self.handles.pop()[0].close()
        self.driver.forget_all()
        assert len(self.driver.fs.union.table) == 1, "nodes that nobody knows are kept"
        self.driver.close()
        assert not os.listdir(self.base / "work" / "work")

    # What holds at all times

    @invariant()
    def looks_like_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        for path, inode in self.model.walk():
            self._compare(path, inode)
        for handle, inode in self.handles:
            assert handle.read() == inode.data
            assert stat.S_IMODE(handle.stat().st.st_mode) == inode.mode
            if inode.nlink is not None:
                assert handle.stat().nlink == inode.nlink
        living = dict(self.model.walk()).values()
        self.inos = {inode: ino for inode, ino in self.inos.items() if inode in living}
        assert len(set(self.inos.values())) == len(self.inos), "two files have one number"

    def _compare(self, path: bytes, inode: Inode) -> None:
        attr = self.driver.stat(path)
        status = attr.st
        assert stat.S_IFMT(status.st_mode) == inode.fmt, path
        assert oct(stat.S_IMODE(status.st_mode)) == oct(inode.mode), path
        assert (status.st_uid, status.st_gid) == (inode.uid, inode.gid), path
        if self._has_lasting_number(inode):
            assert attr.ino == self.inos.setdefault(inode, attr.ino), path
        if inode.mtime_ns is not None:
            assert status.st_mtime_ns == inode.mtime_ns, path
        if inode.is_dir:
            assert self.driver.listdir(path) == sorted(inode.children), path
        elif inode.nlink is not None:
            assert attr.nlink == inode.nlink, path
        if inode.fmt == stat.S_IFREG:
            assert status.st_size == len(inode.data), path
            assert self.driver.read(path) == inode.data, path
        if inode.fmt == stat.S_IFLNK:
            assert self.driver.readlink(path) == inode.target, path
        assert self.driver.xattrs(path) == inode.xattrs, path

    def _has_lasting_number(self, inode: Inode) -> bool:
        """Tell whether the upper can record the number that a file had in the lower."""
        if inode.is_dir or self.fmt == CHAR_TRUSTED:
            return True
        return self.fmt == CHAR_USER and inode.fmt == stat.S_IFREG  # no user.* on others

    def teardown(self) -> None:
        try:
            if hasattr(self, "model"):
                self._close()
                assert fingerprint(self.lowers) == self.before, "a lower was touched"
                assert len(os.listdir("/proc/self/fd")) == self.fds_before
        finally:
            os.umask(self.umask_before)
            with contextlib.suppress(OSError, AttributeError):
                self.driver.fs.close()
            _remove(self.base)


def _remove(base: Path) -> None:
    for path, directories, _ in os.walk(base):
        for name in directories:
            os.chmod(os.path.join(path, name), 0o700)
    shutil.rmtree(base)


TestUnionMachine = UnionMachine.TestCase
TestUnionMachine.settings = MACHINE
TestUnionMachine.pytestmark = [pytest.mark.timeout(0 if IS_NIGHTLY else 120)]
