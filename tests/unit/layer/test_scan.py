"""Every form of whiteout and opaque mark that is read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from unionfuse.layer.directory import LayerDir
from unionfuse.layer.scan import is_opaque, scan

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.layer.stack import LayerStack

ROOT = pytest.mark.root  # trusted.* is for root alone


@pytest.fixture
def directory(stack: LayerStack, tmp_path: Path) -> LayerDir:
    (tmp_path / "lower/dir").mkdir()
    return LayerDir(stack.lowers[0], b"dir")


@pytest.fixture
def path(directory: LayerDir, tmp_path: Path) -> Path:
    return tmp_path / "lower/dir"


def test_names_come_with_their_types(directory: LayerDir, path: Path) -> None:
    (path / "file").write_text("")
    (path / "sub").mkdir()
    (path / "link").symlink_to("sub")
    os.mkfifo(path / "fifo")
    os.mknod(path / "socket", stat.S_IFSOCK)
    assert sorted(scan(directory).entries) == [
        (b"fifo", stat.S_IFIFO),
        (b"file", stat.S_IFREG),
        (b"link", stat.S_IFLNK),
        (b"socket", stat.S_IFSOCK),
        (b"sub", stat.S_IFDIR),
    ]


@pytest.mark.parametrize("mode", [0, 0o700, 0o666], ids=oct)
def test_char_0_0_of_any_mode_is_a_whiteout(directory: LayerDir, path: Path, mode: int) -> None:
    os.mknod(path / "gone", stat.S_IFCHR | mode, 0)
    found = scan(directory)
    assert found.whiteouts == {b"gone"}
    assert found.entries == []


@pytest.mark.root
@pytest.mark.parametrize("device", [(1, 3), (0, 1)])
def test_other_devices_are_devices(
    directory: LayerDir, path: Path, device: tuple[int, int]
) -> None:
    os.mknod(path / "device", stat.S_IFCHR, os.makedev(*device))
    assert scan(directory).entries == [(b"device", stat.S_IFCHR)]


def test_a_wh_file_is_a_whiteout_of_the_rest_of_its_name(directory: LayerDir, path: Path) -> None:
    (path / ".wh.gone").touch()
    (path / os.fsdecode(b".wh.\xff")).touch()
    assert scan(directory).whiteouts == {b"gone", b"\xff"}


def test_a_wh_file_beside_its_name_leaves_that(directory: LayerDir, path: Path) -> None:
    (path / "name").touch()
    (path / ".wh.name").touch()
    found = scan(directory)
    assert found.entries == [(b"name", stat.S_IFREG)]
    assert found.whiteouts == {b"name"}


@pytest.mark.parametrize("name", [".wh..wh.aufs", ".wh..wh.plnk", ".wh..wh.orph", ".wh..wh.x"])
def test_files_of_aufs_are_neither_shown_nor_whiteouts(
    directory: LayerDir, path: Path, name: str
) -> None:
    (path / name).mkdir()
    found = scan(directory)
    assert (found.entries, found.whiteouts, found.opaque) == ([], set(), False)


@pytest.mark.parametrize(
    ("directory_xattr", "value"),
    [("opaque", b"x"), ("whiteouts", b"y"), ("whiteouts", b"")],
    ids=["6.8", "6.7", "6.7-empty"],
)
@pytest.mark.parametrize("namespace", [pytest.param("trusted", marks=ROOT), "user"])
def test_an_empty_file_with_the_attribute_is_a_whiteout(
    directory: LayerDir, path: Path, directory_xattr: str, value: bytes, namespace: str
) -> None:
    os.setxattr(path, f"{namespace}.overlay.{directory_xattr}", value)
    (path / "gone").touch()
    os.setxattr(path / "gone", f"{namespace}.overlay.whiteout", b"any")
    (path / "stays").touch()
    (path / "full").write_text("data")
    os.setxattr(path / "full", f"{namespace}.overlay.whiteout", b"any")
    found = scan(directory)
    assert found.whiteouts == {b"gone"}
    assert sorted(name for name, _ in found.entries) == [b"full", b"stays"]
    assert not found.opaque


def test_the_attribute_alone_makes_no_whiteout(directory: LayerDir, path: Path) -> None:
    (path / "file").touch()
    os.setxattr(path / "file", "user.overlay.whiteout", b"y")
    assert scan(directory).whiteouts == set()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("trusted.overlay.opaque", marks=ROOT),
        "user.overlay.opaque",
        "user.fuseoverlayfs.opaque",
    ],
)
@pytest.mark.parametrize(("value", "opaque"), [(b"y", True), (b"x", False), (b"n", False)])
def test_an_attribute_of_value_y_makes_a_directory_opaque(
    directory: LayerDir, path: Path, name: str, value: bytes, opaque: bool
) -> None:
    os.setxattr(path, name, value)
    assert is_opaque(directory) == opaque
    assert scan(directory).opaque == opaque


def test_the_opaque_file_makes_a_directory_opaque(directory: LayerDir, path: Path) -> None:
    (path / ".wh..wh..opq").touch()
    assert is_opaque(directory)
    found = scan(directory)
    assert (found.opaque, found.entries, found.whiteouts) == (True, [], set())


def test_a_directory_without_marks_is_not_opaque(directory: LayerDir) -> None:
    assert not is_opaque(directory)
    assert not scan(directory).opaque


def test_an_impure_directory_is_known(directory: LayerDir, path: Path) -> None:
    assert not scan(directory).impure
    os.setxattr(path, "user.overlay.impure", b"y")
    assert scan(directory).impure


def test_reading_leaves_the_access_time(directory: LayerDir, path: Path) -> None:
    (path / "file").touch()
    os.utime(path, ns=(1, 1))
    scan(directory)
    assert path.stat().st_atime_ns == 1
