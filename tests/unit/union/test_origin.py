"""Origins: the kernel's own form, and the inode numbers read from them."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from unionfuse.layer.names import TRUSTED
from unionfuse.union.origin import InodeNumbers, Origins, _ino_of_handle

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.layer.stack import LayerStack

HEADER = struct.Struct("=BBBBB16s")


def test_an_origin_leads_back_to_its_file(stack: LayerStack, tmp_path: Path) -> None:
    (tmp_path / "lower/file").write_text("")
    origins = Origins(stack.lowers)
    st = (tmp_path / "lower/file").stat()
    value = origins.encode(stack.lowers[0], b"file", st.st_dev)
    assert value is not None
    assert origins.decode(value) == (st.st_dev, st.st_ino)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_the_kernel_writes_the_same_origin(stack: LayerStack, tmp_path: Path, kind: str) -> None:
    lower = tmp_path / "lower/name"
    if kind == "file":
        lower.write_text("data")
    elif kind == "directory":
        lower.mkdir()
    else:
        lower.symlink_to("target")
    for name in ("up", "work", "mnt"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/up,workdir={tmp_path}/work,index=on"
    command = ["mount", "-t", "overlay", "-o", options, "overlay", str(tmp_path / "mnt")]
    subprocess.run(command, check=True, timeout=30)
    try:
        os.chown(tmp_path / "mnt/name", 1001, 1001, follow_symlinks=False)
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True, timeout=30)
    xattr = os.fsdecode(TRUSTED) + "origin"
    written = os.getxattr(tmp_path / "up/name", xattr, follow_symlinks=False)
    device = lower.lstat().st_dev
    assert Origins(stack.lowers).encode(stack.lowers[0], b"name", device) == written


@pytest.mark.parametrize(
    ("handle_type", "fid", "ino"),
    [
        pytest.param(0x01, struct.pack("=II", 4711, 99), 4711, id="ext4"),
        pytest.param(0x01, struct.pack("=IQ", 99, 1 << 40), 1 << 40, id="tmpfs"),
        pytest.param(0x81, struct.pack("=QI", 1 << 40, 99), 1 << 40, id="xfs"),
        pytest.param(0x4D, struct.pack("=QQI", 257, 5, 99), 257, id="btrfs"),
        pytest.param(0x4D, struct.pack("=QQ", 257, 5), None, id="too-short"),
        pytest.param(0x77, struct.pack("=II", 4711, 99), None, id="unknown"),
    ],
)
def test_inode_numbers_are_read_from_the_handles_of_filesystems(
    handle_type: int, fid: bytes, ino: int | None
) -> None:
    assert _ino_of_handle(handle_type, fid) == ino


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda value: b"", id="empty"),
        pytest.param(lambda value: value[: HEADER.size], id="no handle"),
        pytest.param(lambda value: value[:1] + b"\xfa" + value[2:], id="wrong magic"),
        pytest.param(lambda value: b"\x01" + value[1:], id="newer version"),
        pytest.param(lambda value: value[:3] + bytes([value[3] ^ 1]) + value[4:], id="byte order"),
        pytest.param(lambda value: value[:5] + b"\xee" * 16 + value[21:], id="foreign filesystem"),
    ],
)
def test_an_origin_that_is_not_ours_leads_nowhere(
    stack: LayerStack, tmp_path: Path, change: object
) -> None:
    (tmp_path / "lower/file").write_text("")
    origins = Origins(stack.lowers)
    value = origins.encode(stack.lowers[0], b"file", (tmp_path / "lower").stat().st_dev)
    assert value is not None
    assert callable(change)
    assert origins.decode(change(value)) is None


def test_numbers_of_the_first_filesystem_are_shown_as_they_are() -> None:
    assert InodeNumbers([10, 11]).number((10, 4711)) == 4711


def test_numbers_of_other_filesystems_do_not_meet_them() -> None:
    numbers = InodeNumbers([10, 11, 10, 12])
    found = {numbers.number((device, 4711)) for device in (10, 11, 12)}
    assert len(found) == 3
    assert numbers.number((11, 4711)) == numbers.number((11, 4711))


@pytest.mark.root
def test_layers_of_two_filesystems_have_different_numbers(tmp_path: Path) -> None:
    from tests.support.core import Driver
    from unionfuse.union.fs import UnionFs

    for name in ("disk", "memory", "upper"):
        (tmp_path / name).mkdir()
    command = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "memory")]
    subprocess.run(command, check=True, timeout=30)
    try:
        for name in ("disk", "memory"):
            (tmp_path / name / name).write_text("data")
        paths = [os.fsencode(tmp_path / name) for name in ("disk", "memory", "upper", "work")]
        with contextlib.closing(Driver(UnionFs.from_paths(paths[:2], paths[2], paths[3]))) as d:
            before = {name: d.stat(name).ino for name in (b"disk", b"memory")}
            assert before[b"memory"] != (tmp_path / "memory/memory").stat().st_ino
            for name in before:
                d.chmod(name, 0o600)
            assert {name: d.stat(name).ino for name in before} == before
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "memory")], check=True, timeout=30)


def test_without_xino_numbers_are_those_of_the_filesystems() -> None:
    assert InodeNumbers([1, 2], is_unique=False).number((2, 7)) == 7
    assert InodeNumbers([1, 2]).number((2, 7)) != 7
