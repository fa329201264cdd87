"""Files in the upper whose data is in a lower still (overlayfs.rst, "Metadata only copy up").

Twin of ovl_copy_up_meta_inode_data (fs/overlayfs/copy_up.c). The data comes into the file
itself, so that its inode and its links stay. Until all of it is on disk the mark is there and
the lower's data counts: a crash leaves a metacopy. Writing data takes capabilities and setuid
away and changes times; they are put back at the end, and nobody changes them meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.record import mutable_record
from unionfuse.syscalls import xattr
from unionfuse.syscalls.copyfile import copy_data
from unionfuse.union.backing import adopt_fd, drop_data, open_backing, open_data
from unionfuse.union.redirect import redirect_of, set_redirect
from unionfuse.union.state import CopyUpNeeded, Union

if TYPE_CHECKING:
    from unionfuse.union.node import DirNode, Node

_CAPABILITY = b"security.capability"


@mutable_record
class Fill:
    """The data of a metacopy on its way into it.

    Attributes:
        node: the metacopy.
        source_fd, target_fd: open on the lower file and on the one in the upper; ours to close.
        st: the status of the one in the upper, to be put back.
        capability: its file capabilities, to be put back.
        sync: whether the data goes to disk before the mark is removed.
    """

    node: Node
    source_fd: int
    target_fd: int
    st: os.stat_result
    capability: bytes | None
    sync: bool

    @classmethod
    def begin(cls, u: Union, node: Node) -> Fill:
        """Open both files."""
        assert node.data is not None, "a metacopy has its data somewhere"
        source_fd = open_data(node.data)
        try:
            target_fd = open_backing(node, write=True)
        except BaseException:
            os.close(source_fd)
            raise
        st = os.fstat(target_fd)
        capability = xattr.get_or_none(target_fd, _CAPABILITY)
        node.is_filling = True
        return cls(node, source_fd, target_fd, st, capability, u.options.sync)

    def copy_data(self) -> None:
        """Copy the data; touches nothing but the two descriptors, so a thread may do it.

        Raises:
            OSError: ENOSPC, EDQUOT or EIO.
        """
        copy_data(self.source_fd, self.target_fd, self.st.st_size)
        if self.sync:
            os.fsync(self.target_fd)

    def abandon(self) -> None:
        """Give up: the file is a metacopy as before, and takes no more room than that."""
        try:
            with contextlib.suppress(OSError):  # its size, and what it takes, count for nothing
                os.ftruncate(self.target_fd, 0)
            os.ftruncate(self.target_fd, self.st.st_size)
            self._put_back()
        finally:
            self.node.is_filling = False
            os.close(self.source_fd)
            os.close(self.target_fd)

    def finish(self, u: Union) -> None:
        """Make the data that is there now the file's own."""
        try:
            self._put_back()
            u.writable().remove_marker(self.target_fd, names.METACOPY)
        except BaseException:
            self.abandon()
            raise
        self.node.is_filling = False
        os.close(self.source_fd)
        _own_data(u, self.node, self.target_fd)
        adopt_fd(u, self.node, self.target_fd)

    def _put_back(self) -> None:
        now, st = os.fstat(self.target_fd), self.st
        if now.st_mode != st.st_mode:
            os.fchmod(self.target_fd, stat.S_IMODE(st.st_mode))
        if self.capability is not None:
            xattr.set_(self.target_fd, _CAPABILITY, self.capability)
        os.utime(self.target_fd, ns=(st.st_atime_ns, st.st_mtime_ns))


def forget_data(u: Union, node: Node, fd: int) -> None:
    """Note that a metacopy, open as `fd`, was made empty and has all of its data."""
    if node.data is not None:
        u.writable().remove_marker(fd, names.METACOPY)
        _own_data(u, node, fd)


def _own_data(u: Union, node: Node, fd: int) -> None:
    if node.redirect is not None:
        u.writable().remove_marker(fd, names.REDIRECT)
    drop_data(node)


def keep_within_reach(
    u: Union, node: Node, place: tuple[DirNode, bytes], target: xattr.Target, *, same: bool
) -> None:
    """Let a metacopy, which is going to have another name, say where its data is.

    Args:
        u: the union.
        node: a metacopy.
        place: where it is now.
        target: its backing in the upper.
        same: whether it is going to stay in that directory, under one name.

    Raises:
        CopyUpNeeded: if it can not say so: then the data has to come up.
    """
    if not u.makes_redirects:
        raise CopyUpNeeded(node)
    try:
        redirect = redirect_of(u, node, *place, same=same)
        if redirect is not None:
            set_redirect(u, node, target, redirect)
    except OSError:
        raise CopyUpNeeded(node) from None
