"""The FUSE wire format: structs and constants of <linux/fuse.h>, protocol 7.31 and later.

Numbers are in the machine's byte order and naturally aligned, as the kernel writes them; names
follow the header's, without `fuse_`. A test compares every size and constant with the header.
"""

from __future__ import annotations

from struct import Struct

MAJOR = 7
MINOR = 45  # the newest that is understood; both sides use the older one's
MIN_MINOR = 31  # kernel 5.4

# enum fuse_opcode
LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK = 1, 2, 3, 4, 5, 6
MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK = 8, 9, 10, 11, 12, 13
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 14, 15, 16, 17, 18, 20
SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR, FLUSH, INIT = 21, 22, 23, 24, 25, 26
OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = 27, 28, 29, 30
CREATE, INTERRUPT, DESTROY, IOCTL = 35, 36, 38, 39
BATCH_FORGET, FALLOCATE, READDIRPLUS, RENAME2, LSEEK, COPY_FILE_RANGE = 42, 43, 44, 45, 46, 47
SYNCFS, TMPFILE, STATX = 50, 51, 52

# enum fuse_notify_code
NOTIFY_INVAL_INODE = 2

# INIT flags; from bit 32 on they stand in flags2, which INIT_EXT announces
ASYNC_READ = 1 << 0
ATOMIC_O_TRUNC = 1 << 3
EXPORT_SUPPORT = 1 << 4
BIG_WRITES = 1 << 5
DONT_MASK = 1 << 6
DO_READDIRPLUS = 1 << 13
ASYNC_DIO = 1 << 15
WRITEBACK_CACHE = 1 << 16
NO_OPEN_SUPPORT = 1 << 17
PARALLEL_DIROPS = 1 << 18
POSIX_ACL = 1 << 20
MAX_PAGES = 1 << 22
CACHE_SYMLINKS = 1 << 23
NO_OPENDIR_SUPPORT = 1 << 24
EXPLICIT_INVAL_DATA = 1 << 25
HANDLE_KILLPRIV_V2 = 1 << 28
SETXATTR_EXT = 1 << 29
INIT_EXT = 1 << 30
PASSTHROUGH = 1 << 37

# Bits of setattr_in.valid
FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_ATIME_NOW = 1 << 7
FATTR_MTIME_NOW = 1 << 8
FATTR_KILL_SUIDGID = 1 << 11

FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NOFLUSH = 1 << 5
FOPEN_PASSTHROUGH = 1 << 7
OPEN_KILL_SUIDGID = 1 << 0
WRITE_CACHE = 1 << 0
WRITE_KILL_SUIDGID = 1 << 2
FSYNC_FDATASYNC = 1 << 0
SETXATTR_ACL_KILL_SGID = 1 << 0

IN_HEADER = Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = Struct("=IiQ")  # len error unique
# ino size blocks atime mtime ctime, the three's ns, mode nlink uid gid rdev blksize flags
ATTR = Struct("=QQQqqqIIIIIIIIII")
ENTRY_OUT = Struct("=QQQQII")  # nodeid generation entry_valid attr_valid, the two's ns; an ATTR
ATTR_OUT = Struct("=QII")  # attr_valid, its ns, dummy; an ATTR follows
FORGET_IN = Struct("=Q")
FORGET_ONE = Struct("=QQ")
BATCH_FORGET_IN = Struct("=II")
# valid padding fh size lock_owner atime mtime ctime, the three's ns, mode unused uid gid unused
SETATTR_IN = Struct("=IIQQQqqqIIIIIIII")
MKNOD_IN = Struct("=IIII")  # mode rdev umask padding
MKDIR_IN = Struct("=II")  # mode umask
RENAME_IN = Struct("=Q")
RENAME2_IN = Struct("=QII")  # newdir flags padding
LINK_IN = Struct("=Q")
CREATE_IN = Struct("=IIII")  # flags mode umask open_flags; TMPFILE too
OPEN_IN = Struct("=II")  # flags open_flags
OPEN_OUT = Struct("=QII")  # fh open_flags backing_id
RELEASE_IN = Struct("=QIIQ")  # fh flags release_flags lock_owner
READ_IN = Struct("=QQIIQII")  # fh offset size read_flags lock_owner flags padding
WRITE_IN = Struct("=QQIIQII")  # fh offset size write_flags lock_owner flags padding
WRITE_OUT = Struct("=II")
# blocks bfree bavail files ffree bsize namelen frsize padding spare[6]
STATFS_OUT = Struct("=QQQQQIIII24x")
FSYNC_IN = Struct("=QII")  # fh fsync_flags padding
SETXATTR_IN = Struct("=IIII")  # size flags setxattr_flags padding
GETXATTR_IN = Struct("=II")  # size padding
GETXATTR_OUT = Struct("=II")
INIT_IN = Struct("=IIIII")  # major minor max_readahead flags flags2
# major minor max_readahead flags max_background congestion_threshold max_write time_gran
# max_pages map_alignment flags2 max_stack_depth unused
INIT_OUT = Struct("=IIIIHHIIHHII24x")
FALLOCATE_IN = Struct("=QQQII")  # fh offset length mode padding
LSEEK_IN = Struct("=QQII")  # fh offset whence padding
LSEEK_OUT = Struct("=Q")
IOCTL_IN = Struct("=QIIQII")  # fh flags cmd arg in_size out_size; the data follows
IOCTL_OUT = Struct("=iIII")  # result flags in_iovs out_iovs; the data follows
INTERRUPT_IN = Struct("=Q")
NOTIFY_INVAL_INODE_OUT = Struct("=Qqq")  # ino off len; off < 0: only attributes
STATX_IN = Struct("=IIQII")  # getattr_flags reserved fh sx_flags sx_mask
STATX_OUT = Struct("=QII16x")  # attr_valid, its ns, flags; a STATX_ATTR follows
# mask blksize attributes nlink uid gid mode ino size blocks attributes_mask,
# atime btime ctime mtime (each seconds and ns), rdev_major rdev_minor dev_major dev_minor
STATX_ATTR = Struct("=IIQIIIHxxQQQQqIxxxxqIxxxxqIxxxxqIxxxxIIII112x")
COPY_FILE_RANGE_IN = Struct("=QQQQQQQ")  # fh_in off_in nodeid_out fh_out off_out len flags
DIRENT = Struct("=QQII")  # ino off namelen type; the name follows, padded to 8


def dirent(ino: int, offset: int, mode: int, name: bytes) -> bytes:
    """Return a `fuse_dirent` with its name and padding; of the mode only the kind matters."""
    return DIRENT.pack(ino, offset, len(name), mode >> 12) + name + bytes(-len(name) % 8)
