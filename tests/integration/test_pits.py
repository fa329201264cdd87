"""What union filesystems are known to get wrong works.

Where a plain directory can say what is right, the same is done in one beside the union and has to
come out the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pytest

from tests.support.mounts import Layers, public_directory
from tests.support.programs import run, served
from tests.support.sessions import KERNEL_CACHED, KERNEL_PASSTHROUGH, held_views
from tests.support.tree import ACL_ACCESS, ACL_DEFAULT, ALICE, BOB, NULL_DEVICE, TEAM, acl
from tests.support.users import acting_as

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(60)]

root = pytest.mark.root

SECOND = 10**9
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100


@pytest.fixture
def layers() -> Iterator[Layers]:
    """Make a union that every user may enter."""
    with public_directory() as base:
        layers = Layers.create(base / "union", 2)
        layers.upper.chmod(0o777)
        yield layers


@pytest.fixture
def native(layers: Layers) -> Path:
    """Make a plain directory beside the union, on the same filesystem and as open."""
    path = layers.mnt.with_name("native")
    path.mkdir()
    path.chmod(0o777)
    return path


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def outcome(action: Callable[[], object]) -> object:
    """Return what an action returns, or the name of its error."""
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def make_specials(directory: Path) -> list[Path]:
    """Make a fifo, a socket, and, as root, devices."""
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o644)
    made = ["fifo", "socket"]
    if os.geteuid() == 0:
        os.mknod(directory / "char", stat.S_IFCHR | 0o644, NULL_DEVICE)
        os.mknod(directory / "block", stat.S_IFBLK | 0o600, os.makedev(240, 9))
        made += ["char", "block"]
    return [directory / name for name in made]


class TestDevices:
    @root
    def test_nobody_makes_a_whiteout_by_mknod(self, layers):
        with served(layers) as mnt:
            (mnt / "directory").mkdir()
            for mode in (stat.S_IFCHR, stat.S_IFCHR | 0o644):
                with pytest.raises(PermissionError) as caught:
                    os.mknod(mnt / "directory" / "device", mode, 0)
                assert caught.value.errno == errno.EPERM
            # fuse-overlayfs leaves a directory that nothing removes
            assert os.listdir(mnt / "directory") == []
            (mnt / "directory").rmdir()
            assert os.listdir(mnt) == []

    @root
    def test_a_device_stays_a_device_when_its_mode_and_name_change(self, layers):
        for path in make_specials(layers.lowers[0]):
            path.chmod(0o600)
        with served(layers) as mnt:
            for path in make_specials_names(mnt):
                before = path.lstat()
                path.chmod(0o640)
                path.rename(path.with_name(f"new-{path.name}"))
                after = path.with_name(f"new-{path.name}").lstat()
                assert stat.S_IFMT(after.st_mode) == stat.S_IFMT(before.st_mode)
                assert stat.S_IMODE(after.st_mode) == 0o640
                assert after.st_rdev == before.st_rdev


def make_specials_names(directory: Path) -> list[Path]:
    return [directory / name for name in ("fifo", "socket", "char", "block")]


class TestSymlinkXattrs:
    """setfattr -h and its like work on the symlink itself and follow nothing."""

    @root
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_a_link_has_attributes_of_its_own(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "file").touch()
        (base / "link").symlink_to("file")
        with served(layers) as mnt:
            link = mnt / "link"
            os.setxattr(link, "trusted.own", b"link", follow_symlinks=False)
            assert os.getxattr(link, "trusted.own", follow_symlinks=False) == b"link"
            assert os.listxattr(link, follow_symlinks=False) == ["trusted.own"]
            assert os.listxattr(mnt / "file") == []
            os.removexattr(link, "trusted.own", follow_symlinks=False)
            assert os.listxattr(link, follow_symlinks=False) == []
            assert os.readlink(link) == "file"

    @root
    def test_a_link_into_the_mount_itself_is_not_walked(self, layers):
        # A daemon that follows it asks itself and waits for ever.
        for base in (layers.lowers[0], layers.upper):
            (base / f"link-{base.name}").symlink_to(layers.mnt / "directory" / "file")
        (layers.lowers[0] / "directory").mkdir()
        (layers.lowers[0] / "directory" / "file").write_text("target")
        with served(layers) as mnt:
            for link in (mnt / "link-lower1", mnt / "link-upper"):
                run("setfattr", "-h", "-n", "trusted.own", "-v", "1", link, timeout=20)
                shown = run("getfattr", "-h", "-d", "-m", "-", link, timeout=20)
                assert 'trusted.own="1"' in shown
                run("setfattr", "-h", "-x", "trusted.own", link, timeout=20)
                run("chown", "-h", f"{ALICE}:{TEAM}", link, timeout=20)
                run("touch", "-h", "-d", "@100", link, timeout=20)
                run("stat", link, timeout=20)
                status = link.lstat()
                assert (status.st_uid, status.st_gid, status.st_mtime) == (ALICE, TEAM, 100)
                assert link.read_text() == "target"
            target = (mnt / "directory" / "file").stat()
            assert (target.st_uid, target.st_gid) == (0, 0)

    def test_user_attributes_of_links_are_refused(self, layers, native):
        with served(layers) as mnt:
            for base in (native, mnt):
                (base / "link").symlink_to("nowhere")
            for action in (
                lambda link: os.setxattr(link, "user.x", b"1", follow_symlinks=False),
                lambda link: os.getxattr(link, "user.x", follow_symlinks=False),
                lambda link: os.removexattr(link, "user.x", follow_symlinks=False),
                lambda link: os.listxattr(link, follow_symlinks=False),
            ):
                expected = outcome(lambda: action(native / "link"))  # noqa: B023
                assert outcome(lambda: action(mnt / "link")) == expected  # noqa: B023


class TestSpecialFileXattrs:
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_getfattr_is_no_error_on_fifos_sockets_and_devices(self, layers, native, place):
        make_specials(layers.lowers[0] if place == "lower" else layers.upper)
        paths = make_specials(native)
        with served(layers) as mnt:
            for path in paths:
                shown = mnt / path.name
                run("getfattr", "-d", "-m", "-", shown, timeout=20)
                for action in (
                    os.listxattr,
                    lambda path: os.getxattr(path, "user.x"),
                    lambda path: os.setxattr(path, "user.x", b"1"),
                    lambda path: os.getxattr(path, ACL_ACCESS),
                    lambda path: os.getxattr(path, "security.selinux"),
                    lambda path: os.getxattr(path, "trusted.x"),
                ):
                    assert outcome(lambda: action(shown)) == outcome(lambda: action(path))  # noqa: B023

    @root
    def test_they_keep_trusted_attributes_at_copy_up(self, layers):
        for path in make_specials(layers.lowers[0]):
            os.setxattr(path, "trusted.kept", b"1")
        with served(layers) as mnt:
            for path in make_specials_names(mnt):
                os.setxattr(path, "trusted.added", b"2")
                assert sorted(os.listxattr(path)) == ["trusted.added", "trusted.kept"]


UMASKS = (0, 0o022, 0o027, 0o077, 0o777)


def make_each_kind(directory: Path) -> None:
    """Make files of each kind, asking for all rights."""
    os.close(os.open(directory / "file", os.O_CREAT | os.O_WRONLY, 0o666))
    os.close(os.open(directory / "program", os.O_CREAT | os.O_WRONLY, 0o777))
    os.mknod(directory / "node", stat.S_IFREG | 0o666)
    os.mkfifo(directory / "fifo", 0o666)
    os.mkdir(directory / "directory", 0o777)
    os.symlink("file", directory / "link")
    here = os.open(".", os.O_RDONLY)
    os.chdir(directory)
    try:
        # the path of a socket's address has no more than 108 bytes
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
    finally:
        os.fchdir(here)
        os.close(here)
    if os.geteuid() == 0:
        os.mknod(directory / "device", stat.S_IFCHR | 0o666, NULL_DEVICE)


def rights(directory: Path) -> dict[str, tuple[object, ...]]:
    """Map each name to its owner, mode and ACLs."""
    return {
        path.name: (
            path.lstat().st_uid,
            path.lstat().st_gid,
            oct(path.lstat().st_mode),
            outcome(lambda: os.getxattr(path, ACL_ACCESS, follow_symlinks=False)),  # noqa: B023
            outcome(lambda: os.getxattr(path, ACL_DEFAULT, follow_symlinks=False)),  # noqa: B023
        )
        for path in directory.iterdir()
    }


class TestRightsOfNewFiles:
    @pytest.mark.parametrize("mask", UMASKS, ids=oct)
    def test_the_umask_holds_for_every_kind(self, layers, native, mask):
        with served(layers) as mnt:
            with umask(mask):
                make_each_kind(native)
                make_each_kind(mnt)
            assert rights(mnt) == rights(native)

    # through fusermount3 the kernel applies the umask all the same
    @root
    @pytest.mark.parametrize("mask", UMASKS, ids=oct)
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_a_default_acl_takes_the_place_of_the_umask(self, layers, native, mask, place):
        default = acl(
            ("user_obj", 7), ("user", 6, ALICE), ("group_obj", 5), ("mask", 7), ("other", 4)
        )
        base = layers.lowers[0] if place == "lower" else layers.upper
        for directory in (base / "directory", native / "directory"):
            directory.mkdir()
            os.setxattr(directory, ACL_DEFAULT, default)
        with served(layers) as mnt:
            with umask(mask):
                make_each_kind(native / "directory")
                make_each_kind(mnt / "directory")
            assert rights(mnt / "directory") == rights(native / "directory")
            assert rights(mnt) == rights(native)

    def test_a_default_acl_of_the_mount_is_inherited_on_and_on(self, layers, native):
        default = acl(
            ("user_obj", 7), ("group_obj", 0), ("group", 5, TEAM), ("mask", 5), ("other", 0)
        )
        with served(layers) as mnt:
            for base in (native, mnt):
                os.setxattr(base, ACL_DEFAULT, default)
                (base / "a").mkdir()
                (base / "a" / "b").mkdir()
                (base / "a" / "b" / "file").touch()
            assert rights(mnt / "a") == rights(native / "a")
            assert rights(mnt / "a" / "b") == rights(native / "a" / "b")


@root
class TestSetgid:
    @pytest.mark.parametrize("place", ["lower", "upper"])
    @pytest.mark.parametrize("uid", [0, ALICE, BOB])
    def test_a_setgid_directory_gives_its_group(self, layers, native, place, uid):
        base = layers.lowers[0] if place == "lower" else layers.upper
        for directory in (base / "team", native / "team"):
            directory.mkdir()
            os.chown(directory, 0, TEAM)
            directory.chmod(0o2777)
        with served(layers) as mnt:
            for directory in (native / "team", mnt / "team"):
                with acting_as(uid, groups=[TEAM] if uid == ALICE else []) if uid else umask(0):
                    (directory / "below").mkdir()
                    (directory / "below" / "deeper").mkdir()
                    (directory / "file").touch()
                    (directory / "program").touch(0o2775)
                    os.mknod(directory / "node", stat.S_IFREG | 0o2775)
                    os.mkfifo(directory / "fifo")
                    (directory / "link").symlink_to("file")
                    (directory / "moded").mkdir(0o700)
            for name in (".", "below"):
                assert rights(mnt / "team" / name) == rights(native / "team" / name)
            assert (mnt / "team" / "below").stat().st_gid == TEAM
            assert (mnt / "team" / "below").stat().st_mode & stat.S_ISGID


def make_suid(path: Path, mode: int, owner: tuple[int, int]) -> None:
    path.write_text("text")
    os.chown(path, *owner)
    path.chmod(mode)


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def write_through_truncation(path: Path) -> None:
    with open(path, "wb"):
        pass


def allocate(path: Path) -> None:
    # libc writes where the filesystem cannot do it
    with opened(path, os.O_RDWR) as fd:
        os.posix_fallocate(fd, 0, 100)


def set_acl(path: Path) -> None:
    entries = (("user_obj", 7), ("user", 4, BOB), ("group_obj", 5), ("mask", 7), ("other", 5))
    os.setxattr(path, ACL_ACCESS, acl(*entries))


CLEARING = {
    "write": append,
    "O_TRUNC": write_through_truncation,
    "truncate": lambda path: os.truncate(path, 2),
    "fallocate": allocate,
    "extend": lambda path: os.truncate(path, 100),
    "chmod": lambda path: path.chmod(0o6755),
    "setfacl": set_acl,
    "chown to its owner": lambda path: os.chown(path, path.stat().st_uid, -1),
    "chown to its group": lambda path: os.chown(path, -1, path.stat().st_gid),
    "chgrp to the user's": lambda path: os.chown(path, -1, os.getegid()),
    "utime": lambda path: os.utime(path, (1, 1)),
    "setxattr": lambda path: os.setxattr(path, "user.x", b"1"),
    "rename": lambda path: path.rename(path.with_name("other")),
    "link": lambda path: os.link(path, path.with_name("other")),
}


@root
class TestSuidAndSgid:
    """They go when, and only when, they go on any filesystem."""

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_they_are_cleared_as_on_a_plain_filesystem(self, layers, native, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        cases = {
            f"{what} {mode:o} {uid} {owner}": (action, mode, uid, owner)
            for what, action in CLEARING.items()
            for mode in (0o4777, 0o2777, 0o6777, 0o2767, 0o6755)
            for uid in (0, ALICE, BOB)
            for owner in ((ALICE, ALICE), (ALICE, TEAM), (ALICE, BOB))
        }
        for number, (_, mode, _, owner) in enumerate(cases.values()):
            for directory in (base / f"{number}", native / f"{number}"):
                directory.mkdir()
                directory.chmod(0o777)
                make_suid(directory / "file", mode, owner)
        wrong = []
        with served(layers) as mnt:
            for number, (what, (action, _, uid, _)) in enumerate(cases.items()):
                seen = []
                for directory in (native / f"{number}", mnt / f"{number}"):
                    groups = [TEAM] if uid == ALICE else []
                    with acting_as(uid, groups=groups) if uid else contextlib.nullcontext():
                        done = outcome(lambda: action(directory / "file"))  # noqa: B023
                        mode = [oct(path.stat().st_mode) for path in sorted(directory.iterdir())]
                    seen.append((done if isinstance(done, str) else None, mode))
                expected, actual = seen
                if actual != expected:
                    wrong.append(f"{what}: should be {expected}, is {actual}")
        assert not wrong, "\n".join(wrong)

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_a_write_through_a_mapping_or_an_open_file_clears_them_too(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        make_suid(base / "file", 0o6777, (ALICE, ALICE))
        with served(layers) as mnt, acting_as(BOB), opened(mnt / "file", os.O_RDWR) as fd:
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o6777
            os.write(fd, b"x")
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o777
            assert stat.S_IMODE((mnt / "file").stat().st_mode) == 0o777


class TestDirectoryLinks:
    def test_the_count_follows_renames(self, layers, native):
        counts = []
        with served(layers) as mnt:
            for directory in (native, mnt):
                base = directory / "top"
                for name in (".", "a", "a/b", "a/c", "d"):
                    (base / name).mkdir()
                steps = [links(base)]
                (base / "a/b").rename(base / "d/b")
                steps.append(links(base))
                (base / "a/c").rename(base / "d/b/c")
                steps.append(links(base))
                (base / "d/b/c").rename(base / "a/file")
                (base / "d/b").rename(base / "a/file")  # over an empty directory
                steps.append(links(base))
                (base / "a/file").rmdir()
                steps.append(links(base))
                counts.append(steps)
        assert counts[1] == counts[0]

    @pytest.mark.parametrize("place", ["lower", "upper", "merged"])
    def test_an_open_directory_that_is_renamed_over_is_an_empty_one(self, layers, place):
        for base in {"lower": [1], "upper": [0], "merged": [0, 1]}[place]:
            [layers.upper, layers.lowers[0]][base].joinpath("target").mkdir()
        with served(layers) as mnt:
            (mnt / "source").mkdir()
            (mnt / "source" / "file").touch()
            with opened(mnt / "target") as fd:
                (mnt / "source").rename(mnt / "target")
                assert os.listdir(fd) == []
                assert os.fstat(fd).st_nlink == 0
                with pytest.raises(FileNotFoundError):
                    os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
                with pytest.raises(FileNotFoundError):
                    os.mkdir("new", dir_fd=fd)
            assert os.listdir(mnt / "target") == ["file"]

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_an_open_directory_that_is_removed_is_an_empty_one(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "directory").mkdir()
        with served(layers) as mnt, opened(mnt / "directory") as fd:
            (mnt / "directory").rmdir()
            assert os.listdir(fd) == []
            assert os.fstat(fd).st_nlink == 0
            (mnt / "directory").mkdir()
            (mnt / "directory" / "file").touch()
            assert os.listdir(fd) == []


def links(base: Path) -> dict[str, int]:
    """Map the directories below `base` to their numbers of links."""
    return {
        str(path.relative_to(base)): path.stat().st_nlink
        for path in [base, *base.rglob("*")]
        if path.is_dir()
    }


class TestCopiedUpDirectories:
    MODES = (0o555, 0o700, 0o755, 0o2775, 0o1777, 0o711, 0o3750)

    @pytest.mark.parametrize("mode", MODES, ids=oct)
    def test_they_keep_their_mode(self, layers, mode):
        outer = layers.lowers[0] / "outer"
        (outer / "inner").mkdir(parents=True)
        (outer / "inner" / "file").write_text("lower")
        (outer / "inner").chmod(mode)
        outer.chmod(mode)
        with served(layers) as mnt, umask(0o077):
            (mnt / "outer" / "inner" / "file").write_text("changed")
            for path in ("outer", "outer/inner"):
                assert stat.S_IMODE((mnt / path).stat().st_mode) == mode
        for path in ("outer", "outer/inner"):
            assert stat.S_IMODE((layers.upper / path).stat().st_mode) == mode
        assert stat.S_IMODE((layers.work / "work").stat().st_mode) & 0o077 == 0

    def test_they_keep_their_times(self, layers):
        outer = layers.lowers[0] / "outer"
        (outer / "inner").mkdir(parents=True)
        (outer / "inner" / "file").write_text("lower")
        for path in (outer / "inner", outer, layers.lowers[0]):
            os.utime(path, ns=(1_000_000_001, 2_000_000_002))
        with served(layers) as mnt:
            (mnt / "outer" / "inner" / "file").write_text("changed")
            for path in (mnt / "outer" / "inner", mnt / "outer"):
                assert path.stat().st_mtime_ns == 2_000_000_002


class TestHiddenThings:
    @root
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_trusted_attributes_are_hidden_from_plain_users(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "file").touch()
        (base / "file").chmod(0o666)
        os.setxattr(base / "file", "trusted.secret", b"1")
        os.setxattr(base / "file", "user.open", b"2")
        with served(layers) as mnt:
            assert sorted(os.listxattr(mnt / "file")) == ["trusted.secret", "user.open"]
            with acting_as(ALICE):
                assert os.listxattr(mnt / "file") == ["user.open"]
                with pytest.raises(OSError, match="No data available"):
                    os.getxattr(mnt / "file", "trusted.secret")
                with pytest.raises(PermissionError):
                    os.setxattr(mnt / "file", "trusted.secret", b"3")

    @root
    def test_no_mark_of_the_union_shows(self, layers):
        for lower in layers.lowers:
            (lower / "directory").mkdir()
            (lower / "opaque").mkdir()
            for name in ("deleted", "kept", "linked", f"of-{lower.name}"):
                (lower / "directory" / name).write_text(name)
            (lower / "opaque" / f"of-{lower.name}").touch()
        os.link(layers.lowers[0] / "directory/linked", layers.lowers[0] / "directory/link")
        os.setxattr(layers.lowers[0] / "opaque", "trusted.overlay.opaque", b"y")
        os.mknod(layers.lowers[0] / "directory" / "of-lower2-gone", stat.S_IFCHR, 0)
        with served(layers) as mnt:
            (mnt / "directory" / "deleted").unlink()
            (mnt / "directory" / "link").write_text("changed")
            (mnt / "directory" / "of-lower1").rename(mnt / "directory" / "renamed")
            shutil.rmtree(mnt / "opaque")
            (mnt / "opaque").mkdir()
            (mnt / "opaque" / "new").touch()
            assert sorted(os.listdir(mnt / "directory")) == [
                "kept", "link", "linked", "of-lower2", "renamed",
            ]  # fmt: skip
            assert os.listdir(mnt / "opaque") == ["new"]
            assert sorted(os.listdir(mnt)) == ["directory", "opaque"]
            for path in (mnt, *mnt.rglob("*")):
                assert os.listxattr(path) == []
                for name in ("opaque", "origin", "impure", "redirect", "nlink"):
                    with pytest.raises(OSError, match="No data available"):
                        os.getxattr(path, f"trusted.overlay.{name}")
        assert os.listxattr(layers.upper / "opaque"), "there was nothing to hide"

    def test_whiteout_files_of_other_programs_do_not_show(self, layers):
        for name in ("deleted", "kept", ".wh.deleted"):
            base = layers.lowers[0] if name.startswith(".wh.") else layers.lowers[1]
            (base / name).write_text(name)
        (layers.lowers[1] / "directory").mkdir()
        (layers.lowers[1] / "directory" / "below").touch()
        (layers.lowers[0] / "directory").mkdir()
        (layers.lowers[0] / "directory" / ".wh..wh..opq").touch()
        with served(layers) as mnt:
            assert sorted(os.listdir(mnt)) == ["directory", "kept"]
            assert os.listdir(mnt / "directory") == []
            for name in (".wh.deleted", "deleted", "directory/.wh..wh..opq", "directory/below"):
                assert not (mnt / name).exists()


# --- Reading directories --------------------------------------------------------------------------


class Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.telldir.restype = ctypes.c_long


class Directory:
    """A directory stream of libc, of which Python shows no positions."""

    def __init__(self, path: Path) -> None:
        opened = libc.opendir(os.fsencode(path))
        assert opened, path
        self._stream = ctypes.c_void_p(opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        libc.closedir(self._stream)

    def read(self, count: int = 1 << 30) -> list[tuple[str, int]]:
        """Return the next (name, type) pairs, without `.` and `..`."""
        found: list[tuple[str, int]] = []
        while len(found) < count:
            entry = libc.readdir(self._stream)
            if not entry:
                break
            name = os.fsdecode(entry.contents.name)
            if name not in (".", ".."):
                found.append((name, entry.contents.type))
        return found

    def tell(self) -> int:
        return int(libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        libc.seekdir(self._stream, ctypes.c_long(position))


class TestReadingDirectories:
    @pytest.mark.parametrize("place", ["lower", "upper", "merged"])
    def test_entries_tell_their_type(self, layers, place):
        bases = {"lower": layers.lowers, "upper": [layers.upper], "merged": [*layers.lowers]}[place]
        base = bases[0]
        make_specials(base)
        (base / "file").touch()
        (base / "directory").mkdir()
        (base / "link").symlink_to("file")
        if place == "merged":
            (layers.upper / "another").touch()
        with served(layers) as mnt, Directory(mnt) as directory:
            for name, kind in directory.read():
                assert kind == stat.S_IFMT((mnt / name).lstat().st_mode) >> 12, name

    def test_a_position_stays_while_entries_go(self, layers):
        for number in range(1500):
            (layers.lowers[0] / f"lower-{number:04}").touch()
            (layers.upper / f"upper-{number:04}").touch()
        with served(layers) as mnt, Directory(mnt) as directory:
            before = [name for name, _ in directory.read(1000)]
            position = directory.tell()
            after = [name for name, _ in directory.read()]
            assert len({*before, *after}) == 3000
            gone = {*before[::2], *after[::3]}
            for name in gone:
                (mnt / name).unlink()
            directory.seek(position)
            again = [name for name, _ in directory.read()]
            # whether a stream that was filled before shows what has gone is left open by POSIX
            assert [name for name in again if name not in gone] == [
                name for name in after if name not in gone
            ]
            assert len(set(again)) == len(again)
            assert set(again) <= set(after)
        with served(layers) as mnt:
            assert set(os.listdir(mnt)) == {*before, *after} - gone

    def test_every_position_leads_to_the_entry_behind_it(self, layers):
        for number in range(100):
            (layers.lowers[number % 2] / f"{number}").touch()
        with served(layers) as mnt, Directory(mnt) as directory:
            positions = {}
            while found := directory.read(1):
                positions[found[0][0]] = directory.tell()
            order = list(positions)
            for name, position in reversed(positions.items()):
                directory.seek(position)
                index = order.index(name)
                assert [name for name, _ in directory.read(1)] == order[index + 1 : index + 2]

    def test_what_is_renamed_meanwhile_is_not_met_again(self, layers):
        for number in range(1000):
            (layers.lowers[number % 2] / f"{number:04}").touch()
        with served(layers) as mnt:
            met = []
            with os.scandir(mnt) as entries:
                for entry in entries:
                    met.append(entry.inode())
                    os.rename(entry.path, mnt / f"renamed-{len(met):04}")
            assert len(met) == len(set(met)) == 1000
            assert len(os.listdir(mnt)) == 1000

    def test_what_is_removed_meanwhile_does_not_come(self, layers):
        for number in range(500):
            (layers.lowers[0] / f"{number:03}").touch()
        with served(layers) as mnt, Directory(mnt) as directory:
            directory.read(1)
            for path in list(mnt.iterdir()):
                path.unlink()
            libc.rewinddir(directory._stream)
            assert directory.read() == []

    def test_a_rewound_directory_shows_what_has_come(self, layers):
        (layers.lowers[0] / "old").touch()
        with served(layers) as mnt, Directory(mnt) as directory:
            assert [name for name, _ in directory.read()] == ["old"]
            (mnt / "new").touch()
            libc.rewinddir(directory._stream)
            assert sorted(name for name, _ in directory.read()) == ["new", "old"]


# --- Data -----------------------------------------------------------------------------------------


class TestData:
    @pytest.mark.parametrize("place", ["lower", "upper", "new"])
    def test_two_processes_append_without_loss(self, layers, place):
        if place != "new":
            (layers.lowers[0] if place == "lower" else layers.upper).joinpath("log").touch()
        script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
for number in range(500):
    line = b"%s %03d %s\\n" % (sys.argv[2].encode(), number, b"x" * (number % 100))
    assert os.write(fd, line) == len(line)
"""
        with served(layers) as mnt:
            writers = [
                subprocess.Popen([sys.executable, "-c", script, mnt / "log", name])
                for name in ("one", "two")
            ]
            for writer in writers:
                assert writer.wait(40) == 0
            lines = (mnt / "log").read_text().splitlines()
            assert len(lines) == 1000
            for name in ("one", "two"):
                own = [line.split() for line in lines if line.startswith(name)]
                assert [int(words[1]) for words in own] == list(range(500))

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_a_shared_mapping_sees_writes_and_is_seen(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "file").write_bytes(b"a" * 8192)
        with served(layers) as mnt, opened(mnt / "file", os.O_RDWR) as fd:
            with mmap.mmap(fd, 8192) as mapping:
                os.pwrite(fd, b"written", 100)
                assert mapping[100:107] == b"written"
                mapping[5000:5006] = b"mapped"
                assert os.pread(fd, 6, 5000) == b"mapped"
                assert (mnt / "file").read_bytes()[5000:5006] == b"mapped"
                mapping.flush()
                os.truncate(mnt / "file", 6000)
                assert os.fstat(fd).st_size == 6000
            assert (mnt / "file").read_bytes()[5000:5006] == b"mapped"
        assert (layers.upper / "file").read_bytes()[100:107] == b"written"
        assert (layers.upper / "file").read_bytes()[5000:5006] == b"mapped"

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_a_private_mapping_changes_nothing(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "file").write_bytes(b"a" * 8192)
        with served(layers) as mnt, opened(mnt / "file") as fd:
            with mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE) as mapping:
                mapping[:7] = b"private"
                assert os.pread(fd, 7, 0) == b"a" * 7
                # without a truncation, which would take the private page too
                with opened(mnt / "file", os.O_WRONLY) as writer:
                    os.write(writer, b"b" * 8192)
                assert mapping[:7] == b"private"
            assert (mnt / "file").read_bytes() == b"b" * 8192

    def test_a_mapping_from_before_the_copy_up_is_of_the_old_file_or_of_the_new(
        self, layers, session
    ):
        old = b"a" * 8192
        new = b"mapped" + old[6:4096] + b"changed" + old[4103:]
        (layers.lowers[0] / "file").write_bytes(old)
        with served(layers) as mnt, opened(mnt / "file") as reader:
            with mmap.mmap(reader, 8192, prot=mmap.PROT_READ) as mapping:
                assert mapping[4096:4097] == b"a"
                with opened(mnt / "file", os.O_RDWR) as writer:
                    os.pwrite(writer, b"changed", 4096)
                    with mmap.mmap(writer, 8192) as other:
                        other[:6] = b"mapped"
                        assert other[:] == new
                assert mapping[:] in held_views(session, old, new)
            assert os.pread(reader, 8192, 0) in held_views(session, old, new)
            assert (mnt / "file").read_bytes() == new

    def test_a_mapping_is_written_after_its_file_was_closed_and_removed(self, layers):
        (layers.lowers[0] / "file").write_bytes(b"a" * 8192)
        with served(layers) as mnt:
            with opened(mnt / "file", os.O_RDWR) as fd:
                mapping = mmap.mmap(fd, 8192)
            with mapping:
                mapping[:5] = b"first"
                (mnt / "file").unlink()
                mapping[:6] = b"second"
                mapping.flush()
                assert mapping[:6] == b"second"
            assert os.listdir(mnt) == []

    @pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_APPEND])
    def test_a_file_is_made_read_only_and_written(self, layers, flags):
        made = os.O_CREAT | os.O_EXCL | flags
        with served(layers) as mnt:
            who = acting_as(ALICE) if os.geteuid() == 0 else contextlib.nullcontext()
            with who, opened(mnt / "file", made, 0o444) as fd:
                os.write(fd, b"written")
                os.ftruncate(fd, 3)
            assert (mnt / "file").read_bytes() == b"wri"
            assert stat.S_IMODE((mnt / "file").stat().st_mode) == 0o444

    @root
    def test_truncation_to_nothing_copies_nothing(self, layers):
        size = 64 << 20
        for name in ("opened", "truncated"):
            with open(layers.lowers[0] / name, "wb") as file:
                file.writelines(b"x" * (1 << 20) for _ in range(size >> 20))
        with small_upper(layers, "size=2m"), served(layers) as mnt:
            # the upper has no room for a copy
            with pytest.raises(OSError, match="No space left"):
                os.truncate(mnt / "truncated", size - 1)
            with open(mnt / "opened", "wb") as file:
                assert os.fstat(file.fileno()).st_size == 0
                file.write(b"new")
            os.truncate(mnt / "truncated", 0)
            assert (mnt / "opened").read_bytes() == b"new"
            assert (mnt / "truncated").read_bytes() == b""

    @pytest.mark.parametrize(
        "offset", [1 << 33, 1 << 41, (1 << 43) - 1, 1 << 62, (1 << 63) - 10], ids=hex
    )
    def test_data_far_behind_the_end(self, layers, native, offset):
        with served(layers) as mnt:
            try:
                size = write_at(native / "file", b"far", offset)
            except OSError:
                # where the kernel gathers writes, it is said when they reach the upper
                with pytest.raises(OSError, match=r"too large|Invalid|Input/output|No space"):
                    write_at(mnt / "file", b"far", offset)
                return
            assert write_at(mnt / "file", b"far", offset) == size
            assert (mnt / "file").stat().st_blocks < 1000

    def test_a_file_is_read_while_it_is_copied_up(self, layers):
        content = os.urandom(1 << 20) * 64
        (layers.lowers[0] / "file").write_bytes(content)
        with served(layers) as mnt, opened(mnt / "file") as reader:
            writer = threading.Thread(target=append, args=(mnt / "file",))
            writer.start()
            for offset in range(0, len(content), 1 << 20):
                assert os.pread(reader, 1 << 20, offset) == content[offset : offset + (1 << 20)]
            writer.join(40)
            assert not writer.is_alive()
            assert (mnt / "file").read_bytes() == content + b"more"


