"""Compare the directory of a layer with its index: every name, attribute and byte."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from unionfuse.image.layers.filedata import open_to_read
from unionfuse.image.layers.form import LayerForm
from unionfuse.image.layers.index import KIND_OF, IndexEntry, xattrs_hash
from unionfuse.image.layers.paths import join, split
from unionfuse.layer import names
from unionfuse.layer.directory import DirectoryFds, LayerDir
from unionfuse.layer.override import CONTAINERS, Override
from unionfuse.layer.scan import is_whiteout, open_for_listing
from unionfuse.layer.upper import UpperFormat
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.privilege import is_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from unionfuse.image.layers.index import IndexHead

_CHUNK = 1 << 20
_OPEN_DIRS = 256
_MIN_MTIME, _MAX_MTIME = -(1 << 31), 1 << 31  # what every filesystem keeps, in seconds
_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was when the layer was applied.

    Attributes:
        path: from the root of the layer.
        what: `missing`, `extra`, or what of it is different: `kind`, `content`, `mode`...
    """

    path: bytes
    what: str


def verify_layer(
    dir_fd: int, head: IndexHead, entries: Iterable[IndexEntry]
) -> Iterator[Difference]:
    """Yield what is different in the layer at `dir_fd`, which nobody may be changing.

    It has to be run as who applied the layer: in the same user namespace, if it was in one.

    Args:
        dir_fd: the layer.
        head, entries: of its index, as `read_index` returns them.

    Raises:
        OSError: of reading the layer.
        Corrupt: if the index is damaged.
    """
    fds = DirectoryFds(_OPEN_DIRS)
    try:
        verifier = _Verifier(LayerDir.root(0, dir_fd, fds), head)
        for entry in entries:
            yield from (Difference(entry.path, what) for what in verifier.compare(entry))
        yield from (Difference(path, "extra") for path in verifier.extra())
    finally:
        fds.close()


