"""Write to the upper: whiteouts, opaque marks and publishing, in the best form allowed.

Everything that appears in the upper appears by one rename or link from WORKDIR/work, or by
one mknod: a crash leaves the old state or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat

from unionfuse.layer import names
from unionfuse.layer.workdir import Workdir, remove_tree
from unionfuse.record import record
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path
from unionfuse.syscalls.rename import RENAME_EXCHANGE, RENAME_WHITEOUT, renameat2

log = logging.getLogger(__name__)

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_WHITEOUT = b"whiteout"
_WHITEOUT_LINKS = 30_000  # of one inode; filesystems allow from 32,000 (ext3) or 65,000 (ext4) on
_WHITEOUT_MODE = stat.S_IFCHR  # the kernel's whiteouts have mode 0


@record
class UpperFormat:
    """The forms of markers that this process may write into this upper.

    Attributes:
        char_whiteouts: char 0:0 whiteouts; otherwise `.wh.NAME` files.
        prefix: `trusted.overlay.` or `user.overlay.`; None where there are no attributes.
    """

    char_whiteouts: bool
    prefix: bytes | None

    @classmethod
    def probe(cls, workdir: Workdir) -> UpperFormat:
        """Find out by trying in WORKDIR/work."""
        return cls(_probe_char_whiteouts(workdir), _probe_xattr_prefix(workdir))


class Upper:
    """The writable layer's markers and its workdir."""

    def __init__(self, workdir: Workdir, fmt: UpperFormat) -> None:
        """Write with `fmt`, preparing things in `workdir`."""
        self.workdir = workdir
        self.format = fmt
        self.work_fd = workdir.work_fd
        self._whiteouts_left = 0  # links that WORKDIR/whiteout can still get

    def whiteout(self, dir_fd: int, name: bytes) -> None:
        """Hide `name` of the layers below; the upper itself has nothing of that name.

        Raises:
            OSError: ENAMETOOLONG in the `.wh.` form for names over 251 bytes.
        """
        if self.format.char_whiteouts:
            self._link_whiteout(dir_fd, name)
        else:
            self.whiteout_file(dir_fd, name)

    def _link_whiteout(self, dir_fd: int, name: bytes) -> None:
        """Make a char 0:0: a link of the one in the workdir, as the kernel does.

        Takes half of an mknod's time on ext4 (5 against 9 µs, and 4 against 10 to remove it),
        and no inode.
        """
        try:
            if not self._whiteouts_left:
                self._new_whiteout()
            os.link(
                _WHITEOUT, name, src_dir_fd=self.workdir.base_fd, dst_dir_fd=dir_fd,
                follow_symlinks=False,
            )  # fmt: skip
            self._whiteouts_left -= 1
        except FileExistsError:
            raise
        except OSError as err:  # no links here, or it was removed: an inode of its own will do
            log.debug("a whiteout is no link: %s", err)
            self._whiteouts_left = 0
            os.mknod(name, _WHITEOUT_MODE, 0, dir_fd=dir_fd)

    def _new_whiteout(self) -> None:
        base_fd = self.workdir.base_fd
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_WHITEOUT, dir_fd=base_fd)
        os.mknod(_WHITEOUT, _WHITEOUT_MODE, 0, dir_fd=base_fd)
        self._whiteouts_left = _WHITEOUT_LINKS

    def whiteout_file(self, dir_fd: int, name: bytes) -> None:
        """Hide `name` of the layers below by a file; the upper's own, beside it, is still shown."""
        _make_marker(dir_fd, names.WHITEOUT_PREFIX + name)

    def replace_by_whiteout(self, dir_fd: int, name: bytes, is_dir: bool) -> None:
        """Remove `name` (for a directory: with the markers in it) and hide it below, at once."""
        temp = self.workdir.temp_name()
        if self.format.char_whiteouts:
            self._link_whiteout(self.work_fd, temp)
            try:
                self._swap(temp, dir_fd, name, is_dir)
            except BaseException:
                os.unlink(temp, dir_fd=self.work_fd)
                raise
            if is_dir:
                self.discard(temp)
            return
        # First the whiteout: next to NAME it changes nothing, and after NAME has gone it counts.
        self.whiteout_file(dir_fd, name)
        if is_dir:
            _move_directory(dir_fd, name, self.work_fd, temp)
            self.discard(temp)
        else:
            os.unlink(name, dir_fd=dir_fd)

    def _swap(self, temp: bytes, dir_fd: int, name: bytes, is_dir: bool) -> None:
        if not is_dir:
            os.rename(temp, name, src_dir_fd=self.work_fd, dst_dir_fd=dir_fd)
            return
        try:
            renameat2(self.work_fd, temp, dir_fd, name, RENAME_EXCHANGE)
        except PermissionError:  # see _move_directory
            os.chmod(name, 0o700, dir_fd=dir_fd)
            renameat2(self.work_fd, temp, dir_fd, name, RENAME_EXCHANGE)

    def remove_directory(self, dir_fd: int, name: bytes) -> None:
        """Remove directory `name` and the markers in it; nothing below has the name."""
        try:
            os.rmdir(name, dir_fd=dir_fd)
        except OSError as err:
            if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            temp = self.workdir.temp_name()
            _move_directory(dir_fd, name, self.work_fd, temp)
            self.discard(temp)

    def discard(self, temp: bytes) -> None:
        """Remove what lies in WORKDIR/work after a change was published.

        That the change is made is not changed by a failure here: the next mount removes it.
        """
        try:
            remove_tree(self.work_fd, temp)
        except OSError as err:
            log.warning("%s stays in the workdir: %s", os.fsdecode(temp), err)

    def publish(
        self, temp: bytes, dir_fd: int, name: bytes, is_dir: bool, *, over_whiteout: bool = True
    ) -> None:
        """Give WORKDIR/work/`temp` its `name`, over a whiteout if there may be one."""
        try:
            self._publish(temp, dir_fd, name, is_dir and over_whiteout)
        except PermissionError:
            if not is_dir:
                raise
            # Without CAP_DAC_OVERRIDE a directory has to be writable to be moved.
            mode = stat.S_IMODE(os.stat(temp, dir_fd=self.work_fd, follow_symlinks=False).st_mode)
            os.chmod(temp, 0o700, dir_fd=self.work_fd)
            self._publish(temp, dir_fd, name, over_whiteout)
            os.chmod(name, mode, dir_fd=dir_fd)
        if over_whiteout:
            self.drop_whiteout_file(dir_fd, name)

    def _publish(self, temp: bytes, dir_fd: int, name: bytes, may_exchange: bool) -> None:
        if may_exchange and exists(dir_fd, name):  # a directory can not be renamed over a whiteout
            renameat2(self.work_fd, temp, dir_fd, name, RENAME_EXCHANGE)
            self.discard(temp)
        else:
            os.rename(temp, name, src_dir_fd=self.work_fd, dst_dir_fd=dir_fd)

    def drop_whiteout(self, dir_fd: int, name: bytes) -> None:
        """Remove a whiteout that hides nothing: below there is no such name."""
        try:
            os.unlink(name, dir_fd=dir_fd)
        except OSError as err:
            log.warning("a whiteout stays at %s: %s", os.fsdecode(name), err)

    def drop_whiteout_file(self, dir_fd: int, name: bytes) -> None:
        """Remove `.wh.NAME`, which has no meaning beside NAME any more."""
        try:
            os.unlink(names.WHITEOUT_PREFIX + name, dir_fd=dir_fd)
        except OSError as err:
            if err.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                log.warning("a whiteout stays beside %s: %s", os.fsdecode(name), err)

    def set_opaque(self, dir_fd: int, name: bytes) -> None:
        """Make the directory `name` below `dir_fd` hide what the layers below have there."""
        if self.format.prefix is not None:
            path = fd_path(dir_fd, name)
            xattr.set_(path, self.format.prefix + names.OPAQUE, b"y")
            return
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            _make_marker(fd, names.OPAQUE_FILE)
        finally:
            os.close(fd)

    def set_marker(self, target: xattr.Target, marker: bytes, value: bytes) -> bool:
        """Set overlay attribute `marker` on `target`; return False where that is impossible."""
        if self.format.prefix is None:
            return False
        try:
            xattr.set_(target, self.format.prefix + marker, value)
        except OSError as err:  # user.* only exists on regular files and directories
            if err.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EACCES):
                return False
            raise
        return True

    def get_marker(self, target: xattr.Target, marker: bytes) -> bytes | None:
        """Return overlay attribute `marker` of `target`, None where there is none."""
        if self.format.prefix is None:
            return None
        try:
            return xattr.get_or_none(target, self.format.prefix + marker)
        except PermissionError:
            return None

    def remove_marker(self, target: xattr.Target, marker: bytes) -> None:
        """Remove overlay attribute `marker` of `target`, if it is there."""
        if self.format.prefix is not None:
            try:
                xattr.remove(target, self.format.prefix + marker)
            except OSError as err:
                if err.errno != errno.ENODATA:
                    raise