def write_at(path: Path, data: bytes, offset: int) -> int:
    """Write into a new file, to the disk, read it again and return its size."""
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
        assert os.pread(fd, 100, offset) == data
        return os.fstat(fd).st_size


@contextlib.contextmanager
def small_upper(layers: Layers, options: str) -> Iterator[None]:
    """Put the upper and the workdir on a small filesystem of their own."""
    base = layers.upper.with_name("small")
    base.mkdir()
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", base)
    try:
        for path in (layers.upper, layers.work):
            (base / path.name).mkdir()
            path.rmdir()
            path.symlink_to(base / path.name)
        yield
    finally:
        run("umount", base)


class TestUnlinkedFiles:
    """A file without a name lives on while it is open."""

    @pytest.mark.parametrize("place", ["lower", "upper", "new"])
    def test_all_that_can_be_done_to_an_open_file_can_be_done(self, layers, place):
        base = {"lower": layers.lowers[0], "upper": layers.upper, "new": None}[place]
        if base:
            (base / "file").write_bytes(b"content")
        with served(layers) as mnt:
            if not base:
                (mnt / "file").write_bytes(b"content")
            with opened(mnt / "file", os.O_RDWR) as fd:
                (mnt / "file").unlink()
                assert os.fstat(fd).st_nlink == 0
                assert os.pread(fd, 100, 0) == b"content"
                os.pwrite(fd, b"changed and longer", 0)
                os.ftruncate(fd, 7)
                assert os.pread(fd, 100, 0) == b"changed"
                os.fchmod(fd, 0o640)
                os.utime(fd, ns=(1, 2))
                os.setxattr(fd, "user.x", b"1")
                os.fsync(fd)
                status = os.fstat(fd)
                assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 2)
                assert os.getxattr(fd, "user.x") == b"1"
                with mmap.mmap(fd, 7) as mapping:
                    mapping[:2] = b"CH"
                (mnt / "file").write_bytes(b"another")
                assert os.pread(fd, 100, 0) == b"CHanged"
            assert (mnt / "file").read_bytes() == b"another"

    def test_a_lower_file_is_changed_for_the_first_time_when_its_name_has_gone(
        self, layers, session
    ):
        (layers.lowers[0] / "file").write_bytes(b"content")
        with served(layers) as mnt, opened(mnt / "file") as fd:
            (mnt / "file").unlink()
            os.fchmod(fd, 0o600)
            os.setxattr(fd, "user.x", b"1")
            if session == KERNEL_PASSTHROUGH:
                # the readers of a file all go to the lower one, and no name leads to another
                with pytest.raises(OSError, match="Stale file handle"):
                    os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
                assert os.pread(fd, 100, 0) == b"content"
            else:
                with opened(f"/proc/self/fd/{fd}", os.O_RDWR) as again:
                    os.write(again, b"CON")
                assert os.pread(fd, 100, 0) == b"CONtent"
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
            assert os.fstat(fd).st_nlink == 0

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_the_links_that_are_left_are_counted(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "first").write_bytes(b"content")
        os.link(base / "first", base / "second")
        with served(layers) as mnt, opened(mnt / "first", os.O_RDWR) as fd:
            assert os.fstat(fd).st_nlink == 2
            os.link(mnt / "second", mnt / "third")
            assert os.fstat(fd).st_nlink == 3
            (mnt / "first").unlink()
            assert os.fstat(fd).st_nlink == 2
            os.pwrite(fd, b"changed", 0)
            assert (mnt / "second").read_bytes() == (mnt / "third").read_bytes() == b"changed"
            (mnt / "second").unlink()
            (mnt / "replacement").touch()
            (mnt / "replacement").rename(mnt / "third")
            assert os.fstat(fd).st_nlink == 0
            assert os.pread(fd, 100, 0) == b"changed"

    def test_a_file_that_was_renamed_over_lives_on(self, layers):
        (layers.lowers[0] / "old").write_bytes(b"old")
        (layers.lowers[1] / "new").write_bytes(b"new")
        with served(layers) as mnt, opened(mnt / "old", os.O_RDWR) as fd:
            (mnt / "new").rename(mnt / "old")
            assert os.fstat(fd).st_nlink == 0
            assert os.pread(fd, 3, 0) == b"old"
            os.pwrite(fd, b"OLD", 0)
            assert os.pread(fd, 3, 0) == b"OLD"
            assert (mnt / "old").read_bytes() == b"new"

    @root
    def test_a_removed_file_gives_its_space_back(self, layers):
        with small_upper(layers, "size=16m"), served(layers) as mnt:
            free = os.statvfs(layers.upper).f_bfree
            for _ in range(4):
                with open(mnt / "file", "wb") as file:
                    file.write(b"x" * (8 << 20))
                    (mnt / "file").unlink()
                wait_for_space = time.monotonic() + 10
                while os.statvfs(layers.upper).f_bfree < free - 20:
                    assert time.monotonic() < wait_for_space
                    time.sleep(0.01)


