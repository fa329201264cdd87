"""What an upper says was added, changed and deleted."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.core import WH_FILES
from unionfuse.offline.diff import Change, UpperDiff
from unionfuse.offline.layers import opened

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.conftest import Stand


def read(upper: Path, *lowers: Path) -> list[Change]:
    with opened(os.fsencode(upper), [os.fsencode(lower) for lower in lowers]) as stack:
        return list(UpperDiff(stack).changes())


def lines(upper: Path, *lowers: Path) -> list[str]:
    return [f"{change.kind} {os.fsdecode(change.path)}" for change in read(upper, *lowers)]


def fill(union: Stand) -> None:
    """Do to a union what a diff has words for."""
    (union.bottom / "dir/sub").mkdir(parents=True)
    for name in ("dir/changed", "dir/gone", "dir/sub/deep", "whole/inside"):
        (union.bottom / name).parent.mkdir(exist_ok=True)
        (union.bottom / name).write_text(name)
    d = union.d
    d.write(b"dir/changed", b"new")
    d.create(b"dir/added")
    d.unlink(b"dir/gone")
    d.chmod(b"dir/sub/deep", 0o600)
    d.unlink(b"whole/inside")
    d.rmdir(b"whole")
    d.mkdir(b"made")
    d.create(b"made/file")
    union.close()


ALL = [
    "C dir", "A dir/added", "C dir/changed", "D dir/gone", "C dir/sub", "C dir/sub/deep",
    "A made", "A made/file", "D whole",
]  # fmt: skip


def test_origins_tell_what_came_from_below(recording: Stand) -> None:
    fill(recording)
    assert lines(recording.upper) == ALL


def test_lowers_tell_it_where_there_are_no_origins(union: Stand) -> None:
    fill(union)
    assert lines(union.upper, *union.lowers) == ALL


def test_without_origins_a_directory_that_hides_something_came_from_below(plain: Stand) -> None:
    plain.fmt = WH_FILES
    fill(plain)
    assert lines(plain.upper) == [
        line.replace("C dir/", "A dir/") if line != "C dir" else line for line in ALL
    ]


def test_a_hard_link_whose_attributes_were_changed_is_changed(recording: Stand) -> None:
    (recording.bottom / "one").write_text("data")
    os.link(recording.bottom / "one", recording.bottom / "two")
    recording.d.chmod(b"one", 0o600)
    recording.close()
    assert lines(recording.upper) == ["C one"]


def test_it_is_told_whether_anything_has_an_origin(plain: Stand) -> None:
    plain.fmt = WH_FILES
    fill(plain)
    with opened(os.fsencode(plain.upper), []) as stack:
        reading = UpperDiff(stack)
        list(reading.changes())
        assert not reading.has_origins


def test_an_upper_that_says_nothing_has_no_changes(plain: Stand) -> None:
    plain.d.stat(b"")
    assert lines(plain.upper) == []


def test_a_renamed_directory_is_an_added_one_that_tells_where_it_was(recording: Stand) -> None:
    (recording.bottom / "old/sub").mkdir(parents=True)
    (recording.bottom / "old/sub/file").write_text("")
    recording.d.unlink(b"old/sub/file")
    recording.d.rename(b"old", b"new")
    recording.close()
    for lowers in ([], recording.lowers):
        assert read(recording.upper, *lowers) == [
            Change("A", b"new", stat.S_IFDIR, b"old"),
            Change("A", b"new/sub", stat.S_IFDIR),
            Change("D", b"old", 0),
        ]


def test_in_a_new_directory_everything_is_new(recording: Stand) -> None:
    (recording.bottom / "file").write_text("")
    recording.d.mkdir(b"made")
    recording.d.chmod(b"file", 0o600)
    recording.d.rename(b"file", b"made/file")
    recording.close()
    assert lines(recording.upper) == ["D file", "A made", "A made/file"]


def test_below_an_opaque_directory_lowers_tell_what_is_gone(union: Stand) -> None:
    (union.bottom / "d/sub").mkdir(parents=True)
    (union.bottom / "d/sub/old").touch()
    (union.bottom / "d/sub/both").touch()
    d = union.d
    for name in (b"d/sub/old", b"d/sub/both"):
        d.unlink(name)
    d.rmdir(b"d/sub")
    d.rmdir(b"d")
    d.mkdir(b"d")  # opaque: it takes the place of a whiteout
    d.mkdir(b"d/sub")
    d.create(b"d/sub/new")
    d.create(b"d/sub/both")
    union.close()
    assert lines(union.upper, *union.lowers) == [
        "C d", "C d/sub", "C d/sub/both", "A d/sub/new", "D d/sub/old",
    ]  # fmt: skip


def test_in_an_opaque_directory_everything_is_new_and_lowers_tell_what_is_gone(
    union: Stand,
) -> None:
    (union.bottom / "dir").mkdir()
    (union.bottom / "dir/same").write_text("")
    (union.bottom / "dir/gone").write_text("")
    union.d.unlink(b"dir/same")
    union.d.unlink(b"dir/gone")
    union.d.rmdir(b"dir")
    union.d.mkdir(b"dir")
    union.d.create(b"dir/same")
    union.close()
    assert lines(union.upper) == ["A dir", "A dir/same"]
    assert lines(union.upper, *union.lowers) == ["C dir", "D dir/gone", "C dir/same"]


def test_what_fuse_overlayfs_copied_up_is_changed_where_it_was_and_added_elsewhere(
    tmp_path: Path,
) -> None:
    for name in ("dir", "dir/same", "dir/moved"):
        (tmp_path / name).mkdir() if name == "dir" else (tmp_path / name).touch()
    for name, origin in [("dir", b"dir\0"), ("dir/same", b"dir/same"), ("dir/moved", b"other\0")]:
        os.setxattr(tmp_path / name, "user.fuseoverlayfs.origin", origin)
    assert lines(tmp_path) == ["C dir", "A dir/moved", "C dir/same"]


def test_a_whiteout_beside_a_name_says_that_it_was_there(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    for name in ("file", ".wh.file", ".wh.dir", "dir/inside"):
        (tmp_path / name).touch()
    assert lines(tmp_path) == ["C dir", "A dir/inside", "C file"]


def test_a_whiteout_over_nothing_is_no_change_for_who_knows_the_lowers(union: Stand) -> None:
    (union.upper / ".wh.gone").touch()
    assert lines(union.upper) == ["D gone"]
    assert lines(union.upper, *union.lowers) == []


def test_the_names_of_a_directory_come_after_it_in_order(tmp_path: Path) -> None:
    for name in ("b/c", "b.d", "a"):
        (tmp_path / name).mkdir(parents=True)
    assert [change.path for change in read(tmp_path)] == [b"a", b"b", b"b/c", b"b.d"]


def test_any_depth_is_read_with_few_descriptors(tmp_path: Path) -> None:
    name, depth = b"d" * 200, 700  # more than are kept open, and far beyond PATH_MAX
    fd = os.open(tmp_path, os.O_PATH)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert len(read(tmp_path)) == depth


@pytest.mark.parametrize("target", ["/", ".."])
def test_a_symlink_is_followed_nowhere(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    assert read(tmp_path) == [Change("A", b"link", stat.S_IFLNK)]
