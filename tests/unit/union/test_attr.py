"""Changes of attributes: what they copy up, and what they clear."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.conftest import Stand


def test_a_change_of_one_time_leaves_the_other(union: Stand) -> None:
    (union.bottom / "file").write_text("")
    os.utime(union.bottom / "file", ns=(111, 222))
    union.d.setattr(b"file", mtime_ns=333)
    st = union.d.stat(b"file").st
    assert (st.st_atime_ns, st.st_mtime_ns) == (111, 333)


def test_times_have_nanoseconds(union: Stand) -> None:
    union.d.create(b"file")
    union.d.utimens(b"file", 1_000_000_001, 2_000_000_002)
    st = (union.upper / "file").stat()
    assert (st.st_atime_ns, st.st_mtime_ns) == (1_000_000_001, 2_000_000_002)


def test_times_of_a_symlink_are_its_own(union: Stand) -> None:
    (union.bottom / "target").write_text("")
    (union.bottom / "link").symlink_to("target")
    union.d.utimens(b"link", 0, 5)
    assert (union.upper / "link").lstat().st_mtime_ns == 5
    assert not (union.upper / "target").exists()


@pytest.mark.root
def test_owner_and_group_change_apart(union: Stand) -> None:
    union.d.create(b"file")
    union.d.setattr(b"file", uid=1001)
    union.d.setattr(b"file", gid=1002)
    st = (union.upper / "file").stat()
    assert (st.st_uid, st.st_gid) == (1001, 1002)


@pytest.mark.root
def test_the_owner_of_a_symlink_is_its_own(union: Stand) -> None:
    (union.bottom / "link").symlink_to("/etc/hostname")
    before = os.stat("/etc/hostname").st_uid
    union.d.chown(b"link", 1001, 1001)
    assert (union.upper / "link").lstat().st_uid == 1001
    assert os.stat("/etc/hostname").st_uid == before


@pytest.mark.root
def test_chown_clears_setuid_and_setgid(union: Stand) -> None:
    (union.bottom / "file").write_text("")
    (union.bottom / "file").chmod(0o6755)
    union.d.chown(b"file", 1001, 1001)
    assert union.d.mode(b"file") == 0o755


def test_the_mode_of_a_symlink_can_not_be_changed(union: Stand) -> None:
    union.d.symlink(b"target", b"link")
    with pytest.raises(OSError, match="not supported") as caught:
        union.d.chmod(b"link", 0o600)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize(("path", "code"), [(b"dir", errno.EISDIR), (b"fifo", errno.EINVAL)])
def test_only_files_have_a_size_to_change(union: Stand, path: bytes, code: int) -> None:
    union.d.mkdir(b"dir")
    union.d.mknod(b"fifo", stat.S_IFIFO | 0o600)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
        union.d.truncate(path, 0)
    assert caught.value.errno == code


@pytest.mark.parametrize("size", [0, 3, 100])
def test_a_lower_file_gets_any_size(union: Stand, size: int) -> None:
    (union.bottom / "file").write_bytes(b"lower data")
    union.d.truncate(b"file", size)
    assert union.d.read(b"file") == b"lower data"[:size].ljust(size, b"\0")
    assert (union.bottom / "file").read_bytes() == b"lower data"


@pytest.mark.parametrize(
    ("mode", "bits", "left"),
    [
        (0o4755, stat.S_ISUID, 0o755),
        (0o6777, stat.S_ISUID | stat.S_ISGID, 0o777),
        (0o2644, stat.S_ISUID, 0o2644),
    ],
    ids=oct,
)
def test_a_write_by_a_plain_user_clears_what_runs_as_another(
    union: Stand, mode: int, bits: int, left: int
) -> None:
    union.d.create(b"file", mode=mode)
    nodeid = union.d.hold(b"file")
    assert union.d.fs.clear_mode_bits(nodeid, bits) == (mode != left)
    assert oct(union.d.mode(b"file")) == oct(left)
    union.d.fs.forget(nodeid, 1)


@pytest.mark.parametrize("change", [{"size": 0}, {"uid": os.geteuid()}], ids=["size", "owner"])
def test_changes_by_a_plain_user_clear_setuid(union: Stand, change: dict[str, int]) -> None:
    union.d.create(b"file", mode=0o4755)
    union.d.setattr(b"file", killed_bits=stat.S_ISUID, **change)
    assert oct(union.d.mode(b"file")) == oct(0o755)


def test_the_link_count_of_a_merged_directory_is_one(union: Stand) -> None:
    (union.bottom / "dir/sub").mkdir(parents=True)
    (union.top / "dir").mkdir()
    assert union.d.stat(b"dir").nlink == 1


def test_a_directory_of_one_layer_tells_its_link_count(union: Stand) -> None:
    (union.bottom / "dir/sub").mkdir(parents=True)
    assert union.d.stat(b"dir").nlink == (union.bottom / "dir").stat().st_nlink
