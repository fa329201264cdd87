"""Names in the lowers of files that were copied up under another name (overlayfs.rst, "index").

The union shows the new content by all of them, and the upper has those that were changed. The rest
have to be told too, or the image would have the old content by them. Only where the count that
overlays keep on such a file says that there are more are the lowers searched.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.image.layers.walk import Walk
from unionfuse.layer import handle, names
from unionfuse.layer.stack import UPPER
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.handles import name_to_handle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.image.layers.walk import Item
    from unionfuse.layer.stack import LayerStack


class CopiedLinks:
    """The files of an upper that have more names in the union than in the upper.

    Attributes:
        stale: how many such names were told with the old content, as a part of a renamed
            directory.
    """

    def __init__(self, own: bytes) -> None:
        """Look for marks in the namespace `own`."""
        self._own = own
        self._first: dict[tuple[int, bytes], bytes] = {}
        self._told: set[bytes] = set()
        self.stale = 0

    def look(self, item: Item) -> None:
        """Take note of an entry that has gone into the tar."""
        if item.kind == stat.S_IFDIR:
            self._told.add(item.path)
            return
        assert item.where is not None, "only markers have no place"
        st = os.stat(item.name, dir_fd=item.where.fd(), follow_symlinks=False)
        if st.st_nlink < 2:
            return
        self._told.add(item.path)
        if item.where.layer != UPPER:
            return
        target = fd_path(item.where.fd(), item.name)
        value = xattr.get_or_none(target, self._own + names.NLINK)
        origin = handle.parse(xattr.get_or_none(target, self._own + names.ORIGIN) or b"")
        if value is None or origin is None or not value.startswith(b"U"):
            return
        with contextlib.suppress(ValueError):
            # One of the links is the entry of the index.
            if st.st_nlink + int(value[1:]) > st.st_nlink - 1:
                self._first.setdefault((origin.handle_type, origin.fid), item.path)

    def others(self, stack: LayerStack) -> Iterator[tuple[Item, bytes]]:
        """Yield the other names, each with the first one, and before them their directories.

        The directories are those that the tar does not have by now.
        """
        if not self._first:
            return
        above: list[Item] = []
        for item in Walk(stack, self._own, is_whole=True).items():
            while above and not item.path.startswith(above[-1].path + b"/"):
                above.pop()
            if item.kind == stat.S_IFDIR:
                above.append(item)
                continue
            first = self._first_name(item)
            if first is None:
                continue
            if item.path in self._told:
                self.stale += 1
                continue
            for directory in above:
                if directory.path not in self._told:
                    self._told.add(directory.path)
                    yield directory, b""
            yield item, first

    def _first_name(self, item: Item) -> bytes | None:
        if item.where is None or item.where.layer == UPPER:
            return None
        fd = item.where.fd()
        if os.stat(item.name, dir_fd=fd, follow_symlinks=False).st_nlink < 2:
            return None
        try:
            return self._first.get(name_to_handle(fd, item.name))
        except OSError:  # a filesystem without handles has copied up no links
            return None
