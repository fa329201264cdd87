"""What copy-up brings into the upper, and what it leaves alone."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING

import pytest

from tests.support.tree import acl
from unionfuse.record import replace
from unionfuse.union.fs import CopyUpNeeded
from unionfuse.union.state import Options

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.conftest import Stand

IS_ROOT = os.geteuid() == 0
LONG_AGO = 123_456_789_123_456_789
AN_ACL = acl(("user_obj", 6), ("user", 7, 1001), ("group_obj", 4), ("mask", 7), ("other", 4))


def lower_file(stand: Stand, name: str = "file", data: bytes = b"lower data") -> Path:
    path = stand.bottom / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(LONG_AGO, LONG_AGO + 1))
    return path


def test_the_upper_gets_data_and_the_lower_keeps_it(union: Stand) -> None:
    path = lower_file(union)
    union.d.write(b"file", b"UPPER")
    assert (union.upper / "file").read_bytes() == b"UPPER data"
    assert path.read_bytes() == b"lower data"


def test_mode_and_times_come_along(union: Stand) -> None:
    lower_file(union).chmod(0o640)
    union.d.setxattr(b"file", b"user.test", b"1")
    st = (union.upper / "file").stat()
    assert stat.S_IMODE(st.st_mode) == 0o640
    assert (st.st_atime_ns, st.st_mtime_ns) == (LONG_AGO, LONG_AGO + 1)


@pytest.mark.root
def test_owner_and_setuid_come_along(union: Stand) -> None:
    path = lower_file(union)
    os.chown(path, 1001, 1002)
    path.chmod(0o6755)
    union.d.utimens(b"file", 0, 0)
    st = (union.upper / "file").stat()
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (1001, 1002, 0o6755)


def test_extended_attributes_come_along(union: Stand) -> None:
    os.setxattr(lower_file(union), "user.test", b"value")
    union.d.chmod(b"file", 0o600)
    assert os.getxattr(union.upper / "file", "user.test") == b"value"


@pytest.mark.root
def test_a_capability_comes_along(union: Stand) -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(lower_file(union), "security.capability", capability)
    union.d.utimens(b"file", 0, 0)
    assert os.getxattr(union.upper / "file", "security.capability") == capability


def test_an_access_acl_comes_along(union: Stand) -> None:
    os.setxattr(lower_file(union), "system.posix_acl_access", AN_ACL)
    union.d.utimens(b"file", 0, 0)
    assert os.getxattr(union.upper / "file", "system.posix_acl_access") == AN_ACL


def test_a_default_acl_of_a_directory_comes_along(union: Stand) -> None:
    (union.bottom / "dir").mkdir()
    os.setxattr(union.bottom / "dir", "system.posix_acl_default", AN_ACL)
    union.d.chmod(b"dir", 0o750)
    assert os.getxattr(union.upper / "dir", "system.posix_acl_default") == AN_ACL


def test_markers_of_the_lower_do_not_come_along(union: Stand) -> None:
    os.setxattr(lower_file(union), "user.overlay.origin", b"of another overlay")
    union.d.chmod(b"file", 0o600)
    found = os.listxattr(union.upper / "file")
    values = [os.getxattr(union.upper / "file", name) for name in found]
    assert b"of another overlay" not in values


def test_holes_stay_holes(union: Stand) -> None:
    with open(union.bottom / "sparse", "wb") as file:
        file.truncate(1 << 30)
        file.seek(500 << 20)
        file.write(b"an island")
    union.d.write(b"sparse", b"first")
    st = (union.upper / "sparse").stat()
    assert st.st_size == 1 << 30
    assert st.st_blocks * 512 < 1 << 20
    with open(union.upper / "sparse", "rb") as file:
        file.seek(500 << 20)
        assert file.read(9) == b"an island"


def test_a_symlink_keeps_target_and_times(union: Stand) -> None:
    (union.bottom / "link").symlink_to("no/where")
    os.utime(union.bottom / "link", ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    union.d.link(b"link", b"other")
    assert os.readlink(union.upper / "link") == "no/where"
    assert (union.upper / "link").lstat().st_mtime_ns == LONG_AGO


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK], ids=["fifo", "socket"])
def test_fifos_and_sockets_are_made_not_opened(union: Stand, kind: int) -> None:
    path = union.bottom / "special"
    if kind == stat.S_IFIFO:
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{_parent_fd(path)}/special")
    path.chmod(0o640)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    union.d.chmod(b"special", 0o604)
    st = (union.upper / "special").lstat()
    assert st.st_mode == kind | 0o604
    assert st.st_mtime_ns == LONG_AGO


def _parent_fd(path: Path) -> int:
    """Return a descriptor of the directory: a socket's path may not be long."""
    _opened.append(os.open(path.parent, os.O_PATH))
    return _opened[-1]


