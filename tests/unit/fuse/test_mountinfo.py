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
    (tmp_path / "mountinfo").write_bytes(line + b"\n")
    monkeypatch.setattr(mountinfo, "_PATH", tmp_path / "mountinfo")
    options = (b"rw", b"noatime", b"idmapped")
    assert mountinfo.mounts() == [Mount(b"98:0", b"/mnt1", b"/mnt 2\\", options, b"ext3")]


def test_the_root_is_among_those_of_this_process() -> None:
    assert b"/" in {mount.mountpoint for mount in mountinfo.mounts()}
