"""Who uses an upper: a mount of unionfuse, of overlayfs or of fuse-overlayfs.

The first holds flock(2) on the upper and on the workdir. The others are seen in the mount tables
and command lines of all processes that this one may look at, in other mount namespaces too. A mount
of another user's in another namespace is not seen.

A mount may have been given a relative path, and nothing tells from where. Then the end of the path
must be that of the upper, and fuse-overlayfs must have the upper open, as it has all its layers; of
overlayfs, whose root has the times of its upper, they must be the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from typing import TYPE_CHECKING

from unionfuse.offline.errors import OfflineError
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from collections.abc import Iterator

_OCTAL = re.compile(rb"\\([0-7]{3})")
_UPPERDIR = b"upperdir="
_RETRY_SECONDS = 0.05


def holder_of(upper: bytes, workdir: bytes | None) -> str | None:
    """Say who uses `upper` or `workdir`, None if nobody is seen to."""
    for path in (upper, workdir):
        if path is None or not os.path.isdir(path):
            continue
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise
            return f"{os.fsdecode(path)} is in use by a mount of unionfuse"
        finally:
            os.close(fd)
    return _foreign_holder(upper)


@contextlib.contextmanager
def held(upper: bytes, workdir: bytes | None, timeout: float = 1.0) -> Iterator[None]:
    """Keep mounts of unionfuse away from `upper` for the time of a `with` block.

    Waits `timeout` seconds for a daemon that is just ending.

    Raises:
        OfflineError: if it is in use.
    """
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        fds = []
        for path in (upper, workdir):
            if path is not None and os.path.isdir(path):
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                fds.append((fd, path))
        while (holder := _locked(fds) or _foreign_holder(upper)) is not None:
            if time.monotonic() > deadline:
                raise OfflineError(f"{holder}: unmount it first")
            time.sleep(_RETRY_SECONDS)
        yield


def _locked(fds: list[tuple[int, bytes]]) -> str | None:
    """Lock what is not locked yet; say what another has locked."""
    for fd, path in fds:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise
            return f"{os.fsdecode(path)} is in use by a mount of unionfuse"
    return None


def _foreign_holder(upper: bytes) -> str | None:
    wanted = _Wanted(os.path.realpath(upper))
    seen: set[str] = set()
    # First what this process sees: it does not end meanwhile, as others may.
    for pid in ("self", *filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError), _root_of(pid) as root:  # we may not look at all of them
            for word in _command_line(pid):
                if wanted.is_named(root, word, pid):
                    return f"{os.fsdecode(upper)} is in use by fuse-overlayfs, process {pid}"
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in seen:
                continue
            overlays = _overlays(pid)
            seen.add(namespace)
            for mountpoint, options in overlays:
                if wanted.is_named(root, options, pid, mountpoint):
                    where = os.fsdecode(mountpoint)
                    return f"{os.fsdecode(upper)} is in use by the overlayfs on {where}"
    return None


@contextlib.contextmanager
def _root_of(pid: str) -> Iterator[bytes]:
    """Yield a path of the root that a process sees, which stays when it ends."""
    fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd_path(fd)
    finally:
        os.close(fd)


def _command_line(pid: str) -> list[bytes]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        arguments = file.read().split(b"\0")
    return arguments if b"fuse-overlayfs" in os.path.basename(arguments[0]) else []


def _overlays(pid: str) -> list[tuple[bytes, bytes]]:
    """Return mountpoint and options of each overlay in the mount namespace of a process."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        lines = file.read().splitlines()
    found = []
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        kind, _, options = rest.split(b" ", 2)
        if kind == b"overlay":
            found.append((_unescape(fields.split(b" ")[4]), _unescape(options)))
    return found


def _unescape(text: bytes) -> bytes:
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), text)


def _upper_in(options: bytes) -> bytes | None:
    for word in re.split(rb"(?<!\\),", options):
        if word.removeprefix(b"-o").startswith(_UPPERDIR):
            return re.sub(rb"\\(.)", rb"\1", word.partition(b"=")[2])
    return None


class _Wanted:
    """An upper that is looked for among those in use."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._st = os.stat(path)

    def is_named(
        self, root: bytes, options: bytes, pid: str, mountpoint: bytes | None = None
    ) -> bool:
        """Tell whether it is the upper in the options of a mount.

        Args:
            root: where paths begin.
            options: separated by commas.
            pid: of the daemon, or of any process that sees the mount.
            mountpoint: of the kernel's overlayfs; None for a daemon.
        """
        path = _upper_in(options)
        if path is None:
            return False
        if path.startswith(b"/"):
            return self._is(root + path)
        end = b"/" + re.sub(rb"^(\.\./)+", b"", os.path.normpath(path))
        if not self._path.endswith(end):
            return False
        return self._is_open(pid) if mountpoint is None else self._is_shown(root + mountpoint)

    def _is(self, path: bytes) -> bool:
        try:
            return os.path.samestat(os.stat(path), self._st)
        except OSError:
            return False

    def _is_open(self, pid: str) -> bool:
        """Tell whether a daemon has it open; to ask what it serves may take for ever."""
        name = os.path.basename(self._path)
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = os.fsencode(f"/proc/{pid}/fd/{fd}")
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if os.path.basename(os.readlink(link)) == name and self._is(link):
                    return True
        return False

    def _is_shown(self, root: bytes) -> bool:
        """Tell whether the root of an overlayfs has its times."""
        try:
            shown, st = os.stat(root), os.stat(self._path)
        except OSError:  # hidden by another mount
            return True
        return (shown.st_ctime_ns, shown.st_mtime_ns) == (st.st_ctime_ns, st.st_mtime_ns)