_opened: list[int] = []


@pytest.fixture(autouse=True)
def _close_opened(_no_file_stays_open: None) -> object:
    yield
    while _opened:
        os.close(_opened.pop())


@pytest.mark.root
def test_a_device_keeps_its_number(union: Stand) -> None:
    os.mknod(union.bottom / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    union.d.chmod(b"null", 0o600)
    st = (union.upper / "null").stat()
    assert (st.st_mode, st.st_rdev) == (stat.S_IFCHR | 0o600, os.makedev(1, 3))


EXACT_MODES = [0o555, 0o700, 0o2755, 0o1777, 0o2070]


@pytest.mark.root
@pytest.mark.parametrize("mode", EXACT_MODES, ids=oct)
def test_parents_come_first_with_exactly_their_modes(union: Stand, mode: int) -> None:
    lower_file(union, "outer/inner/file")
    os.chown(union.bottom / "outer/inner", 1001, 1002)
    (union.bottom / "outer/inner").chmod(mode)
    union.d.chmod(b"outer/inner/file", 0o600)
    st = (union.upper / "outer/inner").stat()
    assert stat.S_IMODE(st.st_mode) == mode
    assert (st.st_uid, st.st_gid) == (1001, 1002)


def test_directories_keep_their_mtimes_all_the_way_up(union: Stand) -> None:
    lower_file(union, "outer/inner/file")
    for name in ("outer/inner", "outer"):
        os.utime(union.bottom / name, ns=(LONG_AGO, LONG_AGO))
    os.utime(union.upper, ns=(LONG_AGO, LONG_AGO))
    union.d.chmod(b"outer/inner/file", 0o600)
    for name in ("", "outer", "outer/inner"):
        assert (union.upper / name).stat().st_mtime_ns == LONG_AGO, name


def test_the_attributes_of_a_merged_directory_are_the_topmost_ones(union: Stand) -> None:
    (union.bottom / "dir").mkdir(0o700)
    (union.top / "dir").mkdir(0o750)
    union.d.create(b"dir/new")
    assert stat.S_IMODE((union.upper / "dir").stat().st_mode) == 0o750


def test_truncation_to_nothing_copies_no_data(union: Stand) -> None:
    union.options = Options(sync=True)
    lower_file(union, data=b"x" * 1_000_000)
    union.d.truncate(b"file", 0)
    assert union.d.copied_up == 0
    assert (union.upper / "file").stat().st_size == 0


def test_open_with_o_trunc_copies_no_data(union: Stand) -> None:
    union.options = Options(sync=True)
    lower_file(union, data=b"x" * 1_000_000)
    union.d.write(b"file", b"new", flags=os.O_TRUNC)
    assert union.d.copied_up == 0
    assert (union.upper / "file").read_bytes() == b"new"


def test_more_data_than_may_be_copied_at_once_is_asked_for(plain: Stand) -> None:
    plain.options = Options(sync=False, inline_bytes=100)
    lower_file(plain, data=b"x" * 101)
    nodeid = plain.d.hold(b"file")
    with pytest.raises(CopyUpNeeded):
        plain.d.fs.open(nodeid, os.O_WRONLY)
    assert not os.listdir(plain.upper), "something has changed before the copy-up was asked for"
    plain.d.fs.forget(nodeid, 1)


def test_little_data_is_copied_at_once(plain: Stand) -> None:
    plain.options = Options(sync=False, inline_bytes=100)
    lower_file(plain, data=b"x" * 100)
    plain.d.chmod(b"file", 0o600)
    assert plain.d.copied_up == 0


def test_opening_to_write_copies_up_though_nothing_is_written(union: Stand) -> None:
    lower_file(union)
    union.d.open(b"file", os.O_RDWR).close()
    assert (union.upper / "file").exists()


def test_reading_copies_nothing_up(union: Stand) -> None:
    lower_file(union)
    assert union.d.read(b"file") == b"lower data"
    assert not os.listdir(union.upper)


def test_an_open_handle_sees_what_is_written_after_the_copy_up(union: Stand) -> None:
    lower_file(union)
    handle = union.d.open(b"file")
    union.d.write(b"file", b"UPPER")
    assert handle.read() == b"UPPER data"
    handle.close()


def test_an_abandoned_copy_up_leaves_no_trace(union: Stand) -> None:
    lower_file(union)
    nodeid = union.d.begin_copy_up(b"file")
    union.d.abandon_copy_up(nodeid)
    assert union.temporaries() == []
    assert not os.listdir(union.upper)
    assert union.d.read(b"file") == b"lower data"


def test_others_read_the_lower_while_a_copy_up_is_on_its_way(union: Stand) -> None:
    lower_file(union)
    nodeid = union.d.begin_copy_up(b"file")
    assert union.d.read(b"file") == b"lower data"
    union.d.finish_copy_up(nodeid)
    assert union.d.read(b"file") == b"lower data"


def test_a_file_unlinked_while_it_is_copied_up_gets_no_name(union: Stand) -> None:
    lower_file(union)
    handle = union.d.open(b"file")
    nodeid = union.d.begin_copy_up(b"file")
    union.d.unlink(b"file")
    union.d.finish_copy_up(nodeid)
    handle.write(b"written")
    assert handle.read() == b"written" + b"lower data"[7:]
    assert handle.stat().nlink == 0
    handle.close()
    assert not union.d.exists(b"file")
    assert union.temporaries() == []


def test_truncation_during_a_copy_up_is_not_undone(union: Stand) -> None:
    union.options = Options(sync=True)
    lower_file(union)
    union.d.keeps_lookups = True
    nodeid = union.d.begin_copy_up(b"file")
    union.d.truncate(b"file", 0)
    union.d.write(b"file", b"new")
    if nodeid in union.d.pending:
        union.d.finish_copy_up(nodeid)
    assert union.d.read(b"file") == b"new"
    assert union.temporaries() == []


@pytest.mark.root
def test_a_full_upper_leaves_the_old_file(small_upper: Stand) -> None:
    lower_file(small_upper, data=os.urandom(2 << 20))
    with pytest.raises(OSError, match="No space") as caught:
        small_upper.d.write(b"file", b"new")
    assert caught.value.errno == errno.ENOSPC
    assert small_upper.temporaries() == []
    assert not (small_upper.upper / "file").exists()
    assert small_upper.d.read(b"file") == (small_upper.bottom / "file").read_bytes()


def test_the_lower_is_not_touched_not_even_its_access_times(union: Stand) -> None:
    path = lower_file(union, "dir/file")
    os.utime(path.parent, ns=(LONG_AGO, LONG_AGO))
    before = [os.lstat(p) for p in (path, path.parent, union.bottom)]
    union.d.listdir(b"dir")
    union.d.read(b"dir/file")
    union.d.write(b"dir/file", b"new")
    union.d.create(b"dir/other")
    union.d.rename(b"dir/file", b"elsewhere")
    assert [os.lstat(p) for p in (path, path.parent, union.bottom)] == before


def test_the_inode_number_stays(union: Stand) -> None:
    lower_file(union, "dir/file")
    before = union.d.stat(b"dir/file").ino, union.d.stat(b"dir").ino
    held = union.d.hold(b"dir/file")
    union.d.chmod(b"dir/file", 0o600)
    assert (union.d.stat(b"dir/file").ino, union.d.stat(b"dir").ino) == before
    union.d.fs.forget(held, 1)


def test_the_inode_number_stays_over_a_remount(recording: Stand) -> None:
    lower_file(recording, "dir/file")
    before = recording.d.stat(b"dir/file").ino, recording.d.stat(b"dir").ino
    recording.d.chmod(b"dir/file", 0o600)
    recording.d.rename(b"dir/file", b"dir/moved")
    d = recording.remount()
    assert (d.stat(b"dir/moved").ino, d.stat(b"dir").ino) == before


def linked(stand: Stand) -> None:
    lower_file(stand, "one")
    (stand.bottom / "dir").mkdir()
    os.link(stand.bottom / "one", stand.bottom / "dir/two")


def test_hard_links_stay_hard_links(union: Stand) -> None:
    linked(union)
    union.d.keeps_lookups = True
    union.d.write(b"one", b"UPPER")
    assert union.d.read(b"dir/two") == b"UPPER data"
    assert union.d.stat(b"dir/two").ino == union.d.stat(b"one").ino
    assert union.d.stat(b"dir/two").nlink == 2


def test_hard_links_stay_hard_links_over_a_remount(union: Stand) -> None:
    linked(union)
    union.d.write(b"one", b"UPPER")
    d = union.remount()
    assert d.read(b"dir/two") == b"UPPER data"
    d.write(b"dir/two", b"again")
    assert d.read(b"one") == b"again data"


def test_hard_links_have_one_inode_number_after_a_remount(recording: Stand) -> None:
    linked(recording)
    recording.d.write(b"one", b"UPPER")
    d = recording.remount()
    assert d.stat(b"dir/two").ino == d.stat(b"one").ino


def test_hard_links_are_copied_up_once(union: Stand) -> None:
    linked(union)
    union.d.chmod(b"one", 0o600)
    union.d.chmod(b"dir/two", 0o640)
    assert len(os.listdir(union.work / "index")) == 1
    assert stat.S_IMODE(union.d.stat(b"one").st.st_mode) == 0o640


def test_the_index_entry_goes_with_the_last_name(recording: Stand) -> None:
    linked(recording)
    recording.d.write(b"one", b"UPPER")
    recording.d.unlink(b"one")
    assert recording.d.stat(b"dir/two").nlink == 1
    recording.d.unlink(b"dir/two")
    assert os.listdir(recording.work / "index") == []


def test_the_number_of_names_is_kept_over_a_remount(recording: Stand) -> None:
    linked(recording)
    recording.d.link(b"one", b"three")
    recording.d.unlink(b"dir/two")
    d = recording.remount()
    assert d.stat(b"one").nlink == d.stat(b"three").nlink == 2


def test_a_hard_link_outlives_its_copied_up_name_after_a_remount(union: Stand) -> None:
    linked(union)
    union.d.write(b"one", b"UPPER")
    d = union.remount()
    d.keeps_lookups = True
    assert d.read(b"one") == d.read(b"dir/two")
    d.unlink(b"one")
    d.link(b"dir/two", b"one")
    assert d.read(b"one") == b"UPPER data"


def test_the_last_name_of_a_hard_link_keeps_its_new_data(union: Stand) -> None:
    linked(union)
    os.link(union.bottom / "one", union.bottom / "three")
    union.d.write(b"one", b"UPPER")
    union.d.link(b"one", b"four")
    d = union.remount()
    d.keeps_lookups = True
    for name in (b"dir/two", b"three", b"one", b"four"):
        assert d.read(name) == b"UPPER data"
    for name in (b"one", b"four", b"three"):
        d.unlink(name)
    assert d.read(b"dir/two") == b"UPPER data"
    assert union.remount().read(b"dir/two") == b"UPPER data"


def test_without_an_index_links_hold_for_the_mount(recording: Stand) -> None:
    # overlayfs breaks them at once (index=off); after a remount so do we.
    recording.options = replace(recording.options, index=False)
    lower_file(recording)
    os.link(recording.bottom / "file", recording.bottom / "second")
    recording.d.write(b"file", b"UPPER")
    assert recording.d.read(b"second") == recording.d.read(b"file")
    assert os.listdir(recording.work / "index") == []
    d = recording.remount()
    assert d.read(b"second") == (recording.bottom / "second").read_bytes()
    assert d.read(b"file").startswith(b"UPPER")
