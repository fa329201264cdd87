"""The merged names of one directory, with offsets that stay good while names come and go.

Twin of fs/overlayfs/readdir.c. Each name has a cookie that grows with every insertion, so an
offset is a cookie and not an index: removing a name moves no other.
"""

from __future__ import annotations

import functools
import stat
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from unionfuse.layer.scan import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.layer.directory import LayerDir


class Kind(NamedTuple):
    """What a name of a merged directory stands for.

    There are few kinds and many names: all names of a kind share one object (`kind_of`).

    Attributes:
        fmt: S_IFMT of the topmost object of that name.
        in_upper: whether that object is in the upper.
        covers: whether a lower has the name, so that removing it takes a whiteout.
        lowers: positions in the parent's `lowers` that make up the object below the upper:
            for a directory all that are merged, unless an opaque one ends them; for
            anything else the topmost, if it is not in the upper.
    """

    fmt: int
    in_upper: bool
    covers: bool
    lowers: tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def kind_of(fmt: int, in_upper: bool, covers: bool, lowers: tuple[int, ...] = ()) -> Kind:
    """Return the one object for this kind."""
    return Kind(fmt, in_upper, covers, lowers)


class Dirent(NamedTuple):
    """One step of a listing.

    Attributes:
        name: the name.
        cookie: the offset behind it, > 0, unique and growing in its listing.
        fmt: S_IFMT of what it stands for.
    """

    name: bytes
    cookie: int
    fmt: int


class _Probe(bytes):
    """A name that, when it is found among the keys of a dict, takes hold of the equal one there."""

    stored: bytes

    def __eq__(self, other: object) -> bool:
        if isinstance(other, bytes) and bytes.__eq__(self, other):
            self.stored = other
            return True
        return False

    __hash__ = bytes.__hash__


class Listing:
    """The names of one merged directory.

    The order of the names is kept from the time when it is first asked for: before that no
    cookie is known to anybody.

    Attributes:
        kinds: what each name stands for; changed by the methods alone.
        whiteouts: names for which the upper has a marker, and whether a lower has them to be
            hidden.
        is_impure: whether the upper directory is marked to hold objects with an origin.
        impure_lowers: the lowers that are marked so: they were the upper of a union once.
    """

    __slots__ = (
        "_changed",
        "_cookies",
        "_order",
        "impure_lowers",
        "is_impure",
        "kinds",
        "whiteouts",
    )

    def __init__(self) -> None:
        self.kinds: dict[bytes, Kind] = {}
        self._order: list[bytes] | None = None  # removed names stay until they are half of it
        self._cookies: array[int] | None = None  # of `_order`; None: of each, its index + 1
        self._changed: dict[bytes, int] = {}  # cookies of removed names (0) and of those back
        self.whiteouts: dict[bytes, bool] = {}
        self.is_impure = False
        self.impure_lowers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.kinds)

    def get(self, name: bytes) -> Kind | None:
        """Return what `name` stands for, None if there is no such name."""
        return self.kinds.get(name)

    def own(self, name: bytes) -> bytes:
        """Return the listing's own object of `name`, or `name` if there is no such name.

        What keeps a name for long keeps that one: 48 bytes less of each file that is known.
        """
        probe = _Probe(name)
        return probe.stored if probe in self.kinds else name

    def replace(self, name: bytes, kind: Kind) -> None:
        """Say that `name`, which is there, now stands for something else."""
        self.kinds[name] = kind

    def add(self, name: bytes, kind: Kind) -> None:
        """Insert `name`, which is not there yet, behind all others."""
        self.kinds[name] = kind
        order = self._order
        if order is None:
            return
        cookie = self.last_cookie() + 1
        if self._cookies is not None:
            self._cookies.append(cookie)
        order.append(name)
        if name in self._changed:
            self._changed[name] = cookie

    def remove(self, name: bytes) -> None:
        """Remove `name`."""
        del self.kinds[name]
        if self._order is not None:
            self._changed[name] = 0
            if len(self._order) > 2 * len(self.kinds) + 64:
                self._compact(self._order)

    def _compact(self, order: list[bytes]) -> None:
        """Drop what was removed from the order, but not the last cookie."""
        changed = self._changed
        cookies = self._cookies or range(1, len(order) + 1)
        live = [
            (name, cookie)
            for name, cookie in zip(order, cookies, strict=True)
            if changed.get(name, cookie) == cookie
        ]
        if not live or live[-1][1] != cookies[-1]:
            live.append((order[-1], cookies[-1]))
        self._order = [name for name, _ in live]
        self._cookies = array("Q", (cookie for _, cookie in live))
        self._changed = {name: 0 for name in self._order[-1:] if name not in self.kinds}

    def last_cookie(self) -> int:
        """Return the offset behind which nothing was when this was asked."""
        if self._order is None:
            self._order = list(self.kinds)
        if self._cookies is None:
            return len(self._order)
        return self._cookies[-1]

    def after(self, cookie: int) -> Iterator[Dirent]:
        """Yield the names behind offset `cookie`, in order.

        Names may be added and removed between two steps.
        """
        self.last_cookie()  # there is an order from now on
        kinds = self.kinds
        order: list[bytes] = []
        cookies: array[int] | None = None
        at = 0
        while True:
            if order is not self._order:  # at first, and when it was made shorter
                assert self._order is not None
                order, cookies = self._order, self._cookies
                at = cookie if cookies is None else bisect_right(cookies, cookie)
            if at >= len(order):
                return
            name = order[at]
            at += 1
            cookie = at if cookies is None else cookies[at - 1]
            if self._changed.get(name, cookie) == cookie:
                yield Dirent(name, cookie, kinds[name].fmt)


def merge(upper: LayerDir | None, lowers: tuple[LayerDir, ...]) -> Listing:
    """Read the directory in each layer, once, and merge the names, topmost first.

    Raises:
        OSError: EACCES where a layer's directory may not be listed.
    """
    listing = Listing()
    kinds = listing.kinds
    if upper is not None:
        found = scan(upper)
        for name, fmt in found.entries:
            kinds[name] = kind_of(fmt, True, False)
        listing.whiteouts = dict.fromkeys(found.whiteouts, False)
        listing.is_impure = found.impure
    whiteouts = listing.whiteouts
    hidden: set[bytes] = set()  # by whiteouts of the lowers read so far
    closed: set[bytes] = set()  # directories below which a lower has something else
    for position, lower in enumerate(lowers):
        found = scan(lower)
        if found.impure:
            listing.impure_lowers += (position,)
        for name, fmt in found.entries:
            if name in hidden:
                continue
            kind = kinds.get(name)
            if name in whiteouts:
                whiteouts[name] = True
                # `.wh.NAME` beside NAME in the upper: NAME is seen and covers, but merges nothing.
                if kind is not None:
                    kinds[name] = kind_of(kind.fmt, kind.in_upper, True, kind.lowers)
            elif kind is None:
                kinds[name] = kind_of(fmt, False, True, (position,))
            else:
                kinds[name] = _extended(name, kind, fmt, position, closed)
        hidden |= found.whiteouts
    return listing


def _extended(name: bytes, kind: Kind, fmt: int, position: int, closed: set[bytes]) -> Kind:
    lowers = kind.lowers
    if kind.fmt == stat.S_IFDIR and name not in closed:
        if fmt == stat.S_IFDIR:
            lowers = (*lowers, position)
        else:
            closed.add(name)
    return kind_of(kind.fmt, kind.in_upper, True, lowers)
