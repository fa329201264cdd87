"""Read one directory of one layer: its names, its whiteouts, whether it is opaque."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.record import field, mutable_record, record
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from unionfuse.layer.directory import LayerDir

_WHITEOUT_DEV = 0  # makedev(0, 0)
_ENCODING = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
_OPEN_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@mutable_record
class Scan:
    """What one directory of one layer holds.

    Attributes:
        entries: (name, S_IFMT of the mode) of what is there, in the order of the disk.
        whiteouts: names that it hides in the layers below.
        opaque: whether it hides all names of the layers below.
        impure: whether it may hold copied-up objects, which have an origin.
    """

    entries: list[tuple[bytes, int]] = field(default_factory=list)
    whiteouts: set[bytes] = field(default_factory=set)
    opaque: bool = False
    impure: bool = False


def scan(directory: LayerDir) -> Scan:
    """Read `directory`.

    A layer with both `.wh.NAME` and NAME shows NAME and hides it below (layer.md: whiteouts
    apply to the layers below only).

    Raises:
        OSError: EACCES where the directory may not be listed.
    """
    found = Scan()
    fd = open_for_listing(directory)
    try:
        present = _readable_names(fd)
        if present:
            found.opaque = _has_opaque_xattr(fd, present)
            found.impure = any(name in present for name in names.IMPURE_XATTRS)
        with_xwhiteouts = _has_xwhiteouts(fd, present)
        prefix, add = names.WHITEOUT_PREFIX, found.entries.append
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name.encode(*_ENCODING)
                # Plain files, which most names are, go the short way.
                if (
                    with_xwhiteouts
                    or name.startswith(prefix)
                    or not entry.is_file(follow_symlinks=False)
                ):
                    _classify(found, fd, entry, name, with_xwhiteouts)
                else:
                    add((name, stat.S_IFREG))
    finally:
        os.close(fd)
    return found


def open_for_listing(directory: LayerDir) -> int:
    """Open `directory` to list it, leaving its access time alone where the kernel lets us."""
    try:
        return os.open(b".", _OPEN_LIST | os.O_NOATIME, dir_fd=directory.fd())
    except PermissionError:  # O_NOATIME is for the owner and CAP_FOWNER
        return os.open(b".", _OPEN_LIST, dir_fd=directory.fd())


@record
class Marks:
    """What a directory or file of a layer says about the layers below it.

    Attributes:
        opaque: of a directory: it hides what they have at its place.
        metacopy: of a file: its data is there.
        redirect: where else they have it, see `layer.redirect`; None for its own place.
    """

    opaque: bool = False
    metacopy: bool = False
    redirect: bytes | None = None


_NO_MARKS = Marks()


def is_opaque(directory: LayerDir) -> bool:
    """Tell whether `directory` hides what the layers below have at its place."""
    return marks_of(directory, names.TRUSTED).opaque


def marks_of(directory: LayerDir, own: bytes) -> Marks:
    """Return the marks of `directory`, a redirect in the namespace `own` of the mount alone.

    A user may set `user.overlay.*` on what is his in a layer. Obeyed by a mount of root's, a
    redirect would show him what another layer keeps from him (overlayfs.rst, "Renaming
    directories"); nothing else that a mark says can do that.
    """
    fd = directory.fd()
    path = fd_path(fd)
    present = _readable_names(path)
    if present and _has_opaque_xattr(path, present):
        return Marks(opaque=True)
    try:
        os.stat(names.OPAQUE_FILE, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        if own + names.REDIRECT not in present:
            return _NO_MARKS
        return Marks(redirect=xattr.get_or_none(path, own + names.REDIRECT))
    return Marks(opaque=True)


def file_marks(target: xattr.Target, own: bytes) -> Marks:
    """Return the marks of the regular file `target` in the namespace `own`, see `marks_of`."""
    present = _readable_names(target)
    if own + names.METACOPY not in present:
        return _NO_MARKS
    if own + names.REDIRECT not in present:
        return Marks(metacopy=True)
    return Marks(metacopy=True, redirect=xattr.get_or_none(target, own + names.REDIRECT))


def may_be_metacopy(st: os.stat_result) -> bool:
    """Tell whether a regular file with this status has less data than its size says.

    So have those that were made where a layer's directory could not be marked impure.
    """
    return st.st_blocks * 512 < st.st_size


def find(directory: LayerDir, name: bytes) -> tuple[os.stat_result | None, bool]:
    """Return the status of `name` in one layer's directory, and whether it is hidden below.

    No status where there is none, or a whiteout.
    """
    fd = directory.fd()
    hidden = False
    with contextlib.suppress(OSError):  # ENOENT, or ENAMETOOLONG
        os.stat(names.WHITEOUT_PREFIX + name, dir_fd=fd, follow_symlinks=False)
        hidden = True
    try:
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None, hidden
    if is_whiteout(st) or (stat.S_ISREG(st.st_mode) and not st.st_size and _xwhiteout(fd, name)):
        return None, True
    return st, hidden


def _xwhiteout(fd: int, name: bytes) -> bool:
    path = fd_path(fd)
    if not _has_xwhiteouts(path, _readable_names(path)):
        return False
    return any(mark in _readable_names(fd_path(fd, name)) for mark in names.WHITEOUT_XATTRS)


def is_whiteout(st: os.stat_result) -> bool:
    """Tell whether a file with this status is a whiteout of the kernel's form."""
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == _WHITEOUT_DEV


def _classify(
    found: Scan, fd: int, entry: os.DirEntry[str], name: bytes, with_xwhiteouts: bool
) -> None:
    if name.startswith(names.WHITEOUT_PREFIX):
        if name == names.OPAQUE_FILE:
            found.opaque = True
        elif not name.startswith(names.AUFS_META_PREFIX):
            found.whiteouts.add(name[len(names.WHITEOUT_PREFIX) :])
        return
    if entry.is_dir(follow_symlinks=False):
        fmt = stat.S_IFDIR
    elif entry.is_symlink():
        fmt = stat.S_IFLNK
    elif entry.is_file(follow_symlinks=False):
        if with_xwhiteouts and _is_xwhiteout(fd, name, entry):
            found.whiteouts.add(name)
            return
        fmt = stat.S_IFREG
    else:
        st = entry.stat(follow_symlinks=False)
        if is_whiteout(st):
            found.whiteouts.add(name)
            return
        fmt = stat.S_IFMT(st.st_mode)
    found.entries.append((name, fmt))


def _readable_names(target: xattr.Target) -> list[bytes]:
    """Return the names of all attributes of the directory, none where they are not readable."""
    try:
        return xattr.names(target)
    except PermissionError:
        return []


def _has_opaque_xattr(target: xattr.Target, present: list[bytes]) -> bool:
    return any(
        name in present and (xattr.get_or_none(target, name) or b"")[:1] == b"y"
        for name in names.OPAQUE_XATTRS
    )


def _has_xwhiteouts(target: xattr.Target, present: list[bytes]) -> bool:
    if any(name in present for name in names.XWHITEOUTS_XATTRS):
        return True
    return any(
        name in present and xattr.get_or_none(target, name) == b"x"
        for name in names.OPAQUE_XATTRS[:2]
    )


def _is_xwhiteout(fd: int, name: bytes, entry: os.DirEntry[str]) -> bool:
    if entry.stat(follow_symlinks=False).st_size:
        return False
    try:
        present = xattr.names(fd_path(fd, name))
    except OSError as err:
        if err.errno == errno.EACCES:
            return False
        raise
    return any(mark in present for mark in names.WHITEOUT_XATTRS)
