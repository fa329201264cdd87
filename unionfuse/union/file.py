"""Open files. Twin of fs/overlayfs/file.c."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.union.attr import clear_mode_bits
from unionfuse.union.backing import AppendOnly, backing_fd
from unionfuse.union.copy_up import require_upper
from unionfuse.union.metacopy import forget_data

if TYPE_CHECKING:
    from unionfuse.union.node import Node
    from unionfuse.union.state import Union


def open_file(u: Union, node: Node, flags: int, *, killed_bits: int = 0) -> None:
    """Prepare `node` for a handle opened with `flags`: O_ACCMODE, O_TRUNC and O_APPEND count.

    Copy-up happens here, as on overlayfs, so that a full upper is told at open.

    Args:
        u: the union.
        node: a regular file.
        flags: as open(2).
        killed_bits: mode bits that O_TRUNC clears, see `Changes`.

    Raises:
        CopyUpNeeded: if it is to be written and has to be copied up first.
        OSError: EROFS, EACCES, EPERM where chattr(1) forbids it, and what the layer says.
    """
    write = flags & os.O_ACCMODE != os.O_RDONLY
    truncate = bool(flags & os.O_TRUNC)
    if write or truncate:
        require_upper(u, node, truncate=truncate)
    try:
        fd = backing_fd(u, node, write=write or truncate)
    except AppendOnly as only:
        if truncate or not flags & os.O_APPEND:
            raise
        fd = only.fd
    if truncate:
        os.ftruncate(fd, 0)
        forget_data(u, node, fd)
        clear_mode_bits(node, killed_bits)
    node.opens += 1
