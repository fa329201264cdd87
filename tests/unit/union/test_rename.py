"""What a rename leaves where it came from, and what it hides where it goes."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.unit.union.test_remove import in_lower
from unionfuse.layer.scan import is_opaque
from unionfuse.record import replace
from unionfuse.syscalls.rename import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT

if TYPE_CHECKING:
    from tests.unit.conftest import Stand


def test_a_lower_file_leaves_a_whiteout(union: Stand) -> None:
    in_lower(union, "file")
    union.d.rename(b"file", b"moved")
    d = union.remount()
    assert d.readdir(b"") == [b"moved"]
    assert d.read(b"moved") == b"lower file"


def test_an_upper_file_leaves_nothing(union: Stand) -> None:
    union.d.create(b"file")
    union.d.rename(b"file", b"moved")
    assert os.listdir(union.upper) == ["moved"]


def test_the_new_parents_are_copied_up(union: Stand) -> None:
    in_lower(union, "file")
    (union.bottom / "outer/inner").mkdir(parents=True)
    union.d.rename(b"file", b"outer/inner/file")
    assert (union.upper / "outer/inner/file").exists()


def test_over_a_lower_file_the_new_one_is_seen(union: Stand) -> None:
    in_lower(union, "one", "two")
    union.d.rename(b"one", b"two")
    d = union.remount()
    assert d.readdir(b"") == [b"two"]
    assert d.read(b"two") == b"lower one"


def test_over_a_whiteout_the_file_is_seen(union: Stand) -> None:
    in_lower(union, "one", "gone")
    union.d.unlink(b"gone")
    union.d.rename(b"one", b"gone")
    d = union.remount()
    assert d.readdir(b"") == [b"gone"]
    assert d.read(b"gone") == b"lower one"
    assert union.temporaries() == []


def test_away_and_back_again(union: Stand) -> None:
    in_lower(union, "file")
    union.d.rename(b"file", b"moved")
    union.d.rename(b"moved", b"file")
    assert os.listdir(union.upper) == ["file"]
    assert union.remount().read(b"file") == b"lower file"


def test_a_directory_over_a_whiteout_does_not_show_the_lower_one(union: Stand) -> None:
    in_lower(union, "dir/old")
    union.d.unlink(b"dir/old")
    union.d.rmdir(b"dir")
    union.d.mkdir(b"new")
    union.d.create(b"new/file")
    union.d.rename(b"new", b"dir")
    assert union.d.listdir(b"dir") == [b"file"]
    assert union.remount().listdir(b"dir") == [b"file"]
    assert not (union.upper / "new").exists()


def test_a_directory_over_an_emptied_lower_one_does_not_show_it(union: Stand) -> None:
    in_lower(union, "dir/old")
    union.d.unlink(b"dir/old")
    union.d.mkdir(b"new")
    union.d.create(b"new/file")
    union.d.rename(b"new", b"dir")
    assert union.remount().listdir(b"dir") == [b"file"]
    assert is_opaque(union.d.node(b"dir").upper)
    assert union.temporaries() == []


def test_a_directory_over_an_empty_lower_one_is_opaque(union: Stand) -> None:
    (union.bottom / "dir").mkdir()
    union.d.mkdir(b"new")
    union.d.rename(b"new", b"dir")
    union.remount()
    assert is_opaque(union.d.node(b"dir").upper)


@pytest.mark.parametrize("is_merged", [False, True], ids=["lower", "merged"])
def test_a_directory_of_a_lower_is_not_moved_without_redirects(
    union: Stand, is_merged: bool
) -> None:
    union.options = replace(union.options, redirect_dir="off")
    (union.bottom / "dir").mkdir()
    if is_merged:
        union.d.create(b"dir/file")
    with pytest.raises(OSError, match="cross-device") as caught:
        union.d.rename(b"dir", b"moved")
    assert caught.value.errno == errno.EXDEV
    assert union.d.listdir(b"") == [b"dir"]


def test_a_moved_directory_takes_its_names_along(union: Stand) -> None:
    union.d.keeps_lookups = True
    union.d.mkdir(b"dir")
    union.d.mkdir(b"dir/sub")
    union.d.create(b"dir/sub/file", b"data")
    handle = union.d.open(b"dir/sub/file")
    union.d.rename(b"dir", b"moved")
    assert union.d.read(b"moved/sub/file") == b"data"
    assert handle.stat().ino == union.d.stat(b"moved/sub/file").ino
    union.d.create(b"moved/sub/other")
    assert sorted(os.listdir(union.upper / "moved/sub")) == ["file", "other"]
    handle.close()


def test_noreplace_refuses_an_existing_name(union: Stand) -> None:
    in_lower(union, "one", "two")
    with pytest.raises(FileExistsError):
        union.d.rename(b"one", b"two", RENAME_NOREPLACE)


def test_noreplace_takes_a_whiteout_for_nothing(union: Stand) -> None:
    in_lower(union, "one", "two")
    union.d.unlink(b"two")
    union.d.rename(b"one", b"two", RENAME_NOREPLACE)
    assert union.remount().read(b"two") == b"lower one"


def test_whiteout_is_no_flag_for_users(union: Stand) -> None:
    in_lower(union, "one")
    with pytest.raises(OSError, match="Invalid argument"):
        union.d.rename(b"one", b"two", RENAME_WHITEOUT)


def test_exchange_of_files_of_a_lower(union: Stand) -> None:
    in_lower(union, "one", "dir/two")
    union.d.rename(b"one", b"dir/two", RENAME_EXCHANGE)
    d = union.remount()
    assert d.read(b"one") == b"lower dir/two"
    assert d.read(b"dir/two") == b"lower one"


def test_exchange_of_a_file_and_a_directory(union: Stand) -> None:
    in_lower(union, "file")
    union.d.mkdir(b"dir")
    union.d.create(b"dir/inside")
    union.d.rename(b"file", b"dir", RENAME_EXCHANGE)
    for d in (union.d, union.remount()):
        assert d.read(b"dir") == b"lower file"
        assert d.listdir(b"file") == [b"inside"]


def test_a_directory_exchanged_to_a_lower_name_is_opaque(union: Stand) -> None:
    in_lower(union, "file")
    union.d.mkdir(b"dir")
    union.d.rename(b"dir", b"file", RENAME_EXCHANGE)
    union.remount()
    assert is_opaque(union.d.node(b"file").upper)


def test_exchange_needs_both(union: Stand) -> None:
    in_lower(union, "file")
    with pytest.raises(FileNotFoundError):
        union.d.rename(b"file", b"missing", RENAME_EXCHANGE)


def test_two_names_of_one_file_stay_both(union: Stand) -> None:
    in_lower(union, "one")
    os.link(union.bottom / "one", union.bottom / "two")
    union.d.keeps_lookups = True
    union.d.rename(b"one", b"two")
    assert union.d.listdir(b"") == [b"one", b"two"]


def test_a_name_of_a_copied_up_hard_link_is_moved_alone(union: Stand) -> None:
    in_lower(union, "one")
    os.link(union.bottom / "one", union.bottom / "two")
    union.d.write(b"one", b"UPPER")
    union.d.rename(b"two", b"three")
    d = union.remount()
    assert d.listdir(b"") == [b"one", b"three"]
    assert d.read(b"three") == b"UPPER one"
    d.write(b"three", b"again")
    assert d.read(b"one") == b"again one"


def test_an_open_file_that_is_renamed_over_is_still_read(union: Stand) -> None:
    in_lower(union, "one", "two")
    handle = union.d.open(b"two")
    union.d.rename(b"one", b"two")
    assert handle.read() == b"lower two"
    assert handle.stat().nlink == 0
    handle.close()


def test_an_open_directory_that_is_renamed_over_is_empty(union: Stand) -> None:
    union.d.mkdir(b"old")
    union.d.mkdir(b"new")
    held = union.d.hold(b"old")
    union.d.rename(b"new", b"old")
    assert list(union.d.fs.readdir(held, 0)) == []
    assert union.d.fs.getattr(held).nlink == 0
    union.d.fs.forget(held, 1)


def test_a_full_directory_is_not_replaced(union: Stand) -> None:
    in_lower(union, "dir/file")
    union.d.mkdir(b"new")
    with pytest.raises(OSError, match="Directory not empty"):
        union.d.rename(b"new", b"dir")


@pytest.mark.parametrize("name", [b".wh.file", b".wh..wh..opq"])
def test_no_name_becomes_a_marker(union: Stand, name: bytes) -> None:
    in_lower(union, "file")
    with pytest.raises(PermissionError):
        union.d.rename(b"file", name)


def test_a_name_of_256_bytes_is_too_long(union: Stand) -> None:
    in_lower(union, "file")
    with pytest.raises(OSError, match="File name too long"):
        union.d.rename(b"file", b"x" * 256)


def test_symlinks_and_fifos_are_moved_as_they_are(union: Stand) -> None:
    (union.bottom / "link").symlink_to("/no/where")
    os.mkfifo(union.bottom / "fifo", 0o640)
    union.d.rename(b"link", b"moved-link")
    union.d.rename(b"fifo", b"moved-fifo")
    assert union.d.readlink(b"moved-link") == b"/no/where"
    assert union.d.stat(b"moved-fifo").st.st_mode == stat.S_IFIFO | 0o640
