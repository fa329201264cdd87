"""A layer's directories as descriptors, of which a bounded number is open.

Every path inside a layer is walked one component at a time with `O_NOFOLLOW` from the
layer's root, so no symlink that a stranger put into a layer leads outside it, and depth is
not bounded by PATH_MAX.
"""

from __future__ import annotations

import os
from collections import OrderedDict

_OPEN_DIR = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryFds:
    """The open descriptors of all layers' directories; the longest unused is closed first.

    Attributes:
        capacity: how many are open at most.
        last, last_fd: the directory that was used last, and its descriptor.
    """

    def __init__(self, capacity: int) -> None:
        """Keep at most `capacity` descriptors (at least 8: one operation uses up to four)."""
        self.capacity = max(capacity, 8)
        self._open: OrderedDict[LayerDir, int] = OrderedDict()
        self.last: LayerDir | None = None
        self.last_fd = -1

    def get(self, directory: LayerDir) -> int | None:
        """Return the descriptor of `directory` if it is open, and count that as a use."""
        fd = self._open.get(directory)
        if fd is not None:
            self._open.move_to_end(directory)
            self.last, self.last_fd = directory, fd
        return fd

    def put(self, directory: LayerDir, fd: int) -> None:
        """Keep `fd` for `directory`, closing the longest unused one if there are too many."""
        self._open[directory] = fd
        self.last, self.last_fd = directory, fd
        if len(self._open) > self.capacity:
            os.close(self._open.popitem(last=False)[1])

    def forget(self, directory: LayerDir) -> None:
        """Close the descriptor of `directory` if it is open."""
        fd = self._open.pop(directory, None)
        if fd is not None:
            if directory is self.last:
                self.last = None
            os.close(fd)

    def close(self) -> None:
        """Close all."""
        self.last = None
        while self._open:
            os.close(self._open.popitem()[1])


class LayerDir:
    """One directory of one layer.

    Attributes:
        layer: number of the layer in the stack, 0 for the upper; immutable.
        parent: the directory above; None for the layer's root.
        name: its name there. A rename in the upper changes both; below it, nothing.
    """

    __slots__ = ("fds", "layer", "name", "parent", "root_fd")

    def __init__(self, parent: LayerDir, name: bytes) -> None:
        self.parent: LayerDir | None = parent
        self.name = name
        self.layer: int = parent.layer
        self.fds: DirectoryFds = parent.fds
        self.root_fd = -1

    @classmethod
    def root(cls, layer: int, root_fd: int, fds: DirectoryFds) -> LayerDir:
        """Return the root of layer number `layer`, open as `root_fd` for as long as it lives."""
        self = cls.__new__(cls)
        self.parent = None
        self.name = b""
        self.layer = layer
        self.fds = fds
        self.root_fd = root_fd
        return self

    def fd(self) -> int:
        """Return an O_PATH descriptor, good until several other directories were used.

        Raises:
            OSError: ENOENT, ENOTDIR or ELOOP if somebody changed the layer below the union.
        """
        fds = self.fds
        if fds.last is self:  # requests come in runs for one directory
            return fds.last_fd
        if self.root_fd >= 0:
            return self.root_fd
        fd = fds.get(self)
        return self._walk() if fd is None else fd

    def _walk(self) -> int:
        closed: list[LayerDir] = []
        at: LayerDir = self
        fd: int | None = None
        while fd is None:
            closed.append(at)
            assert at.parent is not None, "only a root has no parent, and it is open"
            at = at.parent
            fd = at.root_fd if at.root_fd >= 0 else self.fds.get(at)
        # The middle of a long walk would push everything else out of the cache.
        keep = len(closed) <= self.fds.capacity // 2
        passing = -1
        for directory in reversed(closed):
            try:
                fd = os.open(directory.name, _OPEN_DIR, dir_fd=fd)
            finally:
                if passing >= 0:
                    os.close(passing)
                    passing = -1
            if keep or directory is self:
                self.fds.put(directory, fd)
            else:
                passing = fd
        return fd

    def forget(self) -> None:
        """Close what is open for it; it is reopened when needed."""
        self.fds.forget(self)
