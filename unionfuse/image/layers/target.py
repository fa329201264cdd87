"""The directory of one layer while it is being filled: paths, objects, attributes, markers.

A path here has no symlink in it any more: `resolve` is where those of a tar become such paths.
Every directory was made here, so that a path that is known needs no look at the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING

from unionfuse.image.errors import Malformed, Refused
from unionfuse.image.layers.form import ACL_DEFAULT
from unionfuse.image.layers.paths import DOTS, NAME_MAX, join, split
from unionfuse.image.layers.reader import shown
from unionfuse.layer import names
from unionfuse.layer.directory import DirectoryFds, LayerDir
from unionfuse.layer.override import Override
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from unionfuse.image.layers.form import LayerForm
    from unionfuse.image.layers.limits import Limits
    from unionfuse.image.layers.member import Member

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRS = 256
_MAX_NOTES = 20
_MAX_LINKS = 40  # that one name leads through, as for the kernel
_IMPLIED = Override(0, 0, 0o755, stat.S_IFDIR)
_READABLE = 0o755  # what is added to modes on disk where the true ones are in an attribute
_NOT_KEPT = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL})
_DEVICES = frozenset({stat.S_IFCHR, stat.S_IFBLK})


class Target:
    """The directory.

    Attributes:
        form: how things are kept in it.
        implied: the directories that no entry has told of, by path.
        path_bytes: of all directories.
    """

    def __init__(self, root_fd: int, form: LayerForm, limits: Limits) -> None:
        """Fill the directory `root_fd`, which has to be empty.

        Raises:
            Refused: if it is not empty.
        """
        self.form = form
        self.implied: dict[bytes, None] = {b"": None}
        self.path_bytes = 0
        self._limits = limits
        self._fds = DirectoryFds(_OPEN_DIRS)
        self._dirs = {b"": LayerDir.root(0, root_fd, self._fds)}
        self._notes: Counter[str] = Counter()
        listing_fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
        try:
            if os.listdir(listing_fd):
                raise Refused("the directory for the layer is not empty")
        finally:
            os.close(listing_fd)
        self._set_implied(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._fds.close()

    def notes(self) -> tuple[str, ...]:
        """Return what could not be kept, a line each."""
        return tuple(f"{text} ({count} times)" for text, count in sorted(self._notes.items()))

    # Paths

    def known(self, name: bytes) -> bytes | None:
        """Return the path of a name in a directory that is there, None if it has to be looked at.

        So nearly all names of a tar are, and this takes a third of the time of `paths.cleaned`.
        """
        path = name.removeprefix(b"./").removesuffix(b"/")
        parent, _, last = path.rpartition(b"/")
        is_usual = parent in self._dirs and last not in DOTS and len(last) <= NAME_MAX
        return (
            path
            if is_usual and len(path) <= self._limits.path_bytes and b"\0" not in last
            else None
        )

    def resolve(self, path: bytes) -> bytes:
        """Return the directory that `path` of the tar leads to; make what is missing on the way.

        Raises:
            Malformed: if it leads through what is no directory, or out of the layer.
        """
        if path in self._dirs:
            return path
        at = b""
        for part in path.split(b"/"):
            below = join(at, part)
            if below not in self._dirs:
                fmt = self.fmt_of(below)
                if fmt == 0:
                    self._imply(below)
                elif fmt == stat.S_IFLNK:
                    below = self._follow(at, part, [_MAX_LINKS])
                else:
                    raise Malformed(f"{shown(path)} is in the layer below what is no directory")
            at = below
        return at

    def _follow(self, at: bytes, name: bytes, links_left: list[int]) -> bytes:
        """Return the directory that the symlink `name` in `at` leads to."""
        link = shown(join(at, name))
        links_left[0] -= 1
        target = os.readlink(name, dir_fd=self._dirs[at].fd())
        if target.startswith(b"/"):
            at = b""
        for part in target.split(b"/"):
            if part in (b"", b"."):
                continue
            if part == b"..":
                if not at:
                    raise Malformed(f"the symlink {link} leads out of the layer")
                at = split(at)[0]
                continue
            below = join(at, part)
            if below not in self._dirs:
                if self.fmt_of(below) != stat.S_IFLNK or not links_left[0]:
                    raise Malformed(f"the symlink {link} leads to no directory of the layer")
                below = self._follow(at, part, links_left)
            at = below
        return at

    def fmt_of(self, path: bytes) -> int:
        """Return S_IFMT of what is at `path` on disk, 0 if there is nothing."""
        if path in self._dirs:
            return stat.S_IFDIR
        parent, name = split(path)
        try:
            st = os.stat(name, dir_fd=self._dirs[parent].fd(), follow_symlinks=False)
        except FileNotFoundError:
            return 0
        return stat.S_IFMT(st.st_mode)

    def is_directory(self, path: bytes) -> bool:
        """Tell whether there is a directory at `path`."""
        return path in self._dirs

    def _at(self, path: bytes) -> tuple[bytes, int]:
        """Return a name and the descriptor that it is below."""
        if not path:
            return b".", self._dirs[b""].fd()
        parent, name = split(path)
        return name, self._dirs[parent].fd()

    # Directories

    def make_directory(self, path: bytes) -> bool:
        """Make a directory, to be given its attributes; return False if the name is taken."""
        if path in self._dirs:
            return False
        self.path_bytes += len(path)
        if self.path_bytes > self._limits.names_bytes:
            raise Refused(f"the paths in the layer have more than {self.path_bytes} bytes")
        if (
            len(path) > self._limits.path_bytes
        ):  # symlinks have made it longer than it is in the tar
            raise Refused(f"a path in the layer has {len(path)} bytes")
        parent, name = split(path)
        above = self._dirs[parent]
        try:
            os.mkdir(name, 0o700, dir_fd=above.fd())
        except FileExistsError:
            return False
        self._dirs[path] = LayerDir(above, name)
        return True

    def _imply(self, path: bytes) -> None:
        self.make_directory(path)
        if len(self.implied) > self._limits.entries:
            raise Refused(f"the layer has more than {self._limits.entries} directories")
        self.implied[path] = None
        self._set_implied(path)

    def _set_implied(self, path: bytes) -> None:
        name, dir_fd = self._at(path)
        if self.form.owners:
            os.chown(name, 0, 0, dir_fd=dir_fd, follow_symlinks=False)
        os.chmod(name, _IMPLIED.mode, dir_fd=dir_fd)
        if self.form.override is not None:
            xattr.set_(fd_path(dir_fd, name), self.form.override, _IMPLIED.packed())

    def set_directory(self, path: bytes, member: Member, *, is_again: bool) -> None:
        """Give a directory its attributes, but the mtime and the default ACL.

        Those come at the end (`finish_directory`), since making things in it changes the one, and
        they inherit the other.
        """
        name, dir_fd = self._at(path)
        self.implied.pop(path, None)
        if is_again:
            self._clear(fd_path(dir_fd, name))
        self._set_owner_and_mode(name, dir_fd, member)
        if member.xattrs:
            acl = None
            if self.form.stored(ACL_DEFAULT) is not None:
                acl = member.xattrs.pop(ACL_DEFAULT, None)
            self._set_xattrs(fd_path(dir_fd, name), member.xattrs)
            if acl is not None:
                member.xattrs[ACL_DEFAULT] = acl

    def finish_directory(self, path: bytes, mtime_ns: int, acl: bytes | None) -> None:
        """Give a directory what nothing may be made in it after."""
        name, dir_fd = self._at(path)
        if acl is not None:
            self._set_xattrs(fd_path(dir_fd, name), {ACL_DEFAULT: acl})
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _clear(self, target: xattr.Target) -> None:
        for name in xattr.names(target):
            if name not in (self.form.override, b"security.selinux"):
                with contextlib.suppress(PermissionError):
                    xattr.remove(target, name)

    # Everything else

    def create(self, path: bytes) -> int:
        """Make a file and return it open for writing; raise FileExistsError if it is there."""
        parent, name = split(path)
        return os.open(name, _CREATE, 0o600, dir_fd=self._dirs[parent].fd())

    def finish_file(self, fd: int, member: Member) -> None:
        """Give a file that has its data its attributes.

        The owner comes before the mode, since chown(2) takes setuid away, and both before the
        attributes, since it takes capabilities away too.
        """
        if self.form.owners:
            _chown(fd, None, member)
            os.fchmod(fd, member.mode)
        else:
            os.fchmod(fd, member.mode & 0o777 | _READABLE)
            self._set_override(fd, member)
        if member.xattrs:
            self._set_xattrs(fd, member.xattrs)
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))

    def make_other(self, path: bytes, member: Member) -> None:
        """Make a symlink, a fifo or a device; raise FileExistsError if the name is taken."""
        parent, name = split(path)
        dir_fd = self._dirs[parent].fd()
        if member.fmt == stat.S_IFLNK:
            os.symlink(member.target, name, dir_fd=dir_fd)
            if self.form.owners:
                _chown(name, dir_fd, member)
        elif not self.form.owners or (member.fmt in _DEVICES and not self.form.devices):
            os.close(os.open(name, _CREATE, 0, dir_fd=dir_fd))
            if self.form.owners:
                self._notes["devices can not be made here: an empty file is in the place"] += 1
                _chown(name, dir_fd, member)
            else:
                self._set_owner_and_mode(name, dir_fd, member)
        else:
            os.mknod(name, member.fmt | 0o600, os.makedev(*member.rdev), dir_fd=dir_fd)
            self._set_owner_and_mode(name, dir_fd, member)
        if member.xattrs:
            self._set_xattrs(fd_path(dir_fd, name), member.xattrs)
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(name, ns=times, dir_fd=dir_fd, follow_symlinks=False)

    def link(self, path: bytes, other: bytes) -> None:
        """Give the file at `other` the second name `path`."""
        parent, name = split(path)
        other_parent, other_name = split(other)
        if self.fmt_of(other) == stat.S_IFDIR:
            raise Malformed(f"{shown(path)} is a hard link to the directory {shown(other)}")
        other_fd = os.dup(self._dirs[other_parent].fd())  # the next call may close it
        try:
            os.link(
                other_name, name, src_dir_fd=other_fd, dst_dir_fd=self._dirs[parent].fd(),
                follow_symlinks=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise Malformed(
                f"{shown(path)} is a hard link to {shown(other)}, which the layer does not have"
            ) from None
        finally:
            os.close(other_fd)

    def remove(self, path: bytes) -> Iterator[bytes]:
        """Remove what is at `path` and all below it; yield every path that is gone."""
        if path not in self._dirs:
            self._unlink(path)
            yield path
            return
        directories = [path]
        for directory in directories:  # grows on the way
            fd = os.open(
                b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._dirs[directory].fd()
            )
            try:
                found = os.listdir(fd)
            finally:
                os.close(fd)
            for entry in found:
                below = join(directory, os.fsencode(entry))
                if below in self._dirs:
                    directories.append(below)
                else:
                    self._unlink(below)
                    yield below
        for directory in reversed(directories):
            name, dir_fd = self._at(directory)
            os.rmdir(name, dir_fd=dir_fd)
            self._dirs.pop(directory).forget()
            self.implied.pop(directory, None)
            yield directory

    def _unlink(self, path: bytes) -> None:
        name, dir_fd = self._at(path)
        os.unlink(name, dir_fd=dir_fd)

    # Markers

    def make_whiteout(self, path: bytes) -> None:
        """Hide `path` of the layers below; the layer itself has nothing there."""
        parent, name = split(path)
        dir_fd = self._dirs[parent].fd()
        if self.form.markers.char_whiteouts:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=dir_fd)
        else:
            os.close(os.open(names.WHITEOUT_PREFIX + name, _CREATE, 0, dir_fd=dir_fd))

    def make_opaque(self, path: bytes) -> None:
        """Hide all that the layers below have in the directory `path`."""
        prefix = self.form.markers.prefix
        name, dir_fd = self._at(path)
        if prefix is not None:
            xattr.set_(fd_path(dir_fd, name), prefix + names.OPAQUE, b"y")
        else:
            fd = self._dirs[path].fd()
            os.close(os.open(names.OPAQUE_FILE, _CREATE, 0, dir_fd=fd))

    # Attributes

    def _set_owner_and_mode(self, name: bytes, dir_fd: int, member: Member) -> None:
        if self.form.owners:
            _chown(name, dir_fd, member)
            os.chmod(name, member.mode, dir_fd=dir_fd)
        else:
            os.chmod(name, member.mode & 0o777 | _READABLE, dir_fd=dir_fd)
            self._set_override(fd_path(dir_fd, name), member)

    def _set_override(self, target: xattr.Target, member: Member) -> None:
        assert self.form.override is not None, "only where owners are not on disk"
        rdev = os.makedev(*member.rdev) if member.fmt in _DEVICES else 0
        kept = Override(member.uid, member.gid, member.mode, member.fmt, rdev)
        xattr.set_(target, self.form.override, kept.packed())

    def _set_xattrs(self, target: xattr.Target, xattrs: dict[bytes, bytes]) -> None:
        """Set `xattrs`; take out of it what is not kept."""
        for name, value in list(xattrs.items()):
            stored = self.form.stored(name)
            if stored is not None:
                try:
                    xattr.set_(target, stored, value)
                    continue
                except OSError as err:
                    if err.errno not in _NOT_KEPT:
                        raise
            text = f"the attribute {shown(name)} is not kept here"
            if len(self._notes) > _MAX_NOTES:
                text = "other attributes are not kept here"
            self._notes[text] += 1
            del xattrs[name]


def _chown(target: int | bytes, dir_fd: int | None, member: Member) -> None:
    try:
        os.chown(
            target, member.uid, member.gid, dir_fd=dir_fd, follow_symlinks=isinstance(target, int)
        )
    except OSError as err:
        if err.errno == errno.EINVAL:  # of a user namespace
            raise Refused(
                f"the owner {member.uid}:{member.gid} is none of those that are mapped here"
            ) from None
        raise
