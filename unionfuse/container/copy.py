"""Copy files between the host and a container, as tars through a pipe.

The side of the container is read and written by a child that has the container's root for its
own: whatever symlinks are in there, or are put there meanwhile by the container, lead nowhere
else. What comes out of a container is taken with the care that a stranger's tar needs.
"""

from __future__ import annotations

import bz2  # noqa: F401 - tarfile asks for these when it is too late: in another root
import contextlib
import lzma
import os
import stat
import tarfile
import zlib
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from unionfuse.container import child, unpacking
from unionfuse.container.errors import ContainerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unionfuse.container.child import Child

_TOP = "copied"  # what is copied has this name while it is on its way


@dataclass(frozen=True, slots=True)
class Copying:
    """What is copied, and how.

    Attributes:
        source, target: paths, of the host or of the container.
        owners: whether owners are kept; else the files are root's, or the user's on the host.
        follow: whether a symlink that is named is followed.
    """

    source: str
    target: str
    owners: bool = False
    follow: bool = False


def into(root: Path, copying: Copying) -> None:
    """Copy from the host to the container whose root is mounted at `root`.

    Raises:
        ContainerError: if that is not possible, with the path and the cause.
    """
    reader, writer = os.pipe()
    other = _in_root(root, lambda: receive(reader, copying), closing=writer)
    os.close(reader)
    _both(lambda: send(writer, copying), writer, other)


def out_of(root: Path, copying: Copying) -> None:
    """Copy from the container whose root is mounted at `root` to the host.

    Raises:
        ContainerError: if that is not possible, with the path and the cause.
    """
    reader, writer = os.pipe()
    # a relative path is meant from the container's root
    inside = replace(copying, source=os.path.join("/", copying.source))
    other = _in_root(root, lambda: send(writer, inside), closing=reader)
    os.close(writer)
    _both(lambda: receive(reader, copying), reader, other)


def to_tar(root: Path, source: str, fd: int, *, follow: bool = False) -> None:
    """Write a path of the container whose root is mounted at `root` to `fd`, as a tar.

    Names in it begin with the last of the path's; with `.` if that is what is in a directory.

    Raises:
        ContainerError: if it can not be read, with the path and the cause.
    """
    copying = Copying(os.path.join("/", source), "", follow=follow)
    name = "." if source.endswith("/.") else PurePath(source).name or "."
    _alone(_in_root(root, lambda: send(fd, copying, name)))


def from_tar(root: Path, fd: int, target: str, *, owners: bool = False) -> None:
    """Unpack a tar from `fd` into a directory of the container whose root is mounted at `root`.

    It may be compressed. Nothing of it gets out of the directory, but by symlinks that are in it.

    Raises:
        ContainerError: if it is no tar, or can not be written there.
    """
    directory = os.path.join("/", target)
    _alone(_in_root(root, lambda: _unpack(fd, directory, owners=owners)))


def send(fd: int, copying: Copying, name: str = _TOP) -> None:
    """Write what is to be copied to `fd` as a tar, under `name`.

    Raises:
        ContainerError: if it can not be read.
    """
    source = copying.source
    contents_only = PurePath(source).name == "" or source.endswith(("/.", "/"))
    path = os.path.realpath(source) if copying.follow else source.rstrip("/") or "/"
    try:
        if contents_only and not os.path.isdir(path):
            raise NotADirectoryError(20, "Not a directory")
        with open(fd, "wb", closefd=False) as pipe, tarfile.open(fileobj=pipe, mode="w|") as tar:
            tar.add(path, name)
    except BrokenPipeError:  # the other side says why
        return
    except OSError as err:
        raise ContainerError(f"{err.filename or source}: {err.strerror}") from None


def receive(fd: int, copying: Copying) -> None:
    """Take a tar from `fd` to where it is to be copied, by docker's rules for names.

    Raises:
        ContainerError: if it can not be written there.
    """
    try:
        with open(fd, "rb", closefd=False) as pipe, tarfile.open(fileobj=pipe, mode="r|") as tar:
            place: tuple[str, str] | None = None
            for member in tar:
                if place is None:
                    place = _place(copying, is_dir=member.isdir())
                _extract(tar, member, place, owners=copying.owners)
    except tarfile.ReadError:  # the other side says why
        return
    except (tarfile.TarError, OSError) as err:
        problem = getattr(err, "strerror", None) or str(err)
        where = getattr(err, "filename", None) or copying.target
        raise ContainerError(f"{where}: {problem}") from None


