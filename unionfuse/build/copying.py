"""Put what COPY and ADD take into a tree, by docker's rules for names.

It is done in a child whose root is that tree: the symlinks in it lead where they do in a container
of the image, and nowhere else.

    COPY FILE DIR/        DIR/FILE; DIR is made
    COPY FILE PATH        in PATH if that is a directory, else it becomes PATH
    COPY DIR PATH         what is in DIR, into PATH; PATH is made
    COPY A B DIR/         each of them, into DIR
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.build import sources as src
from unionfuse.build.archives import as_tar
from unionfuse.build.errors import BuildError
from unionfuse.container import child, unpacking
from unionfuse.syscalls import copyfile, xattr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unionfuse.build.sources import Entry, Source

_PAX_XATTR = "SCHILY.xattr."
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Inline:
    """A file whose content stands in the Dockerfile."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Copying:
    """What is copied, and how.

    Attributes:
        sources: files and directories, or files of the Dockerfile itself.
        target: an absolute path in the tree; a slash at its end says that it is a directory.
        owner: uid and gid; None: root's, or those that files have where they are kept.
        mode: of all that is copied; None: as it is.
        unpacks: whether tars are unpacked, as ADD does.
    """

    sources: Sequence[Source | Inline]
    target: str
    owner: tuple[int, int] | None = None
    mode: int | None = None
    unpacks: bool = False


def copy(root: str, copying: Copying, line: int) -> None:
    """Copy into the tree that is mounted at `root`.

    Raises:
        BuildError: if that is not possible, with the path and the cause.
    """
    in_root(root, lambda: _Copier(copying).run(), line)


def make_directory(root: str, path: str, owner: tuple[int, int], line: int) -> None:
    """Make a directory, as WORKDIR does, and those above it; it may be there.

    Args:
        root: of the tree.
        path: in it.
        owner: uid and gid of what is made.
        line: of the Dockerfile.

    Raises:
        BuildError: if something else is there.
    """
    in_root(root, lambda: _make_directories(path, owner), line)


def in_root(root: str, work: Callable[[], None], line: int) -> None:
    """Do `work` in a child that has `root` for its root.

    Raises:
        BuildError: if it fails.
    """

    def at_root() -> None:
        os.chroot(root)
        os.chdir("/")
        os.umask(0o022)
        work()

    failure = child.begin(at_root, BuildError).failure()
    if failure:
        raise BuildError(failure, line)


def _make_directories(path: str, owner: tuple[int, int]) -> None:
    """Make a directory with those above it, 0755; symlinks on the way are followed."""
    missing = []
    path = os.path.realpath(path)  # where a symlink leads need not be there yet
    while not os.path.isdir(path):
        if os.path.lexists(path):
            raise BuildError(f"{path} is there, and no directory")
        missing.append(path)
        path = os.path.dirname(path.rstrip("/")) or "/"
    for each in reversed(missing):
        os.mkdir(each, 0o755)
        os.chown(each, *owner)


