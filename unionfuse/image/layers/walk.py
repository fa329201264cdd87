"""What of an upper, or of a whole stack, goes into a layer tar, in the order of the tar.

At each directory there are two views: what the stack shows there, and what the lowers alone have
at that path, which is what the new layer will lie on. Where the first is the second under the
upper, the upper alone is read. Below a directory that is opaque or was renamed they are different:
then all that is shown is told, and explicit whiteouts hide the rest (layer.md prefers them).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unionfuse.image.errors import Malformed, Refused
from unionfuse.image.layers.paths import join
from unionfuse.image.layers.reader import shown
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.redirect import Search, not_hidden
from unionfuse.layer.scan import (
    Scan,
    file_marks,
    find,
    is_opaque,
    marks_of,
    open_for_listing,
    scan,
)
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.layer.stack import LayerStack

Roots = tuple[LayerDir, ...]

WHITEOUT = -1
OPAQUE = -2


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the tar to be.

    Attributes:
        path: from the root.
        kind: S_IFMT on disk, WHITEOUT, or OPAQUE for a directory that was told before.
        where, name: the directory that has it and its name there; None for a marker.
        data: where a metacopy has its data.
    """

    path: bytes
    kind: int
    where: LayerDir | None = None
    name: bytes = b""
    data: tuple[LayerDir, bytes] | None = None


@dataclass(slots=True)
class _Place:
    """A directory on the way down.

    Attributes:
        upper: its part in the upper; None if it has none.
        merged: those of the lowers that show in it, topmost first.
        base: what the lowers alone have at its path; None if the lowers are not known.
        is_moved: whether `merged` is not `base`.
        is_told: whether a mark above it says already that nothing of the lowers shows.
    """

    path: bytes
    upper: LayerDir | None
    merged: Roots
    base: Roots | None
    is_moved: bool
    is_told: bool = False
    items: Iterator[Item] = field(default_factory=lambda: iter(()))
    replaced: set[bytes] = field(default_factory=set)


