"""Bring an object of a lower into the upper before it is changed. Twin of copy_up.c.

Order, for a file: parents; a temporary in WORKDIR/work; data; data to disk; owner, mode,
attributes, times; one rename that publishes it. Attributes come after data, since writing
would remove security.capability; owner before mode, since chown clears setuid; times last.
A crash anywhere leaves the old file, and a temporary that the next mount removes.

Of a file whose attributes alone are changed no data is copied (overlayfs: metacopy=on): it
comes up as a file with a hole of its size, marked `overlay.metacopy`, whose data is the
lower's until the first write. Then `union.metacopy` puts it into that file.

The data is the only slow part. `begin`, `CopyUp.copy_data` and `finish` let a session run
that part in a thread: it touches only descriptors, and the lower does not change.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.record import mutable_record
from unionfuse.syscalls import xattr
from unionfuse.syscalls.copyfile import copy_data
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.xattr import Target, follows
from unionfuse.union.backing import (
    adopt_fd,
    backing_fd,
    backing_path,
    backing_stat,
    close_fd,
    open_backing,
    open_data,
)
from unionfuse.union.listing import kind_of
from unionfuse.union.lookup import listing_of
from unionfuse.union.metacopy import Fill, keep_within_reach
from unionfuse.union.node import DirNode, Node, Place
from unionfuse.union.publish import DirectoryKept, link_from_index, mark_impure, publish
from unionfuse.union.state import CopyUpNeeded, Union

log = logging.getLogger(__name__)

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# An unprivileged daemon can not give files away, nor set these namespaces: like `cp -a`, it
# keeps what it can. As root in the initial user namespace nothing of this happens.
_NOT_OURS = frozenset({errno.EPERM, errno.EINVAL})
_PRIVILEGED_XATTRS = (b"security.", b"trusted.")


@mutable_record
class CopyUp:
    """A copy-up of one regular file on its way.

    Attributes:
        node: what is copied up.
        temp: name in WORKDIR/work.
        source_fd, target_fd: open on the lower file and on the temporary; ours to close.
        data_fd: open on what has the data: `source_fd`, or another one of ours.
        size: bytes of data to copy.
        sync: whether the data goes to disk before the file is published.
    """

    node: Node
    temp: bytes
    source_fd: int
    target_fd: int
    data_fd: int
    size: int
    sync: bool

    def copy_data(self) -> None:
        """Copy the data; touches nothing but the two descriptors, so a thread may do it.

        Raises:
            OSError: ENOSPC, EDQUOT or EIO.
        """
        copy_data(self.data_fd, self.target_fd, self.size)
        if self.sync and self.size:
            os.fsync(self.target_fd)

    def close(self) -> None:
        """Close what is open but for the target."""
        os.close(self.source_fd)
        if self.data_fd != self.source_fd:
            os.close(self.data_fd)


def require_upper(
    u: Union, node: Node, *, truncate: bool = False, attributes: bool = False
) -> None:
    """Make sure that `node` is in the upper, and its data.

    Args:
        u: the union.
        node: of any kind.
        truncate: the data goes away: it need not come along.
        attributes: only they are going to be changed: the data may stay where it is.

    Raises:
        CopyUpNeeded: if more data has to be moved than an immediate answer allows.
        OSError: EROFS, ENOSPC, EDQUOT, EIO.
    """
    if node.is_upper:
        rare = node.rare
        if rare is not None and rare.data is not None and not (truncate or attributes):
            _require_data(u, node)
        elif rare is not None and rare.is_filling:
            raise CopyUpNeeded(node)  # its end puts back what the attributes were
        return
    u.writable()
    if isinstance(node, DirNode):
        _copy_up_directories(u, node)
        return
    if node.fmt != stat.S_IFREG:
        _copy_up_special(u, node)
        return
    size = 0 if truncate else backing_stat(node).st_size
    if size and attributes and u.makes_metacopies:
        _copy_up_attributes(u, node, size)
        return
    if size and (u.options.sync or size > u.options.inline_bytes):
        raise CopyUpNeeded(node)
    _copy_now(u, begin(u, node, size))


def _require_data(u: Union, node: Node) -> None:
    size = backing_stat(node).st_size
    if node.is_filling or u.options.sync or size > u.options.inline_bytes:
        raise CopyUpNeeded(node)
    _copy_now(u, begin(u, node))


def _copy_now(u: Union, copy: CopyUp | Fill) -> None:
    try:
        copy.copy_data()
    except BaseException:
        abandon(u, copy)
        raise
    finish(u, copy)


def _copy_up_attributes(u: Union, node: Node, size: int) -> None:
    """Copy up a regular file without its data, which is the lower's from now on too."""
    assert node.where is not None, "a node in a lower has a place in it"
    data = node.data or (node.where, node.backing_name)
    copy = _begin(u, node, 0)
    try:
        os.ftruncate(copy.target_fd, size)
        if not u.writable().set_marker(copy.target_fd, names.METACOPY, b""):
            raise CopyUpNeeded(node)
    except BaseException:
        abandon(u, copy)
        raise
    has_more_names = os.fstat(copy.source_fd).st_nlink > 1  # they can part
    _finish(u, copy, data)
    if has_more_names and node.parent is not None:
        place = (node.parent, node.name)
        keep_within_reach(u, node, place, backing_path(node), same=False)


