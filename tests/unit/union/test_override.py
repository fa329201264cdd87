"""A union that keeps owners and modes in an attribute."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.core import Driver
from unionfuse.layer.layers import Layers
from unionfuse.layer.override import CONTAINERS, SECURITY, USER
from unionfuse.union import acl
from unionfuse.union.ids import IdMap
from unionfuse.union.kinds import unite
from unionfuse.union.state import Caller, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Open = Callable[..., Driver]

STRANGER = Caller(11, 12, 0o022)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open unions of `lower` and `upper` below tmp_path."""
    (tmp_path / "upper").mkdir()
    with contextlib.ExitStack() as held:

        def open_union(**options: object) -> Driver:
            held.close()
            paths = [os.fsencode(tmp_path / name) for name in ("lower", "upper", "work")]
            layers = held.enter_context(contextlib.closing(Layers.open([paths[0]], *paths[1:])))
            given = Options(sync=False, **options)  # type: ignore[arg-type]  # by name
            fs = held.enter_context(contextlib.closing(unite(layers.stack, layers.workdir, given)))
            return Driver(fs, STRANGER)

        yield open_union


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """A layer that containers/storage has made with force_mask."""
    lower = tmp_path / "lower"
    (lower / "dir").mkdir(parents=True)
    for name in ("file", "device", "socket", "link", "plain", "broken"):
        (lower / name).write_text("tar/get" if name == "link" else "")
    for name, value in (
        (".", "0:0:0755:dir"),
        ("dir", "7:8:1770:dir"),
        ("file", "5:6:4711:file"),
        ("device", "1:2:0640:char-1-3"),
        ("socket", "1:2:0600:socket"),
        ("link", "1:2:0777:symlink"),
        ("broken", "nonsense"),
    ):
        os.setxattr(lower / name, CONTAINERS, value.encode())
    return lower


@pytest.fixture
def d(opened: Open, lower: Path) -> Driver:
    return opened(override=2)


def shown(d: Driver, path: bytes) -> tuple[int, int, int]:
    st = d.stat(path).st
    return st.st_uid, st.st_gid, st.st_mode


def kept(tmp_path: Path, name: str, attribute: bytes = CONTAINERS) -> bytes:
    return os.getxattr(tmp_path / "upper" / name, attribute)


def on_disk(tmp_path: Path, name: str) -> tuple[int, int, int]:
    st = (tmp_path / "upper" / name).lstat()
    return st.st_uid, st.st_gid, st.st_mode


class TestOut:
    @pytest.mark.parametrize(
        ("path", "status"),
        [
            (b"", (0, 0, stat.S_IFDIR | 0o755)),
            (b"dir", (7, 8, stat.S_IFDIR | 0o1770)),
            (b"file", (5, 6, stat.S_IFREG | 0o4711)),
            (b"device", (1, 2, stat.S_IFCHR | 0o640)),
            (b"socket", (1, 2, stat.S_IFSOCK | 0o600)),
            (b"link", (1, 2, stat.S_IFLNK | 0o777)),
        ],
    )
    def test_owner_mode_and_kind_are_those_of_the_attribute(
        self, d: Driver, path: bytes, status: tuple[int, int, int]
    ) -> None:
        assert shown(d, path) == status

    def test_a_device_has_its_number(self, d: Driver) -> None:
        assert d.stat(b"device").st.st_rdev == os.makedev(1, 3)

    def test_the_content_of_a_symlink_is_its_target(self, d: Driver) -> None:
        assert d.readlink(b"link") == b"tar/get"
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            d.readlink(b"file")

    @pytest.mark.parametrize("path", [b"plain", b"broken"])
    def test_without_one_that_makes_sense_they_are_the_disks(self, d: Driver, path: bytes) -> None:
        assert shown(d, path) == (os.geteuid(), os.getegid(), stat.S_IFREG | 0o666)

    def test_the_attribute_itself_is_not_shown(self, d: Driver) -> None:
        assert d.xattrs(b"file") == {}
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            d.getxattr(b"file", CONTAINERS)
        with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
            d.setxattr(b"file", CONTAINERS, b"0:0:777")

    def test_a_layer_that_has_them_is_known_by_its_root(self, opened: Open, lower: Path) -> None:
        assert shown(opened(), b"file")[:2] == (5, 6)
        os.removexattr(lower, CONTAINERS)
        os.removexattr(lower.parent / "upper", CONTAINERS)
        assert shown(opened(), b"file")[:2] == (os.geteuid(), os.getegid())


