"""mount(2) and umount2(2)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.syscalls.mount import MNT_DETACH, MS_RDONLY, mount, umount2

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.root
def test_flags_and_data_reach_the_kernel(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path)
    mount(b"tmpfs", path, b"tmpfs", MS_RDONLY, b"mode=0711")
    try:
        assert tmp_path.stat().st_mode & 0o777 == 0o711
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "file").touch()
    finally:
        umount2(path, MNT_DETACH)
    assert tmp_path.stat().st_mode & 0o777 != 0o711


@pytest.mark.root
def test_what_is_no_mount_can_not_be_unmounted(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        umount2(os.fsencode(tmp_path), 0)
