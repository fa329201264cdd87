"""How a layer is kept by root, by root of a user namespace, and by one user alone."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tars import MTIME, TarBuilder, apply, tree, xattrs
from tests.support.users import NOBODY, acting_as, run_in_user_namespace
from unionfuse.image.errors import Refused
from unionfuse.image.layers.form import LayerForm
from unionfuse.image.layers.implied import complete_implied
from unionfuse.image.layers.index import IndexWriter, read_index
from unionfuse.image.layers.pack import PackOptions, pack_merged
from unionfuse.image.layers.verify import verify_layer
from unionfuse.offline.layers import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may use."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def layer(*, devices: bool = True) -> bytes:
    builder = (
        TarBuilder()
        .dir("./", mode=0o755)
        .dir("d", mode=0o2711, uid=7, gid=8)
        .file("d/f", b"data", mode=0o4555, uid=1001, gid=1002)
        .file("d/g", b"g", mode=0, pax_headers=xattrs(user__k="v", security__k="secret"))
        .link("d/h", "d/f")
        .fifo("p")
        .symlink("s", "d")
    )
    if devices:
        builder.device("c", 1, 3)
    return builder.file("d/.wh.gone").bytes()


def form_of(path: Path) -> LayerForm:
    fd = os.open(path, os.O_RDONLY)
    try:
        return LayerForm.probe(fd)
    finally:
        os.close(fd)


def repacked(path: Path) -> bytes:
    out = io.BytesIO()
    with opened(None, [os.fsencode(path)]) as stack:
        pack_merged(stack, out.write, PackOptions(with_root=True))
    return out.getvalue()


def same_by_index(path: Path, writer: IndexWriter, form: LayerForm) -> bool:
    out = io.BytesIO()
    writer.write(out.write, form)
    fd = os.open(path, os.O_RDONLY)
    try:
        return not list(verify_layer(fd, *read_index(io.BytesIO(out.getvalue()))))
    finally:
        os.close(fd)


def test_root_keeps_all_on_disk(tmp_path: Path) -> None:
    form = form_of(tmp_path)
    assert (form.owners, form.devices, form.override) == (True, True, None)
    assert form.markers.prefix == b"trusted.overlay."
    assert os.listdir(tmp_path) == []


def test_one_user_keeps_owners_and_kinds_in_an_attribute(public: Path) -> None:
    with acting_as(NOBODY):
        applied = apply(layer(), public / "l")
    found = public / "l"
    assert os.getxattr(found, "user.containers.override_stat") == b"0:0:0755:dir"
    assert os.getxattr(found / "d/f", "user.containers.override_stat") == b"1001:1002:4555:file"
    assert os.getxattr(found / "c", "user.containers.override_stat") == b"0:0:0644:char-1-3"
    assert os.getxattr(found / "d/g", "user.containers.override_security.k") == b"secret"
    assert tree(found) == {
        "c": "-rwxr-xr-x", "d": "drwxr-xr-x", "d/f": "-rwxr-xr-x", "d/g": "-rwxr-xr-x",
        "d/gone": "whiteout", "d/h": "-rwxr-xr-x", "p": "-rwxr-xr-x", "s": "lrwxrwxrwx",
    }  # fmt: skip
    assert {path.lstat().st_uid for path in (found / "d/f", found / "s")} == {NOBODY}
    assert (found / "d").stat().st_mtime == MTIME
    assert applied.notes == ()


def test_what_one_user_keeps_is_what_root_has(public: Path) -> None:
    with acting_as(NOBODY):
        apply(layer(), public / "user")
        by_user = repacked(public / "user")
    apply(layer(), public / "root")
    assert by_user.replace(b"user.containers", b"") == repacked(public / "root")


def test_what_one_user_keeps_is_verified(public: Path) -> None:
    writer = IndexWriter()
    with acting_as(NOBODY):
        form = LayerForm(form_of(public).markers, owners=False, devices=False)
        apply(layer(), public / "l", index=writer)
        assert same_by_index(public / "l", writer, form)
        os.setxattr(public / "l/d/f", "user.containers.override_stat", b"0:0:4555:file")
        assert not same_by_index(public / "l", writer, form)


@pytest.mark.userns
def test_a_namespace_keeps_owners_and_no_devices(public: Path) -> None:
    (public / "l").mkdir()

    def work() -> int:
        form = form_of(public)
        writer = IndexWriter()
        applied = apply(layer(), public / "l", index=writer)
        assert (form.owners, form.devices) == (True, False)
        assert form.markers.prefix == b"user.overlay."
        assert applied.notes == (
            "devices can not be made here: an empty file is in the place (1 times)",
            "the attribute security.k is not kept here (1 times)",
        )
        assert same_by_index(public / "l", writer, form)
        return 0

    assert run_in_user_namespace(work) == 0
    st = (public / "l/d/f").stat()
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (1001, 1002, 0o4555)
    assert tree(public / "l")["d/gone"] == "whiteout"
    assert stat.S_ISREG((public / "l/c").stat().st_mode)


@pytest.mark.userns
def test_an_owner_that_is_not_mapped_is_one_error(public: Path) -> None:
    def work() -> int:
        with pytest.raises(Refused, match="none of those that are mapped"):
            apply(TarBuilder().file("f", uid=100_000).bytes(), public / "l")
        return 0

    assert run_in_user_namespace(work) == 0


def completed(target: Path, implied: tuple[bytes, ...], *lowers: Path) -> list[bytes]:
    fds = [os.open(path, os.O_RDONLY) for path in (target, *lowers)]
    try:
        return complete_implied(fds[0], implied, fds[1:])
    finally:
        for fd in fds:
            os.close(fd)


def test_implied_directories_are_as_the_topmost_layer_below_has_them(tmp_path: Path) -> None:
    top = TarBuilder().dir("a", mode=0o700, uid=5, pax_headers=xattrs(user__k="v"))
    bottom = TarBuilder().dir("./", mode=0o711).dir("a", mode=0o777).dir("a/b", mode=0o1777)
    apply(top.bytes(), tmp_path / "top")
    apply(bottom.bytes(), tmp_path / "bottom")
    applied = apply(TarBuilder().file("a/b/c/f").bytes(), tmp_path / "l")
    lowers = (tmp_path / "top", tmp_path / "bottom")
    assert completed(tmp_path / "l", applied.implied, *lowers) == [b"", b"a", b"a/b"]
    st = (tmp_path / "l/a").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_mtime) == (0o700, 5, MTIME)
    assert os.getxattr(tmp_path / "l/a", "user.k") == b"v"
    assert stat.S_IMODE((tmp_path / "l/a/b").stat().st_mode) == 0o1777
    assert stat.S_IMODE((tmp_path / "l/a/b/c").stat().st_mode) == 0o755


def test_implied_directories_do_not_take_what_is_hidden_below(tmp_path: Path) -> None:
    apply(TarBuilder().file(".wh.a").bytes(), tmp_path / "top")
    apply(TarBuilder().dir("a", mode=0o700).bytes(), tmp_path / "bottom")
    applied = apply(TarBuilder().file("a/f").bytes(), tmp_path / "l")
    lowers = (tmp_path / "top", tmp_path / "bottom")
    assert completed(tmp_path / "l", applied.implied, *lowers) == [b""]
    assert stat.S_IMODE((tmp_path / "l/a").stat().st_mode) == 0o755