class TestChanges:
    def test_owner_and_mode_are_kept_in_the_attribute(self, d: Driver, tmp_path: Path) -> None:
        d.chown(b"file", 100, 200)
        d.chmod(b"file", 0o640)
        assert shown(d, b"file") == (100, 200, stat.S_IFREG | 0o640)
        assert kept(tmp_path, "file") == b"100:200:0640:file"
        assert on_disk(tmp_path, "file") == (os.geteuid(), os.getegid(), stat.S_IFREG | 0o666)

    def test_a_change_of_owner_clears_setuid(self, d: Driver) -> None:
        d.chown(b"file", 100, 200)
        assert d.mode(b"file") == 0o711

    def test_a_device_stays_one(self, d: Driver, tmp_path: Path) -> None:
        d.chmod(b"device", 0o600)
        assert shown(d, b"device") == (1, 2, stat.S_IFCHR | 0o600)
        assert kept(tmp_path, "device") == b"1:2:0600:char-1-3"

    def test_what_is_copied_up_keeps_it(self, d: Driver, tmp_path: Path) -> None:
        d.write(b"file", b"more")
        d.create(b"dir/new")
        assert shown(d, b"file") == (5, 6, stat.S_IFREG | 0o4711)
        assert shown(d, b"dir") == (7, 8, stat.S_IFDIR | 0o1770)
        assert kept(tmp_path, "dir") == b"7:8:1770:dir"

    def test_what_is_copied_up_without_it_gets_it(
        self, d: Driver, lower: Path, tmp_path: Path
    ) -> None:
        """fuse-overlayfs before 1.14 shows nothing of a directory that holds a file without it."""
        (lower / "bare").mkdir(mode=0o750)
        d.write(b"plain", b"more")
        d.symlink(b"target", b"bare/new")
        ids = b"%d:%d" % (os.geteuid(), os.getegid())
        assert kept(tmp_path, "plain") == ids + b":0666:file"
        assert kept(tmp_path, "bare") == ids + b":0750:dir"
        d.rename(b"bare", b"moved")
        assert kept(tmp_path, "moved") == ids + b":0750:dir"

    def test_what_a_layer_without_them_has_by_chance_says_nothing(
        self, opened: Open, lower: Path, tmp_path: Path
    ) -> None:
        os.removexattr(lower, CONTAINERS)
        d = opened(override=2)
        d.write(b"file", b"more")
        assert shown(d, b"file")[:2] == (os.geteuid(), os.getegid())

    def test_a_write_by_another_clears_setuid(self, d: Driver) -> None:
        d.write(b"file", b"more")
        nodeid = d.hold(b"file")
        assert d.fs.clear_mode_bits(nodeid, stat.S_ISUID)
        d.fs.forget(nodeid, 1)
        assert d.mode(b"file") == 0o711

    def test_size_and_times_are_the_disks(self, d: Driver, tmp_path: Path) -> None:
        d.utimens(b"file", 1, 2)
        d.truncate(b"file", 5)
        assert (tmp_path / "upper" / "file").stat().st_size == 5
        assert shown(d, b"file") == (5, 6, stat.S_IFREG | 0o4711)

    def test_it_is_still_there_after_a_remount(self, opened: Open, lower: Path) -> None:
        d = opened(override=2)
        d.chown(b"file", 100, 200)
        d.mkdir(b"new")
        d = opened(override=2)
        assert shown(d, b"file")[:2] == (100, 200)
        assert shown(d, b"new") == (11, 12, stat.S_IFDIR | 0o755)


