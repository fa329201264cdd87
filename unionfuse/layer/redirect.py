"""Find in lower layers what is merged below a directory, or holds the data of a metacopy.

Twin of ovl_lookup, ovl_lookup_layer and ovl_lookup_single (fs/overlayfs/namei.c; overlayfs.rst,
"Renaming directories" and "Metadata only copy up"). `overlay.redirect` of what is in one layer
says where the layers below it have the same: `NAME`, in the same directory; or `/PATH`, from the
root of the union. A path is walked in each layer by itself, and what is met on the way there,
whiteouts, opaque directories and other redirects, counts for the layers below.
"""

from __future__ import annotations

import errno
import logging
import os
import stat

from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import Marks, file_marks, find, is_opaque, marks_of
from unionfuse.layer.stack import UPPER
from unionfuse.record import mutable_record
from unionfuse.syscalls.fdpath import fd_path

log = logging.getLogger(__name__)

_NAME_MAX = 255

Place = tuple[LayerDir, bytes]


def is_valid(redirect: bytes) -> bool:
    """Tell whether a redirect leads anywhere at all: to a name, or down a path from the root.

    A layer is not left: neither by `..` nor by what the kernel takes for no name at all.
    """
    parts = redirect.removeprefix(b"/").split(b"/")
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        return False
    return redirect.startswith(b"/") or len(parts) == 1


def has_possible_names(redirect: bytes) -> bool:
    """Tell whether no name in a valid redirect is longer than any file's name can be."""
    return all(len(part) <= _NAME_MAX for part in redirect.split(b"/"))


def not_hidden(upper: LayerDir | None, lowers: tuple[LayerDir, ...]) -> tuple[LayerDir, ...]:
    """Return the roots of the lowers down to the first whose very root is opaque."""
    shown: list[LayerDir] = []
    is_closed = upper is not None and is_opaque(upper)
    for lower in lowers:
        if is_closed:
            break
        shown.append(lower)
        is_closed = is_opaque(lower)
    return tuple(shown)


@mutable_record
class Search:
    """A way down through the layers, for one name.

    Attributes:
        roots: the roots of the lowers, topmost first; those that are not hidden.
        bases: the directories of lowers that are merged in the one where the name is.
        target: what is looked for in the next layer: a name in `bases`, or a path from `roots`.
        own: the namespace of the mount, in which redirects and metacopies count.
        layer: number of the layer that was looked into last; begin with the one that is above.
        is_dir: whether directories are looked for, or the data of a file.
        follows: whether redirects are; if not, they are EPERM.
        stops: nothing below is of interest.
        wants_data: what was found last is a metacopy.
    """

    roots: tuple[LayerDir, ...]
    bases: tuple[LayerDir, ...]
    target: bytes
    own: bytes
    layer: int = UPPER
    is_dir: bool = True
    follows: bool = True
    stops: bool = False
    wants_data: bool = False

    def run(self, redirect: bytes | None) -> list[Place]:
        """Return what is found, topmost first; `redirect` is what the layer above says.

        Raises:
            OSError: EPERM for a redirect that is not to be followed, EIO for a broken one.
        """
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
        bases = self.roots if self.target.startswith(b"/") else self.bases
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
            if base.layer != self.roots[-1].layer:
                self._obey(marks_of(directory, self.own), prefix, rest)
            if is_last:
                return base, part
            base, prefix = directory, prefix + part + b"/"
        raise AssertionError("a target has at least one part")

    def _file(self, base: LayerDir, name: bytes, prefix: bytes) -> Place:
        marks = file_marks(fd_path(base.fd(), name), self.own)
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
        if not self.follows:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if not is_valid(redirect):
            log.warning("a redirect is broken: %s", os.fsdecode(redirect))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if redirect.startswith(b"/"):
            self.stops = False  # an opaque directory on the way says nothing about another path
            self.target = redirect + rest
        else:
            self.target = prefix + redirect + rest
