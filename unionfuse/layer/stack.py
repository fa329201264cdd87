"""The stack of layers that a union is made of: an upper, if it is writable, over the lowers."""

from __future__ import annotations

import os

from unionfuse.layer.directory import DirectoryFds, LayerDir
from unionfuse.record import record
from unionfuse.syscalls.mount import frozen_view, private_view

_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

UPPER = 0  # the upper's number; lowers count from 1, topmost first


@record
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
    root_fds: list[int]

    @classmethod
    def open(
        cls,
        upper: bytes | None,
        lowers: list[bytes],
        max_open_dirs: int = 512,
        *,
        private_lowers: bool = False,
        mountpoint: bytes | None = None,
    ) -> LayerStack:
        """Open the layers at these paths (symlinks in the paths themselves are followed).

        With `private_lowers` each lower is seen through a mount of its own, if that may be:
        others who read it by our descriptors do not change its access times then. A lower that
        holds `mountpoint` is seen as it is before the mount: whoever serves the union and found
        it in a lower would wait for itself.

        Raises:
            OSError: ENOENT, ENOTDIR or EACCES with the path of the layer it is about; EPERM for
                one that holds `mountpoint`, without CAP_SYS_ADMIN.
        """
        fds = DirectoryFds(max_open_dirs)
        opened: list[int] = []
        try:
            if upper is not None:
                opened.append(_open(upper))
            for lower in lowers:
                if mountpoint is not None and is_within(mountpoint, lower):
                    opened.append(_open_frozen(lower))
                else:
                    opened.append(_open_private(lower) if private_lowers else _open(lower))
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
            root_fds=opened,
        )

    def close(self) -> None:
        """Close all descriptors; may be called again."""
        self.fds.close()
        while self.root_fds:
            os.close(self.root_fds.pop())


def is_within(path: bytes, directory: bytes) -> bool:
    """Tell whether `path` is `directory` or below it; both absolute and without symlinks."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def _open_frozen(path: bytes) -> int:
    try:
        return frozen_view(path)
    except OSError as err:
        what = f"it holds the mountpoint, and may not be looked at without it: {err.strerror}"
        raise OSError(err.errno, what, path) from None


def _open(path: bytes) -> int:
    return os.open(path, _FLAGS)


def _open_private(path: bytes) -> int:
    try:
        return private_view(os.path.realpath(path))
    except OSError:  # not permitted, not known to this kernel, or no such directory
        return _open(path)