def _make_marker(dir_fd: int, name: bytes) -> None:
    """Make an empty file; one that an earlier attempt has left says the same."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(name, _CREATE, 0, dir_fd=dir_fd))


def _move_directory(old_fd: int, old: bytes, new_fd: int, new: bytes) -> None:
    """Move a directory that is to be removed: without CAP_DAC_OVERRIDE it has to be writable."""
    try:
        os.rename(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)
    except PermissionError:
        os.chmod(old, 0o700, dir_fd=old_fd)
        os.rename(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)


def exists(dir_fd: int, name: bytes) -> bool:
    """Tell whether there is anything of that name, a whiteout or not."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _probe_char_whiteouts(workdir: Workdir) -> bool:
    """Tell whether char 0:0 can be made (kernel >= 5.8 without privilege) and left by a rename."""
    fd, source, target = workdir.work_fd, workdir.temp_name(), workdir.temp_name()
    try:
        os.mknod(source, _WHITEOUT_MODE, 0, dir_fd=fd)
        renameat2(fd, source, fd, target, RENAME_WHITEOUT)
    except OSError:
        return False
    else:
        return True
    finally:
        for name in (source, target):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)


def _probe_xattr_prefix(workdir: Workdir) -> bytes | None:
    path = fd_path(workdir.work_fd)
    for prefix in (names.TRUSTED, names.USER):
        try:
            xattr.set_(path, prefix + names.OPAQUE, b"0")
            xattr.remove(path, prefix + names.OPAQUE)
        except OSError:
            continue
        return prefix
    return None
