"""Copy file data by the cheapest way that the filesystems have, holes kept."""

import errno
import fcntl
import os

_FICLONE = 0x40049409  # _IOW(0x94, 9, int) of <linux/fs.h>
_CHUNK = 1 << 20

# What a pair of filesystems answers when it has no clone or no in-kernel copy.
_UNSUPPORTED = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
)


def copy_data(source_fd: int, target_fd: int, size: int) -> None:
    """Copy `size` bytes from the start of `source_fd` into the empty file `target_fd`.

    Tries FICLONE, then copy_file_range, then read and write. Ranges that are holes in the
    source stay holes in the target.

    Raises:
        OSError: ENOSPC, EDQUOT, EFBIG or EIO of either filesystem.
    """
    if size == 0:
        return
    if _clone(source_fd, target_fd):
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(source_fd, end, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:  # only a hole is left
                break
            if err.errno != errno.EINVAL:
                raise
            start, end = end, size  # no SEEK_DATA here: all of it is data
        else:
            end = min(os.lseek(source_fd, start, os.SEEK_HOLE), size)
        _copy_range(source_fd, target_fd, start, end)
    os.ftruncate(target_fd, size)


def _clone(source_fd: int, target_fd: int) -> bool:
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as err:
        if err.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _copy_range(source_fd: int, target_fd: int, start: int, end: int) -> None:
    while start < end:
        try:
            done = os.copy_file_range(source_fd, target_fd, end - start, start, start)
        except OSError as err:
            if err.errno not in _UNSUPPORTED:
                raise
            done = 0
        if done == 0:  # unsupported, or a filesystem that answers 0 for what it cannot copy
            done = _read_write(source_fd, target_fd, start, end)
            if done == 0:  # the source is shorter than it was
                return
        start += done


def _read_write(source_fd: int, target_fd: int, start: int, end: int) -> int:
    data = os.pread(source_fd, min(_CHUNK, end - start), start)
    done = 0
    while done < len(data):
        done += os.pwrite(target_fd, data[done:], start + done)
    return done
