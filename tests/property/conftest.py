"""Where the property tests keep their many layers."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Make a directory, in memory where that has extended attributes (tmpfs since kernel 6.6)."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="unionfuse-test.", dir=MEMORY))
    try:
        yield path if _has_attributes(path) else tmp_path
    finally:
        shutil.rmtree(path)


def _has_attributes(path: Path) -> bool:
    try:
        os.setxattr(path, "user.test", b"")
    except OSError:
        return False
    return True
