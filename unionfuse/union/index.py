"""Hard links that stay hard links when one of their names is copied up.

Twin of the index of fs/overlayfs (overlayfs.rst, "Inode properties"; super.c, copy_up.c).
A lower file with several names is copied up once, into

    WORKDIR/index/<hex of its origin>

and each name that is changed becomes a hard link of that. A name that is still only in the
lower is led there when it is looked up. How many names the union has is kept relative to
the link count in the upper, as the kernel does, in `overlay.nlink` = `U+N` or `U-N`
(`L+N` and `L-N`, relative to the lower's, are read too).

Where the lower has no file handles the entry lies in WORKDIR/work and lives as long as the
mount.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.stack import UPPER
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from unionfuse.layer.upper import Upper
    from unionfuse.union.origin import Origins


log = logging.getLogger(__name__)


class Index:
    """The copied-up hard links of one upper."""

    def __init__(
        self, upper: Upper, origins: Origins, index: LayerDir | None, fds_of: LayerDir
    ) -> None:
        """Keep entries in `index`, None: for this mount; `fds_of` is any directory of the upper."""
        self._upper = upper
        self._origins = origins
        self._passing = LayerDir.root(UPPER, upper.work_fd, fds_of.fds)
        self._kept = index or self._passing

    def place(self, where: LayerDir, name: bytes, st: os.stat_result) -> tuple[LayerDir, bytes]:
        """Return directory and name of the entry for the lower file `name` in `where`."""
        origin = self._origins.encode(where, name, st.st_dev)
        if origin is None or self._kept is self._passing:
            return self._passing, b"link-%x-%x" % (st.st_dev, st.st_ino)
        return self._kept, origin.hex().encode()

    def find(
        self, where: LayerDir, name: bytes, st: os.stat_result
    ) -> tuple[LayerDir, bytes, os.stat_result] | None:
        """Return where the lower file `name` in `where` was copied up to, None if it was not."""
        return _stat_entry(*self.place(where, name, st))

    def find_origin(self, origin: bytes) -> tuple[LayerDir, bytes, os.stat_result] | None:
        """Return where the lower file with this origin was copied up to, None if it was not."""
        return _stat_entry(self._kept, origin.hex().encode())

    def holds(self, where: LayerDir | None) -> bool:
        """Tell whether directory `where` is one of the index."""
        return where is self._kept or where is self._passing

    def read_nlink_delta(
        self, directory: LayerDir, entry: bytes, nlinks: tuple[int, int]
    ) -> tuple[int, bool]:
        """Return how many names an entry has in the union, less its links in the upper.

        And whether that is known: where no attribute can keep it, it is a guess.

        Args:
            directory: where the entry is.
            entry: its name.
            nlinks: link counts of the upper and of the lower file.
        """
        upper_nlink, lower_nlink = nlinks
        value = self._upper.get_marker(fd_path(directory.fd(), entry), names.NLINK)
        with contextlib.suppress(ValueError):
            if value is not None and value[:1] == b"U":
                return int(value[1:]), True
            if value is not None and value[:1] == b"L":
                return lower_nlink + int(value[1:]) - upper_nlink, True
        return lower_nlink - upper_nlink, False

    def write_nlink_delta(self, directory: LayerDir, entry: bytes, delta: int) -> None:
        """Keep what `read_nlink_delta` returns."""
        path = fd_path(directory.fd(), entry)
        try:
            self._upper.set_marker(path, names.NLINK, b"U%+d" % delta)
        except OSError as err:  # the change that is counted is made; only the count is lost
            log.warning("link count of %s not kept: %s", os.fsdecode(entry), err)

    def remove(self, directory: LayerDir, entry: bytes) -> None:
        """Remove an entry whose last name in the union has gone."""
        try:
            os.unlink(entry, dir_fd=directory.fd())
        except OSError as err:
            log.warning("entry %s stays in the index: %s", os.fsdecode(entry), err)


def _stat_entry(directory: LayerDir, entry: bytes) -> tuple[LayerDir, bytes, os.stat_result] | None:
    try:
        found = os.stat(entry, dir_fd=directory.fd(), follow_symlinks=False)
    except FileNotFoundError:
        return None
    return directory, entry, found
