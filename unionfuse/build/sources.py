"""What COPY and ADD take: files and trees below one directory, found by patterns.

The directory is a context, which its user has written, or the tree of another image, which a
stranger has. Either way no symlink in it leads out: names that are given are followed within it,
and in a tree that is copied symlinks stay symlinks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.build.errors import BuildError
from unionfuse.build.ignore import Ignore, translate
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

if TYPE_CHECKING:
    from collections.abc import Iterator

_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_META = re.compile(r"[*?\[\\]")
CARRIED = (b"user.", b"security.capability")
"""Attributes that are copied, by how they begin."""
_MARKERS = (b"user.overlay.", b"user.containers.", b"user.fuseoverlayfs.")


@dataclass(frozen=True, slots=True)
class Tree:
    """Where sources are.

    Attributes:
        fd: of its root.
        ignore: what is left out of it.
        keeps_owners: whether files keep their owners, as those of another image do.
    """

    fd: int
    ignore: Ignore
    keeps_owners: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in what is copied.

    Attributes:
        path: from the source on; empty for itself.
        dir_fd, name: where it is; usable until the next entry is asked for.
    """

    path: str
    dir_fd: int
    name: str
    st: os.stat_result

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.st.st_mode)


@dataclass(frozen=True, slots=True)
class Source:
    """One file or directory that is copied.

    Attributes:
        path: from the root of its tree on; empty for that.
        fd: of a file or a directory, open to be read; of anything else O_PATH.
    """

    tree: Tree
    path: str
    fd: int
    st: os.stat_result

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.st.st_mode)

    def entries(self) -> Iterator[Entry]:
        """Yield what is in a directory, parents first, in order; what is ignored is left out."""
        fd = os.open(".", _DIRECTORY, dir_fd=self.fd)
        try:
            yield from self._below(fd, "")
        finally:
            os.close(fd)

    def _below(self, dir_fd: int, above: str) -> Iterator[Entry]:
        for name in sorted(os.listdir(dir_fd)):
            path = f"{above}/{name}" if above else name
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            entry = Entry(path, dir_fd, name, st)
            ignore = self.tree.ignore
            ignored = bool(ignore) and ignore.ignores(_join(self.path, path))
            if not ignored:
                yield entry
            if entry.is_dir and (not ignored or ignore.has_exceptions):
                fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
                try:
                    yield from self._below(fd, path)
                finally:
                    os.close(fd)


def find(tree: Tree, patterns: list[str], line: int) -> list[Source]:
    """Find what patterns name, each in order; the descriptors are the caller's to close.

    Raises:
        BuildError: for a name that is not there or is left out, or if nothing is found at all.
    """
    found: list[Source] = []
    try:
        for pattern in patterns:
            _find_one(tree, pattern, line, found)
    except BaseException:
        close(found)
        raise
    if not found:
        raise BuildError(f"nothing is there for {' '.join(patterns)}", line)
    return found


def close(sources: list[Source]) -> None:
    """Close the descriptors of sources."""
    for source in sources:
        os.close(source.fd)


def _find_one(tree: Tree, pattern: str, line: int, found: list[Source]) -> None:
    path = os.path.normpath("/" + pattern).lstrip("/")
    is_one = not _META.search(path)
    try:
        for each in [path] if is_one else _matching(tree, path):
            if not _is_left_out(tree, each):
                found.append(_open(tree, each))
            elif is_one:
                raise BuildError(f"{pattern} is left out by .dockerignore", line)
    except ValueError as err:
        raise BuildError(f"{pattern!r} is no pattern: {err}", line) from None
    except OSError as err:
        raise BuildError(f"{pattern}: {err.strerror}", line) from None


def _is_left_out(tree: Tree, path: str) -> bool:
    """Tell whether .dockerignore leaves a path out, with all that is in it."""
    if not path or not tree.ignore.ignores(path):
        return False
    if not tree.ignore.has_exceptions:
        return True
    source = _open(tree, path)
    try:
        return not (source.is_dir and any(True for _ in source.entries()))
    finally:
        os.close(source.fd)


