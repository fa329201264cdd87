"""The directories of snapshots: how they come, what they take on disk, and how they go.

    ROOT/snapshots/ID/fs      what is in the snapshot itself
    ROOT/snapshots/ID/work    the workdir of its mount, if it is active
    ROOT/snapshots/new-...    one that is being made
    ROOT/snapshots/left-...   what is left of one, to be removed

Which ids are those of snapshots, the store knows: the rest is what a crash, or a removal, has left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from unionfuse.layer.workdir import remove_tree
from unionfuse.snapshots.record import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512  # bytes in a unit of st_blocks
_RETRY_SECONDS = 0.02
_LEFT = "left-"


class Directories:
    """The directories below one root, which one process uses at a time."""

    def __init__(self, root: Path) -> None:
        """Use those below `root`, which exists."""
        self._base = root / "snapshots"
        self._base.mkdir(mode=0o700, exist_ok=True)

    def fs(self, identifier: int) -> Path:
        """Return where the files of a snapshot are."""
        return self._base / str(identifier) / "fs"

    def work(self, identifier: int) -> Path:
        """Return the workdir of an active snapshot."""
        return self._base / str(identifier) / "work"

    def make(self, *, has_work: bool) -> Path:
        """Make directories that are nobody's yet; `publish` gives them to a snapshot."""
        made = Path(tempfile.mkdtemp(prefix="new-", dir=self._base))
        (made / "fs").mkdir()
        (made / "fs").chmod(0o755)  # whatever the umask is
        if has_work:
            (made / "work").mkdir(mode=0o700)
        return made

    def publish(self, made: Path, identifier: int) -> None:
        """Give what `make` returned to the snapshot `identifier`.

        Its name is on disk when this returns: the row that says so is written after it.
        """
        path = self._base / str(identifier)
        try:
            made.rename(path)
        except OSError as err:
            if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._set_aside(path)  # its row was never committed, and so the id came again
            made.rename(path)
        fd = self._open_base()
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def left(self, ids: set[int]) -> list[Path]:
        """Set aside what belongs to none of the snapshots `ids`; return all that was ever."""
        names = {str(identifier) for identifier in ids}
        left = []
        for name in os.listdir(self._base):
            path = self._base / name
            if name.startswith(_LEFT):
                left.append(path)
            elif name not in names:
                left.append(self._set_aside(path))
        return left

    def remove(self, directory: Path) -> None:
        """Remove what `make` or `left` has returned, and everything in it.

        Raises:
            OSError: if something can not be removed; EBUSY if it is mounted or a mount is in it.
        """
        fd = self._open_base()
        try:
            with contextlib.suppress(FileNotFoundError):
                remove_tree(fd, os.fsencode(directory.name))
        finally:
            os.close(fd)

    def _set_aside(self, path: Path) -> Path:
        """Give a directory a name that no snapshot will have."""
        return path.rename(tempfile.mkdtemp(prefix=_LEFT, dir=self._base))

    def _open_base(self) -> int:
        return os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def usage(self, identifier: int) -> Usage:
        """Return what the files of a snapshot take; a mounted one may change meanwhile."""
        size = inodes = 0
        seen: set[int] = set()
        for status in _statuses(os.fsencode(self.fs(identifier))):
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            size += status.st_blocks * _BLOCK
            inodes += 1
        return Usage(size, inodes)

    def inherit(self, made: Path, parent: int) -> None:
        """Give the root of what `make` returned the owner and the mode of the parent's root.

        What a union shows of its root is the upper's.
        """
        status = self.fs(parent).stat()
        own(made, status.st_uid, status.st_gid)
        (made / "fs").chmod(stat.S_IMODE(status.st_mode))


def wait_until_released(fs: Path, seconds: float) -> bool:
    """Wait until `fs` is the upper of no mount of ours; False: it still is.

    Whoever unmounts does not wait for the daemon, which holds a lock on it until it ends.
    """
    deadline = time.monotonic() + seconds
    fd = os.open(fs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(_RETRY_SECONDS)
            else:
                return True
    finally:
        os.close(fd)


def own(made: Path, uid: int, gid: int) -> None:
    """Give the root of what `Directories.make` returned to an owner."""
    os.chown(made / "fs", uid, gid, follow_symlinks=False)


def _statuses(path: bytes) -> Iterator[os.stat_result]:
    """Yield the attributes of `path` and of everything below it."""
    yield os.lstat(path)
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
        except OSError as err:
            if err.errno not in (errno.ENOENT, errno.ENOTDIR):  # gone meanwhile
                raise
