"""Random filesystem operations as data, and their execution below any root directory.

An operation names its paths relative to a root, so that the same list runs on two unions. What it
did is an outcome, `("ok", value)` or `("err", "ENOENT")`, which holds nothing that two equal
filesystems may tell differently (inode numbers, times taken from the clock).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import multiprocessing
import os
import stat
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.support.tree import (
    ACL_ACCESS,
    ACL_DEFAULT,
    ACLS,
    ALICE,
    BLOCK_DEVICE,
    BOB,
    LONG_AGO_NS,
    NAMES,
    NULL_DEVICE,
    OWNERS,
    SIZES,
    SYMLINK_TARGETS,
    TEAM,
    pattern,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

Outcome = tuple[str, Any]

# Name -> uid, gid, supplementary groups.
USERS = {
    "root": (0, 0, []),
    "alice": (ALICE, ALICE, [ALICE, TEAM]),
    "bob": (BOB, BOB, [TEAM]),
}

# Each open file belongs to one user's process.
SLOT_OWNERS = ("root", "root", "alice")

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100


class Op(NamedTuple):
    """One operation; its repr is Python source that makes it again."""

    kind: str  # the name of an Executor's method
    args: tuple[Any, ...]
    user: str = "root"
    umask: int = 0o022


# --- Choosing operations --------------------------------------------------------------------------

# How often each kind is drawn, in parts of the sum.
WEIGHTS = {
    "create": 9,
    "write": 7,
    "append": 3,
    "overwrite": 3,
    "mmap_write": 2,
    "truncate": 5,
    "read": 4,
    "mkdir": 8,
    "rmdir": 6,
    "unlink": 8,
    "symlink": 3,
    "readlink": 1,
    "link": 6,
    "rename": 12,
    "chmod": 6,
    "chown": 5,
    "utimens": 4,
    "mknod": 5,
    "setxattr": 5,
    "getxattr": 2,
    "removexattr": 3,
    "listxattr": 1,
    "listdir": 4,
    "stat": 3,
    "access": 2,
    "fd_open": 7,
    "fd_write": 4,
    "fd_read": 2,
    "fd_stat": 3,
    "fd_truncate": 1,
    "fd_chmod": 1,
    "fd_setxattr": 1,
    "fd_sync": 1,
    "fd_close": 1,
}

FILE_MODES = (0o644, 0o666, 0o600, 0o777, 0, 0o444, 0o4755, 0o2755, 0o6711, 0o2644)
DIRECTORY_MODES = (0o755, 0o777, 0o777, 0o700, 0o555, 0o2775, 0o1777, 0o3777)
XATTR_NAMES = (
    "user.foo",
    "user.foo",
    "user.bar",
    "trusted.foo",
    "security.foo",
    "trusted.overlay.foo",
)
ACL_NAMES = (ACL_ACCESS.decode(), ACL_DEFAULT.decode())
SPECIAL_FILES = (
    (stat.S_IFIFO, 0),
    (stat.S_IFSOCK, 0),
    (stat.S_IFREG, 0),
    (stat.S_IFCHR, 0),  # a whiteout, which no one may make
    (stat.S_IFCHR, NULL_DEVICE),
    (stat.S_IFBLK, BLOCK_DEVICE),
)
CREATING = {"create", "mkdir", "symlink", "mknod", "link", "rename"}
# What the others work on, if not on anything.
SUITABLE = {
    **dict.fromkeys(("rmdir", "listdir"), "directory"),
    **dict.fromkeys(("write", "append", "overwrite", "mmap_write"), "file"),
    **dict.fromkeys(("truncate", "read", "unlink", "fd_open"), "file"),
}
ODD_NAMES = (b"x" * 256, b"name with\nnewline", b".hidden", b"..c", b"a.wh.b")


class Generator:
    """Draws operations; the same seed and the same known names draw the same ones.

    It keeps a guess of what the union shows, as if every operation went well, so that most of them
    find something to work on. Where the guess is wrong, an error is compared instead of a success.
    """

    def __init__(self, seed: int, known: Mapping[bytes, str]) -> None:
        self._rng = Random(f"operations {seed}")
        self._known = dict(known)

    def draw(self, count: int) -> list[Op]:
        """Return the next `count` operations."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Op:
        rng = self._rng
        [kind] = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        user = rng.choices(("root", "alice", "bob"), (7, 4, 2))[0]
        if kind.startswith("fd_"):
            slot = rng.randrange(len(SLOT_OWNERS))
            user = SLOT_OWNERS[slot]
            arguments = (slot, *self._file_arguments(kind))
        elif kind in CREATING:
            arguments = self._creating_arguments(kind)
        else:
            arguments = self._arguments(kind)
        self._guess(kind, arguments)
        return Op(kind, arguments, user, rng.choice((0o022, 0o022, 0, 0o077, 0o027)))

    def _creating_arguments(self, kind: str) -> tuple[Any, ...]:
        choice, path = self._rng.choice, self._new()
        match kind:
            case "create":
                return path, choice(FILE_MODES), *self._data()
            case "mkdir":
                return path, choice(DIRECTORY_MODES)
            case "symlink":
                return choice(SYMLINK_TARGETS), path
            case "mknod":
                return path, choice(FILE_MODES), *choice(SPECIAL_FILES)
            case "link":
                return self._old("file"), path
            case _:  # rename
                flag = choice((0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE))
                if self._rng.random() < 0.02:
                    flag = choice((RENAME_WHITEOUT, 3, 5, 8))
                if flag == RENAME_EXCHANGE or self._rng.random() < 0.3:
                    path = self._old("any")
                return self._old("any"), path, flag

    def _arguments(self, kind: str) -> tuple[Any, ...]:
        choice = self._rng.choice
        path = self._old(SUITABLE.get(kind, "any"))
        if kind == "rmdir" and self._rng.random() < 0.6:
            path = self._empty(path)
        match kind:
            case "write" | "mmap_write":
                return path, self._offset(), *self._data()
            case "append" | "overwrite":
                return path, *self._data()
            case "truncate":
                return path, choice((0, 0, *SIZES, 300_000))
            case "chmod":
                return path, choice(FILE_MODES + DIRECTORY_MODES)
            case "chown":
                # Not (-1, -1): whether a stranger may do that to a file with suid or sgid is for
                # the kernel's FUSE client to say, which does not ask and differs from overlayfs.
                ids = ((-1, TEAM), (-1, ALICE), (-1, BOB), (-1, 0), *OWNERS, (ALICE, -1), (0, -1))
                return path, *choice(ids), choice((True, False))
            case "utimens":
                return path, self._time(), self._time(), choice((True, False))
            case "setxattr":
                flags = choice((0, 0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
                return path, *self._xattr(), flags, choice((True, False))
            case "getxattr" | "removexattr":
                return path, choice((*XATTR_NAMES, *ACL_NAMES)), choice((True, False))
            case "listxattr" | "stat":
                return path, choice((True, False))
            case "access":
                return path, choice((os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.W_OK | os.X_OK))
            case _:  # read, rmdir, unlink, readlink, listdir
                return (path,)

    def _file_arguments(self, kind: str) -> tuple[Any, ...]:
        choice = self._rng.choice
        match kind:
            case "fd_open":
                flags = (0, 0, os.O_CREAT, os.O_CREAT | os.O_TRUNC, os.O_APPEND)
                return self._old("file"), choice((*flags, os.O_CREAT | os.O_EXCL))
            case "fd_write":
                return self._offset(), *self._data()
            case "fd_read":
                return self._offset(), choice(SIZES)
            case "fd_truncate":
                return (choice(SIZES),)
            case "fd_chmod":
                return (choice(FILE_MODES),)
            case "fd_setxattr":
                return self._xattr()
            case _:  # fd_stat, fd_sync, fd_close
                return ()

    def _guess(self, kind: str, arguments: tuple[Any, ...]) -> None:
        """Note what the operation did if it went well."""
        known = self._known
        match kind, arguments:
            case (("create" | "overwrite"), (path, *_)):
                known.setdefault(path, "file")
            case "mkdir", (path, _):
                known.setdefault(path, "directory")
            case "symlink", (_, path):
                known.setdefault(path, "symlink")
            case "mknod", (path, *_):
                known.setdefault(path, "special")
            case "link", (_, path):
                known.setdefault(path, "file")
            case (("unlink" | "rmdir"), (path,)):
                known.pop(path, None)
            case "rename", (old, new, 0 | 1) if old in known and not new.startswith(old + b"/"):
                moved = {path for path in known if path == old or path.startswith(old + b"/")}
                for path in sorted(moved):
                    known[new + path[len(old) :]] = known.pop(path)

    def _old(self, kind: str) -> bytes:
        """Choose a path, most often one that is known to be of this kind."""
        paths = [path for path, what in self._known.items() if kind in {what, "any"}]
        if not paths or self._rng.random() < 0.15:
            return self._new()
        return self._rng.choice(paths)

    def _empty(self, otherwise: bytes) -> bytes:
        """Choose a known directory in which nothing is known."""
        parents = {os.path.dirname(path) for path in self._known}
        directories = (path for path, what in self._known.items() if what == "directory")
        empty = [path for path in directories if path not in parents]
        return self._rng.choice(empty) if empty else otherwise

    def _new(self) -> bytes:
        """Choose a path, most often one in a directory that is known."""
        rng = self._rng
        parents = [path for path, what in self._known.items() if what == "directory"]
        if parents and rng.random() < 0.75:
            return os.path.join(rng.choice(parents), self._name())
        [depth] = rng.choices((1, 2, 3), (6, 3, 1))
        return b"/".join(self._name() for _ in range(depth))

    def _name(self) -> bytes:
        rng = self._rng
        if rng.random() < 0.02:
            return rng.choice(ODD_NAMES)
        [name] = rng.choices(NAMES, (8, 8, 8, 6, 6, 2, 2, 1))
        return name

    def _data(self) -> tuple[int, int]:
        return self._rng.randrange(1 << 30), self._rng.choice((0, 1, 5, 100, 4096, 5000, 70_000))

    def _offset(self) -> int:
        return self._rng.choice((0, 0, 1, 50, 4095, 4096, 30_000, 200_000))

    def _time(self) -> int:
        """Choose a time in ns; UTIME_NOW and UTIME_OMIT stand for themselves."""
        exact = self._rng.randrange(LONG_AGO_NS)
        return self._rng.choice((exact, exact, exact, 0, 1, -4_876_543_211, UTIME_NOW, UTIME_OMIT))

    def _xattr(self) -> tuple[str, bytes]:
        rng = self._rng
        if rng.random() < 0.4:
            broken = (b"", b"\2\0\0\0", b"nonsense", ACLS[1][:-8])
            return rng.choice(ACL_NAMES), rng.choice((*ACLS, *ACLS, *broken))
        return rng.choice(XATTR_NAMES), pattern(rng.randrange(1 << 30), rng.choice((0, 5, 300)))


# --- Running them ---------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class Executor:
    """Runs operations of one user below one root, and keeps the files open that they open."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._open: dict[int, int] = {}

    def run(self, op: Op) -> Outcome:
        """Run one operation."""
        before = os.umask(op.umask)
        try:
            return "ok", getattr(self, op.kind)(*op.args)
        except OSError as error:
            return "err", errno.errorcode.get(error.errno or 0, str(error.errno))
        finally:
            os.umask(before)

    def close(self) -> None:
        """Close the files left open."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _at(self, path: bytes) -> bytes:
        return os.path.join(self._root, path)

    @contextlib.contextmanager
    def _opened(self, path: bytes, flags: int, mode: int = 0o666) -> Any:
        # O_NONBLOCK: to open a fifo must not wait for a partner.
        descriptor = os.open(self._at(path), flags | os.O_NONBLOCK | os.O_NOCTTY, mode)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def create(self, path: bytes, mode: int, seed: int, length: int) -> None:
        with self._opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode) as descriptor:
            os.write(descriptor, pattern(seed, length))

    def write(self, path: bytes, offset: int, seed: int, length: int) -> int:
        with self._opened(path, os.O_WRONLY) as descriptor:
            _touch(descriptor, unless=length)
            return os.pwrite(descriptor, pattern(seed, length), offset)

    def append(self, path: bytes, seed: int, length: int) -> int:
        with self._opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
            _touch(descriptor, unless=length)
            return os.write(descriptor, pattern(seed, length))

    def overwrite(self, path: bytes, seed: int, length: int) -> int:
        with self._opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            return os.write(descriptor, pattern(seed, length))

    def mmap_write(self, path: bytes, offset: int, seed: int, length: int) -> int:
        with self._opened(path, os.O_RDWR) as descriptor:
            _touch(descriptor, unless=length)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size <= offset:
                _touch(descriptor)
                return 0
            # pyfuse3 does not tell the write-back of a mapping, which leaves these bits, from a
            # write(2), which clears them.
            if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                _touch(descriptor)
                return 0
            data = pattern(seed, length)[: status.st_size - offset]
            with mmap.mmap(descriptor, status.st_size) as mapping:
                mapping[offset : offset + len(data)] = data
            return len(data)

    def truncate(self, path: bytes, size: int) -> None:
        _truncate(self._at(path), size)

    def read(self, path: bytes) -> bytes:
        with self._opened(path, os.O_RDONLY) as descriptor:
            return os.read(descriptor, 1 << 20)

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._at(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self._at(path))

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._at(path))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._at(path))

    def link(self, path: bytes, new: bytes) -> None:
        os.link(self._at(path), self._at(new), follow_symlinks=False)

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        _check(_libc.renameat2(AT_FDCWD, self._at(old), AT_FDCWD, self._at(new), flags))

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        os.chown(self._at(path), uid, gid, follow_symlinks=follow)

    def utimens(self, path: bytes, atime: int, mtime: int, follow: bool) -> None:
        times = (_Timespec * 2)()
        for each, moment in zip(times, (atime, mtime), strict=True):
            special = moment in {UTIME_NOW, UTIME_OMIT}
            each.tv_sec, each.tv_nsec = (0, moment) if special else divmod(moment, 10**9)
        flags = 0 if follow else AT_SYMLINK_NOFOLLOW
        _check(_libc.utimensat(AT_FDCWD, self._at(path), times, flags))

    def mknod(self, path: bytes, mode: int, kind: int, device: int) -> None:
        os.mknod(self._at(path), kind | mode, device)

    def setxattr(self, path: bytes, name: str, value: bytes, flags: int, follow: bool) -> None:
        os.setxattr(self._at(path), name, value, flags, follow_symlinks=follow)

    def getxattr(self, path: bytes, name: str, follow: bool) -> bytes:
        return os.getxattr(self._at(path), name, follow_symlinks=follow)

    def removexattr(self, path: bytes, name: str, follow: bool) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=follow)

    def listxattr(self, path: bytes, follow: bool) -> list[str]:
        return sorted(os.listxattr(self._at(path), follow_symlinks=follow))

    def listdir(self, path: bytes) -> list[bytes]:
        return sorted(os.listdir(self._at(path)))

    def stat(self, path: bytes, follow: bool) -> dict[str, int]:
        return _comparable(os.stat(self._at(path), follow_symlinks=follow))

    def access(self, path: bytes, mode: int) -> bool:
        return os.access(self._at(path), mode)

    def fd_open(self, slot: int, path: bytes, flags: int) -> None:
        # Never read-only: such a file goes on showing the lower's data on overlayfs, by its design.
        self.fd_close(slot)
        self._open[slot] = os.open(self._at(path), os.O_RDWR | os.O_NONBLOCK | flags, 0o666)
        _touch(self._open[slot])

    def fd_write(self, slot: int, offset: int, seed: int, length: int) -> int:
        return os.pwrite(self._descriptor(slot), pattern(seed, length), offset)

    def fd_read(self, slot: int, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor(slot), length, offset)

    def fd_stat(self, slot: int) -> dict[str, int]:
        return _comparable(os.fstat(self._descriptor(slot)))

    def fd_truncate(self, slot: int, size: int) -> None:
        _truncate(self._descriptor(slot), size)

    def fd_chmod(self, slot: int, mode: int) -> None:
        os.fchmod(self._descriptor(slot), mode)

    def fd_setxattr(self, slot: int, name: str, value: bytes) -> None:
        os.setxattr(self._descriptor(slot), name, value)

    def fd_sync(self, slot: int) -> None:
        os.fsync(self._descriptor(slot))

    def fd_close(self, slot: int) -> None:
        if slot in self._open:
            os.close(self._open.pop(slot))

    def _descriptor(self, slot: int) -> int:
        if slot not in self._open:
            raise OSError(errno.EBADF, "nothing open")
        return self._open[slot]


