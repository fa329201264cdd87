"""What an upper adds, changes and deletes.

What is read is the upper alone, unless lowers are given. What came from below has an origin
there, or is a metacopy; a whiteout is only left where a lower has the name, so that a directory
with one in it came from below, whether it has an origin or not; in a directory that is new
everything is new. Where uppers keep no origins this takes a changed file for an added one.
Lowers make it exact: what they have at a place is changed or deleted, all else is added.
"""

from __future__ import annotations

import stat
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.redirect import Search, not_hidden
from unionfuse.layer.scan import find, marks_of, scan
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.layer.stack import LayerStack

ADDED: Literal["A"] = "A"
CHANGED: Literal["C"] = "C"
DELETED: Literal["D"] = "D"
Kind = Literal["A", "C", "D"]

_COPIED_UP = frozenset(
    prefix + mark
    for prefix in (names.TRUSTED, names.USER)
    for mark in (names.ORIGIN, names.METACOPY)
)
_PATH_ORIGIN = names.FUSE_OVERLAYFS + names.ORIGIN
_REDIRECTS = (names.TRUSTED + names.REDIRECT, names.USER + names.REDIRECT)


@dataclass(frozen=True, slots=True)
class Change:
    """One path of which an upper says something.

    Attributes:
        kind: A, added; C, changed, or a directory with changes in it; D, deleted.
        path: from the root of the union, without a slash before it.
        fmt: S_IFMT of what is there now; 0 if it was deleted.
        redirect: of a directory that was renamed: where its other content is in the lowers, a
            name or a path as `layer.redirect` has it.
    """

    kind: Kind
    path: bytes
    fmt: int
    redirect: bytes | None = None


@dataclass(slots=True)
class _Directory:
    """A directory of the upper on the way down.

    Attributes:
        lowers: what the lowers alone have at its place; None if they are not known.
        above: the directory above it; None for the root.
        is_new: whether it is not from below; None while nothing has told.
        names: what is still to be looked at, in order; those that are deleted have no type.
        replaced: names with a whiteout beside them, which says that they are from below.
        is_cut: whether it shows nothing of what the lowers have at its place: it is opaque, or is
            in a directory that is.
    """

    where: LayerDir
    path: bytes
    lowers: tuple[LayerDir, ...] | None
    above: _Directory | None
    is_new: bool | None
    names: Iterator[tuple[bytes, int]] = field(default_factory=lambda: iter(()))
    replaced: frozenset[bytes] = frozenset()
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    """A change of which it is not known yet whether its directory is new.

    Attributes:
        directory: the one that decides; of a directory, that itself.
        change: what it is if that came from below.
    """

    directory: _Directory
    change: Change


