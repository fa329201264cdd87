"""What is written into the upper, in each of its forms."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.core import CHAR_TRUSTED, CHAR_USER, WH_FILES
from unionfuse.layer import names
from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import is_opaque, scan
from unionfuse.layer.upper import Upper, UpperFormat, exists
from unionfuse.layer.workdir import Workdir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.layer.stack import LayerStack

# A plain user of an old kernel has the attributes and not the devices.
WH_USER = UpperFormat(char_whiteouts=False, prefix=names.USER)
FORMATS = [
    pytest.param(CHAR_TRUSTED, id="char-trusted", marks=pytest.mark.root),
    pytest.param(CHAR_USER, id="char-user"),
    pytest.param(WH_USER, id="wh-user"),
    pytest.param(WH_FILES, id="wh-files"),
]


@pytest.fixture
def workdir(stack: LayerStack, tmp_path: Path) -> Iterator[Workdir]:
    assert stack.upper is not None
    work = os.fsencode(tmp_path / "work")
    with contextlib.closing(Workdir.claim(work, stack.upper)) as claimed:
        yield claimed


@pytest.fixture(params=FORMATS)
def upper(request: pytest.FixtureRequest, workdir: Workdir) -> Upper:
    return Upper(workdir, request.param)


@pytest.fixture
def root(stack: LayerStack) -> LayerDir:
    assert stack.upper is not None
    return stack.upper


def test_a_whiteout_is_read_as_one(upper: Upper, root: LayerDir) -> None:
    upper.whiteout(root.fd(), b"gone")
    found = scan(root)
    assert (found.whiteouts, found.entries) == ({b"gone"}, [])


def test_a_whiteout_has_mode_0_like_the_kernels(workdir: Workdir, root: LayerDir) -> None:
    Upper(workdir, CHAR_USER).whiteout(root.fd(), b"gone")
    st = os.stat("gone", dir_fd=root.fd())
    assert (st.st_mode, st.st_rdev) == (stat.S_IFCHR, 0)


@pytest.mark.parametrize("is_dir", [False, True], ids=["file", "directory"])
def test_a_name_is_replaced_by_a_whiteout(upper: Upper, root: LayerDir, is_dir: bool) -> None:
    if is_dir:
        os.mkdir("name", dir_fd=root.fd())
        os.mknod("name/gone", stat.S_IFCHR, 0, dir_fd=root.fd())
    else:
        os.mknod("name", dir_fd=root.fd())
    upper.replace_by_whiteout(root.fd(), b"name", is_dir=is_dir)
    found = scan(root)
    assert (found.whiteouts, found.entries) == ({b"name"}, [])


def test_a_directory_goes_with_the_markers_in_it(upper: Upper, root: LayerDir) -> None:
    os.mkdir("dir", dir_fd=root.fd())
    directory = LayerDir(root, b"dir")
    upper.whiteout(directory.fd(), b"gone")
    upper.remove_directory(root.fd(), b"dir")
    assert not exists(root.fd(), b"dir")


@pytest.mark.parametrize("is_dir", [False, True], ids=["file", "directory"])
def test_publishing_takes_the_place_of_a_whiteout(
    upper: Upper, root: LayerDir, is_dir: bool
) -> None:
    upper.whiteout(root.fd(), b"name")
    if is_dir:
        os.mkdir("#x", dir_fd=upper.work_fd)
    else:
        os.mknod("#x", dir_fd=upper.work_fd)
    upper.publish(b"#x", root.fd(), b"name", is_dir)
    found = scan(root)
    assert found.entries == [(b"name", stat.S_IFDIR if is_dir else stat.S_IFREG)]
    assert found.whiteouts == set()
    assert not exists(upper.work_fd, b"#x")


def test_an_opaque_directory_is_read_as_one(upper: Upper, root: LayerDir) -> None:
    os.mkdir("dir", dir_fd=root.fd())
    upper.set_opaque(root.fd(), b"dir")
    upper.set_opaque(root.fd(), b"dir")
    assert is_opaque(LayerDir(root, b"dir"))


def test_a_marker_is_read_back_where_there_are_attributes(upper: Upper, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "upper")
    was_set = upper.set_marker(path, names.ORIGIN, b"value")
    assert was_set == (upper.format.prefix is not None)
    assert upper.get_marker(path, names.ORIGIN) == (b"value" if was_set else None)


def test_a_symlink_can_not_have_a_users_marker(workdir: Workdir, tmp_path: Path) -> None:
    (tmp_path / "upper/link").symlink_to("target")
    upper = Upper(workdir, CHAR_USER)
    path = b"/proc/self/fd/%d/link" % os.open(tmp_path / "upper", os.O_PATH)
    try:
        assert not upper.set_marker(path, names.ORIGIN, b"value")
    finally:
        os.close(int(path.split(b"/")[4]))


def test_the_best_form_is_found_out(workdir: Workdir) -> None:
    wanted = CHAR_TRUSTED if os.geteuid() == 0 else CHAR_USER
    assert UpperFormat.probe(workdir) == wanted
    assert os.listdir(f"/proc/self/fd/{workdir.work_fd}") == []


@pytest.fixture
def devices(workdir: Workdir) -> Upper:
    return Upper(workdir, CHAR_USER)


def inodes(root: LayerDir, *names: str) -> set[int]:
    return {os.stat(name, dir_fd=root.fd()).st_ino for name in names}


def test_whiteouts_are_links_of_one_inode(devices: Upper, root: LayerDir) -> None:
    os.mkdir("dir", dir_fd=root.fd())
    os.mknod("file", dir_fd=root.fd())
    devices.whiteout(root.fd(), b"gone")
    devices.replace_by_whiteout(root.fd(), b"file", is_dir=False)
    devices.replace_by_whiteout(root.fd(), b"dir", is_dir=True)
    assert len(inodes(root, "gone", "file", "dir")) == 1


def test_an_inode_of_whiteouts_is_followed_by_another(
    devices: Upper, root: LayerDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unionfuse.layer.upper._WHITEOUT_LINKS", 3)
    gone = [f"gone-{number}" for number in range(7)]
    for name in gone:
        devices.whiteout(root.fd(), os.fsencode(name))
    assert len(inodes(root, *gone)) == 3
    assert scan(root).whiteouts == {os.fsencode(name) for name in gone}


def test_a_whiteout_is_made_when_the_one_to_link_is_gone(
    devices: Upper, root: LayerDir, tmp_path: Path
) -> None:
    devices.whiteout(root.fd(), b"gone-1")
    (tmp_path / "work/whiteout").unlink()
    devices.whiteout(root.fd(), b"gone-2")
    devices.whiteout(root.fd(), b"gone-3")
    assert scan(root).whiteouts == {b"gone-1", b"gone-2", b"gone-3"}


def test_a_whiteout_of_an_earlier_mount_is_not_used(
    devices: Upper, root: LayerDir, tmp_path: Path
) -> None:
    (tmp_path / "work/whiteout").write_text("no whiteout")
    devices.whiteout(root.fd(), b"gone")
    assert scan(root).whiteouts == {b"gone"}


def test_a_whiteout_takes_no_name_that_is_there(devices: Upper, root: LayerDir) -> None:
    os.mknod("file", dir_fd=root.fd())
    with pytest.raises(FileExistsError):
        devices.whiteout(root.fd(), b"file")
