"""The kernel's table of mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unionfuse.fuse import mountinfo
from unionfuse.fuse.mountinfo import Mount

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_line_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = (
        rb"36 35 98:0 /mnt1 /mnt\0402\134 rw,noatime,idmapped master:1 shared:2 - ext3 /dev/root rw"
    )
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_bytes(line + b"\n")
    monkeypatch.setattr(mountinfo, "_PROC", tmp_path)
    options = (b"rw", b"noatime", b"idmapped")
    assert mountinfo.mounts() == [Mount(b"98:0", b"/mnt1", b"/mnt 2\\", options, b"ext3")]


def test_the_root_is_among_those_of_this_process() -> None:
    assert b"/" in {mount.mountpoint for mount in mountinfo.mounts()}


def process(proc, pid, namespace, device):
    """Write down a process as proc(5) tells of it."""
    (proc / pid / "ns").mkdir(parents=True)
    (proc / pid / "ns/mnt").symlink_to(f"mnt:[{namespace}]")
    line = f"1 1 {device} / /mnt rw - fuse.unionfuse union rw"
    (proc / pid / "mountinfo").write_text(f"{line}\n")


def test_holders_of_a_filesystem_are_those_with_another_namespace(tmp_path, monkeypatch):
    process(tmp_path, "self", 1, "0:7")
    process(tmp_path, "10", 1, "0:7")
    process(tmp_path, "11", 2, "0:8")
    process(tmp_path, "12", 3, "0:7")
    (tmp_path / "13").mkdir()  # has just ended
    monkeypatch.setattr(mountinfo, "_PROC", tmp_path)
    assert mountinfo.holders_of(b"0:7") == [12]
    assert mountinfo.holders_of(b"0:9") == []