def _open(tree: Tree, path: str) -> Source:
    fd = openat2(tree.fd, os.fsencode(path or "."), os.O_PATH, _IN_ROOT)
    try:
        st = os.fstat(fd)
        if not (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode)):
            return Source(tree, path, fd, st)  # a device is not to be opened
        readable = os.open(fd_path(fd), os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return Source(tree, path, readable, st)


def _matching(tree: Tree, pattern: str) -> list[str]:
    """Return the paths that fit a pattern, in order."""
    paths = [""]
    *above, last = pattern.split("/")
    for part in above:
        paths = [path for base in paths for path in _names(tree, base, part)]
    return sorted(path for base in paths for path in _names(tree, base, last))


def _names(tree: Tree, base: str, part: str) -> list[str]:
    if not _META.search(part):
        return [_join(base, part)] if _exists(tree, _join(base, part)) else []
    expression = re.compile(translate(part), re.DOTALL)
    try:
        fd = openat2(tree.fd, os.fsencode(base or "."), _DIRECTORY, _IN_ROOT)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return [_join(base, name) for name in sorted(os.listdir(fd)) if expression.fullmatch(name)]
    finally:
        os.close(fd)


def _exists(tree: Tree, path: str) -> bool:
    try:
        os.close(openat2(tree.fd, os.fsencode(path), os.O_PATH, _IN_ROOT))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _join(base: str, name: str) -> str:
    return f"{base}/{name}" if base else name


@contextlib.contextmanager
def opened(source: Source, entry: Entry | None) -> Iterator[int | None]:
    """Yield a descriptor to read a file or directory by: a source, or one in it.

    Of anything else there is none. Works also where there is no /proc.
    """
    st = source.st if entry is None else entry.st
    if not (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode)):
        yield None
    elif entry is None:
        if stat.S_ISREG(st.st_mode):
            os.lseek(source.fd, 0, os.SEEK_SET)
        yield source.fd
    else:
        fd = os.open(entry.name, _READ, dir_fd=entry.dir_fd)
        try:
            yield fd
        finally:
            os.close(fd)


def attributes(fd: int) -> dict[bytes, bytes]:
    """Return the extended attributes that are copied."""
    found = {}
    for name in xattr.names(fd):
        if name.startswith(CARRIED) and not name.startswith(_MARKERS):
            value = xattr.get_or_none(fd, name)
            if value is not None:
                found[name] = value
    return found


def content_digest(sources: list[Source]) -> str:
    """Return one digest of all that is copied: names, kinds, modes, data; no times.

    Owners count where they are kept.
    """
    state = hashlib.sha256()
    for source in sources:
        _feed(state, source, None)
        if source.is_dir:
            for entry in source.entries():
                _feed(state, source, entry)
    return state.hexdigest()


def _feed(state: hashlib._Hash, source: Source, entry: Entry | None) -> None:
    st = source.st if entry is None else entry.st
    name = source.name if entry is None else entry.path
    if source.is_dir and entry is None:
        name = ""  # only what is in it is copied
    fmt = stat.S_IFMT(st.st_mode)
    fields = [os.fsencode(name), b"%o" % st.st_mode]
    if source.tree.keeps_owners:
        fields.append(b"%d:%d" % (st.st_uid, st.st_gid))
    if fmt == stat.S_IFLNK and entry is not None:
        fields.append(os.fsencode(os.readlink(entry.name, dir_fd=entry.dir_fd)))
    elif fmt in (stat.S_IFCHR, stat.S_IFBLK):
        fields.append(b"%d" % st.st_rdev)
    with opened(source, entry) as fd:
        if fd is not None:
            for key, value in sorted(attributes(fd).items()):
                fields += [key, value]
            if fmt == stat.S_IFREG:
                fields.append(_data_digest(fd))
    for part in fields:
        state.update(b"%d:" % len(part) + part)
    state.update(b"\n")


def _data_digest(fd: int) -> bytes:
    with open(fd, "rb", buffering=0, closefd=False) as file:
        return hashlib.file_digest(file, "sha256").digest()
