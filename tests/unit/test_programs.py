"""The programs that are installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mounts import REPOSITORY

PROGRAMS = sorted(path.name for path in (REPOSITORY / "contrib/bin").iterdir())


def test_there_are_those_that_users_and_mount_call() -> None:
    assert PROGRAMS == [
        "mount.fuse.unionfuse",
        "mount.unionfuse",
        "umount.fuse.unionfuse",
        "unionfuse",
        "unionfuse-overlay",
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_is_installed_beside_the_interpreter_and_runs(name: str) -> None:
    program = Path(sys.executable).with_name(name)
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert name in done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_imports_nothing_but_what_it_runs(name: str) -> None:
    lines = (REPOSITORY / "contrib/bin" / name).read_text().splitlines()
    assert len([line for line in lines if "import" in line]) == 1
    assert lines[1].startswith("from unionfuse.cli")