def _touch(descriptor: int, *, unless: int = 0) -> None:
    """Set the times of what is open for writing, unless something is going to be written.

    overlayfs changes mtime when it copies the data of a metacopy, which it does at open; nothing
    else is to be changed by that.
    """
    if not unless:
        os.utime(descriptor)


def _truncate(file: bytes | int, size: int) -> None:
    before = os.stat(file).st_size
    os.truncate(file, size)
    if size == before:
        # Where it gathers writes, the kernel keeps the times of a FUSE file itself, and does not
        # change them then.
        os.utime(file)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _comparable(status: os.stat_result) -> dict[str, int]:
    told = {
        "mode": status.st_mode,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "rdev": status.st_rdev,
    }
    if not stat.S_ISDIR(status.st_mode):
        told |= {"nlink": status.st_nlink, "size": status.st_size}
        if status.st_mtime_ns < LONG_AGO_NS:
            told["mtime_ns"] = status.st_mtime_ns
    return told


# --- Processes that run them ----------------------------------------------------------------------


class Hang(Exception):
    """A filesystem did not answer in time."""


class Workers:
    """One process for each user; it takes the user's identity and runs what it is told.

    The caller never touches a mount itself: a mount that hangs takes a worker, which can be killed,
    and not the test run.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._processes: dict[str, tuple[multiprocessing.process.BaseProcess, Connection]] = {}

    def __enter__(self) -> Self:
        # All now: what a test opens later on, it has to close.
        for user in USERS:
            self._start(user)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for user in list(self._processes):
            self._discard(user)

    def run(self, root: bytes, op: Op) -> Outcome:
        """Run `op` below `root` as its user."""
        outcome: Outcome = self._ask(op.user, ("run", root, op))
        return outcome

    def call(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Call a module's function as root in a process that may hang."""
        return self._ask("root", ("call", function, args, keywords))

    def close_files(self, root: bytes) -> None:
        """Close all files that operations have left open below `root`."""
        for user in list(self._processes):
            self._ask(user, ("close", root))

    def _ask(self, user: str, question: tuple[Any, ...]) -> Any:
        if user not in self._processes:
            self._start(user)
        _, connection = self._processes[user]
        connection.send(question)
        if not connection.poll(self._timeout):
            self._discard(user)
            raise Hang(f"no answer in {self._timeout} s to {question} of {user}")
        answer = connection.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _start(self, user: str) -> None:
        # Spawned, not forked: the process must hold no files of its parent's.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, user), daemon=True)
        process.start()
        theirs.close()
        self._processes[user] = process, ours

    def _discard(self, user: str) -> None:
        process, connection = self._processes.pop(user)
        connection.close()
        process.kill()
        # A process that waits in a FUSE request dies when its connection is aborted, not before.
        process.join(timeout=1)


def _serve(connection: Connection, user: str) -> None:
    """Answer questions until the caller goes; runs in a worker."""
    uid, gid, groups = USERS[user]
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")
    executors: dict[bytes, Executor] = {}
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        answer: Any
        try:
            match question:
                case "run", root, op:
                    answer = executors.setdefault(root, Executor(root)).run(op)
                case "close", root:
                    answer = None
                    if root in executors:
                        executors.pop(root).close()
                case "call", function, args, keywords:
                    answer = function(*args, **keywords)
        except Exception as error:  # the caller judges it
            answer = error
        connection.send(answer)
