"""What a layer tar makes of an empty directory."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile

import pytest

from tests.support.tars import MTIME, TarBuilder, apply, tree, xattrs
from unionfuse.image.digest import digest_of
from unionfuse.image.errors import Corrupt, ImageError, Malformed, Refused
from unionfuse.image.layers.apply import LayerBlob, apply_layer
from unionfuse.image.layers.form import LayerForm
from unionfuse.image.layers.limits import Limits
from unionfuse.image.layers.member import Member
from unionfuse.image.layers.writer import TarWriter

pytestmark = pytest.mark.root


def opaque(path):
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def test_files_have_content_owner_mode_and_time(tmp_path):
    data = TarBuilder().file("f", b"content", uid=1001, gid=2000, mode=0o4711).bytes()
    applied = apply(data, tmp_path / "l")
    st = (tmp_path / "l/f").lstat()
    assert (tmp_path / "l/f").read_bytes() == b"content"
    assert (st.st_uid, st.st_gid, st.st_mode) == (1001, 2000, stat.S_IFREG | 0o4711)
    assert st.st_mtime_ns == MTIME * 10**9
    assert applied.diff_id == digest_of(data)
    assert (applied.entries, applied.file_bytes, applied.tar_bytes) == (1, 7, len(data))


def test_every_type_is_made(tmp_path):
    data = (
        TarBuilder()
        .dir("d", mode=0o1777)
        .file("d/f", b"x")
        .symlink("d/s", "/nowhere")
        .fifo("d/p")
        .device("d/c", 1, 3)
        .device("d/b", 240, 9, tarfile.BLKTYPE)
        .link("d/h", "d/f")
        .bytes()
    )
    apply(data, tmp_path / "l")
    assert tree(tmp_path / "l") == {
        "d": "drwxrwxrwt", "d/b": "brw-r--r--", "d/c": "crw-r--r--", "d/f": "-rw-r--r--",
        "d/h": "-rw-r--r--", "d/p": "prw-r--r--", "d/s": "lrwxrwxrwx",
    }  # fmt: skip
    assert (tmp_path / "l/d/c").stat().st_rdev == os.makedev(1, 3)
    assert os.readlink(tmp_path / "l/d/s") == "/nowhere"
    assert (tmp_path / "l/d/f").stat().st_nlink == 2


def test_times_of_directories_outlast_what_is_made_in_them(tmp_path):
    data = TarBuilder().dir("d").dir("d/e").file("d/e/f").file("d/.wh.gone").file("f").bytes()
    apply(data, tmp_path / "l")
    for name in ("d", "d/e", "d/e/f"):
        assert (tmp_path / "l" / name).stat().st_mtime == MTIME, name


def test_parents_without_an_entry_are_implied(tmp_path):
    applied = apply(TarBuilder().file("a/b/c").dir("d").bytes(), tmp_path / "l")
    assert applied.implied == (b"", b"a", b"a/b")
    st = (tmp_path / "l/a/b").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_mtime) == (0o755, 0, 0)


def test_an_entry_that_comes_after_what_is_in_it_counts(tmp_path):
    applied = apply(TarBuilder().file("a/b").dir("a", mode=0o700).dir("./").bytes(), tmp_path / "l")
    assert applied.implied == ()
    assert tree(tmp_path / "l")["a"] == "drwx------"


def test_a_whiteout_becomes_a_device_zero(tmp_path):
    apply(TarBuilder().dir("d").file("d/.wh.gone").bytes(), tmp_path / "l")
    assert tree(tmp_path / "l") == {"d": "drwxr-xr-x", "d/gone": "whiteout"}


def test_a_whiteout_leaves_what_its_own_layer_has(tmp_path):
    before = TarBuilder().file(".wh.f").file("f", b"new").bytes()
    after = TarBuilder().file("f", b"new").file(".wh.f").bytes()
    for number, data in enumerate((before, after)):
        apply(data, tmp_path / f"{number}")
        assert tree(tmp_path / f"{number}") == {"f": "-rw-r--r--"}


@pytest.mark.parametrize("is_first", [True, False])
def test_a_whiteout_beside_a_directory_makes_it_opaque(tmp_path, is_first):
    builder = TarBuilder()
    if is_first:
        builder.file(".wh.d")
    builder.dir("d").file("d/f")
    if not is_first:
        builder.file(".wh.d")
    apply(builder.bytes(), tmp_path / "l")
    assert tree(tmp_path / "l") == {"d": "drwxr-xr-x", "d/f": "-rw-r--r--"}
    assert opaque(tmp_path / "l/d")


def test_an_opaque_mark_counts_wherever_it_stands(tmp_path):
    data = TarBuilder().dir("d").file("d/f").file("d/.wh..wh..opq").file("d/.wh.x").bytes()
    apply(data, tmp_path / "l")
    assert tree(tmp_path / "l") == {"d": "drwxr-xr-x", "d/f": "-rw-r--r--"}
    assert opaque(tmp_path / "l/d")
    assert (tmp_path / "l/d").stat().st_mtime == MTIME


def test_below_a_whiteout_nothing_is_hidden_twice(tmp_path):
    apply(TarBuilder().file("a/.wh.b").file("a/b/.wh.c").bytes(), tmp_path / "l")
    assert tree(tmp_path / "l") == {"a": "drwxr-xr-x", "a/b": "whiteout"}


def test_aufs_own_files_are_left_out(tmp_path):
    data = TarBuilder().file(".wh..wh.aufs").dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2").bytes()
    apply(data, tmp_path / "l")
    assert tree(tmp_path / "l") == {}


def test_the_last_of_several_entries_counts(tmp_path):
    data = (
        TarBuilder()
        .file("a", b"first").file("a", b"second")
        .dir("b").file("b/x").symlink("b", "elsewhere")
        .symlink("c", "a").dir("c")
        .dir("d").file("d/x").dir("d", mode=0o700, pax_headers=xattrs(user__k="v"))
        .bytes()
    )  # fmt: skip
    apply(data, tmp_path / "l")
    assert tree(tmp_path / "l") == {
        "a": "-rw-r--r--", "b": "lrwxrwxrwx", "c": "drwxr-xr-x", "d": "drwx------",
        "d/x": "-rw-r--r--",
    }  # fmt: skip
    assert (tmp_path / "l/a").read_bytes() == b"second"
    assert os.getxattr(tmp_path / "l/d", "user.k") == b"v"


def test_attributes_of_a_later_entry_take_the_place_of_the_earlier(tmp_path):
    data = TarBuilder().dir("d", pax_headers=xattrs(user__k="v")).dir("d").bytes()
    apply(data, tmp_path / "l")
    assert os.listxattr(tmp_path / "l/d") == []


def test_extended_attributes_are_set(tmp_path):
    capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")
    data = (
        TarBuilder()
        .file("f", b"x", pax_headers=xattrs(user__k="v", security__capability=capability))
        .dir("d", pax_headers=xattrs(trusted__x="1", security__selinux="no", user__e=""))
        .bytes()
    )
    applied = apply(data, tmp_path / "l")
    assert os.getxattr(tmp_path / "l/f", "security.capability")[:4] == b"\x01\0\0\x02"
    assert os.getxattr(tmp_path / "l/f", "user.k") == b"v"
    assert os.listxattr(tmp_path / "l/d") == ["trusted.x"]
    assert applied.notes == ("the attribute security.selinux is not kept here (1 times)",)


def test_markers_of_overlays_in_a_tar_are_kept_escaped(tmp_path):
    headers = xattrs(trusted__overlay__opaque="y", trusted__overlay__redirect="/etc")
    apply(TarBuilder().dir("d", pax_headers=headers).bytes(), tmp_path / "l")
    assert sorted(os.listxattr(tmp_path / "l/d")) == [
        "trusted.overlay.overlay.opaque", "trusted.overlay.overlay.redirect",
    ]  # fmt: skip


def test_a_default_acl_is_not_inherited_by_what_the_layer_has(tmp_path):
    acl = b"\x02\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + b"\xff\xff\xff\xff"
        for tag, perm in ((1, 7), (4, 5), (0x20, 0))
    )
    out = io.BytesIO()
    writer = TarWriter(out.write)
    member = Member(b"d", stat.S_IFDIR, 0o755, xattrs={b"system.posix_acl_default": acl})
    writer.add(member)
    writer.add(Member(b"d/e", stat.S_IFDIR, 0o700))
    writer.add(Member(b"d/f", stat.S_IFREG, 0o644))
    writer.close()
    apply(out.getvalue(), tmp_path / "l")
    assert os.getxattr(tmp_path / "l/d", "system.posix_acl_default") == acl
    assert os.listxattr(tmp_path / "l/d/e") == []
    assert tree(tmp_path / "l")["d/f"] == "-rw-r--r--"


def test_names_through_a_symlink_go_where_it_leads_in_the_layer(tmp_path):
    data = (
        TarBuilder().dir("usr/lib").symlink("lib", "usr/lib").symlink("l", "/lib")
        .file("lib/a").file("l/b").link("lib/c", "l/a").bytes()
    )  # fmt: skip
    apply(data, tmp_path / "l")
    assert set(tree(tmp_path / "l")) == {
        "usr", "usr/lib", "usr/lib/a", "usr/lib/b", "usr/lib/c", "lib", "l",
    }  # fmt: skip


def test_an_absolute_name_begins_at_the_root_of_the_layer(tmp_path):
    apply(TarBuilder().file("//etc/./passwd").bytes(), tmp_path / "l")
    assert "etc/passwd" in tree(tmp_path / "l")


HOSTILE = {
    "dots": TarBuilder().file("../out"),
    "dots inside": TarBuilder().file("a/../../out"),
    "a symlink out": TarBuilder().symlink("s", "../..").file("s/out"),
    "a symlink to an absolute path": TarBuilder().symlink("s", "/tmp").file("s/out"),
    "a loop": TarBuilder().symlink("a", "b").symlink("b", "a").file("a/out"),
    "a hard link out": TarBuilder().link("h", "../../etc/passwd"),
    "a hard link to an absolute path": TarBuilder().link("h", "/etc/passwd"),
    "a hard link through a symlink": TarBuilder().symlink("s", "/etc").link("h", "s/passwd"),
    "a hard link to a directory": TarBuilder().dir("d").link("h", "d"),
    "a hard link to itself": TarBuilder().file("h").link("h", "h"),
    "a whiteout of dots": TarBuilder().file(".wh..."),
    "a whiteout of itself": TarBuilder().file(".wh.."),
    "a whiteout of nothing": TarBuilder().file("d/.wh."),
    "a name below a whiteout": TarBuilder().file(".wh.a/b"),
    "a whiteout above": TarBuilder().file("../.wh.a"),
    "a whiteout through a symlink": TarBuilder().symlink("s", "/tmp").file("s/.wh.x"),
    "an opaque mark through a symlink": TarBuilder().symlink("s", "..").file("s/.wh..wh..opq"),
    "something below a file": TarBuilder().file("f").file("f/x"),
    "a root that is a file": TarBuilder().file("."),
    "a link to nothing": TarBuilder().symlink("s", ""),
    "a long name": TarBuilder().file("n" * 256),
    "a very long path": TarBuilder().file("d/" * 9000 + "f"),
    "a very deep path": TarBuilder().file("d/" * 1001 + "f"),
    "a strange type": TarBuilder().add("v", b"V"),
    "a device number": TarBuilder().device("c", 70000, 1),
}  # fmt: skip


@pytest.mark.parametrize("data", [builder.bytes() for builder in HOSTILE.values()], ids=HOSTILE)
def test_a_hostile_layer_is_one_error_and_nothing_outside(tmp_path, data):
    (tmp_path / "in/side").mkdir(parents=True)
    with pytest.raises(ImageError) as caught:
        apply(data, tmp_path / "in/side/l")
    assert "\n" not in str(caught.value)
    assert set(tree(tmp_path)) - {"in", "in/side"} <= {
        f"in/side/{name}" for name in ("l", "l/s", "l/a", "l/b", "l/d", "l/h", "l/f", "l/etc")
    }


GOOD = TarBuilder().file("f", b"x" * 5000).file("g", b"y").bytes()


@pytest.mark.parametrize("cut", [1, 512, 600, 1500, len(GOOD) - 10240 + 700])
def test_a_cut_tar_is_an_error(tmp_path, cut):
    full = GOOD[: 512 + 5120 + 1024 + 1024]  # without the padding to a record
    with pytest.raises(Malformed):
        apply(full[:-cut], tmp_path / "l")


def test_something_after_the_end_is_an_error(tmp_path):
    with pytest.raises(Malformed, match="after its end"):
        apply(GOOD + b"garbage", tmp_path / "l")
    with pytest.raises(Malformed):
        apply(GOOD + GOOD, tmp_path / "m")


def test_a_damaged_header_is_an_error(tmp_path):
    with pytest.raises(Malformed, match="checksum"):
        apply(b"F" + GOOD[1:], tmp_path / "l")


def apply_blob(blob, directory):
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY)
    try:
        return apply_layer(blob, fd, LayerForm.probe(fd))
    finally:
        os.close(fd)


def test_what_a_layer_has_to_be_is_compared(tmp_path):
    packed = gzip.compress(GOOD)
    right = {"digest": digest_of(packed), "size": len(packed), "diff_id": digest_of(GOOD)}
    assert apply_blob(LayerBlob(io.BytesIO(packed), "gzip", **right), tmp_path / "l").entries == 2
    other = digest_of(b"other")
    for number, wrong in enumerate(({"digest": other}, {"size": 1}, {"diff_id": other})):
        with pytest.raises(Corrupt):
            apply_blob(
                LayerBlob(io.BytesIO(packed), "gzip", **right | wrong), tmp_path / f"{number}"
            )


def test_a_missing_end_is_no_error_where_the_diff_id_tells_that_it_is_whole(tmp_path):
    data = GOOD[: 512 + 5120 + 1024]
    blob = LayerBlob(io.BytesIO(data), diff_id=digest_of(data))
    assert apply_blob(blob, tmp_path / "l").entries == 2


def test_limits_are_kept_to(tmp_path):
    with pytest.raises(Refused, match="entries"):
        apply(GOOD, tmp_path / "entries", limits=Limits(entries=1))
    with pytest.raises(Refused, match="more than 1000 bytes"):
        apply(GOOD, tmp_path / "bytes", limits=Limits(total_bytes=1000))
    bomb = gzip.compress(TarBuilder().file("f", bytes(10 << 20)).bytes())
    with pytest.raises(Refused, match="times as large"):
        apply(bomb, tmp_path / "bomb", limits=Limits(ratio=100, ratio_from=1 << 20))
    assert apply(bomb, tmp_path / "allowed").entries == 1


def test_directories_that_have_no_entry_are_limited_too(tmp_path):
    data = TarBuilder().file("a/b/c/d/e/f").bytes()
    with pytest.raises(Refused, match="directories"):
        apply(data, tmp_path / "l", limits=Limits(entries=4))
    with pytest.raises(Refused, match="paths in the layer"):
        apply(data, tmp_path / "m", limits=Limits(names_bytes=20))


def test_notes_are_no_more_than_one_can_read(tmp_path):
    builder = TarBuilder()
    for number in range(100):
        headers = {f"SCHILY.xattr.nonsense.{number}": "x"}
        builder.file(f"{number}", pax_headers=headers)
    notes = apply(builder.bytes(), tmp_path / "l").notes
    assert len(notes) < 30
    assert "other attributes are not kept here (79 times)" in notes


def test_many_entries_of_one_name_are_refused(tmp_path):
    builder = TarBuilder()
    for _ in range(50):
        builder.file("same")
    with pytest.raises(Refused, match="names that it had"):
        apply(builder.bytes(), tmp_path / "l", limits=Limits(duplicates=40))


def test_a_directory_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "l").mkdir()
    (tmp_path / "l/x").touch()
    with pytest.raises(Refused, match="not empty"):
        apply(GOOD, tmp_path / "l")
