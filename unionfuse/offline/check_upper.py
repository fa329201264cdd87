"""Check the tree of an upper: each marker in it has something to say, and says it validly.

The rules are those of overlayfs.rst and fs/overlayfs/namei.c, for the forms that are read here.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.layer import handle, names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.redirect import Search, has_possible_names, is_valid, not_hidden
from unionfuse.layer.scan import find, marks_of
from unionfuse.offline import mending
from unionfuse.offline.entries import Entry, entries_of, has_xattr_whiteouts, marks_on
from unionfuse.offline.findings import Finding, Kind, Mend
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from unionfuse.layer.redirect import Place
    from unionfuse.layer.stack import LayerStack
    from unionfuse.offline.origins import Origins

_METACOPY_MIN = 4  # u8 version, len, flags, digest_algo, digest[] (struct ovl_metacopy)
_UNKNOWN = None
_NO_NAMES = frozenset({b"", b".", b".."})


@dataclass(frozen=True, slots=True)
class _At:
    """A directory of the upper.

    Attributes:
        where, path: the directory, and its path from the root of the upper.
        lowers: the directories that are merged below it; None if that is not known.
        is_pure: whether it is certain that nothing is, since it is opaque, or one above it is.
    """

    where: LayerDir
    path: bytes
    lowers: tuple[LayerDir, ...] | None
    is_pure: bool

    def path_of(self, name: bytes) -> bytes:
        """Return the path of a name in it."""
        return self.path + b"/" + name if self.path else name

    def shows_below(self, name: bytes) -> bool | None:
        """Tell whether what is merged below it has `name`; None if that is not known."""
        if self.is_pure:
            return False
        if self.lowers is None:
            return None
        for lower in self.lowers:
            st, hides = find(lower, name)
            if st is not None or hides:
                return st is not None
        return False


class UpperCheck:
    """One reading of an upper."""

    def __init__(self, stack: LayerStack, own: bytes, origins: Origins | None) -> None:
        """Check the upper of `stack`, written in the namespace `own`.

        What only the lowers can tell is checked if there are `origins`, which are theirs.
        """
        assert stack.upper is not None, "there is an upper to check"
        self._own = own
        self._origins = origins
        self._knows = origins is not None
        self._roots = not_hidden(stack.upper, stack.lowers)
        is_opaque = marks_of(stack.upper, own).opaque
        lowers = self._roots if self._knows else _UNKNOWN
        self._pending = [_At(stack.upper, b"", lowers, is_opaque)]
        self._merged: dict[tuple[int, int, int], tuple[bytes, bool]] = {}

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong, directory by directory; a mend may be made at once.

        Raises:
            OSError: what is met in reading the layers.
        """
        root = self._pending[0]
        marks = marks_on(fd_path(root.where.fd()))
        yield from self._origin(Entry(root.where, b"", os.fstat(root.where.fd()), marks), b"")
        while self._pending:
            at = self._pending.pop()
            entries = {entry.name: entry for entry in entries_of(at.where)}
            marks = marks_on(fd_path(at.where.fd()))
            yield from self._impure(at, marks, entries)
            below: list[_At] = []
            for entry in entries.values():
                yield from self._entry(at, entry, entries, marks, below)
            self._pending += reversed(below)

    def _entry(
        self,
        at: _At,
        entry: Entry,
        entries: dict[bytes, Entry],
        marks: dict[bytes, bytes | None],
        below: list[_At],
    ) -> Iterator[Finding]:
        path = at.path_of(entry.name)
        if entry.name.startswith(names.WHITEOUT_PREFIX):
            if entry.hides is not None:
                yield from self._whiteout_file(at, entry, entries)
            return
        yield from self._namespaces(entry, path)
        if entry.is_char_whiteout or entry.has_whiteout_mark:
            if entry.is_char_whiteout or has_xattr_whiteouts(marks):
                yield from self._whiteout(at, entry, entry.name)
            else:
                detail = "a whiteout where the directory does not say that it has such ones"
                yield Finding("upper", path, Kind.WHITEOUT_UNMARKED, detail)
            return
        yield from self._origin(entry, path)
        if entry.is_dir:
            yield from self._directory(at, entry, entries, below)
        elif stat.S_ISREG(entry.st.st_mode) and self._own + names.METACOPY in entry.marks:
            yield from self._metacopy(at, entry)

    # Whiteouts

    def _whiteout_file(
        self, at: _At, entry: Entry, entries: dict[bytes, Entry]
    ) -> Iterator[Finding]:
        hidden = entry.hides
        assert hidden is not None, "the caller has looked"
        path = at.path_of(entry.name)
        if entry.name == names.FUSE_OVERLAYFS_DEVICE and entry.is_char_whiteout and at.is_pure:
            return
        is_whiteout = entry.is_empty_file or entry.is_char_whiteout
        if not is_whiteout or hidden in _NO_NAMES:
            detail = f"a {entry.what} that is taken for a whiteout, and never shown"
            yield Finding("upper", path, Kind.RESERVED_NAME, detail)
        elif hidden in entries:
            detail = f"{os.fsdecode(hidden)} is there too, and shown"
            mend = self._mend_beside(at, entry, entries[hidden])
            yield Finding("upper", path, Kind.WHITEOUT_BESIDE_NAME, detail, mend)
        else:
            yield from self._whiteout(at, entry, hidden)

    def _mend_beside(self, at: _At, whiteout: Entry, other: Entry) -> Mend:
        if (
            other.is_dir
            and at.shows_below(other.name) is not False
            and not marks_of(LayerDir(at.where, other.name), self._own).opaque
        ):
            return mending.opaque_for_whiteout(at.where, other.name, self._own)
        return mending.removal(at.where, whiteout.name, "the whiteout")

    def _whiteout(self, at: _At, entry: Entry, hidden: bytes) -> Iterator[Finding]:
        mend = mending.removal(at.where, entry.name, "the whiteout")
        path = at.path_of(entry.name)
        if at.is_pure:
            detail = "in a directory that hides all of what is below"
            yield Finding("upper", path, Kind.WHITEOUT_IN_OPAQUE, detail, mend)
        elif at.shows_below(hidden) is False:
            detail = f"no lower has {os.fsdecode(hidden)} there"
            yield Finding("upper", path, Kind.WHITEOUT_OVER_NOTHING, detail, mend)

    # Directories

    def _directory(
        self, at: _At, entry: Entry, entries: dict[bytes, Entry], below: list[_At]
    ) -> Iterator[Finding]:
        where, path = LayerDir(at.where, entry.name), at.path_of(entry.name)
        marks = marks_of(where, self._own)
        is_closed = marks.opaque or names.WHITEOUT_PREFIX + entry.name in entries
        redirect = None if is_closed else marks.redirect
        is_pure = is_closed or (redirect is None and at.is_pure)
        lowers: tuple[LayerDir, ...] | None = ()
        if redirect is not None:
            broken = list(self._is_broken(path, redirect))
            if broken:
                yield from broken
                below.append(_At(where, path, _UNKNOWN, is_pure))
                return
        if not is_pure:
            found = yield from self._search(at, entry, redirect, is_dir=True)
            lowers = None if found is None else tuple(LayerDir(*place) for place in found[0])
            if lowers == () and redirect is not None:
                detail = f"no lower has a directory {os.fsdecode(redirect)}"
                yield Finding("upper", path, Kind.REDIRECT_NOWHERE, detail)
            yield from self._duplicate(path, lowers, redirect)
        elif marks.opaque:
            yield from self._superfluous(at, where, path, entry)
        below.append(_At(where, path, lowers if self._knows else _UNKNOWN, is_pure))

    def _superfluous(
        self, at: _At, where: LayerDir, path: bytes, entry: Entry
    ) -> Iterator[Finding]:
        """Find an opaque mark that hides nothing, as overlayfs sets it on each new directory."""
        if at.shows_below(entry.name) is not False:
            return
        attributes = [
            name for name in names.OPAQUE_XATTRS if (entry.marks.get(name) or b"")[:1] == b"y"
        ]
        has_file = any(found.name == names.OPAQUE_FILE for found in entries_of(where))
        mend = mending.unmark_opaque(where, attributes, has_file=has_file)
        if at.is_pure:
            detail = "opaque in a directory that hides all of what is below"
            yield Finding("upper", path, Kind.OPAQUE_IN_OPAQUE, detail, mend)
        else:
            detail = "opaque where no lower has anything"
            yield Finding("upper", path, Kind.OPAQUE_OVER_NOTHING, detail, mend)

    def _duplicate(
        self, path: bytes, lowers: tuple[LayerDir, ...] | None, redirect: bytes | None
    ) -> Iterator[Finding]:
        if not lowers:
            return
        st = os.fstat(lowers[0].fd())
        key = lowers[0].layer, st.st_dev, st.st_ino
        other, has_redirect = self._merged.setdefault(key, (path, redirect is not None))
        if other != path and (has_redirect or redirect is not None):
            detail = f"merged with the same directory of a lower as /{os.fsdecode(other)}"
            yield Finding("upper", path, Kind.REDIRECT_DUPLICATE, detail)

    def _impure(
        self, at: _At, marks: dict[bytes, bytes | None], entries: dict[bytes, Entry]
    ) -> Iterator[Finding]:
        if any(name in marks for name in names.IMPURE_XATTRS):
            return
        origin = self._own + names.ORIGIN
        if any(entry.marks.get(origin) for entry in entries.values()):
            detail = "objects with an origin are in it, and it is not marked so"
            mend = mending.mark(at.where, b"", self._own + names.IMPURE, b"y")
            yield Finding("upper", at.path, Kind.IMPURE_MISSING, detail, mend)

    # What is in the lowers

    def _search(
        self, at: _At, entry: Entry, redirect: bytes | None, *, is_dir: bool
    ) -> Generator[Finding, None, tuple[list[Place], bool] | None]:
        """Return what the lowers have for `entry`, and whether data is still wanted.

        None where that is not known.
        """
        if not self._knows or at.lowers is None:
            return None
        bases = () if at.is_pure else at.lowers
        search = Search(self._roots, bases, entry.name, self._own, is_dir=is_dir)
        try:
            return search.run(redirect), search.wants_data
        except OSError as err:
            if err.errno != errno.EIO:
                raise
        detail = "a redirect in a lower on its way is broken"
        yield Finding("upper", at.path_of(entry.name), Kind.REDIRECT_MALFORMED, detail)
        return None

    def _is_broken(self, path: bytes, redirect: bytes) -> Iterator[Finding]:
        if is_valid(redirect) and has_possible_names(redirect):
            return
        detail = f"leads nowhere by its very form: {os.fsdecode(redirect)}"
        yield Finding("upper", path, Kind.REDIRECT_MALFORMED, detail)

    def _metacopy(self, at: _At, entry: Entry) -> Iterator[Finding]:
        path = at.path_of(entry.name)
        value = entry.marks[self._own + names.METACOPY]
        if value and not _is_metacopy(value):
            detail = f"no metacopy that overlayfs knows: {value.hex()}"
            yield Finding("upper", path, Kind.METACOPY_MALFORMED, detail)
            return
        redirect = entry.marks.get(self._own + names.REDIRECT)
        if redirect is not None:
            broken = list(self._is_broken(path, redirect))
            if broken:
                yield from broken
                return
        found = yield from self._search(at, entry, redirect, is_dir=False)
        is_lost = at.is_pure and not (redirect or b"").startswith(b"/")
        if found is not None:
            places, wants_data = found
            is_lost = not places or wants_data
            if not is_lost:
                yield from self._size(path, entry, places[-1])
        if is_lost:
            detail = "its data is nowhere below: it is lost, or another lower is missing"
            yield Finding("upper", path, Kind.METACOPY_WITHOUT_DATA, detail)

    def _size(self, path: bytes, entry: Entry, data: Place) -> Iterator[Finding]:
        where, name = data
        size = os.stat(name, dir_fd=where.fd(), follow_symlinks=False).st_size
        if size != entry.st.st_size:
            detail = f"{entry.st.st_size} bytes, and its data in the lower has {size}"
            yield Finding("upper", path, Kind.METACOPY_SIZE, detail)

    def _origin(self, entry: Entry, path: bytes) -> Iterator[Finding]:
        attribute = self._own + names.ORIGIN
        value = entry.marks.get(attribute)
        if value and handle.is_malformed(value):
            mend = mending.unmark(entry.where, entry.name, attribute)
            detail = f"no file handle: {value.hex()}"
            yield Finding("upper", path, Kind.ORIGIN_MALFORMED, detail, mend)
        elif value and self._origins is not None and self._origins.is_stale(value):
            detail = "what it was copied from is in no lower any more"
            yield Finding("upper", path, Kind.ORIGIN_STALE, detail)
        source = (entry.marks.get(names.FUSE_OVERLAYFS + names.ORIGIN) or b"").rstrip(b"\0")
        source = source.removeprefix(b"./").lstrip(b"/")
        if source and self._origins is not None and not self._origins.has_path(source):
            detail = f"no lower has {os.fsdecode(source)}, from which it was copied"
            yield Finding("upper", path, Kind.ORIGIN_STALE, detail)

    def _namespaces(self, entry: Entry, path: bytes) -> Iterator[Finding]:
        found = ((name, names.marker(name)) for name in entry.marks)
        others = [os.fsdecode(name) for name, marker in found if marker and marker[0] != self._own]
        if others:
            detail = f"{', '.join(others)} beside {os.fsdecode(self._own)}* elsewhere"
            yield Finding("upper", path, Kind.MIXED_NAMESPACES, detail)


def _is_metacopy(value: bytes) -> bool:
    """Tell whether overlayfs takes `value` for a metacopy (ovl_check_metacopy_xattr)."""
    return len(value) >= _METACOPY_MIN and value[:3] == bytes([0, len(value), 0])