class _Verifier:
    def __init__(self, root: LayerDir, head: IndexHead) -> None:
        self._root = root
        self._head = head
        own = names.TRUSTED if is_root() else names.USER
        markers = UpperFormat(char_whiteouts=True, prefix=own)
        self._form = LayerForm(markers, head.owners, head.devices)
        self._dirs: dict[bytes, LayerDir] = {b"": root}
        self._seen: set[int] = set()  # of names, by their fingerprints: a third of their size

    def compare(self, entry: IndexEntry) -> list[str]:
        """Return what is different of one entry."""
        self._seen.add(xxhash.xxh3_64_intdigest(entry.path))
        parent, name = split(entry.path)
        where = self._dirs.get(parent)
        if where is None:
            return ["missing"]
        if not entry.path:
            name = b"."
        if entry.kind == "w":
            return self._whiteout(where, name, entry)
        try:
            st = os.stat(name, dir_fd=where.fd(), follow_symlinks=False)
        except FileNotFoundError:
            return ["missing"]
        if entry.path and stat.S_ISDIR(st.st_mode):
            self._dirs[entry.path] = LayerDir(where, name)
        if entry.kind == "h":
            return self._hard_link(st, entry)
        return self._object(where, name, st, entry)

    def _whiteout(self, where: LayerDir, name: bytes, entry: IndexEntry) -> list[str]:
        for candidate in (name, names.WHITEOUT_PREFIX + name):
            try:
                st = os.stat(candidate, dir_fd=where.fd(), follow_symlinks=False)
            except OSError:
                continue
            if is_whiteout(st):
                return []
            if candidate != name:
                parent = split(entry.path)[0]
                self._seen.add(xxhash.xxh3_64_intdigest(join(parent, candidate)))
                return []
        return ["missing"]

    def _hard_link(self, st: os.stat_result, entry: IndexEntry) -> list[str]:
        other = self._stat_far(entry.target)  # it may come later in the order of the paths
        if other is not None and os.path.samestat(st, other):
            return []
        return ["hard link"]

    def _stat_far(self, path: bytes) -> os.stat_result | None:
        *above, name = path.split(b"/")
        at = self._root
        try:
            for part in above:
                at = LayerDir(at, part)
            return os.stat(name, dir_fd=at.fd(), follow_symlinks=False)
        except OSError:
            return None

    def _object(
        self, where: LayerDir, name: bytes, st: os.stat_result, entry: IndexEntry
    ) -> list[str]:
        target = fd_path(where.fd(), name)
        on_disk = stat.S_IFMT(st.st_mode)
        if not self._head.owners and on_disk != stat.S_IFLNK:
            kept = Override.parse(xattr.get_or_none(target, CONTAINERS) or b"")
            st = kept.applied(st) if kept is not None else st
        kind = KIND_OF.get(stat.S_IFMT(st.st_mode), "")
        if kind == "f" and entry.kind in "cb" and self._head.owners and not self._head.devices:
            return []  # an empty file is in the place of a device
        if kind != entry.kind:
            return ["kind"]
        found = []
        if not entry.is_implied:
            found += self._attributes(target, st, entry)
        if entry.is_opaque != (kind == "d" and self._is_opaque(where, name, target, entry)):
            found.append("opaque")
        if entry.kind == "f" and on_disk == stat.S_IFREG:
            found += _content(where, name, st, entry)
        elif entry.kind == "l" and os.readlink(name, dir_fd=where.fd()) != entry.target:
            found.append("target")
        elif entry.kind in "cb" and st.st_rdev != os.makedev(*entry.rdev):
            found.append("device")
        return found

    def _attributes(self, target: xattr.Target, st: os.stat_result, entry: IndexEntry) -> list[str]:
        found = []
        is_link = entry.kind == "l"
        if not is_link and stat.S_IMODE(st.st_mode) != entry.mode:
            found.append("mode")
        if (self._head.owners or not is_link) and (st.st_uid, st.st_gid) != (entry.uid, entry.gid):
            found.append("owner")
        seconds = entry.mtime_ns // _NANO
        if _MIN_MTIME <= seconds < _MAX_MTIME and st.st_mtime_ns != entry.mtime_ns:
            found.append("mtime")
        if self._xattrs_of(target) != entry.xattrs:
            found.append("attributes")
        return found

    def _xattrs_of(self, target: xattr.Target) -> int:
        present = {}
        for stored in xattr.names(target):
            name = self._form.shown(stored)
            if name is not None:
                present[name] = xattr.get(target, stored)
        return xattrs_hash(present)

    def _is_opaque(
        self, where: LayerDir, name: bytes, target: xattr.Target, entry: IndexEntry
    ) -> bool:
        if any(xattr.get_or_none(target, mark) == b"y" for mark in names.OPAQUE_XATTRS):
            return True
        try:
            os.stat(name + b"/" + names.OPAQUE_FILE, dir_fd=where.fd(), follow_symlinks=False)
        except FileNotFoundError:
            return False
        self._seen.add(xxhash.xxh3_64_intdigest(join(entry.path, names.OPAQUE_FILE)))
        return True

    def extra(self) -> Iterator[bytes]:
        """Yield what is there and was in no entry."""
        for path, where in self._dirs.items():
            fd = open_for_listing(where)
            try:
                found = os.listdir(fd)
            finally:
                os.close(fd)
            for name in sorted(map(os.fsencode, found)):
                below = join(path, name)
                if xxhash.xxh3_64_intdigest(below) not in self._seen:
                    yield below


def _content(where: LayerDir, name: bytes, st: os.stat_result, entry: IndexEntry) -> list[str]:
    if st.st_size != entry.size:
        return ["size"]
    fd = open_to_read(where, name)
    try:
        hashed = xxhash.xxh3_64()
        while data := os.read(fd, _CHUNK):
            hashed.update(data)
    finally:
        os.close(fd)
    return [] if hashed.intdigest() == entry.content else ["content"]