class TestFilesystem:
    @root
    def test_its_figures_are_those_of_the_upper(self, layers):
        with small_upper(layers, "size=32m,nr_inodes=1000"), served(layers) as mnt:
            (mnt / "file").write_bytes(b"x" * (1 << 20))
            expected, shown = os.statvfs(layers.upper), os.statvfs(mnt)
            for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail",
                         "f_files", "f_ffree", "f_namemax"):  # fmt: skip
                assert getattr(shown, name) == getattr(expected, name), name

    def test_symlinks_of_the_greatest_length(self, layers, native):
        target = "t" * 4095
        (layers.lowers[0] / "lower").symlink_to(target)
        with served(layers) as mnt:
            assert os.readlink(mnt / "lower") == target
            os.utime(mnt / "lower", (1, 1), follow_symlinks=False)
            assert os.readlink(mnt / "lower") == target
            (mnt / "new").symlink_to(target)
            assert os.readlink(mnt / "new") == target
            for base in (native, mnt):
                with pytest.raises(OSError, match="too long"):
                    (base / "longer").symlink_to(target + "t")


class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_long))


def utimensat(path: Path, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0) -> None:
    """Set times, which may be UTIME_NOW and UTIME_OMIT; Python's own function lacks them."""
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    if libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)


@dataclass(frozen=True)
class Times:
    atime_ns: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Times:
        status = path.lstat()
        return cls(status.st_atime_ns, status.st_mtime_ns)


