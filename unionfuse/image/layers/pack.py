"""Make a layer tar of an upper, of all that a stack shows, or of a tree.

The same tree gives the same bytes: names in order, parents first, whiteouts before what is beside
them, whole seconds, no user names. Of an upper nothing but the upper is read, and of the lowers
what renamed directories and metacopies lead to.

Extended attributes go along but for those of overlays, of this machine (`form.NOT_CARRIED`), and
those that keep an owner. POSIX ACLs go along as attributes, as with umoci; docker and podman
leave them out.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unionfuse.image.errors import Refused
from unionfuse.image.layers.filedata import open_to_read
from unionfuse.image.layers.form import LayerForm, is_never_carried
from unionfuse.image.layers.links import CopiedLinks
from unionfuse.image.layers.member import Member
from unionfuse.image.layers.paths import join, split
from unionfuse.image.layers.reader import shown
from unionfuse.image.layers.walk import OPAQUE, WHITEOUT, Item, Walk, plain_items
from unionfuse.image.layers.writer import TarWriter
from unionfuse.layer import names, override
from unionfuse.layer.directory import DirectoryFds, LayerDir
from unionfuse.layer.override import Override
from unionfuse.layer.upper import UpperFormat
from unionfuse.offline.entries import namespace_of
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.privilege import is_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from unionfuse.image.digest import Digest
    from unionfuse.layer.stack import LayerStack

_CHUNK = 1 << 20
_OPEN_DIRS = 256
_NANO = 10**9
_DEVICES = frozenset({stat.S_IFCHR, stat.S_IFBLK})


@dataclass(frozen=True, slots=True)
class PackOptions:
    """What is to be in a tar.

    Attributes:
        source_date_epoch: seconds; no mtime is later. None to leave them as they are.
        with_root: whether the root has an entry. Most tools leave it out of a diff.
        left_out: paths that are not told of, whatever happened to them.
    """

    source_date_epoch: int | None = None
    with_root: bool = False
    left_out: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Packed:
    """A tar that was made.

    Attributes:
        diff_id: its digest.
        tar_bytes: its size.
        entries: how many it has; 0 where nothing was changed.
        file_bytes: of its regular files.
        notes: what was left out, a line each.
    """

    diff_id: Digest
    tar_bytes: int
    entries: int
    file_bytes: int
    notes: tuple[str, ...] = ()


def pack_upper(
    stack: LayerStack, write: Callable[[bytes], object], options: PackOptions | None = None
) -> Packed:
    """Write what the upper of `stack` changes as a layer tar.

    Without lowers an opaque directory is told by `.wh..wh..opq`, and every whiteout is. With them
    both are explicit whiteouts of what there is.

    Raises:
        Refused: if the lowers are needed, or no tar can say what is there.
        OSError: of reading or writing.
    """
    assert stack.upper is not None, "a diff is that of an upper"
    own = namespace_of(stack.upper)
    packer = _Packer(write, options or PackOptions(), _forms(stack, own))
    links = CopiedLinks(own) if stack.lowers else None
    return packer.run(Walk(stack, own).items(), stack.upper, links, stack)


def pack_merged(
    stack: LayerStack, write: Callable[[bytes], object], options: PackOptions | None = None
) -> Packed:
    """Write all that `stack` shows as a tar that needs no layer below; raises as `pack_upper`."""
    own = names.TRUSTED if is_root() else names.USER
    root = stack.upper or stack.lowers[0]
    packer = _Packer(write, options or PackOptions(), _forms(stack, own))
    return packer.run(Walk(stack, own, is_whole=True).items(), root)


def pack_tree(
    root_fd: int, write: Callable[[bytes], object], options: PackOptions | None = None
) -> Packed:
    """Write the tree at `root_fd`, which is no layer, as a tar; raises as `pack_upper`."""
    fds = DirectoryFds(_OPEN_DIRS)
    try:
        root = LayerDir.root(0, root_fd, fds)
        kept = override.name_of(fd_path(root_fd))
        packer = _Packer(write, options or PackOptions(), {0: _Form(None, kept)})
        return packer.run(plain_items(root), root)
    finally:
        fds.close()


@dataclass(frozen=True, slots=True)
class _Form:
    """How one layer keeps what a tar tells.

    Attributes:
        own: the namespace of its markers; None for a tree that has none.
        override: the attribute with the owners; None where they are on disk.
    """

    own: bytes | None
    override: bytes | None

    def shown(self, name: bytes) -> bytes | None:
        if self.own is None and self.override is None:
            return None if is_never_carried(name) else name
        markers = UpperFormat(char_whiteouts=True, prefix=self.own or names.USER)
        return LayerForm(markers, self.override is None, devices=True).shown(name)


def _forms(stack: LayerStack, own: bytes) -> dict[int, _Form]:
    roots = (*(() if stack.upper is None else (stack.upper,)), *stack.lowers)
    return {root.layer: _Form(own, override.name_of(fd_path(root.fd()))) for root in roots}


class _Packer:
    """A tar on its way."""

    def __init__(
        self, write: Callable[[bytes], object], options: PackOptions, forms: dict[int, _Form]
    ) -> None:
        self._tar = TarWriter(write)
        self._options = options
        self._forms = forms
        self._links: dict[tuple[int, int], Member] = {}  # the first name of each file
        self._notes: Counter[str] = Counter()
        self._file_bytes = 0

    def run(
        self,
        items: Iterable[Item],
        root: LayerDir,
        copied: CopiedLinks | None = None,
        stack: LayerStack | None = None,
    ) -> Packed:
        if self._options.with_root:
            st = os.stat(fd_path(root.fd()))
            self._tar.add(self._member(b"./", root, b".", st))
        for item in items:
            if item.path in self._options.left_out:
                continue
            if item.kind == WHITEOUT:
                parent, name = split(item.path)
                self._marker(join(parent, names.WHITEOUT_PREFIX + name))
            elif item.kind == OPAQUE:
                self._marker(join(item.path, names.OPAQUE_FILE))
            else:
                self._entry(item)
                if copied is not None:
                    copied.look(item)
        if copied is not None and stack is not None:
            firsts = {member.name: member for member in self._links.values()}
            for item, first in copied.others(stack):
                self._other_name(item, firsts.get(first))
            if copied.stale:
                self._notes["a hard link in a renamed directory has its old content"] += (
                    copied.stale
                )
        self._tar.close()
        notes = tuple(f"{text} ({count} times)" for text, count in sorted(self._notes.items()))
        return Packed(
            self._tar.diff_id(), self._tar.size, self._tar.entries, self._file_bytes, notes
        )

    def _marker(self, path: bytes) -> None:
        self._tar.add(Member(path, stat.S_IFREG))

    def _entry(self, item: Item) -> None:
        where, name = item.where, item.name
        assert where is not None, "only markers have no place"
        if names.is_reserved(name):
            raise Refused(f"{shown(item.path)} would be read as a whiteout from a layer tar")
        st = os.stat(name, dir_fd=where.fd(), follow_symlinks=False)
        member = self._member(item.path, where, name, st)
        if member.fmt == stat.S_IFSOCK:
            self._notes["sockets are left out"] += 1
            return
        if member.fmt == stat.S_IFCHR and member.rdev == (0, 0):
            self._notes["a character device 0:0 is left out: it would be a whiteout"] += 1
            return
        if st.st_nlink > 1 and member.fmt != stat.S_IFDIR:
            first = self._links.setdefault((st.st_dev, st.st_ino), member)
            if first is not member:
                member.fmt, member.target = 0, first.name
        if member.fmt == stat.S_IFREG:
            self._file(member, item.data or (where, name))
        else:
            self._tar.add(member)

    def _other_name(self, item: Item, first: Member | None) -> None:
        if first is None:  # a directory above one
            self._entry(item)
        else:
            # With its attributes: docker and podman give them to the file, whatever the others say.
            self._tar.add(replace(first, name=item.path, fmt=0, target=first.name))

    def _member(self, path: bytes, where: LayerDir, name: bytes, st: os.stat_result) -> Member:
        target = fd_path(where.fd(), name)
        form = self._forms[where.layer]
        present = xattr.names(target)
        fmt_on_disk = stat.S_IFMT(st.st_mode)
        if form.override is not None:
            st = _overridden(st, target, form.override, present)
        fmt = stat.S_IFMT(st.st_mode)
        mtime = st.st_mtime_ns // _NANO
        if self._options.source_date_epoch is not None:
            mtime = min(mtime, self._options.source_date_epoch)
        member = Member(path, fmt, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, mtime * _NANO)
        if fmt == stat.S_IFREG:
            member.size = st.st_size
        elif fmt == stat.S_IFLNK:
            member.target = _link_target(where, name, fmt_on_disk, st.st_size)
        elif fmt in _DEVICES:
            member.rdev = (os.major(st.st_rdev), os.minor(st.st_rdev))
        for stored in present:
            self._add_xattr(member, target, stored, form.shown(stored))
        return member

    def _add_xattr(
        self, member: Member, target: xattr.Target, stored: bytes, name: bytes | None
    ) -> None:
        if name is None:
            return
        value = xattr.get_or_none(target, stored)
        if value:
            member.xattrs[name] = value
        elif value is not None:
            self._notes[f"the attribute {shown(name)} is empty, which no tar can hold"] += 1

    def _file(self, member: Member, data: tuple[LayerDir, bytes]) -> None:
        where, name = data
        fd = open_to_read(where, name)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode) or st.st_size < member.size:
                raise Refused(f"{shown(member.name)} has changed while it was read")
            self._tar.add(member)
            self._file_bytes += member.size
            left = member.size
            while left:
                piece = os.read(fd, min(_CHUNK, left))
                if not piece:
                    raise Refused(f"{shown(member.name)} has become shorter while it was read")
                self._tar.write(piece)
                left -= len(piece)
        finally:
            os.close(fd)


def _overridden(
    st: os.stat_result, target: xattr.Target, kept: bytes, present: list[bytes]
) -> os.stat_result:
    """Return what is to be told of a file of a layer with its owners in an attribute.

    Symlinks have no such attribute. They belong to the one user that there is, who is root to the
    image.
    """
    if kept in present:
        found = Override.parse(xattr.get(target, kept))
        if found is not None:
            return found.applied(st)
    if stat.S_ISLNK(st.st_mode):
        return Override(0, 0, 0o777, stat.S_IFLNK).applied(st)
    return st


def _link_target(where: LayerDir, name: bytes, fmt_on_disk: int, size: int) -> bytes:
    if fmt_on_disk == stat.S_IFLNK:
        return os.readlink(name, dir_fd=where.fd())
    fd = open_to_read(where, name)  # its content is the target
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)