class Walk:
    """One way through a stack.

    With `is_whole` all that the stack shows is told, as a layer that lies on nothing.
    """

    def __init__(self, stack: LayerStack, own: bytes, *, is_whole: bool = False) -> None:
        """Walk through `stack`; `own` is the namespace in which redirects and metacopies count."""
        self._own = own
        self._roots = not_hidden(stack.upper, stack.lowers)
        below = not_hidden(None, stack.lowers)
        base = () if is_whole else below or None
        is_closed = stack.upper is not None and is_opaque(stack.upper)
        self._top = _Place(b"", stack.upper, self._roots, base, is_whole or is_closed)
        self._base_roots = below

    def items(self) -> Iterator[Item]:
        """Yield what the tar has, without the root: parents first, markers before all else.

        Raises:
            Refused: if the lowers are needed to know it, and are not given.
            OSError: of reading.
        """
        at = [self._top]
        self._top.items = iter(self._list(self._top))
        while at:
            place = at[-1]
            item = next(place.items, None)
            if item is None:
                at.pop()
            elif item.kind == stat.S_IFDIR:
                yield item
                below = self._descend(place, item)
                below.items = iter(self._list(below))
                at.append(below)
            elif item.kind == stat.S_IFREG:
                yield self._with_data(place, item)
            else:
                yield item

    def _list(self, place: _Place) -> list[Item]:
        found = scan(place.upper) if place.upper is not None else Scan()
        shown_in = {name: (place.upper, fmt) for name, fmt in found.entries}
        place.replaced = found.whiteouts & shown_in.keys()
        hidden = found.whiteouts - shown_in.keys()
        # No tar can hold a socket, and without it what it hides would be shown again.
        hidden |= {name for name, fmt in found.entries if fmt == stat.S_IFSOCK}
        items: list[Item] = []
        place.is_moved = place.is_moved or found.opaque
        if place.is_moved:
            if not found.opaque:
                _add_lowers(shown_in, place.merged, set(found.whiteouts))
            if place.base is None:
                hidden = set()
                if not place.is_told:
                    items.append(Item(place.path, OPAQUE))
            else:
                kept = {name for name, (_, fmt) in shown_in.items() if fmt != stat.S_IFSOCK}
                hidden = _names_in(place.base) - kept
        elif place.base is not None:
            hidden = {name for name in hidden if _is_below(place.base, name)}
        items += [Item(join(place.path, name), WHITEOUT) for name in sorted(hidden)]
        items += [
            Item(join(place.path, name), fmt, where, name)
            for name, (where, fmt) in sorted(shown_in.items(), key=lambda item: item[0])
        ]
        return items

    def _descend(self, place: _Place, item: Item) -> _Place:
        assert item.where is not None, "only markers have no place"
        where, name = LayerDir(item.where, item.name), item.name
        base = None if place.base is None else self._search(self._base_roots, place.base, name)
        below = _Place(item.path, None, (), base, is_moved=True, is_told=place.is_moved)
        if item.where is not place.upper:
            below.merged = self._search(self._roots, place.merged, name)
            return below
        below.upper = where
        marks = marks_of(where, self._own)
        if marks.opaque or name in place.replaced:
            return below
        if marks.redirect is not None:
            if not self._roots:
                raise Refused(f"{shown(item.path)} was renamed: the layers below are needed")
            below.merged = self._search(self._roots, place.merged, name, marks.redirect)
            return below
        below.is_moved = place.is_moved
        if not place.is_moved and base is not None:
            below.merged = base
        else:
            below.merged = self._search(self._roots, place.merged, name)
        return below

    def _search(
        self, roots: Roots, bases: Roots, name: bytes, redirect: bytes | None = None
    ) -> Roots:
        if not roots or not (bases or redirect):
            return ()
        search = Search(roots, bases, name, self._own)
        return tuple(LayerDir(*found) for found in search.run(redirect))

    def _with_data(self, place: _Place, item: Item) -> Item:
        """Add to a metacopy where its data is."""
        assert item.where is not None, "only markers have no place"
        marks = file_marks(fd_path(item.where.fd(), item.name), self._own)
        if not marks.metacopy:
            return item
        if not self._roots:
            raise Refused(f"{shown(item.path)} has its data in the layers below: they are needed")
        search = Search(
            self._roots, place.merged, item.name, self._own, item.where.layer,
            is_dir=False, wants_data=True,
        )  # fmt: skip
        found = search.run(marks.redirect)
        if not found or search.wants_data:
            raise Malformed(f"{shown(item.path)} has its data in no layer")
        return Item(item.path, item.kind, item.where, item.name, found[-1])


def _add_lowers(
    shown_in: dict[bytes, tuple[LayerDir | None, int]], lowers: Roots, hidden: set[bytes]
) -> None:
    """Add what `lowers` show beside what is shown already."""
    for lower in lowers:
        found = scan(lower)
        for name, fmt in found.entries:
            if name not in hidden:
                shown_in.setdefault(name, (lower, fmt))
        hidden |= found.whiteouts


def _names_in(bases: Roots) -> set[bytes]:
    """Return the names that the lowers alone show in the directory `bases` of theirs."""
    shown_in: dict[bytes, tuple[LayerDir | None, int]] = {}
    _add_lowers(shown_in, bases, set())
    return set(shown_in)


def _is_below(bases: Roots, name: bytes) -> bool:
    for base in bases:
        st, hides = find(base, name)
        if st is not None:
            return True
        if hides:
            return False
    return False


def plain_items(root: LayerDir) -> Iterator[Item]:
    """Yield what is in a tree that is no layer, so that nothing in it is a marker."""
    at = [iter(_plain_list(root, b""))]
    while at:
        item = next(at[-1], None)
        if item is None:
            at.pop()
            continue
        yield item
        if item.kind == stat.S_IFDIR:
            assert item.where is not None, "there are no markers"
            at.append(iter(_plain_list(LayerDir(item.where, item.name), item.path)))


def _plain_list(where: LayerDir, path: bytes) -> list[Item]:
    fd = open_for_listing(where)
    try:
        found = []
        for text in sorted(os.fsencode(name) for name in os.listdir(fd)):
            fmt = stat.S_IFMT(os.stat(text, dir_fd=fd, follow_symlinks=False).st_mode)
            found.append(Item(join(path, text), fmt, where, text))
        return found
    finally:
        os.close(fd)
