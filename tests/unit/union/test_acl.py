"""Inheritance of default ACLs is what the filesystem below makes of them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.tree import ACLS, acl
from unionfuse.union.acl import inherit

if TYPE_CHECKING:
    from pathlib import Path

MODES = [0o777, 0o755, 0o644, 0o600, 0o070, 0o007, 0o000, 0o4711, 0o1777]
MORE = (
    acl(("user_obj", 0), ("group_obj", 0), ("other", 0)),
    acl(("user_obj", 7), ("group_obj", 7), ("mask", 1), ("other", 7)),
)


@pytest.mark.parametrize("default", [*ACLS, *MORE], ids=range(len(ACLS) + len(MORE)))
@pytest.mark.parametrize("mode", MODES, ids=oct)
def test_a_file_gets_what_the_filesystem_would_give_it(
    default: bytes, mode: int, tmp_path: Path
) -> None:
    os.setxattr(tmp_path, "system.posix_acl_default", default)
    os.close(os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY, mode))
    wanted_mode = stat.S_IMODE((tmp_path / "file").stat().st_mode)
    wanted = None
    if "system.posix_acl_access" in os.listxattr(tmp_path / "file"):
        wanted = os.getxattr(tmp_path / "file", "system.posix_acl_access")
    assert inherit(default, mode) == (wanted, wanted_mode)
