"""Which marks a removal leaves, and what those see who still have the file open."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from unionfuse.union.fs import UnionFs

if TYPE_CHECKING:
    from tests.unit.conftest import Stand


def in_lower(stand: Stand, *names: str) -> None:
    for name in names:
        path = stand.bottom / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"lower {name}")


def test_a_removed_lower_name_stays_removed(union: Stand) -> None:
    in_lower(union, "file")
    union.d.unlink(b"file")
    assert not union.d.exists(b"file")
    assert not union.remount().exists(b"file")


def test_the_whiteout_has_the_form_of_the_upper(union: Stand) -> None:
    in_lower(union, "file")
    union.d.unlink(b"file")
    [name] = os.listdir(union.upper)
    st = (union.upper / name).lstat()
    if union.fmt is not None and union.fmt.char_whiteouts:
        assert (name, stat.S_IFMT(st.st_mode), st.st_rdev) == ("file", stat.S_IFCHR, 0)
    else:
        assert (name, stat.S_IFMT(st.st_mode), st.st_size) == (".wh.file", stat.S_IFREG, 0)


def test_a_name_of_the_upper_alone_leaves_no_whiteout(union: Stand) -> None:
    union.d.create(b"file")
    union.d.unlink(b"file")
    assert os.listdir(union.upper) == []


def test_a_copied_up_file_leaves_a_whiteout(union: Stand) -> None:
    in_lower(union, "file")
    union.d.write(b"file", b"new")
    union.d.unlink(b"file")
    assert not union.remount().exists(b"file")
    assert union.temporaries() == []


def test_a_name_that_a_lower_hides_already_leaves_no_whiteout(union: Stand) -> None:
    in_lower(union, "file")
    (union.top / ".wh.file").touch()
    union.d.create(b"file")
    union.d.unlink(b"file")
    assert os.listdir(union.upper) == []


def test_a_name_below_an_opaque_directory_leaves_no_whiteout(union: Stand) -> None:
    in_lower(union, "dir/file")
    union.d.unlink(b"dir/file")
    union.d.rmdir(b"dir")
    union.d.mkdir(b"dir")
    union.d.create(b"dir/file")
    union.d.unlink(b"dir/file")
    assert set(os.listdir(union.upper / "dir")) <= {".wh..wh..opq"}


def test_a_directory_with_names_is_not_removed(union: Stand) -> None:
    in_lower(union, "dir/file")
    with pytest.raises(OSError, match="Directory not empty"):
        union.d.rmdir(b"dir")


def test_a_directory_of_whiteouts_is_removed(union: Stand) -> None:
    in_lower(union, "dir/one", "dir/two")
    union.d.unlink(b"dir/one")
    union.d.unlink(b"dir/two")
    union.d.rmdir(b"dir")
    assert not union.remount().exists(b"dir")
    assert union.temporaries() == []


def test_a_new_directory_of_whiteouts_leaves_nothing(union: Stand) -> None:
    in_lower(union, "file")
    union.d.mkdir(b"dir")
    union.d.rename(b"file", b"dir/file")
    union.d.unlink(b"dir/file")
    union.d.rmdir(b"dir")
    assert not (union.upper / "dir").exists()


def test_a_file_is_no_directory_to_remove(union: Stand) -> None:
    in_lower(union, "file")
    with pytest.raises(NotADirectoryError):
        union.d.rmdir(b"file")


def test_a_directory_is_no_file_to_remove(union: Stand) -> None:
    union.d.mkdir(b"dir")
    with pytest.raises(IsADirectoryError):
        union.d.unlink(b"dir")


def test_what_is_not_there_can_not_be_removed(union: Stand) -> None:
    with pytest.raises(FileNotFoundError):
        union.d.unlink(b"file")
    with pytest.raises(FileNotFoundError):
        union.d.rmdir(b"dir")


@pytest.mark.parametrize("layer", ["lower", "upper", "copied-up"])
def test_an_unlinked_file_is_read_and_written_while_open(union: Stand, layer: str) -> None:
    if layer == "upper":
        union.d.create(b"file", b"lower file")
    else:
        in_lower(union, "file")
    if layer == "copied-up":
        union.d.chmod(b"file", 0o600)
    handle = union.d.open(b"file", os.O_RDONLY)
    union.d.unlink(b"file")
    assert handle.read() == b"lower file"
    handle.write(b"UPPER")
    assert handle.read() == b"UPPER file"
    assert handle.stat().nlink == 0
    handle.close()
    assert union.temporaries() == []


def test_a_new_file_of_the_name_is_another_one(union: Stand) -> None:
    union.d.create(b"file", b"old")
    handle = union.d.open(b"file")
    union.d.unlink(b"file")
    union.d.create(b"file", b"new")
    assert handle.read() == b"old"
    assert union.d.stat(b"file").ino != handle.stat().ino
    handle.close()


def test_attributes_of_an_unlinked_file_can_be_changed(union: Stand) -> None:
    in_lower(union, "file")
    handle = union.d.open(b"file")
    union.d.unlink(b"file")
    handle.setattr(mode=0o600, mtime_ns=5)
    assert stat.S_IMODE(handle.stat().st.st_mode) == 0o600
    assert handle.stat().st.st_mtime_ns == 5
    handle.close()
    assert not union.d.exists(b"file")


def test_an_unlinked_file_can_not_be_linked_again(union: Stand) -> None:
    union.d.create(b"file")
    handle = union.d.open(b"file")
    union.d.unlink(b"file")
    with pytest.raises(FileNotFoundError):
        union.d.fs.link(handle.nodeid, 1, b"again")
    handle.close()


@pytest.mark.parametrize("copied_up", [False, True])
def test_removing_one_name_of_several_lowers_the_count(recording: Stand, copied_up: bool) -> None:
    in_lower(recording, "one")
    os.link(recording.bottom / "one", recording.bottom / "two")
    recording.d.keeps_lookups = True
    if copied_up:
        recording.d.chmod(b"one", 0o600)
    recording.d.unlink(b"one")
    assert recording.d.stat(b"two").nlink == 1
    assert recording.d.read(b"two") == b"lower one"


def test_a_file_with_another_name_is_written_through_an_open_handle(union: Stand) -> None:
    in_lower(union, "one")
    os.link(union.bottom / "one", union.bottom / "two")
    handle = union.d.open(b"one")
    union.d.unlink(b"one")
    handle.write(b"UPPER")
    assert union.d.read(b"two") == b"UPPER one"
    handle.close()


def test_a_removed_directory_is_empty_for_those_who_have_it_open(union: Stand) -> None:
    (union.bottom / "dir").mkdir()
    held = union.d.hold(b"dir")
    union.d.rmdir(b"dir")
    assert list(union.d.fs.readdir(held, 0)) == []
    assert union.d.fs.getattr(held).nlink == 0
    union.d.fs.forget(held, 1)


def test_a_read_only_union_removes_nothing(plain: Stand) -> None:
    in_lower(plain, "file")
    fs = UnionFs.from_paths([os.fsencode(plain.bottom)])
    with pytest.raises(OSError, match="Read-only file system"):
        fs.unlink(1, b"file")
    fs.close()
