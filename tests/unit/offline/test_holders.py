"""Who uses an upper."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.offline.errors import OfflineError
from unionfuse.offline.holders import held, holder_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def upper(tmp_path: Path) -> bytes:
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    return os.fsencode(tmp_path / "upper")


def test_what_nobody_uses_is_free(upper: bytes) -> None:
    assert holder_of(upper, None) is None
    with held(upper, os.path.join(os.path.dirname(upper), b"work")):
        pass


@pytest.mark.parametrize("locked", [b"upper", b"work"])
def test_a_lock_on_the_upper_or_the_workdir_is_a_mount(locked: bytes, upper: bytes) -> None:
    base = os.path.dirname(upper)
    fd = os.open(os.path.join(base, locked), os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert "in use by a mount of unionfuse" in (holder_of(upper, base + b"/work") or "")
        with pytest.raises(OfflineError, match="unmount it first"), held(upper, base + b"/work", 0):
            pass
    finally:
        os.close(fd)
    assert holder_of(upper, base + b"/work") is None


def test_what_is_held_can_not_be_mounted_meanwhile(upper: bytes) -> None:
    with held(upper, None):
        assert "in use" in (holder_of(upper, None) or "")
