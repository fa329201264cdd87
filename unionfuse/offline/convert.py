"""Write the markers of an upper in another form.

Each marker is made in its new form before it goes in the old one, or is replaced by one rename: at
every moment the upper says the same to whoever reads all forms, and what was interrupted is gone on
with by doing it again. Times of directories stay as they are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import marks_of
from unionfuse.layer.stack import UPPER
from unionfuse.offline.entries import (
    Entry,
    entries_of,
    has_xattr_whiteouts,
    marks_on,
    namespace_of,
)
from unionfuse.offline.errors import OfflineError
from unionfuse.offline.forms import JOURNALS
from unionfuse.offline.holders import held
from unionfuse.offline.layers import opened, workdir_of
from unionfuse.offline.mending import keep_times
from unionfuse.offline.obstacles import TEMPORARY, obstacles
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.syncfs import syncfs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.offline.forms import Form

_WHITEOUT_MODE = stat.S_IFCHR
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OF_DIRECTORIES = frozenset({names.OPAQUE, names.WHITEOUTS})
# What only tells where an object came from; without it the tree is the same.
_NOT_ON_ALL = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EACCES})


def convert(upper: bytes, form: Form, workdir: bytes | None = None) -> list[str]:
    """Write `upper` in `form`; return what stands in the way, and then nothing is changed.

    Args:
        upper: path of the upper.
        form: how it is to be written.
        workdir: path of its workdir; None for the default one, which need not be there.

    Raises:
        OfflineError: if it can not be opened, or is in use.
        OSError: what is met in doing it; it can be done again.
    """
    path = workdir_of(upper) if workdir is None else workdir
    if workdir is not None and not os.path.isdir(workdir):
        raise OfflineError(f"workdir {os.fsdecode(workdir)}: no such directory")
    with contextlib.ExitStack() as stack:
        layers = stack.enter_context(opened(upper, []))
        stack.enter_context(held(upper, path))
        assert layers.upper is not None, "it was asked for"
        root = layers.upper
        index = _open_index(stack, path, root)
        own = _begun(root, form) or namespace_of(root)
        found = [
            f"/{os.fsdecode(where)}: {cause}" for where, cause in obstacles(root, form, own, index)
        ]
        if not found:
            _Conversion(form, own).run(root, index)
        return found


def _open_index(stack: contextlib.ExitStack, workdir: bytes, upper: LayerDir) -> LayerDir | None:
    path = os.path.join(workdir, b"index")
    if not os.path.isdir(path):
        return None
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return LayerDir.root(UPPER, fd, upper.fds)


def _begun(root: LayerDir, form: Form) -> bytes | None:
    """Return in which namespace the upper was when its conversion was begun, if it was.

    What a user may have set himself does not count where it matters.
    """
    for journal in JOURNALS:
        is_safe = journal.startswith(names.TRUSTED) or form.prefix != names.TRUSTED
        own = xattr.get_or_none(fd_path(root.fd()), journal) if is_safe else None
        if own in (names.TRUSTED, names.USER):
            return own
    return None


def _is_pure(directory: LayerDir, is_below_pure: bool) -> bool:
    """Tell whether it is certain that nothing below is merged with a directory."""
    marks = [marks_of(directory, own) for own in (names.TRUSTED, names.USER)]
    if any(mark.opaque for mark in marks):
        return True
    return is_below_pure and not any(mark.redirect is not None for mark in marks)


class _Conversion:
    def __init__(self, form: Form, own: bytes) -> None:
        self._form = form
        self._own = own

    def run(self, root: LayerDir, index: LayerDir | None) -> None:
        journal = self._form.journal
        if journal is not None:
            xattr.set_(fd_path(root.fd()), journal, self._own)
        self._attributes(fd_path(root.fd()), marks_on(fd_path(root.fd())))
        for entry in entries_of(index) if index is not None else ():
            self._attributes(fd_path(entry.where.fd(), entry.name), entry.marks)
        pending = [(root, False)]
        while pending:
            directory, is_pure = pending.pop()
            is_pure = _is_pure(directory, is_pure)
            names_below = self._directory(directory, is_pure=is_pure)
            pending += [(LayerDir(directory, name), is_pure) for name in names_below]
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root.fd())
        try:
            syncfs(fd)
        finally:
            os.close(fd)
        for name in JOURNALS:
            if name in marks_on(fd_path(root.fd())):
                xattr.remove(fd_path(root.fd()), name)

    def _directory(self, directory: LayerDir, *, is_pure: bool) -> list[bytes]:
        """Convert what is in one directory; return the names of those in it.

        In one with which nothing below is merged whiteouts say nothing. overlayfs would list the
        devices there, so they go.
        """
        entries = {entry.name: entry for entry in entries_of(directory)}
        with keep_times(directory) as fd:
            if entries.pop(TEMPORARY, None) is not None:
                os.unlink(TEMPORARY, dir_fd=fd)
            marks = marks_on(fd)
            with_marks = has_xattr_whiteouts(marks)
            whiteouts = {
                name
                for name, entry in entries.items()
                if entry.is_char_whiteout or (entry.has_whiteout_mark and with_marks)
            }
            for name, entry in entries.items():
                is_whiteout = name in whiteouts or entry.hides is not None
                if is_pure and is_whiteout and entry.hides not in entries:
                    os.unlink(name, dir_fd=fd)
                elif entry.hides is not None:
                    self._whiteout_file(fd, entry, entries.get(entry.hides), whiteouts)
                elif name.startswith(names.WHITEOUT_PREFIX):
                    continue  # aufs' own
                elif name in whiteouts:
                    self._whiteout(fd, entry)
                else:
                    self._attributes(fd_path(fd, name), entry.marks)
            self._opaque(fd, has_file=names.OPAQUE_FILE in entries)
        return [
            name
            for name, entry in entries.items()
            if entry.is_dir and not name.startswith(names.WHITEOUT_PREFIX)
        ]

    # Whiteouts

    def _whiteout_file(
        self, fd: int, entry: Entry, other: Entry | None, whiteouts: set[bytes]
    ) -> None:
        """Convert `.wh.NAME`, beside which is `other`, a whiteout too or what is shown."""
        hidden = entry.hides
        assert hidden is not None, "the caller has looked"
        if not self._form.char_whiteouts and (other is None or hidden in whiteouts):
            return
        if other is None:
            os.mknod(hidden, _WHITEOUT_MODE, 0, dir_fd=fd)
        elif other.is_dir:
            self._make_opaque(fd, hidden)
        os.unlink(entry.name, dir_fd=fd)

    def _whiteout(self, fd: int, entry: Entry) -> None:
        if not self._form.char_whiteouts:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(names.WHITEOUT_PREFIX + entry.name, _CREATE, 0, dir_fd=fd))
            os.unlink(entry.name, dir_fd=fd)
        elif not entry.is_char_whiteout:
            os.mknod(TEMPORARY, _WHITEOUT_MODE, 0, dir_fd=fd)
            os.rename(TEMPORARY, entry.name, src_dir_fd=fd, dst_dir_fd=fd)

    # Opaque directories

    def _make_opaque(self, fd: int, name: bytes) -> None:
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        try:
            st = os.fstat(below)
            self._say_opaque(below)
            os.utime(below, ns=(st.st_atime_ns, st.st_mtime_ns))
        finally:
            os.close(below)

    def _say_opaque(self, fd: int) -> None:
        if self._form.prefix is not None:
            xattr.set_(fd, self._form.prefix + names.OPAQUE, b"y")
            return
        with contextlib.suppress(FileExistsError):
            os.close(os.open(names.OPAQUE_FILE, _CREATE, 0, dir_fd=fd))

    def _opaque(self, fd: int, *, has_file: bool) -> None:
        """Say in one form alone whether a directory is opaque; it has no xattr whiteouts now."""
        marks = marks_on(fd)
        prefix = self._form.prefix
        is_opaque = has_file or any(
            (marks.get(name) or b"")[:1] == b"y" for name in names.OPAQUE_XATTRS
        )
        if is_opaque:
            self._say_opaque(fd)
        kept = prefix + names.OPAQUE if prefix is not None and is_opaque else None
        for name in (*names.OPAQUE_XATTRS, *names.XWHITEOUTS_XATTRS):
            if name in marks and name != kept:
                xattr.remove(fd, name)
        if has_file and prefix is not None:
            os.unlink(names.OPAQUE_FILE, dir_fd=fd)

    # Other attributes

    def _attributes(self, target: xattr.Target, marks: dict[bytes, bytes | None]) -> None:
        """Give the attributes of one object their new names, those that others depend on first."""
        moves = sorted(self._moves(marks), key=lambda move: move[0].endswith(names.METACOPY))
        for old, new in moves:
            if new is not None and new not in marks:
                self._copy(target, old, new, marks[old] or b"")
        for old, _ in reversed(moves):
            xattr.remove(target, old)

    def _moves(self, marks: dict[bytes, bytes | None]) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the old name and the new one, None for what has no place in the form."""
        prefix = self._form.prefix
        for name in marks:
            found = names.marker(name)
            if name in JOURNALS or (found is not None and found[1] in _OF_DIRECTORIES):
                continue
            if name == names.FUSE_OVERLAYFS + names.ORIGIN:
                if prefix is not None:  # overlayfs would show it
                    yield name, None
            elif found is None:
                new = None if name in names.OPAQUE_XATTRS else self._form.stored(name, self._own)
                if new not in (None, name):
                    yield name, new
            elif found[0] != prefix and found[1] != names.WHITEOUT:
                # What a user has set himself, beside the upper's own, is not made the upper's own.
                is_own = prefix is not None and found[0] == self._own
                yield name, prefix + found[1] if prefix is not None and is_own else None

    def _copy(self, target: xattr.Target, old: bytes, new: bytes, value: bytes) -> None:
        try:
            xattr.set_(target, new, value)
        except OSError as err:  # user.* is for files and directories
            if err.errno not in _NOT_ON_ALL or names.marker(old) is None:
                raise
