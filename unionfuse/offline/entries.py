"""The objects of one directory of an upper, with what overlays wrote on each."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import is_whiteout, open_for_listing
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.privilege import is_root

_PREFIXES = (names.TRUSTED, names.USER, names.FUSE_OVERLAYFS)
_FORMATS = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symlink"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of an upper, or a marker there.

    Attributes:
        where, name: the directory that has it, and its name there.
        st: its status.
        marks: the attributes that overlays have set on it, by their full names; None for a
            value that may not be read.
    """

    where: LayerDir
    name: bytes
    st: os.stat_result
    marks: dict[bytes, bytes | None]

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.st.st_mode)

    @property
    def is_empty_file(self) -> bool:
        """Whether it is a regular file without data."""
        return stat.S_ISREG(self.st.st_mode) and not self.st.st_size

    @property
    def is_char_whiteout(self) -> bool:
        """Whether it is a whiteout of the kernel's form."""
        return is_whiteout(self.st)

    @property
    def has_whiteout_mark(self) -> bool:
        """Whether it is a whiteout if its directory is marked to have such ones."""
        return self.is_empty_file and any(mark in self.marks for mark in names.WHITEOUT_XATTRS)

    @property
    def hides(self) -> bytes | None:
        """The name that it hides if it is a file of the form `.wh.NAME`."""
        is_marker = self.name.startswith(names.WHITEOUT_PREFIX)
        if not is_marker or self.name.startswith(names.AUFS_META_PREFIX):
            return None
        return self.name[len(names.WHITEOUT_PREFIX) :]

    @property
    def what(self) -> str:
        """Its type, in a word for users."""
        if self.is_char_whiteout:
            return "whiteout"
        return _FORMATS.get(stat.S_IFMT(self.st.st_mode), "special file")


def entries_of(directory: LayerDir) -> list[Entry]:
    """Return all that `directory` holds, in the order of the names; nothing is followed."""
    fd = open_for_listing(directory)
    try:
        found = sorted(os.fsencode(name) for name in os.listdir(fd))
        return [_entry(directory, fd, name) for name in found]
    finally:
        os.close(fd)


def marks_on(target: xattr.Target) -> dict[bytes, bytes | None]:
    """Return the attributes that overlays have set on `target`."""
    return {
        name: _value(target, name) for name in xattr.names(target) if name.startswith(_PREFIXES)
    }


def has_xattr_whiteouts(marks: dict[bytes, bytes | None]) -> bool:
    """Tell whether a directory with these marks may hold whiteouts in the form of attributes."""
    return any(mark in marks for mark in names.XWHITEOUTS_XATTRS) or any(
        marks.get(mark) == b"x" for mark in names.OPAQUE_XATTRS[:2]
    )


def namespace_of(upper: LayerDir) -> bytes:
    """Return `trusted.overlay.` or `user.overlay.`: the one in which `upper` was written.

    Whoever sees no `trusted.*` has no other than the second. Root reads until one of the first is
    found; if there is none, and any of the second, that is it.
    """
    if not is_root():
        return names.USER
    spaces = _namespaces(marks_on(fd_path(upper.fd())))
    pending = [upper]
    while pending and names.TRUSTED not in spaces:
        directory = pending.pop()
        for entry in entries_of(directory):
            spaces |= _namespaces(entry.marks)
            if entry.is_dir:
                pending.append(LayerDir(directory, entry.name))
    return names.USER if spaces == {names.USER} else names.TRUSTED


def _namespaces(marks: dict[bytes, bytes | None]) -> set[bytes]:
    return {found[0] for found in map(names.marker, marks) if found is not None}


def _entry(directory: LayerDir, fd: int, name: bytes) -> Entry:
    st = os.stat(name, dir_fd=fd, follow_symlinks=False)
    return Entry(directory, name, st, marks_on(fd_path(fd, name)))


def _value(target: xattr.Target, name: bytes) -> bytes | None:
    try:
        return xattr.get_or_none(target, name)
    except PermissionError:
        return None
