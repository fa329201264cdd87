"""What of an upper comes into a layer tar, and that a tree comes back out of one."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.support.tars import apply
from tests.support.tree import snapshot
from unionfuse.image.errors import Refused
from unionfuse.image.layers.pack import Packed, PackOptions, pack_merged, pack_tree, pack_upper
from unionfuse.layer.override import CONTAINERS
from unionfuse.offline.layers import opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.conftest import Stand

EPOCH = 1_000_000_000


def packed(
    how: Callable[..., Packed], upper: Path | None, *lowers: Path, **options: object
) -> tuple[Packed, bytes]:
    out = io.BytesIO()
    with opened(os.fsencode(upper), [os.fsencode(lower) for lower in lowers]) as stack:
        return how(stack, out.write, PackOptions(**options)), out.getvalue()


def read(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def lines(data: bytes) -> list[str]:
    """Name what a tar has: with a slash for directories, `-> TARGET` for links."""
    return [
        info.name + "/" * info.isdir() + (f" -> {info.linkname}" if info.linkname else "")
        for info in read(data)
    ]


def upper_of(union: Stand, *lowers: Path, **options: object) -> list[str]:
    union.close()
    return lines(packed(pack_upper, union.upper, *lowers, **options)[1])


def fill(path: Path, *names: str) -> None:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)


def test_changes_of_every_kind(union: Stand) -> None:
    fill(union.bottom, "dir/changed", "dir/gone", "dir/same", "whole/inside", "top")
    d = union.d
    d.write(b"dir/changed", b"new")
    d.create(b"dir/added")
    d.unlink(b"dir/gone")
    d.unlink(b"whole/inside")
    d.rmdir(b"whole")
    d.mkdir(b"made")
    d.create(b"made/file")
    expected = [
        ".wh.whole", "dir/", "dir/.wh.gone", "dir/added", "dir/changed", "made/", "made/file",
    ]  # fmt: skip
    assert upper_of(union, *union.lowers) == expected
    assert upper_of(union) == expected


def test_a_whiteout_is_an_empty_file_of_no_time(union: Stand) -> None:
    fill(union.bottom, "gone")
    union.d.unlink(b"gone")
    union.close()
    (info,) = read(packed(pack_upper, union.upper, *union.lowers)[1])
    assert (info.name, info.type, info.size, info.mtime, info.mode) == (
        ".wh.gone", tarfile.REGTYPE, 0, 0, 0,
    )  # fmt: skip


def test_an_opaque_directory_hides_what_is_below_it_name_by_name(union: Stand) -> None:
    fill(union.bottom, "d/a", "d/b", "d/sub/old", "d/sub/deep/x")
    d = union.d
    for name in (b"d/a", b"d/b", b"d/sub/old", b"d/sub/deep/x"):
        d.unlink(name)
    for name in (b"d/sub/deep", b"d/sub", b"d"):
        d.rmdir(name)
    d.mkdir(b"d")
    d.create(b"d/a")
    d.mkdir(b"d/sub")
    d.create(b"d/sub/new")
    assert upper_of(union, *union.lowers) == [
        "d/", "d/.wh.b", "d/a", "d/sub/", "d/sub/.wh.deep", "d/sub/.wh.old", "d/sub/new",
    ]  # fmt: skip
    assert upper_of(union) == ["d/", "d/.wh..wh..opq", "d/a", "d/sub/", "d/sub/new"]


def test_a_renamed_directory_comes_whole_under_its_new_name(recording: Stand) -> None:
    fill(recording.bottom, "old/a", "old/sub/b", "old/gone")
    fill(recording.top, "old/c")
    d = recording.d
    d.unlink(b"old/gone")
    d.rename(b"old", b"new")
    d.create(b"new/made")
    assert upper_of(recording, *recording.lowers) == [
        ".wh.old", "new/", "new/a", "new/c", "new/made", "new/sub/", "new/sub/b",
    ]  # fmt: skip
    with pytest.raises(Refused, match="renamed"):
        upper_of(recording)


def test_a_directory_renamed_over_another_name_hides_what_is_there(recording: Stand) -> None:
    fill(recording.bottom, "old/a", "new/b", "new/a/c")
    d = recording.d
    for name in (b"new/b", b"new/a/c"):
        d.unlink(name)
    d.rmdir(b"new/a")
    d.rename(b"old", b"new")
    assert upper_of(recording, *recording.lowers) == [".wh.old", "new/", "new/.wh.b", "new/a"]


def test_the_data_of_a_metacopy_comes_from_below(recording: Stand) -> None:
    fill(recording.bottom, "f", "moved")
    d = recording.d
    d.chmod(b"f", 0o600)
    d.chmod(b"moved", 0o600)
    d.mkdir(b"to")
    d.rename(b"moved", b"to/there")
    recording.close()
    data = packed(pack_upper, recording.upper, *recording.lowers)[1]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        contents = {i.name: tar.extractfile(i).read() for i in tar if i.isfile()}
    assert contents == {".wh.moved": b"", "f": b"f", "to/there": b"moved"}
    with pytest.raises(Refused, match="data"):
        upper_of(recording)


def test_names_of_one_file_are_links_of_the_first(union: Stand) -> None:
    d = union.d
    d.create(b"b", b"data")
    d.link(b"b", b"c")
    d.mkdir(b"a")
    d.link(b"b", b"a/x")
    assert upper_of(union) == ["a/", "a/x", "b -> a/x", "c -> a/x"]


def test_hard_links_that_were_copied_up_are_links(recording: Stand) -> None:
    fill(recording.bottom, "a")
    os.link(recording.bottom / "a", recording.bottom / "b")
    d = recording.d
    d.write(b"a", b"new")
    d.chmod(b"b", 0o600)
    assert upper_of(recording, *recording.lowers) == ["a", "b -> a"]


def test_every_name_of_a_file_tells_its_attributes(recording: Stand) -> None:
    """docker and podman give a file those of each name, and chown takes capabilities away."""
    fill(recording.bottom, "a", "c")
    os.link(recording.bottom / "a", recording.bottom / "b")
    d = recording.d
    d.link(b"c", b"d")
    d.chmod(b"a", 0o750)
    d.chown(b"a", 5, 6)
    for name in (b"a", b"c"):
        d.setxattr(name, b"user.k", b"v")
        d.utimens(name, 0, 7 * 10**9)
    recording.close()
    found = read(packed(pack_upper, recording.upper, *recording.lowers)[1])
    told = {
        info.name: (info.mode, info.uid, info.gid, info.mtime, info.pax_headers) for info in found
    }
    assert told["a"] == told["b"] == (0o750, 5, 6, 7, {"SCHILY.xattr.user.k": "v"})
    assert told["c"] == told["d"]
    assert told["d"][3:] == (7, {"SCHILY.xattr.user.k": "v"})


def test_markers_of_overlays_are_not_told_and_users_own_are(recording: Stand) -> None:
    fill(recording.bottom, "f")
    d = recording.d
    d.setxattr(b"f", recording.fmt.prefix + b"opaque", b"nested")
    d.setxattr(b"f", b"user.k", b"v")
    recording.close()
    (info,) = read(packed(pack_upper, recording.upper, *recording.lowers)[1])
    assert info.pax_headers == {
        f"SCHILY.xattr.{recording.fmt.prefix.decode()}opaque": "nested",
        "SCHILY.xattr.user.k": "v",
    }


def test_times_are_whole_and_not_later_than_told(union: Stand) -> None:
    union.d.create(b"late")
    union.d.create(b"early")
    union.d.utimens(b"early", 0, 5 * 10**9 + 999_999_999)
    union.close()
    out = packed(pack_upper, union.upper, source_date_epoch=EPOCH)[1]
    assert {info.name: info.mtime for info in read(out)} == {"early": 5, "late": EPOCH}


def test_paths_can_be_left_out_whatever_happened_to_them(union: Stand) -> None:
    fill(union.bottom, "dir/changed", "dir/gone", "dir/other")
    union.d.write(b"dir/changed", b"new")
    union.d.unlink(b"dir/gone")
    union.d.unlink(b"dir/other")
    left_out = frozenset({b"dir/changed", b"dir/gone"})
    assert upper_of(union, union.bottom, left_out=left_out) == ["dir/", "dir/.wh.other"]


def test_what_a_socket_has_replaced_is_hidden(union: Stand) -> None:
    fill(union.bottom, "s")
    union.d.unlink(b"s")
    union.d.mknod(b"s", stat.S_IFSOCK | 0o600)
    assert upper_of(union, *union.lowers) == [".wh.s"]


def test_sockets_are_left_out_with_a_note(union: Stand) -> None:
    union.d.mknod(b"s", stat.S_IFSOCK | 0o600)
    union.close()
    result, data = packed(pack_upper, union.upper, *union.lowers)
    assert (lines(data), result.notes) == ([], ("sockets are left out (1 times)",))
    assert result.entries == 0


def test_all_that_a_stack_shows_is_one_layer(union: Stand) -> None:
    fill(union.bottom, "d/a", "d/b", "x")
    fill(union.top, "d/c")
    union.d.unlink(b"d/a")
    union.d.create(b"n")
    union.close()
    assert lines(packed(pack_merged, union.upper, *union.lowers)[1]) == [
        "d/", "d/b", "d/c", "n", "x",
    ]  # fmt: skip


@pytest.mark.root
def test_owners_in_attributes_are_told_as_owners(tmp_path: Path) -> None:
    upper = tmp_path / "u"
    upper.mkdir()
    os.setxattr(upper, CONTAINERS, b"0:0:0755:dir")
    for name, value in (
        ("f", b"1001:2000:4711:file"), ("c", b"0:0:0644:char-1-3"), ("plain", None),
    ):  # fmt: skip
        (upper / name).write_bytes(b"")
        if value is not None:
            os.setxattr(upper / name, CONTAINERS, value)
    os.setxattr(upper / "f", CONTAINERS.replace(b"stat", b"security.capability"), b"cap")
    data = packed(pack_upper, upper)[1]
    found = {info.name: info for info in read(data)}
    assert (found["f"].uid, found["f"].gid, found["f"].mode) == (1001, 2000, 0o4711)
    assert found["f"].pax_headers == {"SCHILY.xattr.security.capability": "cap"}
    assert (found["c"].ischr(), found["c"].devmajor, found["c"].devminor) == (True, 1, 3)


@pytest.mark.root
def test_a_tree_that_was_packed_and_applied_is_the_same(tmp_path: Path) -> None:
    tree = tmp_path / "t"
    fill(tree, "d/f", "d/e/g", "n" * 250, "d/" + "long/" * 60 + "f", "früh", "empty")
    os.link(tree / "d/f", tree / "link")
    os.symlink("x" * 300, tree / "s")
    os.mkfifo(tree / "p", 0o600)
    os.mknod(tree / "dev", stat.S_IFBLK | 0o640, os.makedev(240, 9))
    os.chown(tree / "d/f", 3_000_000_000, 5_000_000)
    os.chmod(tree / "d/f", 0o6755)
    os.setxattr(tree / "d/f", "user.k", bytes(range(256)))
    os.setxattr(tree / "d", "trusted.x", b"1")
    os.utime(tree / "empty", ns=(0, -5 * 10**9))
    for where, dirs, files in os.walk(tree):
        for name in (*dirs, *files):
            if name != "empty":
                os.utime(os.path.join(where, name), (EPOCH, EPOCH), follow_symlinks=False)
    out = io.BytesIO()
    fd = os.open(tree, os.O_RDONLY)
    try:
        first = pack_tree(fd, out.write, PackOptions(with_root=True))
        again = pack_tree(fd, lambda _: None, PackOptions(with_root=True))
    finally:
        os.close(fd)
    assert first == again
    applied = apply(out.getvalue(), tmp_path / "back")
    assert applied.diff_id == first.diff_id
    assert applied.implied == ()
    options = {"times": "set", "directory_times": True}
    assert snapshot(tmp_path / "back", **options) == snapshot(tree, **options)