@pytest.mark.parametrize("place", ["lower", "upper"])
class TestTimes:
    @pytest.fixture
    def base(self, layers: Layers, place: str) -> Path:
        """Return where the files of a test are made."""
        return layers.lowers[0] if place == "lower" else layers.upper

    @pytest.fixture
    def paths(self, base: Path) -> list[str]:
        """Make a file, a directory, a symlink and a fifo with a time each."""
        (base / "file").touch()
        (base / "directory").mkdir()
        (base / "link").symlink_to("file")
        os.mkfifo(base / "fifo")
        names = ["file", "directory", "link", "fifo"]
        for name in names:
            os.utime(base / name, ns=(111, 222), follow_symlinks=False)
        return names

    def test_nanoseconds_are_kept(self, layers, paths):
        with served(layers) as mnt:
            for name in paths:
                path = mnt / name
                assert Times.of(path).mtime_ns == 222
                utimensat(path, (3, 123_456_789), (4, 999_999_999), AT_SYMLINK_NOFOLLOW)
                assert Times.of(path) == Times(3_123_456_789, 4_999_999_999)
        for name in paths:
            assert Times.of(layers.upper / name).mtime_ns == 4_999_999_999

    def test_a_time_is_left_out(self, layers, paths):
        with served(layers) as mnt:
            for name in paths:
                path = mnt / name
                utimensat(path, (5, 0), (0, UTIME_OMIT), AT_SYMLINK_NOFOLLOW)
                assert Times.of(path) == Times(5 * SECOND, 222)
                utimensat(path, (0, UTIME_OMIT), (6, 0), AT_SYMLINK_NOFOLLOW)
                assert Times.of(path).mtime_ns == 6 * SECOND
                utimensat(path, (0, UTIME_OMIT), (0, UTIME_OMIT), AT_SYMLINK_NOFOLLOW)
                assert Times.of(path).mtime_ns == 6 * SECOND

    def test_a_time_is_now(self, layers, paths):
        with served(layers) as mnt:
            for name in paths:
                path = mnt / name
                before = time.time_ns() - SECOND
                utimensat(path, (7, 0), (0, UTIME_NOW), AT_SYMLINK_NOFOLLOW)
                assert before < Times.of(path).mtime_ns < time.time_ns() + SECOND
                utimensat(path, (0, UTIME_NOW), (8, 0), AT_SYMLINK_NOFOLLOW)
                times = Times.of(path)
                assert before < times.atime_ns < time.time_ns() + SECOND
                assert times.mtime_ns == 8 * SECOND

    @pytest.mark.parametrize(
        "seconds", [-1, -1_000_000, -(1 << 31), (1 << 31), (1 << 33) + 12_345], ids=str
    )
    def test_times_before_1970_and_after_2038(self, layers, base, native, seconds, session):
        moment = (seconds, 987_654_321)
        for directory in (base, native):
            (directory / "old").touch()
            utimensat(directory / "old", moment, moment)
        with served(layers) as mnt:
            expected = Times.of(native / "old")
            assert Times.of(mnt / "old") == expected
            (mnt / "old").chmod(0o600)  # copied up
            assert Times.of(mnt / "old").mtime_ns == expected.mtime_ns
            (mnt / "new").touch()
            utimensat(mnt / "new", moment, moment)
            # a time that the upper can not hold may be shown until the kernel asks for it again
            asked = Times(*[seconds * SECOND + 987_654_321] * 2)
            assert Times.of(mnt / "new") == expected or session == KERNEL_CACHED
            assert Times.of(mnt / "new").mtime_ns in (expected.mtime_ns, asked.mtime_ns)
        for name in ("old", "new"):
            assert Times.of(layers.upper / name).mtime_ns == expected.mtime_ns