def require_upper_name(u: Union, node: Node, parent: DirNode, name: bytes) -> None:
    """Make sure that `node` is in the upper under this one of its names, for rename."""
    node.prefer_place(parent, name)
    require_upper(u, node, attributes=True)
    kind = listing_of(parent).get(name)
    if kind is None or kind.in_upper:
        return
    # A hard link whose inode was copied up under another name: the index has it.
    require_upper(u, parent)
    link_from_index(u, node, parent, name)


def keep_count(u: Union, node: Node, parent: DirNode, name: bytes) -> None:
    """Enter a lower file with several names into the index before one of them goes.

    There the number of names outlasts a remount (ovl_nlink_start). On a full disk the name can
    go all the same; so it does where the data would have to come along.
    """
    if u.index is None or not node.keys or not u.makes_metacopies:
        return
    try:
        require_upper_name(u, node, parent, name)
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def begin(u: Union, node: Node, size: int | None = None) -> CopyUp | Fill:
    """Begin to copy up the regular file `node`: its parents, and an empty temporary.

    Of a metacopy the data alone is copied, into the file itself.

    Args:
        u: the union.
        node: a regular file in a lower, or a metacopy in the upper.
        size: how much of its data to copy; all by default.
    """
    if node.is_upper:
        return Fill.begin(u, node)
    return _begin(u, node, size)


def _begin(u: Union, node: Node, size: int | None = None) -> CopyUp:
    upper = u.writable()
    if node.parent is not None:
        require_upper(u, node.parent)
    if node.data is None and node.fd >= 0:
        source_fd = os.dup(backing_fd(u, node))
    else:
        source_fd = open_backing(node)
    temp = upper.workdir.temp_name()
    data_fd = source_fd
    try:
        if node.data is not None:
            data_fd = open_data(node.data)
        target_fd = os.open(temp, _NEW_FILE, 0o600, dir_fd=upper.work_fd)
    except BaseException:
        for fd in {source_fd, data_fd}:
            os.close(fd)
        raise
    if size is None:
        size = os.fstat(source_fd).st_size
    return CopyUp(node, temp, source_fd, target_fd, data_fd, size, u.options.sync)


def abandon(u: Union, copy: CopyUp | Fill) -> None:
    """Give up a copy-up: the union is as it was."""
    if isinstance(copy, Fill):
        copy.abandon()
        return
    copy.close()
    os.close(copy.target_fd)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(copy.temp, dir_fd=u.writable().work_fd)


def finish(u: Union, copy: CopyUp | Fill) -> None:
    """Finish a copy-up whose data is there: attributes, and the rename that publishes it.

    A truncation to 0, which needs no data, may have overtaken it: then there is nothing to
    publish, and publishing would bring the old data back.

    Raises:
        OSError: ENOSPC and the like; then the union is as it was.
    """
    if isinstance(copy, Fill):
        copy.finish(u)
    else:
        _finish(u, copy)


def _finish(u: Union, copy: CopyUp, data: Place | None = None) -> None:
    """Finish a copy-up of a file with its data, or of its attributes alone: `data` has it."""
    node, st = copy.node, os.fstat(copy.source_fd)
    if node.is_upper:
        abandon(u, copy)
        return
    was = node.data
    try:
        origin = _origin(u, node, st)
        copy_metadata(u, node, st, copy.source_fd, copy.target_fd, origin)
        if u.options.sync_all:
            os.fsync(copy.target_fd)
        node.data = data  # first: a failure may come when it is in the index already
        publish(u, node, copy.temp, st, origin)
    except BaseException:
        if not node.is_upper:
            node.data = was
        abandon(u, copy)
        raise
    copy.close()
    close_fd(u, node)
    if data is None:
        adopt_fd(u, node, copy.target_fd)
        return
    if node.is_orphan:
        adopt_fd(u, node, copy.target_fd)
    else:
        os.close(copy.target_fd)