def _unpack(fd: int, directory: str, *, owners: bool) -> None:
    try:
        if not os.path.isdir(directory):
            raise NotADirectoryError(20, "no directory to unpack into", directory)
        with open(fd, "rb", closefd=False) as pipe, tarfile.open(fileobj=pipe, mode="r|*") as tar:
            for member in tar:
                member.name = _below(member.name)
                if member.name == ".":  # the directory stays as it is
                    continue
                if member.islnk():
                    member.linkname = _below(member.linkname)
                _write(tar, member, directory, owners=owners)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as err:
        raise ContainerError(f"stdin can not be read as a tar: {err}") from None
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        raise ContainerError(f"{where}{err.strerror or err}") from None


def _below(name: str) -> str:
    """Return a name of a tar as one that leads nowhere but down."""
    return os.path.normpath(f"/{name}").lstrip("/") or "."


def _place(copying: Copying, *, is_dir: bool) -> tuple[str, str]:
    """Return the directory and the name that what is copied gets."""
    source, target = copying.source, copying.target or "."
    plain = target.rstrip("/") or "/"
    if os.path.islink(plain):  # one that is named is followed, in whose root we are
        plain = os.path.realpath(plain)
    contents = source.endswith("/.") or PurePath(source).name == ""
    if os.path.isdir(plain):
        if is_dir and contents:
            return plain, "."
        return plain, PurePath(source).name
    if target.endswith("/") and not is_dir:
        raise FileNotFoundError(2, "no such directory", target)
    if os.path.exists(plain) and not (os.path.isdir(plain) or os.path.isfile(plain)):
        raise FileExistsError(17, "it is there and no file", target)  # a device, for one
    if is_dir and os.path.exists(plain):
        raise NotADirectoryError(20, "a directory can not be copied over a file", target)
    parent, name = os.path.split(plain)
    if not os.path.isdir(parent or "."):
        raise FileNotFoundError(2, "no such directory", parent)
    return parent or ".", name


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, place: tuple[str, str], *, owners: bool
) -> None:
    directory, name = place
    member.name = os.path.normpath(os.path.join(name, member.name[len(_TOP) :].lstrip("/")))
    if member.islnk():
        member.linkname = os.path.normpath(
            os.path.join(name, member.linkname[len(_TOP) :].lstrip("/"))
        )
    _write(tar, member, directory, owners=owners)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: str, *, owners: bool) -> None:
    if not owners:
        member.uid, member.gid = os.geteuid(), os.getegid()
    member.uname = member.gname = ""
    _make_way(directory, member)
    unpacking.extract(tar, member, directory)


def _make_way(directory: str, member: tarfile.TarInfo) -> None:
    """Remove what a file replaces: its other names keep what they have, and one that runs goes on.

    What can not be removed, since it is mounted, is written to.
    """
    path, top = os.path.join(directory, member.name), os.path.realpath(directory)
    if os.path.commonpath((os.path.realpath(os.path.dirname(path)), top)) != top:
        return  # what is outside is refused when it is to be written
    with contextlib.suppress(OSError):
        if not (member.isdir() or stat.S_ISDIR(os.lstat(path).st_mode)):
            os.unlink(path)


def _in_root(root: Path, work: Callable[[], None], *, closing: int | None = None) -> Child:
    """Do `work` in a child whose root is `root`."""

    def at_root() -> None:
        os.chroot(root)
        os.chdir("/")
        work()

    return child.begin(at_root, ContainerError, closing=() if closing is None else (closing,))


def _alone(other: Child) -> None:
    """Wait for a child that does all of it."""
    if failure := other.failure():
        raise ContainerError(failure)


def _both(work: Callable[[], None], pipe: int, other: Child) -> None:
    """Do our side, then see how the child's went; its failure is told before ours."""
    own: ContainerError | None = None
    try:
        work()
    except ContainerError as err:
        own = err
    finally:
        os.close(pipe)
        failure = other.failure()
    if failure:
        raise ContainerError(failure)
    if own is not None:
        raise own
