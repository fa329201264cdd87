"""What a tree holds, as data: build random layers, record a tree, tell two records apart.

A record is everything that a program can see of a file and that a union must keep. Access times are
no part of it (reading changes them), nor are inode numbers, except that names of one file are
recorded as such and that directory entries must tell the same numbers and types as lstat.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Times before this moment (September 2001) were set on purpose, later ones come from the clock and
# differ between two runs.
LONG_AGO_NS = 1_000_000_000 * 10**9

# Small holes come and go with a copy (overlayfs fills those within a MiB); large ones must stay.
SPARSE_BYTES = 2 << 20

# Root of a user namespace has neither `trusted.*` nor devices.
IS_ROOTLESS = Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]

PRIVATE_XATTRS = ("user.overlay.",) if IS_ROOTLESS else ("trusted.overlay.",)

OPAQUE = f"{PRIVATE_XATTRS[0]}opaque".encode()
ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"

ALICE = 1001
BOB = 1002
TEAM = 2000  # a supplementary group of both
OWNERS = ((0, 0), (0, 0), (ALICE, ALICE), (BOB, BOB), (ALICE, TEAM), (BOB, TEAM), (0, TEAM))

NAMES = (b"a", b"b", b"c", b"d", b"e", "fr\u00fchling".encode(), b"not utf-8 \xff\xfe", b"n" * 255)

# Devices of a number range for local use: no operation on them can reach a real disk.
BLOCK_DEVICE = os.makedev(240, 9)
NULL_DEVICE = os.makedev(1, 3)


@dataclass(frozen=True)
class Record:
    """One name of a tree."""

    type: str  # as the first letter of `ls -l`
    mode: int  # permission bits with suid, sgid and sticky
    uid: int
    gid: int
    nlink: int | None  # None for directories, whose count no union promises
    size: int | None  # None for directories
    content: str | None  # digest; None for all but regular files
    is_sparse: bool  # far fewer blocks than bytes
    target: bytes | None  # of a symlink
    rdev: int | None  # of a device
    xattrs: tuple[tuple[str, bytes], ...]
    same_file_as: bytes | None  # the first name of this file in the tree, if there are several
    mtime_ns: int | None
    ctime_ns: int | None


def snapshot(
    root: Path,
    *,
    times: Literal["none", "set", "exact"] = "set",
    private_xattrs: bool = True,
    directory_times: bool = False,
    entry_inos: bool = True,
) -> dict[bytes, Record]:
    """Record every name below `root`, and `root` itself as `b"."`.

    Args:
        root: Where to begin; symlinks are never followed.
        times: "exact" keeps mtime and ctime, "set" the mtimes that lie long ago (see
        `LONG_AGO_NS`). private_xattrs: Keep `trusted.overlay.*` too. directory_times: Keep the
        mtimes of directories under `times="set"`.

    Raises:
        AssertionError: A directory entry tells another type (or inode number) than lstat.
    """
    found: dict[bytes, Record] = {}
    first_names: dict[tuple[int, int], bytes] = {}
    pending = [(b".", os.fsencode(root), os.lstat(root))]
    while pending:
        name, path, status = pending.pop()
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory:
            prefix = b"" if name == b"." else name + b"/"
            children = [
                (prefix + child, os.path.join(path, child), below)
                for child, below in _checked_entries(path, inos=entry_inos)
            ]
            pending.extend(reversed(children))
        first = None
        if not is_directory and status.st_nlink > 1:
            first = first_names.setdefault((status.st_dev, status.st_ino), name)
        is_device = stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)
        mtime_ns: int | None = status.st_mtime_ns
        is_set = status.st_mtime_ns < LONG_AGO_NS and (directory_times or not is_directory)
        if times == "none" or (times == "set" and not is_set):
            mtime_ns = None
        found[name] = Record(
            type=stat.filemode(status.st_mode)[0],
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            nlink=None if is_directory else status.st_nlink,
            size=None if is_directory else status.st_size,
            content=_digest(path) if stat.S_ISREG(status.st_mode) else None,
            is_sparse=status.st_size - 512 * status.st_blocks > SPARSE_BYTES,
            target=os.readlink(path) if stat.S_ISLNK(status.st_mode) else None,
            rdev=status.st_rdev if is_device else None,
            xattrs=_xattrs(path, private=private_xattrs),
            same_file_as=None if first == name else first,
            mtime_ns=mtime_ns,
            ctime_ns=status.st_ctime_ns if times == "exact" else None,
        )
    return found


def diff(
    expected: Mapping[bytes, Record],
    actual: Mapping[bytes, Record],
) -> list[str]:
    """Return one line for each name or property in which snapshots differ."""
    lines = []
    for name in sorted({*expected, *actual}):
        want, have = expected.get(name), actual.get(name)
        if want is None or have is None:
            lines.append(f"{name!r}: {'is there too many' if want is None else 'is missing'}")
            continue
        for field in fields(Record):
            left, right = getattr(want, field.name), getattr(have, field.name)
            if left != right:
                show = "{:04o}".format if field.name == "mode" else repr
                lines.append(f"{name!r}: {field.name} should be {show(left)}, is {show(right)}")
    return lines


def acl(*entries: tuple[str, int] | tuple[str, int, int]) -> bytes:
    """Return the xattr value of a POSIX ACL made of (tag, permissions[, id]) entries."""
    tags = {"user_obj": 1, "user": 2, "group_obj": 4, "group": 8, "mask": 16, "other": 32}
    packed = [
        struct.pack("<HHI", tags[entry[0]], entry[1], entry[2] if len(entry) == 3 else 0xFFFFFFFF)
        for entry in entries
    ]
    return struct.pack("<I", 2) + b"".join(packed)


ACLS = (
    acl(("user_obj", 7), ("group_obj", 5), ("other", 0)),  # no more than a mode can say
    acl(("user_obj", 6), ("user", 7, ALICE), ("group_obj", 4), ("mask", 7), ("other", 4)),
    acl(("user_obj", 7), ("group_obj", 5), ("group", 7, TEAM), ("mask", 5), ("other", 1)),
    acl(("user_obj", 7), ("user", 6, BOB), ("group_obj", 7), ("mask", 0), ("other", 0)),
    acl(
        ("user_obj", 7),
        ("user", 5, ALICE),
        ("user", 7, BOB),
        ("group_obj", 0),
        ("group", 3, TEAM),
        ("mask", 7),
        ("other", 7),
    ),
)


def pattern(seed: int, length: int) -> bytes:
    """Return `length` bytes that `seed` determines, none of them zero (a hole reads as zeros)."""
    line = b"%08x-the quick brown fox jumps over the lazy dog\n" % (seed & 0xFFFFFFFF)
    return (line * (length // len(line) + 1))[:length]


def build_layers(lowers: Sequence[Path], upper: Path, seed: int) -> dict[bytes, str]:
    """Fill empty `lowers` (topmost first) with a random union; the same seed makes the same trees.

    They hold what a union meets: directories merged from several layers, files over directories and
    the other way round, whiteouts, opaque directories, hard links, every type of file, odd modes
    and owners, xattrs, ACLs, sparse files, times long ago. The upper stays empty; only its root
    gets a mode and owner.

    Returns:
        The names that the union shows, each with its kind: "directory", "file", "symlink",
        "fifo"...
    """
    rng = Random(f"layers {seed}")
    visible: dict[bytes, str] = {}
    for lower in reversed(lowers):
        builder = _LayerBuilder(lower, rng, visible)
        builder.fill(b"", depth=1, is_merged=lower is not lowers[-1])
        builder.set_times()
        visible = builder.visible
    upper.chmod(rng.choice((0o755, 0o777, 0o1777, 0o2777)))
    os.chown(upper, *rng.choice(OWNERS))
    return visible


class _LayerBuilder:
    """Fills one lower, knowing what the layers below it show."""

    def __init__(self, root: Path, rng: Random, visible: Mapping[bytes, str]) -> None:
        self.root = os.fsencode(root)
        self.rng = rng
        self.visible = dict(visible)
        self.made: list[bytes] = []
        self.linkable: list[bytes] = []

    def fill(self, directory: bytes, depth: int, *, is_merged: bool) -> None:
        """Make random children of `directory`, which exists."""
        for name in NAMES:
            self._make_child(os.path.join(directory, name), depth, is_merged=is_merged)

    def set_times(self) -> None:
        """Give every name a time long ago, parents after their children."""
        for name in (*sorted(self.made, reverse=True), b""):
            moment = Random(name).randrange(LONG_AGO_NS)
            path = os.path.join(self.root, name)
            os.utime(path, ns=(moment, moment), follow_symlinks=False)

    def _make_child(self, name: bytes, depth: int, *, is_merged: bool) -> None:
        kinds = {
            "nothing": 22,
            "directory": 26 if depth < 4 else 0,
            "file": 24,
            "sparse": 2,
            # Without its index, overlayfs breaks links of the lowers, which a union never does.
            "link": 7 if self.linkable and not IS_ROOTLESS else 0,
            "symlink": 7,
            # The kernel takes whiteouts in a directory that is merged with nothing for devices.
            "whiteout": 8 if is_merged else 0,
            "fifo": 2,
            "socket": 1,
            "device": 2,
        }
        [kind] = self.rng.choices(list(kinds), list(kinds.values()))
        path = os.path.join(self.root, name)
        if kind == "nothing":
            return
        self.made.append(name)
        is_opaque = self.rng.random() < 0.15
        was_directory = is_merged and self.visible.get(name) == "directory"
        if kind != "directory" or is_opaque or not was_directory:
            self.visible = {
                other: what
                for other, what in self.visible.items()
                if other != name and not other.startswith(name + b"/")
            }
        if kind != "whiteout":
            self.visible[name] = "file" if kind in {"sparse", "link"} else kind
        if kind == "directory":
            os.mkdir(path)
            self._decorate(path, (0o755, 0o755, 0o777, 0o2775, 0o1777, 0o555, 0o700, 0o2070))
            if is_opaque:
                os.setxattr(path, OPAQUE, b"y")
            if self.rng.random() < 0.2:
                os.setxattr(path, ACL_DEFAULT, self.rng.choice(ACLS))
            self.fill(name, depth + 1, is_merged=was_directory and not is_opaque)
        elif kind == "whiteout":
            os.mknod(path, stat.S_IFCHR, 0)
        elif kind == "link":
            os.link(
                os.path.join(self.root, self.rng.choice(self.linkable)), path, follow_symlinks=False
            )
        else:
            self._make_file(kind, path)
            self.linkable.append(name)

    def _make_file(self, kind: str, path: bytes) -> None:
        if kind == "symlink":
            os.symlink(self.rng.choice(SYMLINK_TARGETS), path)
            os.chown(path, *self.rng.choice(OWNERS), follow_symlinks=False)
            if self.rng.random() < 0.3:
                _set_privileged(path, "trusted.foo", b"of a symlink")
            return
        if kind in {"file", "sparse"}:
            with open(path, "wb") as file:
                if kind == "sparse":
                    file.truncate(2 * SPARSE_BYTES)
                    file.seek(self.rng.randrange(1 << 19))
                file.write(pattern(self.rng.randrange(1 << 30), self.rng.choice(SIZES)))
        elif kind == "device":
            device = self.rng.choice(((stat.S_IFCHR, NULL_DEVICE), (stat.S_IFBLK, BLOCK_DEVICE)))
            os.mknod(path, *((stat.S_IFIFO,) if IS_ROOTLESS else device))
        else:
            os.mknod(path, stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK)
        self._decorate(path, (0o644, 0o644, 0o666, 0o600, 0o444, 0, 0o755, 0o4755, 0o2755, 0o6777))

    def _decorate(self, path: bytes, modes: Sequence[int]) -> None:
        """Give a file an owner, mode, ACL and xattrs."""
        os.chown(path, *self.rng.choice(OWNERS))
        os.chmod(path, self.rng.choice(modes))
        if self.rng.random() < 0.1:
            os.setxattr(path, ACL_ACCESS, self.rng.choice(ACLS))
        is_plain = stat.S_IFMT(os.lstat(path).st_mode) in {stat.S_IFREG, stat.S_IFDIR}
        for name in ("user.foo", "user.bar", "trusted.foo", "security.foo"):
            if self.rng.random() < 0.1 and (is_plain or not name.startswith("user.")):
                value = pattern(self.rng.randrange(1 << 30), self.rng.choice((0, 9, 200)))
                if name.startswith("user."):
                    os.setxattr(path, name, value)
                else:
                    _set_privileged(path, name, value)


def _set_privileged(path: bytes, name: str, value: bytes) -> None:
    if not IS_ROOTLESS:
        os.setxattr(path, name, value, follow_symlinks=False)


SIZES = (0, 1, 100, 4095, 4096, 4097, 20_000, 70_000)

# At most one level up: no operation that follows a link may leave the directory around the
# mountpoint.
SYMLINK_TARGETS = (b"a", b"b", b"../b", b"c/a", b"../a", b"e", b"missing/one", b"d/e", b".")


def _checked_entries(path: bytes, *, inos: bool) -> list[tuple[bytes, os.stat_result]]:
    """Return the sorted (name, status) pairs of a directory; what the entries tell must be true."""
    listed = []
    with os.scandir(path) as entries:
        for entry in entries:
            status = os.lstat(entry.path)
            # An entry of unknown type asks lstat itself, so it tells the same.
            told = {
                "ino": entry.inode() if inos else None,
                "is_dir": entry.is_dir(follow_symlinks=False),
                "is_file": entry.is_file(follow_symlinks=False),
                "is_symlink": entry.is_symlink(),
            }
            true = {
                "ino": status.st_ino if inos else None,
                "is_dir": stat.S_ISDIR(status.st_mode),
                "is_file": stat.S_ISREG(status.st_mode),
                "is_symlink": stat.S_ISLNK(status.st_mode),
            }
            assert told == true, f"{entry.path!r}: its entry tells {told}, lstat {true}"
            listed.append((entry.name, status))
    names = [name for name, _ in listed]
    assert len(names) == len(set(names)), f"{path!r} lists a name twice: {sorted(names)}"
    return sorted(listed, key=lambda pair: pair[0])


def _digest(path: bytes) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:20]


def _xattrs(path: bytes, *, private: bool) -> tuple[tuple[str, bytes], ...]:
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if private or not name.startswith(PRIVATE_XATTRS)
    )
