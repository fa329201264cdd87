"""Extended attributes of the union: users' ones shown, its own hidden."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.core import CHAR_TRUSTED
from tests.support.tree import acl

if TYPE_CHECKING:
    from tests.unit.conftest import Stand

ACCESS = b"system.posix_acl_access"


def lower_file(stand: Stand) -> None:
    (stand.bottom / "file").write_text("lower")
    os.setxattr(stand.bottom / "file", "user.test", b"1")


def test_set_copies_up_and_leaves_the_lower(union: Stand) -> None:
    lower_file(union)
    union.d.setxattr(b"file", b"user.test", b"2")
    assert os.getxattr(union.upper / "file", "user.test") == b"2"
    assert os.getxattr(union.bottom / "file", "user.test") == b"1"


def test_create_refuses_what_is_there(union: Stand) -> None:
    lower_file(union)
    with pytest.raises(FileExistsError):
        union.d.setxattr(b"file", b"user.test", b"2", os.XATTR_CREATE)


def test_replace_refuses_what_is_not_there(union: Stand) -> None:
    lower_file(union)
    with pytest.raises(OSError, match="No data") as caught:
        union.d.setxattr(b"file", b"user.other", b"2", os.XATTR_REPLACE)
    assert caught.value.errno == errno.ENODATA


def test_removing_what_is_not_there_copies_nothing_up(union: Stand) -> None:
    lower_file(union)
    with pytest.raises(OSError, match="No data"):
        union.d.removexattr(b"file", b"user.other")
    assert os.listdir(union.upper) == []


def test_a_removed_attribute_is_gone(union: Stand) -> None:
    lower_file(union)
    union.d.removexattr(b"file", b"user.test")
    assert union.remount().xattrs(b"file") == {}


def test_the_marks_of_the_union_are_hidden(union: Stand) -> None:
    (union.bottom / "dir").mkdir()
    (union.bottom / "dir/file").write_text("")
    union.d.chmod(b"dir/file", 0o600)
    assert union.d.xattrs(b"dir") == union.d.xattrs(b"dir/file") == {}


def test_users_attributes_of_the_own_namespace_are_kept_apart(recording: Stand) -> None:
    assert recording.fmt is not None
    assert recording.fmt.prefix is not None
    name = recording.fmt.prefix + b"opaque"
    recording.d.mkdir(b"dir")
    recording.d.setxattr(b"dir", name, b"y")
    assert recording.d.xattrs(b"dir") == {name: b"y"}
    assert os.getxattr(recording.upper / "dir", recording.fmt.prefix + b"overlay.opaque") == b"y"


def test_a_mark_that_is_not_there_is_no_data(recording: Stand) -> None:
    recording.d.mkdir(b"dir")
    with pytest.raises(OSError, match="No data"):
        recording.d.getxattr(b"dir", b"trusted.overlay.opaque")


def test_marks_of_other_unions_can_not_be_set(union: Stand) -> None:
    union.d.mkdir(b"dir")
    with pytest.raises(PermissionError):
        union.d.setxattr(b"dir", b"user.fuseoverlayfs.opaque", b"y")
    foreign = b"user" if union.fmt in (CHAR_TRUSTED, None) else b"trusted"
    if union.fmt is not None and union.fmt.prefix is not None:
        with pytest.raises(PermissionError):
            union.d.setxattr(b"dir", foreign + b".overlay.opaque", b"y")


@pytest.mark.root
def test_an_attribute_of_a_symlink_is_its_own(union: Stand) -> None:
    (union.bottom / "target").write_text("")
    (union.bottom / "link").symlink_to("target")
    union.d.setxattr(b"link", b"trusted.test", b"1")
    assert os.getxattr(union.upper / "link", "trusted.test", follow_symlinks=False) == b"1"
    assert union.d.xattrs(b"target") == {}


@pytest.mark.root
def test_an_absolute_symlink_is_not_walked(union: Stand) -> None:
    (union.bottom / "link").symlink_to(union.bottom / "target")
    os.setxattr(union.bottom / "link", "trusted.test", b"1", follow_symlinks=False)
    assert union.d.xattrs(b"link") == {b"trusted.test": b"1"}


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK], ids=["fifo", "socket"])
def test_fifos_and_sockets_have_no_user_attributes(union: Stand, kind: int) -> None:
    union.d.mknod(b"special", kind | 0o600)
    assert union.d.xattrs(b"special") == {}
    with pytest.raises(OSError, match=r"No data|not permitted"):
        union.d.getxattr(b"special", b"user.test")


def test_an_access_acl_changes_the_mode(union: Stand) -> None:
    (union.bottom / "file").write_text("")
    value = acl(("user_obj", 7), ("user", 6, 1001), ("group_obj", 0), ("mask", 6), ("other", 0))
    union.d.setxattr(b"file", ACCESS, value)
    assert oct(union.d.mode(b"file")) == oct(0o760)
    assert union.d.getxattr(b"file", ACCESS) == value


def test_an_acl_of_somebody_not_in_the_group_clears_setgid(union: Stand) -> None:
    union.d.create(b"file", mode=0o2755)
    nodeid = union.d.hold(b"file")
    value = acl(("user_obj", 7), ("group_obj", 5), ("other", 5))
    union.d.fs.setxattr(nodeid, ACCESS, value, kill_sgid=True)
    assert oct(union.d.mode(b"file")) == oct(0o755)
    union.d.fs.forget(nodeid, 1)