class TestNew:
    def test_a_file(self, d: Driver, tmp_path: Path) -> None:
        d.create(b"new", b"data", 0o4660)
        assert shown(d, b"new") == (11, 12, stat.S_IFREG | 0o4640)
        assert kept(tmp_path, "new") == b"11:12:4640:file"
        assert on_disk(tmp_path, "new")[2] == stat.S_IFREG | 0o755

    def test_a_directory(self, d: Driver, tmp_path: Path) -> None:
        d.mkdir(b"new", 0o700)
        assert shown(d, b"new") == (11, 12, stat.S_IFDIR | 0o700)
        assert on_disk(tmp_path, "new")[2] == stat.S_IFDIR | 0o755

    @pytest.mark.parametrize(
        ("mode", "rdev", "value"),
        [
            (stat.S_IFCHR | 0o666, os.makedev(1, 5), b"11:12:0644:char-1-5"),
            (stat.S_IFBLK | 0o660, os.makedev(8, 1), b"11:12:0640:block-8-1"),
            (stat.S_IFIFO | 0o600, 0, b"11:12:0600:pipe"),
            (stat.S_IFSOCK | 0o600, 0, b"11:12:0600:socket"),
        ],
    )
    def test_a_regular_file_stands_in_for_the_others(
        self, d: Driver, tmp_path: Path, mode: int, rdev: int, value: bytes
    ) -> None:
        d.mknod(b"new", mode, rdev)
        assert stat.S_IFMT(shown(d, b"new")[2]) == stat.S_IFMT(mode)
        assert d.stat(b"new").st.st_rdev == rdev
        assert kept(tmp_path, "new") == value
        assert stat.S_ISREG(on_disk(tmp_path, "new")[2])

    def test_a_whiteout_can_not_be_made(self, d: Driver) -> None:
        with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
            d.mknod(b"new", stat.S_IFCHR, 0)

    def test_a_symlink_is_one_on_disk(self, d: Driver, tmp_path: Path) -> None:
        d.symlink(b"target", b"new")
        assert d.readlink(b"new") == b"target"
        assert (tmp_path / "upper" / "new").is_symlink()

    def test_the_group_of_a_directory_is_given_on(self, d: Driver) -> None:
        d.chmod(b"dir", 0o2777)
        d.create(b"dir/file")
        d.mkdir(b"dir/sub")
        assert shown(d, b"dir/file")[:2] == (11, 8)
        assert shown(d, b"dir/sub")[1:] == (8, stat.S_IFDIR | 0o2755)

    def test_over_a_whiteout(self, d: Driver, tmp_path: Path) -> None:
        d.unlink(b"file")
        d.create(b"file")
        assert kept(tmp_path, "file") == b"11:12:0644:file"

    def test_without_the_attribute_nothing_is_left(
        self, d: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        before = sorted(os.listdir(tmp_path / "upper"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "setxattr", refuse)
            for make in (lambda: d.create(b"new"), lambda: d.mkdir(b"new")):
                with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                    make()
        assert not d.exists(b"new")
        assert sorted(os.listdir(tmp_path / "upper")) == before


class TestAttributes:
    def test_those_a_user_may_not_set_on_disk_are_encoded(self, d: Driver, tmp_path: Path) -> None:
        value = b"\1\0\0\2" + bytes(16)
        d.setxattr(b"file", b"security.capability", value)
        assert d.getxattr(b"file", b"security.capability") == value
        assert d.xattrs(b"file") == {b"security.capability": value}
        encoded = b"user.containers.override_security.capability"
        assert kept(tmp_path, "file", encoded) == value
        d.removexattr(b"file", b"security.capability")
        assert d.xattrs(b"file") == {}

    def test_users_own_are_as_they_are(self, d: Driver, tmp_path: Path) -> None:
        d.setxattr(b"file", b"user.a", b"b")
        assert kept(tmp_path, "file", b"user.a") == b"b"

    def test_there_are_no_acls(self, d: Driver) -> None:
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            d.setxattr(b"file", acl.ACCESS, b"")

    def test_the_kernel_is_told_that_there_is_no_acl(self, d: Driver) -> None:
        for name in (acl.ACCESS, acl.DEFAULT):
            with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
                d.getxattr(b"file", name)


class TestForms:
    def test_the_root_of_the_upper_is_marked_like_the_lower(
        self, d: Driver, tmp_path: Path
    ) -> None:
        assert kept(tmp_path, ".") == b"0:0:0755:dir"

    def test_an_upper_of_the_old_form_is_continued_in_it(
        self, opened: Open, lower: Path, tmp_path: Path
    ) -> None:
        os.setxattr(tmp_path / "upper", USER, b"0:0:40755")
        d = opened(override=2)
        d.chown(b"file", 100, 200)
        d.create(b"new")
        assert kept(tmp_path, "new", USER) == b"11:12:0644:file"
        assert kept(tmp_path, "file", USER) == b"100:200:0711:file"
        assert shown(d, b"file")[:2] == (100, 200)

    @pytest.mark.root
    def test_mode_1_keeps_it_in_a_security_attribute(
        self, opened: Open, lower: Path, tmp_path: Path
    ) -> None:
        d = opened(override=1)
        d.symlink(b"target", b"new")
        d.chown(b"new", 100, 200)
        assert shown(d, b"new")[:2] == (100, 200)
        attribute = os.getxattr(tmp_path / "upper" / "new", SECURITY, follow_symlinks=False)
        assert attribute == b"100:200:0777:symlink"
        assert on_disk(tmp_path, "new")[:2] == (os.geteuid(), os.getegid())

    def test_ids_can_be_mapped_beside(self, opened: Open, lower: Path, tmp_path: Path) -> None:
        ids = IdMap(ranges=((0, 1000, 100),))
        d = opened(override=2, uids=ids, gids=ids)
        assert shown(d, b"file")[:2] == (1005, 1006)
        d.chown(b"file", 1009, 1010)
        assert kept(tmp_path, "file") == b"9:10:0711:file"
        d.caller = Caller(1003, 1004)
        d.create(b"new")
        assert kept(tmp_path, "new") == b"3:4:0644:file"