# --- Users and processes --------------------------------------------------------------------------


@root
class TestUsers:
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_in_a_sticky_directory_each_removes_what_is_his(self, layers, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "sticky").mkdir()
        (base / "sticky").chmod(0o1777)
        for name in ("file", "other"):
            (base / "sticky" / name).write_text("alice's")
            os.chown(base / "sticky" / name, ALICE, ALICE)
            (base / "sticky" / name).chmod(0o666)
        with served(layers) as mnt:
            sticky = mnt / "sticky"
            with acting_as(BOB):
                (sticky / "own").touch()
                for change in (
                    lambda: (sticky / "file").unlink(),
                    lambda: (sticky / "file").rename(sticky / "renamed"),
                    lambda: (sticky / "own").rename(sticky / "file"),
                ):
                    with pytest.raises(PermissionError) as caught:
                        change()
                    assert caught.value.errno == errno.EPERM
                (sticky / "file").write_text("bob was here")
                with pytest.raises(PermissionError):
                    (sticky / "file").unlink()
            with acting_as(ALICE):
                (sticky / "file").unlink()
                (sticky / "other").rename(sticky / "renamed")
            assert sorted(os.listdir(sticky)) == ["own", "renamed"]

    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_access_and_execution_follow_the_mode(self, layers, native, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        modes = (0o755, 0o644, 0o700, 0o711, 0o555, 0o444, 0o070, 0o007)
        for directory in (base, native):
            for mode in modes:
                for owner in ((0, 0), (ALICE, 0), (0, TEAM)):
                    path = directory / f"{mode:o}-{owner[0]}-{owner[1]}"
                    path.write_text("#!/bin/true\n")
                    os.chown(path, *owner)
                    path.chmod(mode)
        script = """
for file in *; do
    for right in r w x; do test -$right $file; echo $file $right $?; done
    ./$file; echo $file $?
done 2>&1
"""
        with served(layers) as mnt:
            for user in (0, ALICE, BOB):
                shown = [
                    subprocess.run(
                        ["sh", "-c", script], cwd=where, user=user, group=user,
                        extra_groups=[TEAM] if user == ALICE else [],
                        capture_output=True, check=True, timeout=30,
                    ).stdout
                    for where in (native, mnt)
                ]  # fmt: skip
                assert shown[1] == shown[0]

    def test_a_private_directory_is_private(self, layers):
        (layers.lowers[0] / "private").mkdir(0o700)
        (layers.lowers[0] / "private" / "file").touch()
        with served(layers) as mnt:
            os.stat(mnt / "private" / "file")  # the kernel knows it now
            with acting_as(ALICE):
                for action in (
                    lambda: os.listdir(mnt / "private"),
                    lambda: os.stat(mnt / "private" / "file"),
                    lambda: (mnt / "private" / "new").touch(),
                ):
                    with pytest.raises(PermissionError):
                        action()


class TestProcesses:
    def test_a_program_runs_from_the_mount(self, layers):
        shutil.copy2("/bin/echo", layers.lowers[0] / "lower")
        with served(layers) as mnt:
            assert run(mnt / "lower", "hello") == "hello\n"
            shutil.copy2(mnt / "lower", mnt / "upper")
            assert run(mnt / "upper", "hello") == "hello\n"

    def test_a_program_that_runs_is_not_written(self, layers):
        shutil.copy2("/bin/sleep", layers.lowers[0] / "sleep")
        with served(layers) as mnt:
            with subprocess.Popen([mnt / "sleep", "60"]) as sleeping:
                with pytest.raises(OSError, match="Text file busy"):
                    os.open(mnt / "sleep", os.O_WRONLY)
                sleeping.kill()
            append(mnt / "sleep")
            run(mnt / "sleep", "0")

    def test_a_program_runs_while_it_is_copied_up(self, layers):
        program = layers.lowers[0] / "program"
        shutil.copy2("/bin/true", program)
        with open(program, "ab") as file:
            file.writelines(os.urandom(1 << 20) for _ in range(64))
        with served(layers) as mnt:
            copying = threading.Thread(target=(mnt / "program").chmod, args=(0o711,))
            copying.start()
            runs = 0
            while copying.is_alive() or runs < 5:
                run(mnt / "program", timeout=30)
                runs += 1
            copying.join(30)
            assert stat.S_IMODE((mnt / "program").stat().st_mode) == 0o711
            run(mnt / "program")

    @pytest.mark.parametrize("kind", ["flock", "lockf"])
    @pytest.mark.parametrize("place", ["lower", "upper"])
    def test_a_lock_is_held_against_other_processes(self, layers, kind, place):
        base = layers.lowers[0] if place == "lower" else layers.upper
        (base / "file").touch()
        script = f"""
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    fcntl.{kind}(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("locked", flush=True)
    sys.stdin.read()
"""
        lock = getattr(fcntl, kind)
        with served(layers) as mnt, open(mnt / "file", "r+") as file:
            with subprocess.Popen(
                [sys.executable, "-c", script, mnt / "file"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as holder:
                assert holder.stdout is not None
                assert holder.stdout.readline() == b"locked\n"
                with pytest.raises(BlockingIOError):
                    lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                holder.communicate(timeout=20)
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_fifo_and_a_socket_connect_processes(self, layers):
        os.mkfifo(layers.lowers[0] / "fifo")
        with served(layers) as mnt:
            with subprocess.Popen(["cat", mnt / "fifo"], stdout=subprocess.PIPE) as reader:
                (mnt / "fifo").write_text("through the fifo")
                assert reader.communicate(timeout=20)[0] == b"through the fifo"
            address = "/proc/self/fd/{}/socket"
            with (
                opened(mnt) as directory,
                socket.socket(socket.AF_UNIX) as server,
                socket.socket(socket.AF_UNIX) as client,
            ):
                server.bind(address.format(directory))
                server.listen()
                client.connect(address.format(directory))
                client.sendall(b"hello")
                connection, _ = server.accept()
                with connection:
                    assert connection.recv(5) == b"hello"
