"""Where a directory, or the data of a metacopy, is in the lowers when it was renamed.

Twin of the redirects of fs/overlayfs/dir.c (overlayfs.rst, "Renaming directories"). How they are
followed is in `layer.redirect`; here they are asked for, and written.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.redirect import Search
from unionfuse.layer.stack import UPPER
from unionfuse.union.state import Union, oserror

if TYPE_CHECKING:
    from unionfuse.syscalls.xattr import Target
    from unionfuse.union.node import DirNode, Node, Place

log = logging.getLogger(__name__)

_MAX = 3000  # bytes; overlayfs makes up to redirect_max (256) by itself, and reads any


def lower_directories(
    u: Union, parent: DirNode, name: bytes, redirect: bytes | None, above: int = UPPER
) -> list[LayerDir]:
    """Return the directories that are merged below one called `name` in `parent`, topmost first.

    Args:
        u: the union.
        parent: where it is.
        name: its name in the layers of `parent`.
        redirect: what it says about the layers below, if it says anything.
        above: number of the layer below which they are looked for.

    Raises:
        OSError: EPERM for a redirect with `redirect_dir=nofollow`, EIO for a broken one.
    """
    return [LayerDir(*place) for place in _search(u, parent, name, above).run(redirect)]


def data_place(
    u: Union, parent: DirNode, name: bytes, redirect: bytes | None, above: int = UPPER
) -> Place:
    """Return where the data of a metacopy called `name` in `parent` is; arguments as above.

    Raises:
        OSError: EIO where no lower has it, and as `lower_directories`.
    """
    search = _search(u, parent, name, above, is_dir=False)
    found = search.run(redirect)
    if not found or search.wants_data:
        log.warning("the data of %s is in no lower layer", os.fsdecode(name))
        raise oserror(errno.EIO)
    return found[-1]


def redirect_of(u: Union, node: Node, parent: DirNode, name: bytes, *, same: bool) -> bytes | None:
    """Return the redirect that `node`, at this one of its places, needs to be moved from there.

    Args:
        u: the union.
        node: a directory that lies in a lower too, or a metacopy.
        parent: where it is.
        name: its name there.
        same: whether it is going to stay in `parent`, and has no other names.

    Returns:
        None if the one it has says it already.

    Raises:
        OSError: ENAMETOOLONG if it would be too long for an attribute.
    """
    own = node.redirect
    if own is not None and (same or own.startswith(b"/")):
        return None
    if same:
        return name
    path = own or name
    at: DirNode | None = parent
    while at is not None and at is not u.root and not path.startswith(b"/"):
        path = (at.redirect or at.name) + b"/" + path
        at = at.parent
    if not path.startswith(b"/"):
        path = b"/" + path
    if len(path) > _MAX:
        raise oserror(errno.ENAMETOOLONG)
    return path


def set_redirect(u: Union, node: Node, target: Target, redirect: bytes) -> None:
    """Write the redirect of `node`, whose backing in the upper is `target`.

    Raises:
        OSError: EXDEV where the upper can not keep it.
    """
    if not u.writable().set_marker(target, names.REDIRECT, redirect):
        raise oserror(errno.EXDEV)
    node.redirect = redirect


def _search(u: Union, parent: DirNode, name: bytes, above: int, *, is_dir: bool = True) -> Search:
    return Search(
        u.root.lowers,
        parent.lowers,
        name,
        u.xattr_names.own,
        above,
        is_dir,
        follows=u.options.redirect_dir != "nofollow",
    )
