"""The changes that mend an upper. Times of directories stay as they are."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.workdir import remove_tree
from unionfuse.offline.findings import Mend
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def keep_times(directory: LayerDir) -> Iterator[int]:
    """Yield a descriptor of `directory`; put its times back after what is done meanwhile."""
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.fd())
    try:
        st = os.fstat(fd)
        try:
            yield fd
        finally:
            os.utime(fd, ns=(st.st_atime_ns, st.st_mtime_ns))
    finally:
        os.close(fd)


def removal(where: LayerDir, name: bytes, what: str) -> Mend:
    """Return the removal of a marker."""
    return Mend(f"remove {what}", partial(_unlink, where, name))


def tree_removal(where: LayerDir, name: bytes) -> Mend:
    """Return the removal of what lies in a workdir, with all that is in it."""
    return Mend("remove it", partial(_remove_tree, where, name))


def mark(where: LayerDir, name: bytes, attribute: bytes, value: bytes) -> Mend:
    """Return the setting of an attribute; no `name` is the directory itself."""
    text = f"set {os.fsdecode(attribute)} to {os.fsdecode(value)}"
    return Mend(text, partial(_set, where, name, attribute, value))


def unmark(where: LayerDir, name: bytes, attribute: bytes) -> Mend:
    """Return the removal of an attribute."""
    return Mend(f"remove {os.fsdecode(attribute)}", partial(_unset, where, name, attribute))


def unmark_opaque(directory: LayerDir, attributes: list[bytes], *, has_file: bool) -> Mend:
    """Return the removal of all that makes a directory opaque."""

    def run() -> None:
        for attribute in attributes:
            _unset(directory, b"", attribute)
        if has_file:
            _unlink(directory, names.OPAQUE_FILE)

    return Mend("remove the opaque mark", run)


def opaque_for_whiteout(where: LayerDir, name: bytes, own: bytes) -> Mend:
    """Return the replacement of `.wh.NAME`, beside directory NAME, by an opaque mark on that.

    First the mark, in the form of a file where there are no attributes: with both the directory is
    what it was.
    """

    def run() -> None:
        try:
            _set(where, name, own + names.OPAQUE, b"y")
        except OSError as err:
            if err.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            _make(LayerDir(where, name), names.OPAQUE_FILE)
        _unlink(where, names.WHITEOUT_PREFIX + name)

    return Mend("mark the directory opaque and remove the whiteout", run)


def _unlink(where: LayerDir, name: bytes) -> None:
    with keep_times(where) as fd:
        os.unlink(name, dir_fd=fd)


def _make(where: LayerDir, name: bytes) -> None:
    with keep_times(where) as fd:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0, dir_fd=fd))


def _remove_tree(where: LayerDir, name: bytes) -> None:
    remove_tree(where.fd(), name)


def _set(where: LayerDir, name: bytes, attribute: bytes, value: bytes) -> None:
    xattr.set_(fd_path(where.fd(), name), attribute, value)


def _unset(where: LayerDir, name: bytes, attribute: bytes) -> None:
    xattr.remove(fd_path(where.fd(), name), attribute)
