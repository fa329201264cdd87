"""Find a name in the merged tree. Twin of fs/overlayfs/namei.c."""

from __future__ import annotations

import errno
import os
import stat

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import file_marks, marks_of, may_be_metacopy
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.union.backing import attr_of, get_attr
from unionfuse.union.listing import Kind, Listing, merge
from unionfuse.union.node import DirNode, Key, Node
from unionfuse.union.redirect import data_place, lower_directories
from unionfuse.union.state import Entry, Union, oserror

NAME_MAX = 255


def listing_of(node: DirNode) -> Listing:
    """Return the merged names of `node`, reading its layers the first time."""
    if node.listing is None:
        node.listing = Listing() if node.is_dead else merge(node.upper, node.lowers)
    return node.listing


def lookup(u: Union, parent: DirNode, name: bytes) -> Entry | None:
    """Return what `name` in `parent` is, None if there is no such name; nlookup stays.

    Costs a dict access and one stat once the directory was looked into, found or not.

    Raises:
        OSError: ENAMETOOLONG over 255 bytes.
    """
    node = parent.children.get(name)
    if node is not None:
        return Entry(node, get_attr(node))
    if len(name) > NAME_MAX:
        raise oserror(errno.ENAMETOOLONG)
    kind = listing_of(parent).get(name)
    if kind is None:
        return None
    if kind.fmt == stat.S_IFDIR:
        return _make_directory(u, parent, name, kind)
    if kind.in_upper:
        return _make_upper(u, parent, name, kind)
    return _make_lower(u, parent, name, kind)


def existing(u: Union, parent: DirNode, name: bytes) -> Node:
    """Return the node of `name` in `parent`; raise OSError ENOENT if there is none."""
    node = parent.children.get(name)
    if node is not None:
        return node
    entry = lookup(u, parent, name)
    if entry is None:
        raise oserror(errno.ENOENT)
    return entry.node


def key_of(st: os.stat_result) -> Key:
    """Return the identity of the inode with status `st`."""
    return st.st_dev, st.st_ino


def _make_directory(u: Union, parent: DirNode, name: bytes, kind: Kind) -> Entry:
    upper, redirect = None, None
    lowers: list[LayerDir] = []
    is_closed = False
    if kind.in_upper:
        assert parent.upper is not None, "a name in the upper has its parent there"
        upper = LayerDir(parent.upper, name)
        marks = marks_of(upper, u.xattr_names.own)
        redirect, is_closed = marks.redirect, marks.opaque or marks.redirect is not None
        if redirect is not None:
            lowers = lower_directories(u, parent, name, redirect)
    for position in kind.lowers:
        if is_closed:
            break
        lower = LayerDir(parent.lowers[position], name)
        lowers.append(lower)
        if lower.layer == u.root.lowers[-1].layer:
            break
        marks = marks_of(lower, u.xattr_names.own)
        is_closed = marks.opaque or marks.redirect is not None
        if marks.redirect is not None:
            lowers += lower_directories(u, parent, name, marks.redirect, lower.layer)
    # Of a merged directory the lower's number is shown, so that copy-up does not change it.
    first = lowers[0] if lowers else upper
    assert first is not None, "a name is in some layer"
    ino = u.inodes.number(key_of(os.fstat(first.fd())))
    node = DirNode(ino, parent, name, upper, tuple(lowers))
    node.redirect = redirect
    u.table.add(node)
    parent.children[name] = node
    return Entry(node, get_attr(node))


def _make_upper(u: Union, parent: DirNode, name: bytes, kind: Kind) -> Entry:
    where = parent.upper
    assert where is not None, "a name in the upper has its parent there"
    st = os.stat(name, dir_fd=where.fd(), follow_symlinks=False)
    key = key_of(st)
    node = u.table.find(key)
    if node is None:
        ino = u.inodes.number(key)
        node = Node(ino, kind.fmt, None, b"")
        node.where, node.backing_name = where, name
        is_impure = listing_of(parent).is_impure
        if kind.fmt == stat.S_IFREG and (is_impure or may_be_metacopy(st)):
            _read_metacopy(u, node, parent, name)
        if is_impure:
            _read_origin(u, node, st)
        has_key = st.st_nlink > 1 or node.ino != ino
        u.table.add(node)
        if has_key:
            u.table.set_keys(node, (key,))
    elif node.is_orphan:
        node.where, node.backing_name = where, name
        node.is_orphan = False
        u.backing_fds[node] = None
    node.add_place(parent, name)
    return Entry(node, attr_of(node, st))


