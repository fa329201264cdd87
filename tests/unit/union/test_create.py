"""What new things look like, and where their making leaves marks."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.tree import ACLS
from unionfuse.layer.scan import is_opaque
from unionfuse.union.state import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.core import Driver
    from tests.unit.conftest import Stand

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
OWN = (os.geteuid(), os.getegid())

MAKERS: dict[str, Callable[[Driver, bytes, int], object]] = {
    "create": lambda d, path, mode: d.create(path, mode=mode),
    "mkdir": lambda d, path, mode: d.mkdir(path, mode),
    "mknod": lambda d, path, mode: d.mknod(path, stat.S_IFREG | mode),
    "mkfifo": lambda d, path, mode: d.mknod(path, stat.S_IFIFO | mode),
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


def whiteout(stand: Stand, name: str = "dir/new") -> None:
    """Let a new `name` come over a whiteout of the upper."""
    path = stand.bottom / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("of the lower")
    stand.d.unlink(name.encode())


@makers
def test_the_umask_of_the_caller_applies(union: Stand, make: Callable) -> None:
    union.d.caller = Caller(*OWN, 0o027)
    make(union.d, b"new", 0o666)
    assert union.d.mode(b"new") == 0o640


@makers
def test_the_umask_applies_over_a_whiteout_too(union: Stand, make: Callable) -> None:
    whiteout(union)
    union.d.caller = Caller(*OWN, 0o027)
    make(union.d, b"dir/new", 0o666)
    assert union.d.mode(b"dir/new") == 0o640


@pytest.mark.root
@makers
def test_the_owner_is_the_caller(union: Stand, make: Callable) -> None:
    union.d.caller = Caller(1001, 1002)
    make(union.d, b"new", 0o755)
    st = union.d.stat(b"new").st
    assert (st.st_uid, st.st_gid) == (1001, 1002)


@pytest.mark.root
def test_a_symlink_belongs_to_the_caller_too(union: Stand) -> None:
    union.d.caller = Caller(1001, 1002)
    union.d.symlink(b"target", b"new")
    assert (union.upper / "new").lstat().st_uid == 1001


@pytest.mark.root
@pytest.mark.parametrize("over_whiteout", [False, True], ids=["in-place", "over-a-whiteout"])
@makers
def test_a_setgid_directory_gives_its_group(
    union: Stand, make: Callable, over_whiteout: bool
) -> None:
    (union.bottom / "dir").mkdir()
    os.chown(union.bottom / "dir", 0, 1002)
    (union.bottom / "dir").chmod(0o2775)
    if over_whiteout:
        whiteout(union)
    union.d.caller = Caller(1001, 1001)
    make(union.d, b"dir/new", 0o755)
    st = union.d.stat(b"dir/new").st
    assert st.st_gid == 1002
    assert bool(st.st_mode & stat.S_ISGID) == stat.S_ISDIR(st.st_mode)


@pytest.mark.root
def test_setuid_is_kept_for_the_new_owner(union: Stand) -> None:
    union.d.caller = Caller(1001, 1001)
    union.d.create(b"new", mode=0o4755)
    assert union.d.mode(b"new") == 0o4755


@pytest.mark.parametrize("over_whiteout", [False, True], ids=["in-place", "over-a-whiteout"])
@pytest.mark.parametrize("default", ACLS, ids=range(len(ACLS)))
@pytest.mark.parametrize("mode", [0o777, 0o640, 0o4751, 0o000])
def test_a_default_acl_is_inherited_as_on_the_filesystem_below(
    union: Stand, default: bytes, mode: int, over_whiteout: bool
) -> None:
    (union.bottom / "dir").mkdir()
    os.setxattr(union.bottom / "dir", DEFAULT, default)
    (union.bottom / "plain").mkdir()
    os.setxattr(union.bottom / "plain", DEFAULT, default)
    os.close(os.open(union.bottom / "plain/new", os.O_CREAT | os.O_WRONLY, mode))
    if over_whiteout:
        whiteout(union)
    union.d.caller = Caller(*OWN, 0o077)  # a default ACL takes the place of the umask
    union.d.create(b"dir/new", mode=mode)
    assert union.d.mode(b"dir/new") == union.d.mode(b"plain/new")
    assert union.d.xattrs(b"dir/new").get(ACCESS) == union.d.xattrs(b"plain/new").get(ACCESS)


@pytest.mark.parametrize("over_whiteout", [False, True], ids=["in-place", "over-a-whiteout"])
def test_a_new_directory_hands_the_default_acl_on(union: Stand, over_whiteout: bool) -> None:
    (union.bottom / "dir").mkdir()
    os.setxattr(union.bottom / "dir", DEFAULT, ACLS[1])
    if over_whiteout:
        whiteout(union)
    union.d.mkdir(b"dir/new")
    assert union.d.getxattr(b"dir/new", DEFAULT) == ACLS[1]


def test_a_symlink_inherits_no_acl(union: Stand) -> None:
    (union.bottom / "dir").mkdir()
    os.setxattr(union.bottom / "dir", DEFAULT, ACLS[1])
    whiteout(union)
    union.d.symlink(b"target", b"dir/new")
    assert union.d.xattrs(b"dir/new") == {}


def test_a_whiteout_can_not_be_made_by_a_user(union: Stand) -> None:
    with pytest.raises(PermissionError):
        union.d.mknod(b"new", stat.S_IFCHR | 0o666, 0)
    assert not os.listdir(union.upper)


@pytest.mark.parametrize("name", [b".wh.file", b".wh..wh..opq", b".wh."])
@makers
def test_names_that_would_be_markers_are_refused(union: Stand, make: Callable, name: bytes) -> None:
    with pytest.raises(PermissionError):
        make(union.d, name, 0o644)
    assert not os.listdir(union.upper)


@makers
def test_a_name_of_256_bytes_is_too_long(union: Stand, make: Callable) -> None:
    with pytest.raises(OSError, match="File name too long") as caught:
        make(union.d, b"x" * 256, 0o644)
    assert caught.value.errno == errno.ENAMETOOLONG


@makers
def test_a_name_of_255_bytes_is_not(union: Stand, make: Callable) -> None:
    make(union.d, b"\xff" * 255, 0o644)
    assert union.d.readdir(b"") == [b"\xff" * 255]


@makers
def test_an_existing_name_is_refused(union: Stand, make: Callable) -> None:
    (union.bottom / "file").write_text("")
    with pytest.raises(FileExistsError):
        make(union.d, b"file", 0o644)


def test_a_directory_over_a_whiteout_does_not_show_the_lower_one(union: Stand) -> None:
    (union.bottom / "dir").mkdir()
    (union.bottom / "dir/old").write_text("")
    union.d.unlink(b"dir/old")
    union.d.rmdir(b"dir")
    union.d.mkdir(b"dir")
    assert union.d.listdir(b"dir") == []
    assert union.remount().listdir(b"dir") == []
    assert is_opaque(union.d.node(b"dir").upper)


def test_a_new_name_takes_its_whiteout_away(union: Stand) -> None:
    whiteout(union, "file")
    union.d.create(b"file", b"new")
    assert os.listdir(union.upper) == ["file"]
    assert union.remount().read(b"file") == b"new"


def test_making_over_a_whiteout_leaves_no_temporary(union: Stand) -> None:
    whiteout(union, "file")
    union.d.mkdir(b"file")
    assert union.temporaries() == []


def test_making_something_copies_its_directory_up(union: Stand) -> None:
    (union.bottom / "outer/inner").mkdir(parents=True)
    union.d.create(b"outer/inner/new")
    assert (union.upper / "outer/inner/new").exists()


def test_a_link_has_the_number_of_its_file(union: Stand) -> None:
    (union.bottom / "file").write_text("data")
    union.d.keeps_lookups = True
    union.d.link(b"file", b"other")
    assert union.d.stat(b"other").ino == union.d.stat(b"file").ino
    assert union.d.stat(b"file").nlink == 2


def test_a_link_over_a_whiteout_replaces_it(union: Stand) -> None:
    whiteout(union, "gone")
    union.d.create(b"file", b"data")
    union.d.link(b"file", b"gone")
    assert union.remount().read(b"gone") == b"data"


def test_a_directory_can_not_be_linked(union: Stand) -> None:
    union.d.mkdir(b"dir")
    with pytest.raises(PermissionError):
        union.d.link(b"dir", b"other")


def test_nothing_is_made_in_a_removed_directory(union: Stand) -> None:
    union.d.mkdir(b"dir")
    held = union.d.hold(b"dir")
    union.d.rmdir(b"dir")
    with pytest.raises(FileNotFoundError):
        union.d.fs.mkdir(held, b"new", 0o755, union.d.caller)
    union.d.fs.forget(held, 1)


@pytest.mark.root
def test_a_directory_gives_the_group_that_it_has_by_now(union: Stand) -> None:
    union.d.mkdir(b"dir")
    assert union.d.create(b"dir/own").st.st_gid == OWN[1]
    union.d.chown(b"dir", OWN[0], 1234)
    union.d.chmod(b"dir", 0o2755)
    assert union.d.create(b"dir/given").st.st_gid == 1234
    union.d.chown(b"dir", OWN[0], 4321)
    union.d.chmod(b"dir", 0o2755)
    assert union.d.create(b"dir/other").st.st_gid == 4321
    union.d.chmod(b"dir", 0o755)
    assert union.d.create(b"dir/own-again").st.st_gid == OWN[1]


def test_a_directory_gives_the_acl_that_it_has_by_now(union: Stand) -> None:
    union.d.mkdir(b"dir")
    union.d.caller = Caller(*OWN, 0o077)
    assert stat.S_IMODE(union.d.create(b"dir/before", mode=0o666).st.st_mode) == 0o600
    union.d.setxattr(b"dir", DEFAULT, ACLS[1])
    union.d.create(b"dir/with")
    assert ACCESS in union.d.xattrs(b"dir/with")
    union.d.removexattr(b"dir", DEFAULT)
    assert stat.S_IMODE(union.d.create(b"dir/after", mode=0o666).st.st_mode) == 0o600


@pytest.mark.parametrize("over_whiteout", [False, True])
def test_a_new_directory_is_empty_and_can_be_filled(union: Stand, over_whiteout: bool) -> None:
    if over_whiteout:
        (union.bottom / "new").mkdir()
        (union.bottom / "new/hidden").touch()
        union.d.unlink(b"new/hidden")
        union.d.rmdir(b"new")
    union.d.mkdir(b"new")
    assert union.d.listdir(b"new") == []
    union.d.create(b"new/file")
    union.remount()
    assert union.d.listdir(b"new") == [b"file"]
