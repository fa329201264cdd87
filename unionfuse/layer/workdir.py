"""The workdir: what is prepared there, how it is claimed, and what a crash leaves in it.

    WORKDIR/work/     temporaries (`#1`, `#2`, ...), emptied at mount
    WORKDIR/work/incompat/FEATURE    a mount that must not be repeated unseen (kernel: volatile)
    WORKDIR/index/HANDLE             copied-up hard links, see `union.index`
    WORKDIR/whiteout                 the inode that all whiteouts of a mount are links of

The names are the kernel's (fs/overlayfs/super.c), which can use the same workdir, and has its
own whiteout in `work`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time

from unionfuse.layer.directory import LayerDir
from unionfuse.record import mutable_record
from unionfuse.syscalls.fdpath import fd_path

_OPEN_DIR = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_RETRY_SECONDS = 0.05


class WorkdirError(Exception):
    """The workdir can not be used; the text says why, in one line."""


@mutable_record
class Workdir:
    """A claimed workdir.

    Attributes:
        base_fd: WORKDIR itself.
        work_fd: WORKDIR/work; everything in it is ours and nothing in it outlives a mount.
        index: WORKDIR/index.
    """

    base_fd: int
    work_fd: int
    index: LayerDir
    _fds: list[int]
    _serial: int = 0

    @classmethod
    def claim(cls, path: bytes, upper: LayerDir, lock_timeout: float = 1.0) -> Workdir:
        """Take `path` as the workdir of `upper`, emptying what an earlier mount left.

        Waits `lock_timeout` seconds for a daemon that is just ending to let go of it.

        Raises:
            WorkdirError: if it is in use, on another filesystem than the upper, or marked
                as left by a volatile mount.
            OSError: if it can not be made or read.
        """
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            upper_path = os.readlink(fd_path(upper.fd()))  # for the messages only
            if os.fstat(fds[0]).st_dev != os.fstat(upper.fd()).st_dev:
                raise WorkdirError(
                    f"upper {os.fsdecode(upper_path)} and workdir {os.fsdecode(path)} are on "
                    "different filesystems"
                )
            fds.append(os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=upper.fd()))
            deadline = time.monotonic() + lock_timeout
            _lock(fds[1], deadline, f"{os.fsdecode(upper_path)}: upper")
            _lock(fds[0], deadline, f"{os.fsdecode(path)}: workdir")
            fds.append(_make(fds[0], b"work"))
            _refuse_incompatible(path, fds[2])
            empty_directory(fds[2])
            fds.append(_make(fds[0], b"index"))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return cls(fds[0], fds[2], LayerDir.root(upper.layer, fds[3], upper.fds), fds)

    def temp_name(self) -> bytes:
        """Return a name that is free in WORKDIR/work."""
        self._serial += 1
        return b"#%x" % self._serial

    def mark_volatile(self) -> None:
        """Make every later mount refuse it, until a user has removed the mark.

        Nobody can tell whether what was not written to disk was lost since (overlayfs.rst,
        "Volatile mount"). The name is the kernel's: ovl_create_volatile_dirty.
        """
        directory = self.work_fd
        opened: list[int] = []
        try:
            for name in (b"incompat", b"volatile"):
                directory = _make(directory, name)
                opened.append(directory)
            os.close(os.open(b"dirty", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory))
        finally:
            for fd in opened:
                os.close(fd)

    def close(self) -> None:
        """Let go of it; may be called again."""
        while self._fds:
            os.close(self._fds.pop())


def empty_directory(fd: int) -> None:
    """Remove everything below the directory `fd`, following nothing."""
    listing_fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        for name in os.listdir(listing_fd):
            remove_tree(fd, os.fsencode(name))
    finally:
        os.close(listing_fd)


def remove_tree(dir_fd: int, name: bytes) -> None:
    """Remove `name` below `dir_fd` and everything in it, whatever its modes are."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        pass
    except PermissionError:  # POSIX's answer for a directory
        if not _is_directory(dir_fd, name):
            raise
    else:
        return
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=dir_fd)
        return
    os.chmod(name, 0o700, dir_fd=dir_fd)
    fd = os.open(name, _OPEN_DIR, dir_fd=dir_fd)
    try:
        empty_directory(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=dir_fd)


def _is_directory(dir_fd: int, name: bytes) -> bool:
    try:
        os.close(os.open(name, _OPEN_DIR, dir_fd=dir_fd))
    except NotADirectoryError:
        return False
    return True


def _lock(fd: int, deadline: float, what: str) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise
            if time.monotonic() > deadline:
                raise WorkdirError(f"{what} is in use by another mount") from None
            time.sleep(_LOCK_RETRY_SECONDS)
        else:
            return


def _make(base_fd: int, name: bytes) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=base_fd)
    if os.stat(name, dir_fd=base_fd, follow_symlinks=False).st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=base_fd)  # the kernel's own are 0000
    return os.open(name, _OPEN_DIR, dir_fd=base_fd)


def _refuse_incompatible(path: bytes, work_fd: int) -> None:
    try:
        fd = os.open(b"incompat", os.O_RDONLY | os.O_DIRECTORY, dir_fd=work_fd)
    except FileNotFoundError:
        return
    marks = os.listdir(fd)
    os.close(fd)
    if marks:
        raise WorkdirError(
            f"workdir {os.fsdecode(path)} was left by a mount with {', '.join(sorted(marks))}: "
            "the upper may be damaged; remove work/incompat in the workdir to use it all the same"
        )