def _read_metacopy(u: Union, node: Node, parent: DirNode, name: bytes) -> None:
    """Find the data of a file in `parent` of which the layer has only the attributes."""
    assert node.where is not None, "the caller has set it"
    marks = file_marks(fd_path(node.where.fd(), node.backing_name), u.xattr_names.own)
    if marks.metacopy:
        node.data = data_place(u, parent, name, marks.redirect, node.where.layer)
        if node.is_upper:
            node.redirect = marks.redirect


def _read_origin(u: Union, node: Node, st: os.stat_result) -> None:
    """Give a copied-up node the number of its origin, and its place in the index."""
    assert node.where is not None, "the caller has set it"
    origin = u.writable().get_marker(fd_path(node.where.fd(), node.backing_name), names.ORIGIN)
    if origin is None:
        return
    key = u.origins.decode(origin)
    if key is not None:
        node.ino = u.inodes.number(key)
    if st.st_nlink > 1 and u.index is not None:
        found = u.index.find_origin(origin)
        if found is not None and key_of(found[2]) == key_of(st):
            node.where, node.backing_name = found[:2]
            node.nlink_delta, node.is_counted = u.index.read_nlink_delta(
                *found[:2], (st.st_nlink, st.st_nlink)
            )


def _make_lower(u: Union, parent: DirNode, name: bytes, kind: Kind) -> Entry:
    where: LayerDir = parent.lowers[kind.lowers[0]]
    st = os.stat(name, dir_fd=where.fd(), follow_symlinks=False)
    key = key_of(st)
    if st.st_nlink > 1:
        node = u.table.find(key)
        if node is not None:
            node.add_place(parent, name)
            return Entry(node, attr_of(node, st) if not node.is_upper else get_attr(node))
        if u.index is not None:
            found = u.index.find(where, name, st)
            if found is not None:
                return _make_indexed(u, parent, name, st, found)
    node = Node(u.inodes.number(key), kind.fmt, parent, name)
    node.where, node.backing_name = where, name
    if kind.fmt == stat.S_IFREG and (
        may_be_metacopy(st) or kind.lowers[0] in listing_of(parent).impure_lowers
    ):
        _read_metacopy(u, node, parent, name)
    u.table.add(node)
    if st.st_nlink > 1:
        node.nlink_delta = -u.removed_links.get(key, 0)
        u.table.set_keys(node, (key,))
    parent.children[name] = node
    return Entry(node, attr_of(node, st))


def _make_indexed(
    u: Union,
    parent: DirNode,
    name: bytes,
    lower_st: os.stat_result,
    found: tuple[LayerDir, bytes, os.stat_result],
) -> Entry:
    """Return what a name in a lower is whose file was copied up under another name."""
    assert u.index is not None
    where, entry, st = found
    key, lower_key = key_of(st), key_of(lower_st)
    node = u.table.find(key)
    if node is None:
        shown = key if u.lacks_origins else lower_key  # as by a name in the upper
        node = Node(u.inodes.number(shown), stat.S_IFMT(st.st_mode), None, b"")
        node.where, node.backing_name = where, entry
        if node.fmt == stat.S_IFREG:
            _read_metacopy(u, node, parent, name)
        u.table.add(node)
    if not node.is_orphan:  # it may be known by a name that goes; the entry stays
        node.where, node.backing_name = where, entry
        nlinks = (st.st_nlink, lower_st.st_nlink)
        node.nlink_delta, node.is_counted = u.index.read_nlink_delta(where, entry, nlinks)
    u.table.set_keys(node, (key, lower_key))
    node.add_place(parent, name)
    return Entry(node, attr_of(node, st))
