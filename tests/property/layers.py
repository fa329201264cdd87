"""Layers as data: a strategy that draws them, their writing to disk, and the tree they unite to."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.support.model import Inode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAMES = (b"a", b"b", b"c", b"\xff")
IS_ROOT = os.geteuid() == 0

# A plain user can neither enter what its mode forbids nor keep setgid of a foreign group.
DIR_MODES = (0o755, 0o700, 0o555, 0o2775, 0o1777) if IS_ROOT else (0o755, 0o700)
FILE_MODES = (0o644, 0o600, 0, 0o4755, 0o6711) if IS_ROOT else (0o644, 0o600)
OWNERS = (0, 1001) if IS_ROOT else (os.geteuid(),)
P = "trusted.overlay." if IS_ROOT else "user.overlay."

SIZES = (0, 1, 9, 5000)


@dataclass(frozen=True)
class File:
    seed: int
    size: int
    mode: int
    owner: int
    mtime_ns: int
    has_xattr: bool
    hides_below: bool = False  # a `.wh.NAME` lies beside it


@dataclass(frozen=True)
class Link:
    pick: int
    hides_below: bool = False


@dataclass(frozen=True)
class Symlink:
    target: bytes
    mtime_ns: int
    hides_below: bool = False


@dataclass(frozen=True)
class Fifo:
    mode: int
    mtime_ns: int
    hides_below: bool = False


@dataclass(frozen=True)
class Whiteout:
    form: str  # "char", "wh" or "xattr"


@dataclass(frozen=True)
class Dir:
    mode: int
    mtime_ns: int
    opaque: str  # "", "overlay", "fuse-overlayfs" or "file"
    children: Mapping[bytes, File | Link | Symlink | Fifo | Whiteout | Dir] = field(hash=False)
    hides_below: bool = False


Spec = File | Link | Symlink | Fifo | Whiteout | Dir

_mtimes = st.integers(0, 10**18)
_files = st.builds(
    File,
    seed=st.integers(0, 99),
    size=st.sampled_from(SIZES),
    mode=st.sampled_from(FILE_MODES),
    owner=st.sampled_from(OWNERS),
    mtime_ns=_mtimes,
    has_xattr=st.booleans(),
    hides_below=st.booleans(),
)
_leaves = st.one_of(
    _files,
    st.builds(Link, st.integers(0, 99), st.booleans()),
    st.builds(Symlink, st.sampled_from((b"a", b"../b", b"/etc/passwd")), _mtimes),
    st.builds(Fifo, st.sampled_from(FILE_MODES), _mtimes),
    st.builds(Whiteout, st.sampled_from(("char", "wh", "xattr"))),
)


def _dirs(children: st.SearchStrategy[Spec]) -> st.SearchStrategy[Dir]:
    return st.builds(
        Dir,
        mode=st.sampled_from(DIR_MODES),
        mtime_ns=_mtimes,
        opaque=st.sampled_from(("", "", "", "overlay", "fuse-overlayfs", "file")),
        children=st.dictionaries(st.sampled_from(NAMES), children, max_size=4),
        hides_below=st.booleans(),
    )


# overlayfs does not look for an opaque mark at a layer's root (super.c, ovl_get_root).
layers = _dirs(st.recursive(_leaves, _dirs, max_leaves=12)).map(
    lambda layer: replace(layer, opaque="")
)


def file_data(spec: File) -> bytes:
    return (b"%d;" % spec.seed * spec.size)[: spec.size]


def write(root: Path, layer: Dir) -> None:
    """Write `layer` into the empty directory `root`."""
    _Writer().fill(os.fsencode(root), layer)


class _Writer:
    """Writes one layer; hard links lead to what was written before."""

    def __init__(self) -> None:
        self._linkable: list[bytes] = []

    def fill(self, path: bytes, spec: Dir) -> None:
        for name, child in spec.children.items():
            self._make(path, name, child)
            if not isinstance(child, Whiteout) and child.hides_below:
                _touch(os.path.join(path, b".wh." + name))
        opaque = {"overlay": P + "opaque", "fuse-overlayfs": "user.fuseoverlayfs.opaque"}
        if spec.opaque == "file":
            _touch(os.path.join(path, b".wh..wh..opq"))
        elif spec.opaque:
            os.setxattr(path, opaque[spec.opaque], b"y")
        forms = {child.form for child in spec.children.values() if isinstance(child, Whiteout)}
        if "xattr" in forms and spec.opaque == "overlay":
            os.setxattr(path, P + "whiteouts", b"")
        elif "xattr" in forms:
            os.setxattr(path, P + "opaque", b"x")
        os.chmod(path, spec.mode)
        os.utime(path, ns=(0, spec.mtime_ns))

    def _make(self, directory: bytes, name: bytes, spec: Spec) -> None:
        path = os.path.join(directory, name)
        match spec:
            case Dir():
                os.mkdir(path)
                self.fill(path, spec)
            case File():
                _touch(path, file_data(spec))
                os.chown(path, spec.owner, -1)
                if spec.has_xattr:
                    os.setxattr(path, "user.test", b"%d" % spec.seed)
                os.chmod(path, spec.mode)
                self._linkable.append(path)
            case Link():
                if self._linkable:
                    old = self._linkable[spec.pick % len(self._linkable)]
                    os.link(old, path, follow_symlinks=False)
                return
            case Symlink():
                os.symlink(spec.target, path)
            case Fifo():
                os.mkfifo(path)
                os.chmod(path, spec.mode)
            case Whiteout(form="char"):
                os.mknod(path, stat.S_IFCHR, 0)
            case Whiteout(form="wh"):
                _touch(os.path.join(directory, b".wh." + name))
            case Whiteout():
                _touch(path)
                os.setxattr(path, P + "whiteout", b"")
        if isinstance(spec, File | Symlink | Fifo):
            os.utime(path, ns=(0, spec.mtime_ns), follow_symlinks=False)


def _touch(path: bytes, data: bytes = b"") -> None:
    with open(path, "xb") as file:
        file.write(data)


def unite(stack: list[Dir]) -> Inode:
    """Return the root of the tree that `stack`, topmost first, unites to."""
    root = Inode(stat.S_IFDIR, 0, 0, 0)
    for layer in reversed(stack):
        _Copier().copy(root, layer)
    return root


class _Copier:
    """Copies one layer over a tree, as `cp -a` would but for whiteouts and opaque directories."""

    def __init__(self) -> None:
        self._linkable: list[Inode] = []

    def copy(self, into: Inode, spec: Dir) -> None:
        into.mode, into.mtime_ns, into.has_lower = spec.mode, spec.mtime_ns, True
        into.uid, into.gid = os.geteuid(), os.getegid()
        if spec.opaque:
            into.children.clear()
        for name, child in spec.children.items():
            below = into.children.get(name)
            if isinstance(child, Dir):
                merges = below is not None and below.is_dir and not child.hides_below
                new = below if merges else Inode(stat.S_IFDIR, 0, 0, 0)
                assert new is not None
                into.children[name] = new
                self.copy(new, child)
                continue
            made = self._make(child)
            if made is not None:
                into.children[name] = made
            elif isinstance(child, Whiteout) or child.hides_below:
                into.children.pop(name, None)

    def _make(self, spec: Spec) -> Inode | None:
        own = (os.geteuid(), os.getegid())
        match spec:
            case File():
                made = Inode(stat.S_IFREG, spec.mode, spec.owner, own[1], file_data(spec))
                if spec.has_xattr:
                    made.xattrs[b"user.test"] = b"%d" % spec.seed
                self._linkable.append(made)
            case Link() if self._linkable:
                made = self._linkable[spec.pick % len(self._linkable)]
                assert made.nlink is not None
                made.nlink += 1
                made.lower_nlink += 1
                return made
            case Symlink():
                made = Inode(stat.S_IFLNK, 0o777, *own, target=spec.target)
            case Fifo():
                made = Inode(stat.S_IFIFO, spec.mode, *own)
            case _:
                return None
        made.mtime_ns, made.lower_nlink = spec.mtime_ns, 1
        return made


def fingerprint(roots: list[Path]) -> dict[bytes, tuple[object, ...]]:
    """Record all that a lower must keep, and read it without touching it."""
    return {path: _state(path) for root in roots for path in _paths(os.fsencode(root))}


def _paths(root: bytes) -> Iterator[bytes]:
    yield root
    if stat.S_ISDIR(os.lstat(root).st_mode):
        fd = os.open(root, os.O_RDONLY | os.O_NOATIME)
        try:
            found = sorted(os.listdir(fd))
        finally:
            os.close(fd)
        for name in found:
            yield from _paths(os.path.join(root, os.fsencode(name)))


def _state(path: bytes) -> tuple[object, ...]:
    status = os.lstat(path)
    data: bytes | None = None
    if stat.S_ISREG(status.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
        with open(fd, "rb") as file:
            data = file.read()
    is_link = stat.S_ISLNK(status.st_mode)
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_ino,
        status.st_nlink,
        status.st_size,
        # readlink(2) has no O_NOATIME
        0 if is_link else status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
        data,
        tuple(xattrs.items()),
    )