def _copy_up_directories(u: Union, node: DirNode) -> None:
    """Copy up a directory, and before it those above that are not in the upper."""
    missing: list[DirNode] = []
    at: DirNode | None = node
    while at is not None and at.upper is None:
        missing.append(at)
        at = at.parent
    for directory in reversed(missing):
        _copy_up_directory(u, directory)


def _copy_up_directory(u: Union, node: DirNode) -> None:
    upper = u.writable()
    parent = node.parent
    if parent is None or parent.upper is None:  # removed: nothing can be put into it any more
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    lower = node.lowers[0]
    st = os.fstat(lower.fd())
    temp = upper.workdir.temp_name()
    os.mkdir(temp, 0o700, dir_fd=upper.work_fd)
    try:
        assert lower.parent is not None, "the roots are in the upper already"
        origin = u.origins.encode(lower.parent, lower.name, st.st_dev)
        target = fd_path(upper.work_fd, temp)
        copy_metadata(u, node, st, fd_path(lower.fd()), target, origin)
        if u.options.sync_all:
            _sync_directory(target)
        mark_impure(u, parent)
        with DirectoryKept(parent.upper):
            upper.publish(temp, parent.upper.fd(), node.name, is_dir=True, over_whiteout=False)
    except BaseException:
        os.rmdir(temp, dir_fd=upper.work_fd)
        raise
    node.upper = LayerDir(parent.upper, node.name)
    listing = listing_of(parent)
    kind = listing.get(node.name)
    assert kind is not None, "a living directory is in its parent's listing"
    listing.replace(node.name, kind_of(kind.fmt, True, kind.covers, kind.lowers))


def _sync_directory(path: bytes) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _copy_up_special(u: Union, node: Node) -> None:
    """Copy up a symlink, device, fifo or socket: made, not copied."""
    upper = u.writable()
    if node.parent is not None:
        require_upper(u, node.parent)
    st = backing_stat(node)
    origin = _origin(u, node, st)
    source = backing_path(node)
    temp = upper.workdir.temp_name()
    if node.fmt == stat.S_IFLNK:
        os.symlink(os.readlink(source), temp, dir_fd=upper.work_fd)
    else:
        os.mknod(temp, node.fmt | 0o600, st.st_rdev, dir_fd=upper.work_fd)
    try:
        copy_metadata(u, node, st, source, fd_path(upper.work_fd, temp), origin)
        fd = os.open(temp, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper.work_fd)
        try:
            publish(u, node, temp, st, origin)
        except BaseException:
            os.close(fd)
            raise
    except BaseException:
        os.unlink(temp, dir_fd=upper.work_fd)
        raise
    close_fd(u, node)
    if node.is_orphan:
        node.fd = fd
    else:
        os.close(fd)


def _origin(u: Union, node: Node, st: os.stat_result) -> bytes | None:
    if node.where is None or node.is_orphan:
        return None
    return u.origins.encode(node.where, node.backing_name, st.st_dev)


def copy_metadata(
    u: Union,
    node: Node,
    st: os.stat_result,
    source: Target,
    target: Target,
    origin: bytes | None,
) -> None:
    """Give `target` owner, mode, attributes and times of `source`, and its origin.

    Both are paths of `fdpath` or descriptors; `source` is what `node` has now.
    """
    mode = stat.S_IMODE(st.st_mode)
    if not _copy_owner(st, target):
        mode &= ~(stat.S_ISUID | stat.S_ISGID)  # of another owner they would mean another thing
    if not stat.S_ISLNK(st.st_mode):
        os.chmod(target, mode)
    _copy_xattrs(u, source, target)
    if u.keep_status is not None:
        u.keep_status(node, st, target)
    if origin is not None:
        u.writable().set_marker(target, names.ORIGIN, origin)
    times = (st.st_atime_ns, st.st_mtime_ns)
    os.utime(target, ns=times, follow_symlinks=follows(target))


def _copy_owner(st: os.stat_result, target: Target) -> bool:
    try:
        os.chown(target, st.st_uid, st.st_gid, follow_symlinks=follows(target))
    except OSError as err:
        if err.errno not in _NOT_OURS:
            raise
        return False
    return True


def _copy_xattrs(u: Union, source: Target, target: Target) -> None:
    for name in xattr.names(source):
        if u.xattr_names.shown(name) is None:
            continue
        value = xattr.get_or_none(source, name)
        if value is None:
            continue
        try:
            xattr.set_(target, name, value)
        except OSError as err:
            if err.errno == errno.EOPNOTSUPP and not name.startswith((b"security.", b"system.")):
                continue  # overlayfs: only these must come along
            if err.errno != errno.EPERM or not name.startswith(_PRIVILEGED_XATTRS):
                raise
