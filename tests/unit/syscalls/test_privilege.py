"""Root, and root of a user namespace."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from unionfuse.syscalls.privilege import is_root

ASK = "from unionfuse.syscalls.privilege import is_root; print(is_root())"


def test_a_plain_user_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not is_root()


@pytest.mark.root
def test_root_is_one() -> None:
    assert is_root()


@pytest.mark.root
def test_root_of_a_user_namespace_is_none() -> None:
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", ASK]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout == "False\n"
