"""Eight processes at once on one union: nothing is lost, nothing is stale; see tests/stress.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.mounts import REPOSITORY

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(150), pytest.mark.data]

SECONDS = 15


def test_what_processes_write_and_hand_to_each_other_is_never_stale():
    # a process of its own: its workers, which may hang, and their pipes are none of pytest's
    command = [sys.executable, "-m", "tests.stress", "--seconds", f"{SECONDS}"]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=130, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
