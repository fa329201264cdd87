"""The stack of layers that a union is made of: an upper, if it is writable, over the lowers."""

from __future__ import annotations

import os
from dataclasses import dataclass

from unionfuse.layer.directory import DirectoryFds, LayerDir

UPPER = 0  # the upper's number; lowers count from 1, topmost first


@dataclass(frozen=True, slots=True)
class LayerStack:
    """Opened layers.

    Attributes:
        upper: root of the writable layer; None for a read-only union.
        lowers: roots of the read-only layers, topmost first.
        fds: the descriptors of their directories.
        root_fds: the descriptors of the roots, closed with the stack.
    """

    upper: LayerDir | None
    lowers: tuple[LayerDir, ...]
    fds: DirectoryFds
    root_fds: tuple[int, ...]

    @classmethod
    def open(cls, upper: bytes | None, lowers: list[bytes], max_open_dirs: int = 512) -> LayerStack:
        """Open the layers at these paths (symlinks in the paths themselves are followed).

        Raises:
            OSError: ENOENT, ENOTDIR or EACCES with the path of the layer it is about.
        """
        fds = DirectoryFds(max_open_dirs)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        opened: list[int] = []
        try:
            for path in lowers if upper is None else [upper, *lowers]:
                fd = os.open(path, flags)
                opened.append(fd)
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        first = 0 if upper is None else 1
        return cls(
            upper=None if upper is None else LayerDir.root(UPPER, opened[0], fds),
            lowers=tuple(
                LayerDir.root(number, fd, fds) for number, fd in enumerate(opened[first:], 1)
            ),
            fds=fds,
            root_fds=tuple(opened),
        )

    def close(self) -> None:
        """Close all descriptors."""
        self.fds.close()
        for fd in self.root_fds:
            os.close(fd)
