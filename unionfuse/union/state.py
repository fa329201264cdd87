"""What every verb works on: the stack, its upper, the nodes, and the policies."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from unionfuse.layer.names import TRUSTED
from unionfuse.record import field, mutable_record, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.layer.names import XattrNames
    from unionfuse.layer.stack import LayerStack
    from unionfuse.layer.upper import Upper
    from unionfuse.syscalls.xattr import Target
    from unionfuse.union.ids import IdMap
    from unionfuse.union.index import Index
    from unionfuse.union.node import DirNode, Key, Node, NodeTable
    from unionfuse.union.origin import InodeNumbers, Origins


@record
class Options:
    """How a union behaves.

    Attributes:
        sync: write copied data to disk before it is published (overlayfs: fsync=auto).
        sync_all: and all attributes, those of directories too (overlayfs: fsync=strict).
        marks_volatile: leave the mark in the workdir by which the next mount is refused.
        inline_bytes: copy-ups of no more data than this are made at once, without
            `CopyUpNeeded`, where nothing has to be written to disk.
        nodeid_is_ino: nodeids are inode numbers.
        max_backing_fds: how many backing files are open at most, >= 1.
        metacopy: copy up attributes without data where they alone are changed.
        redirect_dir: on, follow, nofollow or off, as overlayfs.rst has it: whether a directory
            of a lower can be renamed, and whether those that were are found. Both None: on
            where the marks are `trusted.overlay.*`. Nobody else follows them in `user.overlay.*`:
            overlayfs refuses such files, and for fuse-overlayfs they hold nothing but zeros.
        index: keep hard links of lower files over a remount.
        xino: on, off or auto: whether inode numbers are made unique over several filesystems.
        nfs_export: nodes stay known after the kernel has forgotten them.
        uids, gids: how owners are shown; None: as they are.
        static_nlink: show 1 as the link count of every directory.
        short_ino: inode numbers have 32 bits, and need not be unique.
        override: `xattr_permissions` of fuse-overlayfs, see `union.override`.
    """

    sync: bool = True
    sync_all: bool = False
    marks_volatile: bool = False
    inline_bytes: int = 64 * 1024
    nodeid_is_ino: bool = False
    max_backing_fds: int = 512
    metacopy: bool | None = None
    redirect_dir: str | None = None
    index: bool = True
    xino: str = "auto"
    nfs_export: bool = False
    uids: IdMap | None = None
    gids: IdMap | None = None
    static_nlink: bool = False
    short_ino: bool = False
    override: int = 0


class Caller(NamedTuple):
    """On whose behalf something is made; umask is not applied yet to the modes passed with it."""

    uid: int
    gid: int
    umask: int = 0


class Attr(NamedTuple):
    """Attributes of a node: `st`, with what differs in the union beside it."""

    ino: int
    nlink: int
    st: os.stat_result


class Entry(NamedTuple):
    """The result of a lookup."""

    node: Node
    attr: Attr


class CopyUpNeeded(Exception):
    """`node` has to be copied up first: copy it (`union.copy_up`) and ask again."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node = node


@mutable_record
class Union:
    """The state of one union.

    Attributes:
        upper: None for a read-only union; so is `index`.
        backing_fds: open backing files that may be closed, the longest unused first.
        removed_links: of lower files with several names, how many of them were removed. The
            index would keep that over a remount, but only for what is copied up.
        keep_status: says of a copy, given as target, what is shown of a node, of whose backing the
            disk says so much; None where the disk says all of it.
    """

    stack: LayerStack
    options: Options
    upper: Upper | None
    index: Index | None
    xattr_names: XattrNames
    origins: Origins
    inodes: InodeNumbers
    table: NodeTable
    root: DirNode
    backing_fds: dict[Node, None] = field(default_factory=dict)
    removed_links: dict[Key, int] = field(default_factory=dict)
    keep_status: Callable[[Node, os.stat_result, Target], None] | None = None

    @property
    def lacks_origins(self) -> bool:
        """Whether a copy-up can not record its origin, for want of extended attributes."""
        return self.upper is not None and self.upper.format.prefix is None

    @property
    def makes_redirects(self) -> bool:
        """Whether directories of lowers are renamed, and metacopies, by a mark on them."""
        if self.upper is None or self.upper.format.prefix is None:
            return False
        choice = self.options.redirect_dir
        return self.upper.format.prefix == TRUSTED if choice is None else choice == "on"

    @property
    def makes_metacopies(self) -> bool:
        """Whether attributes are copied up without data (overlayfs: only with redirects)."""
        choice = self.options.metacopy
        if choice is None:
            choice = self.upper is not None and self.upper.format.prefix == TRUSTED
        return choice and self.makes_redirects and not self.options.sync_all

    def writable(self) -> Upper:
        """Return the upper; raise OSError EROFS if there is none."""
        if self.upper is None:
            raise oserror(errno.EROFS)
        return self.upper


def oserror(code: int) -> OSError:
    """Return an `OSError` for `code`."""
    return OSError(code, os.strerror(code))
