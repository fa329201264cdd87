"""Nodes: what the kernel knows by a nodeid, and the table that holds them.

A node lives while the kernel holds it (`nlookup`) or while a node below it lives; then it is
dropped, with all that was read for it. No node holds a descriptor, except for objects whose
last name is gone and for files with data in use, of which a bounded number is open.

There may be millions, so a node is small: what few of them have is in a `Rare` beside it, and
only objects that are found in another way than by their name are in the table of keys.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from unionfuse.layer.stack import UPPER
from unionfuse.syscalls.memory import trim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unionfuse.layer.directory import LayerDir
    from unionfuse.union.listing import Listing

ROOT_NODEID = 1
FD_PATH, FD_READ, FD_WRITE = range(3)
_FEW = 1024  # a table of no more nodes is left as it is when nodes go
_SYNTHETIC_INO = 1 << 62  # inode numbers of our own start here; no filesystem goes so far

Key = tuple[int, int]
Place = tuple["LayerDir", bytes]
T = TypeVar("T")


class Rare:
    """What few nodes have: an open backing, several names, an identity of their own."""

    __slots__ = (
        "data",
        "data_fd",
        "fd",
        "fd_access",
        "is_counted",
        "is_filling",
        "is_orphan",
        "keys",
        "nlink_delta",
        "opens",
        "others",
        "redirect",
    )

    def __init__(self) -> None:
        self.fd = -1
        self.fd_access = FD_PATH
        self.is_orphan = False
        self.opens = 0
        self.others: set[tuple[DirNode, bytes]] | None = None
        self.nlink_delta = 0
        self.is_counted = True
        self.keys: tuple[Key, ...] = ()
        self.data: Place | None = None
        self.data_fd = -1
        self.is_filling = False
        self.redirect: bytes | None = None

    def is_needed(self) -> bool:
        """Tell whether anything in it is not as in a new one."""
        return (
            self.fd >= 0
            or self.is_orphan
            or self.opens != 0
            or bool(self.others)
            or self.nlink_delta != 0
            or not self.is_counted
            or self.keys != ()
            or self.data is not None
            or self.redirect is not None
        )


class _RareField(Generic[T]):
    """An attribute of `Rare` as one of the node: `default` for nodes that have none."""

    __slots__ = ("_default", "_name")

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, node: Node, owner: type) -> T:
        rare = node.rare
        return self._default if rare is None else cast("T", getattr(rare, self._name))

    def __set__(self, node: Node, value: T) -> None:
        if node.rare is None:
            if value == self._default:
                return
            node.rare = Rare()
        setattr(node.rare, self._name, value)


class Node:
    """Anything in the tree; used as it is for all that is no directory.

    Attributes:
        nodeid: the kernel's name for it; immutable, never reused while `nlookup` > 0.
        ino: st_ino; immutable, also over copy-up.
        fmt: S_IFMT of its mode; immutable.
        nlookup: how many lookups the kernel has not taken back yet.
        parent, name: where it is in the merged tree (one of its places, if it has several);
            `parent` is None once it has no name any more.
        where, backing_name: where its backing is: a directory of a layer and the name there.
        rare: what few nodes have; None if this one has nothing of it:
        others: its other known places.
        fd: descriptor of the backing, -1 if none is open.
        fd_access: what `fd` is good for: FD_PATH, FD_READ or FD_WRITE (which reads too).
        is_orphan: the backing has no name any more: `fd` is the only way to it.
        opens: open handles that the session counts; 0 where it does not count.
        nlink_delta: st_nlink less that of the backing.
        is_counted: whether `nlink_delta` is known, and not a guess.
        keys: identities of the backing (st_dev, st_ino) under which it is found, that of the
            upper first; none for what is found by its only name, under its own number.
        data: where the data of a metacopy is: a directory of a lower, and the name there.
        data_fd: descriptor of that, -1 if it is not open.
        is_filling: the data of a metacopy is on its way into it.
        redirect: where it is in the lowers, or its data, if the upper says so: `union.redirect`.
    """

    __slots__ = (
        "backing_name",
        "fmt",
        "ino",
        "name",
        "nlookup",
        "nodeid",
        "parent",
        "rare",
        "where",
    )

    others: _RareField[set[tuple[DirNode, bytes]] | None] = _RareField(None)
    fd = _RareField(-1)
    fd_access = _RareField(FD_PATH)
    is_orphan = _RareField(False)
    opens = _RareField(0)
    nlink_delta = _RareField(0)
    is_counted = _RareField(True)
    keys: _RareField[tuple[Key, ...]] = _RareField(())
    data: _RareField[Place | None] = _RareField(None)
    data_fd = _RareField(-1)
    is_filling = _RareField(False)
    redirect: _RareField[bytes | None] = _RareField(None)

    def __init__(self, ino: int, fmt: int, parent: DirNode | None, name: bytes) -> None:
        self.nodeid = 0
        self.ino = ino
        self.fmt = fmt
        self.nlookup = 0
        self.parent = parent
        self.name = name
        self.where: LayerDir | None = None
        self.backing_name = b""
        self.rare: Rare | None = None

    @property
    def is_upper(self) -> bool:
        """Whether its backing is in the upper (or was, before its last name went)."""
        return self.where is not None and self.where.layer == UPPER

    @property
    def owns_data(self) -> bool:
        """Whether it is in the upper with its data."""
        rare = self.rare
        return self.is_upper and (rare is None or rare.data is None)

    def places(self) -> list[tuple[DirNode, bytes]]:
        """Return all its known places in the merged tree."""
        if self.parent is None:
            return []
        if self.rare is None:
            return [(self.parent, self.name)]
        return [(self.parent, self.name), *(self.rare.others or ())]

    def add_place(self, parent: DirNode, name: bytes) -> None:
        """Note one more place in the merged tree."""
        if self.parent is None:
            self.parent, self.name = parent, name
        elif name != self.name or parent is not self.parent:
            others = self.others
            if others is None:
                others = self.others = set()
            others.add((parent, name))
        parent.children[name] = self

    def prefer_place(self, parent: DirNode, name: bytes) -> None:
        """Make one of its known places the one where it is copied up to."""
        others = self.others
        if others is not None and (parent, name) in others:
            assert self.parent is not None
            others.remove((parent, name))
            others.add((self.parent, self.name))
            self.parent, self.name = parent, name

    def drop_place(self, parent: DirNode, name: bytes) -> None:
        """Forget a place in the merged tree, which may be the last."""
        parent.children.pop(name, None)
        others = self.others
        if name == self.name and parent is self.parent:
            if others:
                self.parent, self.name = others.pop()
            else:
                self.parent = None
        elif others is not None:
            others.discard((parent, name))


class DirNode(Node):
    """A directory, merged or not.

    Attributes:
        upper: the directory in the upper; None until copy-up.
        lowers: the directories that are merged below it, topmost first.
        listing: the merged names; None until it is first looked into.
        children: the nodes below it that live, by name.
        gives: what it gives to what is made in it: its group (None for the caller's) and its
            default ACL; None until that is asked for, and again when it may have changed.
        is_dead: it was removed.
    """

    __slots__ = ("children", "gives", "is_dead", "listing", "lowers", "upper")

    def __init__(
        self,
        ino: int,
        parent: DirNode | None,
        name: bytes,
        upper: LayerDir | None,
        lowers: tuple[LayerDir, ...],
    ) -> None:
        super().__init__(ino, stat.S_IFDIR, parent, name)
        self.upper = upper
        self.lowers = lowers
        self.listing: Listing | None = None
        self.children: dict[bytes, Node] = {}
        self.gives: tuple[int | None, bytes | None] | None = None
        self.is_dead = False

    @property
    def is_upper(self) -> bool:
        """Whether it is in the upper."""
        return self.upper is not None

    @property
    def is_merged(self) -> bool:
        """Whether it is in more than one layer."""
        return len(self.lowers) + (self.upper is not None) > 1

    @property
    def top(self) -> LayerDir:
        """The topmost directory: the one whose attributes it has."""
        return self.upper if self.upper is not None else self.lowers[0]


class NodeTable:
    """All nodes that live, by nodeid and by the identity of their backing.

    Attributes:
        nodes: the nodes by nodeid; changed by the methods alone.
    """

    def __init__(self, nodeid_is_ino: bool, *, keeps_named: bool = False) -> None:
        """Make an empty table.

        With `nodeid_is_ino` a node's nodeid is its inode number (pyfuse3 needs that). With
        `keeps_named` a node is kept, whether the kernel holds it or not, while it has a name.
        """
        self._keeps_named = keeps_named
        self.nodes: dict[int, Node] = {}
        self._by_key: dict[Key, Node] = {}
        self._old: dict[int, int] = {}  # nodeids that were replaced, and the nlookup of each
        self._nodeid_is_ino = nodeid_is_ino
        self._next_nodeid = ROOT_NODEID
        self._next_ino = _SYNTHETIC_INO
        self._peak = 0  # since the table was last made smaller

    def __len__(self) -> int:
        return len(self.nodes)

    def get(self, nodeid: int) -> Node:
        """Return the node of `nodeid`; raise KeyError if there is none."""
        return self.nodes[nodeid]

    def find(self, key: Key) -> Node | None:
        """Return the living node whose backing is `key`."""
        return self._by_key.get(key)

    def add(self, node: Node) -> None:
        """Give `node` a nodeid; the first one added is the root."""
        if not self.nodes:
            node.nodeid = ROOT_NODEID
        elif self._nodeid_is_ino:
            # Two living objects of one number are rare: nested lowers, a lower st_ino of 1.
            if node.ino in self.nodes:
                node.ino = self._next_ino
                self._next_ino += 1
            node.nodeid = node.ino
        else:
            node.nodeid = self._next_nodeid
        self._next_nodeid += 1
        self.nodes[node.nodeid] = node

    def renumber(self, node: Node) -> None:
        """Give `node` a new nodeid; the old one means it too, until the kernel forgets it.

        Not with `nodeid_is_ino`.
        """
        old = node.nodeid
        replaced = sum(count for nodeid, count in self._old.items() if self.nodes[nodeid] is node)
        self._old[old] = node.nlookup - replaced
        node.nodeid = self._next_nodeid
        self._next_nodeid += 1
        self.nodes[node.nodeid] = node

    def is_old(self, nodeid: int) -> bool:
        """Tell whether a nodeid was replaced by another."""
        return nodeid in self._old

    def forget_old(self, nodeid: int, count: int) -> None:
        """Take back `count` lookups of a nodeid that was replaced."""
        self._old[nodeid] -= count
        if self._old[nodeid] <= 0:
            del self._old[nodeid], self.nodes[nodeid]

    def set_keys(self, node: Node, keys: Iterable[Key]) -> None:
        """Make `node` the one that is found under `keys`, and no others."""
        self._drop_keys(node)
        node.keys = tuple(keys)
        for key in node.keys:
            self._by_key[key] = node

    def forget(self, node: Node, count: int) -> None:
        """Take back `count` lookups; drop the node, and parents, that nothing holds any more."""
        node.nlookup -= count
        at: Node | None = node
        while at is not None and at.nlookup <= 0 and at.nodeid != ROOT_NODEID:
            if isinstance(at, DirNode) and at.children:
                return
            if at.nodeid not in self.nodes or (self._keeps_named and at.parent is not None):
                return
            at = self._drop(at)

    def _drop(self, node: Node) -> DirNode | None:
        """Drop `node`; return the parent that it no longer holds."""
        self._remove(node)
        if node.rare is not None:
            self._drop_keys(node)
            _close(node.rare)
        if isinstance(node, DirNode):
            for directory in (node.upper, *node.lowers):
                if directory is not None:
                    directory.forget()
        places = node.places()
        for parent, name in places:
            parent.children.pop(name, None)
            if not parent.children:
                parent.children.clear()  # a dict keeps its room otherwise
        for parent, _ in places[1:]:
            self.forget(parent, 0)
        return places[0][0] if places else None

    def _remove(self, node: Node) -> None:
        """Take `node` out of the table, which gives room back when few are left of many."""
        nodes = self.nodes
        if len(nodes) > self._peak:
            self._peak = len(nodes)
        del nodes[node.nodeid]
        if self._peak > _FEW and len(nodes) < self._peak // 4:
            self.nodes = dict(nodes)
            self._by_key = dict(self._by_key)
            self._peak = len(nodes)
            trim()

    def _drop_keys(self, node: Node) -> None:
        for key in node.keys:
            if self._by_key.get(key) is node:
                del self._by_key[key]
        node.keys = ()

    def close(self) -> None:
        """Close every descriptor that nodes hold."""
        for node in self.nodes.values():
            if node.rare is not None:
                _close(node.rare)


def _close(rare: Rare) -> None:
    for fd in (rare.fd, rare.data_fd):
        if fd >= 0:
            os.close(fd)
    rare.fd = rare.data_fd = -1
