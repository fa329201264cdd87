"""Where a directory, or the data of a metacopy, is in the lowers when it was renamed.

Twin of the redirects of fs/overlayfs/namei.c and dir.c (overlayfs.rst, "Renaming directories"
and "Metadata only copy up"). `overlay.redirect` of what is in one layer says where the layers
below it have the same: `NAME`, in the same directory; or `/PATH`, from the root of the union.
A path is walked in each layer by itself, and what is met on the way there, whiteouts, opaque
directories and other redirects, counts for the layers below.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import Marks, file_marks, find, marks_of
from unionfuse.layer.stack import UPPER
from unionfuse.syscalls.fdpath import fd_path
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
    return [LayerDir(*place) for place in _Search(u, parent, name, above).run(redirect)]


def data_place(
    u: Union, parent: DirNode, name: bytes, redirect: bytes | None, above: int = UPPER
) -> Place:
    """Return where the data of a metacopy called `name` in `parent` is; arguments as above.

    Raises:
        OSError: EIO where no lower has it, and as `lower_directories`.
    """
    search = _Search(u, parent, name, above, is_dir=False)
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


@dataclass(slots=True)
class _Search:
    """A way down through the layers (ovl_lookup, ovl_lookup_layer, ovl_lookup_single).

    Attributes:
        target: what is looked for in the next layer: a name in the directory of `parent`, or a
            path from the root.
        layer: number of the layer that was looked into last.
        stops: nothing below is of interest.
        wants_data: what was found last is a metacopy.
    """

    u: Union
    parent: DirNode
    target: bytes
    layer: int
    is_dir: bool = True
    stops: bool = False
    wants_data: bool = False

    def run(self, redirect: bytes | None) -> list[Place]:
        """Return what is found, topmost first."""
        found: list[Place] = []
        if redirect is not None:
            self._redirect(redirect, b"", b"")
        while not self.stops:
            base = self._next()
            if base is None:
                break
            self.layer = base.layer
            place = self._in_layer(base)
            if place is not None:
                found.append(place)
        return found

    def _next(self) -> LayerDir | None:
        is_path = self.target.startswith(b"/")
        bases = self.u.root.lowers if is_path else self.parent.lowers
        return next((base for base in bases if base.layer > self.layer), None)

    def _in_layer(self, base: LayerDir) -> Place | None:
        """Look for the target in the layer of `base`; leave what to look for further down."""
        target = self.target
        parts = target.removeprefix(b"/").split(b"/")
        prefix = b"/" if target.startswith(b"/") else b""
        for position, part in enumerate(parts):
            is_last = position == len(parts) - 1
            st, hides = find(base, part)
            self.stops = self.stops or hides
            if st is None:
                return None
            rest = b"".join(b"/" + later for later in parts[position + 1 :])
            if not stat.S_ISDIR(st.st_mode):
                if is_last and not self.is_dir and stat.S_ISREG(st.st_mode):
                    return self._file(base, part, prefix)
                self.stops = True
                return None
            if is_last and not self.is_dir:
                self.stops = True
                return None
            directory = LayerDir(base, part)
            if base.layer != self.u.root.lowers[-1].layer:
                self._obey(marks_of(directory, self.u.xattr_names.own), prefix, rest)
            if is_last:
                return base, part
            base, prefix = directory, prefix + part + b"/"
        raise AssertionError("a target has at least one part")

    def _file(self, base: LayerDir, name: bytes, prefix: bytes) -> Place:
        marks = file_marks(fd_path(base.fd(), name), self.u.xattr_names.own)
        self.wants_data = marks.metacopy
        if marks.metacopy:
            self._obey(marks, prefix, b"")
        else:
            self.stops = True
        return base, name

    def _obey(self, marks: Marks, prefix: bytes, rest: bytes) -> None:
        if marks.opaque:
            self.stops = True
        elif marks.redirect is not None:
            self._redirect(marks.redirect, prefix, rest)

    def _redirect(self, redirect: bytes, prefix: bytes, rest: bytes) -> None:
        if self.u.options.redirect_dir == "nofollow":
            raise oserror(errno.EPERM)
        parts = redirect.removeprefix(b"/").split(b"/")
        is_path = redirect.startswith(b"/")
        # A layer is not left: neither by `..` nor by what the kernel takes for no name at all.
        if any(part in (b"", b".", b"..") for part in parts) or (len(parts) > 1 and not is_path):
            log.warning("a redirect is broken: %s", os.fsdecode(redirect))
            raise oserror(errno.EIO)
        if is_path:
            self.stops = False  # an opaque directory on the way says nothing about another path
            self.target = redirect + rest
        else:
            self.target = prefix + redirect + rest