class UpperDiff:
    """One reading of an upper.

    Attributes:
        has_origins: whether anything that was read so far tells that it came from below. In an
            upper where nothing does, changed files can not be told from added ones.
    """

    def __init__(self, stack: LayerStack) -> None:
        """Read the upper of `stack`, and its lowers if there are any."""
        assert stack.upper is not None, "a diff is that of an upper"
        self._roots = not_hidden(None, stack.lowers)
        is_new = not self._roots and marks_of(stack.upper, names.TRUSTED).opaque
        root = _Directory(stack.upper, b"", self._roots or None, None, is_new)
        self._at: list[_Directory] = [root]
        self._pending: deque[_Pending] = deque()
        self.has_origins = False

    def changes(self) -> Iterator[Change]:
        """Yield what the upper says, parents first, the names of a directory in order.

        The root itself is not told. No more is held back than the largest directory without an
        origin of which only its end can tell whether it is new.

        Raises:
            OSError: what is met in reading the layers.
        """
        self._enter(self._at[0])
        while self._at:
            directory = self._at[-1]
            name, fmt = next(directory.names, (b"", 0))
            if name:
                self._look(directory, name, fmt)
            else:
                if directory.is_new is None:  # nothing in it came from below
                    directory.is_new = True
                self._at.pop()
            yield from self._told()

    def _told(self) -> Iterator[Change]:
        """Yield what is known for sure by now."""
        pending = self._pending
        while pending and pending[0].directory.is_new is not None:
            first = pending.popleft()
            change = first.change
            if first.directory.is_new and change.kind != DELETED:
                change = Change(ADDED, change.path, change.fmt, change.redirect)
            yield change

    def _tell(self, directory: _Directory, change: Change) -> None:
        self._pending.append(_Pending(directory, change))

    def _enter(self, directory: _Directory) -> None:
        """Read the names in a directory, and those that it hides."""
        found = scan(directory.where)
        entries = dict(found.entries)
        hidden = found.whiteouts - entries.keys()
        if directory.lowers is not None:
            directory.is_cut |= found.opaque
            if directory.is_cut:
                hidden = _names_in(directory.lowers) - entries.keys()
            else:
                hidden = {name for name in hidden if _is_below(directory.lowers, name)}
        elif found.opaque or directory.is_new:
            hidden = set()
        elif found.whiteouts:
            _came_from_below(directory)
            directory.replaced = frozenset(found.whiteouts & entries.keys())
        directory.names = iter(sorted({**entries, **dict.fromkeys(hidden, 0)}.items()))

    def _look(self, directory: _Directory, name: bytes, fmt: int) -> None:
        path = directory.path + b"/" + name if directory.path else name
        if not fmt:
            self._tell(directory, Change(DELETED, path, 0))
        elif fmt == stat.S_IFDIR:
            self._descend(directory, name, path)
        else:
            kind = CHANGED if self._is_from_below(directory, name, path) else ADDED
            self._tell(directory, Change(kind, path, fmt))

    def _is_from_below(self, directory: _Directory, name: bytes, path: bytes) -> bool:
        if directory.lowers is not None:
            return _is_below(directory.lowers, name)
        if directory.is_new:
            return False
        return name in directory.replaced or self._was_copied_up(directory.where, name, path)

    def _descend(self, directory: _Directory, name: bytes, path: bytes) -> None:
        where = LayerDir(directory.where, name)
        target = fd_path(where.fd())
        redirect = _redirect_of(target, xattr.names(target))
        below = _Directory(where, path, None, directory, is_new=True)
        if directory.lowers is not None:
            below.lowers = self._lowers(directory.lowers, name)
            below.is_cut = directory.is_cut and redirect is None
            below.is_new = not _is_below(directory.lowers, name)
        elif not (directory.is_new or redirect is not None or name in directory.replaced):
            below.is_new = self._is_new(where, directory, name, path)
        # With a whiteout beside it, it is another directory than that below, in its place.
        teller = directory if name in directory.replaced else below
        self._tell(teller, Change(CHANGED, path, stat.S_IFDIR, redirect))
        self._enter(below)
        self._at.append(below)

    def _is_new(self, where: LayerDir, parent: _Directory, name: bytes, path: bytes) -> bool | None:
        if marks_of(where, names.TRUSTED).opaque:
            return True
        if self._was_copied_up(parent.where, name, path):
            _came_from_below(parent)
            return False
        return None

    def _was_copied_up(self, where: LayerDir, name: bytes, path: bytes) -> bool:
        target = fd_path(where.fd(), name)
        present = xattr.names(target)
        if any(mark in _COPIED_UP for mark in present):
            self.has_origins = True
            # A metacopy with several names has a redirect at its own place too.
            redirect = _redirect_of(target, present)
            return redirect in (None, name, b"/" + path)
        if _PATH_ORIGIN in present:  # fuse-overlayfs tells the path in the lower itself
            self.has_origins = True
            origin = xattr.get_or_none(target, _PATH_ORIGIN) or b""
            return origin.rstrip(b"\0").removeprefix(b"./") == path
        return False

    def _lowers(self, bases: tuple[LayerDir, ...], name: bytes) -> tuple[LayerDir, ...]:
        if not bases:
            return ()
        search = Search(self._roots, bases, name, names.TRUSTED)
        return tuple(LayerDir(*place) for place in search.run(None))


def _came_from_below(directory: _Directory) -> None:
    """Settle that a directory, and so each above it, is not new."""
    at: _Directory | None = directory
    while at is not None and at.is_new is None:
        at.is_new = False
        at = at.above


def _redirect_of(target: xattr.Target, present: list[bytes]) -> bytes | None:
    for name in _REDIRECTS:
        if name in present:
            return xattr.get_or_none(target, name)
    return None


def _is_below(bases: tuple[LayerDir, ...], name: bytes) -> bool:
    """Tell whether the lowers alone show `name` in the directory `bases` of theirs."""
    for base in bases:
        st, hides = find(base, name)
        if st is not None:
            return True
        if hides:
            return False
    return False


def _names_in(bases: tuple[LayerDir, ...]) -> set[bytes]:
    """Return the names that the lowers alone show in the directory `bases` of theirs."""
    shown: set[bytes] = set()
    hidden: set[bytes] = set()
    for base in bases:
        found = scan(base)
        shown.update(name for name, _ in found.entries if name not in hidden)
        hidden |= found.whiteouts
    return shown
