"""The merged names of one directory, with offsets that stay good while names come and go.

Twin of fs/overlayfs/readdir.c. Each name has a cookie that grows with every insertion, so an
offset is a cookie and not an index: removing a name moves no other.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from typing import TYPE_CHECKING

from unionfuse.layer.scan import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.layer.directory import LayerDir


class Dirent:
    """One name of a merged directory.

    Attributes:
        name: the name.
        cookie: its offset, > 0, unique and growing in its listing; 0 after its removal.
        fmt: S_IFMT of the topmost object of that name.
        in_upper: whether that object is in the upper.
        covers: whether a lower has the name, so that removing it takes a whiteout.
        lowers: positions in the parent's `lowers` that make up the object below the upper:
            for a directory all that are merged, unless an opaque one ends them; for
            anything else the topmost, if it is not in the upper.
    """

    __slots__ = ("cookie", "covers", "fmt", "in_upper", "lowers", "name")

    def __init__(
        self, name: bytes, fmt: int, *, in_upper: bool, covers: bool, lowers: tuple[int, ...]
    ) -> None:
        self.name = name
        self.cookie = 0
        self.fmt = fmt
        self.in_upper = in_upper
        self.covers = covers
        self.lowers = lowers


class Listing:
    """The names of one merged directory.

    Attributes:
        whiteouts: names that the upper hides, and whether a lower has them to be hidden.
        is_impure: whether the upper directory is marked to hold objects with an origin.
    """

    __slots__ = ("_by_name", "_next_cookie", "_order", "is_impure", "whiteouts")

    def __init__(self) -> None:
        self._by_name: dict[bytes, Dirent] = {}
        self._order: list[Dirent] = []  # by cookie; removed ones stay until they are half of it
        self._next_cookie = 1
        self.whiteouts: dict[bytes, bool] = {}
        self.is_impure = False

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: bytes) -> Dirent | None:
        """Return the entry of `name`, None if there is none."""
        return self._by_name.get(name)

    def add(self, dirent: Dirent) -> None:
        """Insert `dirent`, whose name is not there yet, behind all others."""
        dirent.cookie = self._next_cookie
        self._next_cookie += 1
        self._by_name[dirent.name] = dirent
        self._order.append(dirent)

    def remove(self, name: bytes) -> None:
        """Remove the entry of `name`."""
        dirent = self._by_name.pop(name)
        dirent.cookie = -dirent.cookie
        if len(self._order) > 2 * len(self._by_name) + 64:
            self._order = list(self._by_name.values())

    def last_cookie(self) -> int:
        """Return the offset behind which nothing was when this was asked."""
        return self._next_cookie - 1

    def after(self, cookie: int) -> Iterator[Dirent]:
        """Yield the entries behind offset `cookie`, in order.

        Entries may be added and removed between two steps.
        """
        order = self._order
        at = bisect_right(order, cookie, key=lambda dirent: abs(dirent.cookie))
        while at < len(order):
            dirent = order[at]
            at += 1
            if dirent.cookie > 0:
                yield dirent


def merge(upper: LayerDir | None, lowers: tuple[LayerDir, ...]) -> Listing:
    """Read the directory in each layer, once, and merge the names, topmost first.

    Raises:
        OSError: EACCES where a layer's directory may not be listed.
    """
    listing = Listing()
    if upper is not None:
        found = scan(upper)
        for name, fmt in found.entries:
            listing.add(Dirent(name, fmt, in_upper=True, covers=False, lowers=()))
        listing.whiteouts = dict.fromkeys(found.whiteouts, False)
        listing.is_impure = found.impure
    hidden: set[bytes] = set()  # by whiteouts of the lowers read so far
    closed: set[bytes] = set()  # directories below which a lower has something else
    for position, lower in enumerate(lowers):
        found = scan(lower)
        for name, fmt in found.entries:
            if name in hidden:
                continue
            dirent = listing.get(name)
            if name in listing.whiteouts:
                listing.whiteouts[name] = True
                # `.wh.NAME` beside NAME in the upper: NAME is seen and covers, but merges nothing.
                if dirent is not None:
                    dirent.covers = True
            elif dirent is None:
                listing.add(Dirent(name, fmt, in_upper=False, covers=True, lowers=(position,)))
            else:
                _extend(dirent, fmt, position, closed)
        hidden |= found.whiteouts
    return listing


def _extend(dirent: Dirent, fmt: int, position: int, closed: set[bytes]) -> None:
    dirent.covers = True
    if dirent.fmt != stat.S_IFDIR or dirent.name in closed:
        return
    if fmt == stat.S_IFDIR:
        dirent.lowers += (position,)
    else:
        closed.add(dirent.name)
