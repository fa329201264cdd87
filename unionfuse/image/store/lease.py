"""Leases: what is in use, so that gc leaves it.

A lease is a directory in tmp/ on which its owner holds flock(2); the names in it are those of
what the owner uses. It ends with the last descriptor of it: with the command, or with the daemon
of a mount that was given one. Who finds it unlocked removes it.

The order in which something is put to use: its name goes into the lease, under a shared lock of
ROOT/lock; then comes the look whether it is there. gc reads the leases and takes things out of
their places under the exclusive lock. So a thing that was found is kept; the other order would
let gc take it between the look and the lease.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from unionfuse.image.store.blobs import as_store_error

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "lease-"
BLOB, IMAGE, LAYER = "blob", "image", "layer"


class Use(NamedTuple):
    """One thing in use: a blob or a manifest by `ALG-HEX`, or a directory of layers/."""

    kind: str
    name: str


class Lease:
    """What one command or one mount uses.

    Attributes:
        fd: holds the lock; a process that inherits it keeps the lease.
    """

    def __init__(self, tmp: Path, lock: Path) -> None:
        """Take a lease that says nothing yet."""
        self._lock = lock
        self._known: set[Use] = set()
        try:
            self.path, self.fd = _locked_directory(tmp)
        except OSError as err:
            raise as_store_error(err) from None

    def touch(self, use: Use) -> None:
        """Put something to use; look only then whether it is there.

        Raises:
            StoreError: if there is no room.
        """
        if use in self._known:
            return
        try:
            with locked(self._lock, fcntl.LOCK_SH):
                (self.path / f"{use.kind}-{use.name}").touch()
        except OSError as err:
            raise as_store_error(err) from None
        self._known.add(use)

    def close(self) -> None:
        """End the lease, unless another process has inherited it."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        os.close(fd)
        remove_if_dead(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def live_uses(tmp: Path) -> set[Use]:
    """Return what the living leases name, and remove the dead; the caller has the lock."""
    uses: set[Use] = set()
    for entry in _leases(tmp):
        if remove_if_dead(entry):
            continue
        with contextlib.suppress(FileNotFoundError):
            uses.update(Use(*name.split("-", 1)) for name in os.listdir(entry))
    return uses


def kept_uses(containers: Path) -> set[Use]:
    """Return what containers need, running or not: the names in the `uses/` of each.

    One that is being made has a lease besides, until they are there: leases are read first.
    """
    uses: set[Use] = set()
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(containers):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                names = os.listdir(containers / entry / "uses")
                uses.update(Use(*name.split("-", 1)) for name in names)
    return uses


def sweep(tmp: Path, *, partials: bool = False) -> int:
    """Remove from tmp/ what commands that are gone have left.

    Args:
        partials: also what came of transfers that can be taken up.

    Returns:
        The bytes of the files among it.
    """
    freed = 0
    for entry in list(os.scandir(tmp)):
        if partials or not entry.name.startswith("partial-"):
            freed += remove_if_dead(Path(entry.path)) or 0
    return freed


@contextlib.contextmanager
def locked(path: Path, how: int) -> Iterator[int]:
    """Hold flock(2) on a file or directory for the time of a `with` block."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
        yield fd
    finally:
        os.close(fd)


def remove_if_dead(path: Path) -> int | None:
    """Remove a file or directory of tmp/ that nobody has locked.

    Returns:
        The bytes that it had, if it is a file, else 0; None if it is in use, or not there.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_at(fd, path):
            return None
        if path.is_dir():
            remove_tree(path)
            return 0
        size = os.fstat(fd).st_size
        path.unlink()
        return size
    except BlockingIOError:
        return None
    finally:
        os.close(fd)


def is_at(fd: int, path: Path) -> bool:
    """Tell whether what is open is still what `path` names."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, whatever modes its directories have."""
    import shutil  # with what unpacks archives: too much for a command that removes nothing

    def permit(_: object, name: str, __: object) -> None:
        parent = Path(name).parent
        with contextlib.suppress(FileNotFoundError):
            for directory in (parent, Path(name)):
                if directory.is_dir() and not directory.is_symlink():
                    directory.chmod(0o700)
            if Path(name).is_dir() and not Path(name).is_symlink():
                shutil.rmtree(name)
            else:
                Path(name).unlink()

    shutil.rmtree(path, onerror=permit)


def _leases(tmp: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(tmp) if entry.name.startswith(_PREFIX)]


def _locked_directory(tmp: Path) -> tuple[Path, int]:
    while True:
        path = tmp / f"{_PREFIX}{os.urandom(8).hex()}"
        path.mkdir(mode=0o700)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # as below
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if is_at(fd, path):  # else another took it for dead before it was locked
            return path, fd
        os.close(fd)
