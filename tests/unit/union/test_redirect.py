"""Directories of lowers that are renamed, and found again in every layer by their redirect."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.union.test_remove import in_lower
from unionfuse.record import replace
from unionfuse.syscalls.rename import RENAME_EXCHANGE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.conftest import Stand


def redirect(path: Path) -> bytes | None:
    """Return what a directory or file of a layer says about the layers below."""
    for prefix in ("trusted", "user"):
        name = f"{prefix}.overlay.redirect"
        if name in os.listxattr(path):
            return os.getxattr(path, name)
    return None


def set_redirect(recording: Stand, path: Path, value: bytes) -> None:
    prefix = recording.d.fs.union.upper.format.prefix
    os.setxattr(path, prefix + b"redirect", value)


def test_a_lower_directory_is_moved_by_a_mark_alone(recording: Stand) -> None:
    in_lower(recording, "dir/file", "dir/deeper/file")
    recording.d.rename(b"dir", b"moved")
    assert os.listdir(recording.upper / "moved") == []
    assert redirect(recording.upper / "moved") == b"dir"
    for d in (recording.d, recording.remount()):
        assert d.readdir(b"") == [b"moved"]
        assert d.read(b"moved/file") == b"lower dir/file"
        assert d.read(b"moved/deeper/file") == b"lower dir/deeper/file"


def test_a_directory_that_goes_elsewhere_names_its_path(recording: Stand) -> None:
    in_lower(recording, "one/dir/file", "two/file")
    recording.d.rename(b"one/dir", b"two/moved")
    assert redirect(recording.upper / "two/moved") == b"/one/dir"
    d = recording.remount()
    assert d.readdir(b"one") == []
    assert d.read(b"two/moved/file") == b"lower one/dir/file"


def test_below_a_moved_directory_the_path_is_that_of_the_lowers(recording: Stand) -> None:
    in_lower(recording, "one/dir/file", "two/file")
    recording.d.rename(b"one", b"uno")
    recording.d.rename(b"uno/dir", b"two/moved")
    assert redirect(recording.upper / "two/moved") == b"/one/dir"
    assert recording.remount().read(b"two/moved/file") == b"lower one/dir/file"


def test_a_second_move_keeps_the_first_name(recording: Stand) -> None:
    in_lower(recording, "dir/file", "other/file")
    recording.d.rename(b"dir", b"moved")
    recording.d.rename(b"moved", b"again")
    assert redirect(recording.upper / "again") == b"dir"
    recording.d.rename(b"again", b"other/third")
    assert redirect(recording.upper / "other/third") == b"/dir"
    assert recording.remount().read(b"other/third/file") == b"lower dir/file"


def test_a_moved_directory_hides_a_lower_one_of_its_new_name(recording: Stand) -> None:
    in_lower(recording, "dir/file", "new/old")
    recording.d.unlink(b"new/old")
    recording.d.rename(b"dir", b"new")
    for d in (recording.d, recording.remount()):
        assert d.readdir(b"") == [b"new"]
        assert d.readdir(b"new") == [b"file"]


def test_two_lower_directories_change_places(recording: Stand) -> None:
    in_lower(recording, "one/in-one", "two/in-two")
    recording.d.rename(b"one", b"two", RENAME_EXCHANGE)
    for d in (recording.d, recording.remount()):
        assert d.readdir(b"one") == [b"in-two"]
        assert d.readdir(b"two") == [b"in-one"]


def test_a_new_directory_at_the_old_name_is_empty(recording: Stand) -> None:
    in_lower(recording, "dir/file")
    recording.d.rename(b"dir", b"moved")
    recording.d.mkdir(b"dir")
    for d in (recording.d, recording.remount()):
        assert d.readdir(b"dir") == []
        assert d.readdir(b"moved") == [b"file"]


def test_what_was_removed_in_a_moved_directory_stays_removed(recording: Stand) -> None:
    in_lower(recording, "dir/file", "dir/gone")
    recording.d.unlink(b"dir/gone")
    recording.d.rename(b"dir", b"moved")
    assert recording.remount().readdir(b"moved") == [b"file"]


def test_a_moved_directory_keeps_its_number(recording: Stand) -> None:
    in_lower(recording, "dir/file")
    before = recording.d.stat(b"dir").ino
    recording.d.rename(b"dir", b"moved")
    assert recording.d.stat(b"moved").ino == before
    assert recording.remount().stat(b"moved").ino == before


def test_all_lowers_of_a_moved_directory_are_merged(recording: Stand) -> None:
    for lower in recording.lowers:
        (lower / "dir").mkdir()
        (lower / "dir" / lower.name).touch()
    recording.d.rename(b"dir", b"moved")
    assert recording.remount().readdir(b"moved") == [b"lower1", b"lower2"]


def test_a_redirect_of_a_lower_is_followed_in_those_below(recording: Stand) -> None:
    in_lower(recording, "old/file")
    (recording.top / "new").mkdir()
    set_redirect(recording, recording.top / "new", b"old")
    assert recording.d.readdir(b"new") == [b"file"]
    assert recording.d.read(b"new/file") == b"lower old/file"


def test_a_path_goes_through_redirects_of_the_layers_on_the_way(recording: Stand) -> None:
    in_lower(recording, "first/dir/file")
    (recording.top / "second/dir").mkdir(parents=True)
    set_redirect(recording, recording.top / "second", b"first")
    (recording.upper / "third").mkdir()
    set_redirect(recording, recording.upper / "third", b"/second/dir")
    assert recording.remount().readdir(b"third") == [b"file"]


def test_a_path_ends_at_a_whiteout(recording: Stand) -> None:
    in_lower(recording, "a/dir/file")
    os.mkdir(recording.top / "a")
    (recording.top / "a/.wh.dir").touch()
    (recording.upper / "moved").mkdir()
    set_redirect(recording, recording.upper / "moved", b"/a/dir")
    assert recording.remount().readdir(b"moved") == []


@pytest.mark.parametrize("value", [b"..", b"/a/../../etc", b".", b"", b"/", b"a/b", b"/a//b"])
def test_a_redirect_out_of_the_layer_is_an_error(recording: Stand, value: bytes) -> None:
    in_lower(recording, "a/b/file")
    (recording.upper / "moved").mkdir()
    set_redirect(recording, recording.upper / "moved", value)
    with pytest.raises(OSError, match="Input/output") as caught:
        recording.remount().readdir(b"moved")
    assert caught.value.errno == errno.EIO
    assert recording.d.readdir(b"a/b") == [b"file"]


def test_a_redirect_is_not_followed_if_that_is_asked_for(recording: Stand) -> None:
    in_lower(recording, "dir/file")
    recording.d.rename(b"dir", b"moved")
    recording.options = replace(recording.options, redirect_dir="nofollow")
    with pytest.raises(PermissionError):
        recording.remount().readdir(b"moved")


def test_a_path_too_long_for_an_attribute_is_not_written(recording: Stand) -> None:
    deep = "/".join(["d" * 250] * 13)
    in_lower(recording, f"{deep}/file", "other/file")
    with pytest.raises(OSError, match="cross-device") as caught:
        recording.d.rename(deep.encode(), b"other/moved")
    assert caught.value.errno == errno.EXDEV
    recording.d.rename(deep.encode(), deep.encode() + b"-yon")


def test_what_a_user_marks_does_not_lead_through_a_mount_of_root(recording: Stand) -> None:
    own = recording.d.fs.union.upper.format.prefix
    foreign = b"user.overlay." if own == b"trusted.overlay." else b"trusted.overlay."
    in_lower(recording, "secret/file")
    (recording.top / "mine").mkdir()
    os.setxattr(recording.top / "mine", foreign + b"redirect", b"secret")
    (recording.top / "file").write_bytes(b"")
    os.truncate(recording.top / "file", 10)
    os.setxattr(recording.top / "file", foreign + b"metacopy", b"")
    os.setxattr(recording.top / "file", foreign + b"redirect", b"/secret/file")
    d = recording.remount()
    assert d.readdir(b"mine") == []
    assert d.read(b"file") == bytes(10)
