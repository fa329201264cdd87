"""What /proc tells about a caller."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse.caller import is_in_group, may_keep_suid, visible_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterator

IS_ROOT = os.geteuid() == 0
NAMES = [b"user.test", b"trusted.test"]
NO_PROCESS = 1 << 22  # PID_MAX_LIMIT: no process has it


@pytest.fixture
def plain_process() -> Iterator[int]:
    """Return the pid of a process without capabilities, in groups 2000 and 2001."""
    user = {"user": 1001, "group": 1001, "extra_groups": [2000, 2001]} if IS_ROOT else {}
    with subprocess.Popen(["sleep", "60"], **user) as process:
        yield process.pid
        process.kill()


def test_we_keep_setuid_if_we_are_root() -> None:
    assert may_keep_suid(os.getpid(), os.geteuid()) == IS_ROOT


def test_a_plain_process_does_not(plain_process: int) -> None:
    assert not may_keep_suid(plain_process, 1001)


def test_a_plain_process_is_not_shown_trusted_attributes(plain_process: int) -> None:
    assert visible_xattrs(NAMES, plain_process, 1001) == [b"user.test"]


def test_a_process_with_the_capability_is() -> None:
    wanted = NAMES if IS_ROOT else [b"user.test"]
    assert visible_xattrs(NAMES, os.getpid(), os.geteuid()) == wanted


@pytest.mark.parametrize(("uid", "trusts"), [(0, True), (1001, False)])
def test_of_a_process_that_is_not_to_be_seen_the_uid_decides(uid: int, trusts: bool) -> None:
    assert may_keep_suid(NO_PROCESS, uid) == trusts
    assert (visible_xattrs(NAMES, NO_PROCESS, uid) == NAMES) == trusts


def test_a_process_is_in_its_own_group() -> None:
    assert is_in_group(NO_PROCESS, 5, 5)
    assert not is_in_group(NO_PROCESS, 5, 6)


@pytest.mark.root
def test_a_process_is_in_its_supplementary_groups(plain_process: int) -> None:
    assert is_in_group(plain_process, 1001, 2001)
    assert not is_in_group(plain_process, 1001, 2002)
    assert not is_in_group(plain_process, 1001, 200)