class _Copier:
    """One COPY or ADD on its way."""

    def __init__(self, copying: Copying) -> None:
        self._copying = copying
        self._links: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        copying = self._copying
        target = os.path.normpath("/" + copying.target.lstrip("/"))
        several = len(copying.sources) > 1
        into = several or copying.target.endswith(("/", "/.")) or os.path.isdir(target)
        for source in copying.sources:
            if isinstance(source, src.Source) and source.is_dir:
                self._directory(source, target)
            elif not (copying.unpacks and self._unpack(source, target)):
                path = os.path.join(target, source.name) if into else target
                self._parents(os.path.dirname(path))
                if isinstance(source, Inline):
                    self._inline(source, path)
                else:
                    self._one(source, None, path)

    def _parents(self, path: str) -> None:
        _make_directories(path, self._copying.owner or (0, 0))

    def _directory(self, source: Source, target: str) -> None:
        self._parents(target)  # 0755 and not what the source has, as with podman
        made: list[tuple[str, int]] = []
        for entry in source.entries():
            path = os.path.join(target, entry.path)
            if not entry.is_dir:
                self._parents(os.path.dirname(path))  # one that .dockerignore leaves out
                self._one(source, entry, path)
                continue
            if not os.path.isdir(path):
                self._make_way(path)
                os.mkdir(path, 0o755)
            with src.opened(source, entry) as fd:
                self._attributes(entry.st, path, fd)
            made.append((path, entry.st.st_mtime_ns))
        # when nothing is made in them any more
        for path, mtime_ns in reversed(made):
            os.utime(path, ns=(mtime_ns, mtime_ns))

    def _make_way(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            raise BuildError(f"{path} is a directory, and no file can be copied over it")
        if os.path.lexists(path):
            os.unlink(path)

    def _inline(self, source: Inline, path: str) -> None:
        self._make_way(path)
        fd = os.open(path, _NEW, 0o644)
        with open(fd, "wb") as file:
            file.write(source.data)
            os.fchown(fd, *(self._copying.owner or (0, 0)))
            os.fchmod(fd, 0o644 if self._copying.mode is None else self._copying.mode)

    def _one(self, source: Source, entry: Entry | None, path: str) -> None:
        """Copy what is no directory."""
        self._make_way(path)
        st = source.st if entry is None else entry.st
        fmt = stat.S_IFMT(st.st_mode)
        if st.st_nlink > 1 and self._link(st, path):
            return
        if fmt == stat.S_IFREG:
            with src.opened(source, entry) as fd:
                assert fd is not None, "a regular file can be opened"
                out = os.open(path, _NEW, 0o600)
                try:
                    copyfile.copy_data(fd, out, st.st_size)
                finally:
                    os.close(out)
                self._attributes(st, path, fd)
        elif fmt == stat.S_IFLNK and entry is not None:
            os.symlink(os.readlink(entry.name, dir_fd=entry.dir_fd), path)
            os.chown(path, *self._owner(st), follow_symlinks=False)
        elif fmt == stat.S_IFSOCK:
            return  # no tar can hold it
        else:
            os.mknod(path, fmt | 0o600, st.st_rdev)
            self._attributes(st, path, None)
        os.utime(path, ns=(st.st_mtime_ns, st.st_mtime_ns), follow_symlinks=False)

    def _link(self, st: os.stat_result, path: str) -> bool:
        """Make one more name of a file that was copied already; tell whether it was."""
        first = self._links.setdefault((st.st_dev, st.st_ino), path)
        if first == path:
            return False
        os.link(first, path, follow_symlinks=False)
        return True

    def _owner(self, st: os.stat_result) -> tuple[int, int]:
        if self._copying.owner is not None:
            return self._copying.owner
        first = self._copying.sources[0]
        if isinstance(first, src.Source) and first.tree.keeps_owners:
            return st.st_uid, st.st_gid
        return 0, 0

    def _attributes(self, st: os.stat_result, path: str, fd: int | None) -> None:
        # chown takes setuid and capabilities away, so it is the first
        os.chown(path, *self._owner(st), follow_symlinks=False)
        mode = self._copying.mode
        os.chmod(path, stat.S_IMODE(st.st_mode) if mode is None else mode)
        if fd is not None:
            for name, value in src.attributes(fd).items():
                xattr.set_(os.fsencode(path), name, value)

    def _unpack(self, source: Source | Inline, target: str) -> bool:
        """Unpack a file that is a tar; tell whether it was one."""
        if isinstance(source, Inline) or not stat.S_ISREG(source.st.st_mode):
            return False
        with src.opened(source, None) as fd:
            assert fd is not None, "a regular file can be opened"
            stream = as_tar(fd)
            if stream is None:
                return False
            self._parents(target)
            try:
                with tarfile.open(fileobj=stream, mode="r|") as tar:
                    made = []
                    for member in tar:
                        self._extract(tar, member, target)
                        if member.isdir():
                            made.append(
                                (os.path.join(target, member.name.lstrip("/")), member.mtime)
                            )
                # when nothing is made in them any more
                for path, mtime in reversed(made):
                    os.utime(path, (mtime, mtime))
            except (tarfile.TarError, EOFError) as err:
                raise BuildError(f"{source.path}: the tar is damaged: {err}") from None
        return True

    def _extract(self, tar: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
        # --chown and --chmod are not about what is in a tar, as with podman
        member.uname = member.gname = ""
        path = os.path.join(target, member.name.lstrip("/"))
        if os.path.lexists(path) and not (member.isdir() and os.path.isdir(path)):
            unpacking.kept_below(member, target)  # nothing is removed outside
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        unpacking.extract(tar, member, target)
        if member.isreg() or member.isdir():
            for key, value in member.pax_headers.items():
                name = os.fsencode(key.removeprefix(_PAX_XATTR))
                if key.startswith(_PAX_XATTR) and name.startswith(src.CARRIED):
                    xattr.set_(os.fsencode(path), name, value.encode("utf-8", "surrogateescape"))
